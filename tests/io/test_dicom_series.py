"""DICOM series written here, with known truth: order, geometry, rescaling, and every way to be irregular."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid
from pydicom.valuerep import format_number_as_ds
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError, MedsegWarning, MissingError
from medseg.grid import Grid

SECRET = "Doe^Jane"
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def turned(angle=(0, 0, 0)):
    """Row cosines, column cosines, normal (LPS)."""
    return Rotation.from_euler("xyz", angle, degrees=True).as_matrix().T


def dataset(pixels, position, axes=None, number=1, series="1.2.3", **changes):
    axes = turned() if axes is None else axes
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    out.SOPClassUID, out.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    out.PatientName, out.PatientID, out.SeriesDescription = SECRET, SECRET, SECRET
    out.StudyInstanceUID, out.SeriesInstanceUID, out.FrameOfReferenceUID = "1.2", series, "1.2.9"
    out.Modality, out.InstanceNumber = "CT", number
    out.Rows, out.Columns = pixels.shape
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.BitsAllocated = out.BitsStored = 8 * pixels.dtype.itemsize
    out.HighBit, out.PixelRepresentation = out.BitsStored - 1, int(pixels.dtype.kind == "i")
    out.ImageOrientationPatient = [format_number_as_ds(round(float(value), 11) + 0.0) for value in axes[:2].ravel()]
    out.ImagePositionPatient = [format_number_as_ds(round(float(value), 11) + 0.0) for value in position]
    out.PixelSpacing, out.SliceThickness = [0.8, 0.7], 2.5
    out.PixelData = pixels.tobytes()
    for key, value in changes.items():
        if value is None:
            delattr(out, key)
        else:
            setattr(out, key, value)
    return out


def stack(count=5, step=2.5, axes=None, origin=(-10, 20, 30), dtype=np.int16, **changes):
    """Slices in order along the normal, and their pixels."""
    axes = turned() if axes is None else axes
    pixels = np.random.default_rng(0).integers(0, 200, (count, 6, 7)).astype(dtype)
    slices = [dataset(pixels[i], np.array(origin) + i * step * axes[2], axes, i + 1, **changes) for i in range(count)]
    return slices, pixels


def written(folder, slices, seed=1):
    """Write in an order that is not that of the names."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    order = np.random.default_rng(seed).permutation(len(slices))
    for name, i in enumerate(order):
        slices[i].save_as(folder / f"I{name:03d}", enforce_file_format=True)
    return folder


@few
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.integers(2, 6), st.floats(0.4, 7), st.randoms())
def test_oblique_shuffled(tmp_path, angle, count, step, random):
    axes = turned(angle)
    slices, pixels = stack(count, step, axes)
    numbers = list(range(count))
    random.shuffle(numbers)
    for one, number in zip(slices, numbers, strict=True):
        one.InstanceNumber = number
    image = io.load(written(tmp_path / "s", slices))
    last = np.array((-10, 20, 30)) + (count - 1) * step * axes[2]
    truth = Grid.from_dicom(
        pixels.shape, axes[:2].ravel(), (-10, 20, 30), last, pixel_spacing=(0.8, 0.7), frame="1.2.9"
    )
    assert image.grid.matches(truth) and image.grid.frame == "1.2.9" and image.modality == "CT"
    assert not image.array.loaded and (image.voxels()[0] == pixels).all()
    assert dict(image.source.uids) == {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    assert len(image.source.files) == count


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "want"),
    [(1, 0, np.uint16, np.uint16), (1, -1024, np.int16, np.int32), (2, 5, np.uint16, np.int32), (0.5, 1, np.int16, np.float32),
     (1, 0, np.uint8, np.uint8)],
)  # fmt: skip
def test_rescale(tmp_path, slope, intercept, dtype, want):
    slices, pixels = stack(dtype=dtype, RescaleSlope=slope, RescaleIntercept=intercept)
    image = io.load(written(tmp_path / "s", slices))
    assert image.array.dtype == want and (image.voxels()[0] == pixels * float(slope) + intercept).all()


