"""Worker processes as the supervisor sees them: started, handed cases, watched, killed. And who is alive at all."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.batch.cases import Named
from medseg.batch.values import Claim
from medseg.batch.work import Task, start
from medseg.ops.files import alive
from medseg.spec import BatchSpec

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_GIB = 1 << 30


@dataclass
class Held:
    """A case that a worker has: since when it is in a step, and how long it was in those before."""

    claim: Claim
    case: Named
    task: Task
    since: float | None = None
    spent: float = 0.0

    def seconds(self) -> float:
        """Time spent on it, waiting for its turn left out."""
        return self.spent + (time.monotonic() - self.since if self.since is not None else 0.0)

    def heard(self, what: str) -> None:
        """Note the begin or the end of a step."""
        if what == "begin":
            self.since = time.monotonic()
        else:
            self.spent, self.since = self.seconds(), None


@dataclass
class Slot:
    """One worker process, and the cases it has."""

    process: BaseProcess
    line: Connection
    held: dict[str, Held] = field(default_factory=dict)
    _sender: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def hand(self, one: Held) -> None:
        """Hand it a case; a long list of files must not keep us waiting while it is busy."""
        self.held[one.claim.token] = one
        self._sender.submit(self._send, one.task)

    def _send(self, task: Task | None) -> None:
        with suppress(OSError, ValueError):  # it is gone, which shows when its line is read
            self.line.send(task)

    def gibibytes(self) -> float:
        """Memory it holds; 0 where the system does not say (only Linux does)."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / _GIB

    def dismiss(self) -> None:
        """Let it end by itself."""
        self._sender.submit(self._send, None)
        self.process.join(10)
        self.kill()

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.join()
        self._sender.shutdown(wait=True, cancel_futures=True)
        self.line.close()


def slot(spec: BatchSpec) -> Slot:
    """Start a worker."""
    context = get_context("spawn")  # a fork would copy locks that other threads hold
    ours, theirs = context.Pipe()
    process = context.Process(target=start, args=(theirs, spec), daemon=True)
    with _threads(spec.threads), _deaf():
        process.start()
    theirs.close()
    return Slot(process, ours)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Set the environment that libraries take their number of threads from when they are loaded."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def _deaf() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, even before they can say so themselves; it waits for us meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started later, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---------------------------------------------------------------- who is alive


def identity() -> str:
    """Return what tells a run of this process apart from all others, also of a later process with the same number."""
    return f"{socket.gethostname()}|{os.getpid()}|{_born(os.getpid())}|{secrets.token_hex(4)}"


def dead(worker: str) -> bool:
    """Whether a process of this machine is known to be gone."""
    host, number, born, *_ = (*worker.split("|"), "", "", "")
    if host != socket.gethostname() or not number.isdecimal():
        return False
    now = _born(int(number))
    return now != born if Path("/proc/self/stat").exists() else not alive(int(number))


def _born(pid: int) -> str:
    """When a process was started, as Linux counts; "" if it is gone or a zombie, or where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""
