"""What a case is, how it is named by its content, and how names are kept out of what is said about it."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import InputError, MedsegError
from medseg.io.names import stem, suffix

_HEADERS = (".mhd", ".nhdr")  # their voxels lie in files beside them
# words of messages that folders and files are often named by; written otherwise, as Case, they may be somebody's
_NOBODY = re.compile("case|data|dicom|files?|images?|labels?|mask|model|scan|series|slice|study|volume")
_WHOSE = 4  # characters from which a part of a path is taken for a name wherever it stands


@dataclass(frozen=True)
class Input:
    """One image of a case.

    Parameters
    ----------
    files : tuple of Path
        One file, or those of a DICOM series.
    role : str
        Which of the model's inputs it is; empty where a case has one image.
    series : str
        Key of the DICOM series among the files.
    """

    files: tuple[Path, ...]
    role: str = ""
    series: str = ""


@dataclass(frozen=True)
class Case:
    """One case as it was found.

    Parameters
    ----------
    kind : str
        "dicom", "bids", "nnunet", "file", "list" or "plate".
    inputs : tuple of Input
        In the order of channels.
    facts : mapping
        What is known of it before it is read, such as modality: what cases are chosen by.
    label : str
        BIDS name, which is a pseudonym; else empty.
    place : str
        BIDS folder below the root, such as "sub-01/anat"; else empty.
    fault : str
        Why it cannot be done, where that shows before it is read.
    name : str
        Name that the key has for it; kept as long as the content is the same.
    """

    kind: str
    inputs: tuple[Input, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    place: str = ""
    fault: str = ""
    name: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(file for one in self.inputs for file in one.files)

    @property
    def root(self) -> Path:
        """The BIDS data set it is of."""
        return self.files[0].absolute().parents[len(Path(self.place).parts)]


@dataclass(frozen=True)
class Named:
    """A case with its name, the hash of its input, and what it can be known by without the key.

    Parameters
    ----------
    name : str
        Says nothing about the patient.
    digest : str
        SHA-256 over all input bytes, in hex; of the place, keyed by a secret, where they cannot be read.
    hashes : tuple of str
        SHA-256 of each file.
    case : Case
        As found.
    unread : str
        Why its input cannot be read now, which may be otherwise when it is tried again; else empty.
    """

    name: str
    digest: str
    hashes: tuple[str, ...]
    case: Case
    unread: str = ""


def named(cases: Iterable[Case], secret: bytes) -> Iterator[Named]:
    """Name cases by a hash of their content; equal content gets numbers, so that each case has a name of its own.

    Parameters
    ----------
    cases
        In a fixed order.
    secret
        Key for the names of inputs that cannot be read, which have no content to be named by.

    Yields
    ------
    Named
        One for each case.
    """
    taken: set[str] = set()
    for case in cases:
        unread = ""
        try:
            hashes = tuple(_hash(file) for one in case.inputs for file in _stored(one))
            digest = _digest(case, hashes)
        except (OSError, MedsegError) as error:
            # absolute, as the key has it: or another working folder, and a retry, would make another case of it
            places = [os.path.abspath(str(file).replace("\0", "")) for file in case.files]
            place = "\0".join(places).encode("utf-8", "surrogateescape")
            hashes, digest = (), hmac.new(secret, place, hashlib.sha256).hexdigest()
            told = error.strerror if isinstance(error, OSError) and error.strerror else "a file is missing or damaged"
            unread = f"the input cannot be read ({told}); check the path and its permissions"
        name = case.label or f"case-{digest[:12]}"
        if re.fullmatch(rf"{re.escape(name)}(-\d+)?", case.name):
            name = case.name
        number = 1
        while (unique := name if number == 1 else f"{name}-{number}").casefold() in taken:
            number += 1
        taken.add(unique.casefold())
        yield Named(unique, digest, hashes, case, unread)


def _stored(one: Input) -> tuple[Path, ...]:
    """Every file that holds a part of an image."""
    if len(one.files) == 1 and suffix(one.files[0]) in _HEADERS:
        from medseg import io

        source = io.load(one.files[0]).source
        return source.files if source else one.files
    return one.files


def _hash(path: Path) -> str:
    if not path.is_file():  # a pipe or a device has no end
        raise FileNotFoundError(errno.ENOENT, "it is not there, or no file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(case: Case, hashes: tuple[str, ...]) -> str:
    # slices of a series count in any order: their places say where they belong
    parts = sorted(hashes) if case.kind == "dicom" else list(hashes)
    roles = [f"{one.role}|{one.series}|{len(one.files)}" for one in case.inputs]
    return hashlib.sha256("\n".join([*roles, *parts]).encode()).hexdigest()


class Scrubber:
    """Takes names of files and folders out of text; what is left may stand in ledgers, reports and tables.

    Parameters
    ----------
    files
        Inputs of a case.
    name
        What stands in their place.
    folder
        Where results are staged; its path is taken out.

    Examples
    --------
    >>> Scrubber([Path("/data/Doe_Jane/scan_0815.nii")], "case-1")("scan_0815.nii is a damaged NIfTI file")
    'case-1 is a damaged NIfTI file'
    """

    def __init__(self, files: Iterable[Path], name: str, folder: Path | None = None) -> None:
        self._folder = f"{folder}{os.sep}" if folder else ""
        words: dict[str, None] = {}
        for path in files:
            for one in (path, path.absolute(), path.resolve()):
                words |= dict.fromkeys((str(one), str(one.parent), one.name, stem(one)))
                words |= dict.fromkeys(part for part in one.parent.parts if len(part) >= _WHOSE)
        names = (w for w in words if w not in ("", ".", "/", "..") and not _NOBODY.fullmatch(w))
        ordered = sorted(names, key=len, reverse=True)
        # short words only where they stand alone: "a" is a name of a file, and a letter of most words
        parts = [re.escape(w) if len(w) >= 3 * _WHOSE else rf"(?<!\w){re.escape(w)}(?!\w)" for w in ordered]
        self._pattern = re.compile("|".join(parts)) if parts else None
        self._name = name

    def __call__(self, text: str) -> str:
        """Return text, in one line, without names."""
        text = text.replace(self._folder, "") if self._folder else text
        clean = self._pattern.sub(self._name.replace("\\", r"\\"), text) if self._pattern else text
        return " ".join("".join(c if c.isprintable() else " " for c in clean).split())


def chosen(cases: Iterable[Case], where: Mapping[str, str]) -> tuple[list[Case], int]:
    """Cases whose facts are those asked for, and how many are not.

    Raises
    ------
    InputError
        No case has such a fact at all.
    """
    every = list(cases)
    for name in where:
        if every and not any(name in case.facts for case in every):
            known = sorted({fact for case in every for fact in case.facts})
            raise InputError(f"no case says {name!r}, so --where cannot choose by it; they say {', '.join(known)}")
    kept = [c for c in every if all(c.facts.get(k, "").casefold() == v.casefold() for k, v in where.items())]
    return kept, len(every) - len(kept)
