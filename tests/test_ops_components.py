"""Components: against scipy, and drawn arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medseg.ops import components
from medseg.testing.decoding import same_partition

shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=8)
masks = hnp.arrays(np.bool_, shapes)
label_arrays = hnp.arrays(np.int32, shapes, elements=st.sampled_from([0, 0, 1, 2, 7]))


def largest_by_hand(labels, least):
    """Id and largest pieces (several where they are equally large) of each label that keeps one."""
    for i in sorted(set(labels.ravel().tolist()) - {0}):
        parts, count = ndimage.label(labels == i, np.ones((3,) * labels.ndim))
        sizes = [int((parts == k).sum()) for k in range(1, count + 1)]
        if max(sizes) >= least:
            yield i, [parts == k + 1 for k, s in enumerate(sizes) if s == max(sizes)]


@given(masks)
def test_components_connect_at_corners(mask):
    expected, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    found = components.label(mask)
    assert found.dtype == np.int32 and found.max() == count
    assert same_partition(found, expected)


@given(label_arrays)
def test_pieces_never_cross_labels(labels):
    found = components.pieces(labels)
    assert ((found > 0) == (labels > 0)).all()
    expected = np.zeros_like(labels)
    for i in set(labels.ravel().tolist()) - {0}:
        parts, _ = ndimage.label(labels == i, np.ones((3,) * labels.ndim))
        expected[parts > 0] = parts[parts > 0] + expected.max()
    assert same_partition(found, expected)
    assert components.sizes(found).tolist() == [int((found == i).sum()) for i in range(found.max() + 1)]


@given(label_arrays, st.integers(1, 5))
def test_one_largest_piece_of_each_label_stays(labels, least):
    found = components.largest_pieces(labels, least)
    expected = list(largest_by_hand(labels, least))
    assert sorted(set(found.ravel().tolist()) - {0}) == list(range(1, len(expected) + 1))
    for new, (_, candidates) in enumerate(expected, 1):  # in the order of the old ids; equal pieces: either one
        assert any(np.array_equal(found == new, piece) for piece in candidates)


def test_a_drawn_array():
    labels = np.array(
        [
            [9, 9, 0, 4, 0],
            [0, 0, 0, 4, 0],
            [9, 0, 4, 0, 3],
        ]
    )
    expected = [[2, 2, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]
    assert components.largest_pieces(labels.astype(np.int32), min_voxels=2).tolist() == expected


@pytest.mark.parametrize("make", [lambda a: a, np.asfortranarray, lambda a: a[::-1], lambda a: a[:, ::2]])
def test_read_only_and_strided_arrays_are_fine(make):
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 1:7] = 5
    view = make(labels)
    view.flags.writeable = False
    for result in (components.label(view > 0), components.pieces(view), components.largest_pieces(view)):
        np.testing.assert_array_equal(result, view > 0)
    mask = make(labels > 0)
    mask.flags.writeable = False
    np.testing.assert_array_equal(components.label(mask), view > 0)
    np.testing.assert_array_equal(components.label(mask.view(np.uint8)), view > 0)


def test_ids_up_to_the_largest_int32():
    labels = np.array([[2**31 - 1, 0, 1, 1]], np.int32)
    assert components.pieces(labels).tolist() == [[1, 0, 2, 2]]
    assert components.largest_pieces(labels).tolist() == [[2, 0, 1, 1]]
