"""A model run in a thread of its own: a window asks for what happened since it last looked, and may leave at any time."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from medseg.errors import MedsegError
from medseg.image import Image
from medseg.pipeline import Event, Finished, Started
from medseg.spec import RunSpec
from medseg_napari.notices import words
from medseg_napari.session import Session, start

KEEP = 1 << 30  # bytes of network maps that are kept for the sliders


@dataclass(frozen=True)
class Failed:
    """It ended with a problem, in words for a person."""

    text: str


@dataclass(frozen=True)
class Cancelled:
    """It ended because it was told to."""


@dataclass(frozen=True)
class Ready:
    """It ended, and what it found can be worked on: the session was begun beside the window, which takes its time."""

    finished: Finished
    session: Session


Outcome = Event | Ready | Failed | Cancelled


class Run:
    """Start at once; ask `events` now and then; `cancel` at will.

    Parameters
    ----------
    image : Image
        What to segment.
    model : str
        Shipped name or model file.
    options : RunSpec
        How.
    events : callable, optional
        Makes the events in place of the pipeline (`by_rule`, tests).
    """

    def __init__(
        self,
        image: Image,
        model: str,
        options: RunSpec,
        events: Callable[[], Iterator[Event]] | None = None,
    ) -> None:
        self._events = events or (lambda: _pipeline(image, model, options))
        self._image = image
        self._queue: SimpleQueue[Outcome] = SimpleQueue()
        self._stop = threading.Event()
        self._handing = threading.Lock()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="medseg run", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        source = self._events()
        try:
            for event in source:
                if self._stop.is_set():
                    self._queue.put(Cancelled())
                    return
                if isinstance(event, Finished):
                    self._hand_over(event)
                else:
                    self._queue.put(event)
        except MedsegError as error:
            self._queue.put(Failed(str(error)))
        except Exception as error:  # a fault of ours or of a library: words, never a traceback
            self._queue.put(Failed(words(error)))
        finally:
            if hasattr(source, "close"):
                source.close()

    def _hand_over(self, event: Finished) -> None:
        session = start(event.instances, self._image, event.maps)
        with self._handing:
            if self._stop.is_set():
                session.drop()
                self._queue.put(Cancelled())
            else:
                self._queue.put(Ready(event, session))

    def events(self) -> Iterator[Outcome]:
        """Give what happened since the last call, without waiting."""
        while True:
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def cancel(self) -> None:
        """Stop after the network window that is running; what was found and not asked for is forgotten."""
        with self._handing:
            self._stop.set()
            for event in self.events():
                if isinstance(event, Ready):
                    event.session.drop()

    @property
    def running(self) -> bool:
        """Whether it still computes."""
        return self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(seconds)

    def left(self, done: int, windows: int) -> float | None:
        """Seconds that are left, by the pace so far; None before the first window."""
        return (time.monotonic() - self._begun) / done * (windows - done) if done else None


def by_rule(image: Image, rule: str, values: str) -> Callable[[], Iterator[Event]]:
    """Return what finds instances by a rule such as "SUV>4", without a model, as ``medseg segment --threshold`` does.

    Raises
    ------
    SpecError
        It is no rule. What the image does not hold is told by the run.
    """
    from medseg.case import Rules
    from medseg.spec import SeparateSpec

    finder = Rules(rule, SeparateSpec(), values)

    def events() -> Iterator[Event]:
        yield Started(1, ())
        yield from finder.events(image)

    return events


_settled = False


def _settle() -> None:
    """Take torch, napari and all that stays for good out of what garbage collection looks through: that stops the window too.

    A whole collection of their million objects takes longer than a person should notice. Once is enough.
    """
    global _settled
    if not _settled:
        _settled = True
        gc.freeze()


def unsettle() -> None:
    """Have everything looked through again, when a window has closed: what was frozen may be garbage now."""
    global _settled
    _settled = False
    gc.unfreeze()


_loaded: dict[tuple[str, str], object] = {}
_lock = threading.Lock()


def _pipeline(image: Image, model: str, options: RunSpec) -> Iterator[Event]:
    from medseg.model import Model
    from medseg.pipeline import run

    with _lock:  # one model is kept, so that the next run starts at once
        key = (model, options.device)
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = Model.load(model, options.device)
            _settle()
        made = _loaded[key]
    assert isinstance(made, Model)
    yield from run(image, made, options, keep=KEEP)
