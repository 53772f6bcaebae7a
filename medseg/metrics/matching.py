"""One-to-one matching of predicted to true objects, and the counts and ratios that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from medseg.metrics.contingency import Overlap
from medseg.metrics.counting import Mask, Rows

# IoU .50:.05:.95, as in COCO and DSB2018
THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())

DENSE = 1 << 16  # groups with more possible pairs than this are solved by a sparse solver


@dataclass(frozen=True)
class Counts:
    """True and false positives, false negatives, and the summed IoU of the true positives. Add to pool over images.

    Ratios come last: figures of several images are either the ratio of the summed counts (pooled) or the mean of the ratios
    of each image, and say which. Where nothing was there and nothing was predicted, a ratio is 1.
    """

    tp: int
    fp: int
    fn: int
    iou: float

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou + other.iou)

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN), the "average precision" of DSB2018, Cellpose and StarDist; 1 when both sides are empty."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 1 when nothing was predicted and nothing was there, 0 when only truth was."""
        return _ratio(self.tp, self.tp + self.fp) if self.tp + self.fp else float(self.fn == 0)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 1 when nothing was there and nothing predicted, 0 when only predictions were."""
        return _ratio(self.tp, self.tp + self.fn) if self.tp + self.fn else float(self.fp == 0)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 when both sides are empty."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def pq(self) -> float:
        """Panoptic quality (Kirillov 2019): summed IoU / (TP + FP/2 + FN/2). Count matches with IoU > .5 strictly."""
        return _ratio(self.iou, self.tp + (self.fp + self.fn) / 2)


def match(table: Overlap, threshold: float = 0.5, strict: bool = False) -> tuple[Counts, Rows]:
    """One-to-one matching: as many pairs with IoU >= ``threshold`` as possible, then the largest summed IoU.

    Only objects of one class are matched. Ignored true objects are neither found nor missed, and predictions that have no
    partner and are excused (see `excused`) are not false. Above IoU .5, objects that do not overlap on their own side have
    one possible partner each; below, and for masks that overlap, the pairs fall into connected groups, and the assignment
    problem (Kuhn 1955; Jonker and Volgenant 1987) is solved in each group by itself.

    Parameters
    ----------
    table
        From `overlap`.
    threshold
        Least IoU of a pair.
    strict
        Ask for IoU > ``threshold`` (panoptic quality).

    Returns
    -------
    counts : Counts
    partner : ndarray of int, (n_truth,)
        Row of the predicted object matched to each true one, -1 where none.
    """
    ok = (table.iou > threshold) if strict else (table.iou >= threshold)
    pairs = np.flatnonzero(ok & table.same & ~table.truth.ignored[table.i])
    pairs = pairs[_assigned(table.i[pairs], table.j[pairs], table.iou[pairs])]
    partner = np.full(table.n_truth, -1, np.intp)
    partner[table.i[pairs]] = table.j[pairs]
    wrong = ~excused(table, threshold, strict)
    wrong[table.j[pairs]] = False
    missed = int(np.count_nonzero(~table.truth.ignored)) - len(pairs)
    return Counts(len(pairs), int(np.count_nonzero(wrong)), missed, float(table.iou[pairs].sum())), partner


def excused(table: Overlap, threshold: float = 0.5, strict: bool = False) -> Mask:
    """Predictions (n_prediction,) that are no false positives if they have no partner.

    Those are predictions that are themselves ignored, that have at least the share ``threshold`` of their voxels in a crowd
    region of their class (Lin 2014, COCO), or more than half in another ignored true object of their class.
    """
    out = table.prediction.ignored.copy()
    some = np.flatnonzero(table.same & table.truth.ignored[table.i])
    i, j = table.i[some], table.j[some]
    share = table.shared[some] / table.prediction.sizes[j]
    in_crowd = (share > threshold) if strict else (share >= threshold)
    out[j[np.where(table.truth.crowd[i], in_crowd, share > 0.5)]] = True
    return out


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _assigned(i: Rows, j: Rows, iou: NDArray[np.float64]) -> Rows:
    """Which of the pairs form the matching: most pairs, then the largest summed IoU."""
    if not len(i):
        return np.zeros(0, np.intp)
    n = int(i.max()) + 1
    graph = coo_array((np.ones(len(i), np.int8), (i, j + n)), shape=(n + int(j.max()) + 1,) * 2)
    group = connected_components(graph, directed=False)[1][i]
    order = np.lexsort((-iou, group))  # sorted once: each group is a slice, best pair first
    start = np.concatenate([[0], np.flatnonzero(np.diff(group[order])) + 1])
    stop = np.append(start[1:], len(order))
    star = _constant(i[order], start) | _constant(j[order], start)  # all pairs share one object: the best pair it is
    chosen = [order[start[star]]]
    for first, last in zip(start[~star].tolist(), stop[~star].tolist(), strict=True):
        rows = order[first:last]
        chosen.append(rows[_solved(i[rows], j[rows], iou[rows])])
    return np.concatenate(chosen)


def _constant(values: Rows, start: Rows) -> Mask:
    same: Mask = np.minimum.reduceat(values, start) == np.maximum.reduceat(values, start)
    return same


def _solved(i: Rows, j: Rows, iou: NDArray[np.float64]) -> Rows:
    """The matching within one connected group, as rows of its pairs."""
    truths, r = np.unique(i, return_inverse=True)
    predictions, c = np.unique(j, return_inverse=True)
    n, m = len(truths), len(predictions)
    more = min(n, m) + 1.0  # one pair more outweighs any IoU
    if n * m <= DENSE:
        gain = np.zeros((n, m))
        gain[r, c] = iou + more
        rows, columns = linear_sum_assignment(gain, maximize=True)
    else:  # each true object may also take a column of its own, which stands for no partner
        cost = np.concatenate([2.0 - iou, np.full(n, 2.0 + more)])
        where = np.concatenate([r, np.arange(n)]), np.concatenate([c, m + np.arange(n)])
        rows, columns = min_weight_full_bipartite_matching(csr_array((cost, where), shape=(n, m + n)))
    taken = np.full(n, -1, np.intp)
    taken[rows] = columns
    return np.flatnonzero(taken[r] == c)
