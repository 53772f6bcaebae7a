"""All asked figures of one case, in a form that is small, travels between processes and adds up over cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from medseg.errors import InputError
from medseg.instances import Instances
from medseg.metrics.contingency import Objects, Overlap, overlap
from medseg.metrics.counting import Mask, Rows
from medseg.metrics.detection import Ranked, ranked
from medseg.metrics.lesions import RULES
from medseg.metrics.matching import THRESHOLDS, Counts, excused, match
from medseg.metrics.response import Hits, hits
from medseg.metrics.sums import Sums

GROUPS = ("detection", "coco", "regions", "lesions", "surface")
NO_SCORES = "the predictions have no scores"
SHARE = 0.1  # an object covers another from this share of the smaller one, for splits and merges


class Given(TypedDict, total=False):
    """What `overlap` takes beside the two sides."""

    scores: npt.ArrayLike | None
    classes: npt.ArrayLike | None
    truth_classes: npt.ArrayLike | None
    crowd: npt.ArrayLike | None
    ignore: npt.ArrayLike | None
    spacing: Sequence[float] | None


@dataclass(frozen=True, eq=False)
class Marks:
    """What became of each object, at each IoU of `THRESHOLDS` and, as the last row, at IoU > .5 strictly.

    Attributes
    ----------
    partner : intp (T + 1, n_truth)
        Row of the prediction matched to each true object, -1 where none.
    iou : float64 (T + 1, n_truth)
        IoU with it, 0 where none.
    missed : bool (T + 1, n_truth)
        False negatives.
    spurious : bool (T + 1, n_prediction)
        False positives.
    split : bool (n_truth,)
        True objects covered by two predictions or more.
    merged : bool (n_prediction,)
        Predictions that cover two true objects or more.
    """

    partner: Rows
    iou: NDArray[np.float64]
    missed: Mask
    spurious: Mask
    split: Mask
    merged: Mask

    @property
    def found(self) -> Mask:
        """True positives (T + 1, n_truth)."""
        return self.partner >= 0


@dataclass(frozen=True, eq=False)
class Faults:
    """The objects of one kind of error: ids (N,) as in the file and boxes (N, 2 * ndim), start then stop, half-open."""

    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class CaseScore:
    """Every asked figure of one case.

    Attributes
    ----------
    name : str
        Unique within a summary.
    source : str
        Data set; figures are given for each by itself.
    table : Overlap
        The objects of both sides and the pairs that share voxels.
    classes : tuple of str
        Class names; class ids count from 1.
    marks : Marks
        What became of each object.
    groups : tuple of str
        Groups of figures that were asked for, of `GROUPS`.
    ranked : Ranked or None
        The predictions by score, if "coco" was asked for and they have scores.
    hits : mapping of str to Hits
        By hit rule, if "lesions" was asked for.
    figures : mapping of (figure, class number) to Sums
        Figures that need voxels; class 0 is all classes.
    absent : mapping of str to str
        Figures or groups that this case does not have, and why.
    unit : "mm" or "um"
        Of its distances, where the spacing is known; what challenges define in mm and mL stays in these.
    """

    name: str
    source: str
    table: Overlap
    classes: tuple[str, ...]
    marks: Marks
    groups: tuple[str, ...] = ()
    ranked: Ranked | None = None
    hits: Mapping[str, Hits] = field(default_factory=dict)
    figures: Mapping[tuple[str, int], Sums] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    unit: str = "mm"

    def counts(self, threshold: float = 0.5, strict: bool = False) -> Counts:
        """Counts over all classes at one of `THRESHOLDS`, or at IoU > .5."""
        row = len(THRESHOLDS) if strict else THRESHOLDS.index(threshold)
        found = self.marks.found[row]
        return Counts(
            int(found.sum()),
            int(self.marks.spurious[row].sum()),
            int(self.marks.missed[row].sum()),
            float(self.marks.iou[row].sum()),
        )

    def errors(self, threshold: float = 0.5) -> dict[str, Faults]:
        """Objects "missed" and "split" (of the truth), "spurious" and "merged" (of the prediction) at a threshold."""
        row = THRESHOLDS.index(threshold)
        truth, prediction = self.table.truth, self.table.prediction
        chosen = {
            "missed": (truth, self.marks.missed[row]),
            "spurious": (prediction, self.marks.spurious[row]),
            "split": (truth, self.marks.split),
            "merged": (prediction, self.marks.merged),
        }
        return {kind: Faults(side.ids[some], side.boxes[some]) for kind, (side, some) in chosen.items()}


def score_case(
    truth: Objects,
    prediction: Objects,
    *,
    metrics: Sequence[str] = (),
    name: str = "",
    source: str = "",
    class_names: Sequence[str] | None = None,
    tolerance: float | None = None,
    unit: Literal["mm", "um"] = "mm",
    **given: Unpack[Given],
) -> CaseScore:
    """Score one case.

    Parameters
    ----------
    truth, prediction : int array, Instances or Candidates
        As for `overlap`; masks of `Candidates` may overlap.
    metrics : sequence of str
        Groups of figures beside the main ones: "detection", "coco", "regions", "lesions", "surface".
    name, source : str
        Name of the case and of its data set.
    class_names : sequence of str, optional
        Names of the classes, by number; else those of the `Instances`, or "class 1" and so on.
    tolerance : float, optional
        For boundary F and NSD, in `unit` (pixels where the spacing is unknown). Without it one voxel, along its longest
        edge.
    unit : "mm" or "um"
        Of distances, sizes and the tolerance. A spacing is in mm always.
    **given
        scores, classes, truth_classes, crowd, ignore and spacing, as for `overlap`.

    Returns
    -------
    CaseScore

    Raises
    ------
    InputError, GeometryError
        As for `overlap`; or a group or unit is not known.
    """
    from medseg.metrics import figures

    if unknown := [group for group in metrics if group not in GROUPS]:
        raise InputError(f"there is no group of figures {unknown[0]!r}; the groups are {', '.join(GROUPS)}")
    if tolerance is not None and not 0 <= tolerance < np.inf:
        raise InputError(f"a tolerance of {tolerance} was given; it must be 0 or more")
    if unit not in figures.UNITS:
        raise InputError(f"there is no unit {unit!r}; give mm or um")
    table = overlap(truth, prediction, **given)
    names = _names(class_names, truth, prediction, table)
    case = CaseScore(name, source, table, names, mark(table), tuple(g for g in GROUPS if g in metrics), unit=unit)
    absent: dict[str, str] = {}
    if {"coco", "lesions"} & {*case.groups}:
        case = replace(
            case,
            ranked=ranked(table) if "coco" in case.groups and table.prediction.scored else None,
            hits={rule: hits(table, rule) for rule in RULES} if "lesions" in case.groups else {},
        )
        if not table.prediction.scored:
            absent = {g: NO_SCORES for g, n in (("coco", "coco"), ("FROC", "lesions")) if n in case.groups}
    found, why = figures.of_voxels(case, figures.Voxels(truth, prediction, given.get("ignore"), table), tolerance)
    return replace(case, figures=found, absent=absent | why)


def mark(table: Overlap) -> Marks:
    """Say what became of each object of a table."""
    steps = [(t, False) for t in THRESHOLDS] + [(0.5, True)]
    partner = np.stack([match(table, t, strict)[1] for t, strict in steps])
    spurious = np.stack([~excused(table, t, strict) for t, strict in steps])
    for row, partners in zip(spurious, partner, strict=True):
        row[partners[partners >= 0]] = False
    split, merged = covered(table)
    return Marks(
        partner, _iou(table, partner), (partner < 0) & ~table.truth.ignored, spurious, split, merged
    )  # fmt: skip


def covered(table: Overlap, share: float = SHARE) -> tuple[Mask, Mask]:
    """True objects that two predictions or more cover, and predictions that cover two true objects or more.

    Two objects cover one another if they share at least `share` of the voxels of the smaller one.
    """
    i, j = table.i, table.j
    enough = table.shared >= share * np.minimum(table.truth.sizes[i], table.prediction.sizes[j])
    enough &= table.same & ~table.truth.ignored[i] & ~excused(table)[j]
    return (
        np.bincount(i[enough], minlength=table.n_truth) > 1,
        np.bincount(j[enough], minlength=table.n_prediction) > 1,
    )


def _iou(table: Overlap, partner: Rows) -> NDArray[np.float64]:
    """IoU of each true object with its partner; pairs are sorted by both rows, so their place can be searched."""
    out = np.zeros(partner.shape)
    step, row = np.nonzero(partner >= 0)
    width = max(table.n_prediction, 1)
    place = np.searchsorted(table.i * width + table.j, row * width + partner[step, row])
    out[step, row] = table.iou[place]
    return out


def _names(given: Sequence[str] | None, truth: Objects, prediction: Objects, table: Overlap) -> tuple[str, ...]:
    own = [side.classes for side in (truth, prediction) if isinstance(side, Instances)]
    names = tuple(given) if given is not None else max(own, key=len, default=())
    most = max(table.classes, default=1)
    if given is not None and len(names) < most:
        raise InputError(f"there are {len(names)} class names and an object of class {most}; name them all")
    if not names and most == 1:
        return ("object",)
    return names + tuple(f"class {k}" for k in range(len(names) + 1, most + 1))
