"""From the positions of DICOM slices to one regular grid, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import FormatError, GeometryError
from medseg.grid import SKEW, Grid

FloatArray = npt.NDArray[np.float64]

JITTER_MM, JITTER = 0.05, 0.02  # a slice may lie off the fitted line by the larger of 0.05 mm and 2 % of the spacing
SAME = 1e-4  # tolerance of orientation cosines and of pixel spacing (as a share) within a series
TOLD_MM = 1e-3  # what lies further off than this is told


@dataclass(frozen=True)
class Slice:
    """What of a slice's header says where it lies."""

    rows: int
    columns: int
    orientation: tuple[float, ...]  # ImageOrientationPatient
    position: tuple[float, ...]  # ImagePositionPatient, LPS mm
    spacing: tuple[float, ...]  # PixelSpacing: of rows, of columns, mm
    thickness: float | None
    frame: str | None
    number: str  # InstanceNumber, to name the slice to a person

    @property
    def normal(self) -> FloatArray:
        """Unit vector (3,) across the slice, LPS."""
        row, column = np.array(self.orientation).reshape(2, 3)
        normal: FloatArray = np.cross(row, column)
        return normal / (np.linalg.norm(normal) or 1.0)

    @classmethod
    def from_dataset(cls, dataset: Any, number: str = "") -> Slice:
        """Read the fields of a header: anything with `get` by keyword.

        Parameters
        ----------
        dataset : Header, pydicom Dataset or dict
            Its values may be numbers or text.
        number : str
            How to name the slice to a person; its InstanceNumber if absent.

        Raises
        ------
        GeometryError
            Position, orientation or pixel spacing is missing or malformed.
        FormatError
            Rows and Columns are not sizes.
        """
        shown = number or instance_number(dataset)
        try:
            rows, columns = int(dataset.get("Rows")), int(dataset.get("Columns"))
        except (TypeError, ValueError):
            rows = columns = 0
        if rows < 1 or columns < 1:
            raise FormatError(f"The slice with InstanceNumber {shown} has no size; its header is damaged.")
        sizes = [floats(dataset, key, 1) for key in ("SliceThickness", "SpacingBetweenSlices")]
        thickness = next((size for size in sizes if size and size[0] > 0), None)
        return cls(
            rows,
            columns,
            _needed(dataset, "ImageOrientationPatient", 6, shown),
            _needed(dataset, "ImagePositionPatient", 3, shown),
            _needed(dataset, "PixelSpacing", 2, shown),
            thickness[0] if thickness else None,
            str(dataset.get("FrameOfReferenceUID") or "") or None,
            shown,
        )


def instance_number(dataset: Any) -> str:
    """InstanceNumber if it is a number, which identifies nobody, else "unknown"."""
    try:
        return str(int(dataset.get("InstanceNumber")))
    except (TypeError, ValueError):
        return "unknown"


def usual_gap(gaps: FloatArray) -> float:
    """Median of the distances between neighbours, those that repeat a position left out; 0 if all do."""
    for least in (JITTER_MM, 1e-3):
        if (gaps > least).any():
            return float(np.median(gaps[gaps > least]))
    return 0.0


def repeat_gap(gaps: FloatArray) -> float:
    """Distance along the normal under which two slices count as lying at the same position."""
    usual = usual_gap(gaps)
    return max(1e-3, min(0.2 * usual, max(JITTER_MM, JITTER * usual)))


