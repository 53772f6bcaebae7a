"""``medseg evaluate``: score label files or COCO files against truth, or a model on a named split."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import numbers, progress, say, table
from medseg.errors import MedsegError, MissingError, OutputError

if TYPE_CHECKING:
    from medseg.cli.pairs import Pair
    from medseg.cli.scoring import Settings
    from medseg.metrics import CaseScore, Summary
    from medseg.metrics.rows import Row

MAIN = ("AP@.5", "AP@.75", "AP@.50:.95", "F1@.5", "PQ")
_COUNTS = ("true objects", "predicted objects", "TP", "FP", "FN")
_SHOWN = 20  # cases in the terminal; --csv holds all


def evaluate(
    prediction: Annotated[
        Path | None, typer.Argument(help="Label file, folder of them, or COCO results or instances file.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Argument(help="Label file, folder with files of the same names, or COCO instances file.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="More figures: detection, coco, regions, lesions, surface, with commas between; or all."),
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Voxel size in array order, e.g. 1.75,0.8,0.8 (z,y,x), whatever the files state.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Unit of --spacing, --tolerance and the figures: mm or um.")] = "mm",
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="For boundary F and NSD, in --unit (pixels if the spacing is unknown).")
    ] = None,
    by_size: Annotated[bool, typer.Option("--by-size", help="Every count also by size of the objects.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Score this model instead of label files; one for each fold, and they are pooled."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="With --model: training config that names data and split file.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --model: val (if absent), tune or train.")] = None,
    fold: Annotated[
        int | None,
        typer.Option(
            min=0, help="With --model: fold of the split file, from 0 (if absent, that the model was trained on)."
        ),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="With --model: only these data sets.")] = None,
    device: Annotated[str, typer.Option(help="With --model: auto, cpu, cuda or mps.")] = "auto",
    jobs: Annotated[int | None, typer.Option(min=1, help="Cases scored at a time, each in a process.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON.")] = False,
    csv: Annotated[Path | None, typer.Option(help="File to write: a row for each case, worst first.")] = None,
    html: Annotated[Path | None, typer.Option(help="File to write: a page with curves and the worst cases.")] = None,
    images: Annotated[Path | None, typer.Option(help="With --html: folder of the images, to draw errors on.")] = None,
) -> int:
    """Average precision, F1 and PQ at IoU .5 and above, pooled over objects and as image mean; more with --metrics.

    Either PREDICTION and TRUTH: two files, two folders paired by name (NAME_labels.tif pairs with NAME_truth.tif,
    NAME_labels.tif or NAME.tif), or two COCO files. Or --model with --config.
    """
    from medseg.cli.pairs import pairs
    from medseg.cli.scoring import Settings
    from medseg.metrics import summarise

    if (not model) == (prediction is None) or (prediction is None) != (truth is None):
        raise typer.BadParameter("give either PREDICTION and TRUTH, or --model")
    of_models = bool(config or source) or split is not None or fold is not None or device != "auto"
    _check_usage(bool(model), of_models, images is not None, html is not None, unit)
    split = split or "val"
    groups = _groups(metrics, html is not None)
    size = numbers(spacing, "--spacing")
    _check_outputs(csv, html, images)
    faults: list[str] = []
    pictures, ours = None, False
    if prediction is not None and truth is not None:
        found, faults, classes = pairs(prediction, truth)
        settings = Settings(groups, size, unit, tolerance, classes)
        cases, failed, ours = _file_scores(found, settings, jobs)
        faults += failed
        split = "files"
        pictures = _pictures(found, settings, images)
        _check_images(images, found)
    else:
        names = tuple(model or ())
        cases = [
            case
            for name, one in _folds(names, fold)
            for case in _model_scores(
                name, config or name, (split, one, tuple(source or ())), (device, groups, tolerance, unit)
            )
        ]
    for line in faults:
        say(f"medseg: error: {line}")
    if not cases:
        return 1 if ours else 4  # each file has been told why
    summary = summarise(cases, split=split, by_size=by_size, faults=faults)
    for what, reason in (summary.absent or {}).items():
        say(f"medseg: note: there are no {what} figures: {reason}")
    _write(summary, csv, html, pictures)
    if as_json:
        print(summary.to_json())
    else:
        _print(summary)
    return 1 if ours else 3 if faults else 0


def _check_usage(by_model: bool, of_models: bool, images: bool, html: bool, unit: str) -> None:
    """Refuse options that do not go together."""
    if of_models and not by_model:
        raise typer.BadParameter("--config, --split, --fold, --source and --device go with --model")
    if images and (by_model or not html):
        raise typer.BadParameter("goes with --html and label files", param_hint="--images")
    if unit not in ("mm", "um"):
        raise typer.BadParameter("is mm or um", param_hint="--unit")


def _groups(text: str | None, page: bool) -> tuple[str, ...]:
    """Groups of figures asked for; a page without any gets those its curves need."""
    from medseg.metrics.cases import GROUPS

    if text is None:
        return ("detection", "coco", "lesions") if page else ()
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [part for part in asked if part not in (*GROUPS, "all")]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(GROUPS)}, all", param_hint="--metrics")
    return GROUPS if "all" in asked else tuple(g for g in GROUPS if g in asked)


def _check_outputs(csv: Path | None, html: Path | None, images: Path | None) -> None:
    """Say before any work is done that a result could not be written."""
    for path in (csv, html):
        if path is not None and (not path.parent.is_dir() or path.is_dir()):
            raise OutputError(f"{path}: cannot be written; name a file in a folder that is there")
    if images is not None and not images.is_dir():
        raise MissingError(f"{images}: no such folder; name the folder that holds the images")


def _check_images(folder: Path | None, found: list[Pair]) -> None:
    """Tell before any work is done that no case has an image, most often since the folder is another or named otherwise."""
    from medseg import io

    names = [_image_name(pair) for pair in found]
    if folder is None or not names or {io.stem(p) for p in folder.iterdir() if io.is_image(p)} & {*names}:
        return
    say(
        f"medseg: note: {folder}: holds no image with the name of a case, such as {names[0]}.tif; errors are drawn without"
    )


def _image_name(pair: Pair) -> str:
    from medseg import io

    return pair.name if isinstance(pair.prediction, Path) else io.stem(pair.prediction.name)


def _folds(names: tuple[str, ...], fold: int | None) -> list[tuple[str, int | None]]:
    """Models and the fold each was trained on, so that each is scored on what it has not seen."""
    from medseg.errors import ModelError
    from medseg.model import find, read_header

    if fold is not None and len(names) > 1:
        raise typer.BadParameter("goes with one --model; of several, each knows its fold", param_hint="--fold")
    folds = [read_header(find(name)).training.get("fold") for name in names]
    if len(names) > 1 and (None in folds or len(set(folds)) < len(folds)):
        told = ", ".join(f"{n}: {'no fold' if f is None else f'fold {f}'}" for n, f in zip(names, folds, strict=True))
        raise ModelError(f"only models of different folds are pooled; these were trained on {told}")
    if fold is not None and folds[0] not in (None, fold):
        raise ModelError(
            f"{names[0]}: was trained on fold {folds[0]} and has seen what fold {fold} holds back; leave --fold out"
        )
    return [(name, fold if own is None else own) for name, own in zip(names, folds, strict=True)]


def _model_scores(
    name: str,
    config: str,
    what: tuple[str, int | None, tuple[str, ...]],
    how: tuple[str, tuple[str, ...], float | None, str],
) -> list[CaseScore]:
    from medseg import presets
    from medseg.data.cases import find
    from medseg.model import Model
    from medseg.spec import TrainSpec, load_yaml
    from medseg.train.evaluate import score_cases

    device, groups, tolerance, unit = how
    split, fold, sources = what
    spec = load_yaml(TrainSpec, presets.find_config(config))
    if fold is not None:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"fold": fold})})
    files = find(spec, split, sources)
    scores = []
    with progress() as bar:
        task = bar.add_task(split, total=len(files), note="")
        asked: Any = {"metrics": groups, "tolerance": tolerance, "unit": unit}
        for score in score_cases(Model.load(name, device), files, **asked):
            scores.append(score)
            bar.advance(task)
    return scores


def _file_scores(found: list[Pair], settings: Settings, jobs: int | None) -> tuple[list[CaseScore], list[str], bool]:
    """Scores of all pairs that can be scored, what is wrong with the others, and whether a fault of ours is among it."""
    from medseg.cli.scoring import like_masks, scored

    order = {pair.name: n for n, pair in enumerate(found)}
    outcomes = []
    with progress() as bar:
        task = bar.add_task("cases", total=len(found), note="")
        for pair, outcome in scored(found, settings, jobs):
            outcomes.append((order[pair.name], outcome))
            bar.advance(task)
            for note in outcome.notes:
                say(f"medseg: {pair.name}: {note}")
    done = [outcome for _, outcome in sorted(outcomes, key=lambda one: one[0])]
    if note := like_masks([(pair.name, one) for pair, one in zip(found, done, strict=True)]):
        say(f"medseg: note: {note}")
    faults = [outcome.error for outcome in done if outcome.score is None]
    return [one.score for one in done if one.score is not None], faults, any(one.fault for one in done)


def _pictures(found: list[Pair], settings: Settings, images: Path | None) -> Callable[[str], tuple[Any, Any, Any]]:
    """How the page gets at a case: its image (None without --images), true and predicted labels, by its name."""
    from medseg.cli.scoring import load_labels

    by_name = {pair.name: pair for pair in found}

    def read(name: str) -> tuple[Any, Any, Any]:
        pair = by_name[name]
        labels = [
            load_labels(side, settings).labels if isinstance(side, Path) else side.candidates().paint()[0]
            for side in (pair.truth, pair.prediction)
        ]
        return (_image(images, pair, labels[0].shape) if images is not None else None), labels[0], labels[1]

    return read


def _image(folder: Path, pair: Pair, shape: tuple[int, ...]) -> Any:
    """Voxels (channel, *shape) of the image of a case; None if there is none that can be read or its shape differs."""
    from medseg import io

    name = _image_name(pair)
    for path in sorted(p for p in folder.iterdir() if io.is_image(p) and io.stem(p) == name):
        try:
            image = io.load(path)
            if image.grid.shape == tuple(shape):
                return image.voxels()
            say(f"medseg: {name}: its image is left out: it has shape {image.grid.shape}, the labels {tuple(shape)}")
        except MedsegError as error:
            say(f"medseg: {name}: its image is left out: {error}")
    return None


def _write(summary: Summary, csv: Path | None, html: Path | None, pictures: Any) -> None:
    from medseg.ops.files import write_whole

    if csv is not None:
        text = summary.case_table().to_csv(index=False, float_format="%.6g", lineterminator="\r\n")
        write_whole(csv, text.encode("utf-8"))
    if html is not None:
        page: Any = import_module("medseg.metrics.page")  # with matplotlib and jinja2, which nothing else here needs
        page.write(summary, html, pictures)


def _print(summary: Summary) -> None:
    """Figures of all objects, of each class and of each size, then the worst cases."""
    columns = ["figure", "images", "pooled", "95 %", "image mean", "95 %"]
    for title, kind in ((f"split: {summary.split}", ""), ("by class", "class_name"), ("by size", "size")):
        rows = []
        for row in summary.rows:
            told = row.class_name or row.size
            # AP at every threshold and sensitivity at every rate are curves: in JSON, CSV and on the page
            curve = row.figure.startswith(("AP@", "sensitivity at")) and row.figure not in MAIN
            if not curve and (getattr(row, kind) if kind else not told):
                rows.append([row.source, *([told] if kind else []), *_cells(row)])
        if rows:
            table(title, ["data set", *([title.removeprefix("by ")] if kind else []), *columns], rows)
    cases = summary.case_table()
    if len(cases) < 2:
        return
    several = len({case.source for case in summary.cases}) > 1
    shown = [*(["source"] if several else []), "case", *_COUNTS, *MAIN]
    worst = [
        [v if isinstance(v, str) else _number(v) for v in one] for one in cases[shown].head(_SHOWN).values.tolist()
    ]
    table("cases, worst first", ["data set" if name == "source" else name for name in shown], worst)
    if len(cases) > _SHOWN:
        print(f"  and {len(cases) - _SHOWN} more, which --csv FILE holds")


def _cells(row: Row) -> list[str]:
    """A row's figure, number of images, values and intervals as text."""
    one = row.estimate
    whole = one.pooling == "total"
    return [
        row.figure,
        str(one.cases),
        _number(one.pooled, whole),
        _range(one.pooled_interval, whole),
        _number(one.mean),
        _range(one.mean_interval),
    ]


def _number(value: float | None, whole: bool = False) -> str:
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    return f"{value:.0f}" if whole else f"{value:.4f}"


def _range(interval: tuple[float, float] | None, whole: bool = False) -> str:
    return "" if interval is None else f"{_number(interval[0], whole)} to {_number(interval[1], whole)}"
