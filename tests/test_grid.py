"""Geometry against nibabel, SimpleITK and the DICOM equation, over all axis orientations and oblique rotations."""

import itertools
from dataclasses import FrozenInstanceError, replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import GeometryError
from medseg.grid import Grid

ORIENTATIONS = {
    n: [
        np.eye(n)[:, order] * signs
        for order in itertools.permutations(range(n))
        for signs in itertools.product((1, -1), repeat=n)
    ]
    for n in (2, 3)
}
LPS = np.diag([-1.0, -1.0, 1.0])
settings.register_profile("medseg", deadline=None, max_examples=60)
settings.load_profile("medseg")


def rotation(n: int, angles: tuple[float, float, float]) -> np.ndarray:
    turn = np.eye(n)
    for (a, b), angle in zip(itertools.combinations(range(n), 2), angles, strict=False):
        plane = np.eye(n)
        plane[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = turn @ plane
    return turn


@st.composite
def grids(draw, dims=(2, 3), shear=False):
    """A grid of any axis orientation, turned by any angles, with any spacing from 0.2 um to 10 mm."""
    n = draw(st.sampled_from(dims))
    angles = draw(st.tuples(*[st.sampled_from([0.0, 0.1, -0.4, 1.2]) | st.floats(-3, 3)] * 3))
    linear = rotation(n, angles) @ draw(st.sampled_from(ORIENTATIONS[n]))
    if shear:
        linear = linear @ (np.eye(n) + np.eye(n, k=1) * draw(st.floats(-0.5, 0.5)))
    scale = draw(st.sampled_from([2e-4, 1e-2, 1.0, 3.0]))
    linear = linear * [scale * draw(st.floats(0.5, 3)) for _ in range(n)]
    affine = np.eye(n + 1)
    affine[:n, :n] = linear
    affine[:n, n] = [draw(st.floats(-500, 500)) for _ in range(n)]
    shape = tuple(draw(st.integers(1, 9)) for _ in range(n))
    return Grid(shape, affine, space="patient" if n == 3 else "stage")


def indices(grid: Grid) -> np.ndarray:
    """The index of each voxel, (*shape, n)."""
    return np.moveaxis(np.indices(grid.shape), 0, -1)


def same_place(a: np.ndarray, b: np.ndarray, grid: Grid) -> None:
    tolerance = 1e-6 * min(grid.spacing) + 1e-11 * (1 + np.abs(b).max())
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def outer_box(grid: Grid) -> np.ndarray:
    """World points of the corners of the outermost voxels (edges, not centres)."""
    ends = np.array(list(itertools.product((0, 1), repeat=grid.ndim)))
    return grid.to_world(ends * np.array(grid.shape) - 0.5)


# --- all orientations, one by one -------------------------------------------------------------------------------------


def test_there_are_48_and_8_orientations():
    assert len({m.tobytes() for m in ORIENTATIONS[3]}) == 48
    assert len({m.tobytes() for m in ORIENTATIONS[2]}) == 8


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.2, -0.1, 0.3)])
@pytest.mark.parametrize("number", range(48))
def test_nifti_agrees_with_nibabel_in_every_orientation(number, angles):
    affine = np.eye(4)
    affine[:3, :3] = rotation(3, angles) @ ORIENTATIONS[3][number] @ np.diag([0.7, 0.9, 2.5])
    affine[:3, 3] = 10, -20, 30
    ijk = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    nifti = nib.Nifti1Image(ijk, affine)
    grid = Grid.from_nifti(nifti.shape, affine)
    array = ijk.T
    assert grid.shape == array.shape == (4, 3, 2)
    for i, j, k in np.ndindex(nifti.shape):
        assert array[k, j, i] == ijk[i, j, k]
        np.testing.assert_allclose(grid.to_world([k, j, i]), nib.affines.apply_affine(affine, [i, j, k]), atol=1e-12)
    np.testing.assert_allclose(grid.spacing[::-1], nib.affines.voxel_sizes(affine))
    assert grid.orientation == "".join(nib.aff2axcodes(affine))[::-1]
    np.testing.assert_array_equal(grid.to_nifti(), affine)