def arrange(slices: Sequence[Slice]) -> tuple[list[int], Grid, list[str]]:
    """Order slices along their normal and fit a regular grid.

    Parameters
    ----------
    slices : sequence of Slice
        In any order; where positions repeat, the first given comes first.

    Returns
    -------
    order : list of int
        Indices into `slices`, from the first to the last slice along the normal.
    grid : Grid
        (slices, rows, columns); slice spacing from the line fitted through all positions.
    notes : list of str
        Irregularities within the tolerance.

    Raises
    ------
    GeometryError
        Sizes, orientations, spacings or frames of reference differ; positions repeat, leave gaps or are sheared.
    """
    first, wobble = typical(slices)
    normal = first.normal
    positions = np.array([one.position for one in slices], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable").tolist()
    shape = (len(slices), first.rows, first.columns)
    if len(slices) == 1:
        if first.thickness is None:
            raise GeometryError("The series is one slice without a SliceThickness, so its extent in space is unknown.")
        grid = Grid.from_dicom(
            shape, first.orientation, first.position,
            pixel_spacing=first.spacing, thickness=first.thickness, frame=first.frame,
        )  # fmt: skip
        return order, grid, ["a single slice: its thickness is taken as the slice spacing"]
    ordered = [slices[i] for i in order]
    start, last, residual = _line(positions[order])
    _check_regular(ordered, positions[order] @ normal, residual)
    _check_upright((last - start) / (len(slices) - 1), normal, len(slices))
    ends = (start.tolist(), last.tolist())
    grid = Grid.from_dicom(shape, first.orientation, *ends, pixel_spacing=first.spacing, frame=first.frame)
    return order, grid, off_notes(float(residual.max()), wobble)


def _line(positions: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit a line through equally spaced points: its first and last point (3,), and the distance of each from it."""
    index = np.arange(len(positions)) - (len(positions) - 1) / 2
    middle = positions.mean(axis=0)
    step = index @ positions / (index @ index)
    residual = np.linalg.norm(positions - (middle + index[:, None] * step), axis=1)
    return middle + index[0] * step, middle + index[-1] * step, residual


def off_notes(residual: float, wobble: float) -> list[str]:
    """What to tell about slices that lie a little off: positions off the line, and orientation and spacing, mm."""
    notes = [f"slices lie up to {residual:.3g} mm off a regular stack"] if residual > TOLD_MM else []
    if wobble > TOLD_MM:
        notes.append(f"orientation or PixelSpacing differs between slices, by up to {wobble:.3g} mm at the far corner")
    return notes


def typical(slices: Sequence[Slice]) -> tuple[Slice, float]:
    """Return the slice whose orientation and spacing hold for all, and how far off that is at the far corner of any, mm.

    Raises
    ------
    GeometryError
        Sizes, orientations, pixel spacings or frames of reference are not the same.
    """
    _check_axes(slices[0])
    sizes = {(one.rows, one.columns) for one in slices}
    frames = {one.frame for one in slices}
    for what, count in (("image sizes", len(sizes)), ("frames of reference", len(frames))):
        if count > 1:
            raise GeometryError(f"The series has slices of {count} different {what}; split it.")
    axes = np.array([one.orientation for one in slices]).reshape(-1, 2, 3)  # along a row, down a column
    steps = np.array([one.spacing for one in slices])[:, ::-1]  # from column to column, from row to row
    turned = np.abs(axes - np.median(axes, axis=0)).max(axis=(1, 2))
    wider = np.abs(steps - np.median(steps, axis=0)).max(axis=1)
    middle = int(np.argmin(turned + wider))  # the first where all are the same
    first = slices[middle]
    _check_axes(first)
    reach = np.array([first.columns - 1, first.rows - 1])
    off = np.zeros(len(slices))
    for what, share, mm in (
        ("orientation", turned, (np.linalg.norm(axes - axes[middle], axis=2) * steps[middle]) @ reach),
        ("PixelSpacing", wider / steps.min(), np.abs(steps - steps[middle]) @ reach),
    ):
        differ = int(((share > SAME) | (mm > JITTER_MM)).sum())
        if differ:
            raise GeometryError(
                f"The {what} of {differ} of {len(slices)} slices differs from the others, by up to {mm.max():.3g} mm at "
                "the far corner; split the series."
            )
        off += mm
    return first, float(off.max())


def _check_axes(one: Slice) -> None:
    """Raise GeometryError unless the orientation is two perpendicular unit vectors."""
    row, column = np.array(one.orientation).reshape(2, 3)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.array(lengths) - 1).max() > SKEW or abs(row @ column) > SKEW:
        raise GeometryError("ImageOrientationPatient is not two perpendicular unit vectors; the header is damaged.")


def _check_regular(slices: Sequence[Slice], along: FloatArray, residual: FloatArray) -> None:
    """Raise GeometryError, naming slices, if positions repeat or gaps differ."""
    gaps = np.diff(along)
    usual = usual_gap(gaps)
    near = np.flatnonzero(gaps < repeat_gap(gaps))
    if near.size:
        raise GeometryError(
            f"{near.size} of {len(slices)} slices repeat the position of another, first "
            f"{_pair(slices, int(near[0]))}: duplicates, or several times or contrasts in one series; split it, or "
            "load with regularize=True (--regularize), which drops duplicates whose pixels are the same."
        )
    # residual is off the line in any direction; the tolerance is against the distance along the normal
    tolerance = max(JITTER_MM, JITTER * float(along[-1] - along[0]) / len(gaps))
    if float(residual.max()) <= tolerance:
        return
    worst = int(np.argmax(np.abs(gaps - usual)))
    if gaps[worst] > 1.5 * usual:
        wide = int((gaps > 1.5 * usual).sum())
        raise GeometryError(
            f"Slices are missing: {gaps[worst]:.4g} mm lie between {_pair(slices, worst)}, {usual:.4g} mm between "
            f"most; {wide} such gaps. Get the whole series, or load with regularize=True (--regularize), which interpolates there."
        )
    raise GeometryError(
        f"Slices are not equally spaced: gaps of {gaps.min():.4g} to {gaps.max():.4g} mm, worst between "
        f"{_pair(slices, worst)}; a slice lies {residual.max():.3g} mm off a regular stack, over {tolerance:.3g} mm. "
        "Load with regularize=True (--regularize) to resample at the true positions."
    )


def _pair(slices: Sequence[Slice], i: int) -> str:
    names = f"InstanceNumber {slices[i].number} and {slices[i + 1].number}"
    return f"slices {i + 1} and {i + 2} of {len(slices)} ({names})"


def _check_upright(step: FloatArray, normal: FloatArray, count: int) -> None:
    """Raise GeometryError if the stack is sheared by more than the tolerance."""
    length = float(np.linalg.norm(step))
    aside = float(np.linalg.norm(step - (step @ normal) * normal))
    if aside / length > SKEW and aside * (count - 1) > max(JITTER_MM, JITTER * length):
        angle = float(np.degrees(np.arctan2(aside, step @ normal)))
        raise GeometryError(
            f"The stack is sheared by {angle:.3g} degrees (gantry tilt): each slice is shifted by {aside:.3g} mm "
            "against the last. Load with regularize=True (--regularize) to resample it onto an upright grid."
        )


def floats(dataset: Any, key: str, count: int) -> tuple[float, ...] | None:
    """Return the numbers of an attribute, or None if they are not `count` finite numbers."""
    try:
        value = dataset.get(key)
        values = [value] if count == 1 else list(value)
        numbers = tuple(float(one) for one in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _needed(dataset: Any, key: str, count: int, number: str) -> tuple[float, ...]:
    values = floats(dataset, key, count)
    if values is None:
        state = "no" if key not in dataset else "a malformed"
        raise GeometryError(
            f"The slice with InstanceNumber {number} has {state} {key}, so its place in space is unknown; "
            "export the original series."
        )
    return values
