"""From cases to rows: each figure of one data set, of all objects, of each class and of each size; and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.metrics import figures, reliability
from medseg.metrics.cases import CaseScore
from medseg.metrics.counting import Mask
from medseg.metrics.detection import PrecisionRecall, Ranked, precision_recall, ranked
from medseg.metrics.lesions import RULES
from medseg.metrics.matching import THRESHOLDS, Counts
from medseg.metrics.ranking import class_estimates, coco_estimates, froc_estimates
from medseg.metrics.response import Froc, froc
from medseg.metrics.strata import Strata
from medseg.metrics.sums import Estimate, Floats, Resampling, Sums, classes_mean

MEAN_OF_CLASSES = "mean of classes"


@dataclass(frozen=True)
class Row:
    """One figure of one data set.

    Attributes
    ----------
    source, figure : str
        Data set and figure.
    class_name, size : str
        The class or size the figure is of; empty: all. A row is of a class or of a size, never of both.
    estimate : Estimate
        Its values.
    """

    source: str
    figure: str
    class_name: str
    size: str
    estimate: Estimate


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of one data set, all cases pooled.

    Attributes
    ----------
    thresholds : float64 (T,)
        IoU thresholds of the next two.
    ap_pooled, ap_mean : float64 (T,)
        AP = TP / (TP + FP + FN) in both averagings.
    precision_recall : PrecisionRecall or None
        At IoU .5; None without scores, or where "coco" was not asked for.
    froc : mapping of str to Froc
        By hit rule; empty without scores or lesions, or where "lesions" was not asked for.
    """

    thresholds: Floats
    ap_pooled: Floats
    ap_mean: Floats
    precision_recall: PrecisionRecall | None
    froc: Mapping[str, Froc]


def rows_of(source: str, cases: Sequence[CaseScore], drawn: Resampling, sizes: Strata | None) -> list[Row]:
    """Every figure over the cases of one source."""
    every = [(np.ones(c.table.n_truth, np.bool_), np.ones(c.table.n_prediction, np.bool_)) for c in cases]
    whole = _collected(cases, every, 0)
    out = [Row(source, name, "", "", drawn.estimate(sums)) for name, sums in whole.items()]
    names = max((c.classes for c in cases), key=len)
    if len(names) > 1:
        out += _of_classes(source, cases, drawn, names)
    if sizes is not None:
        out += _of_sizes(source, cases, drawn, sizes)
    out += _of_scores(source, cases, drawn, names, sizes)
    return out


def curves_of(cases: Sequence[CaseScore]) -> Curves:
    """The curves of one source."""
    counts = [[case.counts(t) for t in THRESHOLDS] for case in cases]
    pooled = [sum(column, Counts(0, 0, 0, 0.0)).ap for column in zip(*counts, strict=True)]
    mean = [float(np.mean([c.ap for c in column])) for column in zip(*counts, strict=True)]
    order = _ranked(cases)
    points = precision_recall(order) if order and any(r.n_truth for r in order) else None
    responses: dict[str, Froc] = {}
    for rule in RULES:
        hits = [case.hits[rule] for case in cases if rule in case.hits]
        if len(hits) == len(cases) and _scored(cases) and any(h.counts.any() for h in hits):
            responses[rule] = froc(hits)
    return Curves(np.array(THRESHOLDS), np.array(pooled), np.array(mean), points, responses)


