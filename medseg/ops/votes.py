"""Centre votes: from a foreground and a vector per voxel to one label per voted centre.

The idea of Neven et al. 2019 (arXiv:1906.11109) and Panoptic-DeepLab (Cheng et al. 2020, arXiv:1911.10194), in any dimension and on
anisotropic voxels: every foreground voxel votes for where it thinks its instance's centre lies; peaks of the votes are the centres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree

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
    target = np.empty((len(flat), ndim))
    cell = np.zeros(len(flat), dtype=np.intp)
    for axis, index in enumerate(np.unravel_index(flat, weight.shape)):
        size = weight.shape[axis]
        target[:, axis] = np.clip(index + np.ravel(offsets[axis])[flat] / step[axis], 0, size - 1)
        cell = cell * size + np.rint(target[:, axis]).astype(np.intp)
    density = np.bincount(cell, weights=np.ravel(weight)[flat], minlength=weight.size).reshape(weight.shape)
    sigma = blur / step
    density = gaussian_filter(density.astype(np.float32), sigma, mode="constant")
    # the height that `votes` perfect votes would reach: the peak of the kernel itself
    needed = votes * float(np.prod(1 / np.maximum(np.sqrt(2 * np.pi) * sigma, 1.0)))
    peak = (density == maximum_filter(density, size=3, mode="constant")) & (density >= needed)
    centres = np.argwhere(peak) * step
    if not len(centres):
        return labels, miss
    target *= step
    owner = cKDTree(centres).query(target)[1]
    merged = _merge_near(centres, np.bincount(owner, minlength=len(centres)), float(np.prod(step)), ndim, separation)
    owner = merged[owner]
    used = np.bincount(owner, minlength=len(centres)) > 0
    labels.ravel()[flat] = np.cumsum(used, dtype=np.int32)[owner]
    miss.ravel()[flat] = np.sqrt(np.square(target - centres[owner]).sum(axis=1))
    return labels, miss


def agreement(labels: NDArray[np.int32], miss: Floats, spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Per label, index = label: 1 where all votes hit the centre, towards 0 as they miss it by the object's radius.

    ``labels`` may have lost voxels since the vote: those that strayed to a centre far away count no more.
    """
    count = np.maximum(np.bincount(labels.ravel()), 1)
    radius = _radius(count * float(np.prod(spacing)), labels.ndim)
    inside = np.flatnonzero(labels.ravel())
    owner = labels.ravel()[inside]
    near = np.exp(-((miss.ravel()[inside] / radius[owner]) ** 2))
    return np.asarray(np.bincount(owner, weights=near, minlength=len(count)) / count)


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
