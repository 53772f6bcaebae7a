"""The geometry corpus: series as scanners, archives and exports really write them, each with its truth.

>>> from medseg.testing.corpus import CASES
>>> len(CASES) >= 60
True
"""

from medseg.testing.corpus import folders, frames, places, stacks, values
from medseg.testing.corpus.case import Case

CASES: tuple[Case, ...] = (*places.CASES, *stacks.CASES, *folders.CASES, *values.CASES, *frames.CASES)

__all__ = ["CASES", "Case"]
