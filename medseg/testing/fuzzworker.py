"""The process of `medseg.testing.fuzz` that reads damaged files: limited in memory, and it says what came out."""

from __future__ import annotations

import os
import traceback
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from medseg.errors import MedsegError, MedsegWarning
from medseg.io import limits
from medseg.testing.seedreaders import READERS
from medseg.testing.seeds import Seed

CLAIM_GB = 0.2  # of one image, as a user would set it beside such a limit on memory


def serve(line: Connection, folder: Path, cap: int, sound: tuple[Seed, ...]) -> None:
    """Read files as they are named, and answer each: the main function of a worker process."""
    os.environ[limits.VARIABLE] = str(CLAIM_GB)
    with suppress(OSError):  # what decoders say is not for the one who reads the report
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import faulthandler

    with (folder / "stderr").open("wb") as stderr:
        os.dup2(stderr.fileno(), 2)
        faulthandler.enable()
        for seed in sound:  # every library is loaded before the limit is set, and every seed is sound
            path = folder / f"warm-{seed.name}"
            path.write_bytes(seed.data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                READERS[seed.reader](path, folder / "ct")
        _limit(cap)
        line.send("ready")
        with suppress(EOFError, KeyboardInterrupt):
            while True:
                reader, path = line.recv()
                line.send(outcome(reader, path, folder / "ct"))


def _limit(cap: int) -> None:
    """Let this process and its children take so many bytes more, where the system knows of such limits."""
    try:
        import resource

        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + cap, size + cap))
    except (ImportError, OSError, ValueError):
        warnings.warn("no limit on memory here", MedsegWarning, stacklevel=1)


def outcome(reader: str, path: Path, ct: Path) -> tuple[str, str]:
    """Read a file and say what came out: "value", "error", or what a `Finding` calls it, and a detail."""
    from medseg.testing.series import NAME

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            READERS[reader](path, ct)
        except BaseException as error:  # decoders raise PanicException, which is no Exception
            if _short(error):
                return "memory", traceback.format_exc(-6)
            if not isinstance(error, MedsegError):
                return "exception", traceback.format_exc(-6)
            said = str(error)
        else:
            said = ""
    leaked = [one for one in told if not issubclass(one.category, MedsegWarning)]
    if leaked:
        return (
            "warning",
            f"{leaked[0].category.__name__} at {leaked[0].filename}:{leaked[0].lineno}: {leaked[0].message}",
        )
    if any(NAME.split("^")[0] in text for text in (said, *(str(one.message) for one in told))):
        return "name", said
    return ("error" if said else "value"), said


def _short(error: BaseException | None) -> bool:
    """Whether memory ran out underneath, whatever it was called above."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
