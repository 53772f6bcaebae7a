"""Score a model on a named split: the pipeline as a user runs it, against truth."""

from __future__ import annotations

from collections.abc import Iterator

from medseg.data.cases import CaseFiles
from medseg.metrics.report import CaseScore, score_labels
from medseg.model import Model
from medseg.pipeline import Finished, run
from medseg.spec import RunSpec


def score_cases(model: Model, files: list[CaseFiles], options: RunSpec | None = None) -> Iterator[CaseScore]:
    """Segment each case and count its matches."""
    for one in files:
        image, truth = one.load()
        *_, last = run(image, model, options)
        if not isinstance(last, Finished):
            raise RuntimeError("a run ends with Finished")
        yield score_labels(truth, last.instances.labels, one.source, one.stem)
