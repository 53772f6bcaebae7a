"""Small computations of single instances beside the window: the latest asked for first, those that are outdated never."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

_log = logging.getLogger("medseg_napari")


class Background:
    """One thread with a heap of jobs, each under a key; a job put in again under its key replaces the one that waits."""

    def __init__(self) -> None:
        self._jobs: dict[Any, Callable[[], Any]] = {}
        self._wake = threading.Condition()
        self._done: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        self._closed = False
        self._busy = False
        self._thread = threading.Thread(target=self._work, name="medseg background", daemon=True)
        self._thread.start()

    def put(self, key: Any, job: Callable[[], Any]) -> None:
        """Ask for a job."""
        with self._wake:
            self._jobs.pop(key, None)
            self._jobs[key] = job
            self._wake.notify()

    def results(self, most: int = 60) -> Iterator[tuple[Any, Any]]:
        """Give (key, result) of what is done, without waiting."""
        for _ in range(most):
            try:
                yield self._done.get_nowait()
            except Empty:
                return

    def clear(self) -> None:
        """Forget what waits."""
        with self._wake:
            self._jobs.clear()

    @property
    def idle(self) -> bool:
        """Whether nothing waits, runs or is to be fetched."""
        with self._wake:
            return not self._jobs and not self._busy and self._done.empty()

    def close(self) -> None:
        """Forget what waits and end the thread."""
        with self._wake:
            self._closed = True
            self._jobs.clear()
            self._wake.notify()
        self._thread.join(5)

    def _work(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                while not self._jobs and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                key, job = self._jobs.popitem()
                self._busy = True
            try:
                self._done.put((key, job()))
            except Exception as error:  # the instance went meanwhile, or cannot be measured: its cells stay empty
                _log.debug("background", exc_info=error)
