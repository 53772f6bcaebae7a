"""Resampling onto another grid, against plain loops."""

import itertools

import numpy as np
import pytest

from medseg.grid import Grid
from medseg.ops.resample import onto


def by_hand(array, source, target, order):
    out = np.zeros(target.shape)
    for index in np.ndindex(target.shape):
        at = source.to_index(target.to_world(np.array(index, float)))
        if order == 0:
            corners = [(np.floor(at + 0.5).astype(int), 1.0)]
        else:
            low = np.floor(at).astype(int)
            corners = [
                (low + step, float(np.prod(np.where(step, at - low, 1 - (at - low)))))
                for step in map(np.array, itertools.product((0, 1), repeat=array.ndim))
            ]
        for corner, weight in corners:  # beyond the array everything is 0
            if (corner >= 0).all() and (corner < array.shape).all():
                out[index] += weight * array[tuple(corner)]
    return out


def turned(angle, spacing, origin):
    """Affine of a grid that lies at an angle, (y, x) index."""
    c, s = np.cos(angle), np.sin(angle)
    out = np.eye(3)
    out[:2, :2] = np.array([[c, -s], [s, c]]) @ np.diag(spacing)[::-1]
    out[:2, 2] = origin
    return out


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_against_plain_loops(order, seed):
    rng = np.random.default_rng(seed)
    if seed % 2:
        source = Grid((6, 7), turned(rng.uniform(0, 1), rng.uniform(1, 2, 2), rng.uniform(-1, 0, 2)))
        target = Grid((9, 8), turned(rng.uniform(0, 1), rng.uniform(0.6, 1.2, 2), rng.uniform(-2.5, -1.5, 2)))
    else:
        source = Grid.from_spacing((4, 5, 6), rng.uniform(1, 2, 3), origin=rng.uniform(-1, 0, 3))
        target = Grid.from_spacing((7, 6, 7), rng.uniform(0.6, 1.2, 3), origin=rng.uniform(-2.5, -1.5, 3))
    array = rng.uniform(1, 9, source.shape).astype(np.float32)
    found = onto(array, source, target, order)
    expected = by_hand(array, source, target, order)
    assert found.dtype == np.float32 and 0.2 < (expected > 0).mean() < 1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_same_grid_gives_the_same_array_and_type():
    grid = Grid.from_spacing((3, 4), 0.7)
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    found = onto(labels, grid, grid, 0)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)


def test_labels_are_never_mixed():
    source, target = Grid.from_spacing((4, 4), 1.0), Grid.from_spacing((7, 7), 0.53)
    labels = np.zeros((4, 4), np.int32)
    labels[:2], labels[2:] = 1, 2**31 - 1
    assert set(np.unique(onto(labels, source, target, 0)).tolist()) == {1, 2**31 - 1}
