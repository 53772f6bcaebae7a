"""How many scenes files of microscopes hold: counted in a process of its own, since their decoders are no Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io import scopes

_PATIENCE = 60.0  # seconds that one file may take
_KNOWN: dict[tuple[str, int, int], int] = {}  # by path, size and time: who watches a folder asks again and again


def counts(files: Sequence[Path]) -> dict[Path, int]:
    """Return how many scenes each file holds; 1 for one that cannot be opened, which shows when its turn comes."""
    marks = {file: mark for file in files if (mark := _mark(file)) is not None}
    left = [file for file, mark in marks.items() if mark not in _KNOWN]
    while left:
        told = _told(left)
        _KNOWN.update(zip((marks[file] for file in left), told, strict=False))
        if len(told) < len(left):  # that one ended or held up the process
            _KNOWN[marks[left[len(told)]]] = 1
        left = left[len(told) + 1 :]
    return {file: _KNOWN[marks[file]] if file in marks else 1 for file in files}


def _mark(file: Path) -> tuple[str, int, int] | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return str(file), about.st_size, about.st_mtime_ns


def _told(files: Sequence[Path]) -> list[int]:
    """What a process says of files, one after the other; less than there are if it ended or hung."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    names = b"\0".join(os.fsencode(file.absolute()) for file in files)
    try:
        out, _ = process.communicate(names, timeout=_PATIENCE * len(files))
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
    return [int(line) for line in out.split()][: len(files)]


def _say() -> None:
    """Count, in a process of its own."""
    for name in sys.stdin.buffer.read().split(b"\0"):
        try:
            count = scopes.count(Path(os.fsdecode(name)))
        except MedsegError:
            count = 1
        sys.stdout.write(f"{max(1, count)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _say()
