"""Score a model on a named split: the pipeline as a user runs it, against truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from medseg.data.cases import CaseFiles
from medseg.metrics import CaseScore, score_case
from medseg.model import Model
from medseg.pipeline import Finished, run
from medseg.spec import RunSpec


def score_cases(
    model: Model,
    files: list[CaseFiles],
    options: RunSpec | None = None,
    *,
    metrics: Sequence[str] = (),
    tolerance: float | None = None,
    unit: Literal["mm", "um"] = "mm",
) -> Iterator[CaseScore]:
    """Segment each case and score it; `metrics`, `tolerance` and `unit` as for `medseg.metrics.score_case`."""
    for one in files:
        image, drawn = one.load()
        *_, last = run(image, model, options)
        if not isinstance(last, Finished):
            raise RuntimeError("a run ends with Finished")
        yield score_case(
            drawn.labels,
            last.instances,
            metrics=metrics,
            name=one.stem,
            source=one.source,
            tolerance=tolerance,
            unit=unit,
            ignore=drawn.ignore,
            truth_classes=drawn.classes,
        )
