"""What `overlap` is given, checked: label arrays, instances or candidates, and what belongs to each object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.errors import GeometryError, InputError
from medseg.instances import Instances
from medseg.metrics.counting import Ints, Mask

Labels = NDArray[np.integer]
Objects = Labels | Instances | Candidates
Value = TypeVar("Value", bound=np.generic)


def field(given: Objects, name: str) -> Labels | Candidates:
    """Return labels or candidates, refusing arrays that hold no ids."""
    if isinstance(given, Candidates):
        return given
    labels = given.labels if isinstance(given, Instances) else np.asarray(given)
    if labels.dtype.kind not in "iu":
        raise InputError(f"{name} labels are {labels.dtype}; instance ids must be integers")
    if not labels.ndim:
        raise InputError(f"{name} is a single number; labels are an array")
    return labels


def comparable(truth: Objects, prediction: Objects) -> None:
    """Refuse two `Instances` whose classes differ or that lie at different places in the world."""
    if not (isinstance(truth, Instances) and isinstance(prediction, Instances)):
        return
    if truth.classes != prediction.classes and max(len(truth.classes), len(prediction.classes)) > 1:
        raise InputError(
            f"truth has the classes {', '.join(truth.classes)}, prediction {', '.join(prediction.classes)}; "
            "classes are compared by number, so give both the same names in the same order"
        )
    if truth.grid.known and prediction.grid.known and not truth.grid.matches(prediction.grid):
        raise GeometryError(
            "truth and prediction lie at different places in the world; bring the prediction there by "
            "prediction.on(truth.grid), or give both .labels to compare voxel by voxel"
        )


def region(ignore: npt.ArrayLike, shape: tuple[int, ...]) -> Mask:
    """Return the ignore region as a bool array of the field's shape."""
    hidden = np.asarray(ignore)
    if hidden.shape != shape or hidden.dtype != np.bool_:
        raise InputError(f"ignore is {hidden.dtype} of shape {hidden.shape}; it must be bool of shape {shape}")
    return hidden


def scores_and_classes(
    given: Objects, scores: npt.ArrayLike | None, classes: npt.ArrayLike | None, ids: Ints, name: str
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the scores and class ids of the objects: their own, or those given for a label array, or NaN and 1."""
    if isinstance(given, Instances | Candidates) and not (scores is None and classes is None):
        raise InputError(f"{name} brings its own scores and classes; give them for label arrays only")
    if isinstance(given, Instances):
        number = {text: k for k, text in enumerate(given.classes, 1)}
        classes = np.array([number[text] for text in given.table["class"]], np.int32)
        scores = given.table["score"].to_numpy()
    elif isinstance(given, Candidates):
        classes, scores = given.classes, given.scores
    n = len(ids)
    score = np.full(n, np.nan) if scores is None else each(scores, n, np.float64, f"{name} scores")
    if np.isnan(score).any() and not np.isnan(score).all():
        where = ids[np.flatnonzero(np.isnan(score))[0]]
        raise InputError(f"the score of {name} object {where} is NaN; give all of them a score, or none")
    kind = np.ones(n, np.int32) if classes is None else each(classes, n, np.int32, f"{name} classes")
    if (kind < 1).any():
        raise InputError(f"{name} classes hold {kind.min()}; classes count from 1")
    return score, kind


def each(values: npt.ArrayLike, n: int, kind: type[Value], what: str) -> NDArray[Value]:
    """Return one value for each of n objects in another type, refusing values that would change."""
    given = np.asarray(values)
    if given.shape != (n,):
        raise InputError(f"{what} of shape {given.shape} do not fit {n} objects")
    if given.dtype.kind not in "biuf":
        raise InputError(f"{what} are {given.dtype}; they must be numbers")
    with np.errstate(invalid="ignore"):
        cast = given.astype(kind)
    if kind is not np.float64 and (cast != given).any():
        raise InputError(f"{what} hold values that are not {np.dtype(kind)}")
    return cast


def spacing_of(
    spacing: Sequence[float] | None, truth: Objects, prediction: Objects, ndim: int
) -> tuple[float, ...] | None:
    """Return the spacing given, or that of the instances' grid, or None where it is unknown."""
    if spacing is None:
        grids = [side.grid for side in (truth, prediction) if isinstance(side, Instances) and side.grid.known]
        return tuple(grids[0].spacing) if grids else None
    values = tuple(float(value) for value in spacing)
    if len(values) != ndim or not all(0 < value < np.inf for value in values):
        raise GeometryError(f"spacing {values} must be {ndim} positive numbers of millimetres")
    return values


def need_scores(scores: NDArray[np.float64]) -> None:
    """Refuse predictions without scores where they are to be ranked."""
    if np.isnan(scores).any():
        raise InputError("predictions have no scores, so they cannot be ranked; give scores, or ask for other figures")
