"""The table of overlaps: against counting voxel by voxel, for label arrays, instances and overlapping masks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg.candidates import Candidates
from medseg.errors import GeometryError, InputError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.metrics import counting, match, overlap

ids = st.sampled_from([0, 0, 1, 2, 5, 900])
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)


def labelled(shape):
    return hnp.arrays(np.int32, shape, elements=ids)


fields = shapes.flatmap(lambda s: st.tuples(labelled(s), labelled(s), hnp.arrays(np.bool_, s)))


@st.composite
def two_sides(draw):
    """Masks of two sides on one field, as candidates or as a label array, and an ignore region."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5))
    sides = []
    for _ in range(2):
        if draw(st.booleans()):
            sides.append(draw(labelled(shape)))
        else:
            stack = draw(hnp.arrays(np.bool_, (draw(st.integers(0, 4)), *shape)))
            sides.append(candidates([mask for mask in stack if mask.any()], shape))
    return *sides, draw(hnp.arrays(np.bool_, shape))


def candidates(masks, shape, scores=None):
    """Candidates of whole-field masks, cut to their boxes."""
    boxes, cut = [], []
    for mask in masks:
        at = np.nonzero(mask)
        box = [int(x.min()) for x in at], [int(x.max()) + 1 for x in at]
        boxes.append([*box[0], *box[1]])
        cut.append(mask[tuple(map(slice, *box))])
    n = len(masks)
    return Candidates(
        np.array(boxes, int).reshape(n, 2 * len(shape)),
        np.full(n, np.nan) if scores is None else scores,
        np.ones(n, int),
        tuple(cut),
        tuple(shape),
    )


def whole_masks(side):
    """Every object of a side as a mask of the field."""
    if not isinstance(side, Candidates):
        return [side == i for i in sorted(set(side.ravel().tolist()) - {0})]
    out = []
    for box, mask in zip(side.boxes.tolist(), side.masks, strict=True):
        field = np.zeros(side.shape, bool)
        field[tuple(map(slice, box[: field.ndim], box[field.ndim :]))] = mask
        out.append(field)
    return out


