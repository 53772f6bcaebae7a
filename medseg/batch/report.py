"""The study as an HTML page that needs nothing else: counts, failures, distributions, every case with outlines, oddest first.

No scripts and nothing from a network. Pictures are small and drawn by the browser when they come into view, so that
thousands of cases open at once.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

import medseg
from medseg.batch.ledger import STATES, Ledger
from medseg.batch.settings import remembered
from medseg.batch.tables import STEM
from medseg.errors import MedsegError
from medseg.export.report import number, rendered
from medseg.ops.files import write_whole
from medseg.words import counted

NAME = "report.html"
_BARS = 24
_SHOWN = 20  # failures up to which each is shown at once
_WIDTH, _HEIGHT = 300.0, 120.0
_ODD = 3.5  # robust standard deviations from which a case is called unusual (Iglewicz and Hoaglin 1993)
_SIZES = ("volume_ml", "volume_mm3", "volume_um3", "area_um2", "area_mm2", "volume_px", "area_px")

Numbers = npt.NDArray[np.float64]


def write_report(ledger: Ledger) -> None:
    """Write report.html of what is done so far; the tables of the study must be there.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    done = ledger.cases("done")
    facts = [json.loads(row["facts"]) for row in done]
    counts = np.array([row["count"] for row in done], np.float64)
    cards = [_card(ledger, row, told) for row, told in zip(done, facts, strict=True)]
    for card, reasons in zip(cards, _oddities(counts, facts), strict=True):
        card["rank"] = max((abs(z) for z, _ in reasons), default=0.0)
        card["odd"] = [text for z, text in reasons if abs(z) >= _ODD]
    cards.sort(key=lambda one: (-one["rank"], one["name"]))
    states, failed = ledger.counts(), ledger.cases("failed")
    page = rendered(
        "medseg.batch",
        "report.html.j2",
        facts=_facts(ledger.folder),
        states=[(state, states[state]) for state in STATES],
        total=f"{int(counts.sum()):,}",
        failures=len(failed),
        reasons=_reasons(failed),
        shown=_SHOWN,
        histograms=[_histogram("number of instances", counts, _wide(counts), "cases"), *_of_instances(ledger.folder)],
        cards=cards,
        odd=sum(bool(card["odd"]) for card in cards),
    )
    write_whole(ledger.folder / NAME, page)


