"""Random cases that every scorer gets alike: drawn with NumPy alone, so that two environments make the same arrays.

`make(ndim, number)` draws one case. Most hold touching cell-like objects and a prediction that shifts, shrinks, grows,
halves, splits, joins, misses and invents some of them; a few are the corners of the field: nothing on one side or on both,
no background voxel, one object. Several pairs have an IoU of exactly one half.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

NUMBER = 550  # cases of 2-D, and as many of 3-D; without the excluded corners more than 500 remain
SHAPES = {2: (64, 60), 3: (16, 30, 32)}
SPACINGS = {2: ((1.0, 1.0), (0.5, 0.5), (0.7, 1.3)), 3: ((1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (2.5, 1.0, 0.7))}
CLASSES = 3
POOLED = 22  # cases that are scored together where a figure is ranked over images
# what is asked of the scorers
THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
LOW = (0.1, 0.25, 0.4)  # IoU below one half, where only the number of pairs is the same in all scorers
SIZES = {"all": (0.0, 1e10), "small": (0.0, 60.0), "large": (60.0, 1e10)}  # voxels, both ends included
TOLERANCES = (0.5, 1.0, 2.0)  # mm
BRATS = {"GLI": (3, 50.0), "MET": (1, 2.0)}  # dilations, mm3 up to which truth is left out
_SEED = 20231107
_CORNERS = {0: "both empty", 1: "truth empty", 2: "prediction empty", 3: "no background", 4: "identical"}
_DEALS = ("keep", "shift", "shift", "erode", "dilate", "half", "double", "split", "merge", "miss", "third")


@dataclass(frozen=True)
class Case:
    """Truth and prediction with all that a scorer may want to know; object k is the k-th id in ascending order.

    Attributes
    ----------
    name : str
        "usual", or the corner that it is.
    truth, prediction : int32 arrays of the same shape
        Ids with gaps, 0 is background.
    spacing : tuple of float
        mm per axis.
    truth_classes, classes : int arrays (N_truth,), (N_prediction,)
        1 to `CLASSES`.
    crowd : bool array (N_truth,)
        Truth that is neither right nor wrong.
    scores : float array (N_prediction,)
        Sixteenths, so many are equal.
    more : tuple of (mask, score, class)
        Further predictions, which overlap those of the label array.
    """

    name: str
    truth: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, ...]
    truth_classes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    scores: np.ndarray
    more: tuple[tuple[np.ndarray, float, int], ...]


def every(ndim: int, first: int = 0, count: int = NUMBER) -> Iterator[Case]:
    """Draw the cases of a dimension in order."""
    return (make(ndim, number) for number in range(first, first + count))


def make(ndim: int, number: int) -> Case:
    """Draw one case; the same numbers draw the same case everywhere."""
    rng = np.random.default_rng([_SEED, ndim, number])
    name, shape = _CORNERS.get(number % 50, "usual"), SHAPES[ndim]
    truth = _objects(rng, shape, full=name == "no background")
    if name in ("both empty", "truth empty"):
        truth = np.zeros_like(truth)
    source = _objects(rng, shape) if name == "truth empty" else truth
    if name in ("both empty", "prediction empty"):
        prediction = np.zeros_like(truth)
    elif name == "identical":
        prediction = truth.copy()
    else:
        prediction = _predicted(rng, source)
        if name == "no background":
            prediction = np.where(prediction, prediction, prediction.max() + 1)
    truth, prediction = _gaps(rng, truth), _gaps(rng, prediction)
    ids, found = _ids(truth), _ids(prediction)
    kinds = rng.integers(1, CLASSES + 1, len(ids))
    guessed = rng.integers(1, CLASSES + 1, len(found))
    for k, one in enumerate(found):  # three in four predictions know the class of what they cover most
        below = truth[prediction == one]
        if below.any() and rng.random() < 0.75:
            guessed[k] = kinds[np.searchsorted(ids, np.bincount(below)[1:].argmax() + 1)]
    more = []
    for one in rng.permutation(found)[: rng.integers(0, 5)]:
        moved = _moved(prediction == one, rng.integers(-2, 3, ndim))
        if moved.any():
            more.append((moved, int(rng.integers(0, 17)) / 16, int(rng.integers(1, CLASSES + 1))))
    spacing = SPACINGS[ndim][number % len(SPACINGS[ndim])]
    crowd, scores = rng.random(len(ids)) < 0.15, rng.integers(0, 17, len(found)) / 16
    return Case(name, truth, prediction, spacing, kinds, guessed, crowd, scores, tuple(more))


def checksum(case: Case) -> int:
    """Number that tells whether two environments drew the same case."""
    arrays = (case.truth, case.prediction, case.truth_classes, case.classes, case.crowd, case.scores)
    extra = tuple(np.packbits(mask) for mask, _, _ in case.more) + (np.array([m[1:] for m in case.more], np.float64),)
    value = zlib.crc32(repr(case.spacing).encode())
    for array in arrays + extra:
        kind = np.float64 if array.dtype.kind == "f" else np.int64
        value = zlib.crc32(np.ascontiguousarray(array, dtype=kind).tobytes(), value)
    return value


def _ids(labels: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1


def _objects(rng: np.random.Generator, shape: tuple[int, ...], full: bool = False) -> np.ndarray:
    """Voronoi cells of random centres, cut to ellipsoids: cells that touch, or lesions far apart."""
    sparse = rng.random() < 0.5
    count = int(rng.integers(1, 12) if sparse else rng.integers(6, 22))
    centres = rng.random((count, len(shape))) * np.array(shape)
    low, high = (1.0, 3.5) if sparse else (3.0, 8.0)
    radii = low + (high - low) * rng.random((count, len(shape)))
    radii[:, 0] *= 0.7 if len(shape) == 3 else 1.0
    away = np.zeros((count,) + (1,) * len(shape))  # squared, in radii
    for axis, n in enumerate(shape):
        along = ((np.arange(n) - centres[:, axis, None]) / radii[:, axis, None]) ** 2
        away = away + along.reshape(count, *[n if k == axis else 1 for k in range(len(shape))])
    inside = full | (away.min(axis=0) <= 1.0)
    return np.where(inside, away.argmin(axis=0) + 1, 0).astype(np.int32)


def _predicted(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """One deal of fate for each object, painted in random order onto what is free; then a few inventions."""
    out = np.zeros_like(truth)
    found = _ids(truth)
    for one in rng.permutation(found):
        deal, mask = _DEALS[int(rng.integers(len(_DEALS)))], truth == one
        for part in _dealt(rng, deal, mask, truth):
            free = part & (out == 0)
            out[free] = out.max() + 1 if free.any() else 0
    for _ in range(int(rng.integers(0, 3))):
        spot = np.zeros(truth.shape, bool)
        start = [int(rng.integers(0, n - 2)) for n in truth.shape]
        spot[tuple(slice(s, s + int(rng.integers(1, 5))) for s in start)] = True
        spot &= out == 0
        if spot.any():
            out[spot] = out.max() + 1
    return out


def _dealt(rng: np.random.Generator, deal: str, mask: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Masks that the prediction has in place of one object."""
    ndim, places = mask.ndim, np.flatnonzero(mask)
    if deal == "miss":
        return []
    if deal == "keep":
        return [mask]
    if deal == "shift":
        return [_moved(mask, rng.integers(-2, 3, ndim))]
    if deal == "erode":
        return [mask & _neighbours(mask, all)]
    if deal == "dilate":
        return [_neighbours(mask, any) & ((truth == 0) | mask)]
    if deal in ("half", "third"):  # IoU exactly 1/2 where the count is even, or 1/3, 2/3
        cut = len(places) // 2 if deal == "half" else len(places) // 3 * int(rng.integers(1, 3))
        return [_at(places[:cut], mask.shape)]
    if deal == "double":  # as much again from the background: IoU exactly 1/2
        free = np.flatnonzero(truth == 0)
        if len(free) < len(places):
            return [mask]
        nearest = np.argsort(np.abs(free - np.median(places)), kind="stable")[: len(places)]
        return [mask | _at(free[nearest], mask.shape)]
    if deal == "split":
        cut = len(places) // 2
        return [_at(places[:cut], mask.shape), _at(places[cut:], mask.shape)]
    beside = truth[_neighbours(mask, any) & ~mask & (truth > 0)]  # merge
    return [mask | (truth == beside[0])] if len(beside) else [mask]


