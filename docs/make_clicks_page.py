"""Measure masks from clicks, and write reference/clicks.md.

MEDSEG_DATA=FOLDER python docs/make_clicks_page.py

Cases are split by patient, embryo, or as their source splits them. Methods and weights were chosen on those of `tune` alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import edt
import numpy as np

from medseg import io
from medseg.clicks import Clicks, region
from medseg.data.cases import data_root
from medseg.image import Image
from medseg.ops import components
from medseg.ops.files import write_whole
from medseg.spec import ClickSpec

PAGE = Path(__file__).parent / "reference" / "clicks.md"
TUMOURS = ("sts_sarcoma", "pyradiomics", "lidc_0314")
CLICKS = 5
SEED = 0
MS = "N4_noneck_reduced_winsor_regtoFLAIR"


@dataclass
class Case:
    """One object, and what came of it."""

    source: str
    modality: str
    part: str
    name: str
    image: Image
    truth: np.ndarray
    dice: list[float] = field(default_factory=list)  # after each click in the deepest place
    loose: list[float] = field(default_factory=list)  # after each click in a place half as deep or more
    box: float = 0.0
    seconds: list[float] = field(default_factory=list)


def pieces(mask: np.ndarray, least: int, most: int) -> list[np.ndarray]:
    """Connected pieces of at least so many voxels; if there are too many, some drawn by lot."""
    labels = components.label(mask)
    ids = np.flatnonzero(components.sizes(labels) >= least)[1:]
    return [labels == i for i in drawn(ids, most)]


def drawn(ids: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some ids."""
    return np.sort(np.random.default_rng(SEED).choice(ids, most, replace=False)) if len(ids) > most else ids


def read(image: Path, labels: Path, modality: str, spacing: list[float] | None = None) -> tuple[Image, np.ndarray]:
    """An image with its modality said, and its labels."""
    given = {"spacing": spacing, "unit": "um"} if spacing else {}
    found = io.load(image, **given)
    return Image(found.voxels(), found.grid, modality), io.load_labels(labels, **given).labels


def lesions(root: Path) -> Iterator[Case]:
    """Tumours and lesions; each connected piece is one case."""
    rows: list[tuple[str, str, str, str, Path, Path, int]] = []
    for patient, part in (("STS_001", "tune"), ("STS_002", "report")):
        for folder, modality in (("CT", "CT"), ("PET", "PT"), ("MR_T1", "MR")):
            at = root / "sts_sarcoma" / "nifti" / patient / folder
            rows += [("sts_sarcoma", modality, part, patient, at / "image.nii.gz", at / "mask.nii.gz", 1)]
    for name, part in (("brain1", "tune"), ("brain2", "report"), ("breast1", "report")):
        at = root / "pyradiomics"
        rows += [("pyradiomics", "MR", part, name, at / f"{name}_image.nrrd", at / f"{name}_label.nrrd", 20)]
    at = root / "lidc_0314"
    rows += [("lidc_0314", "CT", "report", "nodule", at / "dicom", at / "consensus50_mask.nii.gz", 1)]
    for patient, part in (("patient19", "tune"), ("patient26", "report")):
        at = root / "ms_ljubljana_mni" / patient
        flair, truth = f"FLAIR_{MS}_brain_N4_regtoMNI.nii.gz", f"GOLD_STANDARD_{MS}_regtoMNI.nii.gz"
        rows += [("ms_ljubljana_mni", "MR", part, patient, at / flair, at / truth, 50)]
    for source, modality, part, name, image, labels, least in rows:
        voxels, found = read(image, labels, modality)
        for number, piece in enumerate(pieces(found > 0, least, 12), 1):
            yield Case(source, modality, part, f"{name} {number}", voxels, piece)


def organs(root: Path) -> Iterator[Case]:
    """Hippocampi, both parts as one."""
    folder = root / "msd_hippocampus"
    split = json.loads((folder / "manifest.json").read_text())["split_proposal"]
    other = next(key for key in split if key != "train")
    for part, names in (("tune", split["train"][:6]), ("report", split[other][:20])):
        for name in names:
            voxels, found = read(folder / "imagesTr" / f"{name}.nii.gz", folder / "labelsTr" / f"{name}.nii.gz", "MR")
            yield Case("msd_hippocampus", "MR", part, name, voxels, found > 0)