def check(table, truth, prediction, ignore):
    """Compare with plain counting of whole masks."""
    one, two = whole_masks(truth), whole_masks(prediction)
    shared = {
        (i, j): int((a & b & ~ignore).sum())
        for i, a in enumerate(one)
        for j, b in enumerate(two)
        if (a & b & ~ignore).any()
    }
    assert list(zip(table.i.tolist(), table.j.tolist(), strict=True)) == sorted(shared)
    assert table.shared.tolist() == [shared[key] for key in sorted(shared)]
    for (i, j), iou in zip(sorted(shared), table.iou, strict=True):
        assert iou == shared[i, j] / ((one[i] | two[j]) & ~ignore).sum()
    centred = []
    for side, masks in ((table.truth, one), (table.prediction, two)):
        assert len(side) == len(masks)
        assert side.sizes.tolist() == [(mask & ~ignore).sum() for mask in masks]
        assert side.ignored.tolist() == [(mask & ignore).sum() > (mask & ~ignore).sum() for mask in masks]
        for mask, box, centre in zip(masks, side.boxes, side.centres, strict=True):
            at = np.nonzero(mask)
            assert box.tolist() == [*(x.min() for x in at), *(x.max() + 1 for x in at)]
            np.testing.assert_allclose(centre, [x.mean() for x in at], rtol=1e-12)
    for j, mask in enumerate(two):
        at = tuple(int((2 * x.sum() + len(x)) // (2 * len(x))) for x in np.nonzero(mask))
        centred += [(i, j) for i, a in enumerate(one) if a[at]]
    assert list(zip(table.centre_i.tolist(), table.centre_j.tolist(), strict=True)) == sorted(centred)


# --- against plain counting


@given(fields)
def test_label_arrays_as_counted_voxel_by_voxel(case):
    truth, prediction, ignore = case
    check(overlap(truth, prediction), truth, prediction, np.zeros_like(ignore))
    check(overlap(truth, prediction, ignore=ignore), truth, prediction, ignore)


@given(two_sides())
def test_overlapping_masks_and_mixed_kinds_as_counted_voxel_by_voxel(case):
    truth, prediction, ignore = case
    check(overlap(truth, prediction), truth, prediction, np.zeros_like(ignore))
    check(overlap(truth, prediction, ignore=ignore), truth, prediction, ignore)


@pytest.fixture
def small_slabs(monkeypatch):
    monkeypatch.setattr(counting, "SLAB", 7)
    monkeypatch.setattr(counting, "PAIRS", 3)


@pytest.mark.parametrize("shape", [(30,), (9, 11), (11, 1), (6, 5, 4)])
@pytest.mark.parametrize("order", ["CC", "FF", "CF", "reversed", "readonly"])
def test_slabs_and_memory_order_change_nothing(small_slabs, shape, order):
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 6, (2, *shape)).astype(np.int32)
    ignore = rng.random(shape) < 0.2
    if order == "reversed":
        one, two = truth[::-1].copy()[::-1], prediction[..., ::-1].copy()[..., ::-1]
    elif order == "readonly":
        one, two = truth.copy(), prediction.copy()
        one.flags.writeable = two.flags.writeable = False
    else:
        one, two = np.asarray(truth, order=order[0]), np.asarray(prediction, order=order[1])
    check(overlap(one, two, ignore=ignore), truth, prediction, ignore)
    check(overlap(one, two), truth, prediction, np.zeros(shape, bool))


def test_boxes_in_chunks_change_nothing(small_slabs):
    rng = np.random.default_rng(1)
    sides = [
        candidates([m for m in rng.random((6, 5, 4, 6)) < 0.2 if m.any()] + [np.ones((5, 4, 6), bool)], (5, 4, 6))
        for _ in range(2)
    ]
    check(overlap(*sides), *sides, np.zeros((5, 4, 6), bool))


# --- by hand


def test_a_drawn_table():
    truth = np.array([[1, 1, 0, 5], [1, 1, 0, 5]])
    prediction = np.array([[0, 3, 3, 3], [0, 3, 0, 9]])
    table = overlap(truth, prediction, spacing=(2, 0.5))
    assert table.truth.ids.tolist() == [1, 5]
    assert table.prediction.ids.tolist() == [3, 9]
    assert table.truth.sizes.tolist() == [4, 2]
    assert table.truth.boxes.tolist() == [[0, 0, 2, 2], [0, 3, 2, 4]]
    assert table.prediction.centres.tolist() == [[0.25, 1.75], [1.0, 3.0]]
    assert list(zip(table.i, table.j, table.shared, strict=True)) == [(0, 0, 2), (1, 0, 1), (1, 1, 1)]
    assert table.iou.tolist() == [2 / 6, 1 / 5, 1 / 2]
    assert (table.shape, table.spacing) == ((2, 4), (2.0, 0.5))
    assert (table.n_truth, table.n_prediction, table.classes) == (2, 2, (1,))
    assert not table.prediction.scored


def test_an_object_with_more_than_half_its_voxels_in_the_ignore_region_is_ignored():
    truth = np.array([1, 1, 0, 2, 2, 2, 3, 0])
    ignore = np.array([0, 1, 0, 0, 1, 1, 1, 1], bool)
    side = overlap(truth, np.zeros_like(truth), ignore=ignore).truth
    assert side.sizes.tolist() == [1, 1, 0]
    assert side.ignored.tolist() == [False, True, True]  # exactly half is not more than half
    assert not side.crowd.any()


def test_crowd_objects_are_ignored():
    side = overlap(np.array([1, 2]), np.array([1, 2]), crowd=[0, 1]).truth
    assert side.crowd.tolist() == side.ignored.tolist() == [False, True]


def test_a_class_is_a_table_of_its_own():
    truth, prediction = np.array([[1, 1, 2, 3]]), np.array([[4, 5, 5, 6]])
    table = overlap(truth, prediction, truth_classes=[1, 2, 1], classes=[2, 1, 1], scores=[0.1, 0.2, 0.3])
    assert table.classes == (1, 2)
    assert table.same.tolist() == [False, True, False, True]  # 1-4, 1-5, 2-5, 3-6
    one, two = table.of_class(1), table.of_class(2)
    assert one.truth.ids.tolist() == [1, 3]
    assert one.prediction.ids.tolist() == [5, 6]
    assert one.prediction.scores.tolist() == [0.2, 0.3]
    assert list(zip(one.i, one.j, one.shared, strict=True)) == [(0, 0, 1), (1, 1, 1)]
    assert list(zip(one.centre_i, one.centre_j, strict=True)) == [(1, 1)]  # 5's centre lies in the object of class 2
    assert (len(two.truth), len(two.prediction), len(two.i), len(two.centre_i)) == (1, 1, 0, 0)
    assert len(table.of_class(7).truth) == 0


def test_a_ring_has_its_centre_in_an_object_it_does_not_touch():
    truth = np.zeros((5, 5), int)
    truth[2, 2] = 8
    ring = np.ones((5, 5), int)
    ring[1:4, 1:4] = 0
    table = overlap(truth, ring)
    assert len(table.i) == 0
    assert (table.centre_i.tolist(), table.centre_j.tolist()) == ([0], [0])


def test_instances_bring_ids_classes_scores_and_spacing():
    grid = Grid.from_spacing((1, 4), (2.0, 0.5))
    truth = Instances.from_labels(
        np.array([[7, 7, 0, 9]]), grid, scores=[0.5, 0.25], class_ids=[2, 1], classes=("a", "b")
    )
    table = overlap(truth, truth)
    assert table.spacing == (2.0, 0.5)
    assert table.truth.ids.tolist() == [7, 9]
    assert table.truth.classes.tolist() == [2, 1]
    assert table.prediction.scores.tolist() == [0.5, 0.25]
    assert overlap(truth, truth, spacing=(1, 1)).spacing == (1, 1)
    assert overlap(truth.labels, truth.labels).spacing is None


def test_candidates_and_the_labels_they_were_made_from_give_one_table():
    rng = np.random.default_rng(2)
    one, two = rng.integers(0, 9, (2, 12, 9))
    plain = overlap(one, two)
    for a in (one, Candidates.from_labels(one)):
        for b in (two, Candidates.from_labels(two)):
            table = overlap(a, b)
            for name in ("i", "j", "shared", "centre_i", "centre_j"):
                assert getattr(table, name).tolist() == getattr(plain, name).tolist()


def test_overlapping_masks_are_counted_whole():
    # painting would take voxel 1 from one of the two predictions
    two = candidates([np.array([[1, 1, 0]], bool), np.array([[0, 1, 1]], bool)], (1, 3), scores=[0.9, 0.4])
    table = overlap(np.array([[3, 3, 0]]), two)
    assert table.prediction.sizes.tolist() == [2, 2]
    assert table.shared.tolist() == [2, 1]
    assert table.prediction.ids.tolist() == [1, 2]
    assert table.prediction.scored


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (3, 3), (2, 0, 2), (2, 2, 2)])
def test_nothing_on_either_side_is_normal(shape):
    table = overlap(np.zeros(shape, int), np.zeros(shape, np.uint8))
    assert (table.n_truth, table.n_prediction, len(table.i), len(table.iou)) == (0, 0, 0, 0)
    assert table.truth.boxes.shape == (0, 2 * len(shape))
    assert table.truth.centres.shape == (0, len(shape))
    assert table.prediction.scored  # no object lacks a score
    if len(shape) > 1 and 0 not in shape:
        none = Candidates.empty(shape)
        some = np.arange(np.prod(shape)).reshape(shape)
        assert overlap(none, some).n_prediction == overlap(some, none).n_truth == some.max()
        assert len(overlap(none, none).truth) == 0


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_large_ids_one_apart_are_two_objects(dtype):
    labels = np.array([2**60, 2**60 + 1, 2**60 + 1], dtype)
    assert overlap(labels, labels).truth.ids.tolist() == [2**60, 2**60 + 1]
    assert overlap(np.array([2**31 - 1, 2**31 - 2]), np.array([2**31, 2])).n_truth == 2
    assert overlap(labels[None], Candidates.from_labels([[1, 2, 2]])).iou.tolist() == [1.0, 1.0]


