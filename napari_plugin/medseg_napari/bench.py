"""How fast edits are on a large volume, and sliders on a large image.

    python -m medseg_napari.bench

Medians of several, in ms; what napari draws comes on top and is of one slice. With --window (it needs a display) also: the longest
time that the window did not answer while a model ran, and what thirty times opening, segmenting and closing leave behind. Lines
that end in "CPU" say how long this thread computed: on a machine with other work the clock says more about that work.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.maps import Maps
from medseg.model import Model
from medseg.pipeline import Finished, run
from medseg_napari import commands
from medseg_napari.journal import Journal
from medseg_napari.session import Session


def volume(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Draw pairs of balls that touch, each pair one instance, on a jittered lattice."""
    rng = np.random.default_rng(seed)
    side = int(np.floor((np.prod(shape) / count) ** (1 / 3)))
    out = np.zeros(shape, np.int32)
    lattice = [np.arange(side // 2, n - side // 2 + 1, side) for n in shape]
    places = np.stack(np.meshgrid(*lattice, indexing="ij"), -1).reshape(-1, 3)
    radius = side / 5
    index = np.indices((side,) * 3) - side // 2
    for id, place in enumerate(places[rng.permutation(len(places))[:count]], 1):
        low = np.clip(place - side // 2, 0, np.array(shape) - side)
        part = out[tuple(slice(a, a + side) for a in low)]
        for shift in (-0.8, 0.8):
            distance = index[0] ** 2 + index[1] ** 2 + (index[2] - shift * radius) ** 2
            part[distance < radius**2] = id
    return out


def timed(action: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begun = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - begun)


def edits(shape: tuple[int, int, int], count: int, repeats: int, folder: Path) -> dict[str, list[float]]:
    """Time splits, merges, their undo and redo, autosave included."""
    labels = volume(shape, count)
    instances = Instances.from_labels(labels, Grid.from_spacing(shape, (1.0, 1.0, 1.0)))
    del labels
    journal = Journal(folder / "bench.session")
    took: dict[str, list[float]] = {"begin": [], "split": [], "merge": [], "undo": [], "redo": []}
    begun = time.perf_counter()
    session = Session(instances, journal=journal)
    took["begin"].append(1000 * (time.perf_counter() - begun))
    rng = np.random.default_rng(1)
    for id in rng.choice(sorted(session.rows), repeats, replace=False).tolist():
        z, y, x = session.rows[id].centroid
        clicks = [(z, y, x - 4), (z, y, x + 4)]
        took["split"].append(timed(lambda id=id, clicks=clicks: commands.split(session, id, clicks)))  # type: ignore[misc]
        new = max(session.rows)
        took["merge"].append(timed(lambda id=id, new=new: commands.merge(session, [id, new])))  # type: ignore[misc]
        took["undo"].append(timed(session.undo))
        took["redo"].append(timed(session.redo))
    journal.close()
    return took


def timed_cpu(action: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of one call by the clock, and that this thread computed."""
    begun = time.thread_time()
    wall = timed(action)
    return wall, 1000 * (time.thread_time() - begun)


def sliders(size: int, repeats: int) -> dict[str, list[float]]:
    """Time reading the maps of a square image again, for each 2-D model that ships."""
    from medseg import io, presets

    sample = io.load(presets.samples() / "fluorescence.tif").voxels()[0]
    times = [size // n + 1 for n in sample.shape]
    image = Image.from_array(np.tile(sample, times)[:size, :size], 0.5, "um")
    took: dict[str, list[float]] = {}
    for name in ("nuclei2d", "cells2d"):
        last = None
        for event in run(image, Model.load(name), keep=1 << 30):
            last = event
        assert isinstance(last, Finished) and last.maps is not None
        _again(last.maps, 0.5)  # the first reading walks all paths and compiles
        thresholds = np.linspace(0.3, 0.7, repeats)
        both = [timed_cpu(partial(_again, last.maps, float(t))) for t in thresholds]
        took[f"slider, {name}"] = [wall for wall, _ in both]
        took[f"slider, {name}, CPU"] = [cpu for _, cpu in both]
    return took


def _again(maps: Maps, threshold: float) -> Instances:
    return maps.decode(maps.spec.heads[0].model_copy(update={"threshold": threshold}))


def edits_in_window(shape: tuple[int, int, int], count: int, repeats: int) -> dict[str, list[float]]:
    """Time the same edits with the panel, its table and the slice that napari draws listening."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    _, panel = viewer.window.add_plugin_dock_widget("medseg", "medseg")
    labels = volume(shape, count)
    panel.opened(Instances.from_labels(labels, Grid.from_spacing(shape, (1.0, 1.0, 1.0))), None, None)
    del labels
    panel.background.clear()  # measuring all of them takes its time, beside the window
    session = panel.bound.session
    took: dict[str, list[float]] = {f"{name}, in the window": [] for name in ("split", "merge", "undo", "redo")}
    rng = np.random.default_rng(1)
    for id in rng.choice(sorted(session.rows), repeats, replace=False).tolist():
        panel.bound.go_to(id)
        panel.choose([id])
        z, y, x = session.rows[id].centroid
        clicks = [(z, y, x - 4), (z, y, x + 4)]
        steps: list[tuple[str, Callable[[], object]]] = [
            ("split", partial(commands.split, session, id, clicks)),
            ("merge", lambda id=id: commands.merge(session, [id, max(session.rows)])),  # type: ignore[misc]
            ("undo", session.undo),
            ("redo", session.redo),
        ]
        for name, step in steps:
            took[f"{name}, in the window"].append(timed(step))
            QApplication.processEvents()
    panel.background.clear()
    viewer.close()
    QApplication.processEvents()
    return took


def heartbeat(size: int, repeats: int = 4) -> dict[str, list[float]]:
    """Milliseconds between two beats of the window's clock, set to 10, while models run in 2-D and in 3-D, up to a second after.

    The first run of each, which loads and compiles, is not counted.
    """
    import napari
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    viewer.open_sample("medseg", "fluorescence")
    sample = viewer.layers[0].data
    flat = np.tile(sample, [size // n + 1 for n in sample.shape])[:size, :size]
    noise = np.random.default_rng(0).normal(0, 30, (24, 160, 160))
    deep = (100 + noise + 400 * (volume((24, 160, 160), 40) > 0)).clip(0).astype(np.uint16)
    _, panel = viewer.window.add_plugin_dock_widget("medseg", "medseg")
    beats: list[tuple[float, float]] = []
    clock = QTimer(interval=10)
    clock.timeout.connect(lambda: beats.append((time.perf_counter(), time.thread_time())))
    found: dict[str, list[float]] = {}
    for kind, data in (("2-D", flat), ("3-D", deep)):
        viewer.layers.clear()
        viewer.add_image(data, name=kind)
        for turn in range(1 + repeats):
            panel.segment.begin()
            beats.clear()
            clock.start()
            end = np.inf
            while time.perf_counter() < end:
                QApplication.processEvents()
                time.sleep(0.001)
                if panel.segment.run is None and end == np.inf:
                    end = time.perf_counter() + 1
            clock.stop()
            if turn:
                wall, cpu = (1000 * np.diff(np.array(beats), axis=0)).T
                found.setdefault(f"heartbeat, {kind}", []).append(wall.max())
                found.setdefault(f"heartbeat, {kind}, CPU", []).append(cpu.max())
    panel.end()
    viewer.close()
    return found


def cycles(count: int) -> dict[str, list[float]]:
    """Memory (MB) and threads after each of several times opening a window, segmenting and closing it."""
    import napari
    import psutil
    from qtpy.QtWidgets import QApplication

    memory, threads = [], []
    for _ in range(count):
        viewer = napari.Viewer()
        viewer.open_sample("medseg", "fluorescence")
        _, panel = viewer.window.add_plugin_dock_widget("medseg", "medseg")
        panel.segment.begin()
        while panel.segment.run is not None:
            QApplication.processEvents()
            time.sleep(0.005)
        panel.end()
        viewer.close()
        del viewer, panel
        for _ in range(5):
            QApplication.processEvents()
        gc.collect()
        memory.append(psutil.Process().memory_info().rss / 2**20)
        threads.append(float(sum(thread.name.startswith("medseg") for thread in threading.enumerate())))
    half = memory[count // 2 :]
    return {"memory after 3, MB": memory[2:3], "memory, later half": half, "threads of medseg left": threads}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(400, 512, 512))
    parser.add_argument("--count", type=int, default=2000, help="instances")
    parser.add_argument("--size", type=int, default=1024, help="of the square image for sliders")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--window", action="store_true", help="also what needs a display")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        took = edits(tuple(given.shape), given.count, given.repeats, Path(folder))
    took |= sliders(given.size, given.repeats)
    if given.window:
        took |= edits_in_window(tuple(given.shape), given.count, given.repeats)
        took |= heartbeat(given.size)
        took |= cycles(30)
    sys.stdout.write(f"{'':28}{'median':>10}{'worst':>10}  ms\n")
    for name, values in took.items():
        sys.stdout.write(f"{name:28}{statistics.median(values):10.1f}{max(values):10.1f}\n")


if __name__ == "__main__":
    main()
