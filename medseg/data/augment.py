"""Random changes of a training sample: where it is taken from, and how it was imaged.

All functions draw from the generator they are given and from nothing else, so that a sample is the same on every
machine. Images are float32, channel first, about 0..1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates, zoom
from scipy.spatial.transform import Rotation

from medseg.data.channels import mix_channels, tint
from medseg.spec import AugmentSpec

Floats = NDArray[np.float32]


def coordinates(
    rng: np.random.Generator,
    spec: AugmentSpec,
    centre: NDArray[np.float64],
    size: tuple[int, ...],
    patch: tuple[int, ...],
    spacing: tuple[float, ...],
    zooms: tuple[float, float] | None = None,
    jitter: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Where each voxel of a patch is taken from.

    Parameters
    ----------
    centre
        Index in the image on which the patch is centred, per axis; moved inwards where most of the patch would lie outside.
    size
        Shape of the image.
    patch
        Shape of the patch.
    spacing
        Of the image; only axes whose voxels are of nearly one size turn into each other.
    zooms
        Range of the magnification, if not that of `spec`.
    jitter
        Shift of the centre, in voxels of the patch.

    Returns
    -------
    coords : ndarray, (ndim, *patch)
        Image indices.
    zoom : float
        Magnification: above 1, objects come out larger.
    """
    ndim = len(patch)
    factor = float(np.exp(rng.uniform(*np.log(zooms or spec.scale))))
    stretch = np.exp(rng.uniform(-1, 1, ndim) * np.log(spec.stretch))
    if jitter is not None:
        centre = centre + jitter / factor
    half = 0.4 * np.array(patch) / (factor * stretch)
    middle = (np.array(size) - 1) / 2
    centre = np.clip(centre, np.minimum(half, middle), np.maximum(np.array(size) - 1 - half, middle))
    grid = np.stack(np.meshgrid(*[np.arange(p) - (p - 1) / 2 for p in patch], indexing="ij"))
    if rng.random() < spec.p_elastic and spec.elastic > 0:
        grid = grid + elastic(rng, spec.elastic, patch)
    matrix = np.eye(ndim)
    if spec.rotate and ndim == 3 and max(spacing) < 1.5 * min(spacing):
        matrix = random_rotation(rng, spec.rotate)
    elif spec.rotate and (plane := _plane(spacing)):
        most = np.deg2rad(spec.rotate)
        angle = rng.uniform(0, 2 * np.pi) if spec.rotate == 180 else rng.uniform(-most, most)
        c, s = np.cos(angle), np.sin(angle)
        matrix[np.ix_(plane, plane)] = [[c, -s], [s, c]]
    sides = rng.choice([-1.0, 1.0], ndim) if spec.flip else np.ones(ndim)
    matrix = matrix @ np.diag(sides) @ np.diag(1 / (factor * stretch))
    coords = np.tensordot(matrix, grid, axes=1) + centre.reshape(-1, *[1] * ndim)
    return coords, factor


def _plane(spacing: tuple[float, ...]) -> tuple[int, int] | None:
    """Two axes whose voxels are of nearly one size, the last ones first; None if there are none."""
    for a, b in ((-2, -1), (-3, -2), (-3, -1)):
        if -a <= len(spacing) and max(spacing[a], spacing[b]) < 1.5 * min(spacing[a], spacing[b]):
            return len(spacing) + a, len(spacing) + b
    return None


def random_rotation(rng: np.random.Generator, degrees: float = 180) -> NDArray[np.float64]:
    """Any rotation in space, mirrored or not (QR of a Gaussian matrix), or one of up to so many degrees about any axis."""
    if degrees == 180:
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        return np.asarray(q * np.sign(np.diag(r)))
    axis = rng.normal(size=3)
    turn = np.deg2rad(rng.uniform(0, degrees))
    return np.asarray(Rotation.from_rotvec(turn * axis / np.linalg.norm(axis)).as_matrix())


def elastic(rng: np.random.Generator, size: float, patch: tuple[int, ...]) -> NDArray[np.float64]:
    """Smooth random shifts of up to ``size`` voxels, (ndim, *patch), from a coarse random grid."""
    coarse = tuple(max(2, round(p / 24)) for p in patch)
    amount = rng.uniform(0, size)
    return np.stack([smooth_field(rng, coarse, patch) * amount for _ in patch])


def smooth_field(rng: np.random.Generator, coarse: tuple[int, ...], patch: tuple[int, ...]) -> NDArray[np.float64]:
    """Random values in -1..1 on a coarse grid, interpolated to the patch."""
    values = rng.uniform(-1, 1, coarse)
    return np.asarray(zoom(values, [p / c for p, c in zip(patch, coarse, strict=True)], order=1, mode="nearest"))


def take(
    image: Floats, labels: NDArray[np.int32], coords: NDArray[np.float64], factor: float
) -> tuple[Floats, NDArray[np.int32], NDArray[np.bool_]]:
    """Read a patch: image linearly and mirrored at its border, labels by nearest voxel, and where nothing is known.

    Returns
    -------
    image, labels, outside
        ``outside`` is True beyond the image and where nobody annotated (label -1): the loss must not count it.
    """
    ndim = labels.ndim
    low = np.maximum(np.floor(coords.reshape(ndim, -1).min(axis=1)).astype(int) - 3, 0)
    high = np.ceil(coords.reshape(ndim, -1).max(axis=1)).astype(int) + 4
    box = tuple(slice(a, max(b, a + 2)) for a, b in zip(np.minimum(low, np.array(labels.shape) - 2), high, strict=True))
    shift = coords - np.array([s.start for s in box]).reshape(-1, *[1] * ndim)
    source = image[(slice(None), *box)]
    if factor < 0.8:  # shrinking: what a coarser pixel would have averaged
        source = gaussian_filter(source, (0, *[0.4 / factor] * ndim))
    out = np.stack([map_coordinates(c, shift, order=1, mode="mirror") for c in source]).astype(np.float32)
    size = np.array(labels.shape).reshape(-1, *[1] * ndim)
    outside = ((coords < -0.5) | (coords > size - 0.5)).any(axis=0)
    ids: NDArray[np.int32] = map_coordinates(labels[box], shift, order=0, mode="nearest").astype(np.int32)
    outside |= ids < 0
    ids[outside] = 0
    return out, ids, np.asarray(outside)


