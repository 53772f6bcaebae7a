"""The command line: one file per command. Results go to standard output, everything else to standard error.

Exit codes: 0 all done, 1 internal fault, 2 usage, 3 some inputs failed, 4 no readable input or no writable output at
all, 130 interrupted (by Ctrl-C, or because whoever read standard output has left).
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer

import medseg
from medseg.cli import (
    batch,
    bench,
    combine,
    convert,
    demo,
    evaluate,
    follow,
    info,
    listen,
    measure,
    models,
    segment,
    separate,
    series,
    split,
    train,
    view,
    watch,
)
from medseg.cli.common import fault, say, why
from medseg.errors import InputError, MedsegError, OutputError

app = typer.Typer(
    name="medseg",
    help="Individual lesions and cells from medical and microscope images. For research use only.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("segment")(segment.segment)
app.add_typer(batch.app, name="batch")
app.command("watch")(watch.watch)
app.command("listen")(listen.listen)
app.command("separate")(separate.separate)
app.command("measure")(measure.measure)
app.command("follow")(follow.follow)
app.command("demo")(demo.demo)
app.add_typer(models.app, name="models")
app.command("info")(info.info)
app.command("series")(series.series)
app.command("convert")(convert.convert)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)
app.command("combine")(combine.combine)
app.command("split")(split.split)
app.command("view")(view.view)
app.command("bench")(bench.bench)

# The root of what typer raises for wrong usage: older versions take it from click, newer ones carry a copy of click's.
_UsageError: Any = typer.BadParameter.mro()[1]


def _version(asked: bool) -> None:
    if asked:
        print(f"medseg {medseg.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before the command."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code; an error is one line, never a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    warnings.simplefilter("ignore")
    try:
        code = app(args=given or ["--help"], prog_name="medseg", standalone_mode=False)
    except MedsegError as error:
        say(f"medseg: error: {error}")
        code = 4 if isinstance(error, (InputError, OutputError)) else 2
    except _UsageError as error:
        say(f"medseg: error: {_usage(error)}")
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except (BrokenPipeError, SystemExit):  # typer makes the second of the first
        sys.exit(_flushed(130))
    except Exception as error:  # the last resort: what the system refuses, or a fault of ours
        refused = error.filename if isinstance(error, OSError) else None
        say(f"medseg: error: {why(refused, error) if refused else fault(error)}")
        code = 4 if refused else 1
    if code == 130:  # also what typer makes of Ctrl-C
        say("medseg: interrupted; files already written are whole")
    sys.exit(_flushed(code or (0 if given else 2)))


def _usage(error: Any) -> str:
    """What is wrong with the command and where to read on, in one line."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{text.rstrip('.')}; see: {context.command_path} --help" if context else text


def _flushed(code: int) -> int:
    """Write out what standard output still holds; 130 if nobody is there to read it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        return 130
    return code
