"""The nearest of some points to each of many places, which mostly lie close to one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medseg.ops.compiled import compiled

Points = NDArray[np.float64]

_SAFE = 1 - 1e-9  # what rounding may take from half a distance


def nearest(places: Points, points: Points) -> NDArray[np.int64]:
    """Number of the nearest point of each place; of points as near as one another any.

    Parameters
    ----------
    places, points
        (n, ndim) and (m, ndim) with m at least 1, in any unit. It is fast where a place and the next have the same nearest point.
    """
    count, ndim = points.shape
    if count == 1:
        return np.zeros(len(places), np.int64)
    # what is nearer to a point than half the way to its neighbour is nearest to it
    half = cKDTree(points).query(points, k=2)[0][:, 1] / 2 * _SAFE
    low, high = points.min(axis=0), points.max(axis=0)
    extent = high - low
    wide = extent > 0
    side = (np.prod(extent[wide]) / count) ** (1 / max(1, wide.sum())) if wide.any() else 1.0
    # a bucket holds about a point; a set of points along a line needs no more buckets than points
    side = max(side, float(extent.max()) / (4 * count), np.finfo(np.float64).tiny)
    buckets = np.minimum(np.floor(extent / side), 4 * count).astype(np.int64) + 1
    mine = np.minimum(((points - low) / side).astype(np.int64), buckets - 1)
    cell = np.ravel_multi_index(tuple(mine.T), tuple(buckets))
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(int(np.prod(buckets)) + 1))
    pad = [(0, 0), (3 - ndim, 0)]
    found = _nearest(
        np.pad(points, pad), half**2, places, np.pad(low, pad[1]), side, _padded(buckets, 3 - ndim), order, starts
    )
    return np.asarray(found)


def _padded(buckets: NDArray[np.int64], more: int) -> NDArray[np.int64]:
    return np.concatenate([np.ones(more, np.int64), buckets])


@compiled
def _nearest(points: Any, half: Any, places: Any, low: Any, side: float, buckets: Any, order: Any, starts: Any) -> Any:
    """Search buckets of points in growing rings around each place, unless the point of the place before it will do."""
    n, ndim = places.shape
    out = np.empty(n, np.int64)
    here = np.zeros(3)
    middle = np.zeros(3, np.int64)
    first, last = np.zeros(3, np.int64), np.zeros(3, np.int64)
    guess = 0
    for k in range(n):
        away = 0.0
        for axis in range(3):
            here[axis] = places[k, axis - 3 + ndim] if axis >= 3 - ndim else 0.0
            away += (here[axis] - points[guess, axis]) ** 2
        if away < half[guess]:
            out[k] = guess
            continue
        best = away
        for axis in range(3):
            middle[axis] = min(max(int(np.floor((here[axis] - low[axis]) / side)), 0), buckets[axis] - 1)
        ring = 0
        while True:
            for axis in range(3):
                first[axis] = max(middle[axis] - ring, 0)
                last[axis] = min(middle[axis] + ring, buckets[axis] - 1)
            for z in range(first[0], last[0] + 1):
                for y in range(first[1], last[1] + 1):
                    rim = abs(z - middle[0]) == ring or abs(y - middle[1]) == ring
                    step = 1 if rim else max(2 * ring, 1)
                    for x in range(middle[2] - ring, middle[2] + ring + 1, step):
                        if x < 0 or x >= buckets[2]:
                            continue
                        bucket = (z * buckets[1] + y) * buckets[2] + x
                        for number in order[starts[bucket] : starts[bucket + 1]]:
                            away = 0.0
                            for axis in range(3):
                                away += (here[axis] - points[number, axis]) ** 2
                            if away < best:
                                best, guess = away, number
            # the nearest that a bucket outside of this block can be
            edge = np.inf
            for axis in range(3):
                if middle[axis] - ring > 0:
                    edge = min(edge, here[axis] - (low[axis] + (middle[axis] - ring) * side))
                if middle[axis] + ring < buckets[axis] - 1:
                    edge = min(edge, low[axis] + (middle[axis] + ring + 1) * side - here[axis])
            edge = max(edge, 0.0) * (1 - 1e-9)
            if edge == np.inf or best <= edge * edge:
                break
            ring += 1
        out[k] = guess
    return out
