"""A worker: a process that loads the model once and does the cases it is handed, each in three steps that overlap.

While one case is computed, the next is read and the one before is written. What kills the process is seen by the supervisor.
Nothing a library prints leaves the process: it could quote a header.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import warnings
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from medseg.batch.cases import Scrubber
from medseg.batch.steps import Job, Steps, failure
from medseg.errors import DeviceError, MedsegError
from medseg.spec import BatchSpec


class Worker:
    """The steps of the cases of one process, and the line to the supervisor."""

    def __init__(self, line: Connection, spec: BatchSpec) -> None:
        self._line, self._lock = line, threading.Lock()
        self._steps = Steps(spec, self._say)
        self._read: queue.Queue[Job | None] = queue.Queue(1)
        self._found: queue.Queue[Job | None] = queue.Queue(1)

    def serve(self) -> None:
        """Do what is handed over the line until it says None."""
        self._say("ready", "", None)
        threads = [threading.Thread(target=step, daemon=True) for step in (self._reading, self._writing)]
        for thread in threads:
            thread.start()
        while (job := self._read.get()) is not None:
            self._steps.find(job)
            self._found.put(job)
        self._found.put(None)
        threads[1].join()

    def _reading(self) -> None:
        try:
            while (task := self._line.recv()) is not None:
                job = Job.of(task)
                self._steps.read(job)
                self._read.put(job)
            self._read.put(None)
        except (EOFError, OSError):
            os._exit(1)  # the supervisor is gone; what is half done is nobody's

    def _writing(self) -> None:
        while (job := self._found.get()) is not None:
            self._steps.write(job)
            self._say("failed" if job.failure else "done", job.task.token, job.failure or job.result)

    def _say(self, what: str, token: str, more: Any) -> None:
        with self._lock:
            self._line.send((what, token, more))


def start(line: Connection, spec: BatchSpec) -> None:
    """What a worker process does. Ctrl-C is for the supervisor, and nobody reads what libraries print."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    if not os.environ.get("MEDSEG_TRACEBACK"):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    threading.Thread(target=_orphaned, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        try:
            worker = Worker(line, spec)
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(spec.threads)
            worker.serve()
        except MedsegError as error:  # of the model or the device: no case can be done
            line.send(("broken", "", error))
        except Exception as error:
            line.send(("broken", "", DeviceError(failure(error, Scrubber((), "")).error)))


def _orphaned() -> None:
    """End as soon as the supervisor has: nobody would take the result, and who goes on needs the memory."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
