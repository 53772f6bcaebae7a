"""Measure `ms-lesions` on the two patients whose images there are, each by the network that has not seen it, and write the page.

MEDSEG_DATA=FOLDER python docs/make_ms_page.py [--ship MODEL.safetensors -o medseg/weights/ms-lesions.safetensors]

The threshold comes from the image (`medseg.ops.borders`), and the one setting that is left for one patient is chosen on the
other, with the network that has not seen that one: no figure is of what chose its settings. Beside them stands a threshold on
FLAIR that was chosen on the other patient too. `--ship` writes that setting, chosen on both, into what `medseg combine` made.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import expit

from medseg import heads, preprocess, presets
from medseg.data.cases import data_root
from medseg.data.transplant import PATIENTS, Brain, heal, read_brain
from medseg.grid import Grid
from medseg.image import Image
from medseg.metrics import overlap
from medseg.metrics.lesions import lesionwise
from medseg.model import Model, save_model, weights_of
from medseg.ops import borders, components
from medseg.ops.files import write_whole
from medseg.pipeline import Finished, run
from medseg.spec import FlowSpec, TrainSpec, load_yaml

PAGE = Path(__file__).parent / "reference" / "ms-lesions.md"
LEAST = 3  # voxels (mm3) of a lesion that counts
SIZES = (("up to 3 mm", 0.0, 3.0), ("3 to 10 mm", 3.0, 10.0), ("over 10 mm", 10.0, np.inf))  # equivalent diameter
# small lesions have few votes, and touching ones are cut where the votes part
HEAD = FlowSpec(threshold=0.5, votes=1.0, blur=1.0, separation=0.7, min_voxels=3)
BORDER = 0.12  # least change across borders: lesions of both patients have more, the same brains without them less
SLAB = 10  # slices (mm) that are drawn together for the intervals, as neighbouring lesions are missed together
DRAWS = 2000
SHARES = (0.4, 0.5, 0.6, 0.7)  # of the change across all borders, that a piece must have
WHO = ["patient", "found by", "input", "sharpest at", "change there"]
INPUTS = {"FLAIR and T1": ("FLAIR", "T1"), "FLAIR": ("FLAIR",)}


def counted(mask: np.ndarray) -> np.ndarray:
    """Components of a mask that are large enough to count."""
    return components.largest_pieces(components.label(mask), LEAST)


@dataclass(frozen=True)
class Looked:
    """What a network says of a brain that it has not seen: raw maps, and the image as the network saw it."""

    brain: Brain
    maps: np.ndarray
    array: np.ndarray

    def found(self, share: float) -> np.ndarray:
        """Instances, with the threshold at which borders are sharpest, without what stands out by less than a share of the rest."""
        maps = self.maps.copy()
        maps[0], _ = borders.fitted(maps[0], self.array[0], HEAD.threshold, share, BORDER)
        return heads.make(HEAD).decode(maps, (1.0, 1.0, 1.0)).paint()[0]

    def border(self) -> list[str]:
        """The threshold at which borders are sharpest, and the change across them."""
        threshold, change = borders.sharpest(self.array[0], expit(self.maps[0]))
        return [f"{threshold:g}", f"{change:.3f}"]


def looked(brain: Brain, model: Model, channels: tuple[str, ...]) -> Looked:
    """Run a network on a brain."""
    grid = Grid.from_spacing(brain.labels.shape, (1.0, 1.0, 1.0))
    image = Image(np.stack([brain.flair, brain.t1]), grid, modality="MR", channels=("FLAIR", "T1"))
    image = image.select(list(channels))
    *_, last = run(image, replace(model, spec=model.spec.model_copy(update={"border": 0.0})), keep=1 << 32)
    assert isinstance(last, Finished) and last.maps is not None
    whole = np.zeros((len(last.maps.parts[0][2]), *brain.labels.shape), np.float32)
    for core, grown, maps in last.maps.parts:
        inner = tuple(slice(c.start - g.start, c.stop - g.start) for c, g in zip(core, grown, strict=True))
        whole[(slice(None), *core)] = maps[(slice(None), *inner)]
    plan = preprocess.plan(image, model.spec.preprocess)
    return Looked(brain, whole, plan.read(image, tuple(slice(0, n) for n in grid.shape)))


def quality(seen: list[Looked], share: float) -> float:
    """Dice and lesion F1, the mean over what was looked at."""
    found = [one.found(share) for one in seen]
    parts = [
        dice(f, one.brain) + lesionwise(overlap(counted(one.brain.labels > 0), f), "any").f1
        for f, one in zip(found, seen, strict=True)
    ]
    return float(np.mean(parts)) / 2


def dice(labels: np.ndarray, brain: Brain) -> float:
    """Overlap of all that was found with all lesions."""
    both = ((labels > 0) & (brain.labels > 0)).sum()
    return float(2 * both / ((labels > 0).sum() + (brain.labels > 0).sum()))


def scored(labels: np.ndarray, brain: Brain) -> list[str]:
    """Cells of a row: Dice and F1 with their intervals, lesions that were hit, false ones, and hits by size."""
    truth = counted(brain.labels > 0)
    total = lesionwise(overlap(truth, labels), "any")
    size = np.bincount(truth.ravel())[1:]
    across = np.cbrt(size * 6 / np.pi)
    hit = np.bincount(truth[labels > 0], minlength=len(size) + 1)[1:] > 0
    sizes = [
        f"{int((hit & inside).sum())} of {int(inside.sum())}"
        for inside in ((across > low) & (across <= high) for _, low, high in SIZES)
    ]
    ranges = [f"({low:.2f} to {high:.2f})" for low, high in intervals(labels, brain, truth, hit)]
    return [
        f"{dice(labels, brain):.2f} {ranges[0]}",
        f"{total.f1:.2f} {ranges[1]}",
        f"{total.tp} of {total.tp + total.fn}",
        str(total.fp),
        *sizes,
    ]


def intervals(labels: np.ndarray, brain: Brain, truth: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """95 % intervals of Dice and lesion F1 within one patient, (2, 2): slabs of slices drawn with replacement."""
    count = -(-truth.shape[0] // SLAB)
    told = np.zeros((count, 6))  # voxels found and true, found, true; lesions hit, missed; found without a lesion
    for k in range(count):
        slab = slice(k * SLAB, (k + 1) * SLAB)
        found, true = labels[slab] > 0, brain.labels[slab] > 0
        told[k, :3] = (found & true).sum(), found.sum(), true.sum()
    false = np.bincount(labels[truth > 0], minlength=labels.max() + 1)[1:] == 0
    np.add.at(told, (_slab(truth)[hit], 3), 1)
    np.add.at(told, (_slab(truth)[~hit], 4), 1)
    np.add.at(told, (_slab(labels)[false], 5), 1)
    drawn = told[np.random.default_rng(0).integers(count, size=(DRAWS, count))].sum(axis=1)
    overlaps = 2 * drawn[:, 0] / np.maximum(drawn[:, 1] + drawn[:, 2], 1)
    f1 = 2 * drawn[:, 3] / np.maximum(2 * drawn[:, 3] + drawn[:, 4] + drawn[:, 5], 1)
    return np.stack([np.percentile(of, (2.5, 97.5)) for of in (overlaps, f1)])


def _slab(labels: np.ndarray) -> np.ndarray:
    """The slab that the middle of each object lies in; ids 1 to N."""
    z = np.nonzero(labels)[0]
    ids = labels[labels > 0]
    middle = np.bincount(ids, weights=z)[1:] / np.maximum(np.bincount(ids)[1:], 1)
    return (middle // SLAB).astype(int)


def floor(brain: Brain, other: Brain) -> np.ndarray:
    """What a threshold finds, as a multiple of the white matter's FLAIR, the one of the best Dice on another brain."""

    def masks(one: Brain, factor: float) -> np.ndarray:
        return counted(one.flair > factor * float(np.median(one.flair[one.white > 0.8])))

    factors = np.arange(1.05, 2.0, 0.05)
    # by Dice: any voxel is a hit, so the best lesion F1 is of a mask of nearly everything
    best = max(factors, key=lambda f: dice(masks(other, f), other))
    return masks(brain, float(best))


