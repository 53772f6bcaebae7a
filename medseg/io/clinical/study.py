"""The study that an output joins: headers of the source slices, UIDs derived by hash, the clock, writing."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from medseg.errors import GeometryError, InputError, MedsegError, MedsegWarning, MissingError, OutputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.io.clinical.deidentifier import VERSION, deidentify, new_uid, secret, uid_of
from medseg.io.common import reading
from medseg.io.dicom.bounded import Bounded
from medseg.io.dicom.pixels import quiet
from medseg.io.dicom.stack import JITTER, JITTER_MM
from medseg.ops.files import write_whole

FloatArray = npt.NDArray[np.float64]

# Type 2 attributes of the patient and study modules: outputs have them, empty where the source has none.
_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
           "StudyTime", "ReferringPhysicianName")  # fmt: skip
SERIES_NUMBER = 7001  # of what is derived; far from those of scanners
# Who made an output, in the words of highdicom's constructors.
MAKER: dict[str, Any] = {
    "instance_number": 1,
    "manufacturer": "medseg",
    "manufacturer_model_name": "medseg",
    "software_versions": VERSION,
    "device_serial_number": "none",
}
_SHORT = 16  # characters of a short string (VR SH)
_PER_SLICE = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImageType", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "InstanceNumber",
]  # fmt: skip

# What is left of a de-identified header: outputs copy no other attribute of it, free text least of all.
_BARE = (
    *_PER_SLICE, *_TYPE_2, "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Headers of the series an image was read from.

    Parameters
    ----------
    slices : tuple of Dataset
        Without pixels, in the order of the image's slices; one for a multi-frame file. The first is whole, the others
        hold what places them. De-identified if asked for.
    series : str
        SeriesInstanceUID of the source, the new one if de-identified: what hashes start from.
    frame : str
        FrameOfReferenceUID; derived from the series where the source has none.
    now : datetime
        When the output is made.
    anonymous : bool
        Whether the headers were de-identified.
    """

    slices: tuple[Dataset, ...]
    series: str
    frame: str
    now: datetime
    anonymous: bool

    @property
    def first(self) -> Dataset:
        """Header of the first slice."""
        return self.slices[0]

    @property
    def day(self) -> DA:
        """Date of the output; a dummy if it is de-identified, as the profile wants."""
        return DA("19000101" if self.anonymous else self.now.strftime("%Y%m%d"))

    @property
    def time(self) -> TM:
        """Time of the output; a dummy if it is de-identified."""
        return TM("000000" if self.anonymous else self.now.strftime("%H%M%S"))

    def uid(self, *parts: object) -> str:
        """Return a UID that is the same whenever the source series, the time and `parts` are.

        If de-identified it needs the key of UID replacement too: who has the source could compute it otherwise.
        """
        plain = uid_from(self.series, self.day, self.time, self.anonymous, *parts)
        return new_uid(plain, secret()) if self.anonymous else plain


@dataclass(frozen=True)
class SourceSlice:
    """A slice of the source: a file, or one frame (from 1) of a multi-frame file."""

    header: Dataset
    frame: int | None = None

    def named(self) -> Dataset:
        """Return an item that refers to it (PS3.3 table 10-3)."""
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = self.header.SOPClassUID, self.header.SOPInstanceUID
        if self.frame is not None:
            item.ReferencedFrameNumber = self.frame
        return item


def on_slices(grid: Grid, study: Study) -> list[SourceSlice | None]:
    """Return for each slice of the grid the one slice of the source that lies on it, or None.

    Slices that jitter count as on the grid as far as `medseg.io.dicom.stack` lets them. Where several frames lie on a slice,
    as over time, none is named.
    """
    known: list[tuple[SourceSlice, FloatArray]] = []
    for header in study.slices:
        frames = header.get("PerFrameFunctionalGroupsSequence") or ()
        for number, frame in enumerate(frames, 1):
            place = (frame.get("PlanePositionSequence") or [Dataset()])[0].get("ImagePositionPatient")
            if place is not None:
                known.append((SourceSlice(header, number), np.array(place, dtype=np.float64)))
        if not frames and header.get("ImagePositionPatient") is not None:
            known.append((SourceSlice(header), np.array(header.ImagePositionPatient, dtype=np.float64)))
    geometry = grid.to_dicom()
    row, column = np.array(geometry["ImageOrientationPatient"]).reshape(2, 3)
    normal = np.cross(row, column)
    heights = np.array([place @ normal for _, place in known])
    tolerance = max(JITTER_MM, JITTER * float(geometry["SpacingBetweenSlices"]))
    found: list[SourceSlice | None] = []
    for position in geometry["ImagePositionPatient"]:
        near = np.flatnonzero(np.abs(heights - np.array(position) @ normal) <= tolerance)
        found.append(known[near[0]][0] if len(near) == 1 else None)
    return found


