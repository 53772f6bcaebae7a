"""Fuzzing: damaged files of every kind go through the public readers, and only a value or a typed error may come out.

``python -m medseg.testing.fuzz 20000`` reads that many mutants, ``--only 1234`` one of them again, by its number.

Each is read, header and voxels, in a process that may take `CAP` bytes more than its libraries have, and `SECONDS`. A finding is
an exception outside of `medseg.errors`, want of memory, a hang, a death, a foreign warning, or a message with a name. The
process goes on with the next file, and is replaced if it died or had to be ended. Mutants are made from their number alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.testing.fuzzworker import serve
from medseg.testing.mutations import mutated
from medseg.testing.seeds import Seed, seeds, series

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

CAP = 1 << 30  # bytes of address space beyond what the loaded libraries have
SECONDS = 30.0
_START = 180.0  # seconds until a process has loaded its libraries


@dataclass(frozen=True)
class Finding:
    """A mutant that was not taken as it should be.

    Parameters
    ----------
    number : int
        Seed of the mutant: ``python -m medseg.testing.fuzz --only NUMBER``.
    seed : str
        Name of the file it was made from.
    how : str
        Mutations.
    what : str
        "exception", "memory", "hang", "death", "warning" or "name".
    detail : str
        Where it came from.
    """

    number: int
    seed: str
    how: str
    what: str
    detail: str

    def __str__(self) -> str:
        """One line and the traceback."""
        return f"{self.number} {self.seed} ({self.how}): {self.what}\n{self.detail}"


@dataclass
class Report:
    """What came out: by file, how many gave a value and how many an error; and what should not have."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of mutants."""
        return sum(self.counts.values())

    def table(self) -> str:
        """Lines: file, mutants, values, errors."""
        names = sorted({name for name, _ in self.counts})
        rows = [(n, self.counts[n, "value"], self.counts[n, "error"]) for n in names]
        return "\n".join(f"{n:24} {v + e:6} mutants {v:6} values {e:6} errors" for n, v, e in rows)


def mutant(number: int) -> tuple[Seed, bytes, str]:
    """Make one: the file it comes from, its bytes, and how they were changed."""
    every = seeds()
    draw = np.random.default_rng(number)
    seed = every[number % len(every)]
    alike = [one for one in every if one.kind == seed.kind]
    data, how = mutated(seed.data, alike[int(draw.integers(len(alike)))].data, seed.kind, draw)
    return seed, data, how


# ------------------------------------------------------------------ the one that watches


class _Worker:
    """A process that reads, and the line to it."""

    def __init__(self, folder: Path, cap: int, sound: tuple[Seed, ...]) -> None:
        context = get_context("spawn")
        self.line, theirs = context.Pipe()
        self.folder = folder
        self.process: SpawnProcess = context.Process(target=serve, args=(theirs, folder, cap, sound))
        self.process.start()
        theirs.close()
        if not self.line.poll(_START) or self._answer() != "ready":
            self.kill()
            raise RuntimeError(f"no seed may fail: {self.stderr()}")

    def _answer(self) -> Any:
        try:
            return self.line.recv()
        except (EOFError, OSError):
            return None

    def read(self, reader: str, path: Path, seconds: float) -> tuple[str, str]:
        """Have a file read; a process that hangs is killed."""
        with suppress(OSError):  # it died meanwhile, which shows below
            self.line.send((reader, path))
        if not self.line.poll(seconds):
            self.kill()
            return "hang", f"longer than {seconds:g} s"
        answer: tuple[str, str] | None = self._answer()
        if answer is None:
            self.kill()
            return "death", f"exit code {self.process.exitcode}\n{self.stderr()}"
        return answer

    def stderr(self) -> str:
        """The end of what it said."""
        with suppress(OSError):
            return (self.folder / "stderr").read_text(errors="replace")[-1500:]
        return ""

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.join()
        self.line.close()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return not self.line.closed


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="medseg-fuzz-", ignore_cleanup_errors=True) as name:
        series(Path(name))
        yield Path(name)


def run(
    numbers: Iterable[int],
    *,
    cap: int = CAP,
    seconds: float = SECONDS,
    keep: Path | None = None,
    until: float = np.inf,
    tell: Callable[[Finding], object] | None = None,
) -> Report:
    """Read mutants and report.

    Parameters
    ----------
    numbers : iterable of int
        Which.
    cap : int
        Bytes a process may take beyond what its libraries have.
    seconds : float
        Longest time for one file.
    keep : Path, optional
        Folder for the mutants of all findings, named by their number.
    until : float
        `time.monotonic` at which to stop early.
    tell : callable, optional
        Is given each finding as it is made.
    """
    report, worker = Report(), None
    with _folder() as folder:
        try:
            for number in numbers:
                if time.monotonic() > until:
                    break
                seed, data, how = mutant(number)
                path = folder / seed.name
                path.write_bytes(data)
                worker = worker if worker is not None and worker.alive else _Worker(folder, cap, seeds())
                what, detail = worker.read(seed.reader, path, seconds)
                for left in folder.glob(f"{seed.name}*"):
                    left.unlink(missing_ok=True)  # also what a session has beside itself
                report.counts[seed.name, what] += 1
                if what in ("value", "error"):
                    continue
                report.findings.append(Finding(number, seed.name, how, what, detail))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{number}-{seed.name}").write_bytes(data)
                if tell is not None:
                    tell(report.findings[-1])
        finally:
            if worker is not None and worker.alive:
                worker.kill()
    return report


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the exit code is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m medseg.testing.fuzz", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=2000, help="how many mutants (2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, metavar="SEED", help="one mutant, by its number")
    parser.add_argument("--keep", type=Path, help="folder for the files that were not taken as they should be")
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop after so many minutes")
    told = parser.parse_args(arguments)
    numbers = [told.only] if told.only is not None else range(told.first, told.first + told.count)
    start = time.monotonic()
    report = run(numbers, keep=told.keep, until=start + 60 * told.minutes, tell=_say)
    _say(report.table())
    _say(f"{report.total} mutants in {time.monotonic() - start:.0f} s, {len(report.findings)} findings")
    return int(bool(report.findings))


if __name__ == "__main__":
    from medseg.testing.fuzz import main as entry  # so that processes find its functions by their right name

    sys.exit(entry())
