"""Regions: partitions cover once, windows cover, and blended constants stay constant, for any sizes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.ops.regions import blend_weight, grow, partition, windows


@st.composite
def fields(draw):
    """Shape, window size, and an overlap of at most half a window."""
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=ndim, max_size=ndim)))
    size = tuple(draw(st.lists(st.integers(1, 50), min_size=ndim, max_size=ndim)))
    overlap = tuple(draw(st.integers(0, s // 2)) for s in size)
    return shape, size, overlap


@given(fields())
def test_a_partition_covers_every_voxel_once_in_c_order(field):
    shape, size, _ = field
    count = np.zeros(shape, int)
    parts = partition(shape, size)
    for part in parts:
        assert all(
            0 <= p.start < p.stop <= n and p.stop - p.start <= s for p, n, s in zip(part, shape, size, strict=True)
        )
        count[part] += 1
    assert (count == 1).all()
    starts = [tuple(p.start for p in part) for part in parts]
    assert starts == sorted(starts)


def test_parts_are_of_about_equal_size():
    assert partition((10,), (4,)) == [(slice(0, 3),), (slice(3, 7),), (slice(7, 10),)]
    assert partition((8,), (4,)) == [(slice(0, 4),), (slice(4, 8),)]
    assert partition((3, 2), (5, 1)) == [(slice(0, 3), slice(0, 1)), (slice(0, 3), slice(1, 2))]


@given(fields())
def test_windows_cover_are_equal_and_overlap_as_asked(field):
    shape, size, overlap = field
    places = windows(shape, size, overlap)
    count = np.zeros(shape, int)
    for place in places:
        count[place] += 1
    assert (count > 0).all()
    assert len({tuple(p.stop - p.start for p in place) for place in places}) == 1
    for axis, (n, s, o) in enumerate(zip(shape, size, overlap, strict=True)):
        cuts = sorted({(p[axis].start, p[axis].stop) for p in places})
        assert cuts[0][0] == 0 and cuts[-1][1] == n and cuts[0][1] <= max(s, 1)
        # rounding to whole voxels may cost one voxel of the overlap
        assert all(a[1] - b[0] >= o - 1 for a, b in itertools.pairwise(cuts))


def test_windows_are_as_few_as_the_overlap_allows():
    assert windows((100,), (40,), (10,)) == [(slice(0, 40),), (slice(30, 70),), (slice(60, 100),)]
    assert windows((101,), (40,), (10,)) == [(slice(0, 33),), (slice(23, 56),), (slice(45, 78),), (slice(68, 101),)]
    assert windows((40,), (40,), (10,)) == [(slice(0, 40),)]


@given(fields(), st.integers(0, 12))
def test_blending_a_constant_gives_the_constant(field, ramp):
    shape, size, overlap = field
    total, weight = np.zeros(shape), np.zeros(shape)
    for place in windows(shape, size, overlap):
        w = blend_weight(place, shape, (ramp,) * len(shape))
        assert w.dtype == np.float32 and (w > 0).all() and (w <= 1).all()
        total[place] += 0.7 * w
        weight[place] += w
    np.testing.assert_allclose(total / weight, 0.7, rtol=1e-5)


def test_weights_fall_towards_inner_borders_only():
    quarter = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert blend_weight((slice(0, 6),), (20,), (3,)).tolist() == quarter[::-1]
    assert blend_weight((slice(14, 20),), (20,), (3,)).tolist() == quarter
    assert blend_weight((slice(0, 6),), (6,), (3,)).tolist() == [1.0] * 6
    both = blend_weight((slice(0, 2), slice(4, 6)), (4, 6), (1, 1))
    assert both.tolist() == [[0.5, 1.0], [0.25, 0.5]]


@given(fields(), st.integers(0, 9))
def test_a_grown_region_reaches_as_far_as_the_halo_or_the_border(field, halo):
    shape, size, _ = field
    for part in partition(shape, size):
        for p, g, n in zip(part, grow(part, (halo,) * len(shape), shape), shape, strict=True):
            assert (g.start, g.stop) == (max(0, p.start - halo), min(n, p.stop + halo))


def test_axes_must_agree():
    with pytest.raises(ValueError, match="zip"):
        partition((4, 4), (2,))
    with pytest.raises(ValueError, match="zip"):
        windows((4, 4), (2, 2), (1,))
