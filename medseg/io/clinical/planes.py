"""From the planes of frames, some of which may be missing, to one regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError
from medseg.grid import Grid
from medseg.io.dicom.stack import JITTER, JITTER_MM, SAME

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Where one frame lies (LPS mm): size, first pixel, cosines along a row and down a column, spacing."""

    number: int
    size: tuple[int, int]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    between: float | None  # SpacingBetweenSlices
    thickness: float | None

    @classmethod
    def of(
        cls, number: int, size: tuple[int, int], position: Any, orientation: Any, spacing: Any, between: Any, thick: Any
    ) -> Plane:
        """Make one of header values, which may be missing or malformed.

        Raises
        ------
        GeometryError
            Position, orientation or spacing is.
        """
        parts: list[tuple[float, ...]] = []
        for name, value, count in (
            ("ImagePositionPatient", position, 3), ("ImageOrientationPatient", orientation, 6),
            ("PixelSpacing", spacing, 2),
        ):  # fmt: skip
            numbers = _numbers(value)
            if len(numbers) != count:
                state = "a malformed" if value else "no"
                raise GeometryError(f"Frame {number} has {state} {name}, so its place in space is unknown.")
            parts.append(numbers)
        if min(parts[2]) <= 0:
            raise GeometryError(f"Frame {number} has a PixelSpacing that is not positive.")
        return cls(number, size, parts[0], parts[1], parts[2], _positive(between), _positive(thick))


def _numbers(value: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(one) for one in value or ())
    except (TypeError, ValueError):
        return ()
    return numbers if np.isfinite(numbers).all() else ()


def _positive(value: Any) -> float | None:
    numbers = _numbers([value] if value not in (None, "") else ())
    return numbers[0] if numbers and numbers[0] > 0 else None


def lattice(planes: Sequence[Plane], frame: str | None) -> tuple[Grid, list[int], list[str]]:
    """Return the smallest regular grid that holds all planes.

    Slices between them may be missing, as empty frames are not stored. Their distance is SpacingBetweenSlices, else
    SliceThickness, else the smallest between two planes: the first of which all distances are multiples.

    Parameters
    ----------
    planes : sequence of Plane
        In any order; several may lie at one position.
    frame : str, optional
        FrameOfReferenceUID.

    Returns
    -------
    grid : Grid
        (slices, rows, columns), slices along the normal of the orientation.
    slices : list of int
        Slice of each plane.
    notes : list of str
        What was assumed.

    Raises
    ------
    GeometryError
        Planes are not parallel, or not at multiples of one distance.
    """
    if not planes:
        raise GeometryError("The segmentation has no frames, so it has no place in space.")
    first = planes[0]
    _check_parallel(planes)
    normal = _normal(first)
    positions = np.array([one.position for one in planes])
    along = positions @ normal
    levels = np.unique(np.round(along - along.min(), 4))
    levels = levels[np.insert(np.diff(levels) > 1e-3, 0, True)]  # rounding may split one position in two
    step, notes = _step(levels, first)
    index = np.rint((along - along.min()) / step).astype(int)
    tolerance = max(JITTER_MM, JITTER * step)
    count = int(index.max()) + 1
    shape = (count, *first.size)
    if count == 1:
        grid = Grid.from_dicom(
            shape, first.orientation, first.position, pixel_spacing=first.spacing, thickness=step, frame=frame
        )
        return grid, index.tolist(), notes
    start, per = _line(index, positions)
    worst = float(np.linalg.norm(start + index[:, None] * per - positions, axis=1).max())
    if worst > tolerance:
        raise GeometryError(
            f"Frames lie up to {worst:.3g} mm off a regular stack of {step:.4g} mm, over {tolerance:.3g} mm; "
            "the segmentation is not on one grid."
        )
    ends = (start.tolist(), (start + (count - 1) * per).tolist())
    return (
        Grid.from_dicom(shape, first.orientation, *ends, pixel_spacing=first.spacing, frame=frame),
        index.tolist(),
        notes,
    )