@pytest.mark.parametrize("n, number", [(3, i) for i in range(48)] + [(2, i) for i in range(8)])
def test_itk_agrees_with_simpleitk_in_every_orientation(n, number):
    direction = rotation(n, (0.2, -0.1, 0.3)) @ ORIENTATIONS[n][number]
    image = sitk.Image([4, 3, 2][:n], sitk.sitkInt16)
    image.SetSpacing([0.7, 0.9, 2.5][:n])
    image.SetOrigin([10.0, -20.0, 30.0][:n])
    image.SetDirection(direction.ravel().tolist())
    grid = Grid.from_itk(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    assert grid.shape == sitk.GetArrayFromImage(image).shape
    turn = LPS if n == 3 else np.eye(2)
    for index in np.ndindex(grid.shape):
        point = image.TransformContinuousIndexToPhysicalPoint([float(i) for i in index[::-1]])
        np.testing.assert_allclose(grid.to_world(index), turn @ point, atol=1e-10)
    spacing, origin, back = grid.to_itk()
    np.testing.assert_allclose(spacing, image.GetSpacing())
    np.testing.assert_allclose(origin, image.GetOrigin())
    np.testing.assert_allclose(back, image.GetDirection(), atol=1e-12)


@pytest.mark.parametrize("number", range(48))
def test_dicom_agrees_with_the_equation_in_every_orientation(number):
    axes = rotation(3, (0.2, -0.1, 0.3)) @ ORIENTATIONS[3][number]
    row, column, step = axes[:, 0], axes[:, 1], axes[:, 2] * 3.0 + axes[:, 1] * 0.4  # a tilted gantry
    first, pixel_spacing, slices = np.array([-120.0, 40.0, 7.5]), (0.8, 0.6), 4
    grid = Grid.from_dicom((slices, 3, 2), [*row, *column], first, first + 3 * step, pixel_spacing=pixel_spacing)
    for s, r, c in np.ndindex(slices, 3, 2):
        # PS3.3 C.7.6.2.1-1: P = X * di * i + Y * dj * j + S; i counts columns along X, di is the SECOND PixelSpacing.
        lps = row * pixel_spacing[1] * c + column * pixel_spacing[0] * r + (first + s * step)
        np.testing.assert_allclose(grid.to_world([s, r, c]), [-lps[0], -lps[1], lps[2]], atol=1e-10)
    header = grid.to_dicom()
    np.testing.assert_allclose(header["ImagePositionPatient"], [first + s * step for s in range(slices)])
    np.testing.assert_allclose(header["ImageOrientationPatient"], [*row, *column], atol=1e-12)
    np.testing.assert_allclose(header["PixelSpacing"], pixel_spacing)
    assert header["SpacingBetweenSlices"] == pytest.approx(3.0)


# --- properties -------------------------------------------------------------------------------------------------------


@given(grids(shear=True), st.lists(st.floats(-50, 50), min_size=6, max_size=6))
def test_index_to_world_and_back(grid, numbers):
    points = np.array(numbers).reshape(-1, grid.ndim)
    tolerance = 1e-6 + 1e-10 / min(grid.spacing)
    np.testing.assert_allclose(grid.to_index(grid.to_world(points)), points, atol=tolerance)


@given(grids(shear=True), st.data())
def test_crop_keeps_every_voxel_in_place(grid, data):
    start = [data.draw(st.integers(0, size - 1)) for size in grid.shape]
    stop = [data.draw(st.integers(a + 1, size)) for a, size in zip(start, grid.shape, strict=True)]
    region = tuple(map(slice, start, stop))
    cropped = grid.crop(start, stop)
    assert cropped.shape == np.empty(grid.shape)[region].shape
    same_place(cropped.to_world(indices(cropped)), grid.to_world(indices(grid))[region], grid)


@given(grids(shear=True), st.data())
def test_pad_keeps_every_voxel_in_place(grid, data):
    amounts = st.lists(st.integers(0, 3), min_size=grid.ndim, max_size=grid.ndim)
    before, after = data.draw(amounts), data.draw(amounts)
    padded = grid.pad(before, after)
    assert padded.shape == np.pad(np.empty(grid.shape), list(zip(before, after, strict=True))).shape
    region = tuple(slice(a, a + size) for a, size in zip(before, grid.shape, strict=True))
    same_place(padded.to_world(indices(padded))[region], grid.to_world(indices(grid)), grid)
    assert padded.crop(before, np.add(before, grid.shape)).matches(grid)


@given(grids(shear=True), st.data())
def test_permute_and_flip_keep_every_voxel_in_place(grid, data):
    order = data.draw(st.permutations(range(grid.ndim)))
    axes = data.draw(st.lists(st.integers(-grid.ndim, grid.ndim - 1)))
    world = grid.to_world(indices(grid))
    permuted = grid.permute(order)
    same_place(permuted.to_world(indices(permuted)), world.transpose(*order, grid.ndim), grid)
    assert permuted.axes == tuple(grid.axes[axis] for axis in order)
    flipped = grid.flip(*axes)
    turned = np.flip(world, sorted({axis % grid.ndim for axis in axes}))
    same_place(flipped.to_world(indices(flipped)), turned, grid)


@given(grids(shear=True), st.data())
def test_resample_to_keeps_the_outer_box(grid, data):
    shape = tuple(data.draw(st.integers(1, 12)) for _ in grid.shape)
    moved = grid.resample_to(shape)
    assert moved.shape == shape
    same_place(outer_box(moved), outer_box(grid), grid)


@given(grids(shear=True), st.data())
def test_resample_keeps_the_first_edge_and_nearly_the_last(grid, data):
    spacing = [step * data.draw(st.floats(0.2, 20)) for step in grid.spacing]
    moved = grid.resample(spacing)
    np.testing.assert_allclose(moved.spacing, spacing)
    same_place(outer_box(moved)[0], outer_box(grid)[0], grid)
    extent, before = np.multiply(moved.shape, moved.spacing), np.multiply(grid.shape, grid.spacing)
    off = np.abs(extent - before) / spacing
    assert (off[np.array(moved.shape) > 1] <= 0.5 + 1e-9).all()
    assert min(moved.shape) >= 1


def test_resample_to_its_own_spacing_changes_nothing():
    grid = Grid.from_spacing((51, 124, 124), (1.75, 0.8, 0.8), unit="um", origin=(3, 4, 5))
    assert grid.resample(grid.spacing).matches(grid)
    assert grid.resample_to(grid.shape) == grid


def test_resample_by_two_puts_the_first_centre_between_two_voxels():
    grid = Grid.from_spacing((4, 6), 1.0).resample(2.0)
    assert grid.shape == (2, 3)
    assert grid.origin == (0.5, 0.5)


@given(grids())
def test_round_trips(grid):
    back = Grid.from_nifti(grid.shape[::-1], grid.to_nifti())
    assert back == grid
    spacing, origin, direction = grid.to_itk()
    assert Grid.from_itk(grid.shape[::-1], spacing, origin, direction).matches(grid)


@given(grids(dims=(3,)))
def test_dicom_round_trip(grid):
    header = grid.to_dicom()
    back = Grid.from_dicom(
        grid.shape,
        header["ImageOrientationPatient"],
        header["ImagePositionPatient"][0],
        header["ImagePositionPatient"][-1] if grid.shape[0] > 1 else None,
        pixel_spacing=header["PixelSpacing"],
        thickness=header["SpacingBetweenSlices"],
    )
    if grid.shape[0] > 1:
        assert back.matches(grid)
    else:  # which way a single slice's normal points is not in its header
        same_place(back.to_world([0, 1, 1]), grid.to_world([0, 1, 1]), grid)
    assert back.voxel_size == pytest.approx(grid.voxel_size)


@given(grids(shear=True))
def test_orientation_agrees_with_nibabel(grid):
    if grid.ndim == 3:
        assert grid.orientation == "".join(nib.aff2axcodes(grid.to_nifti()))[::-1]
    else:
        assert grid.orientation is None


def test_orientation_where_two_axes_are_nearest_to_the_same_direction():
    generator, shared = np.random.default_rng(0), 0
    for _ in range(300):
        affine = np.eye(4)
        affine[:3, :3] = rotation(3, generator.uniform(-np.pi, np.pi, 3))
        shared += len(set(np.abs(affine[:3, :3]).argmax(axis=0))) < 3
        assert Grid.from_nifti((2, 2, 2), affine).orientation == "".join(nib.aff2axcodes(affine))[::-1]
    assert shared > 5


@given(grids(shear=True))
def test_voxel_size_corners_and_anisotropy(grid):
    edges = np.array([grid.to_world(e) - grid.to_world(np.zeros(grid.ndim)) for e in np.eye(grid.ndim)])
    assert grid.voxel_size == pytest.approx(abs(np.linalg.det(edges)), rel=1e-3)
    assert len(grid.corners()) == 2**grid.ndim
    same_place(grid.corners()[-1], grid.to_world(np.array(grid.shape) - 1), grid)
    assert grid.anisotropy == max(grid.spacing) / min(grid.spacing) >= 1


# --- drawn cases ------------------------------------------------------------------------------------------------------


def test_from_spacing_follows_array_order():
    grid = Grid.from_spacing((2, 3, 4), (5.0, 2.0, 1.0), origin=(10, 20, 30))
    assert grid.to_world([1, 0, 0]).tolist() == [10, 20, 35]
    assert grid.to_world([0, 1, 0]).tolist() == [10, 22, 30]
    assert grid.to_world([0, 0, 1]).tolist() == [11, 20, 30]
    assert (grid.spacing, grid.axes, grid.ndim) == ((5, 2, 1), ("z", "y", "x"), 3)
    assert grid.voxel_size == pytest.approx(10)


def test_micrometres_become_millimetres():
    grid = Grid.from_spacing((2, 3), 0.5, unit="um", origin=(1000, 2000))
    assert grid.spacing == (5e-4, 5e-4)
    assert grid.origin == (1, 2)


def test_unknown_spacing_is_a_state_of_its_own():
    grid = Grid.from_spacing((4, 5))
    assert (grid.unit, grid.known, grid.voxel_size, grid.spacing) == ("px", False, 1, (1, 1))
    assert grid.describe() == "4 x 5 pixels, spacing unknown"
    assert "known" in grid.why_not(Grid.from_spacing((4, 5), 1.0))
    assert not grid.resample_to((2, 5)).known


@pytest.mark.parametrize(
    "shape, spacing, unit, text",
    [
        ((51, 124, 124), (1.75, 0.8, 0.8), "um", "51 x 124 x 124 voxels, 1.75 x 0.8 x 0.8 um"),
        ((40, 256, 256), (5, 0.7, 0.7), "mm", "40 x 256 x 256 voxels, 5 x 0.7 x 0.7 mm"),
        ((64, 32), (10, 10), "um", "64 x 32 pixels, 0.01 x 0.01 mm"),
    ],
)
def test_describe(shape, spacing, unit, text):
    assert Grid.from_spacing(shape, spacing, unit=unit).describe() == text


@pytest.mark.parametrize("scale, over", [(1.0, 1e-3), (5.0, 1e-3), (0.01, 1e-4), (1e-3, 1e-5)])
def test_matches_within_a_micrometre_or_a_hundredth_voxel(scale, over):
    grid = Grid.from_spacing((3, 4, 5), scale)
    for factor, expected in ((0.9, True), (1.1, False)):
        moved = grid.affine.copy()
        moved[0, 3] += over * factor
        assert grid.matches(replace(grid, affine=moved)) is expected


def test_matches_looks_at_the_far_corner_too():
    grid = Grid.from_spacing((3, 4, 500), 1.0)
    stretched = grid.affine.copy()
    stretched[0, 2] *= 1 + 1e-5  # 5e-6 at the origin's neighbour, 5e-3 mm at the far end
    assert "corner" in grid.why_not(replace(grid, affine=stretched))


def test_frames_of_reference():
    plain = Grid.from_spacing((3, 4), 1.0)
    one, two = replace(plain, frame="1.2.3"), replace(plain, frame="1.2.4")
    assert plain.matches(one) and one.matches(plain) and one.matches(one)
    assert one.why_not(two) == "the frames of reference differ"
    assert "shapes" in plain.why_not(Grid.from_spacing((4, 3), 1.0))


def test_equality_hash_and_immutability():
    a, b = Grid.from_spacing((3, 4), 1.0), Grid.from_spacing((3, 4), 1.0, origin=(-0.0, 0.0))
    assert a == b and hash(a) == hash(b) and len({a, b}) == 1
    assert a != Grid.from_spacing((3, 4), 1.0, origin=(1e-9, 0)) and a != "grid"
    with pytest.raises(ValueError, match="read-only"):
        a.affine[0, 0] = 2
    with pytest.raises(FrozenInstanceError):
        a.shape = (1, 1)
    given_affine = np.eye(3)
    grid = Grid((2, 2), given_affine)
    given_affine[0, 0] = 9
    assert grid.affine[0, 0] == 1 and given_affine.flags.writeable


def test_rounded_cosines_keep_the_pixel_spacing():
    grid = Grid.from_dicom(
        (2, 5, 5), [0.7071, 0.7071, 0, -0.7071, 0.7071, 0], [0, 0, 0], [0, 0, 3], pixel_spacing=[0.5, 0.25]
    )
    np.testing.assert_allclose(grid.spacing, (3, 0.5, 0.25), rtol=1e-12)


def test_single_slice_uses_its_thickness():
    grid = Grid.from_dicom((1, 4, 4), [1, 0, 0, 0, 1, 0], [1, 2, 3], pixel_spacing=[1, 1], thickness=5)
    assert grid.spacing == (5, 1, 1)
    assert grid.to_world([1, 0, 0]).tolist() == [-1, -2, 8]
    assert grid.orientation == "SPL"


def test_stage_volumes_are_not_turned():
    grid = Grid.from_itk((4, 3, 2), (1, 1, 1), (5, 6, 7), np.eye(3).ravel(), patient=False)
    assert (grid.origin, grid.space, grid.orientation) == ((5, 6, 7), "stage", None)
    assert grid.to_itk()[1] == (5, 6, 7)


AXIAL = [1, 0, 0, 0, 1, 0]
BAD = {
    "empty axis": lambda: Grid.from_spacing((0, 3)),
    "four axes": lambda: Grid.from_spacing((1, 2, 3, 4)),
    "fractional shape": lambda: Grid.from_spacing((2.5, 3)),
    "nan affine": lambda: Grid((2, 2), np.diag([1, np.nan, 1])),
    "singular": lambda: Grid((2, 2), [[1, 1, 0], [1, 1, 0], [0, 0, 1]]),
    "zero column": lambda: Grid((2, 2), np.diag([1, 0, 1])),
    "last row": lambda: Grid((2, 2), [[1, 0, 0], [0, 1, 0], [0, 1, 1]]),
    "affine size": lambda: Grid((2, 2), np.eye(4)),
    "text": lambda: Grid((2, 2), "affine"),
    "axis names": lambda: Grid((2, 2), np.eye(3), axes=("y", "y")),
    "unit": lambda: Grid((2, 2), np.eye(3), unit="cm"),
    "flat patient": lambda: Grid((2, 2), np.eye(3), space="patient"),
    "spacing count": lambda: Grid.from_spacing((2, 3), (1, 1, 1)),
    "spacing zero": lambda: Grid.from_spacing((2, 3), (1, 0)),
    "spacing negative": lambda: Grid.from_spacing((2, 3), -1),
    "spacing infinite": lambda: Grid.from_spacing((2, 3), np.inf),
    "spacing ragged": lambda: Grid.from_spacing((2, 3), [[1], [1, 2]]),
    "spacing unit": lambda: Grid.from_spacing((2, 3), 1, unit="nm"),
    "crop outside": lambda: Grid.from_spacing((2, 3)).crop((0, 0), (2, 4)),
    "crop empty": lambda: Grid.from_spacing((2, 3)).crop((1, 1), (1, 2)),
    "crop count": lambda: Grid.from_spacing((2, 3)).crop((1,), (2,)),
    "crop fraction": lambda: Grid.from_spacing((2, 3)).crop((0, 0), (1.5, 2)),
    "pad negative": lambda: Grid.from_spacing((2, 3)).pad((-1, 0), (0, 0)),
    "permute twice": lambda: Grid.from_spacing((2, 3)).permute((0, 0)),
    "flip axis": lambda: Grid.from_spacing((2, 3)).flip(2),
    "points": lambda: Grid.from_spacing((2, 3)).to_world([1, 2, 3]),
    "oblique flat nifti": lambda: Grid.from_nifti((2, 3), [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    "not perpendicular": lambda: Grid.from_dicom(
        (2, 3, 3), [1, 0, 0, 0.1, 0.995, 0], [0] * 3, [1] * 3, pixel_spacing=[1, 1]
    ),
    "not unit": lambda: Grid.from_dicom((2, 3, 3), [1, 0, 0, 0, 0.5, 0], [0] * 3, [0, 0, 1], pixel_spacing=[1, 1]),
    "short cosines": lambda: Grid.from_dicom((2, 3, 3), [1, 0, 0], [0] * 3, [0, 0, 1], pixel_spacing=[1, 1]),
    "same positions": lambda: Grid.from_dicom((2, 3, 3), AXIAL, [0] * 3, [0] * 3, pixel_spacing=[1, 1]),
    "in-plane stack": lambda: Grid.from_dicom((2, 3, 3), AXIAL, [0] * 3, [0, 1, 0], pixel_spacing=[1, 1]),
    "no thickness": lambda: Grid.from_dicom((1, 3, 3), AXIAL, [0] * 3, pixel_spacing=[1, 1]),
    "flat dicom": lambda: Grid.from_dicom((3, 3), AXIAL, [0] * 3, pixel_spacing=[1, 1], thickness=1),
    "stage to dicom": lambda: Grid.from_spacing((2, 3, 3), 1).to_dicom(),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_bad_geometry_is_refused(make):
    with pytest.raises(GeometryError) as caught:
        make()
    assert len(str(caught.value)) > 15


def test_shear_is_refused_by_writers_that_cannot_hold_it():
    affine = np.eye(4)
    affine[0, 1] = 0.2
    tilted = Grid((2, 3, 4), affine, space="patient")
    with pytest.raises(GeometryError, match="shear"):
        tilted.to_itk()
    in_plane = np.eye(4)
    in_plane[0, 1] = 0.1
    with pytest.raises(GeometryError, match="perpendicular"):
        Grid((2, 3, 4), in_plane[:, [2, 0, 1, 3]], space="patient").to_dicom()
