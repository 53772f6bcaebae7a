"""Score a model on a named split: the pipeline as a user runs it, against truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

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
        # what a training lists is what its model is for, whatever the file says of its modality
        *_, last = run(image, model, (options or RunSpec()).model_copy(update={"force": True}))
        if not isinstance(last, Finished):
            raise RuntimeError("a run ends with Finished")
        found, ignore = last.instances, drawn.ignore
        if drawn.classes is not None and not drawn.classes.all():  # whose class nobody told is neither right nor wrong
            ids = np.unique(drawn.labels[drawn.labels > 0])
            unknown = np.isin(drawn.labels, ids[drawn.classes == 0])
            ignore = unknown if ignore is None else ignore | unknown
        told = drawn.classes is not None or len(model.spec.classes) == 1
        yield score_case(
            drawn.labels,
            found if told else found.labels,  # without classes on the image, those of the model say nothing
            metrics=metrics,
            name=one.stem,
            source=one.source,
            tolerance=tolerance,
            unit=unit,
            ignore=ignore,
            truth_classes=None if drawn.classes is None else np.maximum(drawn.classes, 1),
            scores=None if told else found.table["score"].to_numpy(),
            spacing=None if told or not found.grid.known else found.grid.spacing,
        )
