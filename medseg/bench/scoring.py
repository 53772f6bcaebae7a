"""Scoring thousands of objects: medseg beside StarDist, Cellpose and panoptica, and over images of growing size.

Every scorer runs in a process of its own on the same drawn objects. Peers run in their own environment, whose python
MEDSEG_PEERS names (``make oracles`` builds one).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, replace

from medseg.bench.rows import Row, rows

HOW = (
    "StarDist, Cellpose and panoptica are left out: set MEDSEG_PEERS to the python of an environment with "
    "tests/peers/requirements-scorers.txt (make oracles builds .oracles-scorers/bin/python)"
)
_PEER_RUNS = 3  # peers take up to a minute each; a median of more would say no more


@dataclass(frozen=True)
class _Job:
    """What is imported before, and what is timed; the peers' names say what they score."""

    name: str
    setup: str
    work: str
    peer: bool = True


_OURS = _Job(
    "medseg: overlap, match at 10 IoU",
    "from medseg.metrics import match, overlap",
    "table = overlap(truth, prediction); found = [match(table, t)[0].tp for t in thresholds]",
    peer=False,
)
_FLOOR = _Job(
    "numpy: bincount of both", "", "found = [np.bincount(x.ravel()) for x in (truth, prediction)][2:]", peer=False
)
_STARDIST = _Job(
    "StarDist matching at 10 IoU",
    "from stardist.matching import matching",
    "found = [one.tp for one in matching(truth, prediction, thresholds)]",
)
# importing Cellpose whole asks for torch and more, none of which its metrics use
_CELLPOSE = _Job(
    "Cellpose average_precision at 10 IoU",
    """
import importlib.util, os, types
package = types.ModuleType("cellpose")
package.__path__ = [os.path.dirname(importlib.util.find_spec("cellpose").origin)]
sys.modules["cellpose"] = package
for part in ("utils", "dynamics"):
    sys.modules["cellpose." + part] = types.ModuleType(part)
    setattr(package, part, sys.modules["cellpose." + part])
from cellpose.metrics import average_precision
""",
    "found = average_precision(truth, prediction, thresholds)[1].astype(int).tolist()",
)
_PANOPTICA = _Job(
    "panoptica PQ at one IoU",
    """
import logging; logging.disable(logging.CRITICAL)
from panoptica import InputType, Panoptica_Evaluator
from panoptica.instance_matcher import NaiveThresholdMatching
from panoptica.metrics import Metric
evaluator = Panoptica_Evaluator(InputType.UNMATCHED_INSTANCE, instance_matcher=NaiveThresholdMatching(),
    instance_metrics=[Metric.IOU], global_metrics=[])
""",
    "found = [evaluator.evaluate(prediction, truth)['ungrouped'].tp]",
)
_OURS_PQ = _Job(
    "medseg: overlap, match at one IoU",
    "from medseg.metrics import match, overlap",
    "found = [match(overlap(truth, prediction), 0.5)[0].tp]",
    peer=False,
)

# Balls in cells of a lattice, the prediction's moved by up to three voxels. They are painted one by one, so that making
# them needs no more memory than they do: the peak of the process before the work is then what the inputs take.
_PROGRAM = """
import json, resource, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
if not hasattr(np, "Inf"):
    np.Inf = np.inf
shape, count, thresholds = json.loads(sys.argv[1])
{setup}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
def drawn(shape, count):
    side = int(np.prod([float(n) for n in shape]) / count) ** (1 / len(shape))
    cells = [int(n // side) for n in shape]
    while np.prod(cells) < count:
        cells[cells.index(min(cells))] += 1
    size = [n // c for n, c in zip(shape, cells)]
    axes = np.ogrid[tuple(slice(0, n) for n in size)]
    ball = sum(((a - (n - 1) / 2) / (n / 2)) ** 2 for a, n in zip(axes, size)) <= 1
    pair = [np.zeros(shape, np.int32), np.zeros(shape, np.int32)]
    for k in range(count):
        start = [int(i) * n for i, n in zip(np.unravel_index(k, cells), size)]
        for labels, step in zip(pair, (0, k % 4)):
            box = labels[tuple(slice(s + step, s + step + n) for s, n in zip(start, size))]
            box[ball[tuple(slice(0, n) for n in box.shape)]] = k + 1
    return pair
truth, prediction = drawn([n // 8 for n in shape], max(4, count // 8 ** len(shape)))
{work}  # what is compiled or loaded at the first call
truth, prediction = drawn(shape, count)
before, started = peak(), time.process_time()
{work}
print(json.dumps([time.process_time() - started, peak() - before, truth.nbytes + prediction.nbytes, [int(n) for n in found]]))
"""


