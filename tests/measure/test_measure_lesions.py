"""Axes and volumes of lesions: against brute force, against closed forms, on oblique and uneven grids, and on a real nodule."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation
from skimage.measure import find_contours, label

from medseg import io
from medseg.errors import GeometryError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.measure import in_unit, measure
from medseg.measure.lesions import lesions, plane_of
from medseg.ops import calipers
from medseg.ops.contours import fill
from medseg.spec import MeasureSpec


def oblique(shape, spacing, seed=0, space="patient"):
    """A grid turned any way round."""
    turn = Rotation.random(random_state=seed).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = [-40.0, 12.0, 300.0]
    return Grid(shape, affine, space=space)


def ends(row, name):
    return np.array([[row[f"{name}_{e}_{a}_mm"] for a in "xyz"] for e in "ab"])


def brute_axes(mask, to_plane):
    """Longest axis and longest chord across it, by all pairs of contour points and by very many lines; no hull, no vertices."""
    pieces = label(mask, connectivity=2)
    mask = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
    outlines = find_contours(np.pad(mask, 1).astype(float), 0.5, fully_connected="high")
    points = [(o - 1) @ to_plane.T for o in outlines]
    every = np.concatenate(points)
    far = np.linalg.norm(every[:, None] - every[None], axis=-1)
    a, b = np.unravel_index(far.argmax(), far.shape)
    long = far[a, b]
    along = (every[b] - every[a]) / long
    across = np.array([-along[1], along[0]])
    best = 0.0
    where, height = np.concatenate([o[:-1] @ along for o in points]), np.concatenate([o[:-1] @ across for o in points])
    then, later = np.concatenate([o[1:] @ along for o in points]), np.concatenate([o[1:] @ across for o in points])
    for t in np.linspace((every @ along).min(), (every @ along).max(), 4001):
        cut = (where <= t) != (then <= t)
        if cut.any():
            share = (t - where[cut]) / (then[cut] - where[cut])
            at = height[cut] + share * (later[cut] - height[cut])
            best = max(best, float(np.ptp(at)))
    return long, best


def shape_of(seed):
    """A random blob, often with notches, holes and several pieces."""
    rng = np.random.default_rng(seed)
    size = rng.integers(8, 40, 2)
    field = gaussian_filter(rng.normal(size=size), rng.uniform(0.8, 4))
    mask = field > np.quantile(field, rng.uniform(0.4, 0.9))
    return mask


@pytest.mark.slow
def test_axes_equal_brute_force_on_a_thousand_shapes():
    worst = 0.0
    for seed in range(1000):
        mask, rng = shape_of(seed), np.random.default_rng(seed)
        step = calipers.flat(rng.normal(size=(3, 2)) * 0.3 + [[0.8, 0], [0, 0.8], [0.1, 0.2]])
        found, (long, short) = calipers.axes(mask, step), brute_axes(mask, step)
        worst = max(worst, abs(found.long - long), abs(found.short - short))
    assert worst < 0.1


@pytest.mark.parametrize("seed", range(40))
def test_axes_equal_brute_force(seed):
    mask, rng = shape_of(seed), np.random.default_rng(seed)
    step = calipers.flat(rng.normal(size=(3, 2)) * 0.3 + [[0.8, 0], [0, 0.8], [0.1, 0.2]])
    found, (long, short) = calipers.axes(mask, step), brute_axes(mask, step)
    assert found.long == pytest.approx(long, abs=1e-6)
    # lines between vertices miss the longest chord by what the outline changes over one step
    assert found.short == pytest.approx(short, abs=0.1)
    assert found.short >= short - 1e-6


@given(seed=st.integers(0, 10_000))
def test_ends_are_as_far_apart_as_told_and_at_right_angles(seed):
    mask = shape_of(seed)
    step = calipers.flat(np.random.default_rng(seed).normal(size=(3, 2)) * 0.2 + [[0.9, 0], [0, 0.6], [0, 0]])
    found = calipers.axes(mask, step)
    long, short = (np.diff(e @ step.T, axis=0)[0] for e in (found.long_ends, found.short_ends))
    assert np.linalg.norm(long) == pytest.approx(found.long)
    assert np.linalg.norm(short) == pytest.approx(found.short, abs=1e-9)
    assert long @ short == pytest.approx(0, abs=1e-6 * found.long * max(found.short, 1))


@given(seed=st.integers(0, 10_000))
def test_the_farthest_pair_is_that_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(int(rng.integers(2, 400)), int(rng.integers(2, 4))))
    length, a, b = calipers.farthest(points)
    assert length == pytest.approx(pdist(points).max())
    assert np.linalg.norm(points[a] - points[b]) == pytest.approx(length)


def test_points_on_a_line_have_a_farthest_pair_too():
    points = np.arange(500.0)[:, None] * [1.0, 2.0, 0.0]
    assert calipers.farthest(points) == (pytest.approx(499 * 5**0.5), 0, 499)


def test_one_pixel_measures_a_pixel_across_its_half_level_corners():
    found = calipers.axes(np.ones((1, 1), bool), np.eye(2))
    assert (found.long, found.short) == (1.0, 1.0)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        calipers.boundary(np.zeros((3, 3), bool))


def test_a_disc_of_ten_millimetres_is_longer_than_its_centres_and_shorter_than_its_corners():
    y, x = np.mgrid[:101, :101] - 50
    step = 0.141
    found = calipers.axes((y**2 + x**2) * step**2 <= 25, step * np.eye(2))
    assert 9.86 < found.long < 10.2
    assert found.long - 0.15 < found.short <= found.long


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.8), (0.7, 0.7, 3.0)])
@pytest.mark.parametrize("radii", [(5.0, 5.0, 5.0), (12.0, 8.0, 6.0), (20.0, 10.0, 15.0)])
def test_ellipsoids_on_oblique_grids(spacing, radii):
    shape = tuple(int(50 / s) for s in spacing)
    grid = oblique(shape, spacing, seed=3)
    centre = grid.to_world(np.array([shape]) / 2 + 0.2)[0]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    turn = Rotation.random(random_state=8).as_matrix()
    inside = (((grid.to_world(index) - centre) @ turn / radii) ** 2).sum(1) <= 1
    found = Instances.from_labels(inside.reshape(shape).astype(np.int32), grid)
    row = measure(found).iloc[0]
    assert row["volume_ml"] == pytest.approx(4 / 3 * np.pi * np.prod(radii) / 1000, rel=0.02)
    assert row["diameter_3d_mm"] == pytest.approx(2 * max(radii), abs=max(spacing) + 0.1)
    long, short = ends(row, "long_axis"), ends(row, "short_axis")
    assert np.linalg.norm(np.diff(long, axis=0)) == pytest.approx(row["long_axis_mm"])
    assert np.linalg.norm(np.diff(short, axis=0)) == pytest.approx(row["short_axis_mm"])
    assert row["long_axis_mm"] <= row["diameter_3d_mm"] + 1e-9
    # both lie in the slice that is named, which is normal to the coarsest axis
    axis = grid.axes.index(row["axes_axis"])
    assert grid.spacing[axis] == pytest.approx(max(spacing))
    assert grid.to_index(np.concatenate([long, short]))[:, axis] == pytest.approx(row["axes_slice"])


@pytest.mark.parametrize("radius", [5.0, 8.0, 15.0])
@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (1.0, 0.7, 0.7)])
def test_volumes_of_balls_of_ten_millimetres_and_more_are_right_to_one_percent(radius, spacing):
    shape = tuple(int(36 / s) for s in spacing)
    grid = oblique(shape, spacing)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    volumes = []
    for seed in range(5):
        centre = grid.to_world(np.array(shape) / 2 + np.random.default_rng(seed).uniform(-0.5, 0.5, 3))
        inside = ((grid.to_world(index) - centre) ** 2).sum(1) <= radius**2
        table = measure(Instances.from_labels(inside.reshape(shape).astype(np.int32), grid))
        volumes.append(table["volume_ml"][0] * 1000)
    assert np.mean(volumes) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)


def test_the_largest_area_is_another_slice_than_the_longest_axis():
    labels = np.zeros((2, 20, 20), np.int32)
    labels[0, 5:15, 5:15] = 1
    labels[1, 10, :] = 1
    grid = Grid.from_spacing(labels.shape, (3.0, 1.0, 1.0))
    found = Instances.from_labels(labels, grid)
    assert measure(found)["axes_slice"].tolist() == [1]
    assert measure(found, spec=MeasureSpec(slices="largest"))["axes_slice"].tolist() == [0]


def test_of_several_pieces_in_a_slice_the_largest_is_measured():
    labels = np.zeros((1, 12, 40), np.int32)
    labels[0, 2:9, 3:10] = 1
    labels[0, 4, 30] = 1
    table = measure(Instances.from_labels(labels, Grid.from_spacing(labels.shape, (5.0, 1.0, 1.0))))
    assert table["long_axis_mm"][0] < 10.5
    assert table["diameter_3d_mm"][0] > 27


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((3.0, 1.0, 1.0), (0, "finest")),
        ((1.0, 4.0, 1.0), (1, "finest")),
        ((1.0, 1.0, 1.0), (0, "axial")),
        ((3.0, 5.0, 5.0), (0, "axial")),  # a PET: coronal and sagittal tie, and neither is what a person measures in
    ],
)
def test_the_plane_is_that_of_the_finest_spacings(spacing, expected):
    assert plane_of(Grid.from_nifti((9, 9, 9), np.diag([*spacing[::-1], 1.0])), MeasureSpec(), False) == expected


def test_the_plane_on_a_tie_is_axial_wherever_the_head_points():
    affine = np.eye(4)[:, [2, 0, 1, 3]]  # the first NIfTI axis runs along the body
    assert plane_of(Grid.from_nifti((9, 9, 9), affine), MeasureSpec(), False) == (2, "axial")


def test_slices_of_a_series_win_over_finer_spacings():
    assert plane_of(Grid.from_spacing((9, 9, 9), (0.5, 1.0, 1.0)), MeasureSpec(), True) == (0, "acquisition")


def test_a_plane_can_be_named_where_the_patient_is_known():
    grid = Grid.from_nifti((9, 9, 9), np.diag([1.0, 1.0, 5.0, 1.0]))
    assert plane_of(grid, MeasureSpec(plane="sagittal"), False) == (2, "sagittal")
    with pytest.raises(GeometryError, match="sagittal"):
        plane_of(Grid.from_spacing((9, 9, 9), 1.0), MeasureSpec(plane="sagittal"), False)


def test_measurable_needs_ten_millimetres_and_two_slices():
    labels = np.zeros((4, 30, 30), np.int32)
    labels[0, 2, 2:14], labels[2, 5, 5:10] = 1, 2
    thin = measure(Instances.from_labels(labels, Grid.from_spacing(labels.shape, (2.0, 1.0, 1.0))))
    thick = measure(Instances.from_labels(labels, Grid.from_spacing(labels.shape, (8.0, 1.0, 1.0))))
    assert thin["measurable"].tolist() == [True, False]
    assert thick["measurable"].tolist() == [False, False]


def test_nothing_found_is_a_table_without_rows_and_with_all_columns():
    grid = Grid.from_spacing((4, 5, 6), 1.0)
    empty = measure(Instances.from_labels(np.zeros(grid.shape, np.int32), grid))
    full = measure(Instances.from_labels(np.ones(grid.shape, np.int32), grid))
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)


def test_without_a_spacing_lengths_are_in_pixels():
    labels = np.zeros((9, 9), np.int32)
    labels[2:5, 2:7] = 1
    table = measure(Instances.from_labels(labels, Grid.from_spacing((9, 9), None)))
    assert "long_axis_px" in table and "measurable" not in table
    with pytest.raises(GeometryError, match="spacing"):
        in_unit(table, "um")


def test_columns_change_their_unit_with_their_name():
    labels = np.ones((1, 2, 3), np.int32)
    table = measure(
        Instances.from_labels(labels, Grid.from_spacing(labels.shape, 0.001)), spec=MeasureSpec(kind="cell")
    )
    small = in_unit(table, "um")
    assert small["volume_um3"][0] == pytest.approx(6.0)
    assert small["surface_um2"][0] == pytest.approx(table["surface_mm2"][0] * 1e6)
    assert not [c for c in small if c.endswith(("_mm", "_mm2", "_mm3"))]


@given(seed=st.integers(0, 500), order=st.permutations(range(3)), turn=st.booleans())
def test_axes_of_the_array_do_not_matter(seed, order, turn):
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(6, 14, 17)), 1.5)
    labels = (field > np.quantile(field, 0.8)).astype(np.int32)
    grid = oblique(labels.shape, (4.0, 1.0, 0.8), seed)
    a = Instances.from_labels(labels, grid)
    other = labels.transpose(order)
    b_grid = grid.permute(order)
    if turn:
        other, b_grid = other[::-1], b_grid.flip(0)
    b = Instances.from_labels(other, b_grid)
    first, second = lesions(a, MeasureSpec()).iloc[0], lesions(b, MeasureSpec()).iloc[0]
    for name in ("long_axis_mm", "diameter_3d_mm", "volume_ml"):
        assert first[name] == pytest.approx(second[name])


def readers(folder, grid):
    """What each of the four readers drew on the slices of a series."""
    heights = grid.to_world(np.array([[k, 0, 0] for k in range(grid.shape[0])]))[:, 2]
    for one in json.loads((folder / "annotations_pylidc_4readers.json").read_text()):
        mask = np.zeros(grid.shape, bool)
        for contour in one["contours"]:
            corners = np.array(contour["xy_colrow"])[:, ::-1]
            plane = fill([corners.astype(np.float64)], grid.shape[1:])
            plane[tuple(corners.T)] = True  # the outline itself was drawn on the nodule
            mask[np.argmin(np.abs(heights - contour["z"]))] ^= plane
        yield one["voxels"], Instances.from_labels(mask.astype(np.int32), grid)


def test_the_consensus_of_a_real_nodule_lies_within_what_its_readers_drew(real_data):
    folder = real_data / "lesions" / "lidc_0314"
    image = io.load(folder / "dicom")
    names = ["volume_ml", "long_axis_mm", "short_axis_mm", "diameter_3d_mm"]
    drawn = []
    for voxels, one in readers(folder, image.grid):
        table = measure(one, image)
        assert table["voxels"][0] == pytest.approx(voxels, rel=0.01)
        drawn.append(table[names].iloc[0].to_numpy(np.float64))
    agreed = measure(io.load_labels(folder / "consensus50_mask.nii.gz"), image)
    assert agreed["axes_plane"][0] == "acquisition"
    found = agreed[names].iloc[0].to_numpy(np.float64)
    assert len(drawn) == 4
    assert (found >= np.min(drawn, axis=0) - 0.8).all() and (found <= np.max(drawn, axis=0) + 0.8).all()
    assert -700 < agreed["hu_mean"][0] < 50
