"""Compressed pixels that contradict their header or break off, and what a header says about values beside a rescale."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, JPEG2000Lossless, JPEGLosslessSV1, MRImageStorage

from medseg.testing.corpus.case import Case, Written, case
from medseg.testing.series import FloatArray, Plane, save, stack

CASES: list[Case] = []
here = partial(case, CASES)

RAW: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None}
_MR: dict[str, Any] = {"Modality": "MR", "SOPClassUID": MRImageStorage}
_DARK: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
_COLOUR: dict[str, Any] = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, **RAW}


def ybr_full(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """YBR_FULL of PS3.3 C.7.6.3.1.2, of (3, rows, columns)."""
    turn = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    out: npt.NDArray[np.float64] = np.einsum("ij,jyx->iyx", turn, rgb.astype(np.float64))
    shifted: npt.NDArray[np.float64] = np.rint(out + np.array([0, 128, 128])[:, None, None])
    return np.asarray(np.clip(shifted, 0, 255), np.uint8)


def _coded(plane: Plane, frame: bytes, syntax: UID) -> None:
    plane.dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    plane.dataset["PixelData"].is_undefined_length = True
    plane.dataset.file_meta.TransferSyntaxUID = syntax


def _lossless(pixels: npt.NDArray[Any], bits: int = 16) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=bits))


def _item(**fields: Any) -> Sequence:
    out = Dataset()
    for key, value in fields.items():
        setattr(out, key, value)
    return Sequence([out])


for _name, _end in (
    ("JPEG Lossless that breaks off", b""),
    ("JPEG Lossless that breaks off, its end put back", b"\xff\xd9"),
):

    @here(_name, "refused", word="break off")
    def _cut(folder: Path, end: bytes = _end) -> Written:
        planes = stack(dtype="uint16", shape=(32, 40))
        for number, plane in enumerate(planes):
            frame = _lossless(plane.pixels)
            _coded(plane, frame[: len(frame) * 9 // 10] + end if number == 3 else frame, JPEGLosslessSV1)
        save(folder, planes)
        return []


@here("12 bits in a JPEG Lossless of 16")
def _spare(folder: Path) -> Written:
    planes = stack(dtype="uint16", shape=(16, 24), BitsStored=12, HighBit=11)
    for plane in planes:
        _coded(plane, _lossless(plane.pixels), JPEGLosslessSV1)
    return save(folder, planes)


@here("compressed values above BitsStored", "refused", word="bits")
def _above(folder: Path) -> Written:
    import imagecodecs

    planes = stack(dtype="uint16", shape=(40, 48), BitsStored=12, HighBit=11)
    for plane in planes:
        plane.pixels = stored = plane.pixels * 60
        _coded(
            plane,
            bytes(imagecodecs.jpeg2k_encode(stored, level=0, codecformat="j2k", reversible=True)),
            JPEG2000Lossless,
        )
    save(folder, planes)
    return []


def _coloured(folder: Path, named: bool) -> Written:
    """Lossless JPEG of YBR samples whose components have numbers, or are called R, G and B."""
    import imagecodecs

    planes = stack(dtype="uint8", shape=(16, 24), PhotometricInterpretation="YBR_FULL", **_COLOUR)
    for i, plane in enumerate(planes):
        rgb = np.random.default_rng(i).integers(0, 256, (3, 16, 24)).astype(np.uint8)
        samples = np.ascontiguousarray(np.moveaxis(ybr_full(rgb), 0, -1))
        frame = bytes(imagecodecs.jpeg8_encode(samples, lossless=True, colorspace="rgb", outcolorspace="rgb"))
        _coded(plane, frame if named else _numbered(frame), JPEGLosslessSV1)
        plane.values = rgb.astype(np.float64)
    return save(folder, planes, close=3.0)


def _numbered(frame: bytes) -> bytes:
    """Drop the application markers of a JPEG and call its components 1, 2 and 3."""
    out, at = frame[:2], 2
    while frame[at + 1] != 0xDA:
        size = 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        part = bytearray(frame[at : at + size])
        if part[1] == 0xC3:
            part[10::3] = bytes((1, 2, 3))
        out, at = out + (b"" if part[1] >> 4 == 0xE else bytes(part)), at + size
    rest = bytearray(frame[at:])
    rest[5], rest[7], rest[9] = 1, 2, 3
    return out + bytes(rest)


@here("JPEG Lossless of YBR")
def _ybr_lossless(folder: Path) -> Written:
    return _coloured(folder, named=False)


@here("JPEG Lossless of YBR that calls itself RGB", "refused", word="colours")
def _contradiction(folder: Path) -> Written:
    _coloured(folder, named=True)
    return []


@here("big endian, 8 bits in words of 16")
def _pairs(folder: Path) -> Written:
    planes = stack(dtype="uint8", **RAW)
    for plane in planes:
        content = plane.dataset.PixelData
        content += b"\0" * (len(content) % 2)
        plane.dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        plane.dataset.PixelData = np.frombuffer(content, "<u2").byteswap().tobytes()
        plane.dataset["PixelData"].VR = "OW"
    return save(folder, planes)


@here("MONOCHROME1 with a rescale")
def _quantity(folder: Path) -> Written:
    tags: dict[str, Any] = {"RescaleSlope": "2", "RescaleIntercept": "-100", **_MR, **_DARK}
    return save(folder, stack(dtype="uint16", **tags))


@here("MONOCHROME1 with a Modality LUT")
def _looked_up(folder: Path) -> Written:
    planes, entries = stack(dtype="uint16", **_MR, **RAW, **_DARK), (np.arange(1000) ** 2 // 16).astype("<u2")
    for plane in planes:
        table = _item(ModalityLUTType="OD")
        table[0].add_new("LUTDescriptor", "US", [1000, 0, 16])
        table[0].add_new("LUTData", "OW", entries.tobytes())
        plane.dataset.ModalityLUTSequence = table
        looked_up: FloatArray = entries[plane.pixels].astype(np.float64)
        plane.values = looked_up
    return save(folder, planes)


@here("a Real World Value Mapping and no rescale")
def _mapped(folder: Path) -> Written:
    planes = stack(**_MR, **RAW)
    for plane in planes:
        unit = _item(CodeValue="um2/s", CodingSchemeDesignator="UCUM", CodeMeaning="um2/s")
        mapping = _item(RealWorldValueSlope=0.5, RealWorldValueIntercept=-3.0, MeasurementUnitsCodeSequence=unit)
        mapping[0].add_new("RealWorldValueFirstValueMapped", "SS", 0)
        mapping[0].add_new("RealWorldValueLastValueMapped", "SS", 4095)
        plane.dataset.RealWorldValueMappingSequence = mapping
        plane.values = plane.pixels * 0.5 - 3
    return save(folder, planes)


@here("RT dose without a scaling", "refused", word="DoseGridScaling")
def _unscaled(folder: Path) -> Written:
    tags: dict[str, Any] = {"Modality": "RTDOSE", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "DoseUnits": "GY"}
    save(folder, stack(count=1, dtype="uint32", **tags, **RAW))
    return []
