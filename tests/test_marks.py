"""Marks in pictures of slices: sides of the patient, ids beside outlines, a bar of a known length."""

import numpy as np
import pytest

from medseg.export.marks import bar_for, facing, letters, marked
from medseg.grid import Grid
from medseg.io.overlay import turned

SIZE = (300, 360)


def patient(*steps):
    """Axes z, y, x that run S, then towards the given signs of A and R."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([1.0, 1.0, 1.0])[:, ::-1] * np.array([1.0, *steps])
    return Grid((8, 30, 36), affine, space="patient")


def drawn(grid, ids, unit=1.0):
    tints = {int(i): [0, 255, 0] for i in np.unique(ids)}
    return marked(np.zeros((*SIZE, 3), np.uint8), ids, tints, grid, [1, 2], unit)


def green(picture):
    return (picture[..., 1] > 100) & (picture[..., 0] == 0)  # letters have soft edges


@pytest.mark.parametrize("steps", [(-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (1.0, -1.0)])
def test_a_patient_lies_as_radiologists_expect(steps):
    grid = patient(*steps)
    assert facing(grid, [1, 2]) == ("R", "L", "A", "P")
    assert facing(grid, [0, 2]) == ("R", "L", "S", "I")
    assert facing(grid, [0, 1]) == ("A", "P", "S", "I")
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    world = grid.to_world(index[0].astype(float))
    picture = world[turned(grid, [1, 2])]  # of the lowest slice, world points for colours
    assert picture[0, 0, 0] > picture[0, -1, 0]  # x grows to the patient's right, which is at the left
    assert picture[0, 0, 1] > picture[-1, 0, 1]  # y to the front, which is at the top


def test_letters_of_a_picture_as_stored_are_those_of_its_axes():
    assert letters(patient(-1.0, -1.0), [1, 2]) == ("R", "L", "A", "P")
    assert letters(patient(1.0, 1.0), [1, 2]) == ("L", "R", "P", "A")


def test_a_slide_has_no_sides():
    assert letters(Grid.from_spacing((8, 30, 36), 1.0), [1, 2]) == ("", "", "", "")


def test_letters_stand_at_the_edges_of_a_patient_alone():
    ids = np.zeros(SIZE, np.int32)
    for grid, there in ((patient(-1.0, -1.0), True), (Grid.from_spacing((8, 30, 36), 1.0), False)):
        picture = drawn(grid, ids)
        for part in (np.s_[140:160, :20], np.s_[140:160, -20:], np.s_[:20, 170:190], np.s_[-20:, 170:190]):
            assert picture[part].any() == there


@pytest.mark.parametrize(("width", "bar"), [(100.0, 20.0), (60.0, 20.0), (59.0, 10.0), (0.16, 0.05), (1e-4, 0.0)])
def test_the_bar_is_round_and_at_most_a_third(width, bar):
    assert bar_for(width) == bar


def test_the_bar_has_its_length():
    picture = drawn(Grid.from_spacing((8, 30, 36), 1.0), np.zeros(SIZE, np.int32), unit=0.25)  # 90 mm wide: 20 mm
    row = (picture[292] == 255).all(axis=-1)
    assert np.flatnonzero(row)[[0, -1]].tolist() == pytest.approx([8, 88], abs=1)
    assert not drawn(Grid.from_spacing((8, 30, 36), None), np.zeros(SIZE, np.int32)).any()  # nobody knows how long


def test_an_id_stands_beside_its_outline_in_its_colour():
    ids = np.zeros(SIZE, np.int32)
    ids[100:140, 60:100] = 27
    picture = drawn(Grid.from_spacing((8, 30, 36), None), ids)
    where = np.argwhere(green(picture))
    assert len(where) > 20
    assert (where.min(0) >= [80, 98]).all() and (where.max(0) <= [104, 130]).all()
    ids[0:40, 330:360] = 123  # in the corner: moved into the picture
    assert green(drawn(Grid.from_spacing((8, 30, 36), None), ids))[:30, 320:].sum() > 20
