"""Who does the cases, as the supervisor sees it: slots that are handed cases and say what came of them.

A crew is the processes of this machine (`workers`) or a cluster (`cluster`). The supervisor is the same for both, and the
only one that touches the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from medseg.batch.cases import Named
from medseg.batch.steps import Task
from medseg.batch.values import Claim

Message = tuple[str, str, Any]  # "begin", "end", "done", "failed", "lost" or "broken"; token of the case; more


@dataclass
class Held:
    """A case that a worker has: since when it is in a step, and how long it was in those before."""

    claim: Claim
    case: Named
    task: Task
    since: float | None = None
    spent: float = 0.0

    def seconds(self) -> float:
        """Time spent on it, waiting for its turn left out."""
        return self.spent + (time.monotonic() - self.since if self.since is not None else 0.0)

    def heard(self, what: str) -> None:
        """Note the begin or the end of a step."""
        if what == "begin":
            self.since = time.monotonic()
        else:
            self.spent, self.since = self.seconds(), None


class Slot(Protocol):
    """What does cases one after the other, and dies with them."""

    held: dict[str, Held]

    def hand(self, one: Held) -> None:
        """Hand it a case, without waiting for it."""

    def hear(self) -> Message:
        """Return what it says; raises EOFError or OSError if it is gone, and with it the cases it had."""

    def gibibytes(self) -> float:
        """Memory it holds; 0 where that cannot be told or others watch it."""

    def dismiss(self) -> None:
        """Let it end by itself; it has no case."""

    def kill(self, stuck: bool = False) -> None:
        """End it now; `stuck` if it would not end by itself."""


S = TypeVar("S", bound=Slot)


class Crew(Protocol[S]):
    """All slots of a batch."""

    ahead: int

    def gone(self) -> str:
        """Why no case can be done any more; "" while they can."""

    def news(self) -> list[str]:
        """What a person should know of it, each once."""

    def size(self) -> int:
        """How many slots there may be now."""

    def slot(self) -> S:
        """Return a new one."""

    def wait(self, slots: Sequence[S], seconds: float) -> list[S]:
        """Return those that have something to say, after so many seconds at the latest."""

    def close(self) -> None:
        """Let go of all that is not a slot."""
