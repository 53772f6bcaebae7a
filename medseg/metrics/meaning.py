"""What each figure is, in words, for those who read a page of figures without the documentation beside it."""

from __future__ import annotations

import re
from typing import NamedTuple

TITLES = {
    "main": "Main figures",
    "detection": "Detection",
    "coco": "COCO, by score",
    "regions": "Regions",
    "lesions": "Lesions",
    "surface": "Surfaces",
    "": "More",
}

RULE = r" \((any overlap|IoU >= \.1|centre inside)\)"
LENGTH = r" \((mm|um|px|voxels)\)"
RULES = {
    "any overlap": "a lesion is found if a prediction shares any voxel with it",
    "IoU >= .1": "a lesion is found if a prediction has an IoU of .1 or more with it",
    "centre inside": "a lesion is found if the centre of a prediction lies in it",
}

# pattern of the name, group, words; {0} is what the first bracket of the pattern caught, {rule} the hit rule in words
_WORDS = (
    (r"AP@\.50:\.95", "main", "mean of AP at IoU .50, .55, ... .95; not the AP of COCO"),
    (r"AP@(\.\d+)", "main", "TP / (TP + FP + FN) at IoU >= {0}; not the AP of COCO"),
    (r"F1@\.5", "main", "2 TP / (2 TP + FP + FN) at IoU >= .5"),
    (r"PQ", "main", "summed IoU of the pairs / (TP + FP/2 + FN/2) at IoU > .5; SQ x RQ"),
    (r"precision@\.5", "detection", "TP / (TP + FP) at IoU >= .5"),
    (r"recall@\.5", "detection", "TP / (TP + FN) at IoU >= .5"),
    (r"SQ", "detection", "mean IoU of the pairs at IoU > .5"),
    (r"RQ", "detection", "TP / (TP + FP/2 + FN/2) at IoU > .5"),
    (r"mean IoU of pairs@\.5", "detection", "mean IoU of the pairs at IoU >= .5"),
    (r"TP@\.5", "detection", "true objects with a partner; pooled: in all, image mean: per image"),
    (r"FP@\.5", "detection", "predictions without partner; pooled: in all, image mean: per image"),
    (r"FN@\.5", "detection", "true objects without partner; pooled: in all, image mean: per image"),
    (r"splits", "detection", "true objects that two predictions or more cover (10 % of the smaller one)"),
    (r"merges", "detection", "predictions that cover two true objects or more (10 % of the smaller one)"),
    (r"COCO mAP", "coco", "area under precision over recall, 101 points, mean over IoU .50 to .95 and classes; no cap"),
    (r"COCO AP(\d\d)", "coco", "area under precision over recall, 101 points, at IoU .{0}, mean over classes; no cap"),
    (r"ECE@\.5", "coco", "expected calibration error: |share of predictions with a partner at IoU .5 - mean score|, 10 bins"),
    (r"Dice", "regions", "2 |A and B| / (|A| + |B|) of the foreground, all objects as one mask"),
    (r"IoU", "regions", "|A and B| / |A or B| of the foreground, all objects as one mask"),
    (r"mIoU", "regions", "IoU of the foreground of each class that occurs, then the mean over the classes"),
    (r"AJI", "regions", "aggregated Jaccard index (Kumar 2017): voxels in common / voxels of pairs and of all left over"),
    (r"SEG", "regions", "mean IoU over true objects, 0 where no prediction covers half (Cell Tracking Challenge)"),
    (r"boundary F@(.+)", "regions", "F1 of the contours' voxels that lie within {0} of the other contour"),
    (r"Dice of pairs@\.5", "regions", "mean Dice of the pairs at IoU >= .5"),
    (r"box GIoU of pairs@\.5", "regions", "mean generalised IoU of the boxes of the pairs at IoU >= .5"),
    (rf"lesion F1{RULE}", "lesions", "2 TP / (2 TP + FP + FN); {rule}"),
    (rf"lesion sensitivity{RULE}", "lesions", "share of the true lesions found; {rule}"),
    (rf"FP per scan{RULE}", "lesions", "predictions that hit no lesion, per scan; {rule}"),
    (rf"FROC mean sensitivity{RULE}", "lesions", "mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4, 8 FP per scan; {rule}"),
    (rf"sensitivity at (\S+) FP per scan{RULE}", "lesions", "share of the true lesions found at {0} FP per scan; {rule}"),
    (
        r"lesion-wise Dice \(BraTS 2023\)",
        "lesions",
        "Dice of each true lesion over 50 mm3, mean over these and the false predictions, which score 0",
    ),
    (
        r"lesion-wise HD95 \(BraTS 2023, mm\)",
        "lesions",
        "HD95 of the same; missed lesions and false predictions score 374 mm",
    ),
    (r"FPV \(autoPET, mL\)", "lesions", "volume of predicted components without any overlap, per scan"),
    (r"FNV \(autoPET, mL\)", "lesions", "volume of true components without any overlap, per scan"),
    (rf"HD95{LENGTH}", "surface", "distance of the surfaces that 95 % of their area does not exceed, in {0}; less is better"),
    (rf"HD{LENGTH}", "surface", "largest distance of the surfaces, in {0}; less is better"),
    (rf"ASSD{LENGTH}", "surface", "mean distance of the surfaces, in {0}; less is better"),
    (r"NSD@(.+)", "surface", "share of both surfaces that lies within {0} of the other one (surface Dice)"),
)  # fmt: skip


class Meaning(NamedTuple):
    """Group of a figure, of `medseg.metrics.GROUPS` or "main", and what it is."""

    group: str
    words: str


def meaning(figure: str) -> Meaning:
    """Say what a figure is, by its name; empty words for a name that is not known."""
    for pattern, group, words in _WORDS:
        if caught := re.fullmatch(pattern, figure):
            told = [part for part in caught.groups() if part is not None]
            return Meaning(group, words.format(*told, rule=RULES.get(told[-1], "") if told else ""))
    return Meaning("", "")
