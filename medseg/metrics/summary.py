"""Figures over cases: pooled over objects and as image mean, by class and by size, each with an interval.

One `Summary` is what the command line prints, what JSON and CSV hold, and what the HTML page is made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from medseg.errors import InputError
from medseg.metrics import figures
from medseg.metrics.cases import GROUPS, CaseScore, Given, score_case
from medseg.metrics.contingency import Objects
from medseg.metrics.rows import Curves, Row, curves_of, rows_of
from medseg.metrics.strata import Strata, strata
from medseg.metrics.sums import RESAMPLES, Estimate, Resampling
from medseg.spec import ScoreSpec


@dataclass(frozen=True, eq=False)
class Summary:
    """Scores of a set of cases.

    Attributes
    ----------
    split : str
        What was scored: the name of a split, or "files".
    cases : tuple of CaseScore
        Worst first: by AP@.5, then by the number of errors.
    rows : tuple of Row
        Every figure over the cases of each source.
    curves : mapping of str to Curves
        By source.
    strata : Strata or None
        The sizes, if asked for.
    absent : mapping of str to str
        Figures or groups of figures that were asked for and cannot be given, and why.
    faults : tuple of str
        One line for each case that could not be scored.
    seed, resamples : int
        Of the intervals.
    """

    split: str
    cases: tuple[CaseScore, ...]
    rows: tuple[Row, ...]
    curves: Mapping[str, Curves]
    strata: Strata | None = None
    absent: Mapping[str, str] | None = None
    faults: tuple[str, ...] = ()
    seed: int = 0
    resamples: int = RESAMPLES

    def value(
        self,
        figure: str,
        averaging: str = "pooled",
        *,
        class_name: str = "",
        size: str = "",
        source: str | None = None,
    ) -> float:
        """One figure, "pooled" or "image mean".

        Raises
        ------
        InputError
            There is no such figure, or not in this averaging.
        """
        if averaging not in ("pooled", "image mean"):
            raise InputError(f"there is no averaging {averaging!r}; ask for 'pooled' or 'image mean'")
        for row in self.rows:
            here = row.figure == figure and row.class_name == class_name and row.size == size
            if here and source in (None, row.source):
                value = row.estimate.pooled if averaging == "pooled" else row.estimate.mean
                if value is not None:
                    return value
                other = "image mean" if averaging == "pooled" else "pooled"
                raise InputError(f"{figure!r} has no {averaging} value, only {other}")
        why = "".join(f"; no {what}: {reason}" for what, reason in (self.absent or {}).items())
        raise InputError(f"there is no figure {figure!r}; there are {', '.join(self.names())}{why}")

    def names(self) -> tuple[str, ...]:
        """Figures there are, in order."""
        return tuple(dict.fromkeys(row.figure for row in self.rows))

    def records(self) -> list[dict[str, Any]]:
        """Every figure in each averaging, then every figure of each case, one flat record each."""
        out = []
        for row in self.rows:
            one = row.estimate
            told = (("pooled", one.pooled, one.pooled_interval), ("image mean", one.mean, one.mean_interval))
            for averaging, value, interval in told:
                if value is not None:
                    out.append(self._record(row, averaging, value, interval))
        for case in self.cases:
            for figure, value in case_figures(case).items():
                row = Row(case.source, figure, "", "", Estimate(1, None, None, None, None))
                out.append({**self._record(row, "case", value, None), "case": case.name})
        return out

    def _record(self, row: Row, averaging: str, value: float, interval: tuple[float, float] | None) -> dict[str, Any]:
        low, high = interval or (None, None)
        return {
            "source": row.source,
            "split": self.split,
            "figure": row.figure,
            "class": row.class_name,
            "size": row.size,
            "averaging": averaging,
            "value": value,
            "low": low,
            "high": high,
            "images": row.estimate.cases,
        }

    def to_json(self) -> str:
        """The records as a JSON list."""
        return json.dumps(self.records(), allow_nan=False)

    def table(self) -> pd.DataFrame:
        """The records over cases as a table (source, figure, class, size, averaging, value, low, high, images)."""
        return pd.DataFrame([r for r in self.records() if r["averaging"] != "case"])

    def case_table(self) -> pd.DataFrame:
        """One row for each case, worst first: name, objects on either side, counts at IoU .5, and every figure."""
        rows = []
        for case in self.cases:
            counts = case.counts()
            rows.append(
                {
                    # a file name may hold bytes that are no text
                    "case": case.name.encode("utf-8", "backslashreplace").decode(),
                    "source": case.source,
                    "true objects": counts.tp + counts.fn,
                    "predicted objects": counts.tp + counts.fp,
                    "TP": counts.tp,
                    "FP": counts.fp,
                    "FN": counts.fn,
                    "split": int(case.marks.split.sum()),
                    "merged": int(case.marks.merged.sum()),
                    **{n: v for n, v in case_figures(case).items() if n not in ("TP@.5", "FP@.5", "FN@.5")},
                }
            )
        return pd.DataFrame(rows)

    def specs(self) -> tuple[ScoreSpec, ...]:
        """The five main figures in both averagings, as model cards hold them."""
        out = []
        for row in self.rows:
            if row.figure in figures.MAIN and not row.class_name and not row.size:
                for averaging, value in (("pooled", row.estimate.pooled), ("image mean", row.estimate.mean)):
                    out.append(
                        ScoreSpec.model_validate(
                            {
                                "source": row.source,
                                "split": self.split,
                                "figure": row.figure,
                                "averaging": averaging,
                                "value": round(value or 0.0, 4),
                                "images": row.estimate.cases,
                            }
                        )
                    )
        return tuple(out)


def case_figures(case: CaseScore) -> dict[str, float]:
    """Every figure of one case, over all its objects."""
    every = np.ones(case.table.n_truth, np.bool_), np.ones(case.table.n_prediction, np.bool_)
    found = figures.of_objects(case, *every) | {name: s for (name, k), s in case.figures.items() if k == 0}
    return {name: sums.value for name, sums in found.items()}


def summarise(
    cases: Sequence[CaseScore],
    *,
    split: str = "files",
    by_size: bool = False,
    faults: Sequence[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Summary:
    """Figures over cases, for each source by itself.

    The 95 % intervals are bootstrap percentiles over cases, so they tell how much the figures would change with other
    images of the same kind, and nothing about other kinds. The same seed gives the same intervals. A single case has none.

    Parameters
    ----------
    cases : sequence of CaseScore
        Scored with the same groups of figures and in the same unit.
    split : str
        What they are of, for the record.
    by_size : bool
        Every count also by size: of lesions (all cases 3-D, of known spacing, in mm) by equivalent diameter under 3 mm, 3
        to 10, over 10; else by quartile of the size of all true objects. A true object counts in its own size, a false
        positive in its.
    faults : sequence of str
        What could not be scored, for the record.
    seed, resamples : int
        Of the bootstrap.

    Raises
    ------
    InputError
        No cases, or two of one name in one source.
    """
    if not cases:
        raise InputError("no cases to score")
    if len({(c.source, c.name) for c in cases}) < len(cases):
        raise InputError("two cases have the same name; names must be unique, since the worst are listed by name")
    names = max((c.classes for c in cases), key=len)
    for other in {c.classes for c in cases if len(c.classes) > 1 or len(names) == 1}:
        if other != names[: len(other)]:
            raise InputError(
                f"cases have the classes {', '.join(names)} and {', '.join(other)}; all must have the same"
            )
    sizes = strata([c.table for c in cases], cases[0].unit) if by_size else None
    rows: list[Row] = []
    curves = {}
    for source in sorted({c.source for c in cases}):
        some = [c for c in cases if c.source == source]
        drawn = Resampling(len(some), seed, resamples)
        rows += rows_of(source, some, drawn, sizes)
        curves[source] = curves_of(some)
    absent = {}
    for what, reason in {k: v for case in cases for k, v in case.absent.items()}.items():
        without = [case.name for case in cases if what in case.absent]
        part = f" (of {len(without)} of {len(cases)} cases, {without[0]} first)" if len(without) < len(cases) else ""
        absent[what] = reason + part
    ordered = sorted(cases, key=lambda c: (c.counts().ap, -(c.counts().fp + c.counts().fn), c.source, c.name))
    return Summary(split, tuple(ordered), tuple(rows), curves, sizes, absent, tuple(faults), seed, resamples)


def score(
    prediction: Objects | Sequence[Objects],
    truth: Objects | Sequence[Objects],
    *,
    metrics: str | Sequence[str] = (),
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    tolerance: float | None = None,
    unit: Literal["mm", "um"] = "mm",
    by_size: bool = False,
    **given: Unpack[Given],
) -> Summary:
    """Score one prediction, or a list of them, in one call.

    Parameters
    ----------
    prediction, truth : int array, Instances or Candidates; or lists of these
        One pair, or as many of each in the same order.
    metrics : str or sequence of str
        Groups of figures beside the main ones: "detection", "coco", "regions", "lesions", "surface"; or "all".
    names : sequence of str, optional
        Names of the cases; without them 1, 2 and so on.
    class_names, tolerance, unit
        As for `score_case`.
    by_size : bool
        Every count also by size: see `summarise`.
    **given
        scores, classes, truth_classes, crowd, ignore and spacing as for `overlap`; of a list of cases, lists of these, but
        for spacing, which is of all.

    Returns
    -------
    Summary

    Raises
    ------
    InputError, GeometryError
        As for `overlap`; or there are no cases, or not as many of each.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2, 0]])
    >>> found = np.array([[5, 5, 0, 0, 9, 0]])
    >>> score(found, truth).value("F1@.5")
    1.0
    """
    several = isinstance(prediction, (list, tuple))
    predictions: Sequence[Any] = prediction if isinstance(prediction, (list, tuple)) else [prediction]
    truths: Sequence[Any] = truth if isinstance(truth, (list, tuple)) else [truth]
    if len(predictions) != len(truths):
        raise InputError(f"there are {len(predictions)} predictions and {len(truths)} truths; give as many of each")
    called = tuple(names) if names is not None else tuple(str(n) for n in range(1, len(truths) + 1))
    if len(called) != len(truths):
        raise InputError(f"there are {len(called)} names for {len(truths)} cases; give one each")
    mine: dict[str, Any] = {**given}
    for what, value in mine.items():
        if several and what != "spacing" and value is not None and len(value) != len(truths):
            raise InputError(
                f"there are {len(value)} {what} for {len(truths)} cases; give a list with one entry for each"
            )
    groups = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    groups = GROUPS if "all" in groups else groups
    cases = []
    for n, (one, other) in enumerate(zip(truths, predictions, strict=True)):
        own: Any = {k: v[n] if several and k != "spacing" and v is not None else v for k, v in mine.items()}
        own |= {"class_names": class_names, "tolerance": tolerance, "unit": unit}
        cases.append(score_case(one, other, metrics=groups, name=called[n], **own))
    return summarise(cases, split="arrays", by_size=by_size)
