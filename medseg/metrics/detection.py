"""Figures of scored predictions: COCO average precision and precision-recall curves.

Scores only rank the predictions, they are never made up: without scores there is no such figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.errors import InputError
from medseg.metrics.contingency import Overlap
from medseg.metrics.counting import Mask, Rows
from medseg.metrics.inputs import need_scores
from medseg.metrics.matching import THRESHOLDS, excused

Floats = NDArray[np.float64]

RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class Ranked:
    """One case's predictions, best score first, as COCO counts them.

    Attributes
    ----------
    scores : float64 (n,)
        Falling; equal scores keep the order of the predictions.
    classes : int32 (n,)
        Class of each.
    rows : intp (n,)
        Row of each in the table's `prediction`.
    hit, skipped : bool (T, n)
        At each IoU threshold: right, or neither right nor wrong. The others are wrong.
    truths : mapping of int to int
        Class to number of true objects that count.
    thresholds : tuple of float
        IoU thresholds (T).
    """

    scores: Floats
    classes: NDArray[np.int32]
    rows: Rows
    hit: Mask
    skipped: Mask
    truths: Mapping[int, int]
    thresholds: tuple[float, ...]

    @property
    def n_truth(self) -> int:
        """True objects that count, of all classes."""
        return sum(self.truths.values())


class PrecisionRecall(NamedTuple):
    """Recall and precision if all predictions of at least this score are kept, score falling; all (n,)."""

    recall: Floats
    precision: Floats
    score: Floats


def ranked(
    table: Overlap,
    thresholds: Sequence[float] = THRESHOLDS,
    size_range: tuple[float, float] | None = None,
    unit: Literal["voxels", "mm"] = "voxels",
) -> Ranked:
    """Match predictions to truth greedily by score, as the COCO evaluation does (Lin 2014), without a cap of detections.

    In the order of falling scores (equal scores: the order of the predictions) each prediction takes the true object of its
    class with the largest IoU >= threshold that nobody took (equal IoU: the later one). One that finds none may take an
    ignored object, and is then skipped: neither right nor wrong. A crowd region may be taken often, and its overlap is the
    share of the prediction's voxels that lie in it. Where `ignore` or crowd excuse a prediction without partner (see
    `medseg.metrics.matching.excused`), it is skipped as well.

    Parameters
    ----------
    table
        From `overlap`, with scores.
    thresholds
        IoU thresholds, each above 0.
    size_range
        Least and largest size, both included. True objects outside are ignored, unmatched predictions outside skipped.
    unit
        Of `size_range`: voxels, or mm2 (2-D) and mm3 (3-D).

    Raises
    ------
    InputError
        Predictions have no scores, a threshold is not above 0, or millimetres are asked for and the spacing is unknown.

    References
    ----------
    Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; the evaluation code, pycocotools.cocoeval.
    """
    truth, prediction = table.truth, table.prediction
    need_scores(prediction.scores)
    if not thresholds or min(thresholds) <= 0:
        raise InputError(f"IoU thresholds {tuple(thresholds)} must be at least one, all above 0")
    aside = truth.ignored | _outside(table, truth.sizes, size_range, unit)
    outside = _outside(table, prediction.sizes, size_range, unit)
    order = np.argsort(-prediction.scores, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    pairs = np.flatnonzero(table.same)
    i, j = table.i[pairs], table.j[pairs]
    crowd = truth.crowd[i]
    value = np.where(crowd, table.shared[pairs] / prediction.sizes[j], table.iou[pairs])
    wish = np.lexsort((-i, -value, aside[i], rank[j]))  # predictions by rank, the objects of each by preference
    i, j, crowd, value = i[wish], rank[j[wish]], crowd[wish], value[wish]
    hit, skipped = np.zeros((2, len(thresholds), len(order)), np.bool_)
    for t, threshold in enumerate(thresholds):
        ok = np.flatnonzero(value >= min(threshold, 1 - 1e-10))
        got = ok[_first_come(i[ok], j[ok], crowd[ok], len(truth), len(order))]
        skipped[t] = (outside | excused(table, threshold))[order]
        skipped[t, j[got]] = aside[i[got]]
        hit[t, j[got]] = ~aside[i[got]]
    number, count = np.unique(truth.classes[~aside], return_counts=True)
    truths = dict(zip(number.tolist(), count.tolist(), strict=True))
    return Ranked(prediction.scores[order], prediction.classes[order], order, hit, skipped, truths, tuple(thresholds))


def coco(cases: Sequence[Ranked]) -> dict[str, float]:
    """COCO figures over cases: mAP over all thresholds, AP50 and AP75 where these are among them.

    Average precision is the mean of the precision, made non-increasing, at the 101 recalls 0, .01 to 1, of each class by
    itself; then the mean over the classes that have true objects. Without any true object that counts it is NaN.
    Predictions of equal score keep the order of the cases.

    Raises
    ------
    InputError
        No cases, or cases ranked at different thresholds.
    """
    table = list(coco_classes(cases).values())
    thresholds = cases[0].thresholds
    precision = np.mean(table, axis=0) if table else np.full(len(thresholds), np.nan)
    figures = {"mAP": float(precision.mean())}
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        at = np.flatnonzero(np.isclose(thresholds, threshold, rtol=0, atol=1e-9))
        if len(at):
            figures[name] = float(precision[at[0]])
    return figures


def coco_classes(cases: Sequence[Ranked]) -> dict[int, Floats]:
    """COCO average precision of each class that has true objects: class to AP at each threshold (T,); see `coco`."""
    _alike(cases)
    out = {}
    for k in sorted({k for case in cases for k in case.truths}):
        n_truth = sum(case.truths.get(k, 0) for case in cases)
        hit, skipped, _ = _pooled(cases, k)
        tp, fp = np.cumsum(hit, axis=1), np.cumsum(~hit & ~skipped, axis=1)
        precision = tp / (tp + fp + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.pad(precision, ((0, 0), (0, 1)))  # a recall that is not reached has precision 0
        at = np.array([np.searchsorted(line, RECALLS) for line in tp / n_truth])
        out[k] = np.take_along_axis(padded, at, axis=1).mean(axis=1)
    return out


def precision_recall(cases: Sequence[Ranked], threshold: float = 0.5, class_id: int | None = None) -> PrecisionRecall:
    """Precision and recall of all cases together as the score falls, one point for each score that occurs.

    Parameters
    ----------
    cases
        From `ranked`.
    threshold
        One of the IoU thresholds of the cases.
    class_id
        One class; without it the predictions of all classes are pooled.

    Raises
    ------
    InputError
        No cases, or cases that were not ranked at this threshold.
    """
    thresholds = _alike(cases)
    at = np.flatnonzero(np.isclose(thresholds, threshold, rtol=0, atol=1e-9))
    if not len(at):
        raise InputError(f"the cases were ranked at the IoU thresholds {thresholds}, not at {threshold}")
    hit, skipped, scores = _pooled(cases, class_id)
    kept = ~skipped[at[0]]
    right, scores = hit[at[0]][kept], scores[kept]
    n_truth = sum(case.n_truth if class_id is None else case.truths.get(class_id, 0) for case in cases)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])  # equal scores come in together
    tp = np.cumsum(right)[last]
    recall = tp / n_truth if n_truth else np.full(len(last), np.nan)
    return PrecisionRecall(recall, tp / (last + 1), scores[last])


def _first_come(i: Rows, j: Rows, crowd: Mask, n_truth: int, n_prediction: int) -> Rows:
    """Which pairs are taken if the predictions, in order, each take the first object that is free; crowds always are."""
    wanted, wishes = np.bincount(i, minlength=n_truth), np.bincount(j, minlength=n_prediction)
    alone = (wishes[j] == 1) & ((wanted[i] == 1) | crowd)
    out = np.flatnonzero(alone).tolist()
    rest = np.flatnonzero(~alone)
    taken, served = np.zeros((2, max(n_truth, n_prediction)), np.bool_).tolist()
    for row, one, two, many in zip(
        rest.tolist(), i[rest].tolist(), j[rest].tolist(), crowd[rest].tolist(), strict=True
    ):
        if not served[two] and (many or not taken[one]):
            served[two] = taken[one] = True
            out.append(row)
    return np.array(out, np.intp)


def _outside(
    table: Overlap, sizes: NDArray[np.int64], size_range: tuple[float, float] | None, unit: Literal["voxels", "mm"]
) -> Mask:
    if unit not in ("voxels", "mm"):
        raise InputError(f"unit {unit!r} is not known; use voxels or mm")
    if unit == "mm" and table.spacing is None:
        raise InputError("the spacing is unknown, so there are no sizes in millimetres; give the spacing or use voxels")
    if size_range is None:
        return np.zeros(len(sizes), np.bool_)
    measure = sizes * (np.prod(table.spacing) if unit == "mm" and table.spacing else 1.0)
    out: Mask = (measure < size_range[0]) | (measure > size_range[1])
    return out


def _alike(cases: Sequence[Ranked]) -> tuple[float, ...]:
    if not cases:
        raise InputError("no cases to score")
    if len({case.thresholds for case in cases}) > 1:
        raise InputError("the cases were ranked at different IoU thresholds; use the same for all")
    return cases[0].thresholds


def _pooled(cases: Sequence[Ranked], class_id: int | None) -> tuple[Mask, Mask, Floats]:
    """Hit and skipped (T, n) and scores (n,) of all cases, best score first, equal ones in the order of the cases."""
    chosen = [slice(None) if class_id is None else case.classes == class_id for case in cases]
    scores = np.concatenate([case.scores[rows] for case, rows in zip(cases, chosen, strict=True)])
    order = np.argsort(-scores, kind="stable")
    hit, skipped = (
        np.concatenate([part[:, rows] for part, rows in zip(parts, chosen, strict=True)], axis=1)[:, order]
        for parts in ([case.hit for case in cases], [case.skipped for case in cases])
    )
    return hit, skipped, scores[order]
