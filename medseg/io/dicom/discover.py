"""Find DICOM images in what a caller names: a file, a list, a DICOMDIR, a tree of folders with anything in it."""

from __future__ import annotations

import gzip
import os
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID

from medseg.errors import FormatError, InputError, MedsegError, MedsegWarning, MissingError
from medseg.io.common import reading
from medseg.io.dicom.enhanced import planes
from medseg.io.dicom.frames import Plane, other_kind, unreadable
from medseg.io.dicom.groups import Group, groups
from medseg.io.dicom.headers import Header, read_header
from medseg.io.dicom.pixels import THREADS
from medseg.io.names import FORMATS

_DICOM = "1.2.840.10008."  # root of all UIDs of the standard
_DIRECTORY = "1.2.840.10008.1.3.10"
_FEW, _FAST = 16, 1e-3  # how many files are timed, and seconds for each that are fast
Given = Path | Sequence[Path]


@dataclass
class Found:
    """What lies under a path.

    Parameters
    ----------
    groups : list of Group
        Images, in the order they are numbered in.
    damaged : set of Path
        Folders that hold a file with a damaged header.
    notes : list of str
        What was passed over.
    aloud : list of str
        What a person should hear of.
    """

    groups: list[Group]
    damaged: set[Path] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    aloud: list[str] = field(default_factory=list)

    def warn(self, *more: str) -> None:
        """Say aloud what should be heard."""
        for text in (*self.aloud, *more):
            warnings.warn(text, MedsegWarning, stacklevel=5)


def find(given: Given) -> Found:
    """Read the headers of all DICOM files under a path and group their planes.

    Parameters
    ----------
    given : Path or sequence of Path
        A file, a folder (with all inside it), a DICOMDIR, or a list of files and folders.

    Raises
    ------
    MissingError
        Nothing is there, or no file is DICOM.
    FormatError, InputError
        Nothing among the files is an image.
    """
    named = [given] if isinstance(given, Path) else list(given)
    files, missed = _files(named)
    headers, broken = _headers(files)
    single = len(files) == 1 and files[0] in named
    images: list[Plane] = []
    others: list[Header] = []
    damaged = {file.parent for file in broken}
    for header in headers.values():
        if "Rows" not in header or other_kind(header):
            others.append(header)
            if "Rows" not in header and _cut(header):
                damaged.add(header.path.parent)
        else:
            images += planes(header)
    if not images:
        raise _nothing(named, headers, others, bool(broken), single)
    found = Found(groups(images), damaged)
    rest = [file for file in files if file not in headers and file not in broken]
    found.aloud += [
        *missed,
        *_absent(headers, named),
        *_passed_over(rest, {plane.header.path.parent for plane in images}),
    ]
    found.notes += [*found.aloud, *_others(rest, others)]
    return found


def _files(named: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """All files to look into, each once, and what cannot be looked into and should be heard of."""
    out: dict[Path, None] = {}
    seen: set[Path] = set()
    lost, above = 0, 0
    for path in named:
        if path.is_dir():
            for file in _tree(path, seen):
                if file.is_file():
                    out[file] = None
                elif file.is_dir():
                    above += 1
                else:
                    lost += file.is_symlink()
        elif not path.is_file():
            raise MissingError(f"{path}: is not there; check the path.")
        elif (listed := _directory(path)) is not None:
            out.update(dict.fromkeys(listed))
        else:
            out[path] = None
    missed = [f"{lost} links lead to files that are not there: a volume may lack slices"] if lost else []
    if above:
        missed.append(f"{above} links lead to folders above the one named and were not followed")
    return list(out), missed


def _tree(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files in a folder and below, sorted, hidden ones left out; links to folders are followed once.

    A link to a folder above is given itself instead of what is in it.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); check its permissions.") from None

    top = folder.resolve()
    for place, inner, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place).resolve()
        if here in seen:  # a second way to it, or a loop
            inner.clear()
            continue
        if here != top and here in top.parents:
            inner.clear()
            yield Path(place)
            continue
        seen.add(here)
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def _directory(path: Path) -> list[Path] | None:
    """Files that a DICOMDIR lists; None if it is none.

    Raises
    ------
    MissingError
        It lists a file that is not there.
    FormatError
        It is damaged, or leads out of its folder.
    """
    header = read_header(path)
    if header is None or not _is_directory(header):
        return None
    out, absent = _listed(header)
    if absent:
        raise MissingError(f"The DICOMDIR lists {absent} files that are not there; copy the whole disc.")
    return out


def _is_directory(header: Header) -> bool:
    return _DIRECTORY in (header.media, header.text("SOPClassUID"))


