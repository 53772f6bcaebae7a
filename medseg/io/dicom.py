"""A DICOM series of single-frame slices, CT, MR, PET or other.

Slices are ordered by their position along the normal, never by InstanceNumber or file name. A stack that is not
regular is refused: nothing is averaged away. Messages name slices by number, never by file name or header text.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medseg.errors import FormatError, InputError, MedsegWarning, MissingError
from medseg.image import Image, LazyArray, Source
from medseg.io.common import reading
from medseg.io.names import FORMATS
from medseg.io.pixels import THREADS, Stored, check_size, header_number, quiet, reader, result
from medseg.io.stack import Slice, arrange

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImageType", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_DICOM = "1.2.840.10008."  # root of all UIDs of the standard
_SUSPECT = "named like DICOM are not DICOM and were passed over"
_MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PT"}


def read(path: Path, channel_axis: int | None = None, labels: bool = False) -> Image:
    """Read a DICOM series: headers now, voxels when they are touched.

    Parameters
    ----------
    path : Path
        The folder of one series (not recursive; files that are not DICOM are passed over), or the file of one slice.
    channel_axis : int, optional
        Must be absent: a slice has one sample for each pixel.
    labels : bool
        Not used.

    Returns
    -------
    Image
        Voxels (1, slices, rows, columns), rescaled (CT: HU): as stored without a rescale, int32 with one that is whole
        and the same for all slices, else float32.

    Raises
    ------
    MissingError
        The folder holds no DICOM slice.
    FormatError
        Several series, several frames in a file, damaged or truncated files.
    GeometryError
        Positions, orientation or spacing are missing, or the stack is irregular, tilted or has duplicates.
    InputError
        Colour.
    """
    if channel_axis is not None:
        raise InputError(f"{path.name} is DICOM, which has no channel axis here; leave channel_axis out.")
    with quiet():
        files, datasets, notes = _headers(path)
        _one_series(datasets)
        slices = [Slice.from_dataset(dataset) for dataset in datasets]
        order, grid, told = arrange(slices)
        datasets, files = [datasets[i] for i in order], [files[i] for i in order]
        stored = [Stored.from_dataset(dataset, number) for number, dataset in enumerate(datasets, 1)]
        for number, (file, dataset) in enumerate(zip(files, datasets, strict=True), 1):
            check_size(file, dataset, number)
    if notes and notes[0].endswith(_SUSPECT):  # after quiet(), which would swallow it
        warnings.warn(notes[0], MedsegWarning, stacklevel=3)
    if any(one.inverted is not None for one in stored):
        told.append("MONOCHROME1: stored values were inverted, so that larger is brighter")
    first = datasets[0]
    uids = {key: str(first.get(key)) for key in ("StudyInstanceUID", "SeriesInstanceUID") if first.get(key)}
    array = LazyArray((1, *grid.shape), result(stored), reader(files, stored, grid.shape))
    modality = _MODALITIES.get(str(first.get("Modality", "")), "other")
    return Image(array, grid, modality, ("gray",), Source(tuple(files), "dicom", uids, (*notes, *told)))


def _headers(path: Path) -> tuple[list[Path], list[Dataset], list[str]]:
    """Return the files that hold slices, their headers, and notes on what was passed over."""
    if path.is_file():
        dataset = _header(path)
        if dataset is None or "Rows" not in dataset:
            raise FormatError(f"{path.name} is no DICOM image: it has no pixels or is not DICOM at all.")
        return [path], [dataset], []
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(_header, files))
    kept = [
        (file, dataset) for file, dataset in zip(files, found, strict=True) if dataset is not None and "Rows" in dataset
    ]
    if not kept:
        raise MissingError(f"{path} holds no DICOM slice; name the folder that holds the files themselves.")
    for dataset in found:
        if dataset is not None and "Rows" not in dataset and _cut(dataset):
            raise FormatError("A DICOM file in the folder breaks off in its header; get it again.")
    notes = []
    named = sum(d is None and f.suffix.lower() in FORMATS["dicom"] for f, d in zip(files, found, strict=True))
    if named:
        notes.append(f"{named} files {_SUSPECT}")
    other = sum(dataset is None for dataset in found) - named
    if other:
        notes.append(f"{other} files that are not DICOM were passed over")
    if rest := len(files) - len(kept) - other - named:
        notes.append(f"{rest} DICOM files without pixels were passed over")
    return [file for file, _ in kept], [dataset for _, dataset in kept], notes


def _header(path: Path) -> Dataset | None:
    """Return the header of a DICOM file; None if it is not DICOM."""
    with path.open("rb") as stream:
        marked = stream.read(132)[128:] == b"DICM"
    if not marked and path.suffix.lower() not in FORMATS["dicom"]:
        return None
    try:
        # force: files of the years before the preamble begin with their first element.
        with reading(path, "DICOM"):
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=not marked, specific_tags=list(_TAGS))
            for _ in dataset:
                pass  # pydicom parses a value when it is asked for it, and its complaints quote the header
            return dataset if marked or "SOPClassUID" in dataset or "Rows" in dataset else None
    except FormatError:
        if not marked:
            return None
        raise FormatError("A DICOM file has a damaged or truncated header; get it again.") from None


def _cut(dataset: Dataset) -> bool:
    """Whether a header without Rows should have them: pydicom reads one that breaks off without a word."""
    kind = getattr(dataset, "file_meta", Dataset()).get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID")
    uid = UID(str(kind or ""))
    # A class pydicom does not know is a UID that was cut itself, unless a vendor made it.
    vendor = uid.is_private and not _DICOM.startswith(uid)
    return not kind or "Image Storage" in uid.name or (uid.name == str(uid) and not vendor)


def _one_series(datasets: Sequence[Dataset]) -> None:
    """Raise unless all files are single-frame gray slices of one series."""
    series = {str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}
    if len(series) > 1:
        raise FormatError(
            f"The folder holds {len(series)} DICOM series; put each into a folder of its own and name one of these."
        )
    for dataset in datasets:
        if "PerFrameFunctionalGroupsSequence" in dataset or header_number(dataset, "NumberOfFrames", 1) > 1:
            raise FormatError("The file holds several frames (enhanced or multi-frame DICOM), which is not read yet.")
        if "MOSAIC" in str(dataset.get("ImageType", "")).upper():
            raise FormatError("The file is a mosaic of slices, which is not read; convert it with dcm2niix first.")
        if "ModalityLUTSequence" in dataset:
            raise FormatError("Values are given by a Modality LUT instead of a rescale, which is not read.")
        if header_number(dataset, "SamplesPerPixel", 1) != 1 or str(dataset.get("PhotometricInterpretation")) not in (
            "MONOCHROME1", "MONOCHROME2"
        ):  # fmt: skip
            raise InputError("The file holds colour; medseg reads DICOM with one gray value for each pixel.")
