"""A model run in a thread of its own: a window asks for what happened since it last looked, and may leave at any time."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from medseg.errors import MedsegError
from medseg.image import Image
from medseg.pipeline import Event, Finished, Progress, Region, Started
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
    """It ended, and what it found can be worked on: the session was begun beside the window, which takes its time.

    ``problem`` says why a series ended before its last time, in words for a person; what was done by then is in the session.
    """

    session: Session
    seconds: float
    notes: tuple[str, ...]
    problem: str = ""


Outcome = Event | Ready | Failed | Cancelled


class Run:
    """Start at once; ask `events` now and then; `cancel` at will.

    Parameters
    ----------
    images : Image, or one for each time of a series
        What to segment.
    model : str
        Shipped name or model file.
    options : RunSpec
        How.
    events : callable, optional
        Makes the events of one image in place of the pipeline (`by_rule`, tests).
    """

    def __init__(
        self,
        images: Image | Sequence[Image],
        model: str,
        options: RunSpec,
        events: Callable[[Image], Iterator[Event]] | None = None,
    ) -> None:
        self._make = events or (lambda image: _pipeline(image, model, options, KEEP - self._kept))
        self.series = isinstance(images, Sequence)
        self._images: tuple[Image, ...] = tuple(images) if isinstance(images, Sequence) else (images,)
        self._found: list[Finished] = []
        self._kept = 0  # bytes of maps
        self._last = 0  # the highest id so far
        self._queue: SimpleQueue[Outcome] = SimpleQueue()
        self._stop = threading.Event()
        self._forget = False
        self._handing = threading.Lock()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="medseg run", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        problem = ""
        try:
            for number, image in enumerate(self._images):
                if not self._one(number, image):
                    break
        except MedsegError as error:
            problem = self._told(str(error))
        except Exception as error:  # a fault of ours or of a library: words, never a traceback
            problem = self._told(words(error))
        try:
            if self._found and (self.series or not self._stop.is_set()):
                self._hand_over(problem)
            elif problem:
                self._queue.put(Failed(problem))
            else:
                self._queue.put(Cancelled())
        except Exception as error:
            self._queue.put(Failed(words(error)))

    def _told(self, problem: str) -> str:
        return f"Time {len(self._found)}: {problem}" if self.series else problem

    def _one(self, number: int, image: Image) -> bool:
        """Segment one image; whether it came to its end."""
        source = self._make(image)
        try:
            for event in source:
                if self._stop.is_set():
                    return False
                if isinstance(event, Finished):
                    self._found.append(event)
                    self._kept += sum(part[2].nbytes for part in event.maps.parts) if event.maps else 0
                    self._shown(number, event)
                elif not self.series:
                    self._queue.put(event)
                elif isinstance(event, Progress):
                    count = event.windows
                    self._queue.put(Progress(number * count + event.done, len(self._images) * count))
        finally:
            if hasattr(source, "close"):
                source.close()
        return True

    def _shown(self, number: int, event: Finished) -> None:
        """Let what was found at one time be drawn, with the ids that it will have."""
        if not self.series:
            return
        labels = event.instances.labels
        place = (slice(number, number + 1), *(slice(0, n) for n in labels.shape))
        self._queue.put(Region(place, np.where(labels > 0, labels + np.int32(self._last), 0)[None]))
        self._queue.put(Progress(number + 1, len(self._images)))
        self._last += int(labels.max(initial=0))

    def _hand_over(self, problem: str) -> None:
        every = self._found
        notes = tuple(dict.fromkeys(note for event in every for note in event.notes))
        if self.series:
            missing = [None] * (len(self._images) - len(every))
            found = [event.instances for event in every]
            session = start([*found, *missing], self._images, [*(event.maps for event in every), *missing])
        else:
            session = start(every[0].instances, self._images[0], every[0].maps)
        with self._handing:
            if self._forget:
                session.drop()
                self._queue.put(Cancelled())
            else:
                self._queue.put(Ready(session, sum(event.seconds for event in every), notes, problem))

    def events(self) -> Iterator[Outcome]:
        """Give what happened since the last call, without waiting."""
        while True:
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def cancel(self, *, forget: bool = True) -> None:
        """Stop after the network window that is running.

        What was found and not asked for is forgotten, or, without ``forget``, the times of a series that are done come as `Ready`.
        """
        with self._handing:
            self._forget = forget or not self.series
            self._stop.set()
            if self._forget:
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


def by_rule(rule: str, values: str) -> Callable[[Image], Iterator[Event]]:
    """Return what finds instances by a rule such as "SUV>4", without a model, as ``medseg segment --threshold`` does.

    Raises
    ------
    SpecError
        It is no rule. What the image does not hold is told by the run.
    """
    from medseg.case import Rules
    from medseg.spec import SeparateSpec

    finder = Rules(rule, SeparateSpec(), values)

    def events(image: Image) -> Iterator[Event]:
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


def _pipeline(image: Image, model: str, options: RunSpec, keep: int) -> Iterator[Event]:
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
    yield from run(image, made, options, keep=max(0, keep))
