"""The sparse table of overlaps from which every figure of instances follows.

It holds one row for each pair of a true and a predicted object that share voxels, so it grows with the pairs that touch and
not with the product of the objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.errors import InputError
from medseg.metrics import counting, inputs
from medseg.metrics.counting import Facts, Ints, Mask, Rows
from medseg.metrics.inputs import Labels, Objects

__all__ = ["Objects", "Overlap", "Side", "overlap"]


@dataclass(frozen=True, eq=False)
class Side:
    """The objects of one side, in the order of their ids.

    Attributes
    ----------
    ids : int64 (N,)
        As given: the label's value; for `Candidates` their number + 1.
    sizes : int64 (N,)
        Voxels that count: those outside the ignore region.
    classes : int32 (N,)
        Class ids from 1; all 1 without classes.
    scores : float64 (N,)
        Higher is surer; all NaN where there are none.
    boxes : int64 (N, 2 * ndim)
        Start then stop of the whole object in array axis order, half-open.
    ignored : bool (N,)
        Neither right nor wrong: crowd, or more than half its voxels lie in the ignore region.
    crowd : bool (N,)
        A region that may hold many objects (COCO ``iscrowd``); always ignored too.
    centres : float64 (N, ndim)
        Centroid of the whole object, array index.
    """

    ids: Ints
    sizes: Ints
    classes: NDArray[np.int32]
    scores: NDArray[np.float64]
    boxes: Ints
    ignored: Mask
    crowd: Mask
    centres: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of objects, ignored ones included."""
        return len(self.ids)

    @property
    def scored(self) -> bool:
        """Whether every object has a score; a side without objects lacks none."""
        return not np.isnan(self.scores).any()

    def take(self, rows: Rows | Mask) -> Self:
        """Return some of the objects, by row or by a bool array (N,)."""
        return type(self)(**{name: value[rows] for name, value in vars(self).items()})


def _no_rows() -> Rows:
    return np.zeros(0, np.intp)


