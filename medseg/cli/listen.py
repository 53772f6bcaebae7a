"""``medseg listen``: series come by DICOM from scanners and archives, are done as cases of a batch, and results go back."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli import cases
from medseg.cli.batch import AsJson, batch_spec, work
from medseg.cli.common import results_folder, say
from medseg.errors import MedsegError, SpecError

if TYPE_CHECKING:
    from medseg.batch import Case

_DICOM = ("seg", "rtstruct", "sr")
_REST = 0.2  # seconds between looks


def listen(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the results; may hold earlier ones.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 11112,
    aet: Annotated[str, typer.Option(help="Our application entity title.")] = "MEDSEG",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of this machine.")] = "127.0.0.1",
    send_to: Annotated[str | None, typer.Option(help="Send SEG, RTSTRUCT and SR there: AET@HOST:PORT.")] = None,
    tries: Annotated[int, typer.Option(min=1, help="Times that sending is tried.")] = 5,
    settle: Annotated[float, typer.Option(min=0, help="Seconds without news after which a series is complete.")] = 10.0,
    idle: Annotated[float | None, typer.Option(min=0, help="End after so many seconds without a new series.")] = None,
    spool: Annotated[Path | None, typer.Option(help="Folder for what is received; OUT/.spool if not given.")] = None,
    keep: Annotated[float, typer.Option(min=0, help="Hours that a received series is kept after it came.")] = 24.0,
    max_object: Annotated[float, typer.Option(min=0.001, help="Largest object, in MB.")] = 512.0,
    max_spool: Annotated[float, typer.Option(min=0.001, help="GB that may wait; more is refused.")] = 20.0,
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
    """Receive CT, MR and PET series by DICOM and do each as medseg batch does, until Ctrl-C.

    A series is complete when its association is released and nothing more came for --settle seconds. For research use only.
    """
    from medseg.batch import Ledger
    from medseg.batch.outbox import Outbox
    from medseg.batch.pacs import Listener, peer, title
    from medseg.batch.spool import Spool

    spec = batch_spec(locals())
    to = peer(send_to) if send_to else None
    if to and not set(spec.case.save) & set(_DICOM):
        raise SpecError(f"--send-to has nothing to send; ask for one of {', '.join(_DICOM)} in --save")
    title(aet, "--aet")
    place = spool or output / ".spool"
    with results_folder(output):
        with closing(Ledger(output)) as ledger:
            secret = bytes.fromhex(ledger.get("secret"))
        waiting = Spool(place, secret, int(max_object * 1e6), int(max_spool * 1e9))
        outbox = Outbox(output, place, to, aet, tries) if to else None
        with closing(Listener(waiting, aet, host, port)) as ear:
            say(f"medseg: {aet} listens on {host}:{ear.port}")
            code, quiet = 0, time.monotonic()
            while idle is None or time.monotonic() - quiet < idle:
                if ready := _cases(waiting.settled(settle)):
                    code = work(ready, output, spec, False, as_json)
                    quiet = time.monotonic()
                for line in outbox.deliver() if outbox else ():
                    say(f"medseg: {line}")
                for line in ear.news():
                    say(f"medseg: note: {line}")
                waiting.forget(keep * 3600)
                time.sleep(_REST)
    return code


def _cases(folders: list[Path]) -> list[Case]:
    """Cases of series that are complete; of one that cannot be read at all, a case that says so."""
    from medseg.batch import discover

    found: list[Case] = []
    for folder in folders:
        try:
            found += discover(folder)
        except MedsegError:
            say("medseg: error: a series that was received holds no image")
    return found
