"""Phantoms: label arrays drawn from a seed, so that the truth is known to the voxel, and images of them.

Objects are drawn in physical units. With a spacing of (3, 1, 1) a ball is three times fewer voxels tall than wide, as in a
real anisotropic stack.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from medseg.errors import InputError

Labels = NDArray[np.int32]

_TRIES = 2000  # for one object, until it counts as not fitting


def blobs(
    shape: tuple[int, ...],
    n: int,
    radius: float,
    seed: int,
    touching: bool = True,
    spacing: tuple[float, ...] | None = None,
) -> Labels:
    """Draw ellipses or ellipsoids that do not overlap, none of them cut by the border.

    Parameters
    ----------
    shape
        Shape of the array, (y, x) or (z, y, x).
    n
        How many.
    radius
        Mean radius in the unit of `spacing`; single axes vary by a fifth.
    seed
        The same seed draws the same phantom.
    touching
        Each one after the first touches an earlier one, faces or corners; otherwise a gap of at least two voxels stays
        around each.
    spacing
        Voxel size per array axis; 1 if absent.

    Returns
    -------
    ndarray of int32
        Ids 1 to n, 0 background.

    Raises
    ------
    InputError
        So many do not fit.

    Examples
    --------
    >>> blobs((64, 64), 5, 6.0, seed=0).max()
    np.int32(5)
    """
    rng = np.random.default_rng(seed)
    step = np.ones(len(shape)) if spacing is None else np.asarray(spacing, dtype=float)
    labels = np.zeros(shape, dtype=np.int32)
    placed: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    room = np.array(shape) * step - 2.4 * radius - 3 * step
    failed = 0  # tries since the last one that found a place
    while len(placed) < n and failed < _TRIES and (room > 0).all():
        axes = radius * rng.uniform(0.8, 1.2, len(shape))
        if touching and placed:
            found = _beside(rng, labels, placed, axes, step)
        else:
            centre = rng.uniform(axes + step, np.array(shape) * step - axes - 2 * step)
            found = _free(labels, centre, axes, step, gap=2)
        failed += 1
        if found is not None:
            centre, box, mask = found
            labels[box][mask] = len(placed) + 1
            placed.append((centre, axes))
            failed = 0
    if len(placed) == n:
        return labels
    raise InputError(f"{n} blobs of radius {radius:g} do not fit into {shape}; ask for fewer or smaller ones")


def chain(shape: tuple[int, ...], thickness: int, closed: bool = False) -> Labels:
    """Draw one object longer than any tile: a bar through the whole array, or, if closed, a ring around its centre.

    Parameters
    ----------
    shape
        Shape of the array; in 3-D the object lies in the middle planes.
    thickness
        Of the bar or the ring's rim, in voxels.
    closed
        A ring, whose tiles do not all lie in one row.

    Examples
    --------
    >>> chain((5, 6), 1).tolist()[2]
    [1, 1, 1, 1, 1, 1]
    """
    labels = np.zeros(shape, dtype=np.int32)
    middle = [slice((size - thickness) // 2, (size - thickness) // 2 + thickness) for size in shape]
    if not closed:
        labels[(*middle[:-1], slice(None))] = 1
        return labels
    y, x = (np.arange(size) - (size - 1) / 2 for size in shape[-2:])
    distance = np.hypot(y[:, None], x[None])
    outer = min(shape[-2:]) / 2 - 1
    rim = (distance <= outer) & (distance > outer - thickness)
    labels[tuple(middle[:-2])] = rim
    return labels


def image_of(labels: Labels, seed: int, noise: float = 0.05) -> NDArray[np.float32]:
    """Image the labels as a fluorescence microscope would: uneven brightness, texture, blur and noise.

    Parameters
    ----------
    labels
        Ids, 0 background.
    seed
        The same seed gives the same image.
    noise
        Standard deviation of the noise; objects are 0.5 to 1 bright, background is 0.1.

    Returns
    -------
    ndarray of float32
        Shape of `labels`.
    """
    rng = np.random.default_rng(seed)
    ids, dense = np.unique(labels, return_inverse=True)
    levels = np.where(ids > 0, rng.uniform(0.5, 1.0, len(ids)), 0.1)
    bright: NDArray[np.float64] = levels[dense.reshape(labels.shape)]
    texture = gaussian_filter(rng.normal(size=labels.shape), 2)
    bright *= 1 + 0.15 * texture / max(float(texture.std()), 1e-6)
    image = np.asarray(gaussian_filter(bright, 1.0)) + rng.normal(0, noise, labels.shape)
    return image.astype(np.float32)


def _beside(
    rng: np.random.Generator,
    labels: Labels,
    placed: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    axes: NDArray[np.float64],
    step: NDArray[np.float64],
) -> tuple[NDArray[np.float64], tuple[slice, ...], NDArray[np.bool_]] | None:
    """Push a new object towards an earlier one, in a random direction, until it is the nearest that does not overlap."""
    anchor, other = placed[rng.integers(len(placed))]
    direction = rng.normal(size=len(step))
    direction /= np.linalg.norm(direction)
    for far in np.arange(0.7, 1.4, 0.02):
        found = _free(labels, anchor + direction * (axes + other) * far, axes, step, gap=0)
        if found is not None:
            _, box, mask = found
            wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
            inner = tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, wide, strict=True))
            near = np.zeros(labels[wide].shape, dtype=bool)
            near[inner] = mask
            touches = labels[wide][binary_dilation(near, np.ones((3,) * near.ndim))].any()
            return found if touches else None
    return None


def _free(
    labels: Labels, centre: NDArray[np.float64], axes: NDArray[np.float64], step: NDArray[np.float64], gap: int
) -> tuple[NDArray[np.float64], tuple[slice, ...], NDArray[np.bool_]] | None:
    """Centre, box and mask of an ellipsoid, or None where it leaves the array or comes within the gap of another."""
    low = np.floor((centre - axes) / step).astype(int)
    high = np.ceil((centre + axes) / step).astype(int) + 1
    if (low < gap).any() or (high > np.array(labels.shape) - gap).any():
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    index = np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij", sparse=True)
    away = sum(((i * d - c) / a) ** 2 for i, d, c, a in zip(index, step, centre, axes, strict=True))
    mask: NDArray[np.bool_] = np.asarray(away) <= 1
    taken = labels[tuple(slice(s.start - gap, s.stop + gap) for s in box)] > 0
    if gap and taken.any():
        taken = binary_dilation(taken, np.ones((2 * gap + 1,) * taken.ndim))
    inner = taken[tuple(slice(gap, n - gap) for n in taken.shape)]
    return None if not mask.any() or (inner & mask).any() else (centre, box, mask)
