"""NIfTI against nibabel: geometry, units, scaling, damage."""

import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nifti_writing import edited, saved
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError, MedsegWarning
from medseg.grid import Grid
from medseg.image import Image

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
angles = st.tuples(*[st.floats(-180, 180)] * 3)
steps = st.tuples(*[st.floats(0.2, 8)] * 3)
places = st.tuples(*[st.floats(-500, 500)] * 3)


def affine_of(angle=(10, 20, 30), step=(1, 2, 3), place=(5, 6, 7), mirror=False):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angle, degrees=True).as_matrix() * step
    if mirror:
        affine[:3, 0] *= -1
    affine[:3, 3] = place
    return affine


def volume(*shape, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@few
@given(angles, steps, places, st.booleans(), st.sampled_from([(1, 0), (0, 1), (2, 2)]))
def test_oblique_affines(tmp_path, angle, step, place, mirror, codes):
    data = volume(3, 4, 5)
    path = saved(tmp_path / "a.nii.gz", data, affine_of(angle, step, place, mirror), *codes)
    truth = nibabel.load(path)
    image = io.load(path)
    assert image.grid.matches(Grid.from_nifti(data.shape, truth.affine))
    assert image.grid.space == "patient" and image.modality == "other"
    assert (image.voxels()[0] == np.asarray(truth.dataobj).T).all()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", ">i2", "uint32", "int64", "float32", ">f4", "float64"]
)
def test_types(tmp_path, dtype, suffix):
    path = saved(tmp_path / f"a{suffix}", volume(3, 4, 5, dtype=dtype), np.eye(4))
    image = io.load(path)
    assert image.array.dtype == np.dtype(dtype).newbyteorder("=") and image.array.dtype.isnative
    assert (image.voxels()[0] == volume(3, 4, 5).T).all()


def test_scale_and_nan_scale(tmp_path):
    path = saved(tmp_path / "a.nii", volume(3, 4, 5), np.eye(4))
    edited(path, scl_slope=0.5, scl_inter=-3)
    image = io.load(path)
    assert image.array.dtype == np.float32 and np.allclose(image.voxels()[0], volume(3, 4, 5).T * 0.5 - 3)
    for slope in (0, np.nan):
        edited(path, scl_slope=slope, scl_inter=7)
        assert io.load(path).array.dtype == np.int16
        assert (io.load(path).voxels()[0] == volume(3, 4, 5).T).all()
    edited(path, scl_slope=2, scl_inter=np.nan)
    with pytest.raises(FormatError, match="scl_inter"):
        io.load(path)
    edited(path, scl_slope=3e38, scl_inter=0)
    with pytest.raises(FormatError, match="scl_slope"):
        io.load(path).voxels()


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1)])
def test_units(tmp_path, unit, factor):
    image = io.load(saved(tmp_path / "a.nii.gz", volume(3, 4, 5), affine_of(), unit=unit))
    assert np.allclose(image.grid.spacing, np.array([3, 2, 1]) * factor)
    assert bool(image.source.notes) == (unit == "unknown")


def test_sform_wins_and_disagreement_is_reported(tmp_path):
    path = saved(tmp_path / "a.nii", volume(3, 4, 5), affine_of(), 1, 1)
    assert not io.load(path).source.notes
    edited(path, qoffset_x=99.0)
    with pytest.warns(MedsegWarning, match="the sform is used"):
        image = io.load(path)
    assert image.grid.matches(Grid.from_nifti((3, 4, 5), affine_of()))
    assert "disagree" in image.source.notes[0]


@few
@given(angles, st.sampled_from([(0, 173, 179), (180, 0, 0), (0, 0, 180), (179.99, 0.1, 0)]), st.booleans())
def test_rounding_of_the_quaternion_is_no_disagreement(tmp_path, angle, half, take):
    data = np.zeros((30, 40, 50), np.uint8)
    path = saved(tmp_path / "a.nii", data, affine_of(half if take else angle), 1, 1)
    assert not io.load(path).source.notes


def test_no_codes(tmp_path):
    path = saved(tmp_path / "a.nii", volume(3, 4, 5), affine_of(), 0, 0)
    image = io.load(path)
    assert image.grid.space == "stage" and image.grid.spacing == pytest.approx((3, 2, 1))
    assert np.allclose(image.grid.to_nifti(), nibabel.load(path).affine)
    assert "no orientation" in image.source.notes[0]