# --- wrong input


def test_bad_labels_are_named():
    good = np.ones((2, 2), int)
    with pytest.raises(InputError, match=r"prediction labels are float64"):
        overlap(good, good.astype(float))
    with pytest.raises(InputError, match=r"truth labels are bool"):
        overlap(good > 0, good)
    with pytest.raises(InputError, match=r"truth labels hold the negative id -3"):
        overlap(good * -3, good)
    with pytest.raises(InputError, match=r"prediction labels hold the negative id -1"):
        overlap(Candidates.from_labels(good), good - 2)
    with pytest.raises(InputError, match=r"\(2, 2\), prediction \(2, 3\)"):
        overlap(good, np.ones((2, 3), int))
    with pytest.raises(InputError, match=r"\(2, 2\), prediction \(2, 2, 1\)"):
        overlap(good, Candidates.empty((2, 2, 1)))
    with pytest.raises(InputError, match="truth labels hold the id 18446744073709551615, over"):
        overlap(np.full((2, 2), 2**64 - 1, np.uint64), good)
    with pytest.raises(InputError, match="single number"):
        overlap(np.int64(3), np.int64(3))


def test_bad_values_of_objects_are_named():
    labels = np.array([[1, 2]])
    with pytest.raises(InputError, match="score of prediction object 2 is NaN"):
        overlap(labels, labels, scores=[0.5, np.nan])
    with pytest.raises(InputError, match="score of prediction object 2 is NaN"):
        overlap(labels, Candidates.from_labels(labels, scores=[0.5, np.nan]))
    with pytest.raises(InputError, match=r"prediction scores of shape \(1,\) do not fit 2 objects"):
        overlap(labels, labels, scores=[0.5])
    with pytest.raises(InputError, match="prediction scores are <U1"):
        overlap(labels, labels, scores=["a", "b"])
    with pytest.raises(InputError, match="truth classes hold 0; classes count from 1"):
        overlap(labels, labels, truth_classes=[0, 1])
    for classes in ([1.5, 1], [np.nan, 1], [1, 2**40]):
        with pytest.raises(InputError, match="prediction classes hold values that are not int32"):
            overlap(labels, labels, classes=classes)
    with pytest.raises(InputError, match="crowd hold values that are not bool"):
        overlap(labels, labels, crowd=[0, 2])
    with pytest.raises(InputError, match="prediction brings its own"):
        overlap(labels, Candidates.from_labels(labels), scores=[1, 2])
    with pytest.raises(InputError, match=r"ignore is int64 of shape \(1, 2\)"):
        overlap(labels, labels, ignore=labels)
    with pytest.raises(InputError, match=r"ignore is bool of shape \(2,\)"):
        overlap(labels, labels, ignore=[True, False])
    for spacing in ((1,), (1, 0), (1, np.inf), (1, np.nan)):
        with pytest.raises(GeometryError, match="must be 2 positive numbers"):
            overlap(labels, labels, spacing=spacing)
    assert not overlap(labels, labels, scores=[np.nan, np.nan]).prediction.scored


