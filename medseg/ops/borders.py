"""Fit foreground probabilities to the image that they were found in, by the borders that it shows.

A network is surer or less sure of everything in images unlike those that it learned from: a threshold that was chosen on one
scanner's images is wrong on another's. Where an object ends shows in the image itself. So the threshold is taken at which the
voxels just within and just outside of what is found differ most, and what stands out much less than the rest is no object. No
truth is needed for either.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    find_objects,
    generate_binary_structure,
    maximum_filter,
    minimum_filter,
)
from scipy.special import expit, logit

from medseg.ops import components

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
_LEAST = 20  # voxels that show where borders are
_NEVER = -15.0  # logit of what is no object at any threshold


def sharpest(values: Floats, probability: Floats) -> tuple[float, float]:
    """Threshold at which the image changes most across the border of what lies above it, and by how much.

    Parameters
    ----------
    values : float32 (z, y, x) or (y, x)
        The image.
    probability : float32, same shape
        Of foreground.

    Returns
    -------
    threshold, change
        The mean just within less the mean just outside, whose absolute value is the greatest; nan, nan if nothing is found.
    """
    near = generate_binary_structure(values.ndim, 1)
    least, most = minimum_filter(probability, footprint=near), maximum_filter(probability, footprint=near)
    best = (float("nan"), float("nan"))
    some = most > THRESHOLDS[0]  # a small part of most images
    here, least, most, seen = probability[some], least[some], most[some], values[some]
    for threshold in THRESHOLDS:
        above = here > threshold
        within, outside = above & (least <= threshold), ~above & (most > threshold)
        if np.count_nonzero(above) < _LEAST or not within.any():
            continue
        change = float(seen[within].mean(dtype=np.float64) - seen[outside].mean(dtype=np.float64))
        if not abs(change) <= abs(best[1]):
            best = (threshold, change)
    return best


def changes(values: Floats, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Change of the image across the border of each label, (N + 1,), index 0 unused; another label is not outside."""
    out = np.zeros(int(labels.max(initial=0)) + 1)
    for id, box in enumerate(find_objects(labels), 1):
        if box is None:
            continue
        place = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        own, part = labels[place] == id, values[place]
        # what fills the image has an end, but no border
        within = own & ~binary_erosion(own, border_value=1)
        outside = binary_dilation(own) & (labels[place] == 0)
        if within.any() and outside.any():
            out[id] = part[within].mean(dtype=np.float64) - part[outside].mean(dtype=np.float64)
    return out


def fitted(logits: Floats, values: Floats, threshold: float, share: float, least: float = 0.0) -> tuple[Floats, float]:
    """Logits moved so that `threshold` is where borders are sharpest, without what stands out little.

    An image without any object has borders too, those of its tissues, and they are as sharp at one threshold as at another. So
    where none is as sharp as ``least``, nothing but what the network is surest of is kept.

    Parameters
    ----------
    logits : float32 (z, y, x) or (y, x)
        Of foreground.
    values : float32, same shape
        The image.
    threshold
        Probability at which a head cuts.
    share
        Of the change across all borders, under which a piece is left out.
    least
        Change of the image, in its own unit, that borders of objects have; 0 if that is not known.

    Returns
    -------
    logits : float32
    found : float
        The probability that became `threshold`; nan if nothing was found and nothing changed.
    """
    probability = expit(logits)
    best, change = sharpest(values, probability)
    if not np.isfinite(best):
        return logits, best
    if abs(change) < least:
        best, change = THRESHOLDS[-1], np.copysign(least, change)
    pieces = components.label(probability > best)
    keep = changes(values, pieces) * np.sign(change) >= share * abs(change)
    keep[0] = True
    moved = logits + np.float32(logit(threshold) - logit(best))
    # with the voxels around it: what is left of a piece would be found again at a lower threshold
    gone = binary_dilation(~keep[pieces], iterations=2) & (~keep[pieces] | (pieces == 0))
    return np.where(gone, np.float32(_NEVER), moved), best
