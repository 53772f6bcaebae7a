"""Cases of ``medseg evaluate`` read and scored, several at a time if that saves time; one that fails costs no other."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from medseg.cli.common import why
from medseg.cli.pairs import Pair, told
from medseg.errors import GeometryError, InputError, MedsegError, MedsegWarning

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from medseg.instances import Instances
    from medseg.metrics import CaseScore

_START = 4.0  # seconds that must be saved before other processes are started, which takes each about two


@dataclass(frozen=True)
class Settings:
    """What all cases of a call share."""

    metrics: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    unit: str = "mm"
    tolerance: float | None = None
    classes: tuple[str, ...] = ("object",)
    source: str = "files"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A scored case, or why it could not be; what was decided on the way; and what looks like masks of foreground.

    `pieces` counts the connected pieces of prediction and truth: 0 for no object, None where there are several ids.
    """

    score: CaseScore | None
    error: str = ""
    notes: tuple[str, ...] = ()
    fault: bool = False
    pieces: tuple[int | None, int | None] = (None, None)


# ---------------------------------------------------------------- one case


def score_pair(pair: Pair, settings: Settings) -> Outcome:
    """Read and score one case; whatever goes wrong is its outcome. Runs in a worker."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        try:
            score, pieces = _scored(pair, settings)
        except Exception as error:  # also a fault of ours in one case must not cost the others
            return Outcome(
                None, why(pair.place, error), fault=not isinstance(error, (MedsegError, OSError, MemoryError))
            )
    notes = tuple(str(w.message) for w in caught if issubclass(w.category, MedsegWarning))
    return Outcome(score, notes=notes, pieces=pieces)


def _scored(pair: Pair, settings: Settings) -> tuple[CaseScore, tuple[int | None, int | None]]:
    from medseg.metrics import score_case

    shared: dict[str, Any] = {
        "metrics": settings.metrics,
        "name": pair.name,
        "source": settings.source,
        "class_names": settings.classes,
        "tolerance": settings.tolerance,
        "unit": settings.unit,
    }
    if not isinstance(pair.prediction, Path) or not isinstance(pair.truth, Path):
        return _scored_coco(pair.prediction, pair.truth, settings, shared), (None, None)
    found, real = (load_labels(path, settings) for path in (pair.prediction, pair.truth))
    if found.labels.shape != real.labels.shape:
        raise InputError(
            f"{pair.prediction}: has shape {found.labels.shape}, its truth {real.labels.shape}; both must be the same"
        )
    spacing = _spacing(pair.prediction, found, real, settings)
    scores, classes = told(pair.prediction, found.table["id"].to_numpy(), settings.classes)
    truth_classes = told(pair.truth, real.table["id"].to_numpy(), settings.classes)[1]
    score = score_case(
        real.labels,
        found.labels,
        **shared,
        spacing=spacing,
        scores=scores,
        classes=classes,
        truth_classes=truth_classes,
    )
    return score, (_pieces(found), _pieces(real))


def _pieces(side: Instances) -> int | None:
    """Connected pieces of the only object; 0 where there is none, None where there are several."""
    from medseg.ops.components import label

    return int(label(side.labels > 0).max(initial=0)) if len(side.table) < 2 else None


def like_masks(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """Say whether the files of a side look like masks of foreground: one id each, and most in several pieces."""
    for number, what in enumerate(("predictions", "truth")):
        some = [
            (name, one.pieces[number]) for name, one in outcomes if one.score is not None and one.pieces[number] != 0
        ]
        several = [(name, n) for name, n in some if n is not None and n > 1]
        if all(n is not None for _, n in some) and 2 * len(several) > len(some):
            name, n = several[0]
            return (
                f"the {what} hold one id each, in several pieces (of {name} in {n}), and an id is one object; if they are "
                "masks of foreground, number the pieces first, by scipy.ndimage.label for instance"
            )
    return ""


def _scored_coco(found: Any, real: Any, settings: Settings, shared: dict[str, Any]) -> CaseScore:
    from medseg.metrics import score_case

    scale = 1e-3 if settings.unit == "um" else 1.0
    steps = settings.spacing and tuple(s * scale for s in settings.spacing)
    spacing = steps * 2 if steps and len(steps) == 1 else steps
    return score_case(real.candidates(), found.candidates(), **shared, spacing=spacing, crowd=real.crowd)


def load_labels(path: Path, settings: Settings) -> Instances:
    """Read a label file; an error names it."""
    from medseg import io

    size = settings.spacing
    given: dict[str, Any] = {"spacing": size[0] if len(size) == 1 else size, "unit": settings.unit} if size else {}
    try:
        return io.load_labels(path, **given)
    except MedsegError as error:
        raise InputError(why(path, error)) from None


def _spacing(path: Path, found: Instances, real: Instances, settings: Settings) -> tuple[float, ...] | None:
    """Spacing of a case in mm, if either file states one; both must lie at the same place, unless --spacing overrides."""
    if settings.spacing is None and found.grid.known and real.grid.known and not found.grid.matches(real.grid):
        sizes = [" x ".join(f"{s:.4g}" for s in one.grid.spacing) for one in (found, real)]
        what = f"has spacing {sizes[0]} mm, its truth {sizes[1]}" if sizes[0] != sizes[1] else "lies at another place"
        raise GeometryError(
            f"{path}: {what}: {found.grid.why_not(real.grid)}; bring it to the grid of the truth by: medseg convert "
            "--labels --reference TRUTH, or compare voxel by voxel by giving --spacing"
        )
    known = next((one.grid for one in (real, found) if one.grid.known), None)
    return tuple(map(float, known.spacing)) if known is not None else None


# ---------------------------------------------------------------- all cases


Work = Callable[[Pair, Settings], Outcome]


def scored(
    todo: Sequence[Pair], settings: Settings, jobs: int | None, work: Work = score_pair
) -> Iterator[tuple[Pair, Outcome]]:
    """Score all cases, in any order.

    Parameters
    ----------
    jobs
        Processes. None: this one, and as many as there are processors once that has taken a few seconds.
    work
        What is done with each.
    """
    rest = deque(todo)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    started = time.monotonic()
    while rest and (jobs == 1 or (jobs is None and not _pays(started, len(todo), len(rest), processors))):
        pair = rest.popleft()
        yield pair, work(pair, settings)
    if rest:
        yield from _in_processes(rest, settings, min(jobs or processors, len(rest)), work)


def _pays(started: float, cases: int, left: int, processors: int) -> bool:
    """Whether sharing the cases that are left saves more time than it costs, going by those that are done."""
    if left == cases or left < 2:
        return False
    remaining = (time.monotonic() - started) / (cases - left) * left
    return remaining * (1 - 1 / min(processors, left)) > _START


def _in_processes(todo: Sequence[Pair], settings: Settings, workers: int, work: Work) -> Iterator[tuple[Pair, Outcome]]:
    """Hand each process one case at a time, so that where one is killed it is known which case it had."""
    rest = deque(todo)
    busy: dict[Connection, tuple[BaseProcess, Pair]] = {}
    try:
        while rest or busy:
            while rest and len(busy) < workers:
                line, process = _started(settings, work)
                busy[line] = process, rest.popleft()
                _hand(line, busy[line][1])
            for ready in wait(list(busy)):
                line = cast("Connection", ready)
                process, pair = busy.pop(line)
                try:
                    yield pair, line.recv()
                except (EOFError, OSError):
                    line.close()
                    process.join()
                    text = "its process was ended from outside, most often for want of memory"
                    yield pair, Outcome(None, f"{pair.place}: {text}; crop it or use a larger machine")
                    continue
                if rest:
                    busy[line] = process, rest.popleft()
                    _hand(line, busy[line][1])
                else:
                    line.close()  # which ends it
                    process.join()
    finally:
        for line, (process, _) in busy.items():
            process.terminate()
            process.join()
            line.close()


def _started(settings: Settings, work: Work) -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")  # a fork would copy locks that other threads hold
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, settings, work), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _hand(line: Connection, pair: Pair) -> None:
    with suppress(OSError):  # it is gone already, which shows when its answer is read
        line.send(pair)


def _serve(line: Connection, settings: Settings, work: Work) -> None:
    """What a worker does: score what it is handed until there is no more. Ctrl-C is for the process that started it."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            line.send(work(line.recv(), settings))