@dataclass(frozen=True, eq=False)
class Overlap:
    """Every pair of a true and a predicted object that share voxels, of the same class or not. Made by `overlap`.

    Attributes
    ----------
    truth, prediction : Side
        The objects, matched or not.
    i, j : intp (P,)
        Rows of the pair in `truth` and `prediction`, sorted by `i`, then `j`.
    shared : int64 (P,)
        Voxels in common, outside the ignore region.
    shape : tuple of int
        Shape of the field.
    spacing : tuple of float or None
        Millimetres per voxel along each axis; None where unknown.
    centre_i, centre_j : intp (Q,)
        Rows of the pairs in which the voxel that holds the prediction's centroid belongs to the true object. A ring may
        have its centre in an object with which it shares no voxel.
    """

    truth: Side
    prediction: Side
    i: Rows
    j: Rows
    shared: Ints
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    centre_i: Rows = field(default_factory=_no_rows)
    centre_j: Rows = field(default_factory=_no_rows)

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair (P,)."""
        return self.shared / (self.truth.sizes[self.i] + self.prediction.sizes[self.j] - self.shared)

    @cached_property
    def same(self) -> Mask:
        """Whether the two objects of each pair are of one class (P,)."""
        same: Mask = self.truth.classes[self.i] == self.prediction.classes[self.j]
        return same

    @property
    def n_truth(self) -> int:
        """True objects, ignored ones included."""
        return len(self.truth)

    @property
    def n_prediction(self) -> int:
        """Predicted objects, ignored ones included."""
        return len(self.prediction)

    @property
    def classes(self) -> tuple[int, ...]:
        """Class ids that occur on either side, sorted."""
        return tuple(np.union1d(self.truth.classes, self.prediction.classes).tolist())

    def of_class(self, k: int) -> Self:
        """Return the table of the objects of class `k` on both sides."""
        return self.take(self.truth.classes == k, self.prediction.classes == k)

    def take(self, truth: Mask, prediction: Mask) -> Self:
        """Return the table of some of the objects, by a bool array for each side."""
        row_i, row_j = np.cumsum(truth) - 1, np.cumsum(prediction) - 1
        pairs = truth[self.i] & prediction[self.j]
        centres = truth[self.centre_i] & prediction[self.centre_j]
        return replace(
            self,
            truth=self.truth.take(truth),
            prediction=self.prediction.take(prediction),
            i=row_i[self.i[pairs]],
            j=row_j[self.j[pairs]],
            shared=self.shared[pairs],
            centre_i=row_i[self.centre_i[centres]],
            centre_j=row_j[self.centre_j[centres]],
        )


def overlap(
    truth: Objects,
    prediction: Objects,
    *,
    scores: npt.ArrayLike | None = None,
    classes: npt.ArrayLike | None = None,
    truth_classes: npt.ArrayLike | None = None,
    crowd: npt.ArrayLike | None = None,
    ignore: npt.ArrayLike | None = None,
    spacing: Sequence[float] | None = None,
) -> Overlap:
    """Count which true and predicted objects share how many voxels.

    Parameters
    ----------
    truth, prediction : int array, Instances or Candidates
        Objects on fields of one shape. In label arrays 0 is background and ids are any positive integers, contiguous or
        not. The masks of `Candidates` may overlap; they are compared box by box and never painted.
    scores, classes : array (N,), optional
        For a predicted label array: one for each id that occurs, in the order of the ids. `Instances` and `Candidates`
        bring their own.
    truth_classes : array (N,), optional
        For a true label array.
    crowd : bool array (N,), optional
        True objects that are regions holding an unknown number of objects.
    ignore : bool array of the field's shape, optional
        Voxels where nothing is known: they count for neither side.
    spacing : sequence of float, optional
        Millimetres per voxel along each axis; without it that of the instances' grid, where known.

    Returns
    -------
    Overlap

    Raises
    ------
    InputError
        Shapes or numbers of axes differ, labels are not integers, an id is negative, some but not all scores are NaN, or
        classes, scores or `crowd` do not fit the objects.
    GeometryError
        Two `Instances` lie at different places in the world, or a spacing is not positive.

    Examples
    --------
    >>> table = overlap(np.array([[1, 1, 0, 5]]), np.array([[0, 3, 3, 3]]))
    >>> table.truth.ids.tolist(), table.i.tolist(), table.j.tolist(), table.iou.tolist()
    ([1, 5], [0, 1], [0, 0], [0.25, 0.3333333333333333])
    """
    a, b = inputs.field(truth, "truth"), inputs.field(prediction, "prediction")
    if a.shape != b.shape:
        raise InputError(f"truth has shape {a.shape}, prediction {b.shape}; both must be the same")
    inputs.comparable(truth, prediction)
    hidden = None if ignore is None else inputs.region(ignore, a.shape)
    one, two, (i, j, shared) = _counted(a, b, hidden)
    centre_i, centre_j = _centred(a, one, two)
    known = inputs.spacing_of(spacing, truth, prediction, len(a.shape))
    return Overlap(
        _side(one, *inputs.scores_and_classes(truth, None, truth_classes, one.ids, "truth"), crowd),
        _side(two, *inputs.scores_and_classes(prediction, scores, classes, two.ids, "prediction")),
        i,
        j,
        shared,
        a.shape,
        known,
        centre_i,
        centre_j,
    )


def _counted(
    a: Labels | Candidates, b: Labels | Candidates, hidden: Mask | None
) -> tuple[Facts, Facts, tuple[Rows, Rows, Ints]]:
    """Facts of both sides, and the pairs that share voxels that count, sorted."""
    if isinstance(a, Candidates):
        one, seen = _masked(a, hidden)
        if isinstance(b, Candidates):
            two, other = _masked(b, hidden)
            return one, two, counting.mask_pairs(a.boxes, seen, b.boxes, other)
        two = _alone(b, hidden, "prediction")
        return one, two, counting.mask_label_pairs(a.boxes, seen, b, two.ids)
    if isinstance(b, Candidates):
        one, (two, seen) = _alone(a, hidden, "truth"), _masked(b, hidden)
        j, i, shared = counting.mask_label_pairs(b.boxes, seen, a, one.ids)
        order = np.lexsort((j, i))
        return one, two, (i[order], j[order], shared[order])
    found = counting.tally(a, b, hidden, ("truth", "prediction"))
    one, two = counting.facts_of_labels(found, True), counting.facts_of_labels(found, False)
    both = (found.a > 0) & (found.b > 0) & (found.counted > 0)
    i, j = np.searchsorted(one.ids, found.a[both]), np.searchsorted(two.ids, found.b[both])
    return one, two, (i, j, found.counted[both])


def _alone(labels: Labels, hidden: Mask | None, name: str) -> Facts:
    found = counting.tally(labels, np.broadcast_to(np.int8(0), labels.shape), hidden, (name, name))
    return counting.facts_of_labels(found, True)


def _masked(given: Candidates, hidden: Mask | None) -> tuple[Facts, Sequence[Mask]]:
    """Facts of candidates, and their masks without the ignore region."""
    ndim = len(given.shape)
    seen: Sequence[Mask] = given.masks
    if hidden is not None:
        seen = [
            mask & ~hidden[tuple(map(slice, box[:ndim], box[ndim:]))]
            for mask, box in zip(given.masks, given.boxes.tolist(), strict=True)
        ]
    return counting.facts_of_masks(given.boxes, given.masks, seen), seen


def _centred(a: Labels | Candidates, one: Facts, two: Facts) -> tuple[Rows, Rows]:
    """Rows of the pairs in which a true object holds the centre voxel of a predicted one, sorted."""
    at = counting.centre_voxels(two)
    if not isinstance(a, Candidates):
        j, i = counting.rows_of(one.ids, a[tuple(at.T)])
    else:
        dots = [np.ones((1,) * at.shape[1], np.bool_)] * len(at)
        i, j, _ = counting.mask_pairs(a.boxes, a.masks, np.concatenate([at, at + 1], axis=1), dots)
    order = np.lexsort((j, i))
    return i[order], j[order]


def _side(
    facts: Facts, scores: NDArray[np.float64], classes: NDArray[np.int32], crowd: npt.ArrayLike | None = None
) -> Side:
    """The objects of one side with what was given for each."""
    n = len(facts.ids)
    many = np.zeros(n, np.bool_) if crowd is None else inputs.each(crowd, n, np.bool_, "crowd")
    mostly = 2 * (facts.total - facts.counted) > facts.total
    centres = facts.moment / (2 * facts.total[:, None])
    return Side(facts.ids, facts.counted, classes, scores, facts.boxes, many | mostly, many, centres)