def _reasons(failed: Sequence[Any]) -> list[dict[str, Any]]:
    """Why cases failed, the reason of most of them first: hundreds often have the same one."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in failed:
        found.setdefault((row["error"], row["error_class"]), []).append(row["name"])
    ordered = sorted(found.items(), key=lambda one: -len(one[1]))
    return [{"why": why, "kind": kind, "cases": names} for (why, kind), names in ordered]


def _facts(folder: Path) -> list[tuple[str, str]]:
    """What was asked for."""
    try:
        case = remembered(folder).case
    except MedsegError:
        return []
    by = f"rule {case.threshold}, cut by {case.separate.method}" if case.threshold else f"model {_model(case.model)}"
    return [
        ("found by", by),
        ("files", ", ".join(case.save)),
        ("program", f"medseg {medseg.__version__}, for research use only"),
    ]


def _model(name: str | None) -> str:
    return "by dimension" if name is None else Path(name).stem


def _card(ledger: Ledger, row: Any, facts: dict[str, Any]) -> dict[str, Any]:
    what, _, unit = facts.get("size_name", "").rpartition("_")
    size = f"{what} {number(facts['size'][0])} {unit}" if facts.get("size") else ""
    score = f"mean score {facts['score']:.2f}" if facts.get("score") is not None else ""
    shape = " x ".join(map(str, facts.get("shape", ())))
    kind = "" if facts["modality"] == "other" else f"{facts['modality']} "
    told = [counted(row["count"]), f"median {size}" if size else "", score, f"{kind}{shape}"]
    return {
        "name": row["name"],
        "told": [text for text in told if text],
        "notes": facts.get("notes", []),
        "thumb": b64encode(row["thumb"] or b"").decode("ascii"),
        "files": [
            (quote(one.path), Path(one.path).name.removeprefix(f"{row['name']}_")) for one in ledger.outputs(row["id"])
        ],
    }


# ---------------------------------------------------------------- what is unusual


def _oddities(counts: Numbers, facts: list[dict[str, Any]]) -> list[list[tuple[float, str]]]:
    """How far each case lies from the usual one, in robust standard deviations, and in what.

    Sizes are compared among cases that have them in the same unit.
    """
    found: list[list[tuple[float, str]]] = [[] for _ in facts]
    scores = np.array([np.nan if one.get("score") is None else one["score"] for one in facts], np.float64)
    measured = [("instances", "", counts, np.log1p(counts)), ("mean score", "", scores, scores)]
    for name in sorted({one.get("size_name", "") for one in facts if one.get("size")}):
        same = [one["size"][0] if one.get("size") and one.get("size_name") == name else np.nan for one in facts]
        sizes = np.array(same, np.float64)
        what, _, unit = name.rpartition("_")
        measured.append((f"median {what}", f" {unit}", sizes, np.log(np.maximum(sizes, 1e-12))))
    for what, unit, shown, values in measured:
        if np.isfinite(values).sum() < 3:
            continue
        usual = float(np.nanmedian(shown))
        for one, z, value in zip(found, _robust(values), shown, strict=True):
            if np.isfinite(z):
                one.append((float(z), f"{what} {number(float(value))}{unit}, usually {number(usual)}{unit}"))
    return found


def _robust(values: Numbers) -> Numbers:
    """Distance from the median in units of the median distance, scaled to standard deviations."""
    off = values - np.nanmedian(values)
    usual = float(np.nanmedian(np.abs(off))) / 0.6745
    return np.asarray(off / max(usual, 0.02), np.float64)  # where nearly all are equal, 2 % are no oddity


# ---------------------------------------------------------------- distributions


def _of_instances(folder: Path) -> list[dict[str, Any]]:
    """Histograms of the sizes and scores of all instances, one for each unit in which a study has sizes."""
    import pyarrow.parquet as pq

    path = folder / f"{STEM}.parquet"
    if not path.is_file():
        return []
    there = pq.read_schema(path).names
    out, known = [], set[tuple[int, str]]()
    for name in (*_SIZES, "score"):
        if name not in there:
            continue
        values = pq.read_table(path, columns=[name])[name].to_numpy().astype(np.float64)
        sized = np.isfinite(values)
        what, _, unit = name.rpartition("_")
        same = (hash(sized.tobytes()), what)  # volume_ml and volume_mm3 are of the same instances
        if not sized.any() or same in known:
            continue
        known.add(same)
        title = "score of an instance" if name == "score" else f"{what} of an instance in {unit}"
        out.append(_histogram(title, values[sized], name != "score", "instances"))
    return out


def _wide(values: Numbers) -> bool:
    """Whether few values are so large that all others would share a bar of a linear axis."""
    return bool(len(values) and values.max() > _BARS * max(1.0, float(np.median(values))))


def _histogram(title: str, values: Numbers, log: bool, of: str) -> dict[str, Any]:
    """Bars of a histogram, as places in a picture, on a linear or a logarithmic axis; zeros are with the smallest then."""
    if not len(values):
        return {"title": title, "bars": [], "low": "", "high": "", "most": "0", "of": of, "n": "0", "median": ""}
    title += ", logarithmic" if log else ""
    above = values[values > 0]
    seen = np.log10(np.maximum(values, above.min() if len(above) else 1.0)) if log else values
    low, high = float(seen.min()), float(seen.max())
    heights, _ = np.histogram(seen, _BARS, (low, high if high > low else low + 1))
    step = _WIDTH / _BARS
    scale = (_HEIGHT - 10) / max(int(heights.max()), 1)
    bars = [
        {"x": round(i * step, 1), "y": round(_HEIGHT - n * scale, 1), "w": round(step - 1, 1), "h": round(n * scale, 1)}
        for i, n in enumerate(heights.tolist())
        if n
    ]
    ends = [number(float(values.min())), number(float(values.max()))]
    return {
        "title": title,
        "bars": bars,
        "low": ends[0],
        "high": ends[1],
        "median": number(float(np.median(values))),
        "most": number(int(heights.max())),
        "of": of,
        "n": number(len(values)),
    }
