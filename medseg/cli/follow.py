"""``medseg follow``: the same lesions at several visits."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import progress, results_folder
from medseg.cli.files import Files, finding, kinds, table_of, tell
from medseg.errors import InputError, MedsegWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from medseg.case import Rules
    from medseg.follow import Course, Visit
    from medseg.image import Image
    from medseg.instances import Instances

NAMES = ("timeline.html", "ledger.csv", "ledger.parquet", "response.csv")


def follow(
    visits: Annotated[
        list[str],
        typer.Argument(
            metavar="VISIT...",
            help="Baseline and later visits: IMAGE=MASK, or IMAGE alone with --model or --threshold.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model that finds the lesions of an IMAGE alone.")
    ] = None,
    threshold: Annotated[
        str | None, typer.Option(help='Rule that finds the lesions of an IMAGE alone, such as "SUV>4, 41%".')
    ] = None,
    method: Annotated[
        str, typer.Option(help="How a rule's foreground is cut: shape, components, distance or intensity.")
    ] = "shape",
    min_volume: Annotated[float, typer.Option(min=0, help="Smallest lesion of a rule in mm3.")] = 0.0,
    separate: Annotated[
        bool, typer.Option("--separate", help="Cut each MASK into single lesions; else its ids are the lesions.")
    ] = False,
    dates: Annotated[
        str | None, typer.Option(help="Dates of the visits, where files say none: 2024-01-31,2024-06-30.")
    ] = None,
    registration: Annotated[
        str,
        typer.Option(help="auto, none, rigid, affine or deformable; auto: affine, or none in one frame of reference."),
    ] = "auto",
    change: Annotated[float, typer.Option(min=0.1, help="Change of volume in % from which a lesion grew.")] = 20.0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="mm that borders of the same lesion may be apart where nothing overlaps.")
    ] = 3.0,
    table: Annotated[
        Path | None,
        typer.Option(help="What is known of the baseline's lesions: .csv with id, finding_site, nodal, role."),
    ] = None,
    values: Annotated[
        str, typer.Option(help="What the voxels of files hold that do not say it: HU, SUVbw, SUVlbm, SUVbsa.")
    ] = "auto",
    save: Annotated[
        str,
        typer.Option(
            help="Files of each visit, of: labels, nifti, tiff, csv, parquet, overlay, report, seg, rtstruct, sr."
        ),
    ] = "labels",
    what: Annotated[str | None, typer.Option("--finding", help="Name such as nodule, or CODE:SCHEME:MEANING.")] = None,
    site: Annotated[
        str | None, typer.Option("--finding-site", help="Name such as lung, or CODE:SCHEME:MEANING.")
    ] = None,
    nodal: Annotated[
        bool, typer.Option("--nodal", help="They are lymph nodes: RECIST measures the short axis.")
    ] = False,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="No dates in tables and pages, and DICOM files by the basic profile.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on although headers name different patients.")] = False,
) -> int:
    """Follow lesions over time: the same one at each visit, what became of it, and the response by RECIST 1.1.

    Writes timeline.html, ledger.csv, ledger.parquet and response.csv, and for each visit what --save names, with the same
    Tracking UID for the same lesion. For research use only.
    """
    from medseg.case import Rules
    from medseg.follow import follow as run
    from medseg.follow import respond
    from medseg.io.clinical.segments import said as spoken
    from medseg.spec import FollowSpec, MeasureSpec, SeparateSpec, parse

    told = {"registration": registration, "change": change, "tolerance": tolerance}
    spec = parse(FollowSpec, told, "options")
    measures = parse(MeasureSpec, {"values": values}, "--values")
    cut = parse(SeparateSpec, {"method": method, "min_volume": min_volume}, "options")
    if model is not None and threshold is not None:
        raise typer.BadParameter("is a rule in place of a model; give one of the two", param_hint="--threshold")
    find = _finder(model, Rules(threshold, cut, values) if threshold else None)
    named = finding(what, site, nodal, None)
    files = Files(kinds(save), named, measures, deidentify)
    when = _dates(dates, len(visits))
    dicom = [kind for kind in files.kinds if kind in ("seg", "rtstruct", "sr")]
    with results_folder(output), warnings.catch_warnings(record=True) as caught, progress() as bar:
        warnings.simplefilter("always", MedsegWarning)
        task = bar.add_task("visits", total=len(visits) + 1, note="")
        read = []
        for number, text in enumerate(visits):
            bar.update(task, note=f"reading {number + 1} of {len(visits)}")
            one = _visit(text, when[number], find, cut if separate else None)
            if dicom and (one.image.source is None or one.image.source.format != "dicom"):
                raise InputError(
                    f"{text}: was not read from DICOM, so there is no {' or '.join(dicom)} of it; leave it out of --save"
                )
            known = table if number == 0 else None
            if named is not None or known is not None:
                said, codes = table_of(known, one.lesions, named)
                one = replace(one, said=said, lesions=spoken(one.lesions, said, codes))
            read.append(one)
            bar.advance(task)
        bar.update(task, note="registering and matching")
        course = run(read, spec, measures, force=force)
        if deidentify:
            course = _bare(course)
        response = respond(course)
        written = _write(course, response, files, output, spec)
        bar.advance(task)
    for visit in course.visits:
        tell(caught, visit.lesions)
        caught = []
    _say(course, response.table, [*course.notes, *response.notes], written)
    return 0


def _finder(model: str | None, rules: Rules | None) -> Any:
    """What finds lesions in an image alone: a rule, a model, or nothing."""
    if rules is not None:
        return rules.apply
    if model is None:
        return None
    from medseg.model import Model
    from medseg.pipeline import segment

    loaded: list[Model] = []

    def found(image: Image) -> Instances:
        loaded[:] = loaded or [Model.load(model)]
        return segment(image, model=loaded[0])

    return found


def _visit(text: str, date: str, find: Any, cut: Any) -> Visit:
    from medseg import io
    from medseg.follow import Visit
    from medseg.io.clinical.visit import visit_of
    from medseg.separate import separate

    whole, image_path, mask_path = Path(text), text, ""
    if not whole.exists() and "=" in text:
        image_path, _, mask_path = text.rpartition("=")
    image = io.load(image_path)
    if mask_path:
        lesions = io.load_labels(mask_path, like=image)
        if cut is not None:
            lesions = separate(lesions, image=image, spec=cut)
        elif len(lesions) == 1 and lesions.table["pieces"].iloc[0] > 1:
            pieces = int(lesions.table["pieces"].iloc[0])
            text = f"{Path(mask_path).name} has one id in {pieces} pieces, followed as one lesion; to part them give --separate"
            warnings.warn(text, MedsegWarning, stacklevel=2)
    elif find is None:
        raise InputError(f"{text}: has no mask; write IMAGE=MASK, or give --model or --threshold")
    else:
        lesions = find(image)
    stated, patient = visit_of(image)
    if date and stated and date != stated:
        warnings.warn("--dates replaces the date of a DICOM header", MedsegWarning, stacklevel=2)
    return Visit(image, lesions, "", date or stated, patient)


def _dates(text: str | None, count: int) -> list[str]:
    if text is None:
        return [""] * count
    dates = [part.strip() for part in text.split(",")]
    from datetime import date

    if len(dates) != count:
        raise typer.BadParameter(f"has {len(dates)} dates for {count} visits", param_hint="--dates")
    for one in dates:
        try:
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", one):
                raise ValueError
            date.fromisoformat(one)
        except ValueError:
            raise typer.BadParameter(f"{one!r} is no date such as 2024-01-31", param_hint="--dates") from None
    return dates


def _bare(course: Course) -> Course:
    """Without dates: days since the baseline stay."""
    visits = tuple(replace(visit, date="") for visit in course.visits)
    return replace(course, visits=visits, ledger=course.ledger.assign(date=""))


def _write(course: Course, response: Any, files: Files, output: Path, spec: Any) -> list[Path]:
    from medseg.follow.page import write_page
    from medseg.io import write
    from medseg.io.clinical.segments import SAID

    written = []
    for number, visit in enumerate(course.visits):
        here = course.ledger[(course.ledger["visit"] == number) & (course.ledger["id"] > 0)]
        roles = here["lesion"].map(response.roles).replace("normal", "")  # that of a node is none
        said = here.assign(role=roles)[["id", *[name for name in SAID if name in here or name == "role"]]]
        written += files.save(visit.lesions, visit.image, output, f"visit{number}", said=said)
    page, ledger, whole, told = (output / name for name in NAMES)
    rows = course.ledger.assign(role=course.ledger["lesion"].map(response.roles))
    rows = rows.assign(
        **{name: rows[name].astype("Int64").where(rows[name] > 0) for name in ("into", "origin", "id", "mask_id")}
    )
    write.rows(rows, ledger)
    write.rows(rows, whole)
    write.rows(response.table.assign(date=[v.date for v in course.visits]), told)
    source = course.visits[0].image.source
    write_page(course, response, page, spec, f"Course {source.key if source else ''}".strip())
    return [*written, ledger, whole, told, page]


def _say(course: Course, response: pd.DataFrame, notes: Sequence[str], written: list[Path]) -> None:
    from medseg.cli.common import say

    for note in notes:
        say(f"medseg: note: {note}")
    for number, visit in enumerate(course.visits):
        here = course.ledger[course.ledger["visit"] == number]
        counts = ", ".join(f"{n} {state}" for state, n in here["state"].value_counts().items()) or "no lesions"
        line = response.iloc[number]
        overall = f"; RECIST {line['overall']}" if line["overall"] else ""
        print(f"{visit.name}: {counts}{overall}")
    print(f"-> {', '.join(p.name for p in written)}")
