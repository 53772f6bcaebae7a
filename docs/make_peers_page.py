"""Compare with StarDist on the same images for the same CPU time, and write reference/peers.md.

    for seed in 1 2 3; do
      OMP_NUM_THREADS=1 medseg train heads2d --head flow --steps 2600 --seed $seed --workers 0 -o runs/peers/medseg-20-$seed
      OMP_NUM_THREADS=1 medseg train heads2d --head flow --steps 8200 --seed $seed --workers 0 -o runs/peers/medseg-60-$seed
      for minutes in 20 60; do
        OMP_NUM_THREADS=1 .oracles-stardist/bin/python tests/peers/stardist_train.py configs/splits/cells2d.json \
          $MEDSEG_DATA/cells/dsb2018_fluorescence runs/peers/stardist-$minutes-$seed --minutes $minutes --seed $seed
      done
    done
    python docs/make_peers_page.py runs/peers

Both learn from the same train images, choose thresholds on the same tune images, and are scored on the same val images by
`medseg.metrics`. CPU seconds are of the whole process: loading, training, choosing. Rows of the page of which the folder
holds no run stay as they are, as all runs together take eight hours.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from medseg import io, presets
from medseg.data.cases import find
from medseg.metrics import score_case, summarise
from medseg.model import read_header
from medseg.ops.files import write_whole
from medseg.spec import TrainSpec, load_yaml

PAGE = Path(__file__).parent / "reference" / "peers.md"
FIGURES = ("AP@.5", "AP@.75", "AP@.50:.95", "F1@.5", "PQ")
NAMES = {"medseg": "medseg, head `flow`", "stardist": "StarDist 0.9.2, default network"}


def of_labels(folder: Path) -> dict[str, float]:
    """Pooled figures of label files of val."""
    files = find(load_yaml(TrainSpec, presets.find_config("heads2d")), "val")
    cases = [
        score_case(one.load()[1].labels, io.load_labels(folder / f"{one.stem}.tif").labels, name=one.stem)
        for one in files
    ]
    summary = summarise(cases, split="val", resamples=2)
    return {name: summary.value(name) for name in FIGURES}


def of_run(run: Path) -> tuple[dict[str, float], float, int]:
    """Pooled figures on val, CPU seconds and steps of a run of either program."""
    if (run / "budget.json").exists():
        budget = json.loads((run / "budget.json").read_text())
        return of_labels(run / "labels"), budget["cpu_seconds"], budget["steps"]
    header = read_header(run / "heads2d.safetensors")
    scores = {s.figure: s.value for s in header.scores if (s.split, s.averaging) == ("val", "pooled")}
    return scores, float(header.training["cpu_seconds"]), header.training["steps"]


def written() -> dict[tuple[int, str], str]:
    """Rows of the page as it is."""
    programs = {title: program for program, title in NAMES.items()}
    rows = re.finditer(r"^\| (\d+) \| ([^|]+) \|.*$", PAGE.read_text() if PAGE.exists() else "", re.MULTILINE)
    return {(int(row[1]), programs[row[2]]): row[0] for row in rows}


def main() -> None:
    """Score and write."""
    rows = defaultdict(list)
    for run in sorted(Path(sys.argv[1]).iterdir()):
        if found := re.fullmatch(r"(medseg|stardist)-(\d+)-(\d+)", run.name):
            rows[int(found[2]), found[1]].append(of_run(run))
    lines = [
        "# Beside StarDist",
        "",
        "<!-- Made by docs/make_peers_page.py. Do not edit. -->",
        "",
        "Two programs trained from scratch on the same fluorescence images (342 of `dsb2018_fluorescence`, thresholds chosen on 38",
        "others) for the same time of one core, and scored on the same 67 val images by `medseg.metrics`, pooled. Each figure",
        "is the mean over the seeds, with the smallest and the largest. Both are limited by the budget: StarDist's own notebook",
        "trains longer, and reports AP@.5 .835, F1 .910 and PQ .771 on these images.",
        "",
        "| CPU minutes | program | seeds | CPU seconds used | steps | " + " | ".join(FIGURES) + " |",
        "|---" * (5 + len(FIGURES)) + "|",
    ]
    table = written()
    for (minutes, program), found in rows.items():
        cells = []
        for name in FIGURES:
            values = np.array([scores[name] for scores, _, _ in found])
            cells.append(f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})")
        seconds, steps = (round(float(np.mean([one[k] for one in found]))) for k in (1, 2))
        table[minutes, program] = (
            f"| {minutes} | {NAMES[program]} | {len(found)} | {seconds:,} | {steps:,} | " + " | ".join(cells) + " |"
        )
    lines += [table[one] for one in sorted(table)]
    write_whole(PAGE, ("\n".join(lines) + "\n").encode())
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
