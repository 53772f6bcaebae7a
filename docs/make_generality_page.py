"""Score models on the data set that their training left out, and write reference/generality.md.

    for source in dsb2018_fluorescence dsb2018_histology usiigaci_phase; do
      medseg train cells2d --without $source --steps 4000 -o runs/left-out/cells2d-without-$source
    done
    for source in bbbc050_mouse_embryo gonuclear_mini; do
      medseg train nuclei3d --without $source --steps 1000 -o runs/left-out/nuclei3d-without-$source
    done
    MEDSEG_DATA=FOLDER python docs/make_generality_page.py runs/left-out

Val images are segmented as a user's image would be, by that model and by the shipped one, which learned from the train images of
that data set. Rows of the page of which the folder holds no run stay as they are, as all runs together take a day.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from medseg import presets
from medseg.data.cases import find
from medseg.metrics import score_case, summarise
from medseg.model import Model
from medseg.ops.files import write_whole
from medseg.pipeline import segment
from medseg.spec import RunSpec, TrainSpec, load_yaml

PAGE = Path(__file__).parent / "reference" / "generality.md"
FIGURES = ("AP@.5", "AP@.75")
INTRO = """# Data sets that nobody trained on

<!-- Made by docs/make_generality_page.py. Do not edit. -->

What to expect of images unlike those of a training: each row is a network that was trained without one data set, scored on the val
images of that one. Beside it stands the shipped model, which learned from its train images, and for longer. Figures are
pooled over all objects, with 95 % intervals over images; a data set of one image allows none. Settings and thresholds were
chosen on the tune images of the other data sets.
"""


def scored(model: Model, source: str) -> tuple[list[str], int, int]:
    """Figures with their intervals, images and true objects of a data set's val images."""
    files = find(load_yaml(TrainSpec, presets.find_config(model.spec.name)), "val", (source,))
    cases = []
    for one in files:
        image, drawn = one.load()
        # what was left out may be coarser or finer than what the training saw
        found = segment(image, model=model, options=RunSpec(force=True))
        cases.append(score_case(drawn.labels, found, name=one.stem, source=source))
    summary = summarise(cases, split="val", resamples=2000)
    told = []
    for name in FIGURES:
        wanted = (source, name, "", "")
        value = next(r.estimate for r in summary.rows if (r.source, r.figure, r.class_name, r.size) == wanted)
        between = "" if value.pooled_interval is None else " ({:.2f} to {:.2f})".format(*value.pooled_interval)
        told.append(f"{value.pooled:.3f}{between}")
    return told, len(files), sum(len(one.table.truth.ids) for one in cases)


def written() -> dict[tuple[str, str], str]:
    """Rows of the page as it is."""
    rows = re.finditer(r"^\| (\w+) \| (\w+) \|.*$", PAGE.read_text() if PAGE.exists() else "", re.MULTILINE)
    return {(row[1], row[2]): row[0] for row in rows if row[1] != "model"}


def main() -> None:
    """Score and write."""
    table = written()
    for run in sorted(Path(sys.argv[1]).iterdir()):
        named = re.fullmatch(r"(\w+)-without-(\w+)", run.name)
        if not named or not (file := run / f"{named[1]}.safetensors").exists():
            continue
        model = Model.load(file, "cpu")
        if named[2] in model.spec.training["sources"]:
            raise SystemExit(f"{run.name}: was trained on {named[2]}")
        without, images, objects = scored(model, named[2])
        shipped, _, _ = scored(Model.load(named[1], "cpu"), named[2])
        steps = int(model.spec.training["steps"])
        cells = [*named.groups(), str(images), f"{objects:,}", f"{steps:,}", *without, *shipped]
        table[named[1], named[2]] = f"| {' | '.join(cells)} |"
        sys.stdout.write(table[named[1], named[2]] + "\n")
    head = ["model", "left out", "images", "objects", "steps", *FIGURES, *(f"shipped {name}" for name in FIGURES)]
    lines = [INTRO, f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(table[one] for one in sorted(table))]
    write_whole(PAGE, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
