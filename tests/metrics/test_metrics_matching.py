"""Matching: against an exhaustive search, and the edge cases of CONVENTIONS pinned by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from medseg.errors import InputError
from medseg.metrics import Counts, average_precision, match, overlap
from medseg.metrics.matching import THRESHOLDS

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


@given(pairs)
def test_the_table_holds_every_pair_that_shares_voxels(arrays):
    truth, prediction = arrays
    table = overlap(truth, prediction)
    expected = dense(truth, prediction)
    assert (table.n_truth, table.n_prediction) == expected.shape
    found = np.zeros_like(expected)
    found[table.truth, table.prediction] = table.iou
    np.testing.assert_allclose(found, expected)
    assert len(table.iou) == np.count_nonzero(expected)


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


@given(pairs)
def test_swapping_sides_swaps_misses(arrays):
    one, _ = match(overlap(*arrays), 0.3)
    two, _ = match(overlap(*arrays[::-1]), 0.3)
    assert (one.tp, one.fp, one.fn) == (two.tp, two.fn, two.fp)


# --- by hand


def test_more_pairs_before_larger_overlap():
    # the best pair, 1 with 1, is not in the best matching: 2 has no other partner
    truth = np.array([1] * 7 + [2] * 2 + [0] * 4)
    prediction = np.array([1] * 4 + [2] * 3 + [1] * 2 + [2] * 2 + [0] * 2)
    iou = dense(truth, prediction)
    assert iou.tolist() == [[4 / 9, 3 / 9], [2 / 6, 0]]
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


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_large_ids_one_apart_are_two_objects(dtype):
    labels = np.array([2**60, 2**60 + 1, 2**60 + 1], dtype)
    assert overlap(labels, labels).n_truth == 2
    assert overlap(np.array([2**31 - 1, 2**31 - 2]), np.array([1, 2])).n_truth == 2


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


def test_counts_add_up():
    total = Counts(1, 2, 3, 0.9) + Counts(4, 5, 6, 3.1)
    assert total == Counts(5, 7, 9, 4.0)
    assert total.ap == 5 / 21


def test_pooled_and_image_mean_differ_and_are_named():
    many = np.arange(1, 10)
    images = [(many, many), (np.array([1, 0]), np.array([0, 1]))]
    scores = average_precision(images)
    assert list(scores) == ["pooled", "image mean"]
    assert tuple(scores["pooled"]) == THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    assert scores["pooled"][0.5] == 9 / 11
    assert scores["image mean"][0.5] == 0.5


def test_an_empty_image_counts_in_the_mean_only():
    nothing, some = np.zeros(2, int), np.array([1, 0])
    scores = average_precision([(nothing, nothing), (some, nothing)], thresholds=(0.5,))
    assert scores == {"pooled": {0.5: 0.0}, "image mean": {0.5: 0.5}}


def test_bad_input_is_named():
    good = np.ones((2, 2), int)
    with pytest.raises(InputError, match=r"prediction labels are float64"):
        overlap(good, good.astype(float))
    with pytest.raises(InputError, match=r"truth labels are bool"):
        overlap(good > 0, good)
    with pytest.raises(InputError, match=r"truth labels hold the negative id -3"):
        overlap(good * -3, good)
    with pytest.raises(InputError, match=r"\(2, 2\), prediction \(2, 3\)"):
        overlap(good, np.ones((2, 3), int))
    with pytest.raises(InputError, match="no images"):
        average_precision([])


def test_arrays_without_voxels_hold_nothing():
    assert match(overlap(np.zeros((0, 4), int), np.zeros((0, 4), int)))[0] == Counts(0, 0, 0, 0.0)
