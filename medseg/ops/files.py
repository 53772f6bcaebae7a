"""Whole files or none: every result is written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from medseg.errors import OutputError

_BINARY = getattr(os, "O_BINARY", 0)


def write_whole(path: str | Path, data: bytes, mode: int = 0o666) -> None:
    """Write ``data`` to ``path`` atomically: a reader finds the old file or the new one, never half of one.

    Parameters
    ----------
    path
        In a folder that is there.
    data
        All of the file.
    mode
        Permissions, less what the umask takes; 0o600 for the owner alone, from the first byte on.

    Raises
    ------
    OutputError
        No space, no permission, or the folder is not there; ``errno`` says which.
    """
    with whole(path, mode) as file:
        file.write(data)


@contextmanager
def whole(path: str | Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write into that becomes ``path`` when the block ends, and nothing if it raises; see `write_whole`."""
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        fault = OutputError(f"{path}: cannot be written ({error.strerror or error}); check space and permission")
        fault.errno = error.errno
        raise fault from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: str | Path) -> None:
    """Flush the names in a folder to disk, so that what was renamed into it stays; nothing where folders cannot be."""
    if os.name == "nt":
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def sweep(folder: Path) -> None:
    """Remove half-written files of processes of this machine that were killed; those of living ones stay."""
    for file in folder.glob(".*.part"):
        pid = file.name.split(".")[-2].partition("-")[0]
        if pid.isdecimal() and not alive(int(pid)):
            file.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether there is a process of this number; where that cannot be told, there is."""
    if os.name == "nt":  # where the question would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
