"""``medseg evaluate``: score label files against truth, or a model on a named split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg.cli.common import progress, say, table
from medseg.errors import InputError, MedsegError, MissingError


def evaluate(
    prediction: Annotated[Path | None, typer.Argument(help="Label file, or folder of them.")] = None,
    truth: Annotated[Path | None, typer.Argument(help="Label file, or folder with files of the same names.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Score this model instead of label files.")] = None,
    config: Annotated[str | None, typer.Option(help="With --model: training config that names data and split file.")] = None,
    split: Annotated[str, typer.Option(help="With --model: tune or val.")] = "val",
    source: Annotated[list[str] | None, typer.Option(help="With --model: only these data sets.")] = None,
    device: Annotated[str, typer.Option(help="With --model: auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON.")] = False,
) -> int:
    """Average precision, F1 and PQ at IoU .5 and above, pooled over objects and as image mean.

    Either PREDICTION and TRUTH, files or folders paired by name (NAME_labels.tif pairs with NAME.tif), or --model with --config.
    """
    from medseg.train.evaluate import summarise

    if (model is None) == (prediction is None) or (prediction is None) != (truth is None):
        raise typer.BadParameter("give PREDICTION and TRUTH, or --model with --config")
    code = 0
    if model is not None:
        scores = _model_scores(model, config or model, split, tuple(source or ()), device)
    else:
        assert prediction is not None and truth is not None  # the check above
        scores, code = _file_scores(prediction, truth)
        split = "files"
    if not scores:
        return 4
    summary = summarise(scores, split)
    if as_json:
        print(json.dumps([s.model_dump() for s in summary]))
        return code
    rows: dict[tuple[str, str, int], dict[str, float]] = {}
    for s in summary:
        rows.setdefault((s.source, s.figure, s.images), {})[s.averaging] = s.value
    table(
        f"split: {split}",
        ["data set", "figure", "images", "pooled", "image mean"],
        [[a, f, n, f"{v['pooled']:.4f}", f"{v['image mean']:.4f}"] for (a, f, n), v in rows.items()],
    )
    return code


def _model_scores(name: str, config: str, split: str, sources: tuple[str, ...], device: str) -> list[Any]:
    from medseg import presets
    from medseg.data.cases import find
    from medseg.model import Model
    from medseg.spec import TrainSpec, load_yaml
    from medseg.train.evaluate import score_cases

    files = find(load_yaml(TrainSpec, presets.find_config(config)).data, split, sources)
    scores = []
    with progress() as bar:
        task = bar.add_task(split, total=len(files), note="")
        for score in score_cases(Model.load(name, device), files):
            scores.append(score)
            bar.advance(task)
    return scores


def _file_scores(prediction: Path, truth: Path) -> tuple[list[Any], int]:
    """Scores of all pairs, and exit code 3 when something could not be paired or read."""
    from medseg import io
    from medseg.metrics import match, overlap
    from medseg.metrics.matching import THRESHOLDS
    from medseg.train.evaluate import CaseScore

    scores, code = [], 0
    for one, other in _pairs(prediction, truth):
        try:
            if other is None:
                raise MissingError(f"{one.name}: has no truth of the same name")
            table_ = overlap(io.load_labels(other).labels, io.load_labels(one).labels)
        except MedsegError as error:
            say(f"medseg: error: {error}")
            code = 3
            continue
        counts = {t: match(table_, t)[0] for t in THRESHOLDS}
        scores.append(CaseScore("files", io.stem(one), counts, match(table_, 0.5, strict=True)[0], 0.0))
    return scores, code


def _pairs(prediction: Path, truth: Path) -> list[tuple[Path, Path | None]]:
    from medseg import io

    for path in (prediction, truth):
        if not path.exists():
            raise MissingError(f"{path}: no such file or folder")
    if prediction.is_dir() != truth.is_dir():
        raise InputError("give two files or two folders")
    if prediction.is_file():
        return [(prediction, truth)]
    known = {io.stem(p): p for p in sorted(truth.iterdir()) if io.is_image(p)}
    found = [p for p in sorted(prediction.iterdir()) if io.is_image(p) and not io.stem(p).endswith("_overlay")]
    if not found:
        raise MissingError(f"{prediction}: holds no label images")
    return [(p, known.get(io.stem(p)) or known.get(io.stem(p).removesuffix("_labels"))) for p in found]
