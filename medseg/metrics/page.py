"""A summary as one HTML file that needs nothing else: figures, curves, sizes, cases and the worst of them drawn.

No scripts, no fonts, no links to other files: it can be mailed, archived and printed. The same summary gives the same bytes.
"""

from __future__ import annotations

import platform
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path, PureWindowsPath
from typing import Any

from medseg.errors import MedsegError
from medseg.metrics import drawn, plots
from medseg.metrics.cases import CaseScore
from medseg.metrics.figures import MAIN
from medseg.metrics.lesions import RULES
from medseg.metrics.meaning import TITLES, meaning
from medseg.metrics.rows import Curves, Row
from medseg.metrics.summary import Summary, case_figures
from medseg.ops.files import write_whole

Pictures = Callable[[str], tuple[Any, Any, Any]]

DRAWN = 10  # of the worst cases
LISTED = 500  # cases in the table
_IDS = 12  # of one kind of error, beside a picture
_OF_SIZES = (*MAIN, "precision@.5", "recall@.5", "TP@.5", "FP@.5", "FN@.5", "splits", "merges", "COCO mAP")
_OF_CASES = ("Dice", "AJI", "HD95", "NSD", r"lesion F1 \(any")
_LIBRARIES = ("medseg", "numpy", "scipy")


def write(summary: Summary, path: str | Path, pictures: Pictures | None = None) -> None:
    """Write the page of a summary.

    Parameters
    ----------
    summary : Summary
        From `medseg.metrics.summarise` or `medseg.metrics.score`.
    path : str or Path
        HTML file; replaced whole or not at all.
    pictures : callable, optional
        Takes the name of a case and returns its image (channel, *shape) or None, its true and its predicted labels, with
        the ids that were scored. Called for the ten worst cases, which are drawn; without it none is.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_whole(path, render(summary, pictures).encode("utf-8", "replace"))  # a name may hold bytes that are no text


def render(summary: Summary, pictures: Pictures | None = None) -> str:
    """Return the page as text; see `write`."""
    from jinja2 import Environment, StrictUndefined

    template = files("medseg.metrics").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    sources = sorted({case.source for case in summary.cases})
    counts = [case.counts() for case in summary.cases]
    return environment.from_string(template).render(
        split=summary.split,
        cases=len(summary.cases),
        truths=sum(c.tp + c.fn for c in counts),
        predictions=sum(c.tp + c.fp for c in counts),
        classes=max((case.classes for case in summary.cases), key=len),
        groups=[group for group in TITLES if group in summary.cases[0].groups],
        versions=_versions(),
        faults=[_by_name(line) for line in summary.faults],
        absent=sorted((summary.absent or {}).items()),
        sources=[_source(summary, name) for name in sources],
        several=len(sources) > 1,
        table=_cases(summary, len(sources) > 1),
        worst=[] if pictures is None else [_worst(case, pictures) for case in summary.cases[:DRAWN]],
        colours=drawn.COLOURS,
        resamples=summary.resamples,
        seed=summary.seed,
        listed=LISTED,
    )


# ---------------------------------------------------------------- one data set


def _source(summary: Summary, name: str) -> dict[str, Any]:
    rows = [row for row in summary.rows if row.source == name]
    plain = [row for row in rows if not row.class_name and not row.size]
    cases = [case for case in summary.cases if case.source == name]
    classes = [kind for kind in dict.fromkeys(row.class_name for row in rows) if kind]
    return {
        "name": name,
        "cases": len(cases),
        "groups": _groups(plain),
        "curves": _curves(summary.curves[name], rows),
        "steps": _steps(summary.curves[name]),
        "rates": _rates(summary.curves[name]),
        "by_class": [
            _line(row, row.class_name) for kind in classes for row in rows if row.class_name == kind and _in_short(row)
        ],
        "by_size": _sizes(rows),
    }


def _groups(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Tables of figures: the main ones, then the groups that were asked for. Those that are curves are left to these."""
    out = []
    for group, title in TITLES.items():
        some = [row for row in rows if _group(row) == group and not _is_curve(row)]
        if some:
            out.append({"title": title, "rows": [_line(row) for row in some]})
    return out


def _group(row: Row) -> str:
    return "main" if row.figure in MAIN else meaning(row.figure).group


def _is_curve(row: Row) -> bool:
    return row.figure.startswith(("AP@", "sensitivity at")) and row.figure not in MAIN


def _in_short(row: Row) -> bool:
    return row.figure in (*MAIN, "TP@.5", "FP@.5", "FN@.5", "COCO mAP", "Dice", "IoU")


def _line(row: Row, told: str = "") -> dict[str, Any]:
    """A row of a table of figures; `told` is its class or size."""
    one = row.estimate
    whole = one.pooling == "total"
    return {
        "told": told,
        "figure": row.figure,
        "words": meaning(row.figure).words,
        "cases": one.cases,
        "pooled": _number(one.pooled, whole),
        "pooled_range": _range(one.pooled_interval, whole),
        "mean": _number(one.mean),
        "mean_range": _range(one.mean_interval),
    }


