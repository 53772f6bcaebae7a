"""What pixels mean: bits, byte order, compression, rescaling, colour."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medseg.testing.corpus import codecs
from medseg.testing.corpus.case import Case, Written, case
from medseg.testing.series import FloatArray, Plane, Truth, put, save, stack

CASES: list[Case] = []
here = partial(case, CASES)

OBLIQUE = (10.0, -20.0, 30.0)
RAW = codecs.RAW


def _filled(planes: list[Plane], stored: npt.NDArray[Any], values: FloatArray) -> list[Plane]:
    for plane, pixels, meant in zip(planes, stored, values, strict=True):
        plane.pixels, plane.values = pixels, meant
    return planes


for _name, _dtype in (
    ("unsigned 8 bit", "uint8"),
    ("signed 8 bit", "int8"),
    ("unsigned 16 bit", "uint16"),
    ("signed 16 bit", "int16"),
    ("unsigned 32 bit", "uint32"),
    ("signed 32 bit", "int32"),
):

    @here(f"{_name}, the whole range")
    def _range(folder: Path, dtype: str = _dtype) -> Written:
        kind = np.iinfo(dtype)
        stored = np.random.default_rng(0).integers(kind.min, kind.max, (6, 5, 7), dtype=dtype, endpoint=True)
        stored[0, 0, :2] = kind.min, kind.max
        return save(folder, _filled(stack(dtype=dtype, **RAW), stored, stored.astype(np.float64)))


@here("12 of 16 bits, garbage in the others")
def _garbage(folder: Path) -> Written:
    stored = np.random.default_rng(0).integers(0, 1 << 16, (6, 5, 7)).astype(np.uint16)
    planes = stack(dtype="uint16", BitsStored=12, HighBit=11, **RAW)
    return save(folder, _filled(planes, stored, (stored & 0xFFF).astype(np.float64)))


@here("12 of 16 bits, signed, the sign not extended")
def _narrow_sign(folder: Path) -> Written:
    meant = np.random.default_rng(0).integers(-2048, 2048, (6, 5, 7)).astype(np.int16)
    planes = stack(BitsStored=12, HighBit=11, **RAW)
    return save(folder, _filled(planes, meant & np.int16(0xFFF), meant.astype(np.float64)))


@here("signed and unsigned slices mixed")
def _mixed(folder: Path) -> Written:
    planes = stack(dtype="uint16")
    for plane in planes[::2]:
        plane.dataset.PixelRepresentation = 1
    planes[1].pixels = np.full((5, 7), 60_000, np.uint16)
    planes[1].values = np.full((5, 7), 60_000.0 - 1024)
    return save(folder, planes)


@here("MONOCHROME1")
def _inverted(folder: Path) -> Written:
    planes = stack(dtype="uint16", PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11, **RAW)
    stored = np.stack([plane.values for plane in planes])
    return save(folder, _filled(planes, stored.astype(np.uint16), 4095 - stored), also=(stored[None],))


@here("padding outside of a circle")
def _padded(folder: Path) -> Written:
    planes = stack(PixelPaddingValue=-2000)
    for plane in planes:
        stored = plane.pixels.copy()
        stored[:2, :2] = -2000
        plane.pixels = stored
        plane.values[:2, :2] = np.nan
    return save(folder, planes)


def _as(folder: Path, syntax: UID, **tags: Any) -> Written:
    planes = stack(angles=OBLIQUE, **tags)
    for plane in planes:
        plane.dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            plane.dataset.PixelData = plane.pixels.byteswap().tobytes()
    return save(folder, planes)


@here("big endian")
def _big(folder: Path) -> Written:
    return _as(folder, ExplicitVRBigEndian)


@here("implicit VR")
def _implicit(folder: Path) -> Written:
    return _as(folder, ImplicitVRLittleEndian)


@here("deflated")
def _deflated(folder: Path) -> Written:
    return _as(folder, DeflatedExplicitVRLittleEndian)


for _name, _syntax, _kind in (
    ("RLE", RLELossless, "int16"),
    ("RLE, 8 bit", RLELossless, "uint8"),
    ("JPEG-LS", JPEGLSLossless, "uint16"),
    ("JPEG-LS, signed", JPEGLSLossless, "int16"),
    ("JPEG 2000", JPEG2000Lossless, "uint16"),
    ("JPEG 2000, signed", JPEG2000Lossless, "int16"),
):

    @here(_name)
    def _compressed(folder: Path, syntax: UID = _syntax, dtype: str = _kind) -> Written:
        planes = stack(angles=OBLIQUE, dtype=dtype, shape=(40, 48))
        for plane in planes:
            plane.dataset.compress(syntax, plane.pixels, generate_instance_uid=False)
        return save(folder, planes)


@here("JPEG Lossless, first-order prediction")
def _lossless(folder: Path) -> Written:
    import imagecodecs

    planes = stack(angles=OBLIQUE, dtype="uint16", shape=(16, 24), BitsStored=12, HighBit=11)
    for plane in planes:
        frame = bytes(imagecodecs.ljpeg_encode(plane.pixels, bitspersample=12))
        plane.dataset.PixelData = encapsulate([frame])
        plane.dataset["PixelData"].is_undefined_length = True
        plane.dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    return save(folder, planes)


@here("a slope for each slice (PET)")
def _pet(folder: Path) -> Written:
    slopes = ("0.37", "12.5", "1", "3.25", "0.001", "65.4321")
    planes = stack(Modality="PT", RescaleIntercept="0", Units="BQML")
    for plane, slope in zip(planes, slopes, strict=True):
        plane.dataset.RescaleSlope = slope
        plane.values = plane.pixels * float(slope)
    return save(folder, planes)


@here("an intercept for each slice")
def _intercepts(folder: Path) -> Written:
    planes = stack()
    for i, plane in enumerate(planes):
        plane.dataset.RescaleIntercept = str(-1024 + i)
        plane.values = plane.values + i
    return save(folder, planes)


@here("a slope that is no whole number")
def _fractional(folder: Path) -> Written:
    return save(folder, stack(RescaleSlope="0.0625", RescaleIntercept="-3.5"))


@here("a slope of 0", "refused", word="slope")
def _flat(folder: Path) -> Written:
    save(folder, stack(RescaleSlope="0"))
    return []


@here("slope without intercept")
def _half(folder: Path) -> Written:
    return save(folder, stack(RescaleIntercept=None, RescaleSlope="2"))


@here("a slope that is no number", "refused", word="slope")
def _wordy(folder: Path) -> Written:
    planes = stack()
    put(planes[2], "RescaleSlope", "one")
    save(folder, planes)
    return []


@here("a whole slope times 32 bits")
def _large(folder: Path) -> Written:
    stored = np.random.default_rng(0).integers(0, 1 << 22, (6, 5, 7)).astype(np.uint32)
    planes = stack(dtype="uint32", RescaleSlope="3", RescaleIntercept="1")
    return save(folder, _filled(planes, stored, stored.astype(np.float64) * 3 + 1))


for _name, _keyword, _bits in (("float", "FloatPixelData", 32), ("double float", "DoubleFloatPixelData", 64)):

    @here(f"{_name} pixel data")
    def _floats(folder: Path, keyword: str = _keyword, bits: int = _bits) -> Written:
        planes = stack(BitsAllocated=bits, BitsStored=None, HighBit=None, PixelRepresentation=None, **RAW)
        for i, plane in enumerate(planes):
            values = np.random.default_rng(i).normal(0, 1e4, (5, 7)).astype(f"<f{bits // 8}")
            del plane.dataset.PixelData
            setattr(plane.dataset, keyword, values.tobytes())
            plane.values = values.astype(np.float64)
        return save(folder, planes)


_COLOUR: dict[str, Any] = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, **RAW}


def _coloured(folder: Path, stored_as: str, close: float = 0.0, **tags: Any) -> Truth:
    planes = stack(dtype="uint8", **(_COLOUR | tags))
    for i, plane in enumerate(planes):
        rgb = np.random.default_rng(i).integers(0, 256, (3, 5, 7)).astype(np.uint8)
        plane.values = rgb.astype(np.float64)
        if stored_as == "ybr":
            rgb = codecs.ybr_full(rgb)
        plane.dataset.PixelData = (rgb if stored_as == "planes" else np.moveaxis(rgb, 0, -1)).tobytes() + b"\0"
    return save(folder, planes, close=close)


@here("RGB")
def _rgb(folder: Path) -> Written:
    return _coloured(folder, "pixels")


@here("RGB in planes")
def _planar(folder: Path) -> Written:
    return _coloured(folder, "planes", PlanarConfiguration=1)


@here("YBR")
def _ybr_full(folder: Path) -> Written:
    return _coloured(folder, "ybr", close=3.0, PhotometricInterpretation="YBR_FULL")


@here("palette colour", "plain", "refused", word="colour|palette")
def _palette(folder: Path) -> Written:
    table = np.random.default_rng(9).integers(0, 256, (3, 256)).astype(np.uint8)
    tags: dict[str, Any] = {}
    for colour, row in zip(("Red", "Green", "Blue"), table, strict=True):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = (row.astype("<u2") * 257).tobytes()
    planes = stack(dtype="uint8", PhotometricInterpretation="PALETTE COLOR", **RAW, **tags)
    wide = []
    for i, plane in enumerate(planes):
        stored = np.random.default_rng(i).integers(0, 256, (5, 7)).astype(np.uint8)
        plane.dataset.PixelData = stored.tobytes() + b"\0"
        plane.values = table[:, stored].astype(np.float64)
        wide.append(plane.values * 257)
    return save(folder, planes, also=(np.stack(wide, axis=1),))


CASES.extend(codecs.CASES)
