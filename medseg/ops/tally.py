"""Sums over the voxels of each label, in one walk through the array and without copies of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.ops.compiled import compiled


def sizes(labels: NDArray[np.int32], least: int = 0) -> NDArray[np.int64]:
    """Voxels per label up to the highest, or to ``least`` if that is more, index = label; index 0 counts the background."""
    flat = np.ravel(labels)
    return np.asarray(_sizes(flat, int(flat.max(initial=least))))


def totals(labels: NDArray[np.int32], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum of ``values`` over each label, index = label."""
    flat = np.ravel(labels)
    return np.asarray(_totals(flat, np.ravel(values), int(flat.max(initial=0))))


@compiled
def _sizes(labels: Any, last: int) -> Any:
    out = np.zeros(last + 1, np.int64)
    for k in range(len(labels)):
        out[labels[k]] += 1
    return out


@compiled
def _totals(labels: Any, values: Any, last: int) -> Any:
    out = np.zeros(last + 1)
    for k in range(len(labels)):
        out[labels[k]] += values[k]
    return out
