"""How well regions agree: AJI, SEG, Dice, IoU, boxes, boundary F, splits and merges.

What needs only overlaps reads the table of `overlap`, within each class: pairs of two classes are no overlap. True objects
that are ignored and predictions that are excused (see `medseg.metrics.excused`) are left out. What needs voxels takes
masks. Figures that pool over images have a second function ending in ``_parts``, whose parts are summed before the ratio is
taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.errors import InputError
from medseg.instances import Instances
from medseg.metrics.boxes import giou
from medseg.metrics.contingency import Objects, Overlap
from medseg.metrics.matching import excused, match
from medseg.metrics.surface import SLACK, box_of, check, nearest

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Parts(NamedTuple):
    """A figure is part / whole; where `whole` is 0 it is 1 if `other` is 0 too (both sides empty), else 0."""

    part: float
    whole: float
    other: float

    @property
    def value(self) -> float:
        """The ratio."""
        return self.part / self.whole if self.whole else float(not self.other)


class SplitMerge(NamedTuple):
    """True objects that several predictions cover, and predictions that cover several true objects."""

    splits: int
    merges: int


# --- from the table of overlaps


def aji_parts(table: Overlap) -> Parts:
    """Aggregated intersection and union of `aji`."""
    table = _counting(table)
    i, j, shared = table.i[table.same], table.j[table.same], table.shared[table.same]
    best = np.lexsort((j, -table.iou[table.same], i))  # of each true object, the largest IoU first, then the lower row
    best = best[np.unique(i[best], return_index=True)[1]]
    used = np.zeros(table.n_prediction, np.bool_)
    used[j[best]] = True
    common = int(shared[best].sum())
    # a prediction that is the best of two true objects enters the union twice
    union = int(table.truth.sizes.sum() + table.prediction.sizes[j[best]].sum()) - common
    return Parts(common, union + int(table.prediction.sizes[~used].sum()), 0)


def aji(table: Overlap) -> float:
    """Aggregated Jaccard index, as Kumar 2017 published it; both sides empty give 1.

    Each true object takes the prediction with the largest IoU (equal IoU: the first), which other objects may take too.
    The intersections of these pairs are summed and divided by the sum of their unions, of the true objects without any
    overlap, and of the predictions that nobody took. Two variants go by similar names: AJI+ (Graham 2019) allows each
    prediction once; some codes choose by the largest intersection. Neither is computed here.

    References
    ----------
    Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational pathology, IEEE TMI 36,
    2017, Algorithm 1.
    """
    return aji_parts(table).value


def seg_parts(table: Overlap) -> Parts:
    """Summed IoU of `seg`, the number of true objects, and the number of predictions."""
    table = _counting(table)
    most = table.same & (2 * table.shared > table.truth.sizes[table.i])
    best = np.zeros(table.n_truth)
    np.maximum.at(best, table.i[most], table.iou[most])  # masks that overlap may each hold more than half
    return Parts(float(best.sum()), table.n_truth, table.n_prediction)


def seg(table: Overlap) -> float:
    """SEG of the Cell Tracking Challenge: mean IoU over the true objects, 0 for those that no prediction covers by half.

    A prediction counts for a true object if it holds more than half of its voxels. Predictions that hold no object cost
    nothing, except where there is no truth at all: then the figure is 0, and 1 if there are no predictions either.

    References
    ----------
    Maska et al., A benchmark for comparison of cell tracking algorithms, Bioinformatics 30, 2014.
    """
    return seg_parts(table).value


def split_merge(table: Overlap, share: float = 0.1) -> SplitMerge:
    """Count split and merged objects.

    Two objects cover one another if they share at least ``share`` of the voxels of the smaller one. A true object covered
    by two predictions or more is split; a prediction that covers two true objects or more is a merge.
    """
    table = _counting(table)
    i, j = table.i, table.j
    smaller = np.minimum(table.truth.sizes[i], table.prediction.sizes[j])
    ok = table.same & (table.shared >= share * smaller)
    splits, merges = np.bincount(i[ok]) > 1, np.bincount(j[ok]) > 1
    return SplitMerge(int(splits.sum()), int(merges.sum()))


def matched_iou(table: Overlap, threshold: float = 0.5) -> float:
    """Mean IoU of the pairs that `match` makes; without a pair 1 if both sides are empty, else 0."""
    return _mean(table.iou[_matched(table, threshold)], table)


def matched_dice(table: Overlap, threshold: float = 0.5) -> float:
    """Mean Dice of the pairs that `match` makes by IoU; without a pair 1 if both sides are empty, else 0."""
    iou = table.iou[_matched(table, threshold)]
    return _mean(2 * iou / (1 + iou), table)


def matched_giou(table: Overlap, threshold: float = 0.5) -> float:
    """Mean generalised IoU of the boxes of the pairs that `match` makes; without a pair 1 if both are empty, else 0."""
    pairs = _matched(table, threshold)
    boxes = table.truth.boxes[table.i[pairs]], table.prediction.boxes[table.j[pairs]]
    return _mean(giou(*boxes), table)


def _counting(table: Overlap) -> Overlap:
    """The table without ignored true objects and excused predictions."""
    return table.take(~table.truth.ignored, ~excused(table))


def _matched(table: Overlap, threshold: float) -> Mask:
    """Which pairs of the table `match` makes."""
    partner = match(table, threshold)[1]
    made: Mask = partner[table.i] == table.j
    return made


def _mean(values: Floats, table: Overlap) -> float:
    if len(values):
        return float(values.mean())
    table = _counting(table)
    return float(not table.n_truth and not table.n_prediction)


# --- from voxels


def foreground(objects: Objects, ids: npt.ArrayLike | None = None) -> Mask:
    """The union of some objects as a mask.

    Parameters
    ----------
    objects : int array, Instances or Candidates
        As given to `overlap`.
    ids : array of int, optional
        Ids as in `Side.ids` (for candidates their number + 1); all without. So
        ``foreground(truth, table.truth.ids[table.truth.classes == 2])`` is the second class.
    """
    if isinstance(objects, Candidates):
        mask = np.zeros(objects.shape, np.bool_)
        numbers = range(len(objects)) if ids is None else (np.asarray(ids, np.int64) - 1).tolist()
        for n in numbers:
            mask[tuple(map(slice, *np.split(objects.boxes[n], 2)))] |= objects.masks[n]
        return mask
    labels: NDArray[np.integer] = objects.labels if isinstance(objects, Instances) else np.asarray(objects)
    if ids is None:
        return np.asarray(labels != 0)
    wanted = np.asarray(ids)
    if labels.dtype.kind not in "iu" or wanted.size and wanted.min() <= 0:
        raise InputError(f"labels are {labels.dtype} and ids {wanted.dtype}; both are integers, ids from 1")
    found: Mask = np.isin(labels, wanted.astype(np.int64))
    return found


def dice_parts(truth: Mask, prediction: Mask) -> Parts:
    """Twice the voxels in common, and the voxels of both masks."""
    check(truth, prediction, None)
    common, a, b = (int(np.count_nonzero(mask)) for mask in (truth & prediction, truth, prediction))
    return Parts(2 * common, a + b, 0)


def dice(truth: Mask, prediction: Mask) -> float:
    """Dice of two masks, 2 |A and B| / (|A| + |B|): both empty give 1, one empty 0."""
    return dice_parts(truth, prediction).value


def iou_parts(truth: Mask, prediction: Mask) -> Parts:
    """Voxels in common, and voxels of either mask."""
    double, both, _ = dice_parts(truth, prediction)
    return Parts(double / 2, both - double / 2, 0)


def iou(truth: Mask, prediction: Mask) -> float:
    """Intersection over union of two masks: both empty give 1, one empty 0."""
    return iou_parts(truth, prediction).value


def class_mean(
    figure: Callable[[Mask, Mask], float],
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    classes: Sequence[int] | None = None,
) -> float:
    """Mean of a figure over classes; with `iou` this is mIoU.

    Parameters
    ----------
    figure
        Takes the masks of one class.
    truth, prediction : int array
        Class of each voxel, 0 background.
    classes : sequence of int, optional
        Without it the classes that occur on either side, background left out; none at all give 1.
    """
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype.kind not in "iu":
            raise InputError(f"{name} classes are {array.dtype}; they must be integers")
    if classes is None:
        found = np.union1d(np.unique(truth), np.unique(prediction))
        classes = found[found != 0].tolist()
    return float(np.mean([figure(truth == k, prediction == k) for k in classes])) if len(classes) else 1.0


def boundary_f(
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    tolerance: float,
    spacing: Sequence[float] | None = None,
) -> float:
    """Boundary F: the harmonic mean of the shares of either contour that lie within a tolerance of the other one.

    Parameters
    ----------
    truth, prediction : bool or int array, (y, x) or (z, y, x)
        A mask, or labels of objects: then each object has its contour, also where two touch. The contour are the voxels
        with a face neighbour outside the mask, or of another object; the border of the image is no contour.
    tolerance : float
        Largest distance, ends included, between voxel centres: in mm with a spacing, else in voxels. Csurka 2013 takes
        0.75 % of the image diagonal, DAVIS 0.8 %.
    spacing : sequence of float, optional
        Voxel size in mm along each axis.

    Returns
    -------
    float
        Both sides empty give 1, one empty 0.

    References
    ----------
    Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013. Perazzi et al., A benchmark
    dataset and evaluation methodology for video object segmentation (DAVIS), CVPR 2016.
    """
    for name, side in (("truth", truth), ("prediction", prediction)):
        if side.dtype.kind not in "biu":
            raise InputError(f"{name} is {side.dtype}; give a mask or integer labels")
    masks = truth != 0, prediction != 0
    size = check(*masks, spacing)
    if not tolerance >= 0:
        raise InputError(f"a tolerance of {tolerance} was given; it must be 0 or more")
    box = box_of(*masks)
    if box is None or not masks[0].any() or not masks[1].any():
        return float(box is None)
    # one voxel more, so that the edge of the box is not taken for the border of the image
    grown = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
    on, off = _contour(truth[grown]), _contour(prediction[grown])
    if not on.any() or not off.any():
        return float(not on.any() and not off.any())
    most = tolerance * SLACK
    recall = float((nearest(on, off, size) <= most).mean())
    precision = float((nearest(off, on, size) <= most).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _contour(labels: NDArray[np.generic]) -> Mask:
    """Foreground voxels with a face neighbour of another value."""
    edge = np.zeros(labels.shape, np.bool_)
    for axis in range(labels.ndim):
        lead = (slice(None),) * axis
        low, high = (*lead, slice(None, -1)), (*lead, slice(1, None))
        differs = labels[low] != labels[high]
        edge[low] |= differs
        edge[high] |= differs
    edge &= labels != 0
    return edge
