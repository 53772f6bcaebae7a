"""Response by RECIST 1.1 over a course: targets chosen at baseline, sums, nadir, new lesions (`medseg.measure.recist`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from medseg.follow.course import Course
from medseg.measure.recist import NORMAL, NonTarget, choose_targets, eligible, measured, overall, target_responses


@dataclass(frozen=True)
class Response:
    """Response at each visit.

    Attributes
    ----------
    table : DataFrame
        One row per visit: visit, name, date, targets (how many), sum_mm, from_baseline_pct, from_nadir_pct, target, non_target,
        new (how many lesions), overall. The baseline has no response.
    targets : tuple of int
        Lesions that are targets.
    roles : dict
        Role of each lesion: target, non-target, normal (a lymph node under 10 mm at baseline) or new.
    notes : tuple of str
        What was decided.
    """

    table: pd.DataFrame = field(repr=False)
    targets: tuple[int, ...]
    roles: dict[int, str]
    notes: tuple[str, ...] = ()


def respond(course: Course) -> Response:
    """Work out the response at each visit.

    Targets are chosen at baseline (`medseg.measure.recist.choose_targets`), those that a person named first. A target that merged
    into another counts with it; what a target split into is added up (RECIST 1.1, appendix II). A lesion that is not a target is
    never called unequivocal progression: that is for a person to say.

    Raises
    ------
    InputError
        A person's roles break RECIST's rules.
    """
    ledger = course.ledger
    first = ledger[ledger["visit"] == 0]
    first = first.set_index("lesion", drop=False)
    thickness = _thickness(course)
    first, notes = _of_now(first, course, thickness)
    chosen = choose_targets(first, thickness) if len(first) else pd.Series([], dtype=bool)
    may = eligible(first, thickness) if len(first) else pd.Series([], dtype=str)
    targets = tuple(int(n) for n in first["lesion"][chosen.to_numpy(dtype=bool)])
    roles = {
        int(n): "target" if n in targets else ("normal" if may[n] == "normal" else "non-target")
        for n in first["lesion"]
    }
    began = ledger.groupby("lesion").first()
    origin = {int(n): int(o) for n, o in zip(began.index.tolist(), began["origin"].tolist(), strict=True)}
    for number in origin:
        if number not in roles:
            roles[number] = roles.get(_root(number, origin), "new") if origin[number] else "new"
    rows = [_diameters(ledger, k, targets, origin) for k in range(len(course.visits))]
    nodal = [bool(first["nodal"][n]) if "nodal" in first else False for n in targets]
    visits = target_responses(rows, nodal) if targets else []
    out = []
    for k, visit in enumerate(course.visits):
        here = ledger[ledger["visit"] == k]
        new = int(here["state"].isin(["new", "returned"]).sum()) if k else 0
        line: dict[str, object] = {
            "visit": k, "name": visit.name, "date": visit.date, "targets": len(targets),
            "sum_mm": float(np.sum(rows[k])) if targets else np.nan, "from_baseline_pct": np.nan, "from_nadir_pct": np.nan,
            "target": "", "non_target": "", "new": new, "overall": "",
        }  # fmt: skip
        if k:
            rest = _rest(here, roles)
            line["non_target"] = rest
            if targets:
                said = visits[k - 1]
                line |= {"from_baseline_pct": said.change_baseline * 100, "from_nadir_pct": said.change_nadir * 100}
                line["target"] = said.response
                line["overall"] = overall(said.response, rest, new > 0)
            else:
                line["overall"] = overall("none", rest, new > 0)
        out.append(line)
    return Response(pd.DataFrame(out), targets, roles, notes)


def _of_now(first: pd.DataFrame, course: Course, thickness: float) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Take back what a file calls a target and is too small for one now: files know the baseline of another course."""
    if "role" not in first:
        return first, ()
    said = course.visits[0].said
    person = (
        said.loc[said["role"].fillna("") != "", "id"]
        if said is not None and "role" in said
        else pd.Series([], dtype=int)
    )
    small = (first["role"] == "target") & ~first["mask_id"].isin(person) & (eligible(first, thickness) != "target")
    if not small.any():
        return first, ()
    named = ", ".join(str(n) for n in first.loc[small, "lesion"])
    note = (
        f"lesions {named} are targets by the file of the baseline, but too small for that at this date: non-target here"
    )
    return first.assign(role=first["role"].where(~small, "non-target")), (note,)


def _thickness(course: Course) -> float:
    """Distance of slices at baseline, along the axis that the measured planes are normal to."""
    grid = course.visits[0].lesions.grid
    ledger = course.ledger
    axes = ledger["axes_axis"].dropna().tolist() if "axes_axis" in ledger else []
    return float(grid.spacing[grid.axes.index(str(axes[0]))]) if axes else float(max(grid.spacing))


def _root(number: int, origin: dict[int, int]) -> int:
    while origin.get(number):
        number = origin[number]
    return number


def _diameters(ledger: pd.DataFrame, visit: int, targets: tuple[int, ...], origin: dict[int, int]) -> list[float]:
    """Diameter of each target, of all that it became: pieces are added, what merged counts once, a gone one is 0."""
    so_far = ledger[(ledger["visit"] <= visit) & (ledger["into"] > 0)]
    into = dict(zip(so_far["lesion"].tolist(), so_far["into"].tolist(), strict=True))
    here = ledger[(ledger["visit"] == visit) & (ledger["id"] > 0)]
    size = measured(here).to_numpy()
    kin = np.array([_root(int(n), origin) for n in here["lesion"]], dtype=int)
    out, counted = [], set[int]()
    for n in targets:
        became = _root(n, into)
        own = became == n or became not in targets  # else it counts with the target that it merged into
        out.append(float(size[kin == became].sum()) if own and became not in counted else 0.0)
        counted.add(became)
    return out


def _rest(here: pd.DataFrame, roles: dict[int, str]) -> NonTarget:
    """Response of what is no target: gone, or still there."""
    rows = here[[roles[int(n)] == "non-target" for n in here["lesion"]]]
    if not len(rows):
        return "none"
    left = rows[rows["id"] > 0]
    nodal = left["nodal"].to_numpy(bool) if "nodal" in left else np.zeros(len(left), bool)
    still = ~(nodal & (measured(left).to_numpy() < NORMAL))
    return "non-CR/non-PD" if still.any() else "CR"
