"""Cut one mask into objects where it narrows, or where an image dips between two peaks.

A height over the mask (distance to its border, or brightness) has peaks; a watershed (Meyer 1994) gives each peak its basin. Two
basins are one object unless the pass between them is low beside the lower of their peaks: a ratio, so that small and large objects
are cut alike (the idea of dynamics, Grimaud 1992, as a share).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter
from skimage.segmentation import watershed

from medseg.ops import components

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

DEPTH = (
    6.0  # voxels from the border to the deepest place of a mask, at the scale that separation by shape was learned at
)


def depth(mask: Mask, spacing: tuple[float, ...], smooth: float = 0.0) -> Floats:
    """Return the distance of each voxel of a mask to the nearest voxel outside, in the unit of the spacing; 0 outside.

    Beyond the array counts as inside: what the border of the image cuts does not narrow there.

    Parameters
    ----------
    mask
        2-D or 3-D.
    spacing
        Voxel size, array axis order.
    smooth
        Standard deviation of a Gaussian, same unit, which takes away peaks that a rough border makes.
    """
    found = np.asarray(distance_transform_edt(np.pad(mask, 1, mode="edge"), sampling=spacing))
    inner: Floats = found[(slice(1, -1),) * mask.ndim].astype(np.float64)
    if smooth > 0:
        inner = gaussian_filter(inner, [smooth / s for s in spacing], mode="nearest")
    return np.where(mask, inner, 0.0)


def filled(mask: Mask, labels: Labels) -> Labels:
    """Give each voxel of a mask the label of the nearest labelled voxel, and the others none; of a mask without labels make one."""
    kept = np.where(mask, labels, 0)
    if not kept.any():
        return mask.astype(np.int32)
    nearest = distance_transform_edt(kept == 0, return_distances=False, return_indices=True)
    return np.where(mask, kept[tuple(nearest)], 0).astype(np.int32)


def by_height(mask: Mask, height: Floats, ratio: float) -> Labels:
    """Cut a mask into the basins of the peaks of a height.

    Parameters
    ----------
    mask
        2-D or 3-D.
    height
        Same shape, positive inside of the mask.
    ratio
        Basins whose pass is at least this share of their lower peak become one; 0 cuts nothing, above 1 at every peak.

    Returns
    -------
    int32 array
        Labels 1 to N.
    """
    peaks = mask & (height >= maximum_filter(height, size=3))
    seeds = components.label(peaks)
    basins = np.asarray(watershed(-height, seeds, connectivity=mask.ndim, mask=mask))  # type: ignore[no-untyped-call]
    basins = basins.astype(np.int32)
    count = int(basins.max(initial=0))
    if count < 2:
        return basins
    tops = np.zeros(count + 1)
    np.maximum.at(tops, basins.ravel(), height.ravel())
    pairs, passes = _passes(basins, height, count)
    return _joined(basins, tops, pairs, passes, ratio)


def _passes(basins: Labels, height: Floats, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return basins that touch (M, 2), and the highest pass between the two of each pair."""
    keys, values = [], []
    for axis in range(basins.ndim):
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in range(basins.ndim))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in range(basins.ndim))
        a, b = basins[first], basins[second]
        meet = (a != b) & (a > 0) & (b > 0)
        low = np.minimum(height[first][meet], height[second][meet])
        one, two = a[meet].astype(np.int64), b[meet].astype(np.int64)
        keys.append(np.minimum(one, two) * (count + 1) + np.maximum(one, two))
        values.append(low)
    found, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    top = np.zeros(len(found))
    np.maximum.at(top, inverse, np.concatenate(values))
    return np.stack(np.divmod(found, count + 1), axis=1), top


def _joined(basins: Labels, tops: Floats, pairs: npt.NDArray[np.int64], passes: Floats, ratio: float) -> Labels:
    """Join basins over passes that are high beside the lower peak, the highest pass first, and number what is left."""
    owner = np.arange(len(tops))

    def root(i: int) -> int:
        while owner[i] != i:
            owner[i] = owner[owner[i]]
            i = int(owner[i])
        return i

    for k in np.argsort(-passes, kind="stable"):
        a, b = root(int(pairs[k, 0])), root(int(pairs[k, 1]))
        if a != b and passes[k] >= ratio * min(tops[a], tops[b]):
            low, high = (a, b) if tops[a] < tops[b] else (b, a)
            owner[low] = high
    roots = np.array([root(i) for i in range(len(tops))])
    _, number = np.unique(roots, return_inverse=True)
    return np.asarray(number).astype(np.int32)[basins]  # background is its own root and stays 0


def absorbed(labels: Labels, least: int) -> Labels:
    """Give pieces under `least` voxels to the neighbour they share most faces with, and drop those without any; labels 1 to N."""
    while True:
        size = components.sizes(labels)
        size[0] = least
        small = np.flatnonzero((size < least) & (size > 0))
        if not len(small):
            break
        one = int(small[np.argmin(size[small])])
        labels = np.where(labels == one, _neighbour(labels, one), labels).astype(np.int32)
    _, number = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
    return np.asarray(number[:-1]).astype(np.int32).reshape(labels.shape)


def _neighbour(labels: Labels, one: int) -> int:
    """Return the label that shares most faces with another, 0 if none does."""
    votes: dict[int, int] = {}
    for axis in range(labels.ndim):
        for a, b in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            here = labels[tuple(a if k == axis else slice(None) for k in range(labels.ndim))]
            there = labels[tuple(b if k == axis else slice(None) for k in range(labels.ndim))]
            ids, count = np.unique(there[(here == one) & (there != one) & (there > 0)], return_counts=True)
            for id, n in zip(ids.tolist(), count.tolist(), strict=True):
                votes[id] = votes.get(id, 0) + n
    return max(votes, key=lambda id: (votes[id], -id)) if votes else 0
