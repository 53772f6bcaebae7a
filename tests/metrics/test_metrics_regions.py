"""Figures of regions: worked by hand on small arrays, against plain loops, and the declared edge cases."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medseg.candidates import Candidates
from medseg.errors import InputError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.metrics import match, overlap, regions

ids = st.sampled_from([0, 0, 1, 2, 5, 900])
pairs = hnp.array_shapes(min_dims=2, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=ids)] * 2)
)
EMPTY = np.zeros((2, 4), dtype=np.int32)
SOME = np.array([[1, 1, 0, 0], [0, 0, 0, 3]], dtype=np.int32)

TABLE_FIGURES = (
    regions.aji,
    regions.seg,
    regions.matched_iou,
    regions.matched_dice,
    regions.matched_giou,
)
every_table_figure = pytest.mark.parametrize("figure", TABLE_FIGURES)


def rows(labels):
    return [labels == k for k in np.unique(labels) if k]


def row(*counts_and_ids):
    """One image row from (count, id) pairs."""
    return np.repeat([k for _, k in counts_and_ids], [n for n, _ in counts_and_ids])[None].astype(np.int32)


# --- AJI


def test_aji_worked_by_hand():
    truth = row((4, 1), (2, 0), (4, 2), (2, 3), (4, 0))
    prediction = row((3, 1), (3, 0), (4, 2), (2, 0), (4, 4))
    # object 1: 3 of 4; object 2: 4 of 4; object 3 without overlap adds its 2, prediction 4 its 4: 7 / (4 + 4 + 2 + 4)
    assert regions.aji(overlap(truth, prediction)) == pytest.approx(7 / 14)


def test_aji_lets_two_true_objects_take_one_prediction():
    truth, prediction = row((3, 1), (5, 2)), row((8, 7))
    # intersections 3 + 5, unions 8 + 8; AJI+ would give 5 / (8 + 3)
    assert regions.aji_parts(overlap(truth, prediction))[:2] == (8, 16)


def test_aji_chooses_by_iou_and_not_by_intersection():
    truth = row((10, 1), (20, 0))
    prediction = row((4, 1), (26, 2))
    # prediction 1: 4 of 10, IoU .4; prediction 2: 6 of 30, IoU .2, goes to the union whole
    assert regions.aji_parts(overlap(truth, prediction))[:2] == (4, 10 + 26)


def test_aji_of_equal_iou_takes_the_first_prediction():
    truth, prediction = row((4, 1)), row((2, 6), (2, 3))
    assert regions.aji_parts(overlap(truth, prediction))[:2] == (2, 4 + 2)


@given(pairs)
def test_aji_is_the_published_algorithm(drawn):
    truth, prediction = (rows(side) for side in drawn)
    shared, union, used = 0, 0, set()
    for one in truth:
        quotient = [(one & other).sum() / (one | other).sum() for other in prediction]
        if max(quotient, default=0) > 0:
            best = int(np.argmax(quotient))
            shared, union = shared + (one & prediction[best]).sum(), union + (one | prediction[best]).sum()
            used.add(best)
        else:
            union += one.sum()
    union += sum(int(other.sum()) for k, other in enumerate(prediction) if k not in used)
    assert regions.aji(overlap(*drawn)) == pytest.approx(shared / union if union else 1.0)


# --- SEG


def test_seg_worked_by_hand():
    truth = row((4, 1), (4, 2), (4, 3), (4, 0))
    prediction = row((3, 1), (1, 0), (2, 2), (2, 5), (4, 3), (2, 3), (2, 9))
    # object 1: 3 of 4 covered, IoU 3/4; object 2: exactly half, 0; object 3: all covered, IoU 4/6; prediction 9 costs nothing
    assert regions.seg(overlap(truth, prediction)) == pytest.approx((3 / 4 + 0 + 4 / 6) / 3)


def test_seg_of_masks_that_overlap_takes_the_better_one():
    truth = row((4, 1), (4, 0))
    boxes, masks = [[0, 0, 1, 8], [0, 0, 1, 3]], (np.ones((1, 8), bool), np.ones((1, 3), bool))
    prediction = Candidates(np.array(boxes), np.array([0.5, 0.9]), np.array([1, 1]), masks, (1, 8))
    assert regions.seg(overlap(truth, prediction)) == 3 / 4


# --- splits and merges


def test_splits_and_merges():
    #   truth 1 in two halves; truths 2 and 3 in one prediction; truth 4 with a prediction that shares 1 of its 20 voxels
    truth = row((10, 1), (10, 2), (10, 3), (20, 4), (19, 0))
    prediction = row((5, 1), (5, 2), (20, 3), (19, 4), (20, 5))
    table = overlap(truth, prediction)
    assert regions.split_merge(table) == (1, 1)
    assert regions.split_merge(table, share=0.05) == (2, 1)  # 1 of 20 is covered now


def test_ten_percent_of_the_smaller_object_is_enough():
    # 10 of the 100 voxels of truth 1 are all of prediction 2; 1 of the 10 voxels of truth 3 is covered by prediction 4
    truth = row((100, 1), (10, 3))
    prediction = row((10, 2), (90, 5), (9, 6), (1, 4))
    assert regions.split_merge(overlap(truth, prediction)) == (2, 0)


def test_predictions_of_another_class_split_nothing():
    truth, prediction = row((10, 1)), row((5, 1), (5, 2))
    assert regions.split_merge(overlap(truth, prediction)).splits == 1
    assert regions.split_merge(overlap(truth, prediction, classes=[1, 2])).splits == 0


@given(pairs, st.sampled_from([0.1, 0.5, 1.0]))
def test_splits_are_merges_the_other_way_round(drawn, share):
    there, back = (regions.split_merge(overlap(*side), share) for side in (drawn, drawn[::-1]))
    assert there == back[::-1]
    truth, prediction = (rows(side) for side in drawn)
    covered = [
        sum((a & b).sum() >= max(share * min(a.sum(), b.sum()), 1) for b in prediction) > 1 for a in truth
    ]  # fmt: skip
    assert there.splits == sum(covered)


# --- matched pairs and boxes


def test_means_over_matched_pairs():
    truth = row((4, 1), (4, 2), (4, 3))
    prediction = row((4, 1), (3, 2), (1, 0), (1, 3), (3, 0))
    table = overlap(truth, prediction)  # IoU 1, .75, .25
    assert regions.matched_iou(table) == pytest.approx((1 + 0.75) / 2)
    assert regions.matched_iou(table, 0.2) == pytest.approx((1 + 0.75 + 0.25) / 3)
    assert regions.matched_dice(table) == pytest.approx((1 + 6 / 7) / 2)
    assert regions.matched_giou(table) == pytest.approx((1 + 0.75) / 2)  # bars: boxes are the objects


@given(pairs, st.sampled_from([0.1, 0.5]))
def test_mean_iou_is_that_of_the_matching(drawn, threshold):
    table = overlap(*drawn)
    counts, _ = match(table, threshold)
    if counts.tp:
        assert regions.matched_iou(table, threshold) == pytest.approx(counts.iou / counts.tp)


def test_giou_worked_by_hand():
    a = [[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 4, 4]]
    b = [[0, 0, 2, 2], [1, 1, 3, 3], [0, 4, 2, 6], [1, 1, 3, 3]]
    # alike; 1 of 7, hull 9; apart by 2: union 8 in a hull of 12; inside: 4 of 16, hull 16
    assert regions.giou(a, b) == pytest.approx([1, 1 / 7 - 2 / 9, -4 / 12, 0.25])


def test_giou_in_three_dimensions():
    # 2 x 2 x 2 cubes that share 1 voxel: union 15, hull 27
    assert regions.giou([[0, 0, 0, 2, 2, 2]], [[1, 1, 1, 3, 3, 3]]) == pytest.approx([1 / 15 - 12 / 27])


boxes = st.lists(st.tuples(*[st.integers(0, 6)] * 3, *[st.integers(1, 6)] * 3), min_size=1, max_size=5).map(
    lambda found: np.array([(*f[:3], *np.add(f[:3], f[3:])) for f in found], dtype=float)
)


@given(boxes, boxes, st.floats(0.1, 10))
def test_giou_properties(a, b, scale):
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    value = regions.giou(a, b)
    np.testing.assert_allclose(value, regions.giou(b, a), atol=1e-12)
    np.testing.assert_allclose(regions.giou(a, a), 1, atol=1e-12)
    size = np.array([scale, 1, 3] * 2)  # the spacing makes no difference
    np.testing.assert_allclose(value, regions.giou(a * size, b * size), atol=1e-12)
    grid = np.zeros((2, 13, 13, 13), dtype=bool)
    for side, box in zip(grid, (a[0], b[0]), strict=True):
        side[tuple(map(slice, box[:3].astype(int), box[3:].astype(int)))] = True
    common, union = (grid[0] & grid[1]).sum(), (grid[0] | grid[1]).sum()
    hull = np.prod(np.maximum(a[0, 3:], b[0, 3:]) - np.minimum(a[0, :3], b[0, :3]))
    assert value[0] == pytest.approx(common / union - (hull - union) / hull)


@pytest.mark.parametrize(
    "a, b",
    [
        ([[0, 0, 2, 2]], [[0, 0, 2, 2], [0, 0, 1, 1]]),
        ([[0, 2]], [[0, 2]]),
        ([[0, 0, 2, 0]], [[0, 0, 2, 2]]),
        ([[0, 0, 2, 2]], [[3, 0, 2, 2]]),
        ([[0, 0, 2, np.inf]], [[0, 0, 2, 2]]),
        ([[0, 0, 2, np.nan]], [[0, 0, 2, 2]]),
    ],
)
def test_boxes_that_are_none(a, b):
    with pytest.raises(InputError, match="box"):
        regions.giou(a, b)


# --- foreground and classes


def test_dice_and_iou():
    truth, prediction = row((4, 1), (4, 0)) > 0, row((2, 0), (6, 1)) > 0
    assert regions.dice(truth, prediction) == 4 / 10
    assert regions.iou(truth, prediction) == 2 / 8
    assert tuple(regions.dice_parts(truth, prediction)) == (4, 10, 0)
    assert tuple(regions.iou_parts(truth, prediction)) == (2, 8, 0)


@pytest.mark.parametrize("figure", [regions.dice, regions.iou, lambda a, b: regions.boundary_f(a, b, 1.0)])
def test_masks_that_are_empty(figure):
    assert figure(EMPTY > 0, EMPTY > 0) == 1.0
    assert figure(EMPTY > 0, SOME > 0) == figure(SOME > 0, EMPTY > 0) == 0.0
    assert figure(EMPTY == 0, EMPTY == 0) == 1.0  # no background voxel is fine
    assert figure(EMPTY == 0, EMPTY > 0) == 0.0


def test_miou_is_the_mean_over_classes():
    truth, prediction = row((4, 1), (4, 2), (2, 0)), row((4, 1), (2, 2), (2, 0), (2, 3))
    # class 1: 1; class 2: 2 of 4; class 3 is not in the truth: 0
    assert regions.class_mean(regions.iou, truth, prediction) == pytest.approx((1 + 0.5 + 0) / 3)
    assert regions.class_mean(regions.iou, truth, prediction, [1, 2]) == pytest.approx(0.75)
    assert regions.class_mean(regions.iou, truth, prediction, [0, 4]) == pytest.approx((0 + 1) / 2)
    assert regions.class_mean(regions.iou, EMPTY, EMPTY) == 1.0
    with pytest.raises(InputError, match="truth classes are float64"):
        regions.class_mean(regions.iou, truth.astype(float), prediction)


def test_foreground_of_labels_instances_and_candidates():
    labels = np.array([[1, 1, 0, 7], [0, 3, 3, 7]], dtype=np.int32)
    sides = labels, Instances.from_labels(labels, Grid.from_spacing(labels.shape, (1.0, 1.0)))
    for side in sides:
        np.testing.assert_array_equal(regions.foreground(side), labels > 0)
        np.testing.assert_array_equal(regions.foreground(side, [1, 7]), np.isin(labels, [1, 7]))
        assert not regions.foreground(side, []).any()
    candidates = Candidates.from_labels(labels)
    np.testing.assert_array_equal(regions.foreground(candidates), labels > 0)
    np.testing.assert_array_equal(regions.foreground(candidates, [1, 3]), np.isin(labels, [1, 7]))
    with pytest.raises(InputError, match="ids from 1"):
        regions.foreground(labels, [0])


# --- boundary F


def test_boundary_f_of_a_square_moved_by_one():
    truth, prediction = np.zeros((2, 8, 9), dtype=bool)
    truth[2:6, 2:6] = prediction[2:6, 3:7] = True
    # each contour has 12 pixels: 6 lie on the other one, the other 6 are 1 px off
    assert regions.boundary_f(truth, prediction, 0.0) == pytest.approx(6 / 12)
    assert regions.boundary_f(truth, prediction, 1.0) == 1.0


def test_boundary_f_has_precision_and_recall():
    truth, prediction = np.zeros((2, 7, 16), dtype=bool)
    truth[2:5, 2:5] = prediction[2:5, 2:5] = prediction[3, 9:13] = True
    # all 8 true pixels are met, 8 of 12 predicted ones
    assert regions.boundary_f(truth, prediction, 1.0) == pytest.approx(2 * (8 / 12) / (1 + 8 / 12))


def test_the_tolerance_is_in_millimetres_with_a_spacing():
    truth, prediction = np.zeros((2, 9, 9), dtype=bool)
    truth[3, 3], prediction[5, 3] = True, True
    assert regions.boundary_f(truth, prediction, 2.0) == 1.0
    assert regions.boundary_f(truth, prediction, 2.0, (1.5, 1.0)) == 0.0
    assert regions.boundary_f(truth, prediction, 3.0, (1.5, 1.0)) == 1.0


def test_the_border_of_the_image_is_no_contour():
    truth, prediction = np.zeros((2, 4, 6), dtype=bool)
    truth[:, :3], prediction[:, :4] = True, True
    assert regions.boundary_f(truth, prediction, 0.5) == 0.0  # one column each, side by side
    assert regions.boundary_f(truth, np.ones_like(truth), 9.0) == 0.0  # the full image has no contour at all


def test_objects_that_touch_have_a_contour_between_them():
    truth, prediction = np.zeros((2, 5, 8), dtype=np.int32)
    truth[1:4, 1:4], truth[1:4, 4:7] = 1, 2
    prediction[1:4, 1:7] = 5
    assert regions.boundary_f(truth > 0, prediction > 0, 0.0) == 1.0
    # of 18 pixels the truth's contour lacks the 2 centres, the prediction's the 4 pixels within it
    assert regions.boundary_f(truth, prediction, 0.0) == pytest.approx(2 * (14 / 16) / (1 + 14 / 16))


def contour(labels):
    """Foreground voxels with a face neighbour of another id, one by one."""
    edge = np.zeros(labels.shape, dtype=bool)
    for place in itertools.product(*map(range, labels.shape)):
        for axis, step in itertools.product(range(labels.ndim), (-1, 1)):
            near = list(place)
            near[axis] += step
            if 0 <= near[axis] < labels.shape[axis] and labels[tuple(near)] != labels[place]:
                edge[place] = labels[place] > 0
    return edge


@given(pairs, st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.data())
def test_boundary_f_by_distance_transforms(drawn, tolerance, data):
    truth, prediction = drawn
    size = tuple(data.draw(st.sampled_from([0.5, 1.0, 1.5])) for _ in truth.shape)
    a, b = contour(truth), contour(prediction)
    expected = float(not truth.any() and not prediction.any())
    if truth.any() and prediction.any():
        expected = float(not a.any() and not b.any())
        if a.any() and b.any():
            far_a, far_b = (ndimage.distance_transform_edt(~edge, sampling=size) for edge in (a, b))
            recall, precision = (far_b[a] <= tolerance).mean(), (far_a[b] <= tolerance).mean()
            expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert regions.boundary_f(truth, prediction, tolerance, size) == pytest.approx(expected)


def test_boundary_f_of_what_it_cannot_read():
    mask = SOME > 0
    with pytest.raises(InputError, match="truth is float64"):
        regions.boundary_f(mask.astype(float), mask, 1.0)
    with pytest.raises(InputError, match="both must be the same"):
        regions.boundary_f(mask, mask[:, :2], 1.0)
    for tolerance in (-1.0, math.nan):
        with pytest.raises(InputError, match="tolerance"):
            regions.boundary_f(mask, mask, tolerance)


# --- what all share


@every_table_figure
def test_both_empty_is_perfect_and_one_empty_is_nothing(figure):
    assert figure(overlap(EMPTY, EMPTY)) == 1.0
    assert figure(overlap(EMPTY, SOME)) == figure(overlap(SOME, EMPTY)) == 0.0


@every_table_figure
def test_the_truth_itself_is_perfect(figure):
    assert figure(overlap(SOME, SOME)) == 1.0
    full = np.ones((3, 3), dtype=np.int32)
    assert figure(overlap(full, full)) == 1.0


@every_table_figure
def test_without_a_matched_pair_nothing_is_matched(figure):
    truth, prediction = row((2, 1), (2, 0)), row((2, 0), (2, 1))
    assert figure(overlap(truth, prediction)) == 0.0


@every_table_figure
def test_a_figure_is_within_its_class(figure):
    assert figure(overlap(SOME, SOME, truth_classes=[1, 2], classes=[2, 1])) == 0.0
    assert figure(overlap(SOME, SOME, truth_classes=[1, 2], classes=[1, 2])) == 1.0


@every_table_figure
def test_ignored_regions_count_for_nothing(figure):
    truth = row((4, 1), (4, 2), (4, 0))
    prediction = row((4, 1), (4, 3), (4, 4))
    hidden = row((4, 0), (8, 1)) > 0
    assert figure(overlap(truth, prediction, ignore=hidden)) == 1.0
    # object 2 is a crowd: prediction 3 in it is neither right nor wrong
    assert figure(overlap(truth, row((4, 1), (4, 3), (4, 0)), crowd=[False, True])) == 1.0


@given(pairs, st.data())
def test_figures_do_not_depend_on_how_the_array_lies(drawn, data):
    order = data.draw(st.permutations(range(drawn[0].ndim)))
    flips = [axis for axis in range(drawn[0].ndim) if data.draw(st.booleans())]
    turned = [np.pad(np.flip(side.transpose(order), flips), 1) for side in drawn]
    before, after = overlap(*drawn), overlap(*turned)
    for figure in (regions.aji, regions.seg, regions.matched_iou, regions.matched_dice):
        assert figure(after) == pytest.approx(figure(before))
    assert regions.split_merge(after) == regions.split_merge(before)


@given(pairs)
def test_figures_lie_between_nothing_and_all(drawn):
    table = overlap(*drawn)
    for figure in (regions.aji, regions.seg, regions.matched_iou, regions.matched_dice):
        assert 0 <= figure(table) <= 1
    foreground = [side > 0 for side in drawn]
    dice, iou = regions.dice(*foreground), regions.iou(*foreground)
    assert dice == pytest.approx(2 * iou / (1 + iou))
    assert regions.iou(*foreground[::-1]) == iou
