"""The steps of a case, wherever it is done: read, find, write. What goes wrong in one is its outcome, and names nobody."""

from __future__ import annotations

import errno
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.batch.cases import Case, Scrubber
from medseg.batch.values import Result
from medseg.errors import MedsegError, MedsegWarning, OutputError, fault
from medseg.spec import BatchSpec

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXT = "there is no space left for the results; make room and run the batch again"
# Reading and writing collect warnings, which Python keeps for the process as a whole: one at a time.
_ALOUD = threading.Lock()

Say = Callable[[str, str, Any], None]  # what, token of the case, more


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


DIED = Failure("WorkerDied", "its process was ended, by damaged data or for want of memory", again=True)


@dataclass
class Job:
    """A case on its way through the steps."""

    task: Task
    scrub: Scrubber
    image: Any = None
    found: Any = None
    result: Result | None = None
    failure: Failure | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task) -> Job:
        """Begin with a case."""
        return cls(task, Scrubber(task.case.files, task.name, task.folder))


class Steps:
    """The steps of the cases of one process; the model is loaded once.

    Parameters
    ----------
    spec : BatchSpec
        What is done with each case.
    say : callable, optional
        Is told when a step begins and ends.

    Raises
    ------
    ModelError, DeviceError
        No case can be done with this model.
    """

    def __init__(self, spec: BatchSpec, say: Say = lambda what, token, more: None) -> None:
        from medseg.batch.images import known_channels
        from medseg.case import finder

        self._say, self._spec = say, spec
        self._source = finder(spec.case)
        self._known = known_channels(spec)
        self._source.check()

    def read(self, job: Job) -> None:
        """Read its image."""
        with _ALOUD:
            self._step("read", job, self._load)

    def find(self, job: Job) -> None:
        """Find its instances."""
        self._step("find", job, self._find)

    def write(self, job: Job) -> None:
        """Write its files into its staging folder."""
        with _ALOUD:
            self._step("write", job, self._write)
        job.image = job.found = None  # or it would be held until the next case is here

    def _step(self, stage: str, job: Job, act: Callable[[Job], None]) -> None:
        """Do one step of a case that has not failed yet; whatever is raised is why it fails."""
        if job.failure is not None:
            return
        started = time.monotonic()
        self._say("begin", job.task.token, stage)
        try:
            act(job)
        except BaseException as error:  # also a fault of ours; decoders in Rust raise what is no Exception
            job.failure = failure(error, job.scrub)
            job.image = job.found = None
        job.seconds[stage] = time.monotonic() - started
        self._say("end", job.task.token, stage)

    def _load(self, job: Job) -> None:
        from medseg.batch.images import load

        with _listening(job):
            image = load(job.task.case, self._spec, self._known)
            image.voxels()  # here and now, while another case is computed
        job.image = image

    def _find(self, job: Job) -> None:
        from medseg.pipeline import Finished

        _seed(self._spec.seed)
        for event in self._source.events(job.image):
            _still_ours(job)
            if isinstance(event, Finished):
                job.found = event
        job.notes += map(job.scrub, job.found.notes)

    def _write(self, job: Job) -> None:
        from medseg.batch import outputs, placing

        _still_ours(job)
        task, image, found = job.task, job.image, job.found.instances
        started = time.monotonic()
        with _listening(job):
            table = outputs.write_case(found, image, task.folder, task.name, task.case, self._spec)
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

    def _record(self, job: Job) -> dict[str, Any]:
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


def _still_ours(job: Job) -> None:
    """Stop working on a case whose staging folder the supervisor took away: nobody waits for the result."""
    if not job.task.folder.is_dir():
        raise OutputError("its staging folder was taken away, as it was cancelled")


@contextmanager
def _listening(job: Job) -> Iterator[None]:
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


def failure(error: BaseException, scrub: Scrubber) -> Failure:
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
