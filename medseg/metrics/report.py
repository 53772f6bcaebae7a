"""From counts of single images to figures of a data set, in both averagings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.matching import THRESHOLDS, Counts, match, overlap
from medseg.spec import ScoreSpec


@dataclass(frozen=True)
class CaseScore:
    """Counts of one case at each IoU threshold of `THRESHOLDS`, and with IoU > .5 strictly for panoptic quality."""

    source: str
    stem: str
    counts: dict[float, Counts]
    strict: Counts


def score_labels(truth: NDArray[np.integer], prediction: NDArray[np.integer], source: str, stem: str) -> CaseScore:
    """Counts of one image; see `overlap` for the arrays and what is refused."""
    table = overlap(truth, prediction)
    counts = {t: match(table, t)[0] for t in THRESHOLDS}
    return CaseScore(source, stem, counts, match(table, 0.5, strict=True)[0])


def summarise(scores: list[CaseScore], split: str) -> tuple[ScoreSpec, ...]:
    """Figures per source: AP@.5, AP@.75, mean AP (.50 to .95), F1 and PQ, pooled over objects and as image mean."""
    out: list[ScoreSpec] = []
    for source in sorted({s.source for s in scores}):
        some = [s for s in scores if s.source == source]
        pooled = {t: sum((s.counts[t] for s in some), Counts(0, 0, 0, 0.0)) for t in THRESHOLDS}
        strict = sum((s.strict for s in some), Counts(0, 0, 0, 0.0))
        n = len(some)
        figures = {
            "AP@.5": (pooled[0.5].ap, sum(s.counts[0.5].ap for s in some) / n),
            "AP@.75": (pooled[0.75].ap, sum(s.counts[0.75].ap for s in some) / n),
            "AP@.50:.95": (
                sum(c.ap for c in pooled.values()) / len(pooled),
                sum(c.ap for s in some for c in s.counts.values()) / (n * len(THRESHOLDS)),
            ),
            "F1@.5": (pooled[0.5].f1, sum(s.counts[0.5].f1 for s in some) / n),
            "PQ": (strict.pq, sum(s.strict.pq for s in some) / n),
        }
        for figure, (whole, mean) in figures.items():
            score = ScoreSpec(
                source=source, split=split, figure=figure, averaging="pooled", value=round(whole, 4), images=n
            )
            out += [score, score.model_copy(update={"averaging": "image mean", "value": round(mean, 4)})]
    return tuple(out)