def intensities(rng: np.random.Generator, spec: AugmentSpec, image: Floats, apart: bool = False) -> Floats:
    """Another microscope, stain, exposure: every step with its own chance, in the order light would meet them.

    With ``apart`` every channel has a contrast and an offset of its own.
    """
    spatial = image.shape[1:]
    gray = bool((image == image[:1]).all())
    if image.shape[0] > 1 and rng.random() < spec.p_channels:
        image = tint(rng, image) if gray else mix_channels(rng, image)
    if rng.random() < spec.p_invert:
        image = 1 - image
    if rng.random() < spec.p_gamma:
        image = np.clip(image, 0, None) ** np.float32(np.exp(rng.uniform(*np.log(spec.gamma))))
    if rng.random() < spec.p_shading:
        field = smooth_field(rng, tuple(3 for _ in spatial), spatial)
        image = image * (1 + rng.uniform(0.1, 0.7) * field).astype(np.float32)
    if rng.random() < spec.p_blur:
        sigma = rng.uniform(*spec.blur)
        image = gaussian_filter(image, (0, *[sigma] * len(spatial)))
    if spec.p_coarse and rng.random() < spec.p_coarse:
        image = thick(rng, spec.coarse, image)
    if rng.random() < spec.p_levels:
        count = image.shape[0] if apart else 1
        factor = np.exp(rng.uniform(np.log(0.4), np.log(1.8), count)).reshape(-1, *[1] * len(spatial))
        shift = rng.uniform(-0.15, 0.15, count).reshape(-1, *[1] * len(spatial))
        image = (image * factor + shift).astype(np.float32)
    if rng.random() < spec.p_noise:
        amount = np.exp(rng.uniform(*np.log(spec.noise)))
        noise = rng.normal(0, amount, (1 if gray else image.shape[0], *spatial))  # gray has one detector
        if rng.random() < 0.5:  # shot noise grows with the signal
            noise *= np.sqrt(np.clip(image[: len(noise)], 0.01, 1))
        image = image + noise.astype(np.float32)
    return np.clip(image, -0.5, 2).astype(np.float32)


def thick(rng: np.random.Generator, thickness: tuple[float, float], image: Floats) -> Floats:
    """Average voxels along one axis to thick slices, each channel's own, and interpolate between them again."""
    out = image.copy()
    for c in range(len(image)):
        axis = int(rng.integers(image.ndim - 1))
        length = image.shape[axis + 1]
        count = max(2, round(length / float(np.exp(rng.uniform(*np.log(thickness))))))
        edges = np.round(np.linspace(0, length, count + 1)).astype(int)
        means = np.add.reduceat(image[c], edges[:-1], axis=axis)
        shape = [-1 if a == axis else 1 for a in range(image.ndim - 1)]
        means /= np.diff(edges).reshape(shape).astype(np.float32)
        middle = (edges[:-1] + edges[1:] - 1) / 2
        at = np.clip(np.interp(np.arange(length), middle, np.arange(count)), 0, count - 1)
        low = np.minimum(at.astype(int), count - 2)
        part = (at - low).reshape(shape).astype(np.float32)
        out[c] = (1 - part) * np.take(means, low, axis) + part * np.take(means, low + 1, axis)
    return out


def paste(
    rng: np.random.Generator,
    image: Floats,
    labels: NDArray[np.int32],
    outside: NDArray[np.bool_],
    donor: tuple[Floats, NDArray[np.int32], NDArray[np.bool_]],
) -> tuple[Floats, NDArray[np.int32], NDArray[np.int32]]:
    """Put some whole instances of another patch where there is none (Ghiasi et al. 2021, arXiv:2012.07177).

    Pasted instances may touch those that are there, but cover none. Their border is blended over a voxel.

    Returns
    -------
    image, labels, pasted
        ``pasted`` are ids of the donor; the first of them became the largest old id + 1, and so on.
    """
    other, ids, beyond = donor
    cut = [np.unique(np.take(ids, side, axis=axis)) for axis in range(ids.ndim) for side in (0, -1)]
    # where the image ended or nobody annotated, an object may go on
    cut.append(np.unique(ids[binary_dilation(beyond)]))
    whole = np.setdiff1d(np.unique(ids[ids > 0]), np.concatenate(cut))
    wanted = rng.permutation(whole)[: rng.integers(1, 6)]
    image, labels, pasted = image.copy(), labels.copy(), []
    last = int(labels.max(initial=0))
    for number in wanted.tolist():
        mask = ids == number
        if (labels[mask] != 0).any() or outside[mask].any():
            continue
        share = np.maximum(gaussian_filter(mask.astype(np.float32), 0.7), 0.5 * mask) * (labels == 0)
        image += share * (other - image)
        pasted.append(number)
        labels[mask] = last + len(pasted)
    return image, labels, np.array(pasted, dtype=np.int32)