@pytest.mark.parametrize("step", [0, np.nan, -1])
def test_bad_pixdim(tmp_path, step):
    path = saved(tmp_path / "a.nii", volume(3, 4, 5), np.eye(4), 0, 1)
    pixdim = nibabel.load(path).header["pixdim"].copy()
    pixdim[2] = step
    with pytest.raises(GeometryError, match="pixdim"):
        io.load(edited(path, pixdim=pixdim))


def test_singular_sform_and_bad_quaternion(tmp_path):
    path = saved(tmp_path / "a.nii", volume(3, 4, 5), np.eye(4))
    with pytest.raises(GeometryError):
        io.load(edited(path, srow_x=0))
    with pytest.raises(GeometryError, match="quaternion"):
        io.load(edited(path, sform_code=0, qform_code=1, quatern_b=5.0))


@pytest.mark.parametrize("field", ["srow_y", "quatern_c", "qoffset_z", "pixdim"])
def test_numbers_that_are_not_finite(tmp_path, field):
    """Refused, or told of where the other form counts; NumPy's warnings do not leak."""
    path = saved(tmp_path / "a.nii", volume(3, 4, 5), np.eye(4))
    forms = {"sform_code": 1} if field == "srow_y" else {"sform_code": 0, "qform_code": 1}
    with pytest.raises(GeometryError, match="sform|qform|pixdim"):
        io.load(edited(path, **{field: np.float32("inf")}, **forms))
    if field != "srow_y":
        with pytest.warns(MedsegWarning, match="disagree"):
            io.load(edited(path, sform_code=1, qform_code=1))


def test_two_axes(tmp_path):
    image = io.load(saved(tmp_path / "a.nii.gz", volume(4, 5), np.diag([2.0, 3, 1, 1])))
    assert image.grid.shape == (5, 4) and image.grid.spacing == pytest.approx((3, 2))
    sagittal = np.array([[0, 0, 1, 9], [2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1.0]])
    image = io.load(saved(tmp_path / "s.nii.gz", volume(4, 5), sagittal))
    assert image.grid.shape == (1, 5, 4) and image.grid.orientation.endswith("SA")
    assert (image.voxels()[0, 0] == volume(4, 5).T).all()


def test_four_and_five_axes(tmp_path):
    one = saved(tmp_path / "one.nii.gz", volume(3, 4, 5, 1), np.eye(4))
    assert io.load(one).grid.shape == (5, 4, 3)
    four = saved(tmp_path / "four.nii.gz", volume(3, 4, 5, 2), np.eye(4))
    with pytest.raises(InputError, match="holds 2 volumes.*channel_axis=3"):
        io.load(four)
    image = io.load(four, channel_axis=3)
    assert image.channels == ("c0", "c1") and (image.voxels()[1] == volume(3, 4, 5, 2)[..., 1].T).all()
    with pytest.raises(InputError):
        io.load_labels(four)
    with pytest.raises(InputError):
        io.load(one, channel_axis=3)
    with pytest.raises(InputError, match="5 axes"):
        io.load(saved(tmp_path / "five.nii.gz", volume(3, 4, 5, 2, 2), np.eye(4)))


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_voxel_types_refused(tmp_path, dtype):
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), dtype), np.eye(4)), path)
    with pytest.raises(InputError, match="plain numbers"):
        io.load(path)


def test_truncated(tmp_path):
    noise = np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16)
    for suffix in (".nii", ".nii.gz"):
        whole = saved(tmp_path / f"a{suffix}", noise, np.eye(4)).read_bytes()
        for share in (0.005, 0.02, 0.5, 0.999):
            cut = tmp_path / f"cut{suffix}"
            cut.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(FormatError):
                io.load(cut).voxels()
        flipped = bytearray(whole)
        flipped[-6] ^= 255  # the sum at the end of gzip
        cut.write_bytes(bytes(flipped))
    with pytest.raises(FormatError):
        io.load(tmp_path / "cut.nii.gz").voxels()


