"""Score a model on a named split: the pipeline as a user runs it, against truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medseg.data.cases import CaseFiles
from medseg.metrics import Counts, match, overlap
from medseg.metrics.matching import THRESHOLDS
from medseg.model import Model
from medseg.pipeline import Finished, run
from medseg.spec import RunSpec, ScoreSpec


@dataclass(frozen=True)
class CaseScore:
    """Counts of one case at each IoU threshold of `THRESHOLDS`, and with IoU > .5 strictly for panoptic quality."""

    source: str
    stem: str
    counts: dict[float, Counts]
    strict: Counts
    seconds: float


def score_cases(model: Model, files: list[CaseFiles], options: RunSpec | None = None) -> Iterator[CaseScore]:
    """Segment each case and count its matches."""
    for one in files:
        image, truth = one.load()
        *_, last = run(image, model, options)
        if not isinstance(last, Finished):
            raise RuntimeError("a run ends with Finished")
        table = overlap(truth, last.instances.labels)
        counts = {t: match(table, t)[0] for t in THRESHOLDS}
        yield CaseScore(one.source, one.stem, counts, match(table, 0.5, strict=True)[0], last.seconds)


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
