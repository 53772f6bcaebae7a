"""``medseg batch``: whole studies, unattended. What happens to each case is in the ledger of the output folder."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli import cases
from medseg.cli.common import Defaulted, progress, results_folder, say, table
from medseg.errors import MissingError, SpecError
from medseg.words import counted

if TYPE_CHECKING:
    from medseg.batch import Case
    from medseg.batch.values import Event
    from medseg.spec import BatchSpec

Folder = Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a batch.")]
Scheduler = Annotated[
    str,
    typer.Option(
        help="Who does the cases: local (or processes, the same), or a dask cluster by address, tcp://HOST:PORT."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON on standard output.")]

app = typer.Typer(cls=Defaulted, help="Work through a whole study, and see what became of it.", rich_markup_mode=None)


@app.command("run")
def run(
    given: Annotated[
        Path, typer.Argument(metavar="INPUT", help="DICOM tree, BIDS or nnU-Net data set, folder of images, or list.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; may hold earlier ones.")],
    pattern: Annotated[str | None, typer.Option(help="How files are named: '{well}_s{site}_w{channel}.tif'.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only cases of which this is true, e.g. modality=CT; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No more cases than this.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cases and stop.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Try again what failed, too; what is done is never done twice.")
    ] = False,
    scheduler: Scheduler = "local",
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
    """Find the instances in every case of a study, with a ledger, one table of all, and a report.

    A call that is repeated goes on where the last one stopped, whatever stopped it. Several calls may share a folder.
    Cases are named by hashes; key.csv, readable by its owner alone, says which is which. For research use only.
    """
    spec = batch_spec(locals())
    kept, left_out = cases_of(given, output, pattern, where or [], spec)
    if left_out:
        say(f"medseg: {_cases(left_out, 'is', 'are')} left out by --where")
    if not kept:
        why = f"--where leaves out all {left_out}" if left_out else "all files under it are results of earlier runs"
        raise MissingError(f"{given}: no case is left; {why}")
    found = kept[:limit]
    if dry_run:
        return _show(found, as_json)
    with results_folder(output):
        return work(found, output, spec, resume, as_json)


@app.command("status")
def status(folder: Folder, as_json: AsJson = False) -> int:
    """Count the cases by state, and list what failed and why."""
    from medseg.batch import Ledger

    with closing(Ledger(folder, new=False)) as ledger:
        states = ledger.counts()
        failed = [{"case": r["name"], "class": r["error_class"], "error": r["error"]} for r in ledger.cases("failed")]
        waiting = Counter(row["error"] for row in ledger.cases("queued") if row["error"])
    if as_json:
        print(json.dumps({"cases": states, "failed": failed, "waiting": waiting}))
        return 0
    table("", ["state", "cases"], [[state, n] for state, n in states.items()])
    for one in failed:
        print(f"{one['case']}: {one['class']}: {one['error']}")
    for reason, count in waiting.items():
        print(f"{count} queued: {reason}")
    return 0


@app.command("retry")
def retry(folder: Folder, scheduler: Scheduler = "local", as_json: AsJson = False) -> int:
    """Do again what failed, and what was left queued, with the options of the last run."""
    from medseg.batch.key import read_key
    from medseg.batch.settings import remembered
    from medseg.spec import BatchSpec, parse

    # a cluster of the last run may be there no more
    spec = parse(BatchSpec, remembered(folder).model_dump() | {"scheduler": scheduler}, "options")
    known = read_key(folder)
    with closing(_ledger(folder)) as ledger:
        names = {row["name"] for row in ledger.cases("failed", "queued", "running")}
    found = [case for name, case in known.items() if name in names]
    if not found:
        say("medseg: nothing failed and nothing is left to do")
        return 0
    return work(found, folder, spec, True, as_json)


@app.command("report")
def report(folder: Folder) -> int:
    """Write the tables and the report of a batch again, also while it runs."""
    with closing(_ledger(folder)) as ledger:
        rows = _summed(ledger)
    print(f"{counted(rows)} -> {folder / 'instances.parquet'}, {folder / 'instances.csv'}, {folder / 'report.html'}")
    return 0


def _ledger(folder: Path) -> Any:
    from medseg.batch import Ledger

    return Ledger(folder, new=False)


def batch_spec(given: dict[str, Any]) -> BatchSpec:
    """Return what the options of a command say, by name, as a spec."""
    from medseg.spec import BatchSpec, parse

    names = ("scheduler", "jobs", "threads", "seconds", "memory")
    limits = {name: given[name] for name in names if name in given}
    return parse(BatchSpec, limits | {"case": cases.case_spec(given)}, "options")


def cases_of(
    given: Path, output: Path, pattern: str | None, where: list[str], spec: BatchSpec
) -> tuple[list[Case], int]:
    """Return the cases asked for, and how many are left out."""
    from medseg.batch import discover
    from medseg.batch.cases import chosen

    if given.is_dir() and output.is_dir() and output.samefile(given):
        raise SpecError(f"--output {output} is also the input; choose another folder, or results become inputs")
    facts = {}
    for text in where:
        name, mark, value = text.partition("=")
        if not mark or not name.strip():
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE such as modality=CT", param_hint="--where")
        facts[name.strip().lower()] = value.strip()
    roles: tuple[str, ...] = ()
    if spec.case.model is not None:
        from medseg.model import find, read_header

        about = read_header(find(spec.case.model)).preprocess
        roles = about.channels if len(about.channels) > 1 else ()
    return chosen((one for one in discover(given, pattern, roles) if not _is_result(one, output)), facts)


def _is_result(case: Case, output: Path) -> bool:
    """Whether a case lies in the output folder, as where that is part of the input: what was found is not looked at again."""
    return any(output.absolute() in file.absolute().parents for file in case.files)


def _show(found: list[Case], as_json: bool) -> int:
    """What ``--dry-run`` prints: no names of files, or the table could not be shown to anybody."""
    rows: list[dict[str, Any]] = [
        {
            "number": number,
            "kind": one.kind,
            "label": one.label,
            "modality": one.facts.get("modality", ""),
            "suffix": one.facts.get("suffix", "") if one.kind in ("file", "bids") else "",
            "inputs": len(one.inputs),
            "roles": [i.role for i in one.inputs if i.role],
            "files": len(one.files),
            "fault": one.fault,
        }
        for number, one in enumerate(found, 1)
    ]
    if as_json:
        print(json.dumps(rows))
        return 0
    told = [
        name for name in rows[0] if any(row[name] for row in rows)
    ]  # a column in which no case says anything is none
    texts = [[",".join(v) if isinstance(v := row[name], list) else v for name in told] for row in rows]
    table(_cases(len(rows)), told, texts)
    return 0


def _cases(number: int, one: str = "", more: str = "") -> str:
    """Return a number of cases in words, and a verb that goes with it."""
    return f"{number} case {one}".rstrip() if number == 1 else f"{number} cases {more}".rstrip()


def work(found: list[Case], folder: Path, spec: BatchSpec, again: bool, as_json: bool) -> int:
    """Do cases, and write what sums up all of the folder; returns the exit code."""
    from medseg.batch import Ledger
    from medseg.batch import run as events

    stopped = ""
    with _terminated(), progress() as bar:
        task = bar.add_task("reading", total=len(found), note="")
        with closing(events(found, folder, spec, again)) as stream:
            for event in stream:
                stopped = _draw(event, bar, task, as_json) or stopped
        bar.update(task, description="summing up", note="")
        with closing(Ledger(folder, new=False)) as ledger:
            states = ledger.counts()
            if not stopped:
                _summed(ledger)
    left = states["queued"] + states["running"]
    line = f"{states['done']} done, {states['failed']} failed, {left} left -> {folder}"
    print(json.dumps({"cases": states, "stopped": stopped})) if as_json else print(line)
    if stopped:
        say(f"medseg: error: {stopped}")
    if stopped or states["failed"]:
        return 3 if states["done"] else 4
    return 0


def _draw(event: Event, bar: Any, task: Any, as_json: bool) -> str:
    """Show one event, and return why all stopped if it says so."""
    from medseg.batch.values import Done, Enrolled, Failed, Known, Noted, Stopped

    if isinstance(event, Known):
        bar.update(task, completed=event.done)
    elif isinstance(event, Enrolled):
        bar.update(task, description="cases", completed=event.states["done"])
        if event.states["done"]:
            say(f"medseg: {_cases(event.states['done'], 'is', 'are')} done already")
        if event.states["failed"]:
            say(f"medseg: {_cases(event.states['failed'])} failed earlier; --resume tries again")
        if event.other:
            say(
                f"medseg: {_cases(event.other, 'was', 'were')} done with other options or another model, and will be again"
            )
        if event.broken:
            gone = "1 result is gone or was" if event.broken == 1 else f"{event.broken} results are gone or were"
            say(f"medseg: {gone} changed, and made again")
    elif isinstance(event, Noted):
        say(f"medseg: {event.text}")
    elif isinstance(event, Done):
        bar.advance(task)
        told = {"case": event.name, "count": event.count, "seconds": event.seconds}
        print(
            json.dumps(told) if as_json else f"{event.name}: {counted(event.count)} in {event.seconds:.1f} s",
            flush=True,
        )
    elif isinstance(event, Failed):
        if event.final:
            bar.advance(task)
            if as_json:
                print(json.dumps({"case": event.name, "error": event.error}), flush=True)
        say(f"medseg: {'error' if event.final else 'note'}: {event.name}: {event.error}")
    elif isinstance(event, Stopped):
        return event.reason
    return ""


def _summed(ledger: Any) -> int:
    """Write tables and report; again if another process finished a case meanwhile, which then sums up last itself."""
    from medseg.batch.report import write_report
    from medseg.batch.tables import write_tables

    rows = 0
    for _ in range(3):
        before = ledger.counts()
        rows = write_tables(ledger)
        write_report(ledger)
        if ledger.counts() == before:
            break
    return rows


@contextmanager
def _terminated() -> Iterator[None]:
    """A cluster that ends a job asks first; what it asks is the same as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
