"""How far scores can be believed: whether of the predictions with a score of .8 four in five are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.cases import CaseScore
from medseg.metrics.ranking import DRAWS
from medseg.metrics.sums import Estimate, Floats, interval

BINS = 10


class Reliability(NamedTuple):
    """Predictions in bins of their score, from [0, .1) to [.9, 1].

    Attributes
    ----------
    predictions : float64 (BINS,)
        How many.
    score : float64 (BINS,)
        Sum of their scores.
    right : float64 (BINS,)
        How many have a partner at IoU .5.
    """

    predictions: Floats
    score: Floats
    right: Floats

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al. 2015): mean of |share right - mean score| over predictions; NaN without any."""
        total = self.predictions.sum()
        return float(np.abs(self.right - self.score).sum() / total) if total else float("nan")


def reliability(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> Reliability:
    """Bin predictions by score, 0 to 1.

    Examples
    --------
    >>> round(reliability(np.array([0.9, 0.9, 0.9, 0.9]), np.array([True, True, True, False])).error, 3)
    0.15
    """
    place = np.clip((np.asarray(scores, np.float64) * BINS).astype(int), 0, BINS - 1)
    sums = [
        np.bincount(place, weights=w, minlength=BINS).astype(np.float64) for w in (np.ones(len(place)), scores, right)
    ]
    return Reliability(sums[0], sums[1], sums[2])


def of_case(case: CaseScore) -> Reliability:
    """Reliability of the predictions of a case that count: right with a partner at IoU .5, wrong without."""
    partner = case.marks.partner[0]
    right = np.zeros(case.table.n_prediction, np.bool_)
    right[partner[partner >= 0]] = True
    some = right | case.marks.spurious[0]
    return reliability(case.table.prediction.scores[some], right[some])


def estimate(cases: Sequence[CaseScore], weights: Floats) -> Estimate | None:
    """Expected calibration error over all predictions; None where scores are no probabilities or nothing is predicted.

    `weights` (B, n) says how often each case occurs in each draw.
    """
    scores = np.concatenate([case.table.prediction.scores for case in cases])
    if not scores.size or np.isnan(scores).any() or scores.min() < 0 or scores.max() > 1:
        return None
    parts = np.array([of_case(case) for case in cases])  # (n, 3, BINS)
    if not parts[:, 0].any():
        return None
    drawn = np.array([Reliability(*np.tensordot(w, parts, axes=1)).error for w in weights[:DRAWS]])
    return Estimate(len(cases), Reliability(*parts.sum(axis=0)).error, interval(drawn), None, None)
