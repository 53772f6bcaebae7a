"""What a plane of a DICOM image is, what tells planes apart, and images that have no place in space."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import RLELossless

from medseg.errors import FormatError, GeometryError, InputError, MedsegError
from medseg.grid import Grid
from medseg.io.common import OFF
from medseg.io.dicom.headers import PRIVATE_B, Header
from medseg.io.dicom.pixels import header_number
from medseg.io.dicom.stack import Slice, floats

# What may tell slices at one position apart, best first. Times come late: each slice may have its own.
MARKS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoTime", "EchoNumbers", "DiffusionBValue",
    *PRIVATE_B.values(), "DiffusionGradientOrientation", "KVP", "InversionTime", "FlipAngle", "ImageType",
    "ConvolutionKernel", "AcquisitionNumber", "StackID", "NominalPercentageOfCardiacPhase",
    "NominalPercentageOfRespiratoryPhase", "ContrastBolusAgent", "TriggerTime", "AcquisitionDateTime",
    "AcquisitionTime", "ContentTime",
)  # fmt: skip
TIMES = ("TriggerTime", "AcquisitionDateTime", "AcquisitionTime", "ContentTime")
_DETECTOR = "pixel spacing is that at the detector: sizes in the body are smaller"
_CM, _TWO_D = 3, 1  # PhysicalUnits and RegionSpatialFormat of ultrasound
_ITEM, _STARTS = b"\xfe\xff\x00\xe0", (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")
_ROOT = "1.2.840.10008.5.1.4.1.1."
_TOMOGRAPHIC = frozenset(
    _ROOT + end for end in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "128", "128.1", "130", "481.2")
)
_OTHERS = {
    "66.4": "a DICOM segmentation; read it with medseg.io.load_labels",
    "66.7": "a DICOM segmentation; read it with medseg.io.load_labels",
    "66.5": "a surface segmentation, which is not read",
    "481.3": "an RT structure set; read it with medseg.io.load_labels",
    "481.5": "an RT plan, which holds no image",
    "481.8": "an RT ion plan, which holds no image",
    "11.1": "a presentation state, which holds no image",
}


@dataclass(frozen=True, eq=False)
class Plane:
    """One plane of pixels.

    Parameters
    ----------
    header : Header
        Of its file.
    frame : int
        Its number in the file, from 0.
    place : Slice, optional
        Where it lies; None for a flat image without a place in space, or if `refused`.
    scale : tuple of float, optional
        Slope and intercept of this frame, where it has its own.
    marks : dict
        What may tell it from another plane at the same place, as text.
    refused : MedsegError, optional
        Why it cannot be used.
    """

    header: Header
    frame: int = 0
    place: Slice | None = None
    scale: tuple[float, float] | None = None
    marks: dict[str, str] = field(default_factory=dict)
    refused: MedsegError | None = None

    @property
    def tie(self) -> tuple[str, int]:
        """What orders planes at one position, whatever their files are called."""
        return self.header.text("SOPInstanceUID"), self.frame


def other_kind(header: Header) -> str | None:
    """What an object is that holds no image, with what to do about it; None for images."""
    kind = header.text("SOPClassUID") or header.media
    if kind.startswith(_ROOT + "88."):
        return "a structured report, which holds no image; open the series or SEG that it is of (or see medseg.io.load_report)"
    if kind == "1.2.840.10008.1.3.10":
        return "a DICOMDIR"
    found = _OTHERS.get(kind.removeprefix(_ROOT)) if kind.startswith(_ROOT) else None
    return found or {"SEG": _OTHERS["66.4"], "RTSTRUCT": _OTHERS["481.3"]}.get(header.text("Modality"))


def flat(header: Header) -> bool:
    """Whether a file is an image without a place in space: no tomographic class, and neither position nor orientation."""
    placed = "ImagePositionPatient" in header or "ImageOrientationPatient" in header
    return not placed and header.text("SOPClassUID") not in _TOMOGRAPHIC


def flat_grid(header: Header) -> tuple[Grid, list[str], list[str]]:
    """Return the (rows, columns) grid of a flat image, notes on where its pixel spacing is from, and those to say aloud.

    Raises
    ------
    FormatError
        Rows and Columns are not sizes.
    """
    shape = (int(header_number(header, "Rows", 0)), int(header_number(header, "Columns", 0)))
    if min(shape) < 1:
        raise FormatError("The image has no size; its header is damaged.")
    region, told = _ultrasound(header, shape)
    for keyword, note in (
        ("PixelSpacing", _projected(header)),
        ("ImagerPixelSpacing", _DETECTOR),
        ("NominalScannedPixelSpacing", "pixel spacing is that of the film that was scanned"),
    ):
        found = floats(header, keyword, 2)
        if found and min(found) > 0:
            if region and max(abs(one / other - 1) for one, other in zip(found, region, strict=True)) > OFF:
                note = f"{keyword} contradicts the calibrated ultrasound region: the pixel spacing is unknown"
                return Grid.from_spacing(shape), [note], [note]
            return Grid.from_spacing(shape, found), [note] if note else [], []
    if region:
        return Grid.from_spacing(shape, region), [told], []
    ratio = floats(header, "PixelAspectRatio", 2)
    if ratio and min(ratio) > 0 and abs(ratio[0] / ratio[1] - 1) > OFF:
        note = f"the pixel spacing is unknown, and pixels are not square: {ratio[0]:g} high to {ratio[1]:g} wide"
        return Grid.from_spacing(shape), [note], [note]
    return Grid.from_spacing(shape), [told or "the pixel spacing is unknown"], []


def _projected(header: Header) -> str:
    """Note on the PixelSpacing of a projection, which may be that of the body or that of the detector (PS3.3 10.7.1)."""
    if header.text("PixelSpacingCalibrationType"):
        return ""
    if imager := floats(header, "ImagerPixelSpacing", 2):
        return _DETECTOR if imager == floats(header, "PixelSpacing", 2) else ""
    projection = header.get("Modality") in ("CR", "DX", "MG", "RF", "XA", "IO", "PX")
    return "whether pixel spacing is that at the detector or in the body is not said" if projection else ""


def _ultrasound(header: Header, shape: tuple[int, int]) -> tuple[tuple[float, float] | None, str]:
    """Distance of rows and columns in mm, if a single calibrated two-dimensional region says so in cm; what to tell of it."""
    if "SequenceOfUltrasoundRegions" not in header:
        return None, ""
    try:
        regions: Any = header.dataset.get("SequenceOfUltrasoundRegions") or []
        if len(regions) != 1:
            return None, f"the pixel spacing is unknown: there are {len(regions)} ultrasound regions, not one"
        region = regions[0]
        units = {int(region.get(f"PhysicalUnits{axis}Direction", 0)) for axis in "XY"}
        if units != {_CM} or int(region.get("RegionSpatialFormat", _TWO_D)) != _TWO_D:
            return None, "the pixel spacing is unknown: the ultrasound region is not an image in two dimensions"
        down, along = (abs(float(region.get(f"PhysicalDelta{axis}", 0))) * 10 for axis in "YX")
        ends = [region.get(f"RegionLocation{end}") for end in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        left, top, right, bottom = (0, 0, shape[1] - 1, shape[0] - 1) if None in ends else map(int, ends)
    except (TypeError, ValueError, AttributeError, MedsegError):
        return None, "the pixel spacing is unknown: the ultrasound region is damaged"
    if not (0 < down < 100 and 0 < along < 100):
        return None, ""
    told = "pixel spacing is that of the one calibrated ultrasound region"
    if left > 0 or top > 0 or right < shape[1] - 1 or bottom < shape[0] - 1:
        told += f" and holds in it alone: rows {top} to {bottom}, columns {left} to {right}"
    return (down, along), told


def check_alone(header: Header) -> None:
    """Raise FormatError if a file that says it has one compressed frame holds more.

    Each frame of RLE is one fragment; those of JPEG may be several, of which the first of a frame begins with a marker.
    """
    _, offset, length = header.pixels or ("", 0, 0)
    if length != -1 or header_number(header, "NumberOfFrames", 1) != 1:
        return
    frames = 0
    with header.path.open("rb") as stream:
        stream.seek(offset)
        table = stream.read(8)  # of offsets, often empty or wrong
        stream.seek(int.from_bytes(table[4:], "little"), os.SEEK_CUR)
        while len(head := stream.read(20)) >= 8 and head[:4] == _ITEM:
            frames += header.syntax == RLELossless or head[8:].startswith(_STARTS)
            if frames > 1:
                raise FormatError("A file says that it holds one frame, but there are more; its header is damaged.")
            stream.seek(int.from_bytes(head[4:8], "little") + 8 - len(head), os.SEEK_CUR)


def unreadable(header: Header) -> MedsegError:
    """Return the error for a file that holds no image."""
    kind = other_kind(header)
    if kind:
        return InputError(f"The file is {kind}.")
    return FormatError("The file is no DICOM image: it has no pixels or is not DICOM at all.")


def refuse_place(what: str) -> GeometryError:
    """Return the error for frames that have no place."""
    return GeometryError(f"{what}, so their place in space is unknown; export the original series.")
