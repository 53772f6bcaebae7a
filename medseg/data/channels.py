"""Channels of a training sample: fewer, more, mixed, in another order; for networks that take any.

As in `medseg.data.augment`, every function draws from the generator it is given and from nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

Floats = NDArray[np.float32]


def compose(rng: np.random.Generator, image: Floats, labels: NDArray[np.int32], count: int) -> Floats:
    """Show an image in ``count`` channels: some of its own or mixtures of them, or all of them and distractors, in any order.

    Parameters
    ----------
    image
        (C, *shape), about 0 to 1.
    labels
        (*shape), from which a distractor may borrow where cells are.
    count
        Channels wanted.

    Returns
    -------
    ndarray of float32, (count, *shape)
    """
    have = image.shape[0]
    if count == have:
        return image[rng.permutation(have)] if have > 1 else image
    if count < have:
        if rng.random() < 0.5:
            return image[rng.permutation(have)[:count]]
        share = rng.dirichlet(np.ones(have), size=count).astype(np.float32)
        return np.tensordot(share, image, axes=1)
    if have == 1 and rng.random() < 0.4:
        return tint(rng, np.repeat(image, count, axis=0))
    extra = [distractor(rng, image, labels) for _ in range(count - have)]
    return np.concatenate([image, np.stack(extra)])[rng.permutation(count)]


def distractor(rng: np.random.Generator, image: Floats, labels: NDArray[np.int32]) -> Floats:
    """Another channel of the same field: empty, noise, structures that are no objects, a faint copy, or the cells around."""
    spatial = image.shape[1:]
    noise = rng.normal(0, 1, spatial)
    kind = rng.integers(5)
    if kind == 0:  # an empty channel, whose noise the preprocessing stretches to the full range
        out = 0.5 + 0.2 * noise
    elif kind == 1:  # structures of any size
        smooth = gaussian_filter(noise, np.exp(rng.uniform(np.log(1), np.log(12))))
        out = np.clip(0.3 + 0.3 * smooth / max(float(smooth.std()), 1e-6), 0, None) ** rng.uniform(1, 2)
    elif kind == 2:  # bleed-through
        out = rng.uniform(0.05, 0.5) * image[rng.integers(image.shape[0])] + 0.05 * noise
    elif kind == 3:  # cytoplasm around the objects, brighter or darker in some
        reach = int(rng.integers(5, 19))
        level = rng.uniform(0.3, 1, int(labels.max(initial=0)) + 1)
        level[0] = 0.05
        around = maximum_filter(labels, size=reach)
        cells = np.where(labels > 0, rng.uniform(0.1, 1) * level[labels], level[around])
        out = gaussian_filter(cells, rng.uniform(1, 3)) + 0.05 * noise
    else:  # out of focus
        out = gaussian_filter(image[rng.integers(image.shape[0])], rng.uniform(6, 20)) + 0.05 * noise
    return np.asarray(out, dtype=np.float32)


def tint(rng: np.random.Generator, image: Floats) -> Floats:
    """A gray image shown in one colour, as viewers save fluorescence: blue, green, magenta."""
    share = rng.dirichlet(np.full(image.shape[0], 0.5)).astype(np.float32)
    tinted: Floats = image * (share / share.max()).reshape(-1, *[1] * (image.ndim - 1))
    return tinted


def mix_channels(rng: np.random.Generator, image: Floats) -> Floats:
    """Permute, gray out, or turn colours by a random matrix near identity."""
    n = image.shape[0]
    kind = rng.integers(3)
    if kind == 0:
        return image[rng.permutation(n)]
    if kind == 1:
        share = rng.dirichlet(np.ones(n)).astype(np.float32)
        return np.repeat(np.tensordot(share, image, axes=1)[None], n, axis=0)
    matrix = np.eye(n) + rng.normal(0, 0.2, (n, n))
    matrix /= np.abs(matrix).sum(axis=1, keepdims=True)
    mixed: Floats = np.tensordot(matrix.astype(np.float32), image, axes=1)
    return mixed
