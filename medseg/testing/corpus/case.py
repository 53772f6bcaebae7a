"""A case of the corpus: what to write, and how it has to open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.testing.judge import Route
from medseg.testing.series import Truth

Given = Path | list[Path]
Written = Truth | list[Truth] | tuple[Given, list[Truth]]


@dataclass(frozen=True)
class Case:
    """One awkward series.

    Parameters
    ----------
    name : str
        In a few words.
    routes : tuple of str
        Every way to open it that is right: "plain", "series" (the reader asks which), "regularize" (the reader refuses
        and offers to resample), "refused". A case that may only be refused has no right answer.
    word : str
        Regular expression that the message of a refusal must hold, case ignored: the named reason.
    write : callable
        Takes an empty folder, writes into it, returns the truth; see `written`.
    """

    name: str
    routes: tuple[Route, ...]
    word: str
    write: Callable[[Path], Written]

    @property
    def answerable(self) -> bool:
        """Whether there is a right answer other than no."""
        return self.routes != ("refused",)

    def written(self, folder: Path) -> tuple[Given, list[Truth]]:
        """Write the case; return what to open and the volumes that lie there."""
        result = self.write(folder)
        if isinstance(result, tuple):
            return result
        return folder, result if isinstance(result, list) else [result]


Write = Callable[[Path], Written]


def case(cases: list[Case], name: str, *routes: Route, word: str = "") -> Callable[[Write], Write]:
    """Decorate a function that writes a case, and put it into a list."""

    def add(write: Write) -> Write:
        cases.append(Case(name, routes or ("plain",), word, write))
        return write

    return add
