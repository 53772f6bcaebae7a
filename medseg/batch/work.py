"""A worker: a process that loads the model once and does the cases it is handed, each in three steps that overlap.

While one case is computed, the next is read and the one before is written. What goes wrong in a case is its outcome; what
kills the process is seen by the supervisor. Nothing a library prints leaves the process: it could quote a header.
"""

from __future__ import annotations

import errno
import os
import queue
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from medseg.batch.cases import Case, Scrubber
from medseg.batch.values import Result
from medseg.errors import DeviceError, MedsegError, MedsegWarning, fault
from medseg.spec import BatchSpec

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXT = "there is no space left for the results; make room and run the batch again"
# Reading and writing collect warnings, which Python keeps for the process as a whole: one at a time.
_ALOUD = threading.Lock()


@dataclass(frozen=True)
class Task:
    """A case as a worker is handed it."""

    token: str
    name: str
    case: Case
    hashes: tuple[str, ...]
    folder: Path
    place: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a case failed: the kind of error and one line, both free of names."""

    error_class: str
    error: str
    full: bool = False
    again: bool = False


@dataclass
class _Job:
    """A case on its way through the steps."""

    task: Task
    scrub: Scrubber
    image: Any = None
    found: Any = None
    result: Result | None = None
    failure: Failure | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Worker:
    """The steps of the cases of one process, and the line to the supervisor."""

    def __init__(self, line: Connection, spec: BatchSpec) -> None:
        from medseg.batch.images import known_channels
        from medseg.case import finder

        self._line, self._spec, self._lock = line, spec, threading.Lock()
        self._source = finder(spec.case)
        self._known = known_channels(spec)
        self._read: queue.Queue[_Job | None] = queue.Queue(1)
        self._found: queue.Queue[_Job | None] = queue.Queue(1)

    def serve(self) -> None:
        """Do what is handed over the line until it says None."""
        self._source.check()
        self._say("ready", "", None)
        threads = [threading.Thread(target=step, daemon=True) for step in (self._reading, self._writing)]
        for thread in threads:
            thread.start()
        while (job := self._read.get()) is not None:
            self._step("find", job, self._find)
            self._found.put(job)
        self._found.put(None)
        threads[1].join()

    def _reading(self) -> None:
        try:
            while (task := self._line.recv()) is not None:
                job = _Job(task, Scrubber(task.case.files, task.name, task.folder))
                with _ALOUD:
                    self._step("read", job, self._load)
                self._read.put(job)
            self._read.put(None)
        except (EOFError, OSError):
            os._exit(1)  # the supervisor is gone; what is half done is nobody's

    def _writing(self) -> None:
        while (job := self._found.get()) is not None:
            with _ALOUD:
                self._step("write", job, self._write)
            job.image = job.found = None  # or it would be held until the next case is here
            self._say("failed" if job.failure else "done", job.task.token, job.failure or job.result)

    def _step(self, stage: str, job: _Job, act: Callable[[_Job], None]) -> None:
        """Do one step of a case that has not failed yet; whatever is raised is why it fails."""
        if job.failure is not None:
            return
        started = time.monotonic()
        self._say("begin", job.task.token, stage)
        try:
            act(job)
        except BaseException as error:  # also a fault of ours; decoders in Rust raise what is no Exception
            job.failure = _failure(error, job.scrub)
            job.image = job.found = None
        job.seconds[stage] = time.monotonic() - started
        self._say("end", job.task.token, stage)

    def _say(self, what: str, token: str, more: Any) -> None:
        with self._lock:
            self._line.send((what, token, more))

    def _load(self, job: _Job) -> None:
        from medseg.batch.images import load

        with _listening(job):
            image = load(job.task.case, self._spec, self._known)
            image.voxels()  # here and now, while another case is computed
        job.image = image

    def _find(self, job: _Job) -> None:
        from medseg.pipeline import Finished

        _seed(self._spec.seed)
        for event in self._source.events(job.image):
            if isinstance(event, Finished):
                job.found = event
        job.notes += map(job.scrub, job.found.notes)

    def _write(self, job: _Job) -> None:
        from medseg.batch import outputs, placing

        task, image, found = job.task, job.image, job.found.instances
        started = time.monotonic()
        with _listening(job):
            table = outputs.write_case(found, image, task.folder, task.name, task.place, self._spec)
        told = [*job.notes, *map(job.scrub, image.source.notes if image.source else ())]
        job.notes = list(dict.fromkeys(told))
        job.seconds["write"] = time.monotonic() - started
        outputs.write_provenance(task.folder, task.name, task.place, self._record(job))
        size = next((c for c in table.columns if c.startswith(("volume_", "area_"))), None)
        facts = {
            "modality": image.modality,
            "shape": list(image.grid.shape),
            "notes": job.notes,
            "size": [float(v) for v in table[size].quantile([0.5]).tolist()] if size and len(table) else [],
            "size_name": size or "",
            "score": float(table["score"].mean()) if len(table) and table["score"].notna().any() else None,
        }
        thumb = outputs.thumbnail(image, found)
        seconds = sum(job.seconds.values())
        job.result = Result(placing.outputs(task.folder), round(seconds, 3), len(table), facts, thumb)

    def _record(self, job: _Job) -> dict[str, Any]:
        """What `provenance.json` says."""
        from medseg.batch.outputs import versions

        image, found, case = job.image, job.found.instances, self._spec.case
        kept = ("model", "model_sha256", "method", "head", "device")
        return {
            "case": job.task.name,
            "kind": job.task.case.kind,
            "versions": versions(),
            **{name: found.provenance[name] for name in kept if name in found.provenance},
            "options": case.model_dump(mode="json", exclude={"model"}),
            "seed": self._spec.seed,
            "threads": self._spec.threads,
            "inputs": [{"sha256": one} for one in job.task.hashes],
            "roles": [one.role for one in job.task.case.inputs],
            "geometry": {
                "grid": image.grid.describe(),
                "shape": list(image.grid.shape),
                "spacing_mm": [float(s) for s in image.grid.spacing] if image.grid.known else None,
                "axes": list(image.grid.axes),
                "modality": image.modality,
            },
            "notes": job.notes,
            "instances": len(found),
            "seconds": {stage: round(s, 3) for stage, s in job.seconds.items()},
        }


@contextmanager
def _listening(job: _Job) -> Iterator[None]:
    """Keep what is warned of as notes of the case. One step at a time does so: `_ALOUD`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        yield
    job.notes += [job.scrub(str(w.message)) for w in caught if issubclass(w.category, MedsegWarning)]


def _seed(number: int) -> None:
    import numpy as np

    random.seed(number)
    np.random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


def _failure(error: BaseException, scrub: Scrubber) -> Failure:
    """Why a case failed. Messages of libraries are left out: they may quote a header."""
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno in FULL:
        return Failure(name, FULL_TEXT, full=True)
    if isinstance(error, MedsegError):
        return Failure(name, scrub(str(error)))
    if isinstance(error, MemoryError):
        return Failure(name, "does not fit into memory; crop it or use a larger machine")
    if isinstance(error, OSError):
        text = f"cannot be read ({error.strerror or name}); check the path and its permissions"
        return Failure(name, text, again=True)
    return Failure(name, fault(error))


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
            line.send(("broken", "", DeviceError(_failure(error, Scrubber((), "")).error)))


def _orphaned() -> None:
    """End as soon as the supervisor has: nobody would take the result, and who goes on needs the memory."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
