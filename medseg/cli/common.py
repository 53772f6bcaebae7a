"""What several commands share: parsing of numbers, folders for results, errors in one line, progress, tables."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from medseg import errors
from medseg.errors import MedsegError, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Parse positive numbers such as ``1.75,0.8,0.8``."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 1.75,0.8,0.8", param_hint=option) from None
    if not all(0 < v < math.inf for v in values):
        raise typer.BadParameter(f"{text!r} holds a number that is not positive and finite", param_hint=option)
    return values


def whole_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Parse positive whole numbers such as ``64,192,192``."""
    values = numbers(text, option)
    if values is not None and any(v != int(v) for v in values):
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 64,192,192", param_hint=option)
    return None if values is None else tuple(int(v) for v in values)


class Defaulted(TyperGroup):
    """A group of commands whose first one is meant where none is named: ``medseg batch INPUT`` is ``medseg batch run INPUT``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the first command's name in front of arguments that name none."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


@contextmanager
def results_folder(output: Path) -> Iterator[None]:
    """Make the folder for results before any work is done, and take a new one away again where nothing came of it."""
    new = not output.exists()
    make_folder(output)
    try:
        yield
    finally:
        if new and not any(output.iterdir()):
            output.rmdir()


def make_folder(output: Path) -> None:
    """Make the folder for results, or say before any work is done that nothing can be written there.

    Raises
    ------
    OutputError
        It is a file, or there is no permission.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be made a folder ({error.strerror}); choose another --output") from None
    if not os.access(output, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: nothing may be written into it; choose another --output")


def why(where: str | Path, error: Exception) -> str:
    """Why an input failed, in one line that names it."""
    if isinstance(error, MedsegError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "does not fit into memory; crop it or use a larger machine"
    elif isinstance(error, OSError):
        text = f"cannot be read ({error.strerror or type(error).__name__}); check the path and its permissions"
    else:
        text = fault(error)
    path = Path(where)
    for name in (str(path), path.name):
        if name and text.startswith((f"{name} ", f"{name}:")):
            return f"{path}{text.removeprefix(name)}"
    return f"{path}: {text}"


def fault(error: Exception) -> str:
    """One line about a fault of ours, and how to see more of it."""
    if os.environ.get("MEDSEG_TRACEBACK"):
        traceback.print_exception(error)
    return f"{errors.fault(error)} (MEDSEG_TRACEBACK=1 in the environment shows more)"


def say(line: str) -> None:
    """One line on standard error."""
    print(" ".join(line.splitlines()), file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Whether somebody is watching."""
    return sys.stderr.isatty()


@contextmanager
def progress() -> Iterator[Progress]:
    """A rich progress bar on standard error; silent in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        disable=not is_terminal(),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # or rich would send results that go into a file to the terminal
    ) as bar:
        yield bar


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A plain table on standard output: aligned columns, no colour, as wide as it needs."""
    cells = [columns, *[[str(c) for c in row] for row in rows]]
    width = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    if title:
        print(title)
    for row in cells:
        print("  " + "  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip())
