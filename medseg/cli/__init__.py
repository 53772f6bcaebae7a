"""The command line: one file per command. Results go to standard output, everything else to standard error.

Exit codes: 0 all done, 1 internal fault, 2 usage, 3 some inputs failed, 4 no readable input at all, 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings

import click
import typer

from medseg.cli import bench, demo, evaluate, info, models, segment, split, train
from medseg.errors import MedsegError

app = typer.Typer(
    name="medseg",
    help="Individual lesions and cells from medical and microscope images. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("segment")(segment.segment)
app.command("demo")(demo.demo)
app.command("models")(models.models)
app.command("info")(info.info)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)
app.command("split")(split.split)
app.command("bench")(bench.bench)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code; an error is one line, never a traceback."""
    warnings.simplefilter("ignore")
    try:
        code = app(args=arguments, standalone_mode=False)
    except MedsegError as error:
        print(f"medseg: error: {error}", file=sys.stderr)
        code = 2
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except KeyboardInterrupt:
        print("medseg: interrupted; files already written are whole", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 0
    except Exception as error:  # the last resort: a fault of ours, said in one line
        print(
            f"medseg: internal fault ({type(error).__name__}: {error}); please report it with the command you ran",
            file=sys.stderr,
        )
        code = 1
    sys.exit(code or 0)
