"""Which file is what: by the first bytes, checked against the name. Which paths an INPUT argument means."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from medseg.errors import FormatError, InputError, MissingError
from medseg.io.names import FORMATS, SUFFIXES, is_image, suffix

_MAGIC = (
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"), (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "png"), (b"NRRD000", "itk"), (b"ZISRAWFILE", "czi"), (b"\xda\xce\xbe\x0a", "nd2"),
)  # fmt: skip
_SHOWN = {"tiff": "TIFF", "png": "PNG or JPEG", "itk": "NRRD", "dicom": "DICOM", "nifti": "NIfTI"}
_SHOWN |= {"czi": "CZI", "nd2": "ND2", "lif": "LIF"}


def format_of(path: Path) -> str:
    """Return the name of the reader for a file or a folder.

    Raises
    ------
    MissingError
        Nothing is there, or a folder holds no image.
    FormatError
        The file is empty, of an unknown kind, or not what its name says.
    InputError
        The folder holds several images, or the file may not be read.
    """
    if path.is_dir():
        return _folder_format(path)
    if not path.is_file():
        raise MissingError(f"{path}: is not there; check the path.")
    named = next((name for name, endings in FORMATS.items() if suffix(path) in endings), None)
    head = _head(path)
    if not head:
        raise FormatError(f"{path.name} is empty (0 bytes); get it again.")
    found = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if head[128:132] == b"DICM" or (found is None and begins_bare(head)):
        found = "dicom"
    if named is None and found is None:
        raise FormatError(f"{path.name} is of a kind medseg does not read; it reads {', '.join(SUFFIXES)} and DICOM.")
    # Every DICOM file may begin with 128 bytes of another format (PS3.10 section 7.1), so there the name counts.
    if named and found and named != found and not (found == "dicom" and head[:4] != bytes(4)):
        raise FormatError(
            f"{path.name} is named like a {_SHOWN[named]} file but holds {_SHOWN[found]}; rename it to what it is."
        )
    return named or found or ""


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(132)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}); check its permissions.") from None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its preamble or its suffix."""
    if path.name.startswith(".") or not path.is_file():
        return False
    ending = suffix(path)
    if ending in FORMATS["dicom"] or ending in SUFFIXES:
        return ending in FORMATS["dicom"]
    head = _head(path)
    return head[128:132] == b"DICM" or begins_bare(head)


def begins_bare(head: bytes) -> bool:
    """Whether bytes begin like DICOM without a preamble, as files of old do: with an element of group 2 or 8."""
    if head[:2] not in (b"\x02\0", b"\x08\0") or head[3:4] != b"\0" or len(head) < 64:
        return False
    explicit = head[4:6] in (b"UL", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM", b"OB", b"SQ")
    return explicit or (head[:2] == b"\x08\0" and head[5:8] == b"\0\0\0" and head[4] <= 64)


def _folder_format(path: Path) -> str:
    files = _listed(path)
    if any(is_dicom(file) for file in files) or holds_dicom_below(path):
        return "dicom"
    images = [file for file in files if is_image(file)]
    if images:
        raise InputError(f"{path} is a folder of {len(images)} images, not one image; name one of them.")
    raise MissingError(f"{path} is a folder without an image; name the folder that holds the files themselves.")


def holds_dicom_below(folder: Path) -> bool:
    """Whether a folder inside holds DICOM, at any depth; hidden ones are passed over and links not followed."""
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if Path(place) != folder and any(is_dicom(Path(place, name)) for name in sorted(files)):
            return True
    return False


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); check its permissions.") from None


def inputs(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Expand what a user names as input into images, each once, in the order given.

    Parameters
    ----------
    paths : path or iterable of paths
        Files (kept whatever their kind), folders of images (sorted, not recursive; hidden and unreadable kinds are
        passed over), folders of DICOM (one image each) and glob patterns.

    Raises
    ------
    MissingError
        A path is not there, or a pattern or a folder gives no image.

    Examples
    --------
    >>> inputs(["scan.nii.gz", "cells/*.tif"])  # doctest: +SKIP
    [PosixPath('scan.nii.gz'), PosixPath('cells/a.tif'), PosixPath('cells/b.tif')]
    """
    found: dict[Path, None] = {}
    for given in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(given)
        if path.exists():
            found.update(dict.fromkeys(_expanded(path)))
        elif glob.has_magic(str(path)):
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
            images = [match for match in matches if is_image(match) or (match.is_dir() and _holds_dicom(match))]
            images += [match for match in matches if match not in images and is_dicom(match)]
            if not images:
                raise MissingError(f"{path}: no image fits this pattern; check it.")
            found.update(dict.fromkeys(images))
        else:
            raise MissingError(f"{path}: is not there; check the path.")
    return list(found)


def _expanded(path: Path) -> list[Path]:
    if not path.is_dir() or _holds_dicom(path):
        return [path]
    images = [file for file in _listed(path) if is_image(file) and file.is_file()]
    if not images and holds_dicom_below(path):
        return [path]
    if not images:
        raise MissingError(f"{path} is a folder without an image; name the folder that holds the files themselves.")
    return images


def _holds_dicom(folder: Path) -> bool:
    return any(is_dicom(file) for file in _listed(folder))
