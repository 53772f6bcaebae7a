"""Flows: unit vectors that lead from each voxel of an instance to its middle, and the paths along them.

After Stringer et al. 2021 (Cellpose, doi:10.1038/s41592-020-01018-x): heat spreads from the middle of an instance inside it,
and the flow points up its gradient, so that it goes round corners and every path stays in its instance. Here in any dimension and
on anisotropic voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.ops.compiled import compiled

Floats = NDArray[np.float32]

_STILL = 0.3  # a path that comes back to within this many voxels of where it was two steps ago has arrived


def flows(labels: NDArray[np.int32], spacing: tuple[float, ...]) -> Floats:
    """Unit vectors from each labelled voxel towards the middle of its label, inside the label.

    Parameters
    ----------
    labels
        Instance ids 1 to N without large gaps, (y, x) or (z, y, x).
    spacing
        Voxel size per array axis, any unit.

    Returns
    -------
    ndarray of float32, (ndim, *labels.shape)
        Directions in physical space; 0 on background and where an instance is one voxel.
    """
    out = np.zeros((labels.ndim, *labels.shape), dtype=np.float32)
    index = np.nonzero(labels)
    if not len(index[0]):
        return out
    order = np.argsort(labels[index], kind="stable")  # the voxels of an instance lie together
    places = np.stack([i[order] for i in index], axis=1)
    ids = labels[tuple(places.T)]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ids)) + 1, [len(ids)]])
    neighbours = _neighbours(labels, places, ids)
    step = np.asarray(spacing, dtype=np.float64)
    found = _spread(places.astype(np.float64), starts, neighbours, step, 1 / step**2)
    out[(slice(None), *places.T)] = found.T
    return out


class Paths:
    """Where the paths along a flow end, for any threshold of the foreground; a new threshold walks only the paths that it changes.

    Parameters
    ----------
    flow
        (ndim, *shape): directions in physical space; longer ones count as unit vectors.
    probability
        (*shape): paths start where it is above the threshold. Elsewhere the flow counts as 0, so that paths do not leave by far.
    spacing
        Voxel size per array axis. A step is as long as the finest voxel.
    steps
        Most steps of a path.
    """

    def __init__(self, flow: Floats, probability: Floats, spacing: tuple[float, ...], steps: int = 200) -> None:
        ndim = probability.ndim
        size = np.sqrt((flow.astype(np.float32) ** 2).sum(axis=0))
        shape = (*(1,) * (3 - ndim), *probability.shape)  # a plane is a volume of one slice
        field = np.zeros((*shape, 3), dtype=np.float32)
        field[..., 3 - ndim :] = np.moveaxis(flow / np.maximum(size, 1), 0, -1).reshape(*shape, ndim)
        self._field, self._probability = field, np.ascontiguousarray(probability)
        self._steps, self._spacing = steps, spacing
        self._stride = np.zeros(3)
        self._stride[3 - ndim :] = min(spacing) / np.asarray(spacing)
        self._ends = np.zeros((ndim, *probability.shape), dtype=np.float32)
        # a path is the same for all thresholds that part the voxels it meets alike: from the highest of those that count as
        # background to below the lowest of the others
        self._from = np.full(probability.shape, np.inf, dtype=np.float32)
        self._below = np.zeros(probability.shape, dtype=np.float32)

    def ends(self, threshold: float) -> Floats:
        """Vector from each voxel above the threshold to where its path ends, (ndim, *shape), in the unit of the spacing; else 0."""
        p, least = self._probability, np.float32(threshold)
        foreground = p > least
        start = np.flatnonzero(foreground & ((self._from > least) | (self._below <= least)))
        first = 3 - p.ndim
        moved = np.empty((len(start), 3))
        shape3 = self._field.shape[:3]
        _walk(
            self._field,
            p.reshape(shape3),
            least,
            start,
            self._stride,
            self._steps,
            moved,
            self._from.reshape(-1),
            self._below.reshape(-1),
        )
        for axis, length in enumerate(self._spacing):
            self._ends[axis].reshape(-1)[start] = moved[:, first + axis] * length
        return self._ends * foreground


def follow(
    flow: Floats, foreground: NDArray[np.bool_], spacing: tuple[float, ...], steps: int = 200
) -> NDArray[np.float32]:
    """Walk from each foreground voxel along the flow until it arrives; see `Paths`."""
    return Paths(flow, foreground.astype(np.float32), spacing, steps).ends(0.5)


def _neighbours(labels: NDArray[np.int32], places: NDArray[np.int64], ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """For each voxel the row of its neighbour before and behind on each axis, (n, 2 * ndim); -1 outside its instance."""
    row = np.full(labels.shape, -1, dtype=np.int64)
    here: tuple[NDArray[np.int64], ...] = tuple(places.T)
    row[here] = np.arange(len(places))
    out = np.full((len(places), 2 * labels.ndim), -1, dtype=np.int64)
    for axis in range(labels.ndim):
        for side, shift in enumerate((-1, 1)):
            near = places.copy()
            near[:, axis] += shift
            inside = (near[:, axis] >= 0) & (near[:, axis] < labels.shape[axis])
            there: tuple[NDArray[np.int64], ...] = tuple(near[inside].T)
            out[np.flatnonzero(inside), 2 * axis + side] = np.where(labels[there] == ids[inside], row[there], -1)
    return out


@compiled
def _spread(places: Any, starts: Any, neighbours: Any, spacing: Any, pull: Any) -> Any:
    """Heat from the middle of each instance, and the direction in which it rises, (n, ndim)."""
    n, ndim = places.shape
    out = np.zeros((n, ndim), dtype=np.float32)
    heat = np.zeros(n)
    other = np.zeros(n)
    slopes = np.zeros(ndim)
    total = 2 * pull.sum()
    for group in range(len(starts) - 1):
        a, b = starts[group], starts[group + 1]
        middle = np.zeros(ndim)
        reach = 0.0
        for axis in range(ndim):
            middle[axis] = np.median(places[a:b, axis])
            reach += places[a:b, axis].max() - places[a:b, axis].min() + 1
        source, nearest = a, np.inf
        for k in range(a, b):
            away = 0.0
            for axis in range(ndim):
                away += ((places[k, axis] - middle[axis]) * spacing[axis]) ** 2
            if away < nearest:
                source, nearest = k, away
        for _ in range(int(2 * reach)):
            heat[source] += 1.0
            for k in range(a, b):
                value = heat[k] * total
                for axis in range(ndim):
                    for side in range(2):
                        near = neighbours[k, 2 * axis + side]
                        if near >= 0:
                            value += heat[near] * pull[axis]
                other[k] = value / (2 * total)
            for k in range(a, b):
                heat[k] = other[k]
        for k in range(a, b):
            length = 0.0
            for axis in range(ndim):
                low, high = neighbours[k, 2 * axis], neighbours[k, 2 * axis + 1]
                before = np.log1p(heat[low]) if low >= 0 else 0.0
                behind = np.log1p(heat[high]) if high >= 0 else 0.0
                slope = (behind - before) / spacing[axis]
                slopes[axis] = slope
                length += slope * slope
            if length > 0:
                for axis in range(ndim):
                    out[k, axis] = slopes[axis] / np.sqrt(length)
    return out


@compiled
def _walk(
    field: Any, probability: Any, least: Any, start: Any, stride: Any, steps: int, out: Any, since: Any, below: Any
) -> None:
    """How far each path leads, in voxels (n, 3), by Euler steps through a linearly interpolated field (z, y, x, 3).

    The way gone is summed apart from the place it began at, so that a path is the same wherever in the array it lies. ``since``
    and ``below`` (voxels) take the thresholds between which the path is the same.
    """
    nz, ny, nx = probability.shape
    size = np.array(probability.shape)
    origin, low = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    gone, last, before, share, value = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    for k in range(len(start)):
        origin[0], origin[1], origin[2] = start[k] // (ny * nx), start[k] // nx % ny, start[k] % nx
        gone[:] = 0.0
        before[:] = 0.0
        highest_out, lowest_in = np.float32(-np.inf), np.float32(np.inf)
        for turn in range(steps):
            for axis in range(3):
                whole = np.floor(gone[axis])
                low[axis] = origin[axis] + int(whole)
                share[axis] = gone[axis] - whole
                value[axis] = 0.0
            for right in range(2 if share[2] > 0 else 1):
                x = low[2] + right
                for down in range(2 if share[1] > 0 else 1):
                    y = low[1] + down
                    for deep in range(2 if share[0] > 0 else 1):
                        z = low[0] + deep
                        p = probability[z, y, x]
                        if p > least:
                            lowest_in = min(lowest_in, p)
                            weight = share[0] if deep else 1 - share[0]
                            weight *= share[1] if down else 1 - share[1]
                            weight *= share[2] if right else 1 - share[2]
                            for axis in range(3):
                                value[axis] += weight * field[z, y, x, axis]
                        else:
                            highest_out = max(highest_out, p)
            away = 0.0
            for axis in range(3):
                last[axis] = gone[axis] + value[axis] * stride[axis]
                last[axis] = min(max(last[axis], float(-origin[axis])), float(size[axis] - 1 - origin[axis]))
                away += (last[axis] - before[axis]) ** 2
            arrived = turn > 0 and away < _STILL**2
            for axis in range(3):
                out[k, axis] = (last[axis] + gone[axis]) / 2 if arrived else last[axis]
                before[axis], gone[axis] = gone[axis], last[axis]
            if arrived:
                break
        since[start[k]], below[start[k]] = highest_out, lowest_in
