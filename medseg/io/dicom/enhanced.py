"""From a DICOM file to its planes. A slice is one; each frame of enhanced CT, MR and PET, RT dose and nuclear tomography, too.

Frames that lie nowhere (cine, ultrasound clips, secondary captures, whole slides) are refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medseg.errors import FormatError, GeometryError, InputError, MedsegError
from medseg.io.common import reading
from medseg.io.dicom.frames import MARKS, Plane, flat, refuse_place
from medseg.io.dicom.headers import Header
from medseg.io.dicom.pixels import check_size, header_number
from medseg.io.dicom.stack import JITTER_MM, Slice, floats, instance_number

_SHARED = "SharedFunctionalGroupsSequence"
_FRAMES = "PerFrameFunctionalGroupsSequence"
# Where in the functional groups a mark is.
_WHERE = {
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "StackID": ("FrameContentSequence", "StackID"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "AcquisitionDateTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "NominalPercentageOfRespiratoryPhase": (
        "RespiratorySynchronizationSequence",
        "NominalPercentageOfRespiratoryPhase",
    ),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
}
# Where these differ between frames of nuclear medicine, they are not slices of one volume.
_VOLUMES = (
    "EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector", "TimeSlotVector",
    "TimeSliceVector", "AngularViewVector",
)  # fmt: skip
_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


def planes(header: Header) -> list[Plane]:
    """Return the planes of an image file; one that says why where it cannot be read."""
    try:
        kinds = header.text("ImageType").upper().split("\\")
        if "MOSAIC" in kinds:
            raise FormatError("The file is a mosaic of slices, which is not read; convert it with dcm2niix first.")
        frames = header_number(header, "NumberOfFrames", 1)
        if "PerFrameFunctionalGroupsSequence" in header or frames > 1 or header.get("Modality") == "RTDOSE":
            return _frames(header, int(frames))
        marks = {name: header.text(name) or str(header.values.get(name) or "") for name in MARKS}
        return [Plane(header, 0, None if flat(header) else Slice.from_dataset(header), None, marks)]
    except MedsegError as error:
        return [Plane(header, refused=error)]


def _frames(header: Header, count: int) -> list[Plane]:
    """Return a plane for each frame of a multi-frame file.

    Parameters
    ----------
    header : Header
        Of the file.
    count : int
        NumberOfFrames, not yet trusted.

    Raises
    ------
    GeometryError
        Frames have no place in space, or a malformed one.
    FormatError
        The file cannot hold that many frames, or its header is damaged.
    InputError
        A slide in tiles.
    """
    if header.pixels is None:
        raise FormatError("A DICOM file has no pixels, or breaks off before them; get it again.")
    if count < 1:
        raise FormatError("NumberOfFrames is not positive; the header is damaged.")
    if _FRAMES not in header and count > 1 and header.get("Modality") not in ("RTDOSE", "NM"):
        raise refuse_place(
            f"The file holds {count} frames (several frames in time or a clip) without a position for each"
        )
    check_size(header, count)
    if _FRAMES in header:
        return _enhanced(header, count)
    if header.get("Modality") == "RTDOSE":
        return _offsets(header, count, _dose(header, count))
    if header.get("Modality") == "NM" and _reconstructed(header):
        return _tomography(header, count)
    if count == 1:
        return [Plane(header, 0, None if flat(header) else Slice.from_dataset(header))]
    raise refuse_place(f"The file holds {count} frames (several frames in time or a clip) without a position for each")


def _enhanced(header: Header, count: int) -> list[Plane]:
    """Frames of a file with functional groups; what the shared group says holds where a frame says nothing."""
    with reading(Path("The functional groups"), "DICOM"):
        dataset = header.dataset
        groups = list(dataset.get(_FRAMES) or [])
        shared = next(iter(dataset.get(_SHARED) or []), Dataset())
    if len(groups) != count:
        raise FormatError(f"The file promises {count} frames and describes {len(groups)}; its header is damaged.")
    if "TotalPixelMatrixColumns" in dataset:
        raise InputError("The file is a slide in tiles (whole-slide microscopy), which is not read.")
    if "PlaneOrientationSequence" not in shared and "PlaneOrientationSequence" not in groups[0]:
        raise refuse_place("The frames have no ImageOrientationPatient")
    pointers = _dimensions(dataset)
    with reading(Path("The functional groups"), "DICOM"):
        return [_frame(header, number, group, shared, pointers) for number, group in enumerate(groups)]


def _frame(header: Header, number: int, group: Dataset, shared: Dataset, pointers: list[str]) -> Plane:
    def value(sequence: str, keyword: str) -> Any:
        for where in (group, shared):
            items = where.get(sequence)
            if items and keyword in items[0]:
                return items[0].get(keyword)
        return None

    fields = {
        "Rows": header.get("Rows"),
        "Columns": header.get("Columns"),
        "FrameOfReferenceUID": header.get("FrameOfReferenceUID"),
        "ImagePositionPatient": value("PlanePositionSequence", "ImagePositionPatient"),
        "ImageOrientationPatient": value("PlaneOrientationSequence", "ImageOrientationPatient"),
        "PixelSpacing": value("PixelMeasuresSequence", "PixelSpacing"),
        "SliceThickness": value("PixelMeasuresSequence", "SliceThickness"),
        "SpacingBetweenSlices": value("PixelMeasuresSequence", "SpacingBetweenSlices"),
    }
    place = Slice.from_dataset({key: found for key, found in fields.items() if found is not None}, f"{number + 1}")
    slope, intercept = (value("PixelValueTransformationSequence", f"Rescale{key}") for key in ("Slope", "Intercept"))
    scale = None
    if slope is not None or intercept is not None:
        text = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        scale = header_number(text, "RescaleSlope", 1), header_number(text, "RescaleIntercept", 0)
    marks = {name: _text(value(*where)) for name, where in _WHERE.items()}
    marks["ImageType"] = next((_text(found) for kind in _TYPES if (found := value(kind, "FrameType"))), "")
    gradient = value("MRDiffusionSequence", "DiffusionGradientDirectionSequence")
    if gradient:
        marks["DiffusionGradientOrientation"] = _text(gradient[0].get("DiffusionGradientOrientation"))
    index = value("FrameContentSequence", "DimensionIndexValues")
    for pointer, position in zip(
        pointers, index if isinstance(index, list) or hasattr(index, "__iter__") else (), strict=False
    ):
        marks[pointer] = str(position)
    return Plane(header, number, place, scale, marks)


def _dimensions(dataset: Dataset) -> list[str]:
    """Names of the dimensions of DimensionIndexValues; positions in space, which tell nothing apart, have none of use."""
    items = dataset.get("DimensionIndexSequence") or []
    return [f"Dimension {item.get('DimensionIndexPointer', '')}" for item in items]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return (
        "\\".join(map(str, value)) if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else str(value)
    )


def _dose(header: Header, count: int) -> list[float]:
    """Distance of each dose plane from the first, along the normal (PS3.3 C.8.8.3.2)."""
    if count == 1 and "GridFrameOffsetVector" not in header:
        return [0.0]
    offsets = floats(header, "GridFrameOffsetVector", count)
    if offsets is None:
        raise GeometryError("GridFrameOffsetVector does not give a distance for each frame of the dose grid.")
    orientation = floats(header, "ImageOrientationPatient", 6)
    if offsets[0] != 0:
        # Then they are z in patient coordinates, which is meant for transverse planes only.
        position = floats(header, "ImagePositionPatient", 3)
        if orientation is None or position is None or abs(abs(orientation[0] * orientation[4]) - 1) > 1e-4:
            raise GeometryError("GridFrameOffsetVector holds positions, which is defined for transverse planes only.")
        if abs(offsets[0] - position[2]) > JITTER_MM:
            raise GeometryError(
                f"GridFrameOffsetVector starts neither at 0 nor at the z of ImagePositionPatient but "
                f"{abs(offsets[0] - position[2]):.4g} mm from it, so where the dose planes lie is unknown; export the dose again."
            )
        turned = float(np.sign(orientation[0] * orientation[4]))
        return [turned * (offset - offsets[0]) for offset in offsets]
    return list(offsets)


def _reconstructed(header: Header) -> bool:
    """Whether frames of nuclear medicine are slices (PS3.3 C.8.4.9).

    Raises
    ------
    GeometryError
        They are views of a turning camera, which hold sums along lines and no place.
    InputError
        They are several volumes in time.
    """
    kind = [*header.text("ImageType").upper().split("\\"), "", "", ""][2].strip()
    if kind in ("TOMO", "GATED TOMO"):
        raise GeometryError(
            "The frames are projections of a turning camera, not slices in space; reconstruct them first."
        )
    if kind == "RECON GATED TOMO":
        raise InputError("The file holds several volumes in time (gated), which is not read.")
    return kind == "RECON TOMO" and "DetectorInformationSequence" in header


def _tomography(header: Header, count: int) -> list[Plane]:
    """Reconstructed slices of nuclear medicine: the first place, and the distance of slices (PS3.3 C.8.4.11)."""
    with reading(Path("The detector information"), "DICOM"):
        dataset = header.dataset
        detectors = dataset.get("DetectorInformationSequence") or []
        item = detectors[0] if len(detectors) else Dataset()
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
            if keyword in item and keyword not in header:
                header.values[keyword] = _text(item.get(keyword))
    step = floats(header, "SpacingBetweenSlices", 1)
    if step is None or step[0] == 0:
        raise refuse_place(f"The {count} frames have no SpacingBetweenSlices")
    slices = dataset.get("NumberOfSlices", count)
    if int(slices or count) != count:
        raise InputError("The file holds several volumes in time (gated or dynamic), which is not read.")
    for keyword in _VOLUMES:
        if len(set(_vector(dataset, keyword, count))) > 1:
            raise InputError(f"The file holds several volumes, told apart by its {keyword}, which is not read.")
    order = _vector(dataset, "SliceVector", count) or list(range(1, count + 1))
    # The position is that of the first frame, and of slice 1: where these are two, nobody can say whose it is.
    if sorted(order) != list(range(1, count + 1)) or order[0] != 1:
        raise refuse_place(f"SliceVector does not number the {count} frames from 1 on")
    return _offsets(header, count, [(number - 1) * step[0] for number in order])


def _vector(dataset: Dataset, keyword: str, count: int) -> list[int]:
    """Numbers of an attribute that has one for each frame; none if it is absent or empty.

    Raises
    ------
    FormatError
        It has numbers for fewer or more frames.
    """
    with reading(Path("The header"), "DICOM"):
        value = dataset.get(keyword)
        found = [] if value is None or value == "" else [int(one) for one in np.atleast_1d(np.array(value)).tolist()]
    if len(found) not in (0, count):
        raise FormatError(f"{keyword} does not have a number for each of the {count} frames; the header is damaged.")
    return found


def _offsets(header: Header, count: int, offsets: list[float]) -> list[Plane]:
    """Planes at distances along the normal from the place in the header."""
    first = Slice.from_dataset(header)
    thickness = first.thickness or (abs(offsets[1] - offsets[0]) if count > 1 else None)
    out = []
    for number, offset in enumerate(offsets):
        position = np.array(first.position) + offset * first.normal
        place = Slice(first.rows, first.columns, first.orientation, tuple(position.tolist()), first.spacing, thickness,
                      first.frame, f"{number + 1}" if count > 1 else instance_number(header))  # fmt: skip
        out.append(Plane(header, number, place))
    return out
