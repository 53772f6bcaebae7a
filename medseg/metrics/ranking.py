"""How sure ranked figures are: COCO average precision and FROC over resampled cases, from weights instead of copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.detection import RECALLS, Ranked, coco, coco_classes
from medseg.metrics.response import RATES, Hits, froc
from medseg.metrics.sums import Estimate, Floats, interval

DRAWS = 200  # of the resamplings; a draw costs a pass over all predictions, not over the cases


def coco_estimates(cases: Sequence[Ranked], weights: Floats) -> dict[str, Estimate]:
    """COCO figures of all cases together with their intervals; empty where no true object counts.

    Parameters
    ----------
    cases
        From `ranked`, one for each case.
    weights : float64 (B, n)
        How often each case occurs in each draw (`Resampling.weights`).
    """
    figures = {f"COCO {name}": value for name, value in coco(cases).items() if np.isfinite(value)}
    if not figures:
        return {}
    drawn = np.array([_drawn(cases, w) for w in weights[:DRAWS]]).reshape(-1, len(cases[0].thresholds))
    which = {"COCO mAP": drawn.mean(axis=1), "COCO AP50": drawn[:, 0], "COCO AP75": drawn[:, 5]}
    return {name: _pooled(value, which[name], len(cases)) for name, value in figures.items()}


def froc_estimates(cases: Sequence[Hits], weights: Floats, name: str) -> dict[str, Estimate]:
    """Sensitivity at each of the usual rates of false positives per scan, and their mean; empty without lesions."""
    whole = froc(cases)
    if not np.isfinite(whole.mean):
        return {}
    right, by_right = _sorted([case.best[case.found] for case in cases])
    wrong, by_wrong = _sorted([case.scores[case.false] for case in cases])
    score = np.unique(np.concatenate([right, wrong]))[::-1]
    truths = np.array([np.count_nonzero(case.counts) for case in cases])
    rows = []
    for w in weights[:DRAWS]:
        if w @ truths:
            tp = _from(right, w[by_right], score) / (w @ truths)
            rows.append(np.interp(RATES, _from(wrong, w[by_wrong], score) / w.sum(), tp))
    drawn = np.array(rows).reshape(-1, len(RATES))
    out = {f"FROC mean sensitivity ({name})": _pooled(whole.mean, drawn.mean(axis=1), len(cases))}
    for column, (rate, value) in enumerate(zip(RATES, whole.sensitivity.tolist(), strict=True)):
        out[f"sensitivity at {rate:g} FP per scan ({name})"] = _pooled(value, drawn[:, column], len(cases))
    return out


def class_estimates(cases: Sequence[Ranked]) -> dict[int, dict[str, float]]:
    """COCO figures of each class that has true objects."""
    return {
        k: {"COCO mAP": float(ap.mean()), "COCO AP50": float(ap[0]), "COCO AP75": float(ap[5])}
        for k, ap in coco_classes(cases).items()
    }


def _pooled(value: float, drawn: Floats, cases: int) -> Estimate:
    return Estimate(cases, value, interval(drawn), None, None)


def _drawn(cases: Sequence[Ranked], weight: Floats) -> Floats:
    """AP at each threshold (T,), mean over the classes, of one draw; NaN if it holds no true object."""
    used = [(case, w) for case, w in zip(cases, weight.tolist(), strict=True) if w]
    found = [
        _average_precision(used, k, n)
        for k in sorted({k for case, _ in used for k in case.truths})
        if (n := sum(w * case.truths.get(k, 0) for case, w in used))
    ]
    return np.mean(found, axis=0) if found else np.full(len(cases[0].thresholds), np.nan)


def _average_precision(used: Sequence[tuple[Ranked, float]], k: int, n_truth: float) -> Floats:
    """As `medseg.metrics.coco_classes`, but a prediction of a case drawn w times counts w times."""
    rows = [case.classes == k for case, _ in used]
    scores = np.concatenate([case.scores[r] for (case, _), r in zip(used, rows, strict=True)])
    times = np.concatenate([np.full(int(r.sum()), w) for (_, w), r in zip(used, rows, strict=True)])
    order = np.argsort(-scores, kind="stable")
    hit = np.concatenate([case.hit[:, r] for (case, _), r in zip(used, rows, strict=True)], axis=1)[:, order]
    skipped = np.concatenate([case.skipped[:, r] for (case, _), r in zip(used, rows, strict=True)], axis=1)[:, order]
    tp = np.cumsum(hit * times[order], axis=1)
    fp = np.cumsum((~hit & ~skipped) * times[order], axis=1)
    precision = tp / (tp + fp + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(precision, ((0, 0), (0, 1)))
    place = np.array([np.searchsorted(line, RECALLS) for line in tp / n_truth])
    average: Floats = np.take_along_axis(padded, place, axis=1).mean(axis=1)
    return average


def _sorted(parts: Sequence[Floats]) -> tuple[Floats, NDArray[np.intp]]:
    """All scores ascending, and the case of each."""
    values = np.concatenate(parts)
    case = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    order = np.argsort(values, kind="stable")
    return values[order], case[order]


def _from(values: Floats, weight: Floats, score: Floats) -> Floats:
    """Weight of the values that are at least each score, after a 0 for none of them."""
    ending = np.append(0.0, np.cumsum(weight))
    return np.append(0.0, ending[-1] - ending[np.searchsorted(values, score)])
