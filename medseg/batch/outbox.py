"""Which results of a listener are still to be sent, and when they are tried again. What was sent is in the ledger."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from medseg.batch.key import read_key
from medseg.batch.ledger import Ledger
from medseg.batch.pacs import Peer, send

_FIRST, _LONGEST = 2.0, 300.0  # seconds until the next try; doubled each time


class Outbox:
    """Results of what came through a spool, on their way back.

    Parameters
    ----------
    folder, spool : Path
        Output folder; where its inputs came from.
    to : Peer
        Who gets them.
    aet : str
        Our own title.
    tries : int
        After how many a result waits for the next start.
    """

    def __init__(self, folder: Path, spool: Path, to: Peer, aet: str, tries: int) -> None:
        self._folder, self._spool = folder, spool.absolute()
        self._to, self._aet, self._tries = to, aet, tries
        self._failed: dict[str, tuple[int, float]] = {}  # tries, and when the next one is

    def deliver(self) -> Iterator[str]:
        """Send what is due; yields a line on each case."""
        with closing(Ledger(self._folder, new=False)) as ledger:
            for name, mark, files in self._due(ledger):
                tried, when = self._failed.get(mark, (0, 0.0))
                if tried >= self._tries or time.monotonic() < when:
                    continue
                fault = send(files, self._to, self._aet)
                if not fault:
                    ledger.put(f"sent {name}", mark)
                    yield f"{name}: {len(files)} objects sent"
                    continue
                tried += 1
                self._failed[mark] = tried, time.monotonic() + min(_LONGEST, _FIRST * 2.0**tried)
                more = "it is tried again" if tried < self._tries else "it waits for the next start"
                yield f"{name}: cannot be sent: {fault}; {more}"

    def _due(self, ledger: Ledger) -> Iterator[tuple[str, str, list[Path]]]:
        known = read_key(self._folder)
        for row in ledger.cases("done"):
            case = known.get(row["name"])
            if case is None or not case.files or self._spool not in case.files[0].parents:
                continue
            found = [one for one in ledger.outputs(row["id"]) if one.path.endswith(".dcm")]
            mark = hashlib.sha256(" ".join(one.sha256 for one in found).encode()).hexdigest()
            if found and ledger.get(f"sent {row['name']}") != mark:
                yield row["name"], mark, [self._folder / one.path for one in found]