def without(brain: Brain) -> Brain:
    """The brain with its lesions filled by the tissue around them."""
    flair, t1 = heal(brain, brain.labels > 0, np.random.default_rng(0))
    return replace(brain, flair=flair, t1=t1, labels=np.zeros_like(brain.labels))


def main() -> None:
    """Measure and write the page; with ``--ship`` the model file too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ship", type=Path, help="model file of both networks, to write the settings into")
    parser.add_argument("--output", "-o", type=Path, help="where")
    given = parser.parse_args()
    root = data_root() / "lesions" / "ms_ljubljana_mni"
    brains = {name: read_brain(root / name)[0] for name in PATIENTS}
    model = Model.load(given.ship or "ms-lesions")
    # the networks are in the order of the patients whose brains they know
    unseen = {new: replace(model, _nets=(model._nets[1 - k],)) for k, new in enumerate(PATIENTS)}
    seen = {new: [looked(brains[new], unseen[new], channels) for channels in INPUTS.values()] for new in PATIENTS}
    good = {new: {share: quality(of, share) for share in SHARES} for new, of in seen.items()}
    rows, empty, told = [], [], []
    for new, other in zip(PATIENTS, reversed(PATIENTS), strict=True):
        share = max(SHARES, key=good[other].__getitem__)
        told.append(f"{share:g} for {new}")
        healed = without(brains[new])
        for (title, channels), one in zip(INPUTS.items(), seen[new], strict=True):
            who = [new, f"network of {other}", title]
            rows.append([*who, *one.border(), *scored(one.found(share), brains[new])])
            bare = looked(healed, unseen[new], channels)
            size = np.bincount(bare.found(share).ravel())[1:]
            empty.append([*who, *bare.border(), str(len(size)), str(int(size.sum()))])
            sys.stdout.write(f"{' | '.join(rows[-1])}\nwithout lesions: {' | '.join(empty[-1])}\n")
            sys.stdout.flush()
        rows.append([new, "threshold", "FLAIR", "", "", *scored(floor(brains[new], brains[other]), brains[new])])
    best = max(SHARES, key=lambda share: sum(of[share] for of in good.values()))
    if given.ship:
        ship(given.ship, given.output, model, best)
    found = table([*WHO, "Dice", "lesion F1", "lesions hit", "false", *(name for name, _, _ in SIZES)], rows)
    write_whole(PAGE, page(found, table([*WHO, "found", "mm3"], empty), ", ".join(told), best).encode())


def ship(source: Path, output: Path, model: Model, share: float) -> None:
    """Write the weights of a model file with the settings of this page."""
    changed = {"heads": (HEAD,), "border": share, "least_border": BORDER, "calibration": None, "min_score": 0.0}
    changed["limits"] = load_yaml(TrainSpec, presets.find_config("ms-lesions")).limits
    save_model(output, model.spec.model_copy(update=changed), weights_of(source))


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def page(found: str, empty: str, told: str, best: float) -> str:
    """The page round its two tables, how the share was chosen, and the one that ships."""
    return f"""# Multiple sclerosis lesions

