"""A study of small cases: one worker beside two, beside the steps themselves, beside a process for each case."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medseg.bench.rows import Row, rows

CASES, SIZE, ALONE = 40, 320, 3


def batches(repeat: int) -> list[Row]:
    """Seconds for each case of a study, from the first that is done to the last: loading of the model is left out."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        study = _study(home / "in")
        for turn in range(repeat):
            for jobs, name in ((1, "1 worker, per case"), (2, "2 workers, per case")):
                case, steps, own = _run(study, home / f"{turn}-{jobs}", jobs)
                times.setdefault(name, []).append(case)
                if jobs == 1:
                    # reading, finding and writing overlap, so that a worker may need less than their sum
                    times.setdefault("its steps: reading, finding, writing", []).append(steps)
                    # what handing out, watching and the ledger cost beyond them, also where others use the machine
                    times.setdefault("CPU time of the supervisor, per case", []).append(own)
        for file in sorted(study.iterdir())[:ALONE]:
            started = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "medseg",
                "segment",
                str(file),
                "-o",
                str(home / "alone"),
                "-m",
                "nuclei2d",
            ]
            subprocess.run(
                [*command, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            times.setdefault("a process for each case", []).append(time.perf_counter() - started)
    return rows(times)


def _study(folder: Path) -> Path:
    """Pieces of a shipped image, each turned and moved otherwise."""
    import numpy as np
    import tifffile

    from medseg import io, presets

    whole = io.load(presets.samples() / "fluorescence.tif").voxels()[0]
    folder.mkdir()
    for number in range(CASES):
        piece = np.roll(np.rot90(whole, number % 4), 37 * number, axis=1)[:SIZE, :SIZE]
        tifffile.imwrite(folder / f"{number:03d}.tif", np.ascontiguousarray(piece))
    return folder


def _run(study: Path, folder: Path, jobs: int) -> tuple[float, float, float]:
    """Seconds for each case, of them in its steps, and those of CPU time that the supervisor takes for it."""
    from medseg.batch import discover, run
    from medseg.batch.values import Done
    from medseg.spec import BatchSpec

    folder.mkdir()
    spec = BatchSpec.model_validate({"case": {"model": "nuclei2d", "run": {"device": "cpu"}}, "jobs": jobs})
    seen, own, steps = [], [], 0.0
    for event in run(discover(study), folder, spec):
        if isinstance(event, Done):
            seen.append(time.perf_counter())
            own.append(time.process_time())
            steps += event.seconds
    between = len(seen) - 1
    return (seen[-1] - seen[0]) / between, steps / len(seen), (own[-1] - own[0]) / between
