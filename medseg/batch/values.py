"""What the parts of a batch hand each other: claims, results, and the events of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Claim:
    """A case that a worker has."""

    id: int
    name: str
    input: str
    strikes: int
    token: str


@dataclass(frozen=True)
class Output:
    """A file of a result: its path below the output folder, SHA-256, bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Result:
    """What came of a case, its files aside."""

    outputs: tuple[Output, ...]
    seconds: float
    count: int
    facts: dict[str, Any] = field(default_factory=dict)
    thumb: bytes = b""


@dataclass(frozen=True)
class Known:
    """An input is hashed; ``done`` of ``total``."""

    done: int
    total: int


@dataclass(frozen=True)
class Enrolled:
    """The ledger knows all cases: their states before work begins, and of how many results were broken, and of other options."""

    states: dict[str, int]
    broken: int
    other: int = 0


@dataclass(frozen=True)
class Noted:
    """Something to know of who does the cases, such as where the page of a cluster is."""

    text: str


@dataclass(frozen=True)
class Done:
    """A case is done: its files have their names and the ledger has their checksums."""

    name: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A case failed, for good or until it is tried again."""

    name: str
    error: str
    final: bool


@dataclass(frozen=True)
class Stopped:
    """No case can be done any more, such as with a full disk; those that were not done are queued."""

    reason: str


Event = Known | Enrolled | Noted | Done | Failed | Stopped
