"""The course as an HTML page that needs nothing else: response, curves, each lesion at each date, the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medseg.errors import GeometryError
from medseg.export.report import key_slice, number, rendered
from medseg.follow.course import Course, Visit
from medseg.follow.register import Alignment
from medseg.follow.response import Response
from medseg.io.clinical.deidentifier import VERSION
from medseg.ops.files import write_whole
from medseg.spec import FollowSpec

SHOWN = 30  # lesions with pictures
LISTED = 2000  # rows of the ledger
_URGENT = ("new", "returned", "grown", "merged", "split", "resolved", "shrunk", "stable", "baseline")
_WIDTH, _HEIGHT = 640.0, 180.0  # of a curve
_COLUMNS = {
    "lesion": "lesion", "name": "visit", "date": "date", "day": "day", "state": "state", "into": "merged into",
    "origin": "split from", "id": "id", "finding_site": "site", "role": "role", "volume_ml": "volume (mL)",
    "change_pct": "change (%)", "baseline_pct": "since first (%)", "long_axis_mm": "long axis (mm)",
    "short_axis_mm": "short axis (mm)", "hu_mean": "HU mean", "suv_max": "SUVmax", "suv_peak": "SUVpeak", "tlg_g": "TLG (g)",
}  # fmt: skip
_RESPONSE = {
    "name": "visit", "date": "date", "sum_mm": "sum of targets (mm)", "from_baseline_pct": "from baseline (%)",
    "from_nadir_pct": "from nadir (%)", "target": "target response", "non_target": "non-target", "new": "new lesions",
    "overall": "overall response",
}  # fmt: skip


def write_page(course: Course, response: Response, path: Path, spec: FollowSpec, case: str) -> None:
    """Write the page.

    Parameters
    ----------
    course, response
        From `medseg.follow.follow` and `respond`.
    path
        HTML file; replaced whole or not at all.
    spec
        What was asked for.
    case
        Name that identifies nobody.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    ledger = course.ledger
    order = _order(ledger)
    counts = ledger.groupby(["visit", "state"]).size().unstack(fill_value=0)
    states = [s for s in _URGENT if s in counts]
    page = rendered(
        "medseg.follow",
        "page.html.j2",
        case=case,
        facts=_facts(course, spec),
        notes=[*course.notes, *response.notes],
        curves=_curves(course, response),
        response=_table(response.table, _RESPONSE),
        targets=response.targets,
        states=states,
        counts=[(v.name, v.date, [int(counts[s].get(k, 0)) for s in states]) for k, v in enumerate(course.visits)],
        visits=[" ".join(part for part in (v.name, v.date) if part) for v in course.visits],
        lesions=[_lesion(course, response, n) for n in order[:SHOWN]],
        hidden=max(0, len(order) - SHOWN),
        ledger=_table(ledger.head(LISTED), _COLUMNS),
        more=max(0, len(ledger) - LISTED),
    )
    write_whole(path, page)


def _facts(course: Course, spec: FollowSpec) -> list[tuple[str, str]]:
    facts = []
    for k, visit in enumerate(course.visits):
        how = ""
        if k:
            one = course.alignments[k - 1]
            how = f"; laid onto the baseline: {one.kind}"
            how += f", correlation of the images {one.likeness:.3f}" if np.isfinite(one.likeness) else ""
        facts.append(
            (visit.name, f"{visit.image.modality}, {visit.image.grid.describe()}, {len(visit.lesions)} lesions{how}")
        )
    rule = (
        f"the same lesion: {spec.overlap:.0%} of the smaller one covered, or borders within {spec.tolerance:g} mm; "
        f"grown: volume + {spec.change:g} % or more, shrunk: - {100 - 100 / (1 + spec.change / 100):.3g} % or more"
    )
    return [*facts, ("rules", rule), ("program", f"medseg {VERSION}, for research use only")]


def _order(ledger: pd.DataFrame) -> list[int]:
    """Lesions, those that changed most lately first, then by size."""
    rank = {state: i for i, state in enumerate(_URGENT)}
    best = ledger[ledger["visit"] > 0].assign(rank=lambda t: t["state"].map(rank)).groupby("lesion")["rank"].min()
    size = ledger.groupby("lesion")["voxels"].max()
    every = pd.DataFrame({"rank": best, "size": size}).fillna({"rank": len(rank)})
    return [int(n) for n in every.sort_values(["rank", "size"], ascending=[True, False]).index]


