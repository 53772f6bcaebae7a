"""Objects by size: lesions by equivalent diameter in mm, cells by quartile of the true areas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.contingency import Overlap, Side

Floats = NDArray[np.float64]

LESION_MM = (3.0, 10.0)


@dataclass(frozen=True)
class Strata:
    """Size classes of all cases of a summary.

    Attributes
    ----------
    names : tuple of str
        One for each class, small to large, with the unit.
    edges : tuple of float
        Inner limits, in the unit.
    unit : str
        "mm" (equivalent diameter), "mm2", "mm3", "px" or "voxels". The names may tell um2 or um3 instead.
    """

    names: tuple[str, ...]
    edges: tuple[float, ...]
    unit: str

    def of(self, side: Side, table: Overlap) -> NDArray[np.intp]:
        """Number of each object's class, from 0; by the voxels that count."""
        sizes = physical(side, table) if self.metric else side.sizes.astype(np.float64)
        out = np.zeros(len(side), np.intp)
        for number in range(len(self.names)):
            low, high = self.range_of(number)
            out[(sizes >= low) & (sizes <= high)] = number
        return out

    @property
    def metric(self) -> bool:
        """Whether sizes are in mm2 or mm3; else they are in voxels."""
        return self.unit.startswith("mm")

    def range_of(self, number: int) -> tuple[float, float]:
        """Least and largest size of a class, both included: mm2 or mm3 if `metric`, else voxels."""
        lesions = self.unit == "mm"
        inner = [math.pi / 6 * e**3 for e in self.edges] if lesions else list(self.edges)
        lows, highs = [-math.inf, *inner], [*inner, math.inf]
        if lesions:  # 3 mm and 10 mm both belong to the middle
            highs[0] = math.nextafter(highs[0], -math.inf)
            lows[2] = math.nextafter(lows[2], math.inf)
        else:
            lows[1:] = [math.nextafter(low, math.inf) for low in lows[1:]]
        return lows[number], highs[number]


def physical(side: Side, table: Overlap) -> Floats:
    """Areas in mm2 or volumes in mm3; in voxels where the spacing is unknown."""
    step = 1.0 if table.spacing is None else float(np.prod(table.spacing))
    return side.sizes.astype(np.float64) * step


def strata(tables: Sequence[Overlap], length: str = "mm") -> Strata:
    """Size classes for a set of cases.

    Lesions (every case 3-D and of known spacing, told in mm): equivalent diameter under 3 mm, 3 to 10, over 10. Else
    quartiles of the size of all true objects, in mm2 or mm3 (told in um2 or um3 if `length` is "um") where every spacing is
    known, else in pixels.
    """
    flat = any(len(t.shape) == 2 for t in tables)
    known = all(t.spacing is not None for t in tables)
    if known and not flat and length == "mm":
        return Strata(("< 3 mm", "3 to 10 mm", "> 10 mm"), LESION_MM, "mm")
    unit = ("mm2" if flat else "mm3") if known else ("px" if flat else "voxels")
    sizes = [physical(t.truth, t) if known else t.truth.sizes.astype(np.float64) for t in tables]
    every = np.concatenate([s[~t.truth.ignored] for s, t in zip(sizes, tables, strict=True)] or [np.zeros(0)])
    if not len(every):
        return Strata(("any size",), (), unit)
    edges = tuple(np.unique(np.quantile(every, [0.25, 0.5, 0.75])).tolist())
    scale = 1000.0 ** (2 if flat else 3) if known and length == "um" else 1.0
    a, b, c = _told([edge * scale for edge in edges]), unit.replace("mm", length), len(edges)
    names = (f"up to {a[0]} {b}", *(f"{a[n]} to {a[n + 1]} {b}" for n in range(c - 1)), f"over {a[-1]} {b}")
    return Strata(names, edges, unit)


def _told(edges: Sequence[float]) -> list[str]:
    return [f"{edge:.4g}" for edge in edges]
