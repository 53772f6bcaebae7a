"""Matching: against an exhaustive search, and the edge cases of CONVENTIONS pinned by hand."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from medseg.candidates import Candidates
from medseg.metrics import THRESHOLDS, Counts, Overlap, excused, match, matching, overlap

ids = st.sampled_from([0, 0, 1, 2, 5, 900])
pairs = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=ids)] * 2)
)


def rows(labels):
    return sorted(set(labels.ravel().tolist()) - {0})


def dense(truth, prediction):
    """IoU of every pair."""
    iou = np.zeros((len(rows(truth)), len(rows(prediction))))
    for (r, i), (c, j) in itertools.product(enumerate(rows(truth)), enumerate(rows(prediction))):
        iou[r, c] = ((truth == i) & (prediction == j)).sum() / ((truth == i) | (prediction == j)).sum()
    return iou


def best_matching(ok, iou):
    """Most pairs, then the largest sum, over every one-to-one matching there is."""
    best = (0, 0.0)

    def search(row, used, count, total):
        nonlocal best
        if row == len(ok):
            best = max(best, (count, total))
            return
        search(row + 1, used, count, total)
        for column in np.flatnonzero(ok[row]).tolist():
            if column not in used:
                search(row + 1, used | {column}, count + 1, total + iou[row, column])

    search(0, frozenset(), 0, 0.0)
    return best


# --- properties


@given(pairs, st.sampled_from([0.05, 0.2, 1 / 3, 0.5, 0.75, 1.0]), st.booleans())
def test_the_matching_is_the_best_there_is(arrays, threshold, strict):
    truth, prediction = arrays
    iou = dense(truth, prediction)
    ok = (iou > threshold) if strict else (iou >= threshold)
    counts, partner = match(overlap(truth, prediction), threshold, strict)
    tp, total = best_matching(ok, iou)
    assert (counts.tp, counts.fp, counts.fn) == (tp, iou.shape[1] - tp, iou.shape[0] - tp)
    assert counts.iou == pytest.approx(total)
    taken = np.flatnonzero(partner >= 0)
    assert len(set(partner[taken].tolist())) == len(taken) == tp
    assert ok[taken, partner[taken]].all()
    assert iou[taken, partner[taken]].sum() == pytest.approx(total)


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_crowded_groups_below_half_against_dense_assignment(threshold):
    rng = np.random.default_rng(3)
    truth = np.kron(rng.integers(0, 15, (10, 10)), np.ones((3, 3), int))
    prediction = np.roll(np.kron(rng.integers(0, 15, (15, 15)), np.ones((2, 2), int)), 1)
    iou = dense(truth, prediction)
    gain = np.where(iou >= threshold, iou + iou.size, 0)
    r, c = linear_sum_assignment(gain, maximize=True)
    counts, _ = match(overlap(truth, prediction), threshold)
    assert counts.tp == (gain[r, c] > 0).sum()
    assert counts.iou == pytest.approx(iou[r, c][gain[r, c] > 0].sum())


@given(pairs, st.sampled_from([0.05, 0.2, 0.5]))
def test_the_sparse_solver_finds_as_good_a_matching(arrays, threshold):
    table = overlap(*arrays)
    plain, _ = match(table, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "DENSE", 0)
        sparse, partner = match(table, threshold)
    assert (sparse.tp, sparse.fp, sparse.fn) == (plain.tp, plain.fp, plain.fn)
    assert sparse.iou == pytest.approx(plain.iou, abs=1e-9)
    assert len(set(partner[partner >= 0].tolist())) == sparse.tp


@st.composite
def classed(draw):
    """Sides with classes, crowds and an ignore region."""
    truth, prediction = draw(pairs)
    some = [len(rows(labels)) for labels in (truth, prediction)]
    kinds = [draw(st.lists(st.integers(1, 2), min_size=n, max_size=n)) for n in some]
    crowd = draw(st.lists(st.booleans(), min_size=some[0], max_size=some[0]))
    ignore = draw(hnp.arrays(np.bool_, truth.shape))
    return overlap(truth, prediction, truth_classes=kinds[0], classes=kinds[1], crowd=crowd, ignore=ignore)


@given(classed(), st.sampled_from([0.05, 0.3, 0.5]), st.booleans())
def test_only_objects_that_count_are_matched_within_their_class(table: Overlap, threshold, strict):
    ok = np.zeros((table.n_truth, table.n_prediction), bool)
    iou = np.zeros(ok.shape)
    free = table.prediction.ignored.tolist()
    for i, j, shared, value in zip(table.i, table.j, table.shared, table.iou, strict=True):
        if table.truth.classes[i] != table.prediction.classes[j]:
            continue
        share = shared / table.prediction.sizes[j]
        enough = [part > threshold if strict else part >= threshold for part in (value, share)]
        if table.truth.crowd[i]:
            free[j] |= enough[1]
        elif table.truth.ignored[i]:
            free[j] |= share > 0.5
        else:
            ok[i, j], iou[i, j] = enough[0], value
    tp, total = best_matching(ok, iou)
    counts, partner = match(table, threshold, strict)
    assert (counts.tp, counts.fn) == (tp, (~table.truth.ignored).sum() - tp)
    assert counts.iou == pytest.approx(total)
    assert excused(table, threshold, strict).tolist() == free
    assert counts.fp == sum(not free[j] and j not in partner for j in range(table.n_prediction))
    taken = np.flatnonzero(partner >= 0)
    assert ok[taken, partner[taken]].all()


@given(classed())
def test_classes_can_be_matched_one_by_one(table):
    whole, _ = match(table, 0.2)
    parts = sum((match(table.of_class(k), 0.2)[0] for k in (1, 2)), Counts(0, 0, 0, 0.0))
    assert (whole.tp, whole.fp, whole.fn) == (parts.tp, parts.fp, parts.fn)
    assert whole.iou == pytest.approx(parts.iou)


@given(pairs)
def test_swapping_sides_swaps_misses(arrays):
    one, _ = match(overlap(*arrays), 0.3)
    two, _ = match(overlap(*arrays[::-1]), 0.3)
    assert (one.tp, one.fp, one.fn) == (two.tp, two.fn, two.fp)


# --- by hand


@pytest.mark.parametrize("limit", [matching.DENSE, 0])
def test_two_pairs_count_more_than_one_of_larger_iou(monkeypatch, limit):
    monkeypatch.setattr(matching, "DENSE", limit)
    truth = np.array([1] * 8 + [2] * 2)
    prediction = np.array([2] * 2 + [1] * 8)
    assert dense(truth, prediction).tolist() == [[6 / 10, 2 / 8], [2 / 8, 0]]
    counts, partner = match(overlap(truth, prediction), 0.2)
    assert partner.tolist() == [1, 0]
    assert counts == Counts(2, 0, 0, 0.5)


def test_more_pairs_before_the_best_pair():
    # the best pair, 1 with 1, is not in the best matching: 2 has no other partner
    truth = np.array([1] * 7 + [2] * 2 + [0] * 4)
    prediction = np.array([1] * 4 + [2] * 3 + [1] * 2 + [2] * 2 + [0] * 2)
    assert dense(truth, prediction).tolist() == [[4 / 9, 3 / 9], [2 / 6, 0]]
    counts, partner = match(overlap(truth, prediction), 0.3)
    assert partner.tolist() == [1, 0]
    assert counts.iou == pytest.approx(3 / 9 + 2 / 6)


def test_figures_of_drawn_arrays():
    truth = np.array([1, 1, 1, 1, 0, 2, 2, 2, 0, 3, 3])
    prediction = np.array([7, 7, 7, 0, 0, 4, 4, 4, 4, 0, 0])
    counts, partner = match(overlap(truth, prediction))
    assert (counts.tp, counts.fp, counts.fn, counts.iou) == (2, 0, 1, 1.5)
    assert partner.tolist() == [1, 0, -1]  # rows in the order of the ids: 4 is 0, 7 is 1
    assert (counts.ap, counts.precision, counts.recall) == (2 / 3, 1.0, 2 / 3)
    assert counts.f1 == 0.8
    assert counts.pq == pytest.approx(1.5 / 2.5)


def test_both_empty_is_perfect_and_one_empty_is_zero():
    nothing, something = np.zeros((3, 3), int), np.eye(3, dtype=int)
    both, _ = match(overlap(nothing, nothing))
    assert (both.ap, both.f1, both.pq, both.precision, both.recall) == (1, 1, 1, 1, 1)
    missed, _ = match(overlap(something, nothing))
    assert (missed.ap, missed.f1, missed.pq, missed.precision, missed.recall) == (0, 0, 0, 0, 0)
    invented, _ = match(overlap(nothing, something))
    assert (invented.ap, invented.f1, invented.pq, invented.precision, invented.recall) == (0, 0, 0, 0, 0)


def test_half_an_overlap_matches_in_ap_and_not_in_pq():
    truth, prediction = np.array([1, 1, 1, 0]), np.array([0, 1, 1, 1])  # IoU 2/4
    assert match(overlap(truth, prediction), 0.5)[0].ap == 1.0
    assert match(overlap(truth, prediction), 0.5, strict=True)[0].pq == 0.0


def test_an_object_in_two_halves_is_never_perfect():
    truth = np.ones((4, 4), int)
    prediction = np.repeat([[1, 1, 2, 2]], 4, axis=0)
    assert match(overlap(truth, prediction), 0.5, strict=True)[0].pq == 0.0
    counts, _ = match(overlap(truth, prediction), 0.5)  # one half has IoU .5, the other is a false positive
    assert (counts.tp, counts.fp, counts.fn, counts.ap) == (1, 1, 0, 0.5)


def test_two_objects_in_one_prediction_are_an_error():
    truth, prediction = np.repeat([[1, 1, 2, 2]], 4, axis=0), np.ones((4, 4), int)
    counts, _ = match(overlap(truth, prediction), 0.5)
    assert (counts.tp, counts.fp, counts.fn) == (1, 0, 1)


def test_no_background_voxel_is_fine():
    labels = np.arange(1, 17).reshape(4, 4)
    assert match(overlap(labels, labels[::-1, ::-1].max() + 1 - labels))[0] == Counts(16, 0, 0, 16.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_ids_need_not_be_contiguous_nor_small(dtype):
    last = min(int(np.iinfo(dtype).max), 2**63 - 1)
    truth = np.array([[0, 0, 3], [last, last, 3]], dtype)
    prediction = np.array([[0, 0, last - 1], [9, 9, last - 1]], dtype)
    counts, partner = match(overlap(truth, prediction))
    assert counts == Counts(2, 0, 0, 2.0)
    assert partner.tolist() == [1, 0]


def test_the_arrays_are_left_alone():
    labels = np.array([[0, 5], [5, 2**31 - 1]], np.int32)
    labels.flags.writeable = False
    assert match(overlap(labels, labels))[0].tp == 2


def test_sixteen_thousand_objects_are_a_normal_image():
    index = np.indices((2048, 2048)) // 16
    truth = (index[0] * 128 + index[1] + 1).astype(np.int32)
    prediction = np.roll(truth, 2, axis=1)  # IoU 14/18
    counts, _ = match(overlap(truth, prediction))
    assert counts.tp == 16384
    assert counts.iou == pytest.approx(16384 * 14 / 18)
    low, _ = match(overlap(truth, np.roll(truth, 8, axis=1)), 0.3)  # IoU 1/3 with either neighbour: groups of 128
    assert low.tp == 16384


def test_one_group_of_thousands_is_solved_in_seconds():
    index = np.indices((1024, 1024)) // 16
    truth = (index[0] * 64 + index[1] + 1).astype(np.int32)
    prediction = np.roll(truth, (5, 5), axis=(0, 1))  # IoU .31 with one, .12 with two neighbours: one group of 4,096
    start = time.process_time()
    counts, _ = match(overlap(truth, prediction), 0.1)
    assert time.process_time() - start < 10  # about 1
    assert counts.tp == 4096
    assert counts.iou > 4000 * 0.3


def test_thousands_of_groups_are_solved_in_seconds():
    one = np.array([1] * 7 + [2] * 2 + [0] * 4)  # the pairs of test_more_pairs_before_the_best_pair
    two = np.array([1] * 4 + [2] * 3 + [1] * 2 + [2] * 2 + [0] * 2)
    offset = 2 * np.arange(10_000)[:, None]
    truth, prediction = (np.where(line > 0, line + offset, 0) for line in (one, two))
    start = time.process_time()
    counts, _ = match(overlap(truth, prediction), 0.3)
    assert time.process_time() - start < 10  # about 0.7; looking through all pairs for each group takes minutes
    assert (counts.tp, counts.fp, counts.fn) == (20_000, 0, 0)
    assert counts.iou == pytest.approx(10_000 * (3 / 9 + 2 / 6))


def test_an_object_of_another_class_is_no_match():
    labels = np.array([1, 1, 2, 2])
    counts, partner = match(overlap(labels, labels, truth_classes=[1, 2], classes=[1, 1]))
    assert (counts.tp, counts.fp, counts.fn) == (1, 1, 1)
    assert partner.tolist() == [0, -1]


def test_an_ignored_object_is_neither_found_nor_missed():
    truth = np.array([1, 1, 0, 2, 2, 2, 0])
    ignore = np.array([0, 0, 0, 0, 1, 1, 1], bool)
    found, _ = match(overlap(truth, truth, ignore=ignore))
    missed, partner = match(overlap(truth, truth * (truth == 1), ignore=ignore))
    assert found == missed == Counts(1, 0, 0, 1.0)
    assert partner.tolist() == [0, -1]


def test_the_ignore_region_is_cut_from_both_sides():
    truth = np.array([1, 1, 1, 1, 0])
    prediction = np.array([0, 1, 1, 1, 1])
    ignore = np.array([1, 0, 0, 0, 0], bool)
    assert match(overlap(truth, prediction))[0].iou == 3 / 5
    assert match(overlap(truth, prediction, ignore=ignore))[0].iou == 3 / 4


def test_a_prediction_mostly_in_an_ignored_object_is_not_false():
    truth = np.array([1, 1, 1, 1, 1, 1, 0, 0])
    ignore = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)  # object 1 is ignored; two of its voxels are left
    mostly = np.array([0, 0, 0, 0, 1, 1, 1, 0])  # 2/3 of it
    half = np.array([0, 0, 0, 0, 1, 1, 1, 1])  # 1/2, which is not more than half
    assert match(overlap(truth, mostly, ignore=ignore))[0] == Counts(0, 0, 0, 0.0)
    assert match(overlap(truth, half, ignore=ignore), 0.9)[0] == Counts(0, 1, 0, 0.0)


def test_a_crowd_excuses_every_prediction_with_enough_of_its_voxels_in_it():
    truth = np.array([1, 1, 1, 1, 1, 1, 0, 0, 2])
    prediction = np.array([3, 3, 0, 0, 4, 4, 4, 4, 5])  # 3 lies in the crowd, half of 4 does
    table = overlap(truth, prediction, crowd=[True, False])
    assert match(table, 0.5)[0] == Counts(1, 0, 0, 1.0)
    assert match(table, 0.5, strict=True)[0] == Counts(1, 1, 0, 1.0)
    assert match(table, 0.55)[0] == Counts(1, 1, 0, 1.0)
    assert excused(table).tolist() == [True, True, False]


def test_a_crowd_of_another_class_excuses_nothing():
    labels = np.array([1, 1])
    assert match(overlap(labels, labels, classes=[2], crowd=[True]))[0] == Counts(0, 1, 0, 0.0)


def test_overlapping_predictions_share_one_object():
    twice = Candidates.from_labels([[1, 1, 0]])
    both = Candidates(np.tile(twice.boxes, (2, 1)), [0.5, 0.6], [1, 1], twice.masks * 2, (1, 3))
    assert match(overlap(np.array([[7, 7, 0]]), both))[0] == Counts(1, 1, 0, 1.0)
    assert match(overlap(both, np.array([[7, 7, 0]])))[0] == Counts(1, 0, 1, 1.0)


def test_the_thresholds_are_exact():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    for number in range(10, 20):  # an IoU of n/20 reaches the threshold n/20
        truth, prediction = np.ones(20, int), (np.arange(20) < number).astype(int)
        assert match(overlap(truth, prediction), THRESHOLDS[number - 10])[0].tp == 1


def test_counts_add_up():
    total = Counts(1, 2, 3, 0.9) + Counts(4, 5, 6, 3.1)
    assert total == Counts(5, 7, 9, 4.0)
    assert total.ap == 5 / 21


def test_arrays_without_voxels_hold_nothing():
    assert match(overlap(np.zeros((0, 4), int), np.zeros((0, 4), int)))[0] == Counts(0, 0, 0, 0.0)