def _table(table: pd.DataFrame, columns: dict[str, str]) -> dict[str, Any]:
    names = [n for n in columns if n in table and not (table[n].isna().all() or (table[n].astype(str) == "").all())]
    names = [n for n in names if n not in ("into", "origin") or (table[n] > 0).any()]
    rows = [
        [_cell(name, value) for name, value in zip(names, row, strict=True)]
        for row in table[names].itertuples(index=False)
    ]
    return {"heads": [columns[n] for n in names], "rows": rows}


def _cell(name: str, value: Any) -> str:
    if value is pd.NA or (name in ("into", "origin", "id") and value == 0):
        return "\u2013"
    return number(value)


def _curves(course: Course, response: Response) -> list[dict[str, Any]]:
    """Points of the total volume, and of the sum of target diameters, over time."""
    ledger, visits = course.ledger, range(len(course.visits))
    days = ledger.groupby("visit")["day"].first().reindex(visits)
    at = days.to_numpy(dtype=float) if days.notna().all() else np.arange(len(course.visits), dtype=float)
    found = []
    if "volume_ml" in ledger:
        total = ledger.groupby("visit")["volume_ml"].sum().reindex(visits, fill_value=0.0)
        found.append(("total volume (mL)", total.to_numpy(dtype=float)))
    if response.targets:
        found.append(("sum of target diameters (mm)", response.table["sum_mm"].to_numpy(dtype=float)))
    out = []
    for title, values in found:
        top = max(float(np.nanmax(values)), 1e-9)
        x = 50 + (at - at[0]) / max(at[-1] - at[0], 1) * (_WIDTH - 110)
        y = _HEIGHT - 30 - values / top * (_HEIGHT - 60)
        dots = [
            {"x": round(float(a), 1), "y": round(float(b), 1), "value": number(float(v)), "name": visit.name}
            for a, b, v, visit in zip(x, y, values, course.visits, strict=True)
        ]
        out.append({"title": title, "dots": dots, "width": _WIDTH, "height": _HEIGHT})
    return out


def _lesion(course: Course, response: Response, lesion: int) -> dict[str, Any]:
    """Pictures of one lesion at each date; where it is not, of the place where it was or will be."""
    rows = course.ledger[course.ledger["lesion"] == lesion].set_index("visit")
    seen = rows[rows["id"] > 0]
    known = seen.iloc[0]
    alignments = (Alignment("none", float("nan")), *course.alignments)
    place = alignments[int(seen.index[0])](known[[f"centroid_{a}_mm" for a in "xyz"]].to_numpy(np.float64)[np.newaxis])
    cells = []
    for k, visit in enumerate(course.visits):
        here: Any = rows.loc[k] if k in rows.index else None
        if here is not None and here["id"] > 0:
            shown = key_slice(visit.lesions, visit.image, here)
            change = here["change_pct"]
            told = [str(here["state"]), f"{number(here['volume_ml'])} mL"]
            told += [f"{round(change):+d} %"] if np.isfinite(change) else []
            told += [f"{here['long_axis_mm']:.1f} mm"] if np.isfinite(here["long_axis_mm"]) else []
            told.append(shown["told"].split(",")[0])
            cells.append({"png": shown["png"], "told": ", ".join(told), "state": str(here["state"])})
        else:
            state = (
                "not there yet"
                if here is None and k < seen.index[0]
                else str(here["state"])
                if here is not None
                else ""
            )
            if state == "merged":
                state = f"merged into lesion {int(here['into'])}"
            cells.append(
                {
                    "png": _empty(visit, alignments[k], place, known),
                    "told": state or "in another lesion",
                    "state": state,
                }
            )
    origin = int(known["origin"])
    said = response.roles.get(lesion, "")
    return {"number": lesion, "role": said, "from": f"split from lesion {origin}" if origin else "", "cells": cells}


def _empty(visit: Visit, alignment: Alignment, place: np.ndarray, known: pd.Series) -> str:
    """Draw the slice through a place on another visit's image, "" where that does not reach."""
    grid = visit.lesions.grid
    try:
        index = np.round(grid.to_index(alignment.back(place))[0]).astype(int)
    except GeometryError:
        return ""
    if (index < 0).any() or (index >= grid.shape).any():
        return ""
    half = np.maximum(1, np.round(float(known["diameter_3d_mm"]) / 2 / np.array(grid.spacing))).astype(int)
    row = {"id": 0, "axes_axis": grid.axes[0], "axes_slice": int(index[0])}
    for a, i, h in zip(grid.axes, index, half, strict=True):
        row |= {f"box_{a}_start": int(i - h), f"box_{a}_stop": int(i + h + 1), f"centroid_{a}": float(i)}
    return key_slice(visit.lesions, visit.image, pd.Series(row))["png"]
