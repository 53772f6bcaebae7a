"""From stored bits to values: widths, masks, padding, tables, floats, colour, frames."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from test_dicom_series import stack, written

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError


def loaded(folder, slices):
    return io.load(written(folder, slices))


def ended(pixels, syntax, vr):
    """Bytes of pixels as PS3.5 has them: big endian turns words round, of two bytes in OW, of one in OB."""
    plain = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    return np.frombuffer(plain, "<u2").byteswap().tobytes() if syntax == "big" and vr == "OW" else plain


@pytest.mark.parametrize(
    ("syntax", "dtype"),
    [
        (syntax, dtype)
        for syntax in ("explicit", "implicit", "big", "deflated")
        for dtype in ("u1", "i1", "u2", "i2", "u4", "i4")
        if syntax != "big" or dtype[1] != "4"  # see below
    ],
)
def test_widths_and_uncompressed_syntaxes(tmp_path, dtype, syntax):
    slices, _ = stack(3, dtype=dtype)
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max, (3, 6, 8), dtype, endpoint=True)
    uid = {"implicit": ImplicitVRLittleEndian, "big": ExplicitVRBigEndian, "deflated": DeflatedExplicitVRLittleEndian}
    folder = tmp_path / "s"
    folder.mkdir()
    for i, one in enumerate(slices):
        one.Columns = 8
        one.PixelData = ended(pixels[i], syntax, "OW")
        one["PixelData"].VR = "OW"
        one.file_meta.TransferSyntaxUID = uid.get(syntax, one.file_meta.TransferSyntaxUID)
        if syntax == "big":
            pydicom.dcmwrite(folder / f"{i}.dcm", one, implicit_vr=False, little_endian=False, force_encoding=True)
        else:
            one.save_as(folder / f"{i}.dcm", enforce_file_format=True)
    image = io.load(folder)
    assert image.array.dtype == np.dtype(dtype) and (image.voxels()[0] == pixels).all()


def big_endian(path, dtype, vr, count=3, shape=(5, 7), **tags):
    """A file of big-endian frames, which may begin in the middle of a word."""
    slices, _ = stack(1, dtype=dtype, Rows=shape[0], Columns=shape[1], NumberOfFrames=count, Modality="RTDOSE", **tags)
    one = slices[0]
    one.GridFrameOffsetVector, one.DoseGridScaling = [str(i) for i in range(count)], "1"
    if count == 1:
        del one.GridFrameOffsetVector
    pixels = np.random.default_rng(0).integers(0, 100, (count, *shape)).astype(dtype)
    one.PixelData = ended(pixels, "big", vr)
    one["PixelData"].VR = vr
    one.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, one, implicit_vr=False, little_endian=False, force_encoding=True)
    return pixels


@pytest.mark.parametrize(("dtype", "vr"), [("u1", "OW"), ("u1", "OB"), ("i1", "OW"), ("u2", "OW")])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_big_endian_words(tmp_path, dtype, vr, count):
    pixels = big_endian(tmp_path / "a.dcm", dtype, vr, count)
    assert (io.load(tmp_path / "a.dcm").voxels()[0] == pixels).all()


def test_big_endian_32_bits_are_taken_whole_and_noted(tmp_path):
    """Readers disagree about 32 bits in words of 16: the one file with a known truth (pydicom's rtdose_expb) has them whole."""
    pixels = big_endian(tmp_path / "a.dcm", "u4", "OW")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.PixelData = pixels.astype(">u4").tobytes()
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    image = io.load(tmp_path / "a.dcm")
    assert (image.voxels()[0] == pixels).all() and any("taken whole" in note for note in image.source.notes)


@pytest.mark.parametrize(("dtype", "vr"), [("u2", "OB"), ("u4", "OB")])
def test_big_endian_pixels_that_can_be_read_in_two_ways(tmp_path, dtype, vr):
    big_endian(tmp_path / "a.dcm", dtype, vr)
    with pytest.raises(FormatError, match="order of the bytes .* in doubt"):
        io.load(tmp_path / "a.dcm").voxels()


@pytest.mark.parametrize(("sign", "dtype"), [(0, np.uint16), (1, np.int16)])
def test_bits_above_the_stored_ones_are_masked(tmp_path, sign, dtype):
    slices, _ = stack(3, dtype=np.uint16, BitsStored=12, HighBit=11, PixelRepresentation=sign)
    low = np.random.default_rng(0).integers(0, 4096, (3, 6, 7))
    for one, values in zip(slices, low, strict=True):
        one.PixelData = (values | 0xB000).astype("<u2").tobytes()
    want = np.where(low >= 2048, low - 4096, low) if sign else low
    image = loaded(tmp_path / "s", slices)
    assert image.array.dtype == dtype and (image.voxels()[0] == want).all()


def test_bits_below_the_stored_ones_are_shifted_out(tmp_path):
    slices, _ = stack(3, dtype=np.uint16, BitsStored=12, HighBit=15)
    values = np.random.default_rng(0).integers(0, 4096, (3, 6, 7))
    for one, part in zip(slices, values, strict=True):
        one.PixelData = (part << 4 | 5).astype("<u2").tobytes()
    assert (loaded(tmp_path / "s", slices).voxels()[0] == values).all()


def test_twelve_bits_rescaled_fit_into_int16(tmp_path):
    slices, pixels = stack(dtype=np.uint16, BitsStored=12, HighBit=11, RescaleSlope=1, RescaleIntercept=-1024)
    image = loaded(tmp_path / "s", slices)
    assert image.array.dtype == np.int16 and (image.voxels()[0] == pixels - 1024.0).all()


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "stored", "want"),
    [
        ("i2", 1, -1024, [-31744, 32767], "i2"),  # -32768 to 31743
        ("i2", 1, -1024, [-31745, 0], "i4"),  # -32769
        ("u2", 1, -1024, [0, 33791], "i2"),  # up to 32767
        ("u2", 1, -1024, [0, 33792], "i4"),
        ("u2", -1, 0, [0, 32768], "i2"),  # down to -32768
        ("u2", -1, 0, [0, 32769], "i4"),
        ("i2", 40000, 0, [0, 0], "i4"),
        ("i2", 1, 40000, [-8000, -7300], "i4"),  # would fit; an intercept like that is nobody's CT
    ],
)
def test_sixteen_bits_rescaled_take_int16_where_the_voxels_fit(tmp_path, dtype, slope, intercept, stored, want):
    slices, _ = stack(5, dtype=dtype, RescaleSlope=slope, RescaleIntercept=intercept)
    pixels = np.full((5, 6, 7), stored[0], dtype)
    pixels[2, 3, 4] = stored[1]
    for one, part in zip(slices, pixels, strict=True):
        one.PixelData = part.tobytes()
    image = loaded(tmp_path / "s", slices)
    assert image.array.dtype == np.int32  # all that the header can promise
    assert (image.voxels()[0] == pixels.astype(np.int64) * slope + intercept).all()
    assert image.array.dtype == image.voxels().dtype == np.dtype(want)


