"""What several commands share: parsing of numbers, progress on a terminal, the table of instances."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def numbers(text: str | None, what: str) -> tuple[float, ...] | None:
    """Parse ``1.75,0.8,0.8``."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise typer.BadParameter(f"{what}: {text!r} is no list of numbers such as 1.75,0.8,0.8") from None


def whole_numbers(text: str | None, what: str) -> tuple[int, ...] | None:
    """Parse ``64,192,192``."""
    values = numbers(text, what)
    if values is not None and any(v != int(v) for v in values):
        raise typer.BadParameter(f"{what}: {text!r} are no whole numbers")
    return None if values is None else tuple(int(v) for v in values)


def say(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Is somebody watching?"""
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
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=not is_terminal(),
        transient=True,
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
