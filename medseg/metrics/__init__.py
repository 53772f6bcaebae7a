"""Scores of predicted instances against truth. NumPy arrays in, numbers out; no images, no files.

`overlap` counts once which objects share how many voxels; everything else reads that table. `match` pairs objects one to one
and gives `Counts`: AP, precision, recall, F1, PQ. `ranked` and `coco` give the COCO figures of scored predictions, `hits` and
`froc` those of lesion detection. Counts add up over cases; an average over cases is always named as such. `score` does all of
it in one call, for one case or many; `score_case` and `summarise` are its two halves, and `medseg.metrics.page.write` makes a
page of the result. `aji` to `split_merge` compare regions, `surface_distances` surfaces, `lesionwise`, `brats` and `autopet`
count lesions as challenges do.
"""

from medseg.metrics.boxes import giou
from medseg.metrics.cases import GROUPS, CaseScore, score_case
from medseg.metrics.contingency import Objects, Overlap, Side, overlap
from medseg.metrics.detection import PrecisionRecall, Ranked, coco, coco_classes, precision_recall, ranked
from medseg.metrics.lesions import BRATS, AutoPet, Brats, Lesionwise, autopet, brats, lesionwise
from medseg.metrics.matching import THRESHOLDS, Counts, excused, match
from medseg.metrics.regions import (
    SplitMerge,
    aji,
    boundary_f,
    class_mean,
    dice,
    foreground,
    iou,
    matched_dice,
    matched_giou,
    matched_iou,
    seg,
    split_merge,
)
from medseg.metrics.response import Froc, Hits, froc, hits
from medseg.metrics.summary import Summary, score, summarise
from medseg.metrics.surface import Surface, instance_surfaces, surface_distances

__all__ = [
    "BRATS",
    "GROUPS",
    "THRESHOLDS",
    "AutoPet",
    "Brats",
    "CaseScore",
    "Counts",
    "Froc",
    "Hits",
    "Lesionwise",
    "Objects",
    "Overlap",
    "PrecisionRecall",
    "Ranked",
    "Side",
    "SplitMerge",
    "Summary",
    "Surface",
    "aji",
    "autopet",
    "boundary_f",
    "brats",
    "class_mean",
    "coco",
    "coco_classes",
    "dice",
    "excused",
    "foreground",
    "froc",
    "giou",
    "hits",
    "instance_surfaces",
    "iou",
    "lesionwise",
    "match",
    "matched_dice",
    "matched_giou",
    "matched_iou",
    "overlap",
    "precision_recall",
    "ranked",
    "score",
    "score_case",
    "seg",
    "split_merge",
    "summarise",
    "surface_distances",
]
