"""Figures of lesion detection: by hit rule from the table of overlaps, and those of the BraTS and autoPET challenges.

`lesionwise` takes the objects as they were given: each label is a lesion. `brats` and `autopet` take masks: there the
connected components are the lesions, so labels of touching lesions make no difference to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.errors import InputError
from medseg.metrics.components import components, dilated, facts, shared
from medseg.metrics.contingency import Overlap
from medseg.metrics.response import Rule, hits
from medseg.metrics.surface import box_of, check, surface_distances

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

RULES: dict[Rule, str] = {"any": "any overlap", "iou": "IoU >= .1", "centre": "centre inside"}

PENALTY = (
    374.0  # mm, for a lesion that only one side has: about the diagonal of the challenge's 240 x 240 x 155 mm volumes
)


class Settings(NamedTuple):
    """How BraTS 2023 reads a mask: steps of dilation that join true lesions, and the volume in mm3 they must exceed."""

    dilation: int
    min_volume: float


# tasks of BraTS 2023: glioma, Sub-Saharan Africa, paediatric, meningioma, metastases
BRATS = {
    "GLI": Settings(3, 50.0),
    "SSA": Settings(3, 50.0),
    "PED": Settings(3, 50.0),
    "MEN": Settings(1, 50.0),
    "MET": Settings(1, 2.0),
}


@dataclass(frozen=True)
class Lesionwise:
    """Lesions found, missed and invented by one hit rule. Add to pool over scans.

    Attributes
    ----------
    rule : str
        The hit rule in words, with its threshold; part of the name of any figure made from it.
    tp, fp, fn : int
        True lesions that were hit, predictions that hit nothing, true lesions that were not hit.
    scans : int
        Scans counted.
    """

    rule: str
    tp: int
    fp: int
    fn: int
    scans: int = 1

    def __add__(self, other: Lesionwise) -> Lesionwise:
        if self.rule != other.rule:
            raise InputError(f"lesions were counted by {self.rule!r} and by {other.rule!r}; use one hit rule for all")
        return Lesionwise(
            self.rule, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.scans + other.scans
        )

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); without lesions 1 if nothing was predicted either, else 0."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float(not self.fp)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 when both sides are empty."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp + self.fp + self.fn else 1.0

    @property
    def fp_per_scan(self) -> float:
        """False predictions per scan."""
        return self.fp / self.scans


@dataclass(frozen=True, eq=False)
class Brats:
    """Lesion-wise scores of BraTS 2023 for one region of one case.

    Attributes
    ----------
    dices, hd95s : float64 (N,)
        Dice and HD95 in mm of each true lesion that exceeds the least volume, in the order of the components; 0 and
        374 mm where no prediction touches it.
    volumes : float64 (N,)
        Volume of each in mm3.
    found : bool (N,)
        Whether a prediction touches it.
    fp : int
        Predicted components that touch no lesion, of whatever volume.
    """

    dices: Floats
    hd95s: Floats
    volumes: Floats
    found: Mask
    fp: int

    @property
    def tp(self) -> int:
        """True lesions that a prediction touches."""
        return int(np.count_nonzero(self.found))

    @property
    def fn(self) -> int:
        """True lesions that none touches."""
        return len(self.found) - self.tp

    @property
    def dice(self) -> float:
        """Mean Dice of the true lesions and the false predictions, which score 0; 1 if there are neither."""
        n = len(self.dices) + self.fp
        return float(self.dices.sum() / n) if n else 1.0

    @property
    def hd95(self) -> float:
        """Mean HD95 of the true lesions and the false predictions, which score 374 mm; 0 if there are neither."""
        n = len(self.hd95s) + self.fp
        return float((self.hd95s.sum() + self.fp * PENALTY) / n) if n else 0.0


class AutoPet(NamedTuple):
    """False positive and false negative volume in millilitres, and the components that make them up. Sum over scans."""

    fpv: float
    fnv: float
    fp: int
    fn: int


def lesionwise(table: Overlap, rule: Rule = "any", threshold: float = 0.1) -> Lesionwise:
    """Count the lesions of one scan that were found, missed and invented.

    Parameters
    ----------
    table
        From `overlap`; each object is a lesion. For masks give it their components, as of `medseg.ops.components.label`.
    rule : {"any", "iou", "centre"}
        When a prediction hits a lesion, see `medseg.metrics.hits`: any common voxel, IoU >= ``threshold``, or its centre
        in the lesion.
    threshold : float
        Least IoU of the rule "iou".

    Raises
    ------
    InputError
        The rule is not known.
    """
    found = hits(table, rule, threshold)
    name = RULES[rule] if rule != "iou" else f"IoU >= {threshold:g}".replace("= 0.", "= .")
    return Lesionwise(name, found.tp, found.fp, found.fn)


def brats(
    truth: Mask, prediction: Mask, spacing: Sequence[float], dilation: int = 3, min_volume: float = 50.0
) -> Brats:
    """Lesion-wise Dice and HD95 of the BraTS 2023 challenge for one region (such as the enhancing tumour).

    True lesions are the 26-connected components of the truth after it was dilated ``dilation`` times by the 18 nearest
    neighbours; their voxels stay those of the truth. A predicted component (26-connected) belongs to every lesion whose
    dilation it touches, and to none if it touches none: then it is false. Each lesion is scored against all components
    that belong to it, HD95 with area weights. Lesions that do not exceed ``min_volume`` are left out, found or not; their
    predictions are neither right nor wrong. False predictions count whatever their volume.

    Parameters
    ----------
    truth, prediction : bool array (z, y, x)
        A 2-D mask is taken as one slice of 1 mm.
    spacing : sequence of float
        Voxel size in mm along each axis.
    dilation : int
        Steps; `BRATS` has those of each task. The default is that of gliomas.
    min_volume : float
        In mm3.

    Raises
    ------
    InputError
        The masks do not fit one another, or the spacing is unknown.

    References
    ----------
    Moawad et al., The Brain Tumor Segmentation - Metastases (BraTS-METS) challenge 2023, arXiv:2306.00838; the
    evaluation code of the challenge, BraTS-2023-Metrics.
    """
    truth, prediction, size = _volumes(truth, prediction, spacing)
    if dilation < 0 or not min_volume >= 0:
        raise InputError(f"dilation {dilation} and least volume {min_volume} must be 0 or more")
    grown, count = components(dilated(truth, dilation), 26)
    pieces, parts = components(prediction, 26)
    i, j, _ = shared(grown, pieces)
    lesions = np.where(truth, grown, 0).astype(np.uint32)
    voxels, boxes = facts(lesions, count)
    part_voxels, part_boxes = facts(pieces, parts)
    common = np.zeros(count, np.int64)
    a, _, n = shared(lesions, pieces)
    np.add.at(common, a, n)
    total = voxels.copy()
    np.add.at(total, i, part_voxels[j])
    volumes = (voxels * math.prod(size)).astype(np.float64)
    counts, found = volumes > min_volume, np.bincount(i, minlength=count) > 0
    dices, hd95s = 2 * common / np.maximum(total, 1), np.full(count, PENALTY)
    for k in np.flatnonzero(counts & found).tolist():
        mine = j[i == k]
        box = np.concatenate([boxes[k : k + 1], part_boxes[mine]])
        region = tuple(map(slice, box[:, :3].min(axis=0).tolist(), box[:, 3:].max(axis=0).tolist()))
        over = np.isin(pieces[region], mine + 1)
        hd95s[k] = surface_distances(lesions[region] == k + 1, over, size).hd(95)
    fp = parts - len(np.unique(j))
    return Brats(dices[counts], hd95s[counts], volumes[counts], found[counts], fp)


def autopet(truth: Mask, prediction: Mask, spacing: Sequence[float]) -> AutoPet:
    """False positive and false negative volume of the autoPET challenge.

    FPV is the volume of the predicted 18-connected components that share no voxel with the truth, FNV that of the true
    ones that share none with the prediction.

    Parameters
    ----------
    truth, prediction : bool array (z, y, x)
        A 2-D mask is taken as one slice of 1 mm.
    spacing : sequence of float
        Voxel size in mm along each axis.

    Raises
    ------
    InputError
        The masks do not fit one another, or the spacing is unknown.

    References
    ----------
    Gatidis et al., Results from the autoPET challenge on fully automated lesion segmentation in oncologic PET/CT imaging,
    Nature Machine Intelligence 6, 2024.
    """
    truth, prediction, size = _volumes(truth, prediction, spacing)
    millilitres = math.prod(size) / 1000
    found = []
    for mask, other in ((prediction, truth), (truth, prediction)):
        labels, count = components(mask, 18)
        voxels = np.bincount(labels.ravel(), minlength=count + 1)
        voxels[0] = 0
        voxels[np.unique(labels[other])] = 0
        found.append((float(voxels.sum()) * millilitres, int(np.count_nonzero(voxels))))
    (fpv, fp), (fnv, fn) = found
    return AutoPet(fpv, fnv, fp, fn)


def _volumes(truth: Mask, prediction: Mask, spacing: Sequence[float]) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Both masks within the box of their foreground, as volumes, and the spacing."""
    if spacing is None:
        raise InputError("the spacing is unknown, so there are no millimetres and millilitres; give the spacing")
    size = check(truth, prediction, spacing)
    box = box_of(truth, prediction) or (slice(0, 1),) * truth.ndim
    truth, prediction = truth[box], prediction[box]
    if truth.ndim == 2:
        return truth[None], prediction[None], (1.0, *size)
    return truth, prediction, size
