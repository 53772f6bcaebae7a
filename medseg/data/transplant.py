"""Brains with more multiple sclerosis lesions than they had: what two patients' images need to teach a network.

    python -m medseg.data.transplant runs/ms-brains

Lesion masks of 27 other patients lie in the same space as the images. Each composed brain is a real one, in which some of the real
lesions may have been filled with the white matter around them, and lesions of other patients are drawn where it had none: with
the real shape at about the real place, a border that shares voxels with the tissue (partial volume), the brightness in FLAIR and
darkness in T1 that such lesions have beside the white matter around them, and a texture. The contrast of gray and white matter and
of the fluid is changed too, as other scanners would. Filling follows Battaglini 2012 (doi:10.1002/hbm.21402) in its idea.

Written are images with the channels FLAIR and T1, and instance labels: what touches by faces is one lesion, unless two patients'
lesions meet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, gaussian_filter

from medseg import io
from medseg.data.augment import smooth_field
from medseg.data.cases import data_root
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.ops import components
from medseg.ops.labels import statistics

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

PATIENTS = ("patient19", "patient26")  # those whose images are there
_TUNE_DONORS = ("patient05", "patient12", "patient17", "patient22", "patient30")  # their lesions are seen on tune only
_LEAST = 3  # voxels (mm3) of a lesion that is transplanted


@dataclass(frozen=True)
class Brain:
    """One patient's images and lesions on one grid, (z, y, x), and how much of each voxel is which tissue.

    Attributes
    ----------
    flair, t1 : float32
        0 outside of the brain.
    labels : int32
        Real lesions.
    white, fluid : float32
        0 to 1.
    """

    flair: Floats
    t1: Floats
    labels: Labels
    white: Floats
    fluid: Floats

    @property
    def inside(self) -> Mask:
        """Voxels of the brain."""
        return np.asarray(self.flair != 0)


def read_brain(folder: Path) -> tuple[Brain, tuple[slice, ...]]:
    """Read one patient, cut to the brain and a rim of 4 mm, and where in the whole space that is."""
    flair, t1 = (
        io.load(next(folder.glob(f"{name}_*.nii.gz"))).voxels()[0].astype(np.float32) for name in ("FLAIR", "T1")
    )
    lesions = read_mask(folder)
    where = np.argwhere(flair != 0)
    place = tuple(slice(max(0, a - 4), b + 5) for a, b in zip(where.min(0), where.max(0), strict=True))
    flair, t1, lesions = flair[place], t1[place], lesions[place] & (flair[place] != 0)
    return Brain(flair, t1, components.label(lesions), *tissues(flair, t1, lesions)), place


def read_mask(folder: Path) -> Mask:
    """Read the lesions of a patient in the whole space."""
    return np.asarray(io.load_labels(next(folder.glob("GOLD_STANDARD*.nii.gz"))).labels > 0)


def tissues(flair: Floats, t1: Floats, lesions: Mask) -> tuple[Floats, Floats]:
    """Shares of white matter and of fluid, read off T1, in which they are brightest and darkest; lesions count as white matter."""
    healthy = t1[(flair != 0) & ~lesions]
    dark, gray, white = np.percentile(healthy, [15, 45, 85])
    middle = (gray + white) / 2
    share = np.clip((t1 - middle) / max(white - middle, 1e-3) * 0.5 + 0.5, 0, 1)
    fluid = np.clip((gray - t1) / max(gray - dark, 1e-3), 0, 1)
    inside = flair != 0
    share, fluid = np.where(lesions, 1, share) * inside, np.where(lesions, 0, fluid) * inside
    return gaussian_filter(share, 0.5).astype(np.float32), fluid.astype(np.float32)


def around(values: Floats, weight: Floats, sigma: float) -> Floats:
    """Mean of an image over near voxels, by weight."""
    total = gaussian_filter(weight, sigma)
    return np.asarray(gaussian_filter(values * weight, sigma) / np.maximum(total, 1e-4), dtype=np.float32)


def heal(brain: Brain, which: Mask, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Fill lesions with the white matter near them and with the grain of white matter elsewhere."""
    share = gaussian_filter(binary_dilation(which, iterations=1).astype(np.float32), 0.7)
    share = np.clip(share * 1.3, 0, 1) * brain.inside
    sound = np.where(binary_dilation(brain.labels > 0, iterations=2), 0, brain.white > 0.6).astype(np.float32)
    shift = tuple(int(rng.integers(-12, 13)) for _ in range(3))
    out = []
    for image in (brain.flair, brain.t1):
        level = around(image, sound, 4.0)
        level = np.where(gaussian_filter(sound, 4.0) > 0.01, level, float(np.median(image[sound > 0])))
        grain = np.where(sound > 0, image - around(image, sound, 2.0), 0)
        out.append(((1 - share) * image + share * (level + np.roll(grain, shift, (0, 1, 2)))).astype(np.float32))
    return out[0], out[1]