def test_padding_is_kept_and_noted(tmp_path):
    slices, pixels = stack(dtype=np.int16, RescaleSlope=1, RescaleIntercept=-1024)
    for one in slices:
        one.add_new("PixelPaddingValue", "SS", -2000)
        one.PixelData = np.where(np.arange(42).reshape(6, 7) < 9, -2000, one.pixel_array).astype("<i2").tobytes()
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0, :, 0] == -3024).all() and (image.voxels()[0, :, 3:] == pixels[:, 3:] - 1024).all()
    assert "-2000 are padding" in image.source.notes[-1]


def test_padding_of_monochrome1_stays_lowest(tmp_path):
    slices, pixels = stack(dtype=np.uint16, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    for one, values in zip(slices, pixels, strict=True):
        one.add_new("PixelPaddingValue", "US", 63536)  # outside of the stored bits, as one vendor writes it
        values[0] = 63536
        one.PixelData = values.astype("<u2").tobytes()
    voxels = loaded(tmp_path / "s", slices).voxels()[0]
    assert (voxels[:, 0] == 0).all() and (voxels[:, 1:] == 4095 - pixels[:, 1:]).all()


def test_quantities_are_not_inverted(tmp_path):
    tags = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 1, "RescaleIntercept": -1024}
    slices, pixels = stack(dtype=np.int16, **tags)
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == pixels - 1024.0).all() and "not inverted" in image.source.notes[-1]


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_floats(tmp_path, keyword, dtype):
    slices, pixels = stack(3)
    for one, values in zip(slices, pixels, strict=True):
        del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
        one.BitsAllocated = np.dtype(dtype).itemsize * 8
        setattr(one, keyword, (values / 7).astype(dtype).tobytes())
    image = loaded(tmp_path / "s", slices)
    assert image.array.dtype == dtype and (image.voxels()[0] == (pixels / 7).astype(dtype)).all()


