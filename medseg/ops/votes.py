"""Centre votes: from a foreground and a vector per voxel to one label per voted centre.

The idea of Neven et al. 2019 (arXiv:1906.11109) and Panoptic-DeepLab (Cheng et al. 2020, arXiv:1911.10194), in any dimension and on
anisotropic voxels: every foreground voxel votes for where it thinks its instance's centre lies; peaks of the votes are the centres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medseg.ops import blur as blurring
from medseg.ops import tally
from medseg.ops.compiled import compiled
from medseg.ops.nearest import nearest

Floats = NDArray[np.float32]


def centre_offsets(labels: NDArray[np.int32], spacing: tuple[float, ...]) -> Floats:
    """Vector from each labelled voxel to the centroid of its label.

    Parameters
    ----------
    labels
        Instance ids, (y, x) or (z, y, x).
    spacing
        Voxel size per array axis, any unit.

    Returns
    -------
    ndarray of float32, (ndim, *labels.shape)
        In the unit of ``spacing``; 0 on background.
    """
    out = np.zeros((labels.ndim, *labels.shape), dtype=np.float32)
    index = np.nonzero(labels)
    if not len(index[0]):
        return out
    ids = labels[index]
    count = np.maximum(np.bincount(ids), 1)
    for axis, (where, step) in enumerate(zip(index, spacing, strict=True)):
        centre = np.bincount(ids, weights=where) / count
        out[axis][index] = (centre[ids] - where) * step
    return out


def group_by_votes(
    weight: Floats,
    foreground: NDArray[np.bool_],
    offsets: Floats,
    spacing: tuple[float, ...],
    *,
    blur: float,
    votes: float,
    separation: float,
) -> tuple[NDArray[np.int32], Floats]:
    """Give each foreground voxel the label of the centre it votes for.

    Parameters
    ----------
    weight
        How much each voxel's vote counts, for example its foreground probability.
    foreground
        The voxels that vote and are labelled.
    offsets
        (ndim, *shape): vector to the centre in the unit of ``spacing``.
    spacing
        Voxel size per array axis.
    blur
        Standard deviation of the smoothing of the votes, in the unit of ``spacing``.
    votes
        Votes (about as many voxels of weight 1) that a centre needs.
    separation
        Two centres nearer than this share of the larger one's radius are one instance: an object's voxels never agree perfectly,
        and two real objects that touch have centres at least one radius apart.

    Returns
    -------
    labels : ndarray of int32
        0 background, 1..N.
    miss : ndarray of float32
        How far each voxel's vote falls from its centre, in the unit of ``spacing``; see `agreement`.
    """
    ndim = weight.ndim
    labels, miss = np.zeros(weight.shape, dtype=np.int32), np.zeros(weight.shape, dtype=np.float32)
    flat = np.flatnonzero(foreground)  # one flat index is several times faster than one per axis
    if not len(flat):
        return labels, miss
    step = np.asarray(spacing, dtype=np.float32)
    target, density = _cast(
        flat,
        np.array(weight.shape),
        np.ascontiguousarray(offsets, dtype=np.float32).reshape(ndim, -1),
        step,
        np.ravel(weight),
    )
    sigma = blur / step
    density32 = blurring.gaussian(density.astype(np.float32).reshape(weight.shape), sigma)
    # the height that `votes` perfect votes would reach: the peak of the kernel itself
    needed = votes * float(np.prod(1 / np.maximum(np.sqrt(2 * np.pi) * sigma, 1.0)))
    centres = (blurring.peaks(density32, needed) * step).astype(np.float64)
    if not len(centres):
        return labels, miss
    target *= step
    owner = nearest(target, centres)
    merged = _merge_near(centres, np.bincount(owner, minlength=len(centres)), float(np.prod(step)), ndim, separation)
    used = np.zeros(len(centres), bool)
    used[merged[owner]] = True
    _give(flat, target, merged[owner], centres, np.cumsum(used, dtype=np.int32), labels.reshape(-1), miss.reshape(-1))
    return labels, miss


@compiled
def _cast(flat: Any, size: Any, offsets: Any, step: Any, weight: Any) -> Any:
    """Where each of some voxels votes, in voxels (n, ndim) within the array, and the summed weight of votes for each voxel."""
    n, ndim = len(flat), len(size)
    target = np.empty((n, ndim))
    density = np.zeros(len(weight))
    index = np.zeros(ndim, np.int64)
    for k in range(n):
        rest = flat[k]
        for axis in range(ndim - 1, -1, -1):
            index[axis] = rest % size[axis]
            rest //= size[axis]
        cell = 0
        for axis in range(ndim):
            place = index[axis] + np.float64(offsets[axis, flat[k]] / step[axis])
            place = min(max(place, 0.0), size[axis] - 1.0)
            target[k, axis] = place
            cell = cell * size[axis] + int(np.rint(place))
        density[cell] += weight[flat[k]]
    return target, density


@compiled
def _give(flat: Any, target: Any, owner: Any, centres: Any, number: Any, labels: Any, miss: Any) -> None:
    """Write the label of each voxel's centre and how far its vote falls from it."""
    for k in range(len(flat)):
        away = 0.0
        for axis in range(target.shape[1]):
            away += (target[k, axis] - centres[owner[k], axis]) ** 2
        labels[flat[k]] = number[owner[k]]
        miss[flat[k]] = np.sqrt(away)


def agreement(labels: NDArray[np.int32], miss: Floats, spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Per label, index = label: 1 where all votes hit the centre, towards 0 as they miss it by the object's radius.

    ``labels`` may have lost voxels since the vote: those that strayed to a centre far away count no more.
    """
    count = np.maximum(tally.sizes(labels), 1)
    radius = _radius(count * float(np.prod(spacing)), labels.ndim)
    return np.asarray(_nearness(np.ravel(labels), np.ravel(miss), radius) / count)


@compiled
def _nearness(labels: Any, miss: Any, radius: Any) -> Any:
    """Summed over each label: 1 for a vote that hits the centre, towards 0 as it misses by the radius."""
    out = np.zeros(len(radius))
    for k in range(len(labels)):
        if labels[k] > 0:
            away = miss[k] / radius[labels[k]]
            out[labels[k]] += np.exp(-(away * away))
    return out


def _radius(volume: NDArray[np.floating], ndim: int) -> NDArray[np.float64]:
    """Radius of the disc or ball of this area or volume."""
    return np.asarray(np.sqrt(volume / np.pi) if ndim == 2 else np.cbrt(volume * 3 / (4 * np.pi)), dtype=np.float64)


def _merge_near(
    centres: NDArray[np.floating], count: NDArray[np.int64], voxel: float, ndim: int, separation: float
) -> NDArray[np.intp]:
    """For each centre the index of the one it belongs to.

    The largest first takes in all within its reach; with them it is larger and reaches further, until nothing is added. So a
    large object whose votes fell into many peaks becomes whole, and small ones keep peaks that a wider blur would lose.
    """
    into = np.full(len(centres), -1, dtype=np.intp)
    tree = cKDTree(centres)
    for i in np.argsort(-count, kind="stable"):
        if into[i] >= 0:
            continue
        into[i], size, grown = i, float(count[i]), True
        while grown:
            reach = separation * _radius(np.array([size * voxel]), ndim)[0]
            near = np.asarray(tree.query_ball_point(centres[i], reach), dtype=np.intp)
            near = near[into[near] < 0]
            into[near] = i
            size += float(count[near].sum())
            grown = bool(len(near))
    return into