def cells(root: Path) -> Iterator[Case]:
    """Nuclei in 3-D and in 2-D."""
    rows: list[tuple[str, str, str, list[float] | None, int]] = []
    for item in json.loads((root / "gonuclear_mini" / "manifest.json").read_text())["items"]:
        part, most = ("tune", 6) if item["split"] == "train" else ("report", 12)
        rows += [("gonuclear_mini", part, item["name"], item["spacing_um"], most)]
    for item in json.loads((root / "bbbc050_mouse_embryo" / "manifest.json").read_text())["items"]:
        part, most = ("tune", 3) if item["embryo"] == "Emb01" else ("report", 1)
        rows += [("bbbc050_mouse_embryo", part, item["name"], item["spacing_um"], most)]
    items = json.loads((root / "dsb2018_fluorescence" / "manifest.json").read_text())["items"]
    for part, kind, most in (("tune", "train", 8), ("report", "val", 30)):
        rows += [("dsb2018_fluorescence", part, i["name"], None, 1) for i in items if i["split"] == kind][:most]
    for source, part, name, spacing, most in rows:
        at = root / source
        voxels, found = read(at / "images" / f"{name}.tif", at / "labels" / f"{name}.tif", "microscopy", spacing)
        ids = np.flatnonzero(np.bincount(found.ravel()) >= 30)
        for one in drawn(ids[ids > 0], most):
            yield Case(source, "microscopy", part, f"{name} {one}", voxels, found == one)


def place(mask: np.ndarray, spacing: tuple[float, ...], rng: np.random.Generator | None) -> tuple[int, ...]:
    """The deepest voxel of a mask; with `rng` any that is at least half as deep."""
    depth = edt.edt(np.pad(mask, 1).astype(np.uint8), anisotropy=spacing, parallel=1)[(slice(1, -1),) * mask.ndim]
    flat = depth.argmax() if rng is None else rng.choice(np.flatnonzero(depth >= depth.max() / 2))
    return tuple(int(i) for i in np.unravel_index(flat, mask.shape))


def next_click(
    truth: np.ndarray, found: np.ndarray, spacing: tuple[float, ...], rng: np.random.Generator | None
) -> tuple[tuple[int, ...], bool] | None:
    """A click in the largest connected error, and whether it is inside; None if there is no error."""
    best: tuple[int, bool, np.ndarray] | None = None
    for inside, wrong in ((True, truth & ~found), (False, found & ~truth)):
        labels = components.label(wrong)
        sizes = components.sizes(labels)
        sizes[0] = 0
        if sizes.any() and (best is None or sizes.max() > best[0]):
            best = int(sizes.max()), inside, labels == sizes.argmax()
    return None if best is None else (place(best[2], spacing, rng), best[1])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks."""
    return 2 * int((a & b).sum()) / int(a.sum() + b.sum())


def clicked(case: Case, rng: np.random.Generator | None) -> tuple[list[float], list[float]]:
    """Dice after each click, and seconds of each."""
    spacing = case.image.grid.spacing
    session, out, seconds = Clicks(case.image), [], []
    click: tuple[tuple[int, ...], bool] | None = (place(case.truth, spacing, rng), True)
    for _ in range(CLICKS):
        if click is not None:
            start = time.perf_counter()
            session.add(*click)
            seconds.append(time.perf_counter() - start)
        full = session.full()
        out.append(dice(full, case.truth))
        click = next_click(case.truth, full, spacing, rng)
    return out, seconds


def boxed(case: Case) -> float:
    """Dice of the mask from the tight box alone."""
    corners = np.argwhere(case.truth)
    mask, at = region(case.image, box=(corners.min(axis=0), corners.max(axis=0) + 1))
    full = np.zeros_like(case.truth)
    full[at] = mask
    return dice(full, case.truth)


def row(head: str, some: list[Case]) -> str:
    """One line of the table."""
    at = [[case.dice[k] for case in some] for k in (0, 2, 4)]
    told = [f"{np.mean(d):.2f} ({min(d):.2f} to {max(d):.2f})" for d in at]
    loose = f"{np.mean([case.loose[-1] for case in some]):.2f}"
    box = f"{np.mean([case.box for case in some]):.2f}"
    ms = 1000 * np.median([s for case in some for s in case.seconds])
    return f"| {head} | {len(some)} | {' | '.join(told)} | {loose} | {box} | {ms:.0f} |"


def main() -> None:
    """Click, score, write."""
    root = data_root()
    session = Clicks(Image.from_array(np.zeros((8, 8, 8), np.float32)))  # compiles
    session.add((4, 4, 4))
    done = []
    for number, case in enumerate([*lesions(root / "lesions"), *organs(root / "lesions"), *cells(root / "cells")]):
        case.dice, case.seconds = clicked(case, None)
        case.loose, _ = clicked(case, np.random.default_rng([SEED, number]))
        case.box = boxed(case)
        done.append(case)
        sys.stdout.write(f"{case.source} {case.part} {row(case.name, [case])}\n")
        sys.stdout.flush()
    tumours = [case for case in done if case.source in TUMOURS]
    reported = [case for case in tumours if case.part == "report"]
    lines = {}
    for part in ("report", "tune"):
        groups: dict[tuple[str, str], list[Case]] = {}
        for case in done:
            if case.part == part:
                groups.setdefault((case.source, case.modality), []).append(case)
        lines[part] = "\n".join(row(" | ".join(key), some) for key, some in groups.items())
    text = TEXT.format(
        single="\n".join(
            f"| {c.source} | {c.modality} | {c.name} | {c.part} | "
            + " | ".join(f"{d:.2f}" for d in c.dice)
            + f" | {1000 * np.median(c.seconds):.0f} |"
            for c in tumours
        ),
        reported=row("reported", reported),
        all=row("all", tumours),
        settings="\n".join(
            f"| `{name}` | `{value.default}` | {value.description} |" for name, value in ClickSpec.model_fields.items()
        ),
        **lines,
    )
    write_whole(PAGE, text.encode())


TEXT = """# Masks from clicks

