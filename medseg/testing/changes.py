"""The same image as another microscope would have given it: changes under which a model should find the same objects.

Each takes and gives voxels (C, *shape) of about 0 to 1, and is the same for the same generator.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from medseg.image import Image

Floats = NDArray[np.float32]
Change = Callable[[Floats, np.random.Generator], Floats]


def gamma(value: float) -> Change:
    """Brighten (below 1) or darken the middle tones."""
    return lambda image, rng: np.clip(image, 0, 1) ** np.float32(value)


def blur(sigma: float) -> Change:
    """Out of focus, by a Gaussian of so many pixels."""
    return lambda image, rng: gaussian_filter(image, (0, *[sigma] * (image.ndim - 1)))


def noise(amount: float) -> Change:
    """Gaussian noise of a standard deviation that is this share of the range."""
    return lambda image, rng: image + rng.normal(0, amount, image.shape).astype(np.float32)


def invert() -> Change:
    """Light and dark change places."""
    return lambda image, rng: 1 - image


def permute() -> Change:
    """Channels in another order."""
    return lambda image, rng: image[rng.permutation(len(image))]


def distract(count: int) -> Change:
    """So many channels more, which show noise, haze of the other channels, or structures that are no objects."""

    def change(image: Floats, rng: np.random.Generator) -> Floats:
        extra = []
        for number in range(count):
            field = rng.normal(0, 1, image.shape[1:])
            if number % 3 == 0:
                extra.append(0.5 + 0.15 * field)
            elif number % 3 == 1:
                extra.append(gaussian_filter(image.mean(axis=0), 15) + 0.03 * field)
            else:
                smooth = gaussian_filter(field, 4)
                extra.append(0.4 + 0.2 * smooth / smooth.std())
        return np.concatenate([image, np.stack(extra).astype(np.float32)])[rng.permutation(len(image) + count)]

    return change


def changed(image: Image, change: Change | None, seed: str) -> Floats:
    """Voxels (C, *shape) of an image, 0 to 1 over its whole range, after a change whose chance follows from the seed."""
    voxels = image.voxels().astype(np.float32)
    low, high = voxels.min(), voxels.max()
    voxels = (voxels - low) / max(float(high - low), 1e-6)
    return voxels if change is None else change(voxels, np.random.default_rng(zlib.crc32(seed.encode())))


def rescale(image: Floats, labels: NDArray[np.int32], factor: float) -> tuple[Floats, NDArray[np.int32]]:
    """Image and ids at another magnification, edges aligned; shrinking averages what a coarser pixel would."""
    if factor < 1:
        image = gaussian_filter(image, (0, *[0.4 / factor] * (image.ndim - 1)))
    size = [max(1, round(n * factor)) for n in labels.shape]
    steps = [s / n for s, n in zip(size, labels.shape, strict=True)]
    out = np.stack([zoom(c, steps, order=1, mode="nearest", grid_mode=True) for c in image])
    ids: NDArray[np.int32] = zoom(labels, steps, order=0, mode="nearest", grid_mode=True)
    return out.astype(np.float32), ids.astype(np.int32)
