"""Autosave: every edit is on disk before the next one can be made, so that a crash costs at most one.

One SQLite file a session (write-ahead log), in a folder that the user alone can read: the labels it began with, the edits with what
each changed in voxels and table, and how far they were undone. It is also the session itself: opened again, undo still works.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Self

from medseg.errors import FormatError, OutputError
from medseg.io.limits import check_claim
from medseg.ops.deltas import Delta

_FORMAT = 1
_LABEL = 4  # bytes of a label


@dataclass(frozen=True)
class Row:
    """What the table says of one instance, measurements aside.

    Parameters
    ----------
    id, kind, score
        Number, class name, score (None where a person drew it).
    voxels, centroid, box
        Count; array index; start then stop of each axis, half-open; of the axes of space alone.
    status
        "", "accepted" or "rejected".
    edited
        Whether a person changed its voxels.
    seconds
        Time it was looked at in review.
    revision
        Another one for each state of its voxels.
    finding_site, role, nodal
        What a person said of it, for the table, SEG and SR.
    long_axis, short_axis
        End points (two voxel indices each) where a person moved the calipers.
    time
        When it is, in a time series, from 0; None in an image.
    """

    id: int
    kind: str
    score: float | None
    voxels: int
    centroid: tuple[float, ...]
    box: tuple[int, ...]
    status: str = ""
    edited: bool = False
    seconds: float = 0.0
    revision: int = 0
    finding_site: str = ""
    role: str = ""
    nodal: bool = False
    long_axis: tuple[tuple[float, ...], ...] = ()
    short_axis: tuple[tuple[float, ...], ...] = ()
    time: int | None = None

    @property
    def where(self) -> tuple[float, ...]:
        """Middle, as an index of the whole array: with the time in front, where there is one."""
        return self.centroid if self.time is None else (float(self.time), *self.centroid)

    @property
    def span(self) -> tuple[int, ...]:
        """Box in the whole array."""
        if self.time is None:
            return self.box
        n = len(self.centroid)
        return (self.time, *self.box[:n], self.time + 1, *self.box[n:])

    @classmethod
    def parsed(cls, value: dict[str, Any]) -> Self:
        """Read a row from JSON."""
        told: dict[str, Any] = dict(value)
        score = told["score"]
        if not (_integers(told["id"], told["voxels"], told.get("revision", 0)) and isinstance(told["kind"], str)):
            raise TypeError
        if not (score is None or isinstance(score, (int, float))) or told["id"] < 1:
            raise TypeError
        for name in ("centroid", "box"):
            told[name] = tuple(told[name])
        for name in ("long_axis", "short_axis"):
            told[name] = tuple(tuple(map(float, end)) for end in told[name])
        told["centroid"] = tuple(map(float, told["centroid"]))
        if not _integers(*told["box"]) or len(told["box"]) != 2 * len(told["centroid"]):
            raise TypeError
        if told.get("time") is not None and not _integers(told["time"]):
            raise TypeError
        return cls(**told)

    def changed(self, **values: Any) -> Row:
        """Return the row with other values."""
        return replace(self, **values)


@dataclass(frozen=True, eq=False)
class Edit:
    """One step: what it is called, what it changed in voxels, and the rows it took away and put in their place."""

    name: str
    delta: Delta
    before: dict[int, Row]
    after: dict[int, Row]


class Journal:
    """The file of one session.

    Raises
    ------
    OutputError
        The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(path)  # held for as long as the session lives: another window leaves the file alone
        if self._lock is None:
            raise OutputError(f"{path.name}: is open in another window")
        fresh = not path.exists()
        try:
            # committed edits live in the log: they survive a killed process, if not a power cut in the last instant
            self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            os.chmod(path, 0o600)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            if fresh:
                self._file.executescript(
                    "CREATE TABLE about(key TEXT PRIMARY KEY, value TEXT);"
                    "CREATE TABLE base(labels BLOB);"
                    "CREATE TABLE edits(number INTEGER PRIMARY KEY, name TEXT, delta BLOB, before TEXT, after TEXT);"
                )
        except (sqlite3.Error, OSError, UnicodeDecodeError):  # SQLite quotes a damaged file in its message
            raise OutputError(f"{path.name}: autosave cannot write here; check space and permission") from None

    def begin(self, about: dict[str, Any], base: Delta, rows: dict[int, Row]) -> None:
        """Write what the session starts from."""
        told = {**about, "format": _FORMAT, "shape": base.shape, "rows": _dump(rows), "position": 0, "at": time.time()}
        with self._written():
            self._file.execute("DELETE FROM edits")
            self._file.execute("DELETE FROM base")
            self._file.execute("INSERT INTO base VALUES (?)", (base.to_bytes(),))
            for key, value in told.items():
                self._file.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value, default=str)))

    def add(self, number: int, edit: Edit) -> None:
        """Write an edit as number ``number`` (from 1), in place of what was undone."""
        with self._written():
            self._file.execute("DELETE FROM edits WHERE number >= ?", (number,))
            row = (number, edit.name, edit.delta.to_bytes(), _dump(edit.before), _dump(edit.after))
            self._file.execute("INSERT INTO edits VALUES (?, ?, ?, ?, ?)", row)
            self._set("position", number)

    def amend(self, number: int, edit: Edit) -> None:
        """Write the rows of an edit again."""
        with self._written():
            rows = (_dump(edit.before), _dump(edit.after), number)
            self._file.execute("UPDATE edits SET before = ?, after = ? WHERE number = ?", rows)

    def move(self, position: int) -> None:
        """Write how many edits are in force."""
        with self._written():
            self._set("position", position)

    def _set(self, key: str, value: Any) -> None:
        self._file.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))

    def about(self) -> dict[str, Any]:
        """Return what `begin` was told, and ``position``, ``shape``, ``rows``.

        Raises
        ------
        FormatError
            The file is damaged or of another version.
        """
        try:
            found = {key: json.loads(value) for key, value in self._file.execute("SELECT key, value FROM about")}
            if found["format"] != _FORMAT:
                raise ValueError
            found["rows"] = _load(found["rows"])
            found["shape"] = tuple(found["shape"])
            if not _integers(*found["shape"], found["position"]):
                raise ValueError
            timed = found["timed"] = found.get("timed") is True
            if len(found["shape"]) - timed not in (2, 3) or min(found["shape"]) < 1 or found["position"] < 0:
                raise ValueError
            if not all(_fits(row, found["shape"], timed) for row in found["rows"].values()):
                raise ValueError
            if not all(isinstance(file, str) for file in found.get("files") or ()):
                raise ValueError
        except (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            raise FormatError(f"{self.path.name}: is no session of this medseg, or is damaged") from None
        check_claim(prod(found["shape"]) * _LABEL, self.path)
        return found

    def base(self, shape: tuple[int, ...]) -> Delta:
        """Return the labels that the session began with."""
        try:
            (blob,) = self._file.execute("SELECT labels FROM base").fetchone()
            if not isinstance(blob, bytes):
                raise TypeError
        except (sqlite3.Error, TypeError):
            raise FormatError(f"{self.path.name}: the labels it began with are missing") from None
        return Delta.from_bytes(blob, shape)

    def edits(self, shape: tuple[int, ...]) -> Iterator[Edit]:
        """Give all edits in order, also those that were undone; where one is damaged, those before it."""
        query = "SELECT name, delta, before, after FROM edits ORDER BY number"
        try:
            for name, blob, before, after in self._file.execute(query):
                yield Edit(name, Delta.from_bytes(blob, shape), _load(before), _load(after))
        except (
            sqlite3.Error,
            FormatError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ):
            return

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self.path.with_name(self.path.name + ".lock").unlink(missing_ok=True)

    def remove(self) -> None:
        """Close and delete: the session ended well."""
        self._file.close()
        forget(self.path)
        self.close()

    def _written(self) -> _Transaction:
        return _Transaction(self._file, self.path)


class _Transaction:
    """All or nothing, with one clear error."""

    def __init__(self, file: sqlite3.Connection, path: Path) -> None:
        self._file, self._path = file, path

    def __enter__(self) -> None:
        try:
            self._file.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            raise OutputError(f"{self._path.name}: autosave cannot write; check space and permission") from None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self._file.execute("ROLLBACK" if kind else "COMMIT")
        except sqlite3.Error as failed:
            error = failed
        if isinstance(error, sqlite3.Error):
            raise OutputError(f"{self._path.name}: autosave cannot write; check space and permission") from None


def _integers(*values: Any) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _fits(row: Row, shape: tuple[int, ...], timed: bool) -> bool:
    if (row.time is not None) != timed or len(row.where) != len(shape):
        return False
    return row.time is None or 0 <= row.time < shape[0]


def _dump(rows: dict[int, Row]) -> str:
    return json.dumps([asdict(row) for row in rows.values()])


def _load(text: str) -> dict[int, Row]:
    return {row.id: row for row in (Row.parsed(value) for value in json.loads(text))}


def folder() -> Path:
    """Where sessions are kept: $MEDSEG_SESSIONS, or the user's own state folder."""
    if given := os.environ.get("MEDSEG_SESSIONS"):
        return Path(given)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "medseg" / "sessions"
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "medseg" / "sessions"


def left_over() -> list[Path]:
    """Sessions that did not end well and that no window has open, the newest first."""
    free = []
    for path in folder().glob("*.session"):
        lock = _locked(path)
        if lock is not None:
            os.close(lock)
            free.append(path)
    return sorted(free, key=touched, reverse=True)


def touched(path: Path) -> float:
    """When a session was last written to; its log is newer than the file itself."""
    files = (path, path.with_name(path.name + "-wal"))
    return max(file.stat().st_mtime for file in files if file.exists())


def forget(path: Path) -> None:
    """Delete a session."""
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _locked(path: Path) -> int | None:
    """Lock a session for this window until the number returned is closed; None if another has it."""
    held = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(held, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held
