"""Uptake against digital phantoms whose figures follow from their formulas."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medseg.errors import InputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.measure import burden, measure
from medseg.measure.pet import RADIUS, peak, sphere
from medseg.spec import MeasureSpec

SUV = MeasureSpec(values="SUVbw")


def grid_of(shape, spacing, turned=False):
    affine = np.eye(4)
    turn = Rotation.random(random_state=2).as_matrix() if turned else np.eye(3)
    affine[:3, :3] = turn @ np.diag(spacing)
    return Grid(shape, affine, space="patient")


def distances(grid, centre):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    return np.linalg.norm(grid.to_world(index) - grid.to_world(np.array(centre)), axis=1).reshape(grid.shape)


def pictured(values, grid):
    return Image(values[None].astype(np.float32), grid, "PT")


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (3.27, 2.73, 2.73), (5.0, 1.5, 1.5), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("turned", [False, True])
def test_the_ball_holds_one_cubic_centimetre(spacing, turned):
    grid = grid_of((9, 9, 9), spacing, turned)
    ball = sphere(grid)
    assert ball.sum() == pytest.approx(1)
    # a voxel wholly inside weighs its volume in cm3, so the heaviest says how large the ball is
    assert grid.voxel_size / ball.max() == pytest.approx(1000.0, rel=0.01)
    assert ball == pytest.approx(ball[::-1, ::-1, ::-1])


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (3.27, 2.73, 2.73), (2.0, 2.0, 2.0)])
@pytest.mark.parametrize("turned", [False, True])
def test_peak_of_a_gaussian_hill(spacing, turned):
    shape = tuple(int(80 / s) | 1 for s in spacing)
    grid, sigma = grid_of(shape, spacing, turned), 9.0
    far = distances(grid, [n // 2 for n in shape])
    hill = 10 * np.exp(-(far**2) / (2 * sigma**2))
    labels = (hill >= 4.1).astype(np.int32)
    row = measure(Instances.from_labels(labels, grid), pictured(hill, grid), SUV).iloc[0]
    radii = np.linspace(0, RADIUS, 20001)
    mean = np.trapezoid(10 * np.exp(-(radii**2) / (2 * sigma**2)) * radii**2, radii) / (RADIUS**3 / 3)
    # a voxel counts as one value all over, which blurs a hill of this width by 1.4 % at 4 mm
    assert row["suv_peak"] == pytest.approx(mean, rel=0.01 if max(spacing) < 3 else 0.02)
    assert row["suv_max"] == pytest.approx(10)
    # the 41 % region of a hill is a ball
    edge = sigma * np.sqrt(-2 * np.log(0.41))
    assert row["mtv_41pct_ml"] == pytest.approx(4 / 3 * np.pi * edge**3 / 1000, rel=0.03 * max(spacing))
    assert row["tlg_41pct_g"] == pytest.approx(row["mtv_41pct_ml"] * hill[hill >= 4.1].mean(), rel=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.0, 1.0)])
def test_uniform_ball_of_twenty_millimetres(spacing):
    shape = tuple(int(40 / s) for s in spacing)
    grid = grid_of(shape, spacing)
    far = distances(grid, [n / 2 + 0.3 for n in shape])
    values = np.where(far <= 10, 8.0, 1.0)
    labels = (far <= 10).astype(np.int32)
    row = measure(Instances.from_labels(labels, grid), pictured(values, grid), SUV).iloc[0]
    volume = 4 / 3 * np.pi
    assert row["suv_mean"] == row["suv_max"] == row["suv_median"] == 8
    assert row["suv_sd"] == 0
    assert row["suv_peak"] == pytest.approx(8)
    assert row["mtv_ml"] == pytest.approx(volume, rel=0.01)
    assert row["tlg_g"] == pytest.approx(8 * volume, rel=0.01)
    assert row["mtv_suv4_ml"] == row["mtv_41pct_ml"] == row["mtv_ml"]


def test_nothing_found_has_the_columns_of_what_is_found():
    """An MTV of 0 is a result, and the tables of a study have the same columns."""
    grid = Grid.from_spacing((4, 4, 4), 4.0)
    labels = np.zeros((4, 4, 4), np.int32)
    none = measure(Instances.from_labels(labels, grid), pictured(labels, grid), SUV)
    labels[1:3, 1:3, 1:3] = 1
    some = measure(Instances.from_labels(labels, grid), pictured(labels, grid), SUV)
    assert list(none) == list(some) and burden(none)["mtv_ml"] == 0


def test_the_peak_may_reach_out_of_the_lesion_but_its_centre_may_not():
    grid = grid_of((30, 30, 30), (2.0, 2.0, 2.0))
    values = np.ones((30, 30, 30))
    values[15:, :, :] = 9.0  # a hot organ beside the lesion
    mask = np.zeros((30, 30, 30), np.int32)
    mask[13:15, 14:16, 14:16] = 1
    row = measure(Instances.from_labels(mask, grid), pictured(values, grid), SUV).iloc[0]
    assert row["suv_max"] == 1
    assert 1 < row["suv_peak"] < 5


def test_at_the_border_of_the_image_the_ball_is_cut_off():
    grid = grid_of((6, 6, 6), (4.0, 4.0, 4.0))
    labels = np.zeros((6, 6, 6), np.int32)
    labels[0, 0, 0] = 1
    row = measure(Instances.from_labels(labels, grid), pictured(np.full((6, 6, 6), 3.0), grid), SUV).iloc[0]
    assert row["suv_peak"] == pytest.approx(3)


def test_both_ways_to_sum_agree():
    rng, grid = np.random.default_rng(0), grid_of((40, 60, 60), (1.0, 1.0, 1.0))
    values = gaussian_filter(rng.normal(size=grid.shape), 2)
    mask = np.zeros(grid.shape, bool)
    mask[5:35, 5:55, 5:55] = rng.random((30, 50, 50)) > 0.5
    start = np.array([5, 5, 5])
    fast = peak(values, mask[5:35, 5:55, 5:55], start, sphere(grid))
    part = [peak(values, np.ones((1, 1, 1), bool), np.array(p), sphere(grid)) for p in np.argwhere(mask)[::4999]]
    assert fast >= max(part) - 1e-9
    where = np.argwhere(mask)
    slow = max(peak(values, np.ones((1, 1, 1), bool), p, sphere(grid)) for p in where[np.argsort(-values[mask])[:300]])
    assert fast == pytest.approx(slow)


def test_a_picture_that_does_not_say_what_its_values_are_has_no_suv():
    grid = grid_of((5, 5, 5), (4.0, 4.0, 4.0))
    table = measure(Instances.from_labels(np.ones((5, 5, 5), np.int32), grid), pictured(np.ones((5, 5, 5)), grid))
    assert not [c for c in table if c.startswith(("suv", "mtv", "tlg"))]
    assert "intensity_mean" in table
    assert any("SUVbw" in note for note in table.attrs["notes"])


def test_suv_of_a_plane_is_refused():
    grid = Grid.from_spacing((5, 5), 1.0)
    with pytest.raises(InputError, match="3-D"):
        measure(Instances.from_labels(np.ones((5, 5), np.int32), grid), Image(np.ones((1, 5, 5)), grid), SUV)


def test_burden_adds_up():
    grid = grid_of((20, 20, 20), (5.0, 5.0, 5.0))
    labels = np.zeros((20, 20, 20), np.int32)
    labels[2:6, 2:6, 2:6], labels[10:18, 10:18, 10:18] = 1, 2
    table = measure(Instances.from_labels(labels, grid), pictured(np.full(grid.shape, 2.0), grid), SUV)
    total = burden(table)
    assert total["count"] == 2
    assert total["total_volume_ml"] == pytest.approx((64 + 512) * 0.125)
    assert total["largest_ml"] == pytest.approx(64.0)
    assert total["tlg_g"] == pytest.approx(2 * total["mtv_ml"]) == pytest.approx(2 * total["total_volume_ml"])
    assert total["long_axes_mm"] == pytest.approx(table["long_axis_mm"].sum())
    assert burden(table.iloc[:0])["largest_ml"] == 0


def test_suv_of_a_real_scan_follows_its_tags(real_data):
    from medseg import io

    image = io.load(real_data / "lesions" / "sts_raw_petdicom")
    converted = np.asarray(io.suv(image).voxels()[0])
    hot = np.zeros(image.grid.shape, np.int32)
    z, y, x = np.unravel_index(converted.argmax(), converted.shape)
    hot[max(0, z - 2) : z + 3, y - 2 : y + 3, x - 2 : x + 3] = 1
    row = measure(Instances.from_labels(hot, image.grid), image).iloc[0]
    assert row["suv_max"] == converted.max()
    assert row["suv_mean"] < row["suv_peak"] <= row["suv_max"]
    # lean mass and surface only scale it
    assert row["suvlbm_max"] / row["suv_max"] == pytest.approx(row["suvlbm_mean"] / row["suv_mean"])