def _listed(header: Header) -> tuple[list[Path], int]:
    """Files that a DICOMDIR lists and that are there, and how many are not.

    Raises
    ------
    FormatError
        It is damaged, or leads out of its folder.
    """
    out, absent = [], 0
    with reading(Path("The DICOMDIR"), "DICOM"):
        for record in header.dataset.get("DirectoryRecordSequence") or []:
            parts = record.get("ReferencedFileID")
            if not parts or record.get("RecordInUseFlag") == 0:  # one that was taken off the disc
                continue
            names = [parts] if isinstance(parts, str) else [str(part) for part in parts]
            if any(name in ("", "..") or "/" in name or "\\" in name for name in names):
                raise FormatError("The DICOMDIR names files outside of its folder; it is damaged.")
            file = _inside(header.path.parent, names)
            if file is None:
                absent += 1
            else:
                out.append(file)
    return out, absent


def _inside(folder: Path, names: list[str]) -> Path | None:
    """A file below a folder; discs are often copied with names in lower case."""
    for change in (str, str.lower):
        if (file := folder.joinpath(*map(change, names))).is_file():
            return file
    return None


def _headers(files: Sequence[Path]) -> tuple[dict[Path, Header], list[Path]]:
    """Headers of the files that are DICOM, and files that should be but are damaged."""
    broken: list[Path] = []

    def read(path: Path) -> Header | None:
        try:
            return read_header(path)
        except FormatError:
            broken.append(path)
            return None

    started = time.perf_counter()
    found = [read(path) for path in files[:_FEW]]
    # Threads hide the wait for a slow disk or network; where there is none they only get into each other's way.
    if time.perf_counter() - started < _FAST * _FEW:
        found += [read(path) for path in files[_FEW:]]
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            found += pool.map(read, files[_FEW:])
    return {path: header for path, header in zip(files, found, strict=True) if header is not None}, sorted(broken)


def _cut(header: Header) -> bool:
    """Whether a header without Rows should have them: one that breaks off looks like one that ends."""
    kind = UID(header.media or header.text("SOPClassUID"))
    # A class pydicom does not know is a UID that was cut itself, unless a vendor made it.
    vendor = kind.is_private and not _DICOM.startswith(kind)
    return not kind or "Image Storage" in kind.name or (kind.name == str(kind) and not vendor)


def _nothing(
    named: list[Path], headers: dict[Path, Header], others: list[Header], broken: bool, single: bool
) -> MedsegError:
    """The error for files none of which is an image."""
    kinds = [header for header in others if other_kind(header)]
    if broken and not kinds:
        return FormatError("A DICOM file has a damaged or truncated header; get it again.")
    if single or (kinds and len(kinds) == len(headers)):
        return unreadable(kinds[0] if kinds else next(iter(headers.values()), Header(named[0], {}, "", None)))
    where = named[0] if len(named) == 1 else "What was given"
    return MissingError(f"{where} holds no DICOM slice; name the folder or file that holds the images.")


def _absent(headers: dict[Path, Header], named: list[Path]) -> Iterator[str]:
    """What to say of a DICOMDIR that lies in a folder and lists files that are gone."""
    for path, header in headers.items():
        if not _is_directory(header) or path in named:
            continue
        try:
            _, absent = _listed(header)
        except FormatError:
            yield "A DICOMDIR is damaged, so whether all its files are there is unknown"
            continue
        if absent:
            yield f"A DICOMDIR lists {absent} files that are not there: a volume may lack slices"


def _passed_over(rest: list[Path], homes: set[Path]) -> Iterator[str]:
    """What to say of files that may be slices and are not read, and take them out of the rest.

    These are files named like DICOM, and empty or packed ones in the folders where the slices are.
    """
    beside = [file for file in rest if file.parent in homes]
    empty = [file for file in beside if not file.stat().st_size]
    packed = [file for file in beside if file.suffix.lower() == ".gz" and _is_packed(file)]
    named = [file for file in rest if file.suffix.lower() in FORMATS["dicom"] and file not in empty]
    for found, what in (
        (empty, "empty files lie beside the slices: a volume may lack slices"),
        (packed, "DICOM files beside the slices are packed with gzip and were not read; unpack them"),
        (named, "files named like DICOM are not DICOM and were passed over"),
    ):
        if found:
            yield f"{len(found)} {what}"
            rest[:] = [file for file in rest if file not in found]


def _is_packed(path: Path) -> bool:
    """Whether a DICOM file with its preamble is packed in a gzip file."""
    try:
        with gzip.open(path) as stream:
            return stream.read(132)[128:] == b"DICM"
    except (OSError, EOFError, zlib.error):
        return False


def _others(rest: list[Path], others: list[Header]) -> Iterator[str]:
    """Notes on what else was passed over."""
    if rest:
        yield f"{len(rest)} files that are not DICOM were passed over"
    masks = [header for header in others if (other_kind(header) or "").endswith("load_labels")]
    if masks:
        yield f"{len(masks)} DICOM segmentations or structure sets were passed over"
    if len(others) > len(masks):
        yield f"{len(others) - len(masks)} DICOM files without pixels were passed over"
