"""``medseg watch``: a folder into which cases come; each is done when it is complete."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli import cases
from medseg.cli.batch import AsJson, batch_spec, cases_of, work
from medseg.cli.common import results_folder, say
from medseg.errors import FormatError, InputError, MissingError


def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder into which cases come.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; may hold earlier ones.")],
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds without a change after which a case is complete.")
    ] = 10.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 5.0,
    idle: Annotated[float | None, typer.Option(min=0, help="End after so many seconds without a new case.")] = None,
    pattern: Annotated[str | None, typer.Option(help="How files are named: '{well}_s{site}_w{channel}.tif'.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only cases of which this is true, e.g. modality=CT; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each worker.")] = 1,
    seconds: Annotated[float, typer.Option(min=0, help="Longest time for one case.")] = 3600.0,
    memory: Annotated[float, typer.Option(min=0, help="GiB that a worker may hold.")] = 8.0,
    model: cases.Model = None,
    device: cases.Device = "auto",
    spacing: cases.Spacing = None,
    unit: cases.Unit = "mm",
    channels: cases.Channels = None,
    channel_axis: cases.ChannelAxis = None,
    regularize: cases.Regularize = False,
    min_score: cases.MinScore = None,
    diameter: cases.Diameter = None,
    tile: cases.Tile = None,
    threshold: cases.Threshold = None,
    method: cases.Method = "shape",
    min_volume: cases.MinVolume = 0.0,
    values: cases.Values = "auto",
    save: cases.Save = "labels,csv,overlay",
    what: cases.What = None,
    site: cases.Site = None,
    nodal: cases.Nodal = False,
    role: cases.Role = None,
    deidentify: cases.Deidentify = False,
    force: cases.Force = False,
    as_json: AsJson = False,
) -> int:
    """Do cases as they arrive in a folder, as medseg batch does, until Ctrl-C.

    A case is done when none of its files has changed for --settle seconds, and again when more slices of a series come later.
    For research use only.
    """
    from medseg.batch.arrivals import Arrivals
    from medseg.batch.layouts import fields_of

    spec = batch_spec(locals())
    if not folder.is_dir():
        raise MissingError(f"{folder}: is no folder; name the folder into which cases come")
    if pattern is not None:
        fields_of(pattern)  # what can never fit is told now
    arrivals, code, quiet, told = Arrivals(settle), 0, time.monotonic(), ""
    with results_folder(output):
        while idle is None or time.monotonic() - quiet < idle:
            try:
                found, _ = cases_of(folder, output, pattern, where or [], spec)
            except (
                MissingError,
                FormatError,
                InputError,
            ) as error:  # nothing there yet, nothing of the kind, or a file went while it was looked at
                found = []
                if not isinstance(error, MissingError) and str(error) != told:
                    told = str(error)
                    say(f"medseg: note: {told}")
            if ready := arrivals.settled(found):
                code = work(ready, output, spec, False, as_json)
                quiet = time.monotonic()
            time.sleep(every)
    return code
