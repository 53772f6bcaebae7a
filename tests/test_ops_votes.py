"""Votes: offsets by hand, and centres found from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import center_of_mass

from medseg.ops.votes import agreement, centre_offsets, group_by_votes
from medseg.testing import phantoms
from medseg.testing.decoding import same_partition

label_arrays = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.sampled_from([0, 0, 1, 4, 900])
)


def group(foreground, offsets, spacing, **changes):
    settings = {"blur": 1.5, "votes": 8.0, "separation": 0.5} | changes
    return group_by_votes(foreground.astype(np.float32), foreground, offsets.astype(np.float32), spacing, **settings)


@given(label_arrays, st.sampled_from([1.0, 0.5, 3.0]))
def test_offsets_point_at_the_centroid(labels, first):
    spacing = (first, *[1.0] * (labels.ndim - 1))
    offsets = centre_offsets(labels, spacing)
    assert offsets.shape == (labels.ndim, *labels.shape) and offsets.dtype == np.float32
    assert not offsets[:, labels == 0].any()
    for i in set(labels.ravel().tolist()) - {0}:
        centre = np.array(center_of_mass(labels == i))
        for index in np.argwhere(labels == i):
            np.testing.assert_allclose(offsets[(slice(None), *index)], (centre - index) * spacing, atol=1e-5)


@pytest.mark.parametrize(
    "shape, spacing", [((60, 60), (1.0, 1.0)), ((24, 30, 30), (1.0, 1.0, 1.0)), ((12, 40, 40), (3.0, 1.0, 1.0))]
)
@pytest.mark.parametrize("seed", range(3))
def test_perfect_votes_give_back_the_objects(shape, spacing, seed):
    labels = phantoms.blobs(shape, 5, 6.0, seed, spacing=spacing)
    found, miss = group(labels > 0, centre_offsets(labels, spacing), spacing)
    assert same_partition(labels, found)
    agreed = agreement(found, miss, spacing)
    assert agreed.shape == (6,)
    assert (agreed[1:] > 0.9).all()


def test_votes_that_point_out_of_the_field_count_at_its_border():
    foreground = np.zeros((20, 20), bool)
    foreground[:4, 8:12] = True
    offsets = np.stack([np.full((20, 20), -100.0), 10.0 - np.indices((20, 20))[1]])
    found, _ = group(foreground, offsets, (1.0, 1.0))
    assert np.array_equal(found > 0, foreground) and found.max() == 1


def point_clusters(**centres):
    """Foreground rows of which each votes for one point; `name=(row, voxels, target)`."""
    foreground = np.zeros((30, 60), bool)
    offsets = np.zeros((2, 30, 60))
    for row, voxels, target in centres.values():
        foreground[row, :voxels] = True
        offsets[0, row, :voxels] = target[0] - row
        offsets[1, row, :voxels] = target[1] - np.arange(voxels)
    return foreground, offsets


def test_a_large_centre_takes_in_the_small_ones_within_its_reach():
    # radius of 50 voxels is 4.0, of 12 voxels 2.0: at distance 6 only a share of 1.5 of the larger radius reaches
    foreground, offsets = point_clusters(large=(2, 50, (15, 20)), near=(4, 12, (15, 26)), far=(6, 12, (15, 45)))
    apart, _ = group(foreground, offsets, (1.0, 1.0), separation=1.3)
    joined, _ = group(foreground, offsets, (1.0, 1.0), separation=1.6)
    assert [len({apart[r, 0] for r in rows}) for rows in ((2, 4), (2, 6), (4, 6))] == [2, 2, 2]
    assert joined[2, 0] == joined[4, 0] != joined[6, 0]


def test_a_centre_that_took_others_in_reaches_further():
    # reach of 40 voxels at a share of .9 is 3.2, of 79 voxels 4.5: the third comes in only after the second
    first, second, third = (2, 40, (15, 20)), (4, 39, (15, 23)), (6, 20, (15, 16))
    one, _ = group(*point_clusters(a=first, b=second, c=third), (1.0, 1.0), blur=0.5, separation=0.9)
    assert one[2, 0] == one[4, 0] == one[6, 0] > 0
    apart, _ = group(*point_clusters(a=first, c=third), (1.0, 1.0), blur=0.5, separation=0.9)
    assert apart[2, 0] != apart[6, 0]


def test_too_few_votes_leave_no_label():
    foreground, offsets = point_clusters(only=(2, 7, (15, 20)))
    assert group(foreground, offsets, (1.0, 1.0), votes=8.0)[0].max() == 0
    assert group(foreground, offsets, (1.0, 1.0), votes=6.0)[0].max() == 1


def test_voxels_weigh_as_told():
    foreground, offsets = point_clusters(only=(2, 10, (15, 20)))
    for weight, expected in ((0.5, 0), (1.0, 1)):
        labels, _ = group_by_votes(
            weight * foreground.astype(np.float32),
            foreground,
            offsets.astype(np.float32),
            (1.0, 1.0),
            blur=1.5,
            votes=8.0,
            separation=0.5,
        )
        assert labels.max() == expected


def test_votes_are_blurred_in_physical_units():
    foreground = np.zeros((9, 16, 16), bool)
    foreground[1:4, 4:12, 4:12] = foreground[4:7, 4:12, 4:12] = True
    offsets = np.zeros((3, 9, 16, 16))
    for axis, size in ((1, 16), (2, 16)):
        offsets[axis] = 8 - np.arange(size).reshape([-1 if a == axis else 1 for a in range(3)])
    for spacing, count in ((4.0, 2), (1.0, 1)):  # centres two planes apart: 8 or 2 with a blur of 1.5
        target = np.where(np.arange(9) < 4, 3, 5).reshape(-1, 1, 1)
        offsets[0] = (target - np.arange(9).reshape(-1, 1, 1)) * spacing
        labels, _ = group(foreground, offsets, (spacing, 1.0, 1.0), separation=0.0)
        assert labels.max() == count


def test_no_foreground_is_no_labels():
    labels, miss = group(np.zeros((5, 5), bool), np.zeros((2, 5, 5)), (1.0, 1.0))
    assert not labels.any() and not miss.any()
    assert agreement(labels, miss, (1.0, 1.0)).tolist() == [0.0]


def test_voxels_that_were_dropped_do_not_count_for_agreement():
    labels = np.array([[1, 1, 0, 2]], np.int32)
    miss = np.array([[0, 0, 9, 1]], np.float32)
    area = 1 / np.pi  # of the second: its radius squared
    assert agreement(labels, miss, (1.0, 1.0)) == pytest.approx([0, 1, np.exp(-1 / area)])
