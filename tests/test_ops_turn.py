"""Turning arrays to an anatomical orientation and back: to the voxel, and each voxel stays where it is in the patient."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.grid import Grid
from medseg.ops.turn import Turn

CODES = ["".join(pick) for axes in itertools.permutations(("LR", "PA", "IS")) for pick in itertools.product(*axes)]


def stored(code, shape=(3, 4, 5)):
    """A patient's grid whose axes point to these directions, tilted a little."""
    linear = np.zeros((3, 3))
    for axis, letter in enumerate(code):
        world = next(i for i, ends in enumerate(("LR", "PA", "IS")) if letter in ends)
        linear[world, axis] = (1.5, 1.0, 0.5)[axis] * (1 if letter in "RAS" else -1)
    c, s = np.cos(0.2), np.sin(0.2)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ linear
    affine[:3, 3] = 7.0, -3.0, 2.0
    return Grid(shape, affine, space="patient")


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("wanted", ["SAL", "LPS", "IRA"])
def test_every_voxel_stays_where_it_is(code, wanted):
    grid = stored(code)
    assert grid.orientation == code
    turn = Turn.to(grid, wanted)
    after = turn.grid(grid)
    assert after.orientation == wanted and after.frame == grid.frame
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    places = np.moveaxis(grid.to_world(index), -1, 0)  # leading axes stay
    np.testing.assert_allclose(
        np.moveaxis(turn.forth(places), 0, -1),
        after.to_world(np.stack(np.meshgrid(*map(np.arange, after.shape), indexing="ij"), axis=-1)),
        atol=1e-9,
    )
    np.testing.assert_array_equal(turn.back(turn.forth(places)), places)
    assert turn.needed == (code != wanted)


@given(st.sampled_from(CODES), st.sampled_from(CODES), st.data())
def test_parts_are_where_they_are_told_to_be(code, wanted, data):
    grid = stored(code)
    turn = Turn.to(grid, wanted)
    array = np.arange(60).reshape(grid.shape)
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in grid.shape]
    place = tuple(slice(a, b) for a, b in ends)
    there = turn.place(place)
    np.testing.assert_array_equal(turn.forth(array)[there], turn.forth(array[place]))
    np.testing.assert_array_equal(turn.back(turn.forth(array)[there]), array[place])
    assert turn.place_back(there) == place
    assert turn.sizes_back(turn.sizes(grid.shape)) == grid.shape
    assert turn.forth(array).shape == turn.sizes(grid.shape) == turn.grid(grid).shape


def test_what_has_no_anatomy_stays():
    grid = Grid.from_spacing((3, 4, 5), 1.0)
    assert not Turn.to(grid, "SAL").needed and Turn.to(grid, "SAL").grid(grid) is grid
    assert not Turn.to(stored("LPS"), None).needed
    assert Turn.to(Grid.from_spacing((4, 5), 1.0), "SAL").order == (0, 1)
