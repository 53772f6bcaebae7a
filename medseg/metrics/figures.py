"""The figures of one case by name: those that follow from its objects, and those that need its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.instances import Instances
from medseg.metrics import lesions, regions
from medseg.metrics.contingency import Objects, Overlap, Side
from medseg.metrics.counting import Mask
from medseg.metrics.lesions import RULES
from medseg.metrics.matching import THRESHOLDS, match
from medseg.metrics.sums import Sums, classes_mean, rate, ratio, single, total
from medseg.metrics.surface import surface_distances

if TYPE_CHECKING:
    from medseg.metrics.cases import CaseScore

MAIN = ("AP@.5", "AP@.75", "AP@.50:.95", "F1@.5", "PQ")
Figures = dict[tuple[str, int], Sums]
UNITS = {"mm": 1.0, "um": 1000.0}  # how many are a millimetre

_HALF, _THREE_QUARTERS, _STRICT = THRESHOLDS.index(0.5), THRESHOLDS.index(0.75), len(THRESHOLDS)


def at(threshold: float) -> str:
    """A threshold as the names of figures have it: .5, .55."""
    return f"{threshold:g}".removeprefix("0")


def of_objects(case: CaseScore, truths: Mask, predictions: Mask) -> dict[str, Sums]:
    """Figures that follow from what became of the objects, of some of them: a class, a size, or all.

    Parameters
    ----------
    case
        Its groups say which figures.
    truths, predictions : bool (n_truth,), (n_prediction,)
        The objects that count here.
    """
    marks = case.marks
    found = marks.found[:, truths].sum(axis=1).astype(np.float64)
    missed = marks.missed[:, truths].sum(axis=1).astype(np.float64)
    false = marks.spurious[:, predictions].sum(axis=1).astype(np.float64)
    steps = slice(0, len(THRESHOLDS))
    tp, fn, fp = found[_HALF], missed[_HALF], false[_HALF]
    iou = float(marks.iou[_STRICT][truths].sum())
    paired, half = found[_STRICT], (false[_STRICT] + missed[_STRICT]) / 2
    every = found + missed + false
    out = {
        "AP@.5": ratio(tp, every[_HALF]),
        "AP@.75": ratio(found[_THREE_QUARTERS], every[_THREE_QUARTERS]),
        "AP@.50:.95": ratio(found[steps], every[steps]),
        "F1@.5": ratio(2 * tp, 2 * tp + fp + fn),
        "PQ": ratio(iou, paired + half),
    }
    if "detection" in case.groups:
        out |= {
            "precision@.5": ratio(tp, tp + fp, fn),
            "recall@.5": ratio(tp, tp + fn, fp),
            "SQ": ratio(iou, paired, half),
            "RQ": ratio(paired, paired + half),
            "mean IoU of pairs@.5": ratio(float(marks.iou[_HALF][truths].sum()), tp, fp + fn),
            "TP@.5": total(tp),
            "FP@.5": total(fp),
            "FN@.5": total(fn),
            "splits": total(int(np.count_nonzero(marks.split & truths))),
            "merges": total(int(np.count_nonzero(marks.merged & predictions))),
        }
        out |= {f"AP@{at(t)}": ratio(found[n], every[n]) for n, t in enumerate(THRESHOLDS) if t not in (0.5, 0.75)}
    for hits in case.hits.values():
        real, wrong = hits.counts & truths, float(np.count_nonzero(hits.false & predictions))
        hit = float(np.count_nonzero(hits.found & truths))
        lost = float(np.count_nonzero(real)) - hit
        name = RULES[hits.rule]
        out |= {
            f"lesion F1 ({name})": ratio(2 * hit, 2 * hit + wrong + lost),
            f"lesion sensitivity ({name})": ratio(hit, hit + lost, wrong),
            f"FP per scan ({name})": rate(wrong),
        }
    return out


@dataclass(frozen=True, eq=False)
class Voxels:
    """Both sides as voxels, of all classes or one; voxels of the ignore region and of crowds belong to neither side."""

    truth: Objects
    prediction: Objects
    ignore: npt.ArrayLike | None
    table: Overlap

    def masks(self, number: int) -> tuple[Mask, Mask]:
        """Foreground of both sides; class 0 is all."""
        hidden = self._hidden()
        one, two = (self._mask(objects, side, number) for objects, side in self._sides())
        return (one, two) if hidden is None else (one & ~hidden, two & ~hidden)

    def labels(self, masks: tuple[Mask, Mask]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Ids of both sides within masks; where candidates overlap the one with the higher score."""
        one, two = (
            np.where(mask, objects.paint()[0] if isinstance(objects, Candidates) else _array(objects), 0)
            for (objects, _), mask in zip(self._sides(), masks, strict=True)
        )
        return one, two

    def _sides(self) -> tuple[tuple[Objects, Side], tuple[Objects, Side]]:
        return (self.truth, self.table.truth), (self.prediction, self.table.prediction)

    def _mask(self, objects: Objects, side: Side, number: int) -> Mask:
        whole = number == 0 or bool((side.classes == number).all())
        return regions.foreground(objects, None if whole else side.ids[side.classes == number])

    def _hidden(self) -> Mask | None:
        crowd = self.table.truth.crowd
        if not crowd.any():
            return None if self.ignore is None else np.asarray(self.ignore)
        many = regions.foreground(self.truth, self.table.truth.ids[crowd])
        return many if self.ignore is None else many | np.asarray(self.ignore)


