"""Compressed frames: whole or refused, and in agreement with their header about bits, signs and colours."""

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from test_dicom_series import stack, written

from medseg import io
from medseg.errors import FormatError

EOI = b"\xff\xd9"
Y, X = np.mgrid[:48, :64]
TEXTURE = ((np.sin(X / 9) + np.cos(Y / 7)) * 500 + 1100 + np.random.default_rng(0).integers(0, 30, X.shape)).astype(
    "u2"
)
COLOURS = np.stack([X * 3 % 256, Y * 5 % 256, (X + Y) % 256], -1).astype("u1")


def encoded(syntax, pixels):
    if syntax == RLELossless:
        slices, _ = stack(1, dtype=pixels.dtype.type, Rows=pixels.shape[0], Columns=pixels.shape[1])
        slices[0].compress(RLELossless, pixels, generate_instance_uid=False)
        return get_frame(slices[0].PixelData, 0, number_of_frames=1)
    encoders = {
        JPEGBaseline8Bit: lambda a: imagecodecs.jpeg8_encode(a, level=95),
        JPEGExtended12Bit: lambda a: imagecodecs.jpeg8_encode(a, level=98, bitspersample=12),
        JPEGLosslessSV1: lambda a: imagecodecs.ljpeg_encode(a, bitspersample=8 * a.dtype.itemsize),
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", reversible=True),
        HTJ2KLossless: imagecodecs.htj2k_encode,
    }
    return bytes(encoders[syntax](pixels))


def saved(folder, frame, syntax, pixels, bits=None, **tags):
    """One slice of a frame that was compressed elsewhere."""
    bits = bits or 8 * pixels.dtype.itemsize
    tags = {"BitsStored": bits, "HighBit": bits - 1, "Rows": pixels.shape[0], "Columns": pixels.shape[1]} | tags
    slices, _ = stack(1, dtype=pixels.dtype.type, **tags)
    one = slices[0]
    one.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    one["PixelData"].is_undefined_length = True
    one.file_meta.TransferSyntaxUID = syntax
    return written(folder, slices)


def read(*args, **tags):
    return io.load(saved(*args, **tags)).voxels()[:, 0]


# ---- whole

KINDS = [
    (JPEGBaseline8Bit, 8, 12), (JPEGExtended12Bit, 12, 12), (JPEGLosslessSV1, 16, 0), (JPEGLSLossless, 16, 0),
    (JPEG2000Lossless, 16, 0), (HTJ2KLossless, 16, 0), (RLELossless, 16, 0),
]  # fmt: skip


def textured(syntax, bits):
    pixels = (TEXTURE // 16).astype("u1") if bits == 8 else TEXTURE
    return pixels, encoded(syntax, pixels)


@pytest.mark.parametrize(("syntax", "bits", "lossy"), KINDS)
@pytest.mark.parametrize("padding", [b"", b"\0\0\0", b"\xff\xff"])
def test_a_whole_frame_with_padding(tmp_path, syntax, bits, lossy, padding):
    pixels, frame = textured(syntax, bits)
    found = read(tmp_path / "s", frame + padding, syntax, pixels, bits)
    assert np.abs(found[0].astype(int) - pixels).max() <= lossy


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("end", [b"", EOI], ids=["open", "closed"])
@pytest.mark.parametrize(("syntax", "bits", "lossy"), KINDS)
def test_a_frame_that_breaks_off(tmp_path, syntax, bits, lossy, end, share):
    pixels, frame = textured(syntax, bits)
    with pytest.raises(
        FormatError, match=r"slice 1 cannot be decoded: (the compressed data break off|they are missing)"
    ):
        read(tmp_path / "s", frame[: int(len(frame) * share)] + end, syntax, pixels, bits)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGExtended12Bit, JPEGBaseline8Bit])
@pytest.mark.parametrize("lost", [1, 2, 5])
def test_the_last_bytes_are_lost_and_the_end_is_put_back(tmp_path, syntax, lost):
    pixels, frame = textured(syntax, 8 if syntax == JPEGBaseline8Bit else 12)
    with pytest.raises(FormatError, match="break off"):
        read(tmp_path / "s", frame[: -2 - lost] + EOI, syntax, pixels, 8 if syntax == JPEGBaseline8Bit else 16)


