"""Scores of predicted instances against truth. NumPy arrays in, numbers out; no images, no files.

`overlap` counts once which objects share how many voxels; everything else reads that table. `match` pairs objects one to one
and gives `Counts`: AP, precision, recall, F1, PQ. `ranked` and `coco` give the COCO figures of scored predictions, `hits` and
`froc` those of lesion detection. Counts add up over cases; an average over cases is always named as such. `score` does all of
it in one call, for one case or many; `score_case` and `summarise` are its two halves.
"""

from medseg.metrics.cases import GROUPS, CaseScore, score_case
from medseg.metrics.contingency import Objects, Overlap, Side, overlap
from medseg.metrics.detection import PrecisionRecall, Ranked, coco, coco_classes, precision_recall, ranked
from medseg.metrics.matching import THRESHOLDS, Counts, excused, match
from medseg.metrics.response import Froc, Hits, froc, hits
from medseg.metrics.summary import Summary, score, summarise

__all__ = [
    "GROUPS",
    "THRESHOLDS",
    "CaseScore",
    "Counts",
    "Froc",
    "Hits",
    "Objects",
    "Overlap",
    "PrecisionRecall",
    "Ranked",
    "Side",
    "Summary",
    "coco",
    "coco_classes",
    "excused",
    "froc",
    "hits",
    "match",
    "overlap",
    "precision_recall",
    "ranked",
    "score",
    "score_case",
    "summarise",
]
