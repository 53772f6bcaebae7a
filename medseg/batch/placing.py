"""From staging to the final names: files become results when all of them are whole, and are checked later on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import medseg
from medseg.batch.values import Output
from medseg.errors import OutputError
from medseg.ops.files import sync_folder, write_whole

STAGING = ".staging"
BEGUN = ".begun"  # in a staging folder: who works on it
_BIDS_DESCRIPTION = {
    "Name": "medseg instance segmentation",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "medseg", "Version": medseg.__version__}],
}
_BIDS_IGNORE = (
    "*.parquet\n*_overlay.png\n*_provenance.json\n*.sqlite*\nkey.csv\nbatch.json\ninstances.csv\nreport.html\n"
)


def write_bids_description(folder: Path, raw: Path) -> None:
    """Write what makes an output folder a BIDS derivative of the data set `raw`.

    Where that lies is said if the folder is a part of it, as derivatives/medseg: any other path holds names.
    """
    up = os.path.relpath(raw.resolve(), folder.resolve())
    known = {"DatasetLinks": {"raw": Path(up).as_posix()}} if set(Path(up).parts) == {os.pardir} else {}
    text = json.dumps(_BIDS_DESCRIPTION | known, indent=2) + "\n"
    write_whole(folder / "dataset_description.json", text.encode())
    write_whole(folder / ".bidsignore", _BIDS_IGNORE.encode())


def outputs(staged: Path) -> tuple[Output, ...]:
    """Whole files in a staging folder, by the path they will have."""
    files = sorted(file for file in staged.rglob("*") if file.is_file() and file.name != BEGUN)
    return tuple(Output(f.relative_to(staged).as_posix(), _sha256(f), f.stat().st_size) for f in files)


def place(staged: Path, folder: Path, files: Iterable[Output]) -> None:
    """Give staged files their final names.

    Raises
    ------
    OutputError
        A folder cannot be made or written, or is a link that leads elsewhere.
    """
    top, placed, homes = folder.resolve(), [], {folder}
    try:
        for one in files:
            final = folder / one.path
            make(final.parent)
            if top not in final.resolve().parents:
                raise OutputError(f"{Path(one.path).parent}: leads out of the output folder; remove the link")
            os.replace(staged / one.path, final)
            placed.append(final)
            homes |= {home for home in final.parents if folder in home.parents}
        for home in homes:
            sync_folder(home)
    except OSError as error:
        for final in placed:  # or a case that failed would leave half of its files
            final.unlink(missing_ok=True)
        if isinstance(error, OutputError):
            raise
        fault = OutputError(f"{one.path}: cannot be written ({error.strerror}); check space and permission")
        fault.errno = error.errno
        raise fault from None


def take_back(folder: Path, files: Iterable[Output]) -> None:
    """Remove placed files that do not count after all."""
    for one in files:
        with suppress(OSError):
            (folder / one.path).unlink()
        with suppress(OSError):  # others may lie there too
            (folder / one.path).parent.rmdir()


def broken(folder: Path, files: Iterable[Output]) -> bool:
    """Whether a file is gone or is not what was written."""
    every = list(files)
    try:
        return not every or any(
            (folder / f.path).stat().st_size != f.size or _sha256(folder / f.path) != f.sha256 for f in every
        )
    except OSError:
        return True


def make(folder: Path) -> None:
    """Make a folder.

    Raises
    ------
    OutputError
        No space, no permission, or a file is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = OutputError(f"{folder.name}: cannot be made a folder ({error.strerror}); check space and permission")
        fault.errno = error.errno
        raise fault from None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
