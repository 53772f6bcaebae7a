"""NRRD and MetaImage against SimpleITK, both ways."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError, OutputError
from medseg.grid import Grid
from medseg.image import Image

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
angles = st.tuples(*[st.floats(-180, 180)] * 3)


def picture(angle=(10, 20, 30), dtype=np.int16, shape=(5, 4, 3), vector=False):
    image = sitk.GetImageFromArray(np.arange(np.prod(shape)).reshape(shape).astype(dtype), isVector=vector)
    ndim = image.GetDimension()
    image.SetSpacing((0.5, 1.5, 2.5)[:ndim])
    image.SetOrigin((-7.0, 8.0, 9.0)[:ndim])
    if ndim == 3:
        image.SetDirection(Rotation.from_euler("xyz", angle, degrees=True).as_matrix().ravel().tolist())
    return image


def truth_of(image, patient=True):
    return Grid.from_itk(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection(), patient)


@few
@given(angles, st.sampled_from(["nrrd", "mha", "nhdr", "mhd"]), st.booleans())
def test_read(tmp_path, angle, kind, packed):
    image = picture(angle)
    sitk.WriteImage(image, tmp_path / f"a.{kind}", packed)
    got = io.load(tmp_path / f"a.{kind}")
    assert not got.array.loaded
    assert got.grid.matches(truth_of(image)) and got.grid.space == "patient"
    assert (got.voxels()[0] == sitk.GetArrayFromImage(image)).all()


@few
@given(angles, st.sampled_from(["nrrd", "mha"]))
def test_write(tmp_path, angle, kind):
    image = picture(angle)
    io.save_image(Image(sitk.GetArrayFromImage(image)[np.newaxis], truth_of(image)), tmp_path / f"a.{kind}")
    back = sitk.ReadImage(tmp_path / f"a.{kind}")
    assert truth_of(back).matches(truth_of(image))
    assert (sitk.GetArrayFromImage(back) == sitk.GetArrayFromImage(image)).all()
    assert io.load(tmp_path / f"a.{kind}").grid.matches(truth_of(image))


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "uint32", "int32", "int64", "float32", "float64"])
def test_types(tmp_path, dtype, kind):
    sitk.WriteImage(picture(dtype=dtype), tmp_path / f"a.{kind}")
    assert io.load(tmp_path / f"a.{kind}").voxels().dtype == np.dtype(dtype)


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_vectors_are_channels(tmp_path, kind):
    image = picture(shape=(5, 4, 3, 2), vector=True)
    sitk.WriteImage(image, tmp_path / f"a.{kind}")
    got = io.load(tmp_path / f"a.{kind}")
    assert got.channels == ("c0", "c1") and got.grid.shape == (5, 4, 3)
    assert (got.voxels() == np.moveaxis(sitk.GetArrayFromImage(image), -1, 0)).all()
    with pytest.raises(OutputError, match="channels"):
        io.save_image(got, tmp_path / f"b.{kind}")


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_two_axes_stage_and_unknown(tmp_path, kind):
    sitk.WriteImage(picture(shape=(5, 4)), tmp_path / f"a.{kind}")
    assert io.load(tmp_path / f"a.{kind}").grid.matches(truth_of(picture(shape=(5, 4)), False))
    for grid in (
        Grid.from_spacing((5, 4, 3), (2, 1, 1), origin=(1, 2, 3)), Grid.from_spacing((5, 4, 3)),
        Grid.from_spacing((5, 4), 0.5, unit="um"), Grid.from_spacing((5, 4)),
    ):  # fmt: skip
        io.save_image(Image(np.ones((1, *grid.shape), np.uint8), grid), tmp_path / f"b.{kind}")
        back = io.load(tmp_path / f"b.{kind}")
        assert back.grid.why_not(grid) is None
        assert (sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"b.{kind}")) == 1).all()


def test_nrrd_spaces_and_units(tmp_path):
    text = "NRRD0004\ntype: uint8\ndimension: 3\n{}\nsizes: 2 2 2\nencoding: raw\nendian: little\n\n"
    path = tmp_path / "a.nrrd"
    directions = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (1,2,3)"
    path.write_bytes(text.format("space: right-anterior-superior\n" + directions).encode() + bytes(8))
    assert io.load(path).grid.origin == pytest.approx((1, 2, 3)) and io.load(path).grid.orientation == "SAR"
    path.write_bytes(text.format("space dimension: 3\n" + directions).encode() + bytes(8))
    assert io.load(path).grid.space == "stage" and io.load(path).grid.spacing == pytest.approx((4, 3, 2))
    unit = '\nspace units: "um" "um" "um"'
    path.write_bytes(text.format("space dimension: 3\n" + directions + unit).encode() + bytes(8))
    assert io.load(path).grid.spacing == pytest.approx((4e-3, 3e-3, 2e-3)) and io.load(path).source.notes
    path.write_bytes(
        text.format("space dimension: 3\n" + directions + unit.replace("um", "furlong")).encode() + bytes(8)
    )
    with pytest.raises(GeometryError, match="unit"):
        io.load(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_truncated(tmp_path, kind, packed):
    noise = np.random.default_rng(0).integers(0, 9000, (8, 20, 20)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), tmp_path / f"a.{kind}", packed)
    whole = (tmp_path / f"a.{kind}").read_bytes()
    for size in (4, 60, 200, len(whole) // 2, len(whole) - 9):
        (tmp_path / f"a.{kind}").write_bytes(whole[:size])
        with pytest.raises(FormatError):
            io.load(tmp_path / f"a.{kind}").voxels()


def test_refused(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"hello " * 30)
    (tmp_path / "a.mha").write_bytes(b"hello " * 30)
    for kind in ("nrrd", "mha"):
        with pytest.raises(FormatError):
            io.load(tmp_path / f"a.{kind}")
    sitk.WriteImage(picture(), tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(FormatError, match="data file that is not there"):
        io.load(tmp_path / "a.mhd")
    sitk.WriteImage(sitk.Cast(picture(), sitk.sitkComplexFloat32), tmp_path / "c.nrrd")
    with pytest.raises(InputError):
        io.load(tmp_path / "c.nrrd")
    four = sitk.Image([2, 2, 2, 2], sitk.sitkUInt8)
    sitk.WriteImage(four, tmp_path / "four.nrrd")
    with pytest.raises(InputError, match="4 axes"):
        io.load(tmp_path / "four.nrrd")
    sitk.WriteImage(picture(), tmp_path / "x.nrrd")
    with pytest.raises(InputError, match="channel_axis"):
        io.load(tmp_path / "x.nrrd", channel_axis=0)
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(GeometryError, match="sheared"):
        io.save_image(Image(np.ones((1, 4, 4, 4), np.uint8), Grid.from_nifti((4, 4, 4), sheared)), tmp_path / "s.mha")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (("endian: little\n", ""), FormatError, "endian"),
        (("encoding", "axis mins: 0 0 0\nencoding"), GeometryError, "minima"),
        (("encoding", "old max: 3.5\nencoding"), InputError, "other values"),
    ],
)
def test_nrrd_fields_that_would_have_to_be_guessed(tmp_path, change, kind, words):
    io.save_image(Image.from_array(np.arange(24, dtype=np.int16).reshape(2, 3, 4), 1.0), tmp_path / "a.nrrd")
    content = (tmp_path / "a.nrrd").read_bytes()
    assert change[0].encode() in content
    (tmp_path / "b.nrrd").write_bytes(content.replace(change[0].encode(), change[1].encode(), 1))
    with pytest.raises(kind, match=words):
        io.load(tmp_path / "b.nrrd")


def test_nrrd_without_an_origin_says_so(tmp_path):
    io.save_image(Image.from_array(np.zeros((2, 3, 4), np.uint8), 1.0), tmp_path / "a.nrrd")
    lines = (tmp_path / "a.nrrd").read_bytes().split(b"\n")
    kept = [line for line in lines if not line.startswith(b"space origin")]
    assert len(kept) == len(lines) - 1
    (tmp_path / "b.nrrd").write_bytes(b"\n".join(kept))
    assert not io.load(tmp_path / "a.nrrd").source.notes
    assert "no origin" in io.load(tmp_path / "b.nrrd").source.notes[-1]


def test_metaimage_that_states_a_rescale(tmp_path):
    io.save_image(Image.from_array(np.zeros((2, 3, 4), np.uint8), 1.0), tmp_path / "a.mha")
    content = (tmp_path / "a.mha").read_bytes()
    for slope, wanted in ((b"1", None), (b"2", InputError)):
        line = b"ElementToIntensityFunctionSlope = " + slope + b"\nElementType"
        (tmp_path / "b.mha").write_bytes(content.replace(b"ElementType", line, 1))
        if wanted:
            with pytest.raises(wanted, match="other values"):
                io.load(tmp_path / "b.mha")
        else:
            assert io.load(tmp_path / "b.mha").grid.shape == (2, 3, 4)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "sub/../../secret.raw"])
def test_data_files_stay_in_the_folder_of_their_header(tmp_path, name):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    text = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 3 2\nencoding: raw\ndata file: {name}\n\n"
    (folder / "a.nhdr").write_text(text)
    (folder / "a.mhd").write_text(f"NDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\nElementDataFile = {name}\n")
    for ending in ("nhdr", "mhd"):
        with pytest.raises(FormatError, match="outside its own folder"):
            io.load(folder / f"a.{ending}")
