"""Which lesion of one date is which of another: one to one, or several that merged, or one that split.

Lesions are sets of small cubes in one common space. Two are linked where they cover enough of the smaller one; a lesion left
without a link is linked with the nearest one that is left too, within a tolerance. Of links that would make one tangle of several
lesions on both sides, the weakest go, so that each lesion is one that stayed, merged or split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

Points = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int64]

_CRUMB = 0.05  # share of a lesion that a piece may have that broke off it
_BEST = 0.1  # share of the smaller that is enough where each is the other's best


@dataclass(frozen=True)
class Body:
    """One lesion at one date in the common space.

    Attributes
    ----------
    points : float64 (N, 3)
        Places in it, in mm, closer together than a cube is wide.
    volume : float
        mm3, as measured on its own image.
    """

    points: Points
    volume: float

    def moved(self, shift: Points) -> Body:
        """Return it shifted, in mm."""
        return Body(self.points + shift, self.volume)


def links(before: Sequence[Body], after: Sequence[Body], overlap: float, tolerance: float) -> list[tuple[int, int]]:
    """Return which lesions are the same.

    Parameters
    ----------
    before, after
        Lesions of two dates.
    overlap
        Share of the smaller lesion that the larger must cover.
    tolerance
        mm that borders may be apart where nothing overlaps.

    Returns
    -------
    list of (int, int)
        Indices. A lesion with several links split, or merged; no lesion with several links is linked to another such.

    Examples
    --------
    >>> ball = np.argwhere(np.ones((4, 4, 4))).astype(float)
    >>> links([Body(ball, 64)], [Body(ball + 30, 64), Body(ball + 1, 64)], 0.4, 3.0)
    [(0, 1)]
    """
    if not before or not after:
        return []
    shift = residual(before, after, tolerance)
    moved = [body.moved(shift) for body in before]
    shared = covered(moved, after)
    best = _mutual(shared)
    linked = (shared >= overlap) | (best & (shared >= _BEST))
    linked |= _crumbs(moved, after, linked)
    linked |= _near(moved, after, linked, tolerance)
    return _untangled(linked, shared)


def residual(before: Sequence[Body], after: Sequence[Body], tolerance: float) -> Points:
    """Return the shift that is left between two dates: the median over lesions that are surely the same; 0 with fewer than three.

    What is left of a registration is mostly a shift; over all lesions of a body it is no more than a few mm.
    """
    best = _mutual(covered(before, after))
    pairs = np.argwhere(best)
    offsets = np.array([after[b].points.mean(0) - before[a].points.mean(0) for a, b in pairs])
    if len(offsets) < 3:
        return np.zeros(3)
    shift = np.median(offsets, axis=0)
    return np.asarray(shift if np.linalg.norm(shift) <= 2 * tolerance else np.zeros(3))


def covered(before: Sequence[Body], after: Sequence[Body]) -> npt.NDArray[np.float64]:
    """Return, for each pair, the share of the smaller one that the other covers, (len(before), len(after))."""
    edge = _edge(before, after)
    one, two = [_cells(b.points, edge) for b in before], [_cells(b.points, edge) for b in after]
    owner = np.repeat(np.arange(len(two)), [len(c) for c in two])
    every = np.concatenate(two)
    order = np.argsort(every, kind="stable")
    every, owner = every[order], owner[order]
    out = np.zeros((len(one), len(two)))
    for i, cells in enumerate(one):
        low, high = np.searchsorted(every, cells, "left"), np.searchsorted(every, cells, "right")
        common = np.zeros(len(two))
        for a, b in zip(low[high > low].tolist(), high[high > low].tolist(), strict=True):
            common[owner[a:b]] += 1  # a lesion has each cube once
        out[i] = common / np.minimum(len(cells), [max(1, len(c)) for c in two])
    return out


def _edge(before: Sequence[Body], after: Sequence[Body]) -> float:
    """Edge of the cubes: as small as the points of all lesions allow without holes."""
    sides = [float((b.volume / len(b.points)) ** (1 / 3)) for b in (*before, *after)]
    return max(*sides, 0.25) * 1.2


def _cells(points: Points, edge: float) -> Cells:
    index = np.floor(points / edge).astype(np.int64) + (1 << 20)
    return np.unique((index[:, 0] << 42) | (index[:, 1] << 21) | index[:, 2])


def _mutual(shared: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Pairs of which each is the other's best."""
    top = (shared == shared.max(1, keepdims=True)) & (shared == shared.max(0, keepdims=True))
    return np.asarray(top & (shared > 0))


def _crumbs(before: Sequence[Body], after: Sequence[Body], linked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Later lesions of a few voxels that touch an earlier one which is still there: a piece of it, not a new lesion."""
    out = np.zeros_like(linked)
    edge = _edge(before, after)
    kept = np.flatnonzero(linked.any(1)).tolist()
    for b in np.flatnonzero(~linked.any(0)).tolist():
        for a in kept:
            small = after[b].volume <= min(_CRUMB * before[a].volume, 8 * edge**3)
            if small and cKDTree(before[a].points).query(after[b].points)[0].min() <= 1.5 * edge:
                out[a, b] = True
                break
    return out


def _near(
    before: Sequence[Body], after: Sequence[Body], linked: npt.NDArray[np.bool_], tolerance: float
) -> npt.NDArray[np.bool_]:
    """Pairs of lesions without links whose borders are near, the nearest first, each once."""
    out = np.zeros_like(linked)
    rows, columns = np.flatnonzero(~linked.any(1)).tolist(), np.flatnonzero(~linked.any(0)).tolist()
    if not rows or not columns or not tolerance:
        return out
    far = 1e6
    cost = np.full((len(rows), len(columns)), far)
    trees = [cKDTree(after[c].points) for c in columns]
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            gap = float(trees[j].query(before[r].points, distance_upper_bound=tolerance + 1e-9)[0].min())
            apart = float(np.linalg.norm(before[r].points.mean(0) - after[c].points.mean(0)))
            small = (3 * min(before[r].volume, after[c].volume) / (4 * np.pi)) ** (1 / 3)
            if gap <= tolerance and apart <= tolerance + small:
                cost[i, j] = apart
    for i, j in zip(*linear_sum_assignment(cost), strict=True):
        out[rows[i], columns[j]] = cost[i, j] < far
    return out


def _untangled(linked: npt.NDArray[np.bool_], shared: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Take away the weakest links between two lesions that both have others."""
    kept = linked.copy()
    while True:
        hubs = kept & (kept.sum(1, keepdims=True) > 1) & (kept.sum(0, keepdims=True) > 1)
        if not hubs.any():
            return [(int(a), int(b)) for a, b in np.argwhere(kept)]
        weak = np.where(hubs, shared, np.inf)
        kept[np.unravel_index(int(weak.argmin()), weak.shape)] = False