def test_slope_of_each_slice(tmp_path):
    slices, pixels = stack(Modality="PT")
    slopes = [0.37, 12.5, 1.0, 3.25, 0.001]
    for one, slope in zip(slices, slopes, strict=True):
        one.RescaleSlope, one.RescaleIntercept = slope, 0
    image = io.load(written(tmp_path / "s", slices))
    assert image.modality == "PT" and image.array.dtype == np.float32
    assert np.allclose(image.voxels()[0], pixels * np.array(slopes)[:, None, None], rtol=1e-6)


def test_monochrome1_is_inverted_and_noted(tmp_path):
    slices, pixels = stack(dtype=np.uint16, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    image = io.load(written(tmp_path / "s", slices))
    assert (image.voxels()[0] == 4095 - pixels).all() and "MONOCHROME1" in image.source.notes[-1]


def test_compressed(tmp_path):
    slices, pixels = stack()
    for one in slices:
        one.compress(RLELossless, one.pixel_array, encoding_plugin="pydicom", generate_instance_uid=False)
    assert (io.load(written(tmp_path / "s", slices)).voxels()[0] == pixels).all()


def test_jitter_within_tolerance_is_noted(tmp_path):
    slices, pixels = stack()
    slices[2].ImagePositionPatient[2] += 0.04
    image = io.load(written(tmp_path / "s", slices))
    assert "off a regular stack" in image.source.notes[0] and (image.voxels()[0] == pixels).all()


def test_single_slice(tmp_path):
    slices, _ = stack(1)
    slices[0].save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = io.load(tmp_path / "a.dcm")
    assert image.grid.shape == (1, 6, 7) and image.grid.spacing == pytest.approx((2.5, 0.8, 0.7))
    del slices[0].SliceThickness
    with pytest.raises(GeometryError, match="SliceThickness"):
        io.load(written(tmp_path / "s", slices))
    with pytest.raises(InputError, match="labels are a SEG or RTSTRUCT"):
        io.load_labels(tmp_path / "a.dcm")


def test_file_without_preamble(tmp_path):
    slices, pixels = stack(1)
    slices[0].save_as(tmp_path / "with.dcm", enforce_file_format=True)
    content = (tmp_path / "with.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[132:])
    assert (io.load(tmp_path / "a.dcm").voxels()[0] == pixels).all()


def missing(slices):
    return slices[:2] + slices[3:]


def missing_near_the_end(slices):
    return slices[:-2] + slices[-1:]


def duplicate(slices):
    return [*slices, slices[1]]


def tilted(slices):
    for i, one in enumerate(slices):
        one.ImagePositionPatient[1] += 0.6 * i
    return slices


def unequal(slices):
    slices[2].ImagePositionPatient[2] += 0.4
    return slices


def two_series(slices):
    slices[0].SeriesInstanceUID = "1.2.4"
    return slices


def other_orientation(slices):
    slices[3].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return slices


def other_spacing(slices):
    slices[3].PixelSpacing = [0.8, 0.75]
    return slices


def other_size(slices):
    slices[3].Rows = 5
    return slices


def other_frame(slices):
    slices[3].FrameOfReferenceUID = "1.2.10"
    return slices


def without(key):
    def change(slices):
        delattr(slices[2], key)
        return slices

    change.__name__ = f"without_{key}"
    return change


def frames(slices):
    slices[2].NumberOfFrames = 3
    return slices


def mosaic(slices):
    slices[2].ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    return slices


def colour(slices):
    slices[2].PhotometricInterpretation = "HSV"
    return slices


def cut(slices):
    slices[2].PixelData = slices[2].PixelData[:8]
    slices[2].Rows, slices[2].Columns = 6, 7
    for one in slices:
        one.Rows = one.Columns = 400
    return slices


def zero_slope(slices):
    slices[2].RescaleSlope = 0
    return slices


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (missing, GeometryError, r"missing: 5 mm lie between slices 2 and 3 of 5 \(InstanceNumber 2 and 4\)"),
        (missing_near_the_end, GeometryError, "missing: 5 mm lie between slices 4 and 5"),
        (duplicate, GeometryError, "1 of 7 slices repeat the position"),
        (tilted, GeometryError, "sheared by 13.5 degrees"),
        (unequal, GeometryError, "not equally spaced: gaps of 2.1 to 2.9 mm"),
        (two_series, FormatError, "2 DICOM series"),
        (other_orientation, FormatError, "2 DICOM series.* CT 5 x 6 x 7; .* CT 1 x 6 x 7"),
        (other_spacing, GeometryError, "PixelSpacing of 1 of 6"),
        (other_size, FormatError, "2 DICOM series.* CT 5 x 6 x 7; .* CT 1 x 5 x 7"),
        (other_frame, FormatError, "2 DICOM series"),
        (without("ImagePositionPatient"), GeometryError, "InstanceNumber 3 has no ImagePositionPatient"),
        (without("ImageOrientationPatient"), GeometryError, "no ImageOrientationPatient"),
        (without("PixelSpacing"), GeometryError, "no PixelSpacing"),
        (frames, GeometryError, "several frames"),
        (mosaic, FormatError, "mosaic"),
        (colour, InputError, "colour"),
        (cut, FormatError, "truncated"),
        (zero_slope, FormatError, "RescaleSlope of 0"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refused_and_nobody_is_named(tmp_path, change, error, words):
    slices, _ = stack(6)
    folder = tmp_path / "s"
    folder.mkdir()
    for name, one in enumerate(change(slices)):
        one.save_as(folder / f"{SECRET}{name}", enforce_file_format=True)
    with pytest.raises(error, match=words) as caught:
        io.load(folder)
    assert "Doe" not in str(caught.value)


def test_missing_pixels_show_at_once_damaged_ones_on_touch(tmp_path):
    slices, _ = stack()
    del slices[1].PixelData
    with pytest.raises(FormatError, match="has no pixels"):
        io.load(written(tmp_path / "s", slices))
    slices, _ = stack()
    slices[3].compress(RLELossless, slices[3].pixel_array, encoding_plugin="pydicom", generate_instance_uid=False)
    slices[3].PixelData = slices[3].PixelData[:90]
    image = io.load(written(tmp_path / "s", slices))
    with pytest.raises(FormatError, match="slice 4"):
        image.voxels()


def test_a_decoder_that_panics(tmp_path, monkeypatch):
    PanicException = type("PanicException", (BaseException,), {})

    def panic(*_, **__):
        raise PanicException

    image = io.load(written(tmp_path / "s", stack()[0]))
    monkeypatch.setattr("medseg.io.dicom.voxels._native", panic)
    with pytest.raises(FormatError, match="cannot be decoded"):
        image.voxels()


def test_junk_is_passed_over_and_noted(tmp_path):
    slices, pixels = stack(RescaleSlope=1, RescaleIntercept=0)
    folder = written(tmp_path / "s", slices)
    (folder / "Thumbs.db").write_bytes(b"junk" * 90)
    (folder / ".hidden").write_bytes(b"junk" * 90)
    (folder / "inner").mkdir()
    image = io.load(folder)
    assert (image.voxels()[0] == pixels).all()
    assert image.source.notes == ("1 files that are not DICOM were passed over",)
    (folder / "other.dcm").write_bytes(b"x" * 500)
    with pytest.warns(MedsegWarning, match="named like DICOM"):
        io.load(folder)


def test_damaged_header_in_a_folder(tmp_path):
    folder = written(tmp_path / "s", stack()[0])
    whole = (folder / "I000").read_bytes()
    for size in range(133, len(whole) - 1, 7):
        (folder / "I000").write_bytes(whole[:size])
        with pytest.raises(InputError):
            io.load(folder).voxels()


def test_no_slice(tmp_path):
    slices, _ = stack(1, Rows=None, Columns=None, PixelData=None)
    slices[0].save_as(tmp_path / "plan.dcm", enforce_file_format=True)
    with pytest.raises(FormatError, match="no DICOM image"):
        io.load(tmp_path / "plan.dcm")
    with pytest.raises(MissingError, match="no DICOM slice"):
        io.load(tmp_path)
    with pytest.raises(InputError, match="channel_axis"):
        io.load(tmp_path, channel_axis=0)
