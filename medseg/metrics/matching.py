"""Matching of predicted to true instances, and the figures that follow from it.

One sparse table of overlaps serves all of them; its size grows with the pairs that touch, not with the square of the objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medseg.errors import InputError

# IoU .50:.05:.95, as in COCO and DSB2018
THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())


@dataclass(frozen=True)
class Overlap:
    """Every pair of a true and a predicted instance that share voxels.

    Attributes
    ----------
    truth, prediction : ndarray of int, (pairs,)
        Row of the instance in the order of its ids.
    iou : ndarray of float64, (pairs,)
        Intersection over union of the pair's voxels.
    n_truth, n_prediction : int
        Instances on either side, matched or not.
    """

    truth: NDArray[np.intp]
    prediction: NDArray[np.intp]
    iou: NDArray[np.float64]
    n_truth: int
    n_prediction: int


@dataclass(frozen=True)
class Counts:
    """True and false positives, false negatives, and the summed IoU of the true positives. Add to pool over images."""

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


def overlap(truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> Overlap:
    """Table of overlaps of two label arrays of equal shape, 0 background, ids any positive integers.

    Raises
    ------
    InputError
        Shapes differ, labels are not integers, or an id is negative.
    """
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.dtype.kind not in "iu":
            raise InputError(f"{name} labels are {labels.dtype}; instance ids must be integers")
        if labels.size and labels.min() < 0:
            raise InputError(f"{name} labels hold the negative id {labels.min()}; ids are positive, background is 0")
    if truth.shape != prediction.shape:
        raise InputError(f"truth has shape {truth.shape}, prediction {prediction.shape}; both must be the same")
    a, n_truth, size_a = _compact(truth)
    b, n_prediction, size_b = _compact(prediction)
    both = (a > 0) & (b > 0)
    key, shared = np.unique((a[both].astype(np.int64) - 1) * max(n_prediction, 1) + b[both] - 1, return_counts=True)
    i, j = np.divmod(key, max(n_prediction, 1))
    iou = shared / (size_a[i] + size_b[j] - shared)
    return Overlap(i.astype(np.intp), j.astype(np.intp), iou, n_truth, n_prediction)


def match(table: Overlap, threshold: float = 0.5, strict: bool = False) -> tuple[Counts, NDArray[np.intp]]:
    """One-to-one matching: as many pairs with IoU >= ``threshold`` as possible, then the largest summed IoU.

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
        Row of the predicted instance matched to each true one, -1 where none.
    """
    ok = table.iou > threshold if strict else table.iou >= threshold
    i, j, iou = table.truth[ok], table.prediction[ok], table.iou[ok]
    partner = np.full(table.n_truth, -1, dtype=np.intp)
    got = np.zeros(table.n_truth)
    if len(i):
        # above .5 every instance has at most one partner; below, ties form small groups solved one by one
        lonely = (np.bincount(i, minlength=table.n_truth)[i] == 1) & (np.bincount(j)[j] == 1)
        partner[i[lonely]] = j[lonely]
        got[i[lonely]] = iou[lonely]
        for rows, columns, values in _groups(i[~lonely], j[~lonely], iou[~lonely]):
            partner[rows], got[rows] = columns, values
    tp = int((partner >= 0).sum())
    return Counts(tp, table.n_prediction - tp, table.n_truth - tp, float(got.sum())), partner


def average_precision(
    pairs: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]], thresholds: tuple[float, ...] = THRESHOLDS
) -> dict[str, dict[float, float]]:
    """AP over images in both averagings.

    Parameters
    ----------
    pairs
        (truth, prediction) label arrays.

    Returns
    -------
    dict
        ``pooled`` and ``image mean``, each AP by threshold.
    """
    per_image = [
        [match(table, t)[0] for t in thresholds]
        for table in (overlap(truth, prediction) for truth, prediction in pairs)
    ]
    if not per_image:
        raise InputError("no images to score")
    pooled = [sum(column, Counts(0, 0, 0, 0.0)).ap for column in zip(*per_image, strict=True)]
    mean = [float(np.mean([c.ap for c in column])) for column in zip(*per_image, strict=True)]
    return {
        "pooled": dict(zip(thresholds, pooled, strict=True)),
        "image mean": dict(zip(thresholds, mean, strict=True)),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _compact(labels: NDArray[np.integer]) -> tuple[NDArray[np.intp], int, NDArray[np.int64]]:
    """Flat labels renumbered 1..N, N, and the size of each."""
    flat = labels.ravel()
    if flat.size and int(flat.max()) <= 4 * flat.size:  # a table of all ids is cheaper than sorting all voxels
        size = np.bincount(flat)
        ids = np.flatnonzero(size[1:]) + 1
        new = np.zeros(len(size), dtype=np.intp)
        new[ids] = np.arange(1, len(ids) + 1)
        return new[flat], len(ids), size[ids]
    ids, inverse, count = np.unique(np.append(flat, flat.dtype.type(0)), return_inverse=True, return_counts=True)
    return inverse[:-1].astype(np.intp), len(ids) - 1, count[1:]


def _groups(
    i: NDArray[np.intp], j: NDArray[np.intp], iou: NDArray[np.float64]
) -> Iterable[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]]:
    """Best assignment within each connected group of pairs."""
    if not len(i):
        return
    n = int(i.max()) + 1
    graph = coo_array((np.ones(len(i)), (i, j + n)), shape=(n + int(j.max()) + 1,) * 2)
    group = connected_components(graph, directed=False)[1][i]
    for g in np.unique(group):
        rows, r = np.unique(i[group == g], return_inverse=True)
        columns, c = np.unique(j[group == g], return_inverse=True)
        gain = np.zeros((len(rows), len(columns)))
        gain[r, c] = iou[group == g] + len(iou)  # the number of pairs counts first, then their IoU
        a, b = linear_sum_assignment(gain, maximize=True)
        real = gain[a, b] > 0
        a, b = a[real], b[real]
        yield rows[a], columns[b], gain[a, b] - len(iou)
