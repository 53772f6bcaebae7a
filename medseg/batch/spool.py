"""Where received DICOM objects wait: a folder for each series, files for the owner alone, all named by keyed hashes of UIDs.

A series is complete when every association that sent objects of it was released, and nothing has arrived for a while. If a
sender breaks off, what it sent waits until the series is sent to its end.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import secrets
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import MedsegError, OutputError
from medseg.io.dicom.headers import Header, read_header
from medseg.ops.files import sync_folder

# statuses of C-STORE, DICOM PS3.4 table B.2-1
SUCCESS = 0x0000
NO_ROOM = 0xA700
OTHER_KIND = 0xA900
NOT_READ = 0xC000

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_ENDING = ".dcm"


@dataclass
class _Series:
    """A series in the spool: when something arrived last, which senders are not done with it, whether one broke off."""

    last: float
    open: set[int] = field(default_factory=set)
    cut: bool = False
    given: bool = False


class Spool:
    """The spool of a listener.

    Parameters
    ----------
    folder : Path
        Made if it is not there. What lies in it from an earlier run counts as arrived now, and complete.
    secret : bytes
        Key of the hashes that are names.
    largest : int
        Bytes of one object.
    room : int
        Bytes of all.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """

    def __init__(self, folder: Path, secret: bytes, largest: int, room: int) -> None:
        self.folder, self.largest = folder, largest
        self._secret, self._room, self._lock = secret, room, threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for file in folder.rglob("*.part"):
                file.unlink()
            sizes = [file.stat().st_size for file in folder.rglob(f"*{_ENDING}")]
            homes = [home for home in folder.iterdir() if home.is_dir()]
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used as spool ({error.strerror}); choose another --spool") from None
        self._used = sum(sizes)
        self._series = {home.name: _Series(time.monotonic()) for home in homes}

    def take(self, data: bytes, kind: str, instance: str, sender: int) -> int:
        """Keep an object, or refuse it; returns the status of C-STORE.

        Parameters
        ----------
        data
            The object as a whole file.
        kind, instance
            SOP class and instance UID as the request has them.
        sender
            Number of the association.
        """
        with self._lock:
            if len(data) > self.largest or self._used + len(data) > self._room:
                return NO_ROOM
            self._used += len(data)
        kept = 0
        temporary = self.folder / f".{secrets.token_hex(8)}.part"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            header = _header(temporary)
            if header is None:
                return NOT_READ
            if not _fits(header, kind, instance):
                return OTHER_KIND
            kept = self._keep(temporary, header, sender, len(data))
            return SUCCESS
        except OSError as error:
            return NO_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT) else NOT_READ
        finally:
            with suppress(OSError):
                temporary.unlink()
            with self._lock:
                self._used += kept - len(data)

    def _keep(self, temporary: Path, header: Header, sender: int, size: int) -> int:
        """Give an object its place, and return by how many bytes the spool has grown."""
        name = self._named(header.text("StudyInstanceUID"), header.text("SeriesInstanceUID"))
        home = self.folder / name
        final = home / f"{self._named(header.text('SOPInstanceUID'))}{_ENDING}"
        with self._lock:  # or the folder might be removed meanwhile
            home.mkdir(mode=0o700, exist_ok=True)
            before = final.stat().st_size if final.exists() else 0
            os.replace(temporary, final)
            sync_folder(home)
            one = self._series.setdefault(name, _Series(0.0))
            one.last, one.cut, one.given = time.monotonic(), False, False
            one.open.add(sender)
        return size - before

    def _named(self, *uids: str) -> str:
        return hmac.new(self._secret, "\0".join(uids).encode(), hashlib.sha256).hexdigest()[:32]

    def ended(self, sender: int, released: bool) -> bool:
        """Note that an association has ended; returns whether it broke off in the middle of a series."""
        with self._lock:
            mine = [one for one in self._series.values() if sender in one.open]
            for one in mine:
                one.open.discard(sender)
                one.cut = one.cut or not released
        return bool(mine) and not released

    def settled(self, seconds: float) -> list[Path]:
        """Return folders of series that are complete; each once, and again when more came."""
        now, ready = time.monotonic(), []
        with self._lock:
            for name, one in self._series.items():
                if not (one.given or one.open or one.cut) and now - one.last >= seconds:
                    one.given = True
                    ready.append(self.folder / name)
        return ready

    def forget(self, seconds: float) -> None:
        """Remove series that were given and to which nothing came for so long."""
        now = time.monotonic()
        with self._lock:
            old = [name for name, one in self._series.items() if one.given and now - one.last > seconds]
            for name in old:
                with suppress(OSError):
                    self._used -= sum(file.stat().st_size for file in (self.folder / name).iterdir())
                shutil.rmtree(self.folder / name, ignore_errors=True)
                del self._series[name]


def _header(file: Path) -> Header | None:
    """Header of an object; None if it is damaged, whatever is wrong with it."""
    try:
        header = read_header(file)
    except (MedsegError, RecursionError, MemoryError):
        return None
    return header if header is not None and header.pixels is not None else None


def _fits(header: Header, kind: str, instance: str) -> bool:
    """Whether an object is what the request says, and its UIDs are UIDs."""
    uids = [header.text(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    if not all(len(uid) <= 64 and _UID.fullmatch(uid) for uid in uids):
        return False
    return header.text("SOPClassUID") == kind and uids[2] == instance