def compose(brain: Brain, donors: Sequence[Mask], rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Compose one brain.

    Parameters
    ----------
    brain
        Where the lesions go.
    donors
        Lesions of other patients on the same voxels.
    rng
        All that is random.

    Returns
    -------
    image : float32 (2, z, y, x)
        FLAIR and T1.
    labels : int32 (z, y, x)
        Lesions.
    """
    flair, t1, labels = brain.flair, brain.t1, brain.labels
    if labels.any() and rng.random() < 0.6:
        ids = np.unique(labels[labels > 0])
        gone = np.isin(labels, ids[rng.random(len(ids)) < rng.choice([0.3, 0.7, 1.0])])
        flair, t1 = heal(brain, gone, rng)
        labels = np.where(gone, 0, labels).astype(np.int32)
    level = float(np.median(flair[brain.white > 0.8]))
    # another scanner: gray matter brighter or darker beside white matter, not everywhere alike, and fluid less dark
    gray = np.clip(1 - brain.white - brain.fluid, 0, 1)
    field = smooth_field(rng, (5, 5, 5), gray.shape).astype(np.float32)
    contrast = rng.uniform(-0.1, 0.2) + rng.uniform(0, 0.12) * field
    flair = flair + level * (contrast * gray + max(0, rng.normal(0, 0.15)) * brain.fluid)
    flair = flair + level * _decoys(gray, brain.fluid, rng)
    t1 = t1 * (1 + rng.uniform(-0.12, 0.12) * gray)
    masks = _placed(brain, labels, donors, rng)
    flair, t1 = _drawn(brain, flair, t1, masks, rng)
    out = np.stack([flair, t1]) * brain.inside
    return out.astype(np.float32), _numbered(labels, masks)


def _decoys(gray: Floats, fluid: Floats, rng: np.random.Generator) -> Floats:
    """What is bright in FLAIR and no lesion: spots in gray matter, and the thin lining of the ventricles."""
    out = np.zeros(gray.shape, np.float32)
    places = np.argwhere(gray > 0.6)
    for sigma in (0.7, 1.2, 2.0):
        chosen = places[rng.integers(0, len(places), int(rng.integers(0, 30)))]
        spots = np.zeros(gray.shape, np.float32)
        spots[tuple(chosen.T)] = rng.uniform(0.1, 0.4, len(chosen))
        out += (
            gaussian_filter(spots, sigma) * (sigma * np.sqrt(2 * np.pi)) ** 3
        )  # the height that was drawn, whatever the width
    lining = rng.uniform(0, 0.25) * gaussian_filter(fluid, 1.0) * (1 - fluid)
    return np.asarray(out * gray + lining, dtype=np.float32)


def _placed(brain: Brain, labels: Labels, donors: Sequence[Mask], rng: np.random.Generator) -> Labels:
    """Other patients' lesions where there is tissue and no lesion: numbered, 0 elsewhere."""
    taken = binary_dilation(labels > 0, iterations=2)
    tissue = brain.inside & (brain.fluid < 0.5)
    out = np.zeros(labels.shape, np.int32)
    count = 0
    for donor in donors:
        if rng.random() < 0.5:
            donor = donor[..., ::-1]  # the halves of a brain are alike
        if rng.random() < 0.4:  # a higher load: lesions that have grown into one another, in white matter
            grown = binary_dilation(donor, iterations=int(rng.integers(1, 4)))
            donor = donor | (grown & (brain.white > 0.5))
        parts = components.label(donor)
        number = int(parts.max(initial=0))
        if not number:
            continue
        _, boxes, _ = statistics(parts, number)
        for id in rng.permutation(number) + 1:
            if rng.random() < 0.25:
                continue
            box = boxes[id - 1]
            mask = parts[tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))] == id
            for spread in (1, 4, 8):
                start = box[:3] + rng.integers(-spread, spread + 1, 3)
                if (start < 1).any() or (start + mask.shape > np.array(labels.shape) - 1).any():
                    continue
                place = tuple(slice(int(a), int(a + n)) for a, n in zip(start, mask.shape, strict=True))
                free = mask & tissue[place] & ~taken[place] & (out[place] == 0)
                white = float(brain.white[place][mask].mean())
                if free.sum() >= max(_LEAST, 0.6 * mask.sum()) and white > rng.uniform(0.2, 0.6):
                    count += 1
                    out[place][free] = count
                    break
    return out


