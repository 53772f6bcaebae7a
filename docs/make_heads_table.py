"""Compare heads that were trained alone for the same time, and write the table of explanation/separating-instances.md.

    for head in semantic watershed offset flow star embedding; do
      OMP_NUM_THREADS=1 medseg train heads2d --head $head --workers 0 -o runs/heads2d-$head
    done
    python docs/make_heads_table.py runs/heads2d-*

CPU minutes are those of the training process, samples included. Figures on val are read from the model files. Those under noise
and blur are measured here, on tune: by them a head may be chosen.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from medseg import presets
from medseg.data.cases import CaseFiles, find
from medseg.image import Image
from medseg.metrics import THRESHOLDS, score_case, summarise
from medseg.model import Model
from medseg.ops.files import write_whole
from medseg.pipeline import segment
from medseg.spec import ModelSpec, TrainSpec, load_yaml
from medseg.testing import changes
from medseg.train.loop import cpu_seconds
from medseg.train.select import CHOOSE_AT

PAGE = Path(__file__).parent / "explanation" / "separating-instances.md"
MARKS = "<!-- heads: made by docs/make_heads_table.py -->\n", "<!-- end of heads -->\n"
TRIES = {
    "as they are": None,
    "noise .1": changes.noise(0.1),
    "noise .2": changes.noise(0.2),
    "blur 2 px": changes.blur(2),
}


def mean_ap(model: Model, files: list[CaseFiles], change: changes.Change | None) -> float:
    """Pooled AP, mean over IoU .5, .6, .7, .8, of the images under a change."""
    cases = []
    for one in files:
        image, drawn = one.load()
        voxels = changes.changed(image, change, one.stem)
        found = segment(Image.from_array(voxels, channel_axis=0, modality="microscopy"), model=model)
        cases.append(score_case(drawn.labels, found, name=one.stem, source=one.source))
    curve = summarise(cases, split="tune", resamples=2).curves[cases[0].source].ap_pooled
    return float(np.mean([curve[THRESHOLDS.index(t)] for t in CHOOSE_AT]))


def on_val(spec: ModelSpec, figure: str) -> float:
    """A pooled figure of the model's header."""
    return next(s.value for s in spec.scores if (s.split, s.figure, s.averaging) == ("val", figure, "pooled"))


def main() -> None:
    """Measure and write."""
    runs = [Path(run) for run in sys.argv[1:]]
    files = find(load_yaml(TrainSpec, presets.find_config("heads2d")), "tune")
    rows = []
    for run in runs:
        model = Model.load(run / "heads2d.safetensors", "cpu")
        spec = model.spec
        noisy = [mean_ap(model, files, change) for change in TRIES.values()]
        rows.append((spec.heads[0].kind, spec.training["steps"], cpu_seconds(run / "log.jsonl") / 60, noisy, spec))
        sys.stdout.write(f"{rows[-1][:4]}\n")
        sys.stdout.flush()
    rows.sort(key=lambda row: -row[3][0])
    lines = [
        "| head | steps | CPU minutes | "
        + " | ".join(f"tune, {name}" for name in TRIES)
        + " | val AP@.5 | val AP@.75 |",
        "|---" * (5 + len(TRIES)) + "|",
    ]
    for kind, steps, minutes, noisy, spec in rows:
        cells = " | ".join(f"{value:.3f}" for value in noisy)
        val = f"{on_val(spec, 'AP@.5'):.3f} | {on_val(spec, 'AP@.75'):.3f}"
        lines.append(f"| `{kind}` | {steps:,} | {minutes:.1f} | {cells} | {val} |")
    begin, end = MARKS
    page = PAGE.read_text(encoding="utf-8")
    table = "\n".join(["", *lines, "", ""])
    page = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + table + end, page, flags=re.DOTALL)
    write_whole(PAGE, page.encode())


if __name__ == "__main__":
    main()