def test_32_bits_with_a_slope_keep_their_precision(tmp_path):
    slices, _ = stack(3, dtype=np.uint32, RescaleSlope="0.5", RescaleIntercept="1")
    values = np.random.default_rng(0).integers(1 << 31, 1 << 32, (3, 6, 7))
    for one, part in zip(slices, values, strict=True):
        one.PixelData = part.astype("<u4").tobytes()
    image = loaded(tmp_path / "s", slices)
    assert image.array.dtype == np.float64 and (image.voxels()[0] == values * 0.5 + 1).all()


def test_modality_lut(tmp_path):
    slices, pixels = stack(dtype=np.uint16)
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [150, 20, 16])
    entries = (np.arange(150) ** 2).astype("<u2")
    table.add_new("LUTData", "OW", entries.tobytes())
    table.ModalityLUTType = "US"
    for one in slices:
        one.ModalityLUTSequence = Sequence([table])
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == entries[np.clip(pixels.astype(int) - 20, 0, 149)]).all()
    assert "Modality LUT" in image.source.notes[-1]


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_colour_stack(tmp_path, planar, syntax):
    slices, _ = stack(3, dtype=np.uint8, Rows=48, Columns=64)
    pixels = np.tile(np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3)), (1, 8, 8, 1)).astype(np.uint8)
    for one, values in zip(slices, pixels, strict=True):
        one.PhotometricInterpretation, one.SamplesPerPixel, one.PlanarConfiguration = "RGB", 3, planar
        one.PixelData = (values.transpose(2, 0, 1) if planar else values).tobytes()
        if syntax:
            one.compress(syntax, values, generate_instance_uid=False)
            one.PhotometricInterpretation = "RGB"
    image = loaded(tmp_path / "s", slices)
    assert image.channels == ("red", "green", "blue") and image.grid.shape == (3, 48, 64)
    assert image.array.dtype == np.uint8 and (image.voxels() == pixels.transpose(3, 0, 1, 2)).all()


def flat(**changes):
    tags = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT", "ImagePositionPatient": None}
    return stack(1, **(tags | {"ImageOrientationPatient": None} | changes))


@pytest.mark.parametrize(
    ("changes", "spacing", "word"),
    [
        ({}, (0.8, 0.7), None),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "detector"),
        ({"PixelSpacing": None}, None, "unknown"),
    ],
)
def test_flat_image(tmp_path, changes, spacing, word):
    slices, pixels = flat(**changes)
    image = loaded(tmp_path / "s", slices)
    assert image.grid.shape == (6, 7) and (image.voxels()[0] == pixels[0]).all() and image.grid.space == "stage"
    assert image.grid.known == (spacing is not None) and (spacing is None or image.grid.spacing == spacing)
    assert word is None or any(word in note for note in image.source.notes)


def test_a_clip_and_a_tiled_slide_are_refused(tmp_path):
    slices, pixels = flat(NumberOfFrames=4)
    slices[0].PixelData = pixels[0].tobytes() * 4
    with pytest.raises(GeometryError, match="4 frames .* without a position"):
        loaded(tmp_path / "s", slices)


def test_dose(tmp_path):
    slices, pixels = stack(1, dtype=np.uint32, Modality="RTDOSE", NumberOfFrames=3)
    one = slices[0]
    one.GridFrameOffsetVector, one.DoseGridScaling = ["0", "3", "6"], "1e-4"
    one.PixelData = np.stack([pixels[0] + i for i in range(3)]).astype("<u4").tobytes()
    image = loaded(tmp_path / "s", slices)
    assert image.grid.shape == (3, 6, 7) and image.grid.spacing == pytest.approx((3, 0.8, 0.7))
    assert np.allclose(image.voxels()[0, 2], (pixels[0] + 2) * 1e-4)


@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"])
def test_labels_are_sent_to_load_labels(tmp_path, kind):
    slices, _ = stack(1, SOPClassUID=kind)
    slices[0].save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="load_labels"):
        io.load(tmp_path / "a.dcm")