def _array(objects: NDArray[np.integer] | Instances) -> NDArray[np.integer]:
    return objects.labels if isinstance(objects, Instances) else np.asarray(objects)


def of_voxels(case: CaseScore, voxels: Voxels, tolerance: float | None) -> tuple[Figures, dict[str, str]]:
    """Figures of the groups "regions", "lesions" and "surface" that need voxels, and what is absent and why."""
    out: Figures = {}
    absent: dict[str, str] = {}
    if not {"regions", "lesions", "surface"} & {*case.groups}:
        return out, absent
    several = len(case.classes) > 1
    for number in range(len(case.classes) + 1 if several else 1):
        masks = voxels.masks(number)
        table = case.table if number == 0 else case.table.of_class(number)
        tau = _tolerance(table, tolerance, case.unit)
        some: dict[str, Sums] = {}
        if "regions" in case.groups:
            some |= _regions(table, masks, voxels.labels(masks), tau)
        if "surface" in case.groups:
            some |= _surface(table, masks, tau, case.unit)
        if "lesions" in case.groups:
            found, why = _lesions(table, masks)
            some |= found
            absent |= why
        out |= {(name, number): sums for name, sums in some.items()}
    if several and "regions" in case.groups:
        out["mIoU", 0] = classes_mean([out["IoU", k] for k in range(1, len(case.classes) + 1)])
    return out, absent


def _unit(table: Overlap, unit: str) -> tuple[str, float]:
    """Unit of the lengths of a case, and how many are one unit of its table: mm, or voxels where the spacing is unknown."""
    return (unit, UNITS[unit]) if table.spacing is not None else ("px" if len(table.shape) == 2 else "voxels", 1.0)


def _tolerance(table: Overlap, tolerance: float | None, unit: str) -> tuple[float, str]:
    """The tolerance in the unit of the table, and how the figure's name tells it."""
    if tolerance is not None:
        name, scale = _unit(table, unit)
        return tolerance / scale, f"{tolerance:g} {name}"
    return max(table.spacing or (1.0,)), "1 voxel" if len(table.shape) == 3 else "1 px"


def _regions(
    table: Overlap,
    masks: tuple[Mask, Mask],
    labels: tuple[NDArray[np.integer], NDArray[np.integer]],
    tolerance: tuple[float, str],
) -> dict[str, Sums]:
    tau, told = tolerance
    counts = match(table)[0]
    pairs = {"Dice": regions.matched_dice(table), "box GIoU": regions.matched_giou(table)}
    out = {
        "Dice": ratio(*regions.dice_parts(*masks)),
        "IoU": ratio(*regions.iou_parts(*masks)),
        "AJI": ratio(*regions.aji_parts(table)),
        "SEG": ratio(*regions.seg_parts(table)),
        f"boundary F@{told}": single(regions.boundary_f(*labels, tau, table.spacing)),
    }
    for name, mean in pairs.items():
        out[f"{name} of pairs@.5"] = ratio(mean * counts.tp, counts.tp, counts.fp + counts.fn)
    return out


def _surface(table: Overlap, masks: tuple[Mask, Mask], tolerance: tuple[float, str], unit: str) -> dict[str, Sums]:
    tau, told = tolerance
    surface, (name, scale) = surface_distances(*masks, table.spacing), _unit(table, unit)
    return {
        f"HD95 ({name})": single(surface.hd(95) * scale),
        f"HD ({name})": single(surface.hd(100) * scale),
        f"ASSD ({name})": single(surface.assd() * scale),
        f"NSD@{told}": single(surface.nsd(tau)),
    }


def _lesions(table: Overlap, masks: tuple[Mask, Mask]) -> tuple[dict[str, Sums], dict[str, str]]:
    """Figures of two challenges, whose lesions are the connected components of the masks."""
    if table.spacing is None or len(table.shape) != 3:
        return {}, dict.fromkeys(("BraTS", "autoPET"), "they need a volume of known spacing")
    brats, pet = lesions.brats(*masks, table.spacing), lesions.autopet(*masks, table.spacing)
    n = len(brats.dices) + brats.fp
    return {
        "lesion-wise Dice (BraTS 2023)": ratio(float(brats.dices.sum()), n),
        # without any lesion the distance is 0, not 1
        "lesion-wise HD95 (BraTS 2023, mm)": ratio(float(brats.hd95s.sum()) + brats.fp * lesions.PENALTY, n, 1),
        "FPV (autoPET, mL)": rate(pet.fpv),
        "FNV (autoPET, mL)": rate(pet.fnv),
    }, {}
