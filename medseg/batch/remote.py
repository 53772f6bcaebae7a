"""What a worker of a cluster does: one case, into its staging folder on the file system that all share.

The model is loaded once for a process and kept. A process does one case at a time, so that its death shows which case kills
it. Which is begun where is a file in the staging folder: dask gives a task whose worker died to another worker, and that
must not write where the first one may still be writing.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from medseg.batch.cases import Scrubber
from medseg.batch.placing import BEGUN
from medseg.batch.settings import fingerprint
from medseg.batch.steps import DIED, Failure, Job, Steps, Task, failure
from medseg.batch.values import Result
from medseg.errors import DeviceError, InputError, MedsegError
from medseg.spec import BatchSpec

_ONE = threading.Lock()
_KEPT: dict[str, Steps] = {}  # of the last spec, by its fingerprint


@dataclass(frozen=True, repr=False)  # dask shows what it cannot do, and paths are names
class Order:
    """A case for a worker of a cluster, what is done with it, and the hash of all that decides the result."""

    task: Task
    spec: BatchSpec
    options: str


def do(order: Order) -> Result | Failure | MedsegError:
    """Do a case; an error is returned where no case can be done. Nothing is raised, as dask would log it with its arguments."""
    with _ONE:
        try:
            if not _begin(order.task.folder):
                return DIED
            steps = _steps(order)
        except MedsegError as error:
            return error
        except Exception as error:
            return DeviceError(failure(error, Scrubber((), "")).error)
        job = Job.of(order.task)
        steps.read(job)
        steps.find(job)
        steps.write(job)
        return job.failure or job.result or DIED


def _begin(folder: Path) -> bool:
    """Say that this process does the case; False if another has begun with it."""
    from distributed import get_worker

    try:
        place = os.open(folder / BEGUN, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    except OSError:
        raise InputError(
            "workers of the cluster cannot write into the output folder; choose one on a file system that all share"
        ) from None
    with open(place, "w", encoding="utf-8") as file:
        file.write(str(get_worker().address))
    return True


def _steps(order: Order) -> Steps:
    key = f"{order.options} {order.spec.threads}"
    if key not in _KEPT:
        warnings.simplefilter("ignore")
        if fingerprint(order.spec) != order.options:
            raise InputError(
                "workers of the cluster have another medseg or another model of this name; install there what is here"
            )
        _KEPT.clear()  # one model at a time fits into memory
        _KEPT[key] = Steps(order.spec)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(order.spec.threads)
    return _KEPT[key]