def test_fill_bytes_before_the_end(tmp_path):
    pixels, frame = textured(JPEGBaseline8Bit, 8)
    whole = read(tmp_path / "s", frame, JPEGBaseline8Bit, pixels)
    assert (read(tmp_path / "s", frame[:-2] + b"\xff\xff" + EOI, JPEGBaseline8Bit, pixels) == whole).all()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless])
def test_two_images_where_the_header_promises_one(tmp_path, syntax):
    frame = encoded(syntax, TEXTURE)
    with pytest.raises(FormatError, match="several images"):
        read(tmp_path / "s", frame + frame, syntax, TEXTURE)


def test_another_kind_than_the_transfer_syntax_says(tmp_path):
    with pytest.raises(FormatError, match="not the JPEG"):
        read(tmp_path / "s", encoded(JPEG2000Lossless, TEXTURE), JPEGLosslessSV1, TEXTURE)


# ---- bits and signs

LOSSLESS = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_more_bits_than_the_header_says(tmp_path, syntax):
    """A frame of 16 bits under BitsStored 12: fine if the values fit, refused instead of wrapped if not."""
    pixels = TEXTURE.copy()
    pixels[0, 0] = 4095
    assert (read(tmp_path / "s", encoded(syntax, pixels), syntax, pixels, 12)[0] == pixels).all()
    pixels[0, 0] = 4096
    with pytest.raises(FormatError, match="more than the 12 bits"):
        read(tmp_path / "s", encoded(syntax, pixels), syntax, pixels, 12)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("value", "fits"), [(-2048, True), (2047, True), (-2049, False), (3000, False)])
def test_more_bits_than_the_header_says_signed(tmp_path, syntax, value, fits):
    pixels = TEXTURE.astype("i2") - 1200
    pixels[0, 0] = value
    frame = encoded(syntax, pixels.view("u2"))
    if fits:
        assert (read(tmp_path / "s", frame, syntax, pixels, 12)[0] == pixels).all()
    else:
        with pytest.raises(FormatError, match="more than the 12 bits"):
            read(tmp_path / "s", frame, syntax, pixels, 12)


def test_padding_may_lie_outside_of_the_bits(tmp_path):
    pixels = TEXTURE.copy()
    pixels[:4] = 63536
    found = read(tmp_path / "s", encoded(JPEGLosslessSV1, pixels), JPEGLosslessSV1, pixels, 12, PixelPaddingValue=63536)
    assert (found[0, :4] == 0).all() and (found[0, 4:] == pixels[4:]).all()


def test_fewer_bits_than_the_header_says(tmp_path):
    """12 bits in the frame, 16 in the header, signed: what is negative for one is positive for another."""
    frame = bytes(imagecodecs.ljpeg_encode(TEXTURE, bitspersample=12))
    low = np.minimum(TEXTURE, 2047)
    fits = bytes(imagecodecs.ljpeg_encode(low, bitspersample=12))
    assert (read(tmp_path / "s", frame, JPEGLosslessSV1, TEXTURE)[0] == TEXTURE).all()
    assert (read(tmp_path / "s", fits, JPEGLosslessSV1, low.astype("i2"))[0] == low).all()
    with pytest.raises(FormatError, match="sign is in doubt"):
        read(tmp_path / "s", frame, JPEGLosslessSV1, TEXTURE.astype("i2"))


# ---- colours


def unmarked(frame):
    """A JPEG without application markers, its components called 1, 2 and 3."""
    out, at = frame[:2], 2
    while frame[at + 1] != 0xDA:
        size = 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        part = bytearray(frame[at : at + size])
        if part[1] in (0xC0, 0xC1, 0xC3):
            part[10::3] = bytes((1, 2, 3))
        out, at = out + (b"" if part[1] >> 4 == 0xE else bytes(part)), at + size
    rest = bytearray(frame[at:])
    rest[5], rest[7], rest[9] = 1, 2, 3
    return out + bytes(rest)


def ybr(rgb):
    """YBR_FULL of PS3.3 C.7.6.3.1.2."""
    turn = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip(np.rint(rgb @ turn.T + [0, 128, 128]), 0, 255).astype("u1")


def coloured(folder, frame, syntax, photometric):
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric, "PlanarConfiguration": 0}
    return np.moveaxis(read(folder, frame, syntax, COLOURS[..., 0], **tags), 0, -1).astype(int)


