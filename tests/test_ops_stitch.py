"""Stitching: regions that each see a part give what one region that sees all would."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.candidates import Candidates
from medseg.ops import regions
from medseg.ops.stitch import Mosaic
from medseg.testing import phantoms
from medseg.testing.decoding import same_partition

drawn = lru_cache(phantoms.blobs)


def through_tiles(labels, size, halo, order=None):
    """Stitch regions in which every object is seen as the region's part of it; its score tells who it is."""
    shape = labels.shape
    mosaic = Mosaic(shape)
    cores = regions.partition(shape, size)
    for number in order(len(cores)) if order else range(len(cores)):
        grown = regions.grow(cores[number], halo, shape)
        part = labels[grown]
        ids = np.unique(part[part > 0])
        seen = Candidates.from_labels(part, scores=ids / 1000)
        mosaic.add(cores[number], grown, seen.boxes, seen.masks, seen.scores.tolist(), (ids % 3 + 1).tolist())
    return mosaic.finish()


def check_whole(labels, result):
    """The same objects as in the labels, each once, with its own score and class."""
    found, scores, classes = result
    assert (found.dtype, scores.dtype, classes.dtype) == (np.int32, np.float32, np.int32)
    assert same_partition(labels, found)
    ids = [int(labels[found == i][0]) for i in range(1, found.max() + 1)]
    np.testing.assert_allclose(scores, np.array(ids) / 1000, rtol=1e-5)
    assert classes.tolist() == [i % 3 + 1 for i in ids]


# --- what every array must give


@given(
    seed=st.integers(0, 4),
    radius=st.sampled_from([2.0, 4.0, 8.0]),
    size=st.tuples(st.integers(7, 70), st.integers(7, 70)),
    halo=st.tuples(st.integers(1, 25), st.integers(1, 25)),
)
def test_any_tiles_give_the_whole(seed, radius, size, halo):
    labels = drawn((56, 60), int(60 / radius**1.5) + 2, radius, seed)
    check_whole(labels, through_tiles(labels, size, halo))