def _drawn(brain: Brain, flair: Floats, t1: Floats, masks: Labels, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw lesions into both images."""
    if not masks.any():
        return flair, t1
    sound = np.where(brain.labels > 0, 0, brain.white > 0.6).astype(np.float32)
    size = np.bincount(masks.ravel())
    count = len(size) - 1
    # of each patient's own kind, and of each lesion: how much brighter and darker than white matter, and how solid
    bright, dark = rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.45)
    lift = np.concatenate([[0], bright * np.exp(rng.normal(0, 0.25, count))])
    drop = np.concatenate([[0], np.clip(dark * np.exp(rng.normal(0, 0.4, count)), 0, 0.8)])
    faint = np.concatenate([[1], np.clip(0.75 + 0.08 * np.log(np.maximum(size[1:], 1)), 0.6, 1)])
    soft = rng.uniform(0.4, 0.9)
    share = gaussian_filter((masks > 0).astype(np.float32), soft)
    share = np.clip(share * rng.uniform(1.2, 1.6), 0, 1) * brain.inside
    near = (masks > 0).astype(np.float32)

    def spread(per_lesion: npt.NDArray[np.float64]) -> Floats:
        return around(per_lesion[masks].astype(np.float32), near, 1.5)

    field = smooth_field(rng, tuple(max(2, n // 5) for n in masks.shape), masks.shape).astype(np.float32)
    share = share * spread(faint)
    out = []
    for image, amount, sign in ((flair, lift, 1.0), (t1, drop, -1.0)):
        level = around(image, sound, 6.0)
        level = np.where(level > 0, level, float(np.median(image[sound > 0])))
        # what is there is lifted, grain and all: a lesion with a grain of its own would be known by that, not by what it is
        aim = image + level * sign * spread(amount) * (1 + 0.35 * field)
        out.append((1 - share) * image + share * aim)
    if rng.random() < 0.4:  # white matter near lesions is often a little bright without being drawn
        out[0] = out[0] + rng.uniform(0.1, 0.35) * bright * gaussian_filter(near, 2.5) * around(flair, sound, 6.0)
    return out[0].astype(np.float32), out[1].astype(np.float32)


def _numbered(real: Labels, drawn: Labels) -> Labels:
    """One numbering; pieces of a transplanted lesion that tissue cut are lesions of their own."""
    pieces = components.pieces(drawn)
    pieces = np.where(pieces > 0, pieces + int(real.max(initial=0)), 0)
    merged = np.where(real > 0, real, pieces)
    sizes = np.bincount(merged.ravel())
    sizes[0] = _LEAST
    _, number = np.unique(np.where((sizes < _LEAST)[merged] & (real == 0), 0, merged), return_inverse=True)
    return np.asarray(number).reshape(real.shape).astype(np.int32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write, for each patient, brains composed of that one's to train and tune on, and the other patient as is to report on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=32, help="composed brains per patient to train on")
    parser.add_argument("--tune", type=int, default=4, help="composed brains per patient to tune on")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    root = data_root() / "lesions" / "ms_ljubljana_mni"
    masks = {p.name: read_mask(p) for p in sorted(root.glob("patient*")) if p.name not in PATIENTS}
    for patient, other in zip(PATIENTS, reversed(PATIENTS), strict=True):
        folder = given.output / patient.replace("patient", "from")
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        brain, place = read_brain(root / patient)
        cut = {name: mask[place] for name, mask in masks.items()}
        seen, _ = read_brain(root / other)
        _write(folder, other, np.stack([seen.flair, seen.t1]), seen.labels)
        for number in range(given.count + given.tune):
            rng = np.random.default_rng([given.seed, int(patient[-2:]), number])
            tune = number >= given.count
            names = [n for n in cut if (n in _TUNE_DONORS) == tune]
            chosen = rng.choice(names, size=int(rng.integers(1, 3)), replace=False)
            image, labels = compose(brain, [cut[n] for n in chosen], rng)
            _write(folder, f"{patient}_{'tune' if tune else 'train'}{number:02d}", image, labels)
            sys.stdout.write(f"{patient} {number + 1}: {labels.max()} lesions, {int((labels > 0).sum())} mm3\n")
            sys.stdout.flush()


def _write(folder: Path, stem: str, image: npt.NDArray[np.float32], labels: Labels) -> None:
    grid = Grid.from_spacing(labels.shape, (1.0, 1.0, 1.0))
    io.save_image(Image(image, grid, modality="MR", channels=("FLAIR", "T1")), folder / "images" / f"{stem}.ome.tif")
    io.save_labels(Instances.from_labels(labels, grid), folder / "labels" / f"{stem}.ome.tif")


if __name__ == "__main__":
    main()
