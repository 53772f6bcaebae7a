"""Irregular stacks of slices, put on a regular upright grid at their true positions: gantry tilt, gaps, duplicates.

Between two slices voxels are interpolated linearly at their true distance; a slice that lies where the grid wants one
keeps its values. Nothing is averaged away and nothing is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError
from medseg.grid import Grid
from medseg.io.dicom.stack import JITTER, JITTER_MM, Slice, off_notes, repeat_gap, typical, usual_gap

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

LIMIT = 50  # a gap of more than so many usual ones is not a gap but another place
FINER = 4  # how many times as many slices may be made so that none is lost


@dataclass(frozen=True, eq=False)
class Plan:
    """How to make a regular volume of irregular slices.

    Parameters
    ----------
    order : list of int
        Slices used, along the normal.
    grid : Grid
        (slices, rows, columns) of the result, upright.
    between : array (slices, 2), int
        For each slice of the result the two of `order` it lies between (twice the same: it is that one).
    weight : array (slices,)
        Share of the second.
    shift : array (len(order), 2)
        Where each used slice begins in the result, (row, column) in pixels; zeros if none has to be moved.
    notes : list of str
        What was done.
    lost : str
        Which slices the result holds nothing of; empty if none.
    """

    order: list[int]
    grid: Grid
    between: npt.NDArray[np.int64]
    weight: FloatArray
    shift: FloatArray
    notes: list[str]
    lost: str = ""

    def apply(self, volume: AnyArray) -> AnyArray:
        """Resample used slices (channels, len(order), rows, columns) to (channels, *grid.shape), of the same type.

        Pixels that no slice covers take the lowest value.
        """
        shape = self.grid.shape
        out = np.empty((len(volume), *shape), volume.dtype)
        lowest = volume.min()
        last: dict[int, tuple[AnyArray, npt.NDArray[np.bool_]]] = {}
        for k, (i, j) in enumerate(self.between.tolist()):
            last = {n: last[n] if n in last else _moved(volume[:, n], self.shift[n], shape[1:]) for n in {i, j}}
            values, inside = last[i]
            if i != j:
                values = values * (1 - self.weight[k]) + last[j][0] * self.weight[k]
                inside = inside & last[j][1]
            if volume.dtype.kind != "f":
                values = np.rint(values)
            out[:, k] = np.where(inside, values, lowest)
        return out


def plan(slices: Sequence[Slice], same: Callable[[int, int], bool]) -> Plan:
    """Find the regular upright grid of an irregular stack, and how its voxels are made.

    Parameters
    ----------
    slices : sequence of Slice
        In any order; of equal positions the first given is used.
    same : callable
        Whether two slices, by index, hold the same values.

    Raises
    ------
    GeometryError
        Orientations or spacings differ, slices at one position hold different values, fewer than two positions are
        left, or a gap is so wide that there is no one stack.
    """
    first, wobble = typical(slices)
    positions = np.array([one.position for one in slices], dtype=np.float64)
    order, doubles = _without_doubles(positions, first.normal, same)
    positions = positions[order]
    along = positions @ first.normal
    gaps = np.diff(along)
    if len(order) < 2:
        raise GeometryError("All slices lie at one position, so there is no stack to resample.")
    if gaps.max() > LIMIT * usual_gap(gaps):
        raise GeometryError(f"A gap of {gaps.max():.4g} mm is too wide to be filled; load the parts one by one.")
    notes = [f"{doubles} duplicate slices with the same pixels were left out"] if doubles else []
    count, step, between, weight = _spread(along)
    lost = _lost(between, [slices[i] for i in order])
    shift, extra, start = _shifts(positions, first, step)
    made = int((between[:, 0] != between[:, 1]).sum())
    if made:
        notes.append(f"{made} of {count} slices were interpolated linearly between their true neighbours")
    if shift.any():
        notes.append(
            "a sheared stack (gantry tilt) was resampled onto an upright grid; pixels outside hold the lowest value"
        )
    if len(order) - (count - made):
        notes.append(f"{len(order)} slices at {gaps.min():.4g} to {gaps.max():.4g} mm became {count} at {step:.4g} mm")
    shape = (count, first.rows + extra[0], first.columns + extra[1])
    end = start + (count - 1) * step * first.normal
    grid = Grid.from_dicom(
        shape, first.orientation, start.tolist(), end.tolist(), pixel_spacing=first.spacing, frame=first.frame
    )
    told = [
        "resampled on request: " + "; ".join(notes or ["nothing"]),
        *off_notes(0.0, wobble),
        *([lost] if lost else []),
    ]
    return Plan(order, grid, between, weight, shift, told, lost)


def _spread(along: FloatArray) -> tuple[int, float, npt.NDArray[np.int64], FloatArray]:
    """How many slices the result has, how far apart, and what they lie between; the usual gap unless that loses slices."""
    gaps = np.diff(along)
    extent = float(along[-1] - along[0])
    out: list[tuple[int, float, npt.NDArray[np.int64], FloatArray]] = []
    for gap in (usual_gap(gaps), float(gaps.min())):
        count = round(extent / gap) + 1
        if out and count > FINER * len(along):
            break
        step = extent / (count - 1)
        between, weight = _between(along, along[0] + np.arange(count) * step, max(JITTER_MM, JITTER * step))
        out.append((count, step, between, weight))
        if len(np.unique(between)) == len(along):
            break
    return out[-1]


def _lost(between: npt.NDArray[np.int64], ordered: Sequence[Slice]) -> str:
    """Name the slices that no slice of the result is made of."""
    gone = sorted({*range(len(ordered))} - {*between.ravel().tolist()})
    if not gone:
        return ""
    shown = ", ".join(f"{i + 1} (InstanceNumber {ordered[i].number})" for i in gone[:8])
    more = f" and {len(gone) - 8} more" if len(gone) > 8 else ""
    return f"{len(gone)} of {len(ordered)} slices lie too close to others and left nothing in the result: {shown}{more}"


def _without_doubles(
    positions: FloatArray, normal: FloatArray, same: Callable[[int, int], bool]
) -> tuple[list[int], int]:
    """Indices in order along the normal, each position once, and how many were left out."""
    order = np.argsort(positions @ normal, kind="stable").tolist()
    along = (positions @ normal)[order]
    near = repeat_gap(np.diff(along)) if len(order) > 1 else 0.0
    kept: list[int] = []
    for place, i in zip(along, order, strict=True):
        if kept and place - positions[kept[-1]] @ normal < near:
            if np.linalg.norm(positions[i] - positions[kept[-1]]) > max(near, 1e-3) or not same(kept[-1], i):
                raise GeometryError(
                    f"Slices {len(kept)} and {len(kept) + 1} along the normal lie at one position but hold different "
                    "pixels: several times or contrasts in one series. Split it; which one is meant cannot be known."
                )
            continue
        kept.append(i)
    return kept, len(order) - len(kept)


def _between(along: FloatArray, wanted: FloatArray, tolerance: float) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """For each wanted distance the slices on both sides (n, 2) and the share of the second (n,)."""
    high = np.clip(np.searchsorted(along, wanted), 1, len(along) - 1)
    weight = np.clip((wanted - along[high - 1]) / (along[high] - along[high - 1]), 0, 1)
    between = np.stack([high - 1, high], axis=1)
    for column, other in ((0, 1), (1, 0)):
        at = np.abs(along[between[:, column]] - wanted) <= tolerance
        between[at, other] = between[at, column]
    weight[between[:, 0] == between[:, 1]] = 0
    return between, weight


def _shifts(positions: FloatArray, first: Slice, step: float) -> tuple[FloatArray, tuple[int, int], FloatArray]:
    """How far each slice lies down and along from the upright grid, by how much that is larger, and its first position."""
    row, column = np.array(first.orientation).reshape(2, 3)
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    aside = positions - positions[0]
    shift = np.stack([aside @ column / first.spacing[0], aside @ row / first.spacing[1]], axis=1)
    for axis in (0, 1):
        if np.ptp(shift[:, axis]) * first.spacing[axis] <= max(JITTER_MM, JITTER * step):
            shift[:, axis] = 0
    low = np.floor(shift.min(axis=0) + 1e-6)
    extra = np.ceil(shift.max(axis=0) - 1e-6) - low
    start = positions[0] + low[0] * first.spacing[0] * column + low[1] * first.spacing[1] * row
    return shift - low, (int(extra[0]), int(extra[1])), start


def _moved(pixels: AnyArray, shift: FloatArray, shape: tuple[int, ...]) -> tuple[AnyArray, npt.NDArray[np.bool_]]:
    """Move a slice (channels, rows, columns) by a fraction of pixels; also say which pixels (rows, columns) it covers."""
    if shape == pixels.shape[1:] and not shift.any():
        return pixels, np.ones(shape, bool)
    inside = np.ones(shape, bool)
    for axis in (0, 1):
        size = pixels.shape[axis + 1]
        source = np.arange(shape[axis]) - shift[axis]
        source = np.where(np.abs(source - np.rint(source)) < 1e-4, np.rint(source), source)
        low = np.clip(np.floor(source).astype(int), 0, size - 1)
        high = np.clip(low + 1, 0, size - 1)
        share = (source - low).reshape((-1, 1) if axis == 0 else (1, -1))
        inside &= ((source >= 0) & (source <= size - 1)).reshape(share.shape)
        pixels = np.take(pixels, low, axis + 1) * (1 - share) + np.take(pixels, high, axis + 1) * share
    return pixels, inside