def test_truncated_plain_is_found_on_loading(tmp_path):
    path = saved(tmp_path / "a.nii", volume(8, 8, 8), np.eye(4))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="truncated"):
        io.load(path)


def test_bomb(tmp_path):
    path = saved(tmp_path / "a.nii", volume(4, 4, 4), np.eye(4))
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(path.read_bytes() + bytes(1 << 24)))
    with pytest.raises(FormatError, match="more voxels than its header"):
        io.load(bomb).voxels()
    edited(path, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    bomb.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(FormatError, match="truncated"):
        io.load(bomb)


def test_not_nifti(tmp_path):
    for name, content, words in (
        ("text.nii.gz", b"hello", "is not a gzip file"),
        ("text.nii", b"hello " * 200, "no NIfTI"),
        ("gz.nii.gz", gzip.compress(b"hello " * 200), "no NIfTI"),
        ("zero.nii.gz", b"", "empty"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=words):
            io.load(tmp_path / name)
    blob = bytearray(saved(tmp_path / "a.nii", volume(3, 4, 5), np.eye(4)).read_bytes())
    blob[344:348] = b"ni1\0"
    (tmp_path / "a.nii").write_bytes(bytes(blob))
    with pytest.raises(FormatError, match="pair"):
        io.load(tmp_path / "a.nii")


@few
@given(angles, steps, places, st.booleans())
def test_what_we_write_nibabel_reads(tmp_path, angle, step, place, mirror):
    affine = affine_of(angle, step, place, mirror)
    grid = Grid.from_nifti((3, 4, 5), affine)
    io.save_image(Image(volume(1, 5, 4, 3), grid), tmp_path / "a.nii.gz")
    truth = nibabel.load(tmp_path / "a.nii.gz")
    assert np.allclose(truth.affine, affine, atol=1e-4) and truth.header.get_xyzt_units()[0] == "mm"
    assert int(truth.header["sform_code"]) == 1
    if int(truth.header["qform_code"]):  # left out near half a turn, where single precision is too coarse
        assert np.allclose(truth.get_qform(), affine, atol=1e-3)
    assert io.load(tmp_path / "a.nii.gz").grid.matches(grid)
    assert (volume(5, 4, 3) == np.asarray(truth.dataobj).T).all()


def test_sheared_micrometre_and_long_grids(tmp_path):
    shear = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    fine = np.diag([1e-4, 1e-4, 1e-4, 1])
    fine[:3, 3] = 123.456789
    for name, affine, size in (
        ("shear", shear, (3, 4, 5)),
        ("fine", fine, (3, 4, 5)),
        ("long", np.eye(4), (40000, 2, 2)),
    ):
        grid = Grid.from_nifti(size, affine)
        io.save_image(Image(volume(1, *size[::-1]), grid), tmp_path / f"{name}.nii.gz")
        image = io.load(tmp_path / f"{name}.nii.gz")
        assert image.grid.matches(grid) and not image.source.notes
        assert nibabel.load(tmp_path / f"{name}.nii.gz").shape == size


def test_channels_round_trip(tmp_path):
    grid = Grid.from_nifti((3, 4, 5), affine_of())
    io.save_image(Image(volume(2, 5, 4, 3), grid), tmp_path / "a.nii.gz")
    assert (io.load(tmp_path / "a.nii.gz", channel_axis=3).voxels() == volume(2, 5, 4, 3)).all()


@pytest.mark.parametrize(("dtype", "want"), [("i2", "f4"), ("u4", "f8"), ("i4", "f8"), ("i8", "f8"), ("f4", "f4")])
def test_a_scale_loses_no_digits(tmp_path, dtype, want):
    values = np.array([0, 1, 100] if dtype == "i2" else [0, (1 << 24) + 1, (1 << 24) + 3], dtype).reshape(1, 1, 3)
    image = nibabel.Nifti1Image(values, np.eye(4), dtype=values.dtype)
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "a.nii")
    edited(tmp_path / "a.nii", scl_slope=2, scl_inter=1)
    stored = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj.get_unscaled())
    found = io.load(tmp_path / "a.nii").voxels()
    assert found.dtype == np.dtype(want)
    assert ((stored.astype(np.float64) * 2 + 1).astype(want) == found[0].T).all()
