"""A running dask cluster as a crew: each slot is a future. What dask does about workers that die is seen in `remote`.

Time is watched here, by the file that says since when a case is worked on. Memory is watched by dask's nannies.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.batch.cases import Case
from medseg.batch.crew import Held, Message
from medseg.batch.placing import BEGUN
from medseg.batch.remote import Order, do
from medseg.batch.settings import fingerprint
from medseg.batch.steps import DIED, Failure
from medseg.errors import InputError, MedsegError, MissingError
from medseg.spec import BatchSpec

_PATIENCE = 10.0  # seconds for the scheduler to answer
_LOOK = 1.0  # seconds between looks at workers and at what is begun
_EACH = 2  # cases for each worker: one is computed, the next one waits there


class Place:
    """A slot in a cluster: at most one case, which dask gives to a worker."""

    def __init__(self, cluster: Cluster) -> None:
        self.held: dict[str, Held] = {}
        self._cluster = cluster
        self._future: Any = None
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def hand(self, one: Held) -> None:
        """Hand it a case."""
        self.held = {one.claim.token: one}
        self._future = self._cluster.submit(self, one)

    def heard(self, message: Message) -> None:
        """Keep what came of its case until it is asked for."""
        self._said.put(message)

    def hear(self) -> Message:
        """Return what came of its case."""
        return self._said.get()

    def look(self) -> None:
        """See whether its case is begun with, from when on time counts."""
        for one in self.held.values():
            if one.since is None and (one.task.folder / BEGUN).exists():
                one.heard("begin")

    def gibibytes(self) -> float:
        """Return 0: dask's nannies watch memory."""
        return 0.0

    def dismiss(self) -> None:
        """Do nothing: it has no case."""

    def kill(self, stuck: bool = False) -> None:
        """Cancel its case. The worker stops when it sees that the staging folder is gone; a stuck one is started again."""
        for one in self.held.values():
            where = ""
            with suppress(OSError):
                where = (one.task.folder / BEGUN).read_text(encoding="utf-8")
            self._cluster.cancel(self._future, where if stuck else "")


class Cluster:
    """A running dask cluster.

    Parameters
    ----------
    spec : BatchSpec
        The address of its scheduler, and what is done.

    Raises
    ------
    MissingError
        dask.distributed is not installed.
    InputError
        No scheduler answers at the address.
    """

    ahead = 1

    def __init__(self, spec: BatchSpec) -> None:
        try:
            import distributed
        except ImportError:
            raise MissingError(
                'a cluster needs dask.distributed; install it with: pip install "medseg[cluster]"'
            ) from None
        self._address, self._options = spec.scheduler, fingerprint(spec)
        self._spec = spec.model_copy(update={"case": spec.case.model_copy(update={"model": _placed(spec.case.model)})})
        self._heard: queue.Queue[Place] = queue.Queue()
        self._news: list[str] = []
        self._workers, self._looked = -1, 0.0
        self._loud = _hush()
        try:
            make: Any = distributed.Client
            self._client = make(spec.scheduler, timeout=_PATIENCE, set_as_default=False, name="medseg")
        except (OSError, ValueError):
            _restore(self._loud)
            raise InputError(
                f"no dask scheduler answers at {spec.scheduler}; start one, or check host and port"
            ) from None
        link = self._client.dashboard_link
        self._news.append(f"cluster at {spec.scheduler}" + (f"; watch it at {link}" if link else ""))
        self._look()

    def gone(self) -> str:
        """Return why it is there no more; "" while it is."""
        if self._client.status == "running":
            return ""
        return f"the cluster at {self._address} is gone; start it and run the batch again, or without --scheduler"

    def news(self) -> list[str]:
        """Return what is new: where its page is, that no worker is there."""
        news, self._news = self._news, []
        return news

    def size(self) -> int:
        """Return how many cases it may have; some without a worker, too, as a cluster that adapts starts one for what waits."""
        return _EACH * max(1, self._workers)

    def slot(self) -> Place:
        """Return a new slot."""
        return Place(self)

    def wait(self, slots: Sequence[Place], seconds: float) -> list[Place]:
        """Return one whose case has ended."""
        if time.monotonic() - self._looked > _LOOK:
            self._look()
            for slot in slots:
                slot.look()
        try:
            ended = self._heard.get(timeout=seconds)
        except queue.Empty:
            return []
        return [] if self.gone() else [one for one in slots if one is ended]  # of a lost cluster, nothing ended

    def close(self) -> None:
        """Leave the cluster as it is."""
        with suppress(Exception):
            self._client.close(timeout=2)
        _restore(self._loud)

    def submit(self, slot: Place, one: Held) -> Any:
        """Give a case to the cluster."""
        task = replace(one.task, folder=one.task.folder.absolute(), case=_absolute(one.task.case))
        order = Order(task, self._spec, self._options)
        future = self._client.submit(do, order, key=f"medseg-{task.token}", pure=False)

        def ended(future: Any) -> None:
            slot.heard(_message(one, future))
            self._heard.put(slot)

        future.add_done_callback(ended)
        return future

    def cancel(self, future: Any, stuck_at: str) -> None:
        """Give up a case, and start the worker again that is stuck with it."""
        if self.gone():
            return
        with suppress(Exception):
            future.cancel()
        if stuck_at:
            threading.Thread(target=self._restart, args=(stuck_at,), daemon=True).start()

    def _restart(self, address: str) -> None:
        with suppress(Exception):  # without a nanny it cannot be; then it goes on until it ends by itself
            self._client.restart_workers([address], timeout=_PATIENCE, raise_for_error=False)

    def _look(self) -> None:
        """See how many workers there are."""
        self._looked = time.monotonic()
        with suppress(Exception):  # an answer that is late is asked for again; a lost connection shows in the status
            count = len(self._client.sync(self._client.scheduler.ncores, callback_timeout=_PATIENCE / 2))
            if count == 0 and self._workers != 0:
                self._news.append("the cluster has no worker now; cases wait for one")
            self._workers = count


def _message(one: Held, future: Any) -> Message:
    """What came of a case."""
    token = one.claim.token
    try:
        value = future.result(timeout=_PATIENCE)
    except Exception as error:
        if type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError", "TimeoutError"):
            if (one.task.folder / BEGUN).exists():
                return "failed", token, DIED
            return "lost", token, None
        return (
            "broken",
            token,
            InputError(
                f"the cluster cannot run medseg ({type(error).__name__}); install the same medseg and dask on all machines"
            ),
        )
    if isinstance(value, MedsegError):
        return "broken", token, value
    return "failed" if isinstance(value, Failure) else "done", token, value


def _absolute(case: Case) -> Case:
    """Workers have other working folders."""
    inputs = tuple(replace(i, files=tuple(Path(os.path.abspath(f)) for f in i.files)) for i in case.inputs)
    return replace(case, inputs=inputs, facts={})


def _placed(model: str | None) -> str | None:
    return str(Path(model).absolute()) if model and Path(model).is_file() else model


def _hush() -> dict[str, int]:
    """Quiet the logs of dask here: what matters is said once, by us. Returns the levels there were."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return levels


def _restore(levels: dict[str, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
