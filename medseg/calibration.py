"""From raw scores of a head to the chance that an instance is one.

A logistic (Platt 1999) over what an instance's own voxels say, how large it is beside the others of its image, and what the image
as a whole looks like: where most instances look doubtful, the sure ones are less sure too. Absolute size is left out on purpose: it
tells the collections of a tune split apart, and misleads on one that was not there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from medseg.ops.labels import usual_size
from medseg.spec import CalibrationSpec

_EDGE = 1e-4  # raw scores count as at least so far from 0 and 1
_PULL = np.array([0, 1e-3, 1e-3, 0])  # towards weights of 0 for what describes the image: tune holds few images


def features(scores: NDArray[np.floating], voxels: NDArray[np.number]) -> NDArray[np.float64]:
    """What calibration goes by, for the instances of one image.

    Parameters
    ----------
    scores
        Raw scores (N,), 0 to 1.
    voxels
        Size of each instance (N,); only ratios matter.

    Returns
    -------
    ndarray of float64, (N, 4)
        A column per field of `CalibrationSpec`, in their order: logit of the score, log of the size beside the usual one where it
        is smaller, logit of the image's median score, 1.
    """
    if not len(scores):
        return np.zeros((0, len(_PULL)))
    raw = logit(np.clip(np.asarray(scores, np.float64), _EDGE, 1 - _EDGE))
    size = np.maximum(voxels, 1)
    small = np.minimum(np.log(size / usual_size(size)), 0)
    one = np.ones(len(raw))
    return np.stack([raw, small, np.median(raw) * one, one], axis=1)


def calibrated(
    scores: NDArray[np.floating], voxels: NDArray[np.number], spec: CalibrationSpec | None
) -> NDArray[np.float32]:
    """Chance of each instance of one image to lie on a true one with IoU .5, float32 (N,); parameters as for `features`.

    Without a calibration the scores stay as they are.

    Examples
    --------
    >>> told = CalibrationSpec(score=1.0, offset=-1.0)
    >>> calibrated(np.array([0.5, 0.9]), np.array([80, 90]), told).round(3).tolist()
    [0.2689999938011169, 0.7680000066757202]
    """
    if spec is None:
        return np.asarray(scores, np.float32)
    weights = np.array(list(spec.model_dump().values()))
    return np.asarray(expit(features(scores, voxels) @ weights), np.float32)


def fit(rows: NDArray[np.float64], right: NDArray[np.bool_], weight: NDArray[np.float64]) -> CalibrationSpec | None:
    """The logistic that tells right from wrong instances best.

    Parameters
    ----------
    rows
        `features` of all instances (N, 4).
    right
        Whether an instance is one (N,).
    weight
        How much each counts (N,).

    Returns
    -------
    CalibrationSpec or None
        None where too little was found, all is right or wrong, or where a higher score means a worse instance.
    """
    if len(right) < 20 or right.all() or not right.any():
        return None
    share = weight / weight.sum()

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = rows @ w
        value = (share * (np.logaddexp(0, z) - right * z)).sum() + (_PULL * w**2).sum()
        return float(value), rows.T @ (share * (expit(z) - right)) + 2 * _PULL * w

    found = minimize(loss, np.eye(len(_PULL))[0], jac=True, method="BFGS").x
    if found[0] <= 0:  # turning such a score over would tell even less
        return None
    return CalibrationSpec.model_validate(
        dict(zip(CalibrationSpec.model_fields, (round(float(w), 4) for w in found), strict=True))
    )
