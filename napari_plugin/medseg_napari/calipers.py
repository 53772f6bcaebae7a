"""The long and short axis of a lesion as two lines that a person may move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.grid import Grid
from medseg_napari.journal import Row

AXES = ("long_axis", "short_axis")
Line = tuple[tuple[float, ...], ...]


def lines(values: Mapping[str, Any], row: Row, grid: Grid) -> dict[str, Line]:
    """End points of both axes as voxel indices: where a person put them, else as measured.

    Parameters
    ----------
    values
        Of the instance, from `measuring.measured`.
    row, grid
        Of the instance; of the labels.
    """
    out: dict[str, Line] = {}
    for axis in AXES:
        if moved := getattr(row, axis):
            out[axis] = moved
            continue
        ends = [[values.get(name) for name in _names(axis, end, grid)] for end in "ab"]
        if any(v is None or not np.isfinite(v) for end in ends for v in end):
            continue
        points = np.array(ends, dtype=float)
        found = grid.to_index(points)
        out[axis] = tuple(tuple(float(v) for v in point) for point in found)
    return out


def corrected(row: Row, grid: Grid) -> dict[str, Any]:
    """Columns of the table that follow from axes that a person moved; empty where none was."""
    out: dict[str, Any] = {}
    for axis in AXES:
        ends: Sequence[Sequence[float]] = getattr(row, axis)
        if not ends:
            continue
        points = np.array(ends, dtype=float)
        world = grid.to_world(points)
        for end, point in zip("ab", world, strict=True):
            out |= dict(zip(_names(axis, end, grid), point.tolist(), strict=True))
        out[f"{axis}_{'mm' if grid.known else 'px'}"] = float(np.linalg.norm(world[1] - world[0]))
    return out


def _names(axis: str, end: str, grid: Grid) -> list[str]:
    unit = "mm" if grid.known else "px"
    return [f"{axis}_{end}_{x}_{unit}" for x in "xyz"[: grid.ndim]]
