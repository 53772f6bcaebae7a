"""What a plane of a DICOM image is, what tells planes apart, and images that have no place in space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medseg.errors import FormatError, GeometryError, InputError, MedsegError
from medseg.grid import Grid
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
        return "a structured report; read it with medseg.io.load_report"
    if kind == "1.2.840.10008.1.3.10":
        return "a DICOMDIR"
    found = _OTHERS.get(kind.removeprefix(_ROOT)) if kind.startswith(_ROOT) else None
    return found or {"SEG": _OTHERS["66.4"], "RTSTRUCT": _OTHERS["481.3"]}.get(header.text("Modality"))


def flat(header: Header) -> bool:
    """Whether a file is an image without a place in space: no tomographic class, and neither position nor orientation."""
    placed = "ImagePositionPatient" in header or "ImageOrientationPatient" in header
    return not placed and header.text("SOPClassUID") not in _TOMOGRAPHIC


def flat_grid(header: Header) -> tuple[Grid, list[str]]:
    """Return the (rows, columns) grid of a flat image, and notes on where its pixel spacing is from.

    Raises
    ------
    FormatError
        Rows and Columns are not sizes.
    """
    shape = (int(header_number(header, "Rows", 0)), int(header_number(header, "Columns", 0)))
    if min(shape) < 1:
        raise FormatError("The image has no size; its header is damaged.")
    for keyword, note in (
        ("PixelSpacing", ""),
        ("ImagerPixelSpacing", "pixel spacing is that at the detector: sizes in the body are smaller"),
        ("NominalScannedPixelSpacing", "pixel spacing is that of the film that was scanned"),
    ):
        found = floats(header, keyword, 2)
        if found and min(found) > 0:
            return Grid.from_spacing(shape, found), [note] if note else []
    if found := _ultrasound(header):
        return Grid.from_spacing(shape, found), ["pixel spacing is that of the one calibrated ultrasound region"]
    return Grid.from_spacing(shape), ["the pixel spacing is unknown"]


def _ultrasound(header: Header) -> tuple[float, float] | None:
    """Distance of rows and columns in mm, if a single calibrated region says so in cm."""
    if "SequenceOfUltrasoundRegions" not in header:
        return None
    try:
        regions: Any = header.dataset.get("SequenceOfUltrasoundRegions") or []
        if len(regions) != 1 or {int(regions[0].get(f"PhysicalUnits{axis}Direction", 0)) for axis in "XY"} != {3}:
            return None
        down, along = (abs(float(regions[0].get(f"PhysicalDelta{axis}", 0))) * 10 for axis in "YX")
    except (TypeError, ValueError, AttributeError, MedsegError):
        return None
    return (down, along) if 0 < down < 100 and 0 < along < 100 else None


def unreadable(header: Header) -> MedsegError:
    """Return the error for a file that holds no image."""
    kind = other_kind(header)
    if kind:
        return InputError(f"The file is {kind}.")
    return FormatError("The file is no DICOM image: it has no pixels or is not DICOM at all.")


def refuse_place(what: str) -> GeometryError:
    """Return the error for frames that have no place."""
    return GeometryError(f"{what}, so their place in space is unknown; export the original series.")