def _at(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, bool)
    out.flat[places] = True
    return out


def _moved(mask: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Shift with nothing coming in from the other side."""
    out = np.zeros_like(mask)
    to = tuple(slice(max(o, 0), n + min(o, 0)) for o, n in zip(offset.tolist(), mask.shape, strict=True))
    of = tuple(slice(max(-o, 0), n + min(-o, 0)) for o, n in zip(offset.tolist(), mask.shape, strict=True))
    out[to] = mask[of]
    return out


def _neighbours(mask: np.ndarray, rule) -> np.ndarray:
    """Dilation (any) or erosion (all) by the direct neighbours of a voxel."""
    steps = np.vstack([np.eye(mask.ndim, dtype=int), -np.eye(mask.ndim, dtype=int)])
    parts = [_moved(mask, step) for step in steps]
    combine = np.logical_or if rule is any else np.logical_and
    return combine.reduce([mask, *parts])


def _gaps(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Ids in another order and with gaps."""
    count = int(labels.max())
    ids = rng.permutation(np.arange(1, 4 * count + 1))[:count]
    return np.append(0, ids).astype(np.int32)[labels]


def groups(count: int = NUMBER) -> list[range]:
    """Numbers of the cases that are pooled."""
    return [range(first, min(first + POOLED, count)) for first in range(0, count, POOLED)]