How the two networks of `ms-lesions` do on the patient that each has not seen: real FLAIR and T1, no part of any training of
that network. Made by `MEDSEG_DATA=FOLDER python docs/make_ms_page.py`. For research use only.

{found}

Lesion F1 is 2 TP / (2 TP + FP + FN) over lesions of {LEAST} mm3 and more; a lesion is hit if any voxel of it is found. The
last columns are lesions hit by size (diameter of a ball of the same volume). In brackets are 95 % intervals within the patient,
by {DRAWS:,} draws of slabs of {SLAB} slices with replacement. Two patients of one scanner allow no interval over patients: another
patient may be far outside of what the rows span. The published weights of nicMSlesions (Valverde 2019,
doi:10.1016/j.nicl.2018.101638), run on patient26, had a Dice of .31 and a lesion F1 of .48; that was done once,
apart from this page.

**Threshold and settings.** The two networks are not equally sure (see the thresholds), so none that was chosen on one patient
does for the other. The threshold is therefore taken from the image, where the brightness changes most across the borders of
what is found (the change, as a share of the range from fluid to tissue), and pieces that change by less than a share of the
rest are left out. That share was chosen on the other patient, by the network that has not seen that one ({told});
the shipped file has the one that is best on both, {best:g}. The rule itself, the settings of the head and the thresholds to
choose from were found while looking at these two patients: a third may fare worse.

**Where there is no lesion.** The same brains with their lesions filled by the tissue around them:

{empty}

The borders of gray matter are borders too. Where none is sharper than {BORDER:g}, the image shows no lesion, and only what the
network is all but certain of is kept. The number stands between the changes of the two tables, and so was chosen on what they
report.

**How the file is stored.** The network sees the brain in one orientation, superior, anterior, left, as it learned; an image that is
stored in another is turned for it and the result turned back, so that both give the same lesions, to the voxel. An image
that lies oblique is turned to the nearest orientation, not straightened.

**What to expect.** Large lesions are found; many small ones are missed. Scores are mean probabilities after the threshold was
moved: they order what is found, but are no chances. With both patients' networks together, as the shipped file runs them,
nothing can be measured here: each has seen one.
"""


if __name__ == "__main__":
    main()
