"""Open DICOM objects that are not slices (SEG, RTSTRUCT, SR) and say which kind they are."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medseg.errors import FormatError, InputError, MissingError
from medseg.io.clinical import deflated
from medseg.io.common import reading
from medseg.io.dicom.bounded import Bounded, meta
from medseg.io.dicom.pixels import quiet
from medseg.io.names import FORMATS, suffix

SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # Segmentation, Label Map Segmentation
RTSTRUCT = ("1.2.840.10008.5.1.4.1.1.481.3",)
SR = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 34))  # basic text, enhanced, comprehensive, 3D


def opened(path: Path, kinds: tuple[str, ...], what: str) -> Dataset:
    """Read a DICOM object of one of some classes, from a file or from a folder that holds one of them.

    Parameters
    ----------
    path : Path
        File, or a folder with exactly one file of these classes (not recursive).
    kinds : tuple of str
        SOP Class UIDs.
    what : str
        Their name, for messages.

    Raises
    ------
    MissingError
        Nothing is there, or the folder holds no such object.
    InputError
        The folder holds several, or the object would take more memory than allowed.
    FormatError
        The file is no DICOM, damaged, or of another class.
    """
    if path.is_dir():
        path = _only(path, kinds, what)
    if not path.is_file():
        raise MissingError(f"{path.name} is not there; check the path.")
    with reading(path, "DICOM"), quiet():
        dataset = deflated.read(path)
        if dataset is None:
            with Bounded(path) as stream:
                dataset = pydicom.dcmread(stream, force=_suffixed(path))
        kind = str(dataset.get("SOPClassUID") or "")
    if kind not in kinds:
        raise FormatError(f"{path.name} is no {what}.")
    return dataset


def is_kind(path: Path, kinds: tuple[str, ...]) -> bool:
    """Whether a file, or a file of a folder, is a DICOM object of one of these classes; no other header is read."""
    if path.is_dir():
        return any(is_kind(file, kinds) for file in sorted(path.iterdir()) if file.is_file())
    return _kind(path) in kinds


def _suffixed(path: Path) -> bool:
    """Whether the name says DICOM: files of the years before the preamble begin with their first element."""
    return suffix(path) in FORMATS["dicom"]


def _only(folder: Path, kinds: tuple[str, ...], what: str) -> Path:
    found = [file for file in sorted(folder.iterdir()) if file.is_file() and _kind(file) in kinds]
    if not found:
        raise MissingError(f"{folder.name} holds no {what}; name its file.")
    if len(found) > 1:
        raise InputError(f"{folder.name} holds {len(found)} objects of the kind {what}; name the file of one.")
    return found[0]


def _kind(path: Path) -> str:
    """Return the SOP class a file states, in its meta information if it has any; "" if it is not DICOM."""
    try:
        with path.open("rb") as stream:
            marked = stream.read(132)[128:] == b"DICM"
        if not marked and not _suffixed(path):
            return ""
        with quiet():
            head = meta(path) if marked else Dataset()
            stated = str(head.get("MediaStorageSOPClassUID") or "")
            if stated or head.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                return stated  # a deflated file would be inflated whole
            with Bounded(path) as stream:
                header = pydicom.dcmread(stream, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID"])
            return str(header.get("SOPClassUID") or "")
    except Exception:  # pydicom raises anything from struct.error to OverflowError on damaged files
        return ""