def test_instances_that_do_not_belong_together_are_refused():
    here, there = Grid.from_spacing((1, 2), (1.0, 1.0)), Grid.from_spacing((1, 2), (1.0, 2.0))
    truth = Instances.from_labels(np.array([[1, 2]]), here)
    with pytest.raises(GeometryError, match="different places"):
        overlap(truth, Instances.from_labels(truth.labels, there))
    other = Instances.from_labels(truth.labels, here, class_ids=[1, 2], classes=("a", "b"))
    with pytest.raises(InputError, match="truth has the classes object, prediction a, b"):
        overlap(truth, other)
    cells = Instances.from_labels(truth.labels, here, classes=("cell",))
    assert overlap(truth, cells).same.all()  # one class each, whatever its name


# --- size


def test_sixteen_thousand_objects_take_little_memory():
    index = np.indices((2048, 2048)) // 16
    truth = (index[0] * 128 + index[1] + 1).astype(np.int32)
    prediction = np.roll(truth, 2, axis=1)
    tracemalloc.start()
    table = overlap(truth, prediction)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert match(table)[0].tp == 16384
    assert peak < 30e6  # the inputs are 34 MB


def test_memory_follows_the_slab_and_not_the_volume(monkeypatch):
    monkeypatch.setattr(counting, "SLAB", 1 << 15)
    peaks = []
    for depth in (20, 80):
        index = np.indices((depth, 128, 128), np.int32) // 16
        truth = index[1] * 8 + index[2] + 1
        prediction = np.roll(truth, 2, axis=2)
        tracemalloc.start()
        overlap(truth, prediction)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
