"""What a bench tells: a line for each thing that was timed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A median time and its ratio to the first row of its bench; peak memory over the data's own size where it was measured."""

    name: str
    seconds: float
    ratio: float
    peak: float | None = None


def rows(times: dict[str, list[float]], peaks: dict[str, float] | None = None) -> list[Row]:
    """Medians, and their ratios to the first."""
    median = {name: statistics.median(t) for name, t in times.items()}
    first = next(iter(median.values()))
    return [Row(name, seconds, seconds / first, (peaks or {}).get(name)) for name, seconds in median.items()]
