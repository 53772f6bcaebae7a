"""Measure `ms-lesions` on the two patients whose images there are, each by the network that has not seen it, and write the page.

MEDSEG_DATA=FOLDER python docs/make_ms_page.py

The settings are those of the shipped file, chosen on composed brains alone. Beside them stands a threshold on FLAIR that was chosen
on the other patient.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.data.cases import data_root
from medseg.data.transplant import PATIENTS, Brain, read_brain
from medseg.grid import Grid
from medseg.image import Image
from medseg.metrics import overlap
from medseg.metrics.lesions import lesionwise
from medseg.model import Model
from medseg.ops import components
from medseg.ops.files import write_whole
from medseg.pipeline import Finished, run

PAGE = Path(__file__).parent / "reference" / "ms-lesions.md"
LEAST = 3  # voxels (mm3) of a lesion that counts
SIZES = (("up to 3 mm", 0.0, 3.0), ("3 to 10 mm", 3.0, 10.0), ("over 10 mm", 10.0, np.inf))  # equivalent diameter
INPUTS = {"FLAIR and T1": ("FLAIR", "T1"), "FLAIR": ("FLAIR",)}


def counted(mask: np.ndarray) -> np.ndarray:
    """Components of a mask that are large enough to count."""
    return components.largest_pieces(components.label(mask), LEAST)


def found(brain: Brain, model: Model, channels: tuple[str, ...]) -> np.ndarray:
    """Instances that a model finds in a brain."""
    grid = Grid.from_spacing(brain.labels.shape, (1.0, 1.0, 1.0))
    image = Image(np.stack([brain.flair, brain.t1]), grid, modality="MR", channels=("FLAIR", "T1"))
    *_, last = run(image.select(list(channels)), model)
    assert isinstance(last, Finished)
    return last.instances.labels


def dice(labels: np.ndarray, brain: Brain) -> float:
    """Overlap of all that was found with all lesions."""
    both = ((labels > 0) & (brain.labels > 0)).sum()
    return float(2 * both / ((labels > 0).sum() + (brain.labels > 0).sum()))


def scored(labels: np.ndarray, brain: Brain) -> list[str]:
    """Cells of a row: Dice, F1, lesions that were hit, false ones, and hits by size."""
    truth = counted(brain.labels > 0)
    total = lesionwise(overlap(truth, labels), "any")
    size = np.bincount(truth.ravel())[1:]
    across = np.cbrt(size * 6 / np.pi)
    hit = np.bincount(truth[labels > 0], minlength=len(size) + 1)[1:] > 0
    sizes = [
        f"{int((hit & inside).sum())} of {int(inside.sum())}"
        for inside in ((across > low) & (across <= high) for _, low, high in SIZES)
    ]
    return [
        f"{dice(labels, brain):.2f}",
        f"{total.f1:.2f}",
        f"{total.tp} of {total.tp + total.fn}",
        str(total.fp),
        *sizes,
    ]


def floor(brain: Brain, other: Brain) -> np.ndarray:
    """What a threshold finds, as a multiple of the white matter's FLAIR, the one of the best Dice on another brain."""

    def masks(one: Brain, factor: float) -> np.ndarray:
        return counted(one.flair > factor * float(np.median(one.flair[one.white > 0.8])))

    factors = np.arange(1.05, 2.0, 0.05)
    # by Dice: any voxel is a hit, so the best lesion F1 is of a mask of nearly everything
    best = max(factors, key=lambda f: dice(masks(other, f), other))
    return masks(brain, float(best))


def main() -> None:
    """Write the page."""
    root = data_root() / "lesions" / "ms_ljubljana_mni"
    brains = {name: read_brain(root / name)[0] for name in PATIENTS}
    model = Model.load("ms-lesions")
    rows = []
    for number, (seen, new) in enumerate(zip(PATIENTS, reversed(PATIENTS), strict=True)):
        one = replace(model, _nets=(model._nets[number],))  # the network of the other patient's brains
        for title, channels in INPUTS.items():
            rows.append([new, f"network of {seen}", title, *scored(found(brains[new], one, channels), brains[new])])
            sys.stdout.write(" | ".join(rows[-1]) + "\n")
            sys.stdout.flush()
        rows.append([new, "threshold", "FLAIR", *scored(floor(brains[new], brains[seen]), brains[new])])
    head = [
        "patient",
        "found by",
        "input",
        "Dice",
        "lesion F1",
        "lesions hit",
        "false",
        *(name for name, _, _ in SIZES),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
    text = f"""# Multiple sclerosis lesions

How the two networks of `ms-lesions` do on the patient that each has not seen: real FLAIR and T1, no part of any training of
that network. Made by `MEDSEG_DATA=FOLDER python docs/make_ms_page.py`. For research use only.

{table}

Lesion F1 is 2 TP / (2 TP + FP + FN) over lesions of {LEAST} mm3 and more; a lesion is hit if any voxel of it is found. The
last columns are lesions hit by size (diameter of a ball of the same volume). Two patients of one scanner allow no interval
over patients: another patient may be far outside of what the two rows span.

**What to expect.** Large lesions are found; most small ones are missed. With FLAIR alone few marks are false; with T1 beside
it there may be many. Where a patient is unlike the one a network learned from, a threshold may do better, as the table shows.
Thresholds and the least score were chosen on composed brains (real lesions of other patients put into one patient's brain).
`--min-score 0` shows what was left out. With both patients' networks together, as the shipped file runs them, nothing can be
measured here: each has seen one.
"""
    write_whole(PAGE, text.encode())


if __name__ == "__main__":
    main()
