"""``medseg measure``: labels to a table of measurements."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.common import say
from medseg.cli.files import IMAGE, VALUES, both, finding, table_of, tell
from medseg.errors import MedsegWarning


def measure(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Labels, a number for each object; or SEG or RTSTRUCT.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .csv or .parquet.")],
    image: Annotated[Path | None, typer.Option(help=IMAGE)] = None,
    series: Annotated[str | None, typer.Option(help="Which series of a DICOM folder; see: medseg series.")] = None,
    kind: Annotated[str, typer.Option(help="lesion, cell, or auto: cells in microscope images.")] = "auto",
    slices: Annotated[str, typer.Option(help="Slice of the axes: longest (RECIST) or largest area.")] = "longest",
    plane: Annotated[str, typer.Option(help="Plane of the axes: auto, axial, coronal or sagittal.")] = "auto",
    values: Annotated[str, typer.Option(help=VALUES)] = "auto",
    texture: Annotated[
        bool, typer.Option("--texture", help="Texture too, by pyradiomics: pip install 'medseg[texture]'.")
    ] = False,
    unit: Annotated[str, typer.Option(help="Unit of lengths: mm or um.")] = "mm",
    site: Annotated[
        str | None, typer.Option("--finding-site", help="Name such as lung, or CODE:SCHEME:MEANING.")
    ] = None,
    nodal: Annotated[
        bool, typer.Option("--nodal", help="They are lymph nodes: RECIST measures the short axis.")
    ] = False,
    role: Annotated[str | None, typer.Option(help="Role by RECIST: target, non-target or new.")] = None,
    said: Annotated[
        Path | None,
        typer.Option("--table", help="What is known of single objects: .csv with id, finding_site, nodal, role."),
    ] = None,
) -> int:
    """Measure each labelled object: volume, RECIST axes, HU, SUV; or the shape of cells.

    For research use only.
    """
    from medseg.export.files import corrected, known_of
    from medseg.io import write
    from medseg.measure import burden, in_unit
    from medseg.measure import measure as measured
    from medseg.spec import MeasureSpec, parse

    options = {"kind": kind, "slices": slices, "plane": plane, "values": values, "texture": texture}
    spec = parse(MeasureSpec, options, "options")
    if unit not in ("mm", "um"):
        raise typer.BadParameter(f"{unit!r} is neither mm nor um", param_hint="--unit")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        drawn, picture = both(labels, image, series)
        named = finding(None, site, nodal, role)
        table = measured(drawn, picture if image else None, spec)
        notes = table.attrs["notes"]
        known = None if said is None else table_of(said, drawn, named)[0]
        table = corrected(table, known_of(drawn, named, known))
        write.rows(in_unit(table, "um") if unit == "um" else table, output)
    tell(caught, drawn)
    for note in notes:
        say(f"medseg: note: {note}")
    told_of = ", ".join(f"{name} {value:.6g}" for name, value in burden(table).items())
    print(f"{output.name}: {told_of}")
    return 0