def _line(index: npt.NDArray[np.int_], positions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit position = start + index * step; exact ends where the planes are regular."""
    middle, place = index.mean(), positions.mean(axis=0)
    shifted = index - middle
    step = shifted @ positions / (shifted @ shifted)
    return place - middle * step, step


def _step(levels: FloatArray, first: Plane) -> tuple[float, list[str]]:
    """Return the slice distance (mm) that fits the distinct levels along the normal, and what was assumed."""
    gaps = np.diff(levels)
    if not gaps.size:
        stated = first.between or first.thickness
        if not stated:
            raise GeometryError("The segmentation is one slice without a thickness, so its extent is unknown.")
        return stated, []
    smallest = float(gaps.min())
    for step in (first.between, first.thickness, smallest):
        if step and _fits(gaps, step):
            crossed = np.rint(gaps / step)
            return float(levels[-1] / crossed.sum()), _assumed(first, step, int(crossed.min()))
    raise GeometryError(
        f"Frames lie {smallest:.4g} to {float(gaps.max()):.4g} mm apart, at multiples of no one distance; "
        "the segmentation is not on one grid."
    )


def _assumed(first: Plane, step: float, crossed: int) -> list[str]:
    """Say what the slice distance was taken from, where SpacingBetweenSlices does not settle it.

    Empty slices are not stored: frames 5 mm apart are slices of 5 mm, or every second one of 2.5 mm.
    """
    if step == first.between:
        return []
    state = "does not fit the positions" if first.between else "is absent"
    if step != first.thickness:
        how = f"the smallest distance of two frames, {step:.4g} mm, was taken for that of the slices"
    elif crossed > 1:
        how = f"slices lie a SliceThickness of {step:.4g} mm apart, as was assumed; those between the frames are empty"
    elif first.between:
        how = f"the SliceThickness of {step:.4g} mm does"
    else:
        return []
    return [f"SpacingBetweenSlices {state}: {how}"]


def _fits(gaps: FloatArray, step: float) -> bool:
    """Whether each gap is a multiple of `step`, within the tolerance of a stack for each slice crossed."""
    times, tolerance = np.rint(gaps / step), max(JITTER_MM, JITTER * step)
    if tolerance > step / 4 and times.min() > 1:
        return False  # so small a step would fit anything
    return bool((times >= 1).all() and (np.abs(gaps - times * step) <= tolerance).all())


def on_grid(planes: Sequence[Plane], grid: Grid) -> list[int] | None:
    """Return the slice of `grid` each plane lies on, or None if one lies on none or pixels do not coincide."""
    if grid.space != "patient":
        return None
    geometry = grid.to_dicom()
    positions = np.array(geometry["ImagePositionPatient"])
    tolerance = max(JITTER_MM, JITTER * float(geometry["SpacingBetweenSlices"]))
    first = planes[0] if planes else None
    if first is None or first.size != grid.shape[1:]:
        return None
    for one in planes:
        if np.abs(np.subtract(one.orientation, geometry["ImageOrientationPatient"])).max() > SAME:
            return None
        if np.abs(np.subtract(one.spacing, geometry["PixelSpacing"])).max() > SAME * min(one.spacing):
            return None
    away = np.linalg.norm(np.array([one.position for one in planes])[:, None] - positions[None], axis=2)
    nearest = away.argmin(axis=1)
    return nearest.tolist() if float(away.min(axis=1).max()) <= tolerance else None


def _normal(plane: Plane) -> FloatArray:
    row, column = np.array(plane.orientation).reshape(2, 3)
    normal = np.cross(row, column)
    length = float(np.linalg.norm(normal))
    if length < 0.5:
        raise GeometryError(f"Frame {plane.number} has an ImageOrientationPatient that is no plane.")
    unit: FloatArray = normal / length
    return unit


def _check_parallel(planes: Sequence[Plane]) -> None:
    first = planes[0]
    for what, values, scale in (
        ("orientation", np.array([one.orientation for one in planes]), 1.0),
        ("PixelSpacing", np.array([one.spacing for one in planes]), min(first.spacing)),
    ):
        differ = int((np.abs(values - values[0]).max(axis=1) > SAME * scale).sum())
        if differ:
            raise GeometryError(f"The {what} of {differ} of {len(planes)} frames differs from the first.")