@settings(max_examples=12)
@given(seed=st.integers(0, 3), size=st.integers(9, 30), halo=st.integers(1, 12))
def test_any_tiles_give_the_whole_in_3d(seed, size, halo):
    labels = drawn((14, 30, 30), 5, 5.0, seed, spacing=(2.0, 1.0, 1.0))
    check_whole(labels, through_tiles(labels, (max(2, size // 2), size, size), (max(1, halo // 2), halo, halo)))


@settings(max_examples=15)
@given(seed=st.integers(0, 30))
def test_the_order_of_regions_does_not_matter(seed):
    labels = drawn((48, 48), 9, 6.0, seed % 4)
    shuffled = through_tiles(labels, (13, 17), (4, 6), order=np.random.default_rng(seed).permutation)
    check_whole(labels, shuffled)


# --- objects larger than a region


@pytest.mark.parametrize("closed", [False, True], ids=["bar", "ring"])
@pytest.mark.parametrize("shape", [(60, 60), (12, 50, 50)])
def test_an_object_longer_than_many_regions_stays_whole(shape, closed):
    labels = phantoms.chain(shape, 6, closed)
    check_whole(labels, through_tiles(labels, (9,) * len(shape), (3,) * len(shape)))


def test_long_objects_that_touch_stay_apart():
    labels = np.zeros((12, 80), np.int32)
    labels[2:5], labels[5:7], labels[7:11] = 1, 2, 3
    check_whole(labels, through_tiles(labels, (6, 10), (2, 3)))


def test_without_a_halo_nothing_is_joined():
    labels = phantoms.chain((9, 40), 3)
    found, _, _ = through_tiles(labels, (9, 10), (0, 0))
    assert found.max() == 4


# --- who owns what, by hand

LEFT, RIGHT = (slice(0, 6), slice(0, 10)), (slice(0, 6), slice(10, 20))
LEFT_GROWN, RIGHT_GROWN = (slice(0, 6), slice(0, 14)), (slice(0, 6), slice(6, 20))


def add(mosaic, core, grown, *rectangles, scores=None, classes=None):
    """Add rectangles (y0, y1, x0, x1) in the whole array's index."""
    boxes = np.array([[y0, x0 - grown[1].start, y1, x1 - grown[1].start] for y0, y1, x0, x1 in rectangles])
    masks = [np.ones((y1 - y0, x1 - x0), bool) for y0, y1, x0, x1 in rectangles]
    n = len(rectangles)
    return mosaic.add(core, grown, boxes.reshape(-1, 4), masks, scores or [0.5] * n, classes or [1] * n)


def test_an_object_in_both_halos_is_owned_once_by_its_centre():
    mosaic = Mosaic((6, 20))
    assert add(mosaic, LEFT, LEFT_GROWN, (0, 2, 7, 12), (3, 5, 8, 13)) == 1  # centres 9.5 and 10.5
    assert add(mosaic, RIGHT, RIGHT_GROWN, (0, 2, 7, 12), (3, 5, 8, 13)) == 1
    labels, scores, _ = mosaic.finish()
    assert len(scores) == 2
    assert (labels[0:2, 7:12] == 1).all() and (labels[3:5, 8:13] == 2).all()
    assert (labels > 0).sum() == 20


def test_a_cut_view_of_an_owned_object_is_not_painted_again():
    mosaic = Mosaic((6, 20))
    add(mosaic, LEFT, LEFT_GROWN, (1, 4, 3, 13))  # clear of the border at 14, centre 8
    add(mosaic, RIGHT, RIGHT_GROWN, (1, 4, 6, 14))  # the right region sees it cut at 6, and one column longer
    labels, scores, _ = mosaic.finish()
    assert len(scores) == 1
    assert (labels[1:4, 3:13] == 1).all() and (labels > 0).sum() == 30


def test_an_object_that_both_regions_own_is_painted_once():
    mosaic = Mosaic((6, 20))
    assert add(mosaic, LEFT, LEFT_GROWN, (1, 4, 7, 12)) == 1  # centre 9.5
    assert add(mosaic, RIGHT, RIGHT_GROWN, (1, 4, 8, 12)) == 0  # the right region misses a column: centre 10
    labels, scores, _ = mosaic.finish()
    assert len(scores) == labels.max() == 1
    assert (labels > 0).sum() == 15


def test_an_object_that_neither_region_owns_is_painted_once():
    mosaic = Mosaic((6, 20))
    assert add(mosaic, LEFT, LEFT_GROWN, (1, 4, 8, 12)) == 0  # centre 10, the right one's
    assert add(mosaic, RIGHT, RIGHT_GROWN, (1, 4, 7, 12)) == 0  # centre 9.5, the left one's
    labels, scores, _ = mosaic.finish()
    assert len(scores) == labels.max() == 1
    assert (labels[1:4, 8:12] == 1).all()


@given(seed=st.integers(0, 500))
def test_regions_that_see_objects_a_voxel_apart_still_count_each_once(seed):
    rng = np.random.default_rng(seed)
    labels = drawn((64, 64), 8, 5.0, seed % 8, touching=False)
    mosaic = Mosaic(labels.shape)
    for core in regions.partition(labels.shape, tuple(rng.integers(12, 40, 2))):
        grown = regions.grow(core, (16, 16), labels.shape)
        seen = Candidates.from_labels(np.roll(labels, rng.integers(-1, 2, 2), (0, 1))[grown])
        mosaic.add(core, grown, seen.boxes, seen.masks, [0.5] * len(seen), [1] * len(seen))
    found, scores, _ = mosaic.finish()
    assert len(scores) == 8
    assert np.unique(found).tolist() == list(range(9))
    assert [len(np.unique(found[labels == i])) <= 2 for i in range(1, 9)] == [True] * 8  # itself, and background


def test_pieces_join_where_they_agree_and_score_their_weighted_mean():
    mosaic = Mosaic((6, 20))
    add(mosaic, LEFT, LEFT_GROWN, (0, 3, 2, 14), scores=[0.9], classes=[2])  # 36 voxels
    add(mosaic, RIGHT, RIGHT_GROWN, (0, 3, 6, 15), scores=[0.2], classes=[2])  # 27 voxels
    labels, scores, classes = mosaic.finish()
    assert (labels[0:3, 2:15] == 1).all() and (labels > 0).sum() == 39
    assert scores == pytest.approx([(36 * 0.9 + 27 * 0.2) / 63])
    assert classes.tolist() == [2]


def test_a_piece_joins_only_its_best_partner():
    mosaic = Mosaic((6, 20))
    add(mosaic, LEFT, LEFT_GROWN, (0, 6, 2, 14))  # one object of six rows
    add(mosaic, RIGHT, RIGHT_GROWN, (0, 4, 6, 18), (4, 6, 6, 18))  # two of four and two rows: IoU 2/3 and 1/3
    labels, scores, _ = mosaic.finish()
    assert len(scores) == 2
    assert len(np.unique(labels[0:4, 2:18])) == 1
    assert len(np.unique(labels[4:6, 10:18])) == 1
    assert labels[0, 12] != labels[5, 12] and labels[5, 5] == labels[0, 5]


def test_a_third_in_common_is_enough_to_join():
    mosaic = Mosaic((6, 20))
    add(mosaic, LEFT, LEFT_GROWN, (0, 4, 2, 14))
    add(mosaic, RIGHT, RIGHT_GROWN, (2, 6, 6, 18))  # two of six rows
    labels, _, _ = mosaic.finish()
    assert labels.max() == 1 and (labels[0:4, 2:10] == 1).all() and (labels[2:6, 10:18] == 1).all()


def test_pieces_that_hardly_agree_stay_apart():
    mosaic = Mosaic((6, 20))
    add(mosaic, LEFT, LEFT_GROWN, (0, 4, 2, 14))
    add(mosaic, RIGHT, RIGHT_GROWN, (3, 6, 6, 18))  # one of six rows in common
    labels, _, _ = mosaic.finish()
    assert (labels[0:4, 2:10] == labels[0, 2]).all() and (labels[3:6, 10:18] == labels[5, 12]).all()
    assert labels[0, 2] != labels[5, 12]


def test_pieces_of_different_classes_stay_apart():
    mosaic = Mosaic((6, 20))
    add(mosaic, LEFT, LEFT_GROWN, (0, 3, 2, 14), classes=[1])
    add(mosaic, RIGHT, RIGHT_GROWN, (0, 3, 6, 18), classes=[2])
    labels, _, classes = mosaic.finish()
    assert sorted(classes.tolist()) == [1, 2]
    assert len(np.unique(labels[0:3, 2:18])) == 2


def test_the_score_of_the_whole_is_that_of_its_pieces_by_size():
    mosaic = Mosaic((6, 20))
    add(mosaic, LEFT, LEFT_GROWN, (0, 2, 2, 14), (3, 5, 1, 5), scores=[0.9, 0.69])
    add(mosaic, RIGHT, RIGHT_GROWN, (0, 2, 6, 18), (3, 5, 15, 18), scores=[0.6, 0.71])
    labels, scores, _ = mosaic.finish()
    assert scores == pytest.approx([0.69, 0.71, 0.75])
    assert len(np.unique(labels[0:2, 2:18])) == 1


def test_nothing_found_is_an_empty_array():
    mosaic = Mosaic((6, 20))
    assert add(mosaic, LEFT, LEFT_GROWN) == 0
    labels, scores, classes = mosaic.finish()
    assert (labels.any(), len(scores), len(classes)) == (False, 0, 0)
