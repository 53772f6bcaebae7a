"""Shape and surroundings of cells: closed forms, scikit-image as oracle where it can measure, drawn arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import perimeter_crofton, regionprops

from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.measure import measure
from medseg.measure.cells import cells
from medseg.measure.intensity import statistics
from medseg.measure.neighbours import neighbours
from medseg.ops import crofton
from medseg.spec import MeasureSpec
from medseg.testing import phantoms

CELL = MeasureSpec(kind="cell")


def of(labels, spacing=1.0):
    return Instances.from_labels(labels, Grid.from_spacing(labels.shape, spacing))


def ball(shape, spacing, radii, shift=0.3):
    lines = [(np.arange(n) - (n - 1) / 2 - shift) * s / r for n, s, r in zip(shape, spacing, radii, strict=True)]
    return (sum(g**2 for g in np.meshgrid(*lines, indexing="ij")) <= 1).astype(np.int32)


@given(seed=st.integers(0, 2000))
def test_planes_are_measured_as_scikit_image_does(seed):
    labels = phantoms.blobs((64, 64), 6, 7.0, seed)
    found = of(labels)
    table = cells(found)
    for row, region in zip(table.itertuples(), regionprops(labels), strict=True):
        # scikit-image takes pixels as points; here they are squares, whose own variance is 1/12
        assert row.major_axis_mm**2 == pytest.approx(region.axis_major_length**2 + 16 / 12, rel=1e-6)
        assert row.minor_axis_mm**2 == pytest.approx(region.axis_minor_length**2 + 16 / 12, rel=1e-6)
        assert row.equivalent_diameter_mm == pytest.approx(region.equivalent_diameter_area)
        assert row.feret_max_mm == pytest.approx(region.feret_diameter_max, abs=1.0)
        # a line hits the drawn border only where the array ends behind it
        inner = np.pad(region.image, 1)
        assert row.perimeter_mm == pytest.approx(perimeter_crofton(inner, 4), rel=1e-6)
        assert row.solidity >= region.solidity - 0.05


@pytest.mark.parametrize(("spacing", "radii"), [((1, 1), (30, 30)), ((2, 1), (40, 60)), ((1, 1.5), (60, 25))])
def test_discs_and_ellipses(spacing, radii):
    shape = tuple(int(140 / s) for s in spacing)
    row = cells(of(ball(shape, spacing, radii), spacing)).iloc[0]
    a, b = max(radii), min(radii)
    h = ((a - b) / (a + b)) ** 2
    around = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))  # Ramanujan 1914
    assert row["perimeter_mm"] == pytest.approx(around, rel=0.03)
    assert row["major_axis_mm"] == pytest.approx(2 * a, rel=0.01)
    assert row["minor_axis_mm"] == pytest.approx(2 * b, rel=0.01)
    assert row["feret_max_mm"] == pytest.approx(2 * a, rel=0.03)
    assert row["feret_min_mm"] == pytest.approx(2 * b, rel=0.03)
    assert row["equivalent_diameter_mm"] == pytest.approx(2 * np.sqrt(a * b), rel=0.01)
    assert row["solidity"] > 0.98
    assert np.sqrt(1 - row["eccentricity"] ** 2) == pytest.approx(b / a, abs=0.01)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.2, 1.0, 1.0), (1.0, 1.0, 3.0)])
def test_balls(spacing):
    shape = tuple(int(50 / s) for s in spacing)
    row = cells(of(ball(shape, spacing, (20, 20, 20)), spacing)).iloc[0]
    assert row["surface_mm2"] == pytest.approx(4 * np.pi * 400, rel=0.02)
    assert row["sphericity"] == pytest.approx(1, abs=0.02)
    assert 40 < row["feret_max_mm"] < 40 + max(spacing)
    assert row["middle_axis_mm"] == pytest.approx(40, rel=0.01)
    assert row["solidity"] > 0.93


def test_a_brick_is_what_a_brick_is():
    row = cells(of(np.pad(np.ones((10, 20, 40), np.int32), 2))).iloc[0]
    assert [row[f"{n}_axis_mm"] ** 2 / 20 * 12 for n in ("major", "middle", "minor")] == pytest.approx([1600, 400, 100])


@pytest.mark.parametrize(("start", "stop", "angle"), [((40, 5), (5, 40), 45), ((5, 5), (40, 40), -45)])
def test_orientation_is_that_seen_on_a_screen(start, stop, angle):
    labels = np.zeros((50, 50), np.int32)
    for t in np.linspace(0, 1, 200):
        y, x = (round(a + t * (b - a)) for a, b in zip(start, stop, strict=True))
        labels[y - 1 : y + 2, x - 1 : x + 2] = 1
    assert cells(of(labels))["orientation"][0] == pytest.approx(angle, abs=1)


def test_solidity_counts_the_notch():
    labels = np.zeros((12, 12), np.int32)
    labels[1:11, 1:11] = 1
    labels[1:6, 4:8] = 0
    assert cells(of(labels))["solidity"][0] == pytest.approx(0.8)
    line = np.zeros((3, 9), np.int32)
    line[1, 1:8] = 1
    assert cells(of(line))["solidity"][0] == 1
    line[1, 3] = 0
    assert cells(of(line))["solidity"][0] == pytest.approx(6 / 7)
    assert cells(of(np.ones((1, 1), np.int32)))["solidity"][0] == 1


@given(seed=st.integers(0, 300), factor=st.floats(0.01, 100))
def test_lengths_scale_with_the_voxel(seed, factor):
    labels = phantoms.blobs((40, 40), 4, 6.0, seed)
    one = measure(of(labels), spec=CELL)
    other = measure(of(labels, factor), spec=CELL)
    for name in one.columns:
        if name == "density_per_mm2":
            power = -2
        elif name.endswith("_mm2"):
            power = 2
        else:
            power = 1 if name.endswith("_mm") else 0
        if one[name].dtype.kind == "f":
            assert other[name].to_numpy() == pytest.approx(one[name].to_numpy() * factor**power, rel=1e-9, nan_ok=True)


def test_neighbours_of_a_drawn_field():
    labels = np.zeros((20, 40), np.int32)
    labels[2:18, 2:12], labels[2:18, 12:22], labels[2:18, 30:36] = 1, 2, 3
    table = neighbours(of(labels), nearest=5)
    assert table["touching"].tolist() == [1, 1, 0]
    assert table["contact_mm"].tolist() == pytest.approx([16, 16, 0], rel=0.1)
    assert table["nearest_mm"].tolist() == pytest.approx([10, 10, 16])
    assert table["density_per_mm2"][0] == pytest.approx(2 / (np.pi * 26**2))


def test_one_alone_has_no_neighbour():
    table = neighbours(of(np.ones((4, 4), np.int32)), nearest=5)
    assert table["touching"][0] == 0
    assert np.isnan(table["nearest_mm"][0]) and np.isnan(table["density_per_mm2"][0])


@given(seed=st.integers(0, 300))
def test_what_two_share_is_what_both_lose_when_they_become_one(seed):
    labels = phantoms.blobs((64, 64), 7, 7.0, seed)
    count = int(labels.max())
    total, pairs, shared = crofton.borders(labels, count, np.eye(2))
    outer, _, _ = crofton.borders((labels > 0).astype(np.int32), 1, np.eye(2))
    assert total.sum() - 2 * shared.sum() == pytest.approx(outer[0])
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_nothing_found_has_all_columns():
    empty = measure(of(np.zeros((5, 5), np.int32)), spec=CELL)
    assert list(empty.columns) == list(measure(of(np.ones((5, 5), np.int32)), spec=CELL).columns)
    assert len(empty) == 0


@given(seed=st.integers(0, 1000))
def test_statistics_are_those_of_numpy(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, size=int(rng.integers(1, 6)))
    values = rng.normal(1000, 1, size=int(sizes.sum()))
    found = statistics(values, np.concatenate([[0], np.cumsum(sizes)]))
    for k, part in enumerate(np.split(values, np.cumsum(sizes)[:-1])):
        assert found["mean"][k] == pytest.approx(part.mean())
        assert found["sd"][k] == pytest.approx(part.std(), abs=1e-9)
        assert (found["min"][k], found["max"][k]) == (part.min(), part.max())
        assert [found["p5"][k], found["median"][k], found["p95"][k]] == pytest.approx(np.percentile(part, (5, 50, 95)))
        assert found["sum"][k] == pytest.approx(part.sum())


def test_channels_are_measured_apart_by_name():
    labels = np.zeros((6, 6), np.int32)
    labels[1:3, 1:3], labels[4, 4] = 5, 9
    grid = Grid.from_spacing((6, 6), 0.001)
    red = np.where(labels == 5, 7, np.where(labels == 9, 2, 0))
    image = Image(np.stack([red, 3 * red]).astype(np.uint16), grid, "microscopy", ("red", "green"))
    table = measure(Instances.from_labels(labels, grid), image)
    assert table["intensity_red_mean"].tolist() == [7, 2]
    assert table["intensity_green_sum"].tolist() == [84, 6]
    assert "perimeter_mm" in table


def test_an_image_on_another_grid_is_brought_over_and_said_so():
    labels = np.zeros((8, 8, 8), np.int32)
    labels[2:6, 2:6, 2:6] = 1
    fine = Image(np.full((1, 16, 16, 16), 5, np.int16), Grid.from_spacing((16, 16, 16), 0.5), "CT")
    table = measure(of(labels), fine)
    assert table["hu_mean"][0] == pytest.approx(5)
    assert table.attrs["notes"] == ["the image was interpolated onto the grid of the instances"]
    assert "hu_sum" not in table
