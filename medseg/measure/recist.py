"""Response by RECIST 1.1: which lesions count, their sum, and what its change means.

Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1), European Journal of
Cancer 45, 2009. Numbers in brackets below are its sections. Target, non-target and overall response are three things: a new lesion
changes the overall one only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from medseg.errors import InputError

Response = Literal["CR", "PR", "SD", "PD", "NE"]
NonTarget = Literal["CR", "non-CR/non-PD", "PD", "NE", "none"]
Overall = Literal["CR", "PR", "SD", "PD", "NE", "non-CR/non-PD"]

LONG = 10.0  # mm, long axis from which a lesion is measurable (3.1.1)
NODE = 15.0  # mm, short axis from which a lymph node is (3.1.1)
NORMAL = 10.0  # mm, short axis under which a lymph node is normal (3.1.1)
MOST, PER_ORGAN = 5, 2  # target lesions in all, and per organ (4.3.1)
FALL, RISE, LEAST = 0.30, 0.20, 5.0  # of the baseline sum; of the nadir; mm (4.3.1)


def measured(table: pd.DataFrame) -> pd.Series:
    """Return the diameter that counts, mm: the short axis of lymph nodes (column ``nodal``), else the long axis."""
    node = _nodal(table)
    return pd.Series(np.where(node, table["short_axis_mm"], table["long_axis_mm"]), index=table.index, dtype=np.float64)


def eligible(table: pd.DataFrame, thickness: float) -> pd.Series:
    """Return what each lesion may be at baseline: "target", "non-target" or "normal" (a lymph node under 10 mm).

    Parameters
    ----------
    table
        Columns long_axis_mm and short_axis_mm, and nodal if there are lymph nodes.
    thickness
        Distance of slices in mm: a target lesion is at least two slices long (3.1.1).
    """
    node, size = _nodal(table), measured(table)
    least = np.where(node, NODE, max(LONG, 2 * thickness))
    out = np.where(size >= least, "target", np.where(node & (size < NORMAL), "normal", "non-target"))
    return pd.Series(out, index=table.index, dtype="str")


def choose_targets(table: pd.DataFrame, thickness: float) -> pd.Series:
    """Return which lesions are targets at baseline: the largest, at most five, at most two of an organ.

    Parameters
    ----------
    table, thickness
        As for `eligible`. Column finding_site is the organ; lesions without one are of one unknown organ. A person's word (column
        role) comes first: where some are called "target" those alone are, and "non-target" is never chosen.

    Returns
    -------
    Series of bool

    Raises
    ------
    InputError
        A person made a target of what is not measurable, or of more than five, or more than two of an organ.
    """
    may = eligible(table, thickness) == "target"
    roles = table["role"].fillna("") if "role" in table else pd.Series("", index=table.index)
    organs = table["finding_site"].fillna("") if "finding_site" in table else pd.Series("", index=table.index)
    asked = roles == "target"
    if bad := table.index[asked & ~may].tolist():
        named = ", ".join(str(table["id"][i]) if "id" in table else str(i) for i in bad)
        raise InputError(
            f"Lesions {named} are called targets but are too small to be measured: a target has a long axis of 10 mm and two "
            "slices or more, a lymph node a short axis of 15 mm; make them non-target."
        )
    if asked.sum() > MOST or (asked.any() and organs[asked].value_counts().max() > PER_ORGAN):
        count = organs[asked].value_counts()
        told = ", ".join(f"{int(n)} in {organ or 'no named organ'}" for organ, n in count.items())
        raise InputError(
            f"RECIST allows {MOST} target lesions, {PER_ORGAN} of an organ; called targets are {told}. Name their organs, or fewer."
        )
    chosen = asked.copy()
    if asked.any():
        return chosen
    for i in measured(table).sort_values(ascending=False, kind="stable").index:
        if chosen.sum() >= MOST:
            break
        if may[i] and not chosen[i] and roles[i] == "" and (chosen & (organs == organs[i])).sum() < PER_ORGAN:
            chosen[i] = True
    return chosen


@dataclass(frozen=True)
class Visit:
    """What one date says of the target lesions.

    Attributes
    ----------
    sum : float
        Sum of the diameters that count, mm; NaN where a target was not measured.
    change_baseline, change_nadir : float
        Share by which it changed from the baseline sum, and from the smallest sum before (the baseline's included).
    response : str
        Of the target lesions: CR, PR, SD, PD or NE.
    """

    sum: float
    change_baseline: float
    change_nadir: float
    response: Response


def target_responses(diameters: Sequence[Sequence[float]], nodal: Sequence[bool]) -> list[Visit]:
    """Return the response of the target lesions at each follow-up.

    Parameters
    ----------
    diameters
        A row for each date, baseline first; in it the diameter of each target in mm (`measured`), 0 where it has gone, NaN where
        it was not measured.
    nodal
        Which targets are lymph nodes, whose short axis still counts when they are normal (4.3.2).

    Returns
    -------
    list of Visit
        One per date after the baseline.

    Raises
    ------
    InputError
        No baseline, a baseline that is not measured, rows of different length, or negative diameters.

    Examples
    --------
    >>> [v.response for v in target_responses([[40, 20], [25, 10], [35, 12]], [False, False])]
    ['PR', 'PD']
    """
    rows = [np.asarray(row, np.float64) for row in diameters]
    node = np.asarray(nodal, np.bool_)
    if not rows or any(row.shape != node.shape for row in rows):
        raise InputError(
            f"Each date needs one diameter for each of the {len(node)} target lesions, the baseline first."
        )
    if any((row < 0).any() for row in rows):
        raise InputError("A diameter is negative; a lesion that has gone has 0.")
    first = float(rows[0].sum())
    if not first > 0:
        raise InputError("At baseline each target lesion needs a diameter.")
    visits: list[Visit] = []
    nadir = first
    for row in rows[1:]:
        total = float(row.sum())
        was_complete = bool(visits) and visits[-1].response == "CR"
        visits.append(_visit(row, node, total, first, nadir, was_complete))
        if np.isfinite(total):
            nadir = min(nadir, total)
    return visits


def overall(target: Response | Literal["none"], non_target: NonTarget, new: bool) -> Overall:
    """Return the overall response at one date (tables 1 and 2).

    Parameters
    ----------
    target
        From `target_responses`; "none" where the patient has no target lesions.
    non_target
        CR (all gone, nodes normal), non-CR/non-PD, PD (unequivocal), NE (not all evaluated), or none.
    new
        Whether there is a new lesion.

    Examples
    --------
    >>> overall("CR", "non-CR/non-PD", False), overall("PR", "non-CR/non-PD", True)
    ('PR', 'PD')
    """
    if new or target == "PD" or non_target == "PD":
        return "PD"
    if target == "none":
        return "NE" if non_target == "none" else non_target
    if target == "CR":
        return "CR" if non_target in ("CR", "none") else "PR"
    return target


def _visit(row: np.ndarray, node: np.ndarray, total: float, first: float, nadir: float, was_complete: bool) -> Visit:
    from_first, from_nadir = total / first - 1, total / nadir - 1 if nadir > 0 else np.inf if total > 0 else 0.0
    if not np.isfinite(total):
        # what was measured may already have grown enough
        known = float(np.nansum(row))
        grown = known - nadir >= LEAST and known >= (1 + RISE) * nadir
        return Visit(np.nan, np.nan, np.nan, "PD" if grown else "NE")
    response: Response = "SD"
    if (row[~node] == 0).all() and (row[node] < NORMAL).all():
        response = "CR"
    elif was_complete and (row[~node] > 0).any():
        response = "PD"  # what comes back after a complete response is progression, however small
    elif total - nadir >= LEAST and total >= (1 + RISE) * nadir * (1 - 1e-12):
        response = "PD"
    elif total <= (1 - FALL) * first * (1 + 1e-12):
        response = "PR"
    return Visit(total, from_first, from_nadir, response)


def _nodal(table: pd.DataFrame) -> np.ndarray:
    return np.asarray(table["nodal"].fillna(False), np.bool_) if "nodal" in table else np.zeros(len(table), np.bool_)
