"""``medseg series``: which DICOM images lie under a path, and what is wrong with them. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import table, why
from medseg.errors import InputError

if TYPE_CHECKING:
    from medseg.io.dicom.series import Series


def series(
    target: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folder (with all below it), DICOMDIR or DICOM files.")
    ],
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Show series descriptions too; they may identify a patient.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> int:
    """List the DICOM images in a folder: modality, size, spacing, orientation, problems.

    Each line is what `segment --series` takes, by number or key. Headers are read, no voxels.
    """
    from medseg import io

    try:
        found = io.series(target[0] if len(target) == 1 else target)
    except InputError as error:
        raise InputError(why(target[0], error)) from None
    rows = [_facts(number, one, descriptions) for number, one in enumerate(found, 1)]
    if as_json:
        print(json.dumps(rows))
        return 0
    shown = [[_cell(value) for key, value in row.items() if key != "problems"] for row in rows]
    table("", [key for key in rows[0] if key != "problems"], shown)
    for row in rows:
        for problem in row["problems"]:
            print(f"  {row['number']}: {problem}")
    return 0


def _facts(number: int, one: Series, descriptions: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "number": number,
        "key": one.key,
        "modality": one.modality,
        "size": list(one.shape),
        "spacing": None if one.spacing is None else [float(f"{step:.6g}") for step in one.spacing],
        "orientation": one.orientation,
        "files": len(one.files),
        "problems": list(one.problems),
    }
    return facts | ({"description": one.description} if descriptions else {})


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(f"{part:g}" for part in value)
    return "-" if value is None else "".join(c if c.isprintable() else "?" for c in str(value))
