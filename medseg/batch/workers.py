"""Worker processes of this machine as the supervisor sees them. And who is alive at all."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.batch.crew import Held, Message
from medseg.batch.steps import Task
from medseg.batch.work import start
from medseg.ops.files import alive
from medseg.spec import BatchSpec

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_GIB = 1 << 30


@dataclass
class Process:
    """A slot that is a worker process of this machine."""

    process: BaseProcess
    line: Connection
    held: dict[str, Held] = field(default_factory=dict)
    _sender: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def hand(self, one: Held) -> None:
        """Hand it a case; a long list of files must not keep us waiting while it is busy."""
        self.held[one.claim.token] = one
        self._sender.submit(self._send, one.task)

    def hear(self) -> Message:
        """Return what it says; raises EOFError or OSError if it is gone."""
        what, token, more = self.line.recv()
        return what, token, more

    def _send(self, task: Task | None) -> None:
        with suppress(OSError, ValueError):  # it is gone, which shows when its line is read
            self.line.send(task)

    def gibibytes(self) -> float:
        """Memory it holds; 0 where the system does not say (only Linux does)."""
        try:
            with open(f"/proc/{self.process.pid}/statm", "rb", buffering=0) as file:
                pages = int(file.read().split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / _GIB

    def dismiss(self) -> None:
        """Let it end by itself."""
        self._sender.submit(self._send, None)
        self.process.join(10)
        self.kill()

    def kill(self, stuck: bool = False) -> None:
        """End it now."""
        self.process.kill()
        self.process.join()
        self._sender.shutdown(wait=True, cancel_futures=True)
        self.line.close()


class LocalCrew:
    """Processes of this machine.

    Parameters
    ----------
    spec : BatchSpec
        How many there are, and what they do.
    """

    ahead = 3  # one case is read, one computed, one written

    def __init__(self, spec: BatchSpec) -> None:
        self._spec = spec

    def gone(self) -> str:
        """Return nothing: this machine is here."""
        return ""

    def news(self) -> list[str]:
        """Return nothing: there is nothing to know of this machine."""
        return []

    def size(self) -> int:
        """Return how many there may be."""
        return self._spec.jobs

    def slot(self) -> Process:
        """Start a worker."""
        context = get_context("spawn")  # a fork would copy locks that other threads hold
        ours, theirs = context.Pipe()
        process = context.Process(target=start, args=(theirs, self._spec), daemon=True)
        with _threads(self._spec.threads), _deaf():
            process.start()
        theirs.close()
        return Process(process, ours)

    def wait(self, slots: Sequence[Process], seconds: float) -> list[Process]:
        """Return those that have said something, or died."""
        lines: dict[Any, Process] = {one.line: one for one in slots}
        if not lines:
            time.sleep(seconds)
            return []
        return [lines[line] for line in wait(list(lines), seconds)]

    def close(self) -> None:
        """Do nothing: the processes were slots."""


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


def living(worker: str) -> bool:
    """Whether a process of this machine is known to be there."""
    host, number, *_ = (*worker.split("|"), "", "")
    return host == socket.gethostname() and number.isdecimal() and alive(int(number)) and not dead(worker)


def _born(pid: int) -> str:
    """When a process was started, as Linux counts; "" if it is gone or a zombie, or where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""
