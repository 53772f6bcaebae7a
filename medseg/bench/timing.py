"""Timings, each beside a floor or a peer of the same run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from medseg.bench.rows import Row, rows


def startup(repeat: int) -> list[Row]:
    """Processes from start to exit, beside an empty Python that imports numpy."""

    def command(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    return _run(
        {
            "python, import numpy": command("-c", "import numpy"),
            "medseg --help": command("-m", "medseg", "--help"),
            "medseg info nuclei2d": command("-m", "medseg", "info", "nuclei2d"),
        },
        repeat,
    )


def segmentation(repeat: int) -> list[Row]:
    """The whole pipeline on a shipped image, beside its network alone."""
    from medseg import io, preprocess, presets
    from medseg.model import Model
    from medseg.pipeline import segment

    image = io.load(presets.samples() / "fluorescence.tif")
    model = Model.load("nuclei2d", "cpu")
    array = preprocess.plan(image, model.spec.preprocess).read(image, tuple(slice(0, n) for n in image.grid.shape))
    return _run(
        {
            "network alone, 520 x 696": lambda: model.maps(array),
            "medseg.segment": lambda: segment(image, model=model),
        },
        repeat,
    )


def score(repeat: int) -> list[Row]:
    """Scoring 16,384 objects of an image and 5,000 of a volume, beside other scorers, and images of growing size."""
    from medseg.bench.scoring import scoring

    return scoring(repeat)


def reading(repeat: int) -> list[Row]:
    """Reading a CT of 300 slices, beside the bytes of its files, SimpleITK and MONAI."""
    from medseg.bench.reading import reading

    return reading(repeat)


def batch(repeat: int) -> list[Row]:
    """A study of small cases with one worker, beside two, and beside a process for each case."""
    from medseg.bench.batch import batches

    return batches(repeat)


BENCHES: dict[str, Callable[[int], list[Row]]] = {
    "startup": startup,
    "segment": segmentation,
    "score": score,
    "io": reading,
    "batch": batch,
}


def _run(jobs: dict[str, Callable[[], object]], repeat: int) -> list[Row]:
    """Run the jobs in turn, ``repeat`` rounds after one to warm up, so that a slow moment of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeat + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if turn:
                times[name].append(time.perf_counter() - started)
    return rows(times)