def lossless(samples):
    return bytes(imagecodecs.jpeg8_encode(samples, lossless=True, colorspace="rgb", outcolorspace="rgb"))


JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"  # and the transform: 0 none, 1 YCbCr


def after_start(frame, part):
    return frame[:2] + part + frame[2:]


@pytest.mark.parametrize("mark", [b"", JFIF, ADOBE + b"\1"], ids=["unmarked", "JFIF", "Adobe"])
def test_lossless_jpeg_of_ybr(tmp_path, mark):
    frame = after_start(unmarked(lossless(ybr(COLOURS))), mark)
    assert np.abs(coloured(tmp_path / "s", frame, JPEGLosslessSV1, "YBR_FULL") - COLOURS).max() <= 3


@pytest.mark.parametrize("mark", [b"", ADOBE + b"\0"], ids=["unmarked", "Adobe"])
def test_lossless_jpeg_of_rgb(tmp_path, mark):
    frame = after_start(unmarked(lossless(COLOURS)), mark)
    assert (coloured(tmp_path / "s", frame, JPEGLosslessSV1, "RGB") == COLOURS).all()
    assert (coloured(tmp_path / "s", lossless(COLOURS), JPEGLosslessSV1, "RGB") == COLOURS).all()


@pytest.mark.parametrize(
    ("frame", "photometric"),
    [
        (lossless(ybr(COLOURS)), "YBR_FULL"),  # its components are called R, G, B
        (after_start(unmarked(lossless(COLOURS)), ADOBE + b"\0"), "YBR_FULL"),
        (after_start(unmarked(lossless(COLOURS)), JFIF), "RGB"),
    ],
)
def test_lossless_jpeg_that_contradicts_its_header(tmp_path, frame, photometric):
    with pytest.raises(FormatError, match="contradict each other about the kind of colours"):
        coloured(tmp_path / "s", frame, JPEGLosslessSV1, photometric)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("mark", [JFIF, ADOBE + b"\1"], ids=["JFIF", "Adobe"])
def test_baseline_jpeg_is_what_its_marker_says(tmp_path, photometric, mark):
    frame = after_start(unmarked(bytes(imagecodecs.jpeg8_encode(COLOURS, level=100))), mark)
    assert np.abs(coloured(tmp_path / "s", frame, JPEGBaseline8Bit, photometric) - COLOURS).max() <= 8
    rgb = bytes(imagecodecs.jpeg8_encode(COLOURS, level=100, colorspace="rgb", outcolorspace="rgb"))
    assert np.abs(coloured(tmp_path / "s", rgb, JPEGBaseline8Bit, photometric) - COLOURS).max() <= 3


def test_baseline_jpeg_without_a_marker_is_what_its_header_says(tmp_path):
    frame = unmarked(bytes(imagecodecs.jpeg8_encode(COLOURS, level=100)))
    assert np.abs(coloured(tmp_path / "s", frame, JPEGBaseline8Bit, "YBR_FULL_422") - COLOURS).max() <= 8


@pytest.mark.parametrize(
    ("turned", "photometric", "right"),
    [
        (True, "YBR_RCT", True), (True, "RGB", True), (False, "RGB", True), (True, "YBR_FULL", False),
        (True, "YBR_FULL_422", False), (False, "YBR_RCT", False),
    ],
)  # fmt: skip
def test_colour_transform_of_jpeg_2000(tmp_path, turned, photometric, right):
    frame = bytes(imagecodecs.jpeg2k_encode(COLOURS, level=0, codecformat="j2k", reversible=True, mct=turned))
    if right:
        assert (coloured(tmp_path / "s", frame, JPEG2000Lossless, photometric) == COLOURS).all()
    else:
        with pytest.raises(FormatError, match="contradict each other about the transform"):
            coloured(tmp_path / "s", frame, JPEG2000Lossless, photometric)


def test_jpeg_2000_of_ybr_without_a_transform(tmp_path):
    frame = bytes(imagecodecs.jpeg2k_encode(ybr(COLOURS), level=0, codecformat="j2k", reversible=True, mct=False))
    assert np.abs(coloured(tmp_path / "s", frame, JPEG2000Lossless, "YBR_FULL") - COLOURS).max() <= 3