def _number(value: float | None, whole: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if whole else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _range(interval: tuple[float, float] | None, whole: bool = False) -> str:
    return "" if interval is None else f"{_number(interval[0], whole)} to {_number(interval[1], whole)}"


def _sizes(rows: Sequence[Row]) -> dict[str, Any]:
    """A line for each figure, with both averagings of every size side by side."""
    some = [row for row in rows if row.size and (row.figure in _OF_SIZES or "(any overlap)" in row.figure)]
    lines = [_line(row, row.size) for row in some if not _is_curve(row)]
    names = [row.figure for row in rows if not row.class_name and not row.size]
    sizes = _size_names(rows)
    by_place = {(line["figure"], line["told"]): line for line in lines}
    return {
        "sizes": sizes,
        "rows": [
            {"figure": name, "cells": [by_place.get((name, size)) for size in sizes]}
            for name in names
            if any((name, size) in by_place for size in sizes)
        ],
    }


def _size_names(rows: Sequence[Row]) -> list[str]:
    return [size for size in dict.fromkeys(row.size for row in rows) if size]


def _curves(curves: Curves, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Pictures of the curves there are, each with what it shows."""
    responses = {RULES[rule]: froc for rule, froc in curves.froc.items() if rule in RULES}
    shown = [row for row in rows if row.size and row.figure in ("recall@.5", "F1@.5")]
    drawn_curves = (
        ("AP over IoU", "How AP falls as a match needs more overlap. A steep fall: found, but drawn badly.",
         plots.ap_over_iou(curves)),
        ("Precision and recall", "All images together, from the surest prediction to all of them.",
         plots.precision_over_recall(curves)),
        ("FROC", "Sensitivity at so many false positives per scan; the marks are the rates that the mean is of.",
         plots.sensitivity_over_false(responses)),
        ("By size", "Pooled, with 95 % intervals. True objects count in their own size, false positives in theirs.",
         plots.by_size(shown, _size_names(rows))),
    )  # fmt: skip
    return [
        {"title": title, "words": words, "uri": _uri("image/svg+xml", svg.encode())}
        for title, words, svg in drawn_curves
        if svg
    ]


def _steps(curves: Curves) -> list[tuple[str, str, str]]:
    """IoU and AP there in both averagings."""
    return [
        (f"{t:.2f}"[1:], _number(float(a)), _number(float(b)))
        for t, a, b in zip(curves.thresholds, curves.ap_pooled, curves.ap_mean, strict=True)
    ]


def _rates(curves: Curves) -> list[dict[str, Any]]:
    """Sensitivity at each rate of false positives, by hit rule."""
    return [
        {"rule": RULES[rule], "values": [_number(float(v)) for v in froc.sensitivity], "mean": _number(froc.mean)}  # type: ignore[index]
        for rule, froc in curves.froc.items()
    ]


# ---------------------------------------------------------------- cases


def _cases(summary: Summary, several: bool) -> dict[str, Any]:
    """The table of cases: counts, the main figures, and a few of the others."""
    shown = summary.cases[:LISTED]
    values = [case_figures(case) for case in shown]
    names = dict.fromkeys(name for one in values for name in one)
    extra = [name for start in _OF_CASES for name in names if re.match(rf"{start}(?! of)", name)]
    rows = []
    for case, found in zip(shown, values, strict=True):
        counts = case.counts()
        whole = (counts.tp + counts.fn, counts.tp + counts.fp, counts.tp, counts.fp, counts.fn)
        marked = (int(case.marks.split.sum()), int(case.marks.merged.sum()))
        told = [*([case.source] if several else []), case.name, *map(str, whole + marked)]
        rows.append(told + [_number(found.get(name)) for name in (*MAIN, *extra)])
    heads = [*(["data set"] if several else []), "image", "true", "predicted", "TP", "FP", "FN", "split", "merged"]
    return {
        "heads": [*heads, *MAIN, *extra],
        "rows": rows,
        "texts": 2 if several else 1,
        "more": len(summary.cases) - len(shown),
    }


def _worst(case: CaseScore, pictures: Pictures) -> dict[str, Any]:
    """A case drawn, or why it is not."""
    counts = case.counts()
    out: dict[str, Any] = {
        "name": case.name,
        "source": case.source,
        "counts": f"TP {counts.tp}, FP {counts.fp}, FN {counts.fn}, AP@.5 {counts.ap:.3f}",
        "errors": [(kind, _ids(faults.ids.tolist())) for kind, faults in case.errors().items() if len(faults)],
        "uri": "", "shown": "", "size": (0, 0),
    }  # fmt: skip
    if len(case.table.shape) not in (2, 3):
        return {**out, "shown": f"no picture: the case has {len(case.table.shape)} dimensions"}
    try:
        image, truth, prediction = pictures(case.name)
    except (MedsegError, OSError, MemoryError) as error:
        return {**out, "shown": f"no picture: {_by_name(str(error))}"}
    picture = drawn.draw(case, truth, prediction, image)
    return {**out, "uri": _uri("image/png", picture.png), "shown": picture.shown, "size": picture.size}


def _ids(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:_IDS])) + (f" and {len(ids) - _IDS} more" if len(ids) > _IDS else "")


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode('ascii')}"


def _by_name(line: str) -> str:
    """A line about a file with the file's name for its path: the page travels, the folders do not."""
    place, colon, rest = line.partition(": ")
    return f"{PureWindowsPath(place).name}{colon}{rest}" if colon else line


def _versions() -> str:
    return ", ".join([*(f"{name} {version(name)}" for name in _LIBRARIES), f"Python {platform.python_version()}"])