def study_of(image: Image, what: str, anonymous: bool) -> Study:
    """Read the headers of the slices an image came from.

    Parameters
    ----------
    image : Image
        Read from DICOM.
    what : str
        What is to be written, for messages.
    anonymous : bool
        De-identify the headers.

    Raises
    ------
    InputError
        The image did not come from DICOM.
    GeometryError
        The image has no place in the patient.
    MissingError
        The files are gone, or are another series now.
    """
    source = image.source
    if source is None or source.format != "dicom" or not source.files:
        raise InputError(
            f"{what} belongs to a DICOM series, and the image did not come from one; write NIfTI instead, or load the "
            "series and put the labels on it (`medseg convert --reference`)."
        )
    if image.grid.space != "patient":
        raise GeometryError(f"{what} needs a place in the patient, which this image does not have; write TIFF instead.")
    headers = [_header(file, None if i == 0 else _PER_SLICE) for i, file in enumerate(source.files)]
    first = headers[0]
    series = str(first.get("SeriesInstanceUID") or "")
    if not series or any(header.get("SeriesInstanceUID") != series for header in headers) or (
        source.uids.get("SeriesInstanceUID", series) != series
    ):  # fmt: skip
        raise MissingError("The files of the image are not the series it was read from any more; load it again.")
    frame = str(first.get("FrameOfReferenceUID") or "") or uid_from("frame", series)
    for header in headers:
        header.FrameOfReferenceUID = frame
    if anonymous:
        headers = [_bare(deidentify(header)) for header in headers]
        series = str(headers[0].SeriesInstanceUID)
    _complete(headers[0])
    _share(headers[0])
    return Study(tuple(headers), series, str(headers[0].FrameOfReferenceUID), _now(), anonymous)


def _header(path: Path, tags: Sequence[str] | None) -> Dataset:
    with reading(path, "DICOM"), quiet(), Bounded(path) as stream:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)  # type: ignore[arg-type]
        for _ in dataset:
            pass  # values are parsed when touched
        return dataset


def _bare(header: Dataset) -> Dataset:
    """Return a header with nothing but what places its slices and what de-identification made."""
    out = Dataset()
    for keyword in _BARE:
        if keyword in header:
            out[keyword] = header[keyword]
    if header.get("LossyImageCompression", "00") not in ("00", "01"):
        del out.LossyImageCompression
    methods = out.get("LossyImageCompressionMethod") or []
    if not all(re.fullmatch(r"ISO_[\d_]+", one) for one in ([methods] if isinstance(methods, str) else methods)):
        del out.LossyImageCompressionMethod
    return out


def _complete(header: Dataset) -> None:
    """Add what outputs must have to the first header, empty, and empty what no output may have."""
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, "")
    if header.PatientSex not in ("M", "F", "O", ""):
        header.PatientSex = ""
    for keyword in ("StudyID", "AccessionNumber"):
        if len(str(header[keyword].value or "")) > _SHORT:
            setattr(header, keyword, "")
            warn(f"{keyword} of the source is longer than the {_SHORT} characters DICOM allows and was left empty.",
                 MedsegWarning, stacklevel=4)  # fmt: skip
    for keyword, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        try:
            kind(header.get(keyword) or "")
        except (ValueError, TypeError):
            setattr(header, keyword, "")


def _share(header: Dataset) -> None:
    """Put the pixel measures and orientation of a multi-frame header where highdicom looks for them, in place."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if name not in shared and name in frames[0]:
            setattr(shared, name, frames[0][name].value)
    header.SharedFunctionalGroupsSequence = [shared]


def _now() -> datetime:
    """Return the time, or SOURCE_DATE_EPOCH of the environment, with which the same input gives the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now()


def uid_from(*parts: object) -> str:
    """Return a UID derived from the hash of `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return uid_of(digest.digest())


def write(dataset: Dataset, path: Path) -> None:
    """Write a data set as a DICOM file, whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written, or a value from the source's header fits no DICOM file.
    """
    buffer = BytesIO()
    with building(path), quiet():
        dataset.save_as(buffer, enforce_file_format=True)
    write_whole(path, buffer.getvalue())


@contextmanager
def building(path: Path) -> Iterator[None]:
    """Turn what libraries raise over odd headers into one typed error that shows no header text."""
    try:
        yield
    except (MedsegError, MedsegWarning):
        raise
    except MemoryError:
        raise OutputError(f"{path.name}: too little memory to write it.") from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise OutputError(
            f"{path.name}: the source's headers hold what DICOM does not allow there ({type(error).__name__}); "
            "try deidentify=True, or write NIfTI."
        ) from None
