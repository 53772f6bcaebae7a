"""`key.csv`: which input each case is. The one file of an output folder that names anybody; its owner alone may read it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from medseg.batch.cases import Case, Input, Named
from medseg.errors import FormatError
from medseg.io.names import SCOPES, suffix
from medseg.ops.files import write_whole

NAME = "key.csv"
_COLUMNS = ("case", "kind", "label", "place", "input", "role", "series", "fault", "file")


def read_key(folder: Path) -> dict[str, Case]:
    """Cases by name; empty where there is no key.

    Raises
    ------
    FormatError
        It is no key file.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    told: dict[str, tuple[str, str, str, str]] = {}
    parts: dict[str, dict[int, Input]] = {}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in csv.DictReader(stream, strict=True):
                name, number = row["case"], int(row["input"])
                told[name] = row["kind"], row["label"], row["place"], row["fault"]
                one = parts.setdefault(name, {}).get(number, Input((), row["role"], row["series"]))
                parts[name][number] = Input((*one.files, Path(row["file"])), one.role, one.series)
    except (csv.Error, KeyError, ValueError, TypeError):
        raise FormatError(f"{path}: is damaged; move it away and run the batch again") from None
    cases = {}
    for name, (kind, label, place, fault) in told.items():
        inputs = tuple(parts[name][number] for number in sorted(parts[name]))
        cases[name] = Case(kind, inputs, label=label, place=place, fault=fault, name=name)
    return cases


def write_key(folder: Path, cases: Iterable[Named]) -> list[str]:
    """Add cases to the key, and return names that files had before, alone or with others: what those were is no case any more.

    Whoever calls this holds a lock on the folder: two processes that add at a time would lose one another's cases.
    """
    known: dict[str, Case] = read_key(folder)
    now = {one.name: one.case for one in cases}
    places = {place: name for name, case in now.items() for place in _places(case)}
    for (series, file), name in list(places.items()):
        if series and suffix(Path(file)).lstrip(".") in SCOPES:
            places.setdefault(("", file), name)  # a file whose scenes are cases is no case as a whole
    gone = [name for name, case in known.items() if name not in now and _changed(name, case, places)]
    known |= now
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for name, case in known.items():
        writer.writerows(_rows(name, case))
    write_whole(folder / NAME, buffer.getvalue().encode("utf-8", "surrogateescape"), mode=0o600)
    return gone


def _rows(name: str, case: Case) -> Iterable[tuple[str | int, ...]]:
    for number, one in enumerate(case.inputs):
        for file in one.files:
            # a path with a NUL was never a file; csv cannot hold one
            text = os.path.abspath(str(file).replace("\0", ""))
            yield name, case.kind, case.label, case.place, number, one.role, one.series, case.fault, text


def _places(case: Case) -> list[tuple[str, str]]:
    """Every file of a case, with the series in it that is meant."""
    return [(one.series, os.path.abspath(str(file).replace("\0", ""))) for one in case.inputs for file in one.files]


def _changed(name: str, case: Case, places: Mapping[tuple[str, str], str]) -> bool:
    """Whether files of a case are another one's now, by content; one that is listed twice has two names that begin alike."""
    others = {places[place] for place in _places(case) if place in places}
    return any(not (name.startswith(other) or other.startswith(name)) for other in others)