def scoring(repeat: int) -> list[Row]:
    """Three comparisons, each with ratios to its first row: an image, a volume, and images of growing size.

    Seconds are those of the processor, so that a busy machine slows nobody down. The peak counts from when the inputs are
    there, over the size of both of them; in the names in MB.
    """
    if not os.environ.get("MEDSEG_PEERS"):
        logging.getLogger("medseg.bench").warning(HOW)
    found = _compared(
        "2048 x 2048, 16,384 objects", (2048, 2048), 16384, (_OURS, _FLOOR, _STARDIST, _CELLPOSE, _PANOPTICA), repeat
    )
    found += _compared(
        "300 x 512 x 512, 5,000 objects", (300, 512, 512), 5000, (_OURS_PQ, _FLOOR, _PANOPTICA), min(repeat, 3)
    )
    times, peaks = {}, {}
    for side in (1024, 2048, 4096):
        name = f"{side} x {side}, {side * side // 256:,} objects: {_OURS.name}"
        times[name], peaks[name], _ = _measured(_OURS, (side, side), side * side // 256, repeat)
    return found + _told(times, peaks)


def _compared(what: str, shape: tuple[int, ...], count: int, jobs: tuple[_Job, ...], repeat: int) -> list[Row]:
    """Rows of the jobs on one drawn pair; peers are left out where there is no environment for them."""
    times, peaks = {}, {}
    pairs: list[int] | None = None
    for job in jobs:
        if not job.peer or os.environ.get("MEDSEG_PEERS"):
            runs = min(repeat, _PEER_RUNS) if job.peer else repeat
            name = f"{what}: {job.name}"
            times[name], peaks[name], found = _measured(job, shape, count, runs)
            pairs = found if pairs is None else pairs
            if found != pairs[: len(found)]:
                raise RuntimeError(f"{name} finds {found} pairs where {jobs[0].name} finds {pairs}: not the same work")
    return _told(times, peaks)


def _told(times: dict[str, list[float]], peaks: dict[str, tuple[float, float]]) -> list[Row]:
    """Rows with the peak in MB in the name and over the inputs' size beside it."""
    found = rows(times, {name: peak / size for name, (peak, size) in peaks.items()})
    return [replace(row, name=f"{row.name}, {peaks[row.name][0] / 1e6:.0f} MB") for row in found]


def _measured(
    job: _Job, shape: tuple[int, ...], count: int, runs: int
) -> tuple[list[float], tuple[float, float], list[int]]:
    """Seconds of each run; the largest peak beyond the inputs, and their size, in bytes; pairs found at each threshold."""
    from medseg.metrics import THRESHOLDS

    program = _PROGRAM.format(setup=job.setup, work=job.work)
    python = os.environ["MEDSEG_PEERS"] if job.peer else sys.executable
    settings = json.dumps([shape, count, THRESHOLDS])
    told = []
    for _ in range(runs):
        done = subprocess.run([python, "-c", program, settings], check=True, stdout=subprocess.PIPE)
        told.append(json.loads(done.stdout.decode().splitlines()[-1]))
    seconds, peaks, sizes, found = zip(*told, strict=True)
    return list(seconds), (float(max(peaks)), float(sizes[0])), list(found[0])
