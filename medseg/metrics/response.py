"""Lesions found and missed by hit rules, and free-response ROC curves (FROC).

A hit rule asks less than an IoU of .5: whether a lesion was noticed, and not how well it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg.errors import InputError
from medseg.metrics.contingency import Overlap
from medseg.metrics.counting import Mask
from medseg.metrics.inputs import need_scores
from medseg.metrics.matching import excused

Floats = NDArray[np.float64]
Rule = Literal["any", "iou", "centre"]

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, eq=False)
class Hits:
    """Which lesions of one scan were found, and which predictions are false; see `hits`.

    Attributes
    ----------
    rule : str
        The hit rule: "any", "iou" or "centre"; part of the name of any figure made from it.
    counts : bool (n_truth,)
        True objects that are not ignored.
    found : bool (n_truth,)
        Those of them that a prediction hit.
    best : float64 (n_truth,)
        The highest score among the predictions that hit the object; NaN where not found or without scores.
    false : bool (n_prediction,)
        Predictions that hit nothing and are not excused.
    scores : float64 (n_prediction,)
        Scores of all predictions, in the order of the table.
    """

    rule: Rule
    counts: Mask
    found: Mask
    best: Floats
    false: Mask
    scores: Floats

    @property
    def tp(self) -> int:
        """Lesions found."""
        return int(np.count_nonzero(self.found))

    @property
    def fn(self) -> int:
        """Lesions missed."""
        return int(np.count_nonzero(self.counts)) - self.tp

    @property
    def fp(self) -> int:
        """False predictions."""
        return int(np.count_nonzero(self.false))


@dataclass(frozen=True, eq=False)
class Froc:
    """Sensitivity over false positives per scan.

    Attributes
    ----------
    rates, sensitivity : float64 (R,)
        False positives per scan, and the sensitivity there.
    mean : float
        Mean of `sensitivity`: the score of LUNA16.
    curve_rate, curve_sensitivity, curve_score : float64 (n,)
        The whole curve, from no prediction (score inf) to all of them.
    """

    rates: Floats
    sensitivity: Floats
    mean: float
    curve_rate: Floats
    curve_sensitivity: Floats
    curve_score: Floats


def hits(table: Overlap, rule: Rule = "any", threshold: float = 0.1) -> Hits:
    """Which lesions were found and which predictions are false, by one of the field's rules.

    A prediction hits a true object of its class if they share any voxel ("any"), if their IoU is at least ``threshold``
    ("iou"), or if the voxel that holds the prediction's centroid belongs to the object ("centre", as in LUNA16). Counted as
    in LUNA16 (Setio 2017): an object hit by several predictions is found once, with the best of their scores, and the other
    hits are neither right nor wrong; a prediction that hits several objects finds all of them; one that hits only ignored
    objects is neither right nor wrong; a prediction that hits nothing is false. So these figures do not punish lesions that
    were split or merged; `medseg.metrics.match` does, which pairs one to one.

    Raises
    ------
    InputError
        The rule is not known.

    References
    ----------
    Setio et al., Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules in
    computed tomography images: the LUNA16 challenge, Medical Image Analysis 42, 2017.
    """
    if rule not in get_args(Rule):
        raise InputError(f"hit rule {rule!r} is not known; use one of {', '.join(get_args(Rule))}")
    truth, prediction = table.truth, table.prediction
    i, j = (table.centre_i, table.centre_j) if rule == "centre" else (table.i, table.j)
    ok = truth.classes[i] == prediction.classes[j]
    if rule == "iou":
        share = np.where(truth.crowd[i], table.shared / prediction.sizes[j], table.iou)
        ok &= share >= threshold
    i, j = i[ok], j[ok]
    false = ~excused(table, threshold if rule == "iou" else 0.5)
    false[j] = False
    best = np.full(len(truth), np.nan)
    rising = np.argsort(prediction.scores[j])
    best[i[rising]] = prediction.scores[j[rising]]  # the last one written is the highest
    counts = ~truth.ignored
    found = np.zeros(len(truth), np.bool_)
    found[i] = True
    found &= counts
    return Hits(rule, counts, found, np.where(found, best, np.nan), false, prediction.scores)


def froc(cases: Sequence[Hits], rates: Sequence[float] = RATES) -> Froc:
    """Free-response ROC over scans: sensitivity at given numbers of false positives per scan, and their mean.

    The curve has a point for each score that occurs, keeping all predictions of at least that score, and starts at (0, 0).
    Between points it is linear, as in the LUNA16 evaluation; where several points have one rate, the one of the lowest
    score counts; beyond the last point the sensitivity stays. So a detector that finds everything and invents nothing
    scores 1. Without any lesion that counts the sensitivity is NaN.

    Parameters
    ----------
    cases
        From `hits`, one for each scan, all by one rule, with scores.
    rates
        False positives per scan; the default is that of LUNA16 (Setio 2017).

    Raises
    ------
    InputError
        No cases, predictions without scores, or cases counted by different rules.
    """
    if not cases:
        raise InputError("no cases to score")
    if len({case.rule for case in cases}) > 1:
        raise InputError("the cases were counted by different hit rules; use one for all")
    for case in cases:
        need_scores(case.scores)
    right = np.sort(np.concatenate([case.best[case.found] for case in cases]))
    wrong = np.sort(np.concatenate([case.scores[case.false] for case in cases]))
    score = np.unique(np.concatenate([right, wrong]))[::-1]
    n_truth = sum(int(np.count_nonzero(case.counts)) for case in cases)
    tp = np.append(0, len(right) - np.searchsorted(right, score))
    rate = np.append(0, len(wrong) - np.searchsorted(wrong, score)) / len(cases)
    sensitivity = tp / n_truth if n_truth else np.full(len(tp), np.nan)
    asked = np.asarray(rates, np.float64)
    there = np.interp(asked, rate, sensitivity)
    return Froc(asked, there, float(there.mean()), rate, sensitivity, np.append(np.inf, score))
