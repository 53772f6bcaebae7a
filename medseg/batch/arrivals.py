"""What arrives in a folder that is watched: a case is complete when none of its files has changed for a while."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from medseg.batch.cases import Case

_Stamp = tuple[tuple[Path, int, int], ...]


class Arrivals:
    """Cases of a folder as they become complete; each is given once, and again when it has changed.

    Parameters
    ----------
    settle : float
        Seconds that a case must not have changed for. No new slice of a series in that time counts as the last one.

    Examples
    --------
    >>> Arrivals(10.0).settled([])
    []
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._since: dict[_Stamp, float] = {}
        self._given: set[_Stamp] = set()

    def settled(self, cases: Iterable[Case]) -> list[Case]:
        """Return those of the cases that are complete and were not given before."""
        now = time.monotonic()
        stamps = [(case, stamp) for case in cases if (stamp := _stamp(case)) is not None]
        self._since = {stamp: self._since.get(stamp, now) for _, stamp in stamps}  # what is gone is forgotten
        self._given &= self._since.keys()
        ready = [
            (case, stamp)
            for case, stamp in stamps
            if stamp not in self._given and now - self._since[stamp] >= self._settle
        ]
        self._given |= {stamp for _, stamp in ready}
        return [case for case, _ in ready]


def _stamp(case: Case) -> _Stamp | None:
    """Files of a case with their sizes and times; None while one is not there."""
    out = []
    for file in case.files:
        try:
            about = file.stat()
        except OSError:
            return None
        out.append((file, about.st_size, about.st_mtime_ns))
    return tuple(out)