How well [`medseg.clicks`](api.md#other-modules) finds an object from a few clicks, with no model at all. Made by
`python docs/make_clicks_page.py`.

```python
from medseg import Image
from medseg.clicks import Clicks, region
import numpy as np

y, x = np.indices((64, 64))
image = Image.from_array(100.0 * (np.hypot(y - 30, x - 36) < 10))
mask, place = region(image, inside=[(30, 36)])  # a part of the image, and where it lies
session = Clicks(image)  # the same, click by click
session.add((30, 36))
session.add((30, 50), inside=False)
session.undo()
print(session.place == place)
```

```text
True
```

## How it works

From the first click rays go out in all directions of space, in mm. At each of many sizes the intensities within and just beyond
tell how likely each sample is inside; the smooth closed surface that fits best is found, and of all sizes the one whose surface
has the most contrast between its two sides, less what chance would give so few voxels. No scale or shift of the intensities
changes anything, so that CT, MR, PET and microscopy need no rules of their own. Then the border is settled voxel by voxel: depth
in the surface, odds of the intensities, and a border that is short and lies where the image changes.

A further click sits in the middle of what is wrong: half of what is wrong there lies between it and the present border, which
is taken as known for most of that way. A missed part gets a surface of its own, and is added; a part too much is carved out,
and the object is thought to be smaller. Every voxel clicked as inside is in the mask, every one clicked as outside is not.

## How clicks are simulated

As in Gulshan et al. 2010 (doi:10.1109/CVPR.2010.5540073), Kohli et al. 2012 (doi:10.1007/s11263-012-0537-4) and Sofiiuk et al. 2022
(arXiv:2102.06583): the first click is the deepest voxel of the true mask, each next one the deepest voxel of the largest connected
error, inside if it was missed and outside if it is too much. *Loose* clicks are drawn from all voxels that are at least half as
deep, as no person finds the deepest one. *Box* is the tight box of the true mask, alone.

Dice is the mean, with the lowest and the highest case. Milliseconds are the median of a click, with one thread, the first click and
its reading from memory included.

## Tumours in CT, MR and PET

Method and weights were chosen on the cases marked `tune`; nothing was chosen on the others.

| data set | modality | case | part | 1 click | 2 | 3 | 4 | 5 | ms |
|---|---|---|---|---|---|---|---|---|---|
{single}

| cases | number | 1 click | 3 clicks | 5 clicks | 5 loose clicks | box | ms |
|---|---|---|---|---|---|---|---|
{reported}
{all}

## All data sets

Cases that nothing was chosen on: other patients, embryos and images than below.

| data set | modality | cases | 1 click | 3 clicks | 5 clicks | 5 loose clicks | box | ms |
|---|---|---|---|---|---|---|---|---|
{report}

Cases that methods and weights were chosen on:

| data set | modality | cases | 1 click | 3 clicks | 5 clicks | 5 loose clicks | box | ms |
|---|---|---|---|---|---|---|---|---|
{tune}

## Settings

`medseg.spec.ClickSpec`:

| key | default | meaning |
|---|---|---|
{settings}

## What it cannot do

- One click does not know which of several nested objects is meant: the nucleus or the cell, the tumour or the limb. The second
  click says it.
- A tumour with no border in the image, such as one in muscle on a CT without contrast, follows the clicks and is smooth in between.
- Objects of many branches need a click for each branch; lesions that merge with others need clicks outside.
- Of several channels the mean counts. Choose one with `Image.select`.
"""


if __name__ == "__main__":
    main()