def _of_classes(source: str, cases: Sequence[CaseScore], drawn: Resampling, names: tuple[str, ...]) -> list[Row]:
    """Rows of each class that occurs, and the mean over them of what is a ratio."""
    out: list[Row] = []
    found: dict[str, list[list[Sums | None]]] = {}
    for number, name in enumerate(names, 1):
        some = [(c.table.truth.classes == number, c.table.prediction.classes == number) for c in cases]
        if not any(mask.any() for pair in some for mask in pair):
            continue
        for figure, sums in _collected(cases, some, number).items():
            out.append(Row(source, figure, name, "", drawn.estimate(sums)))
            found.setdefault(figure, []).append(sums)
    for figure, classes in found.items():
        if all(s is None or s.pooling == "ratio" for sums in classes for s in sums):
            nothing = next(s for sums in classes for s in sums if s is not None)
            empty = Sums(*np.zeros_like(nothing.stack()))
            each = zip(*([s or empty for s in sums] for sums in classes), strict=True)
            mean = drawn.estimate([classes_mean(one) for one in each])
            out.append(Row(source, figure, MEAN_OF_CLASSES, "", mean))
    return out


def _of_sizes(source: str, cases: Sequence[CaseScore], drawn: Resampling, sizes: Strata) -> list[Row]:
    """Rows of each size: true objects count in their own, false positives in theirs."""
    numbers = [(sizes.of(c.table.truth, c.table), sizes.of(c.table.prediction, c.table)) for c in cases]
    out = []
    for number, size in enumerate(sizes.names):
        some = [(truth == number, prediction == number) for truth, prediction in numbers]
        for figure, sums in _collected(cases, some, None).items():
            out.append(Row(source, figure, "", size, drawn.estimate(sums)))
    return out


def _of_scores(
    source: str, cases: Sequence[CaseScore], drawn: Resampling, names: tuple[str, ...], sizes: Strata | None
) -> list[Row]:
    """Rows of the figures that rank predictions of all cases by score."""
    out: list[Row] = []
    order = _ranked(cases)
    if order:
        out += [Row(source, n, "", "", e) for n, e in coco_estimates(order, drawn.weights).items()]
        if (error := reliability.estimate(cases, drawn.weights)) is not None:
            out.append(Row(source, "ECE@.5", "", "", error))
        if len(names) > 1:
            for number, values in class_estimates(order).items():
                some = {n: Estimate(len(cases), v, None, None, None) for n, v in values.items()}
                out += [Row(source, n, names[number - 1], "", e) for n, e in some.items()]
        for number, size in enumerate(sizes.names if sizes is not None else ()):
            within = [_within(case, sizes, number) for case in cases] if sizes is not None else []
            out += [Row(source, n, "", size, e) for n, e in coco_estimates(within, drawn.weights).items()]
    for rule, name in RULES.items():
        if _scored(cases) and all(rule in case.hits for case in cases):
            found = froc_estimates([case.hits[rule] for case in cases], drawn.weights, name)
            out += [Row(source, n, "", "", e) for n, e in found.items()]
    return out


def _within(case: CaseScore, sizes: Strata, number: int) -> Ranked:
    """The case's ranking with objects of other sizes set aside."""
    return ranked(case.table, size_range=sizes.range_of(number), unit="mm" if sizes.metric else "voxels")


def _collected(
    cases: Sequence[CaseScore], some: Sequence[tuple[Mask, Mask]], number: int | None
) -> dict[str, list[Sums | None]]:
    """Figures of some objects of each case; None where a case has no such object, or lacks the figure.

    `number` is the class whose figures of voxels belong to it, None for none.
    """
    out: dict[str, list[Sums | None]] = {}
    for place, (case, (truths, predictions)) in enumerate(zip(cases, some, strict=True)):
        found = figures.of_objects(case, truths, predictions)
        if number is not None:
            found |= {name: sums for (name, k), sums in case.figures.items() if k == number}
        there = number == 0 or truths.any() or predictions.any()
        for name, sums in found.items():
            if there or sums.pooling in ("total", "rate"):
                out.setdefault(name, [None] * len(cases))[place] = sums
    return out


def _scored(cases: Sequence[CaseScore]) -> bool:
    return all(case.table.prediction.scored for case in cases)


def _ranked(cases: Sequence[CaseScore]) -> list[Ranked]:
    """Rankings of all cases, or none where one has no scores."""
    some = [case.ranked for case in cases if case.ranked is not None]
    return some if len(some) == len(cases) else []
