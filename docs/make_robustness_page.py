"""Measure how a model's AP holds under changes of the image, and write reference/robustness.md and its picture.

MEDSEG_DATA=FOLDER python docs/make_robustness_page.py cells2d [--config cells2d] [--every 1]

Every image of val is changed, segmented as a user's image would be, and scored. Nothing is chosen by these figures.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from medseg import presets
from medseg.data.cases import CaseFiles, find
from medseg.image import Image
from medseg.metrics import score_case, summarise
from medseg.model import Model
from medseg.ops.files import write_whole
from medseg.pipeline import segment
from medseg.spec import TrainSpec, load_yaml
from medseg.testing import changes

DOCS = Path(__file__).parent
PAGE = DOCS / "reference" / "robustness.md"
PICTURE = DOCS / "images" / "robustness.png"


@dataclass(frozen=True)
class Try:
    """One change at one strength: a curve's name, the place on its axis, and the change or the magnification."""

    curve: str
    level: float
    change: changes.Change | None = None
    factor: float = 1.0


TRIES = (
    Try("as it is", 0),
    *[Try("gamma", g, changes.gamma(g)) for g in (0.4, 0.6, 1.6, 2.5)],
    *[Try("blur (px)", s, changes.blur(s)) for s in (1, 2, 3, 4)],
    *[Try("noise (of the range)", n, changes.noise(n)) for n in (0.02, 0.05, 0.1, 0.2)],
    *[Try("scale", f, None, f) for f in (0.5, 0.71, 1.41, 2.0)],
    Try("inverted", 1, changes.invert()),
    Try("channels permuted", 1, changes.permute()),
    *[Try("distractor channels", n, changes.distract(n)) for n in (1, 2)],
)
NEUTRAL = {"gamma": 1.0, "blur (px)": 0.0, "noise (of the range)": 0.0, "scale": 1.0, "distractor channels": 0.0}


def scored(model: Model, files: list[CaseFiles], trial: Try, most: int) -> dict[str, tuple[float, float, int]]:
    """Pooled AP@.5 and AP@.75, and the number of images, of each source."""
    cases = []
    for one in files:
        image, drawn = one.load()
        voxels, labels = changes.changed(image, trial.change, one.stem), drawn.labels
        if len(voxels) > most:
            continue  # a colour image and two distractors are more than the model takes
        if trial.factor != 1:
            voxels, labels = changes.rescale(voxels, labels, trial.factor)
        found = segment(Image.from_array(voxels, channel_axis=0, modality="microscopy"), model=model)
        cases.append(score_case(labels, found, name=one.stem, source=one.source))
    summary = summarise(cases, split="val", resamples=2)
    return {
        source: (
            summary.value("AP@.5", source=source),
            summary.value("AP@.75", source=source),
            sum(c.source == source for c in cases),
        )
        for source in sorted({c.source for c in cases})
    }


def main() -> None:
    """Measure and write."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model")
    arguments.add_argument("--config", default="cells2d")
    arguments.add_argument("--every", type=int, default=1, help="only every so many-th image, for a quick look")
    arguments.add_argument("--print", action="store_true", help="print the table and write nothing")
    given = arguments.parse_args()
    spec = load_yaml(TrainSpec, presets.find_config(given.config))
    files = find(spec, "val")[:: given.every]
    model = Model.load(given.model, "cpu")
    rows = {}
    for trial in TRIES:
        rows[trial] = scored(model, files, trial, spec.net.in_channels)
        sys.stdout.write(f"{trial.curve} {trial.level:g}: {rows[trial]}\n")
        sys.stdout.flush()
    if given.print:
        return
    write_whole(PAGE, text(model, rows, given.every).encode())
    draw(rows)


def text(model: Model, rows: dict[Try, dict[str, tuple[float, float, int]]], every: int) -> str:
    """The page."""
    sources = sorted({s for row in rows.values() for s in row})
    lines = [
        "# Robustness",
        "",
        "<!-- Made by docs/make_robustness_page.py. Do not edit. -->",
        "",
        f"How the AP@.5 of `{model.spec.name}` (revision {model.spec.revision}) holds when the val images are changed:",
        f"pooled over all objects of {'all' if every == 1 else f'every {every}th of the'} val images. Nothing was chosen",
        "by these figures. The size of the objects is estimated, as for a user's images.",
        "",
        "![Curves of AP under each change](../images/robustness.png)",
        "",
        "| change | level | " + " | ".join(f"{s} AP@.5 | AP@.75" for s in sources) + " |",
        "|---" * (2 + 2 * len(sources)) + "|",
    ]
    for trial, row in rows.items():
        cells = [f"{row[s][0]:.3f} | {row[s][1]:.3f}" if s in row else "– | –" for s in sources]
        lines.append(f"| {trial.curve} | {trial.level:g} | " + " | ".join(cells) + " |")
    counts = ", ".join(f"{s} {n[2]}" for s, n in rows[TRIES[0]].items())
    lines += [
        "",
        f"Images: {counts}. Two distractor channels are not added to colour images: the model takes four channels.",
        "",
    ]
    return "\n".join(lines)


def draw(rows: dict[Try, dict[str, tuple[float, float, int]]]) -> None:
    """One small plot for each curve."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plain = rows[TRIES[0]]
    figure, axes = plt.subplots(1, len(NEUTRAL), figsize=(3 * len(NEUTRAL), 3), sharey=True, layout="constrained")
    for axis, (curve, neutral) in zip(axes, NEUTRAL.items(), strict=True):
        for source in plain:
            points = [(neutral, plain[source][0])]
            points += [(t.level, r[source][0]) for t, r in rows.items() if t.curve == curve and source in r]
            x, y = zip(*sorted(points), strict=True)
            axis.plot(x, y, "o-", label=source, markersize=3)
        axis.set_xlabel(curve)
        axis.set_ylim(0, 1)
        if curve in ("gamma", "scale"):
            axis.set_xscale("log")
            axis.set_xticks(sorted([neutral, *[t.level for t in rows if t.curve == curve]]))
            axis.get_xaxis().set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
            axis.minorticks_off()
    axes[0].set_ylabel("AP@.5, pooled")
    axes[0].legend(fontsize=7, loc="lower left")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
