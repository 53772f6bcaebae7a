"""``medseg evaluate``: score label files against truth, or a model on a named split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import progress, say, table, why
from medseg.errors import InputError, MedsegError, MissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def evaluate(
    prediction: Annotated[Path | None, typer.Argument(help="Label file, or folder of them.")] = None,
    truth: Annotated[Path | None, typer.Argument(help="Label file, or folder with files of the same names.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Score this model instead of label files.")] = None,
    config: Annotated[
        str | None, typer.Option(help="With --model: training config that names data and split file.")
    ] = None,
    split: Annotated[str, typer.Option(help="With --model: val, tune or train.")] = "val",
    source: Annotated[list[str] | None, typer.Option(help="With --model: only these data sets.")] = None,
    device: Annotated[str, typer.Option(help="With --model: auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON.")] = False,
) -> int:
    """Average precision, F1 and PQ at IoU .5 and above, pooled over objects and as image mean.

    Either PREDICTION and TRUTH, two files or two folders paired by name (NAME_labels.tif pairs with NAME_truth.tif,
    NAME_labels.tif or NAME.tif), or --model with --config.
    """
    from medseg.metrics.report import summarise

    if (model is None) == (prediction is None) or (prediction is None) != (truth is None):
        raise typer.BadParameter("give PREDICTION and TRUTH, or --model with --config")
    code = 0
    if prediction is not None and truth is not None:
        scores, code = _file_scores(prediction, truth)
        split = "files"
    elif model is not None:
        scores = _model_scores(model, config or model, split, tuple(source or ()), device)
    if not scores:
        return 4  # each file has been told why
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
    from medseg.metrics.report import score_labels

    pairs, faults = _pairs(prediction, truth)
    scores = []
    for one, other in pairs:
        try:
            found, real = _labels(one), _labels(other)
            if found.shape != real.shape:
                raise InputError(f"{one}: has shape {found.shape}, its truth {real.shape}; both must be the same")
        except MedsegError as error:
            faults.append(str(error))
            continue
        scores.append(score_labels(real, found, "files", io.stem(one)))
    for line in faults:
        say(f"medseg: error: {line}")
    return scores, 3 if faults else 0


def _labels(path: Path) -> NDArray[np.int32]:
    from medseg import io

    try:
        return io.load_labels(path).labels
    except MedsegError as error:
        raise InputError(why(path, error)) from None


def _pairs(prediction: Path, truth: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Label files with their truth, and what is wrong with those that have no partner."""
    for path in (prediction, truth):
        if not path.exists():
            raise MissingError(f"{path}: no such file or folder; check the path")
    if prediction.is_dir() != truth.is_dir():
        raise InputError(f"{prediction} and {truth} are a file and a folder; give two files or two folders")
    if not prediction.is_dir():
        return [(prediction, truth)], []
    found, known = _by_name(prediction), _by_name(truth)
    faults = [f"{p}: has no truth of the same name in {truth}" for name, p in found.items() if name not in known]
    if lonely := sorted(known.keys() - found.keys()):
        faults.append(f"{prediction}: has no labels for {', '.join(lonely)} of {truth}; these are not scored")
    return [(p, known[name]) for name, p in found.items() if name in known], faults


def _by_name(folder: Path) -> dict[str, Path]:
    """Label files by the name of their image; of NAME, NAME_labels and NAME_truth the last that is there."""
    from medseg import io

    def split(path: Path) -> tuple[int, str]:
        stem = io.stem(path)
        rank = 2 if stem.endswith("_truth") else 1 if stem.endswith("_labels") else 0
        return rank, stem.removesuffix(("", "_labels", "_truth")[rank])

    files = [p for p in folder.iterdir() if io.is_image(p) and not io.stem(p).endswith("_overlay")]
    if not files:
        raise MissingError(f"{folder}: holds no label images; name the folder that holds the files themselves")
    ranked = sorted((*split(p), p) for p in files)
    return {name: p for _, name, p in ranked}
