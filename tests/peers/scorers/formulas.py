"""Formulas of challenges whose own code is on no package index, written out plainly with NumPy and SciPy.

BraTS 2023: https://github.com/rachitsaluja/BraTS-2023-Metrics (eval.py), which the challenge used.
autoPET: https://github.com/lab-midas/autoPET (val_script.py).
AJI: Kumar et al., IEEE TMI 2017, algorithm 1. SEG: Cell Tracking Challenge, Maska et al., Bioinformatics 2014.
Every object is a whole mask and every pair is visited: slow, and nothing shared with medseg.
"""

from __future__ import annotations

import numpy as np
from cases import BRATS, Case
from peers import hd95
from scipy import ndimage

WORST = 374.0  # mm, HD95 of a lesion that one side lacks


def brats(case: Case) -> dict[str, object]:
    """Lesion-wise Dice and HD95 of the foreground at the settings of gliomas (GLI) and of metastases (MET)."""
    truth, prediction = (labels > 0 for labels in (case.truth, case.prediction))
    spacing = case.spacing
    if truth.ndim == 2:  # a volume of one slice
        truth, prediction, spacing = truth[None], prediction[None], (1.0, *spacing)
    rows = [_brats(truth, prediction, spacing, *setting) for setting in BRATS.values()]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _brats(truth, prediction, spacing, dilations: int, smallest: float) -> dict[str, float]:
    joining, full = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3))
    grown, lesions = ndimage.label(ndimage.binary_dilation(truth, joining, dilations), full)
    pieces, parts = ndimage.label(prediction, full)
    dice, far, hit, missed, used = [], [], 0, 0, set()
    for k in range(1, lesions + 1):
        lesion = truth & (grown == k)
        touched = set(np.unique(pieces[ndimage.binary_dilation(lesion, joining, dilations)]).tolist()) - {0}
        used |= touched
        if lesion.sum() * np.prod(spacing) <= smallest:
            continue
        over = np.isin(pieces, list(touched))
        dice.append(2 * (over & lesion).sum() / (over.sum() + lesion.sum()))
        distance = hd95(lesion, over, spacing)
        far.append(distance if np.isfinite(distance) else WORST)
        hit, missed = hit + bool(touched), missed + (not touched)
    false = parts - len(used)
    n = len(dice) + false
    return {
        "tp": hit,
        "fp": false,
        "fn": missed,
        "dice": sum(dice) / n if n else 1.0,
        "hd95": (sum(far) + false * WORST) / n if n else 0.0,
    }


def autopet(case: Case) -> dict[str, object]:
    """False positive and false negative volume in millilitres, and Dice."""
    truth, prediction = (labels > 0 for labels in (case.truth, case.prediction))
    spacing = case.spacing if truth.ndim == 3 else (1.0, *case.spacing)
    if truth.ndim == 2:
        truth, prediction = truth[None], prediction[None]
    millilitres = float(np.prod(spacing)) / 1000

    def alone(mask, other):
        components, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
        return sum(int((components == k).sum()) for k in range(1, count + 1) if not (other & (components == k)).any())

    return {"fpv": alone(prediction, truth) * millilitres, "fnv": alone(truth, prediction) * millilitres}


def aji(case: Case) -> float:
    """Aggregated Jaccard index; NaN where there is neither truth nor prediction."""
    truths = [case.truth == k for k in np.unique(case.truth) if k]
    predictions = [case.prediction == k for k in np.unique(case.prediction) if k]
    shared, union, used = 0, 0, set()
    for one in truths:
        quotients = [(one & other).sum() / (one | other).sum() for other in predictions]
        if quotients and max(quotients) > 0:
            best = int(np.argmax(quotients))
            shared += int((one & predictions[best]).sum())
            union += int((one | predictions[best]).sum())
            used.add(best)
        else:
            union += int(one.sum())
    union += sum(int(other.sum()) for k, other in enumerate(predictions) if k not in used)
    return shared / union if union else float("nan")


def seg(case: Case) -> float:
    """SEG of the Cell Tracking Challenge; NaN without truth."""
    truths = [case.truth == k for k in np.unique(case.truth) if k]
    predictions = [case.prediction == k for k in np.unique(case.prediction) if k]
    values = []
    for one in truths:
        holder = [other for other in predictions if (one & other).sum() > 0.5 * one.sum()]
        values.append((one & holder[0]).sum() / (one | holder[0]).sum() if holder else 0.0)
    return float(np.mean(values)) if values else float("nan")
