"""Where the voxels of an array lie in the world: geometry without voxels.

Arrays are C-order with the slowest axis first: (z, y, x) = (slice, row, column), or (y, x). World coordinates are
(x, y, z): right, anterior, superior for patient grids. This module alone knows index orders, LPS and direction cosines.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError

FloatArray = npt.NDArray[np.float64]

SKEW = 1e-3  # largest cosine between two axes that still counts as a right angle
_AXES = {2: ("y", "x"), 3: ("z", "y", "x")}
_LPS = np.diag([-1.0, -1.0, 1.0])  # LPS to RAS and back


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """The lattice of voxel centres of a 2-D or 3-D array.

    Parameters
    ----------
    shape : tuple of int
        Array shape, slowest axis first: (z, y, x) or (y, x).
    affine : array (n+1, n+1), float64
        Array index in array axis order, to world (x, y[, z]) in `unit`. Made read-only.
    unit : "mm" or "px"
        "px" says that the spacing is unknown: the affine is then in pixels.
    axes : tuple of str
        Axis names in array order; ("z", "y", "x") or ("y", "x") if empty.
    frame : str, optional
        Frame of reference UID.
    space : "patient" or "stage"
        "patient": 3-D, in mm, and world axes point right, anterior, superior.

    Raises
    ------
    GeometryError
        If the shape is not 2 or 3 positive integers, or the affine is not finite, invertible and of the fitting size.

    Examples
    --------
    >>> grid = Grid.from_spacing((40, 256, 256), (5.0, 0.7, 0.7))
    >>> grid.describe()
    '40 x 256 x 256 voxels, 5 x 0.7 x 0.7 mm'
    >>> grid.crop((0, 10, 20), (40, 20, 30)).origin
    (14.0, 7.0, 0.0)
    """

    shape: tuple[int, ...]
    affine: FloatArray
    unit: Literal["mm", "px"] = "mm"
    axes: tuple[str, ...] = ()
    frame: str | None = None
    space: Literal["patient", "stage"] = "stage"

    def __post_init__(self) -> None:
        """Check the fields and freeze the affine."""
        shape = _shape(self.shape)
        n = len(shape)
        affine = _numbers(self.affine, (n + 1, n + 1), "the affine")
        lengths = np.linalg.norm(affine[:n, :n], axis=0)
        # Unit columns make the test independent of scale: a micrometre voxel has a determinant of 1e-9 and is fine.
        if not lengths.all() or abs(np.linalg.det(affine[:n, :n] / lengths)) < 1e-6:
            raise GeometryError("The affine is singular: two array axes point the same way, or one has no length.")
        if not np.array_equal(affine[n], np.eye(n + 1)[n]):
            raise GeometryError(f"The last row of the affine is {affine[n].tolist()}; it must be zeros and a final 1.")
        axes = tuple(self.axes) or _AXES[n]
        if len(axes) != n or len(set(axes)) != n:
            raise GeometryError(f"Axis names {axes} do not fit {n} axes; give {n} different names.")
        if self.unit not in ("mm", "px") or self.space not in ("patient", "stage"):
            raise GeometryError(f"Unit {self.unit!r} must be mm or px, space {self.space!r} must be patient or stage.")
        if self.space == "patient" and (n != 3 or self.unit != "mm"):
            raise GeometryError("A patient grid is 3-D and in mm; use space='stage' for anything else.")
        affine = affine + 0.0  # a copy without -0.0, so that equal grids hash alike
        affine.flags.writeable = False
        for name, value in (("shape", shape), ("affine", affine), ("axes", axes)):
            object.__setattr__(self, name, value)

    def _key(self) -> tuple[object, ...]:
        return self.shape, self.affine.tobytes(), self.unit, self.axes, self.frame, self.space

    def __eq__(self, other: object) -> bool:
        """Exact equality of every field; `matches` is the comparison with a tolerance."""
        return isinstance(other, Grid) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash of every field, consistent with equality."""
        return hash(self._key())

    @classmethod
    def from_spacing(
        cls,
        shape: Sequence[int],
        spacing: float | Sequence[float] | None = None,
        *,
        unit: Literal["mm", "um"] = "mm",
        origin: Sequence[float] | None = None,
        axes: Sequence[str] = (),
    ) -> Self:
        """Make an upright stage grid: x along the last axis, y along the second last, z along the first.

        Parameters
        ----------
        shape : sequence of int
            Array shape.
        spacing : float or sequence of float, optional
            Distance of voxel centres in ARRAY axis order, or one number for all. None: unknown, `unit` becomes "px".
        unit : "mm" or "um"
            Unit of `spacing` and `origin`; the grid itself is in mm.
        origin : sequence of float, optional
            World (x, y[, z]) of the first voxel; zeros if absent.
        axes : sequence of str
            Axis names in array order.

        Raises
        ------
        GeometryError
            If the count of numbers does not fit the shape, or a spacing is not positive and finite.

        Examples
        --------
        >>> Grid.from_spacing((512, 640), 0.5, unit="um").describe()
        '512 x 640 pixels, 0.5 x 0.5 um'
        """
        if unit not in ("mm", "um"):
            raise GeometryError(f"Unit {unit!r} is not known; give mm or um, or no spacing at all if it is unknown.")
        n = len(_shape(shape))
        scale = 1.0 if unit == "mm" or spacing is None else 1e-3
        steps = _spacing(1.0 if spacing is None else spacing, n) * scale
        start = np.zeros(n) if origin is None else _numbers(origin, (n,), "the origin") * scale
        return cls(tuple(shape), _affine(np.diag(steps)[::-1], start), "px" if spacing is None else "mm", tuple(axes))

    @classmethod
    def from_nifti(cls, shape_ijk: Sequence[int], affine_ras: npt.ArrayLike, frame: str | None = None) -> Self:
        """Make the grid of the TRANSPOSE of a NIfTI array.

        Parameters
        ----------
        shape_ijk : sequence of int
            Shape of the array as NIfTI stores it, (i, j, k) or (i, j).
        affine_ras : array (4, 4)
            Index (i, j, k) to RAS in mm.
        frame : str, optional
            Frame of reference UID.

        Raises
        ------
        GeometryError
            If the affine is not usable, or a 2-D array does not lie in an axial plane (reshape it to (i, j, 1)).
        """
        affine = _numbers(affine_ras, (4, 4), "the NIfTI affine")
        n = len(_shape(shape_ijk))
        if n == 2:
            if np.abs(affine[2, :2]).max() > 1e-6 * np.abs(affine[:2, :2]).max():
                raise GeometryError(
                    "A 2-D NIfTI array lies oblique in space; reshape it to (i, j, 1) to keep its place."
                )
            affine = affine[np.ix_([0, 1, 3], [0, 1, 3])]
        order = [*range(n)[::-1], n]
        return cls(tuple(shape_ijk)[::-1], affine[:, order], frame=frame, space="patient" if n == 3 else "stage")

    @classmethod
    def from_itk(
        cls,
        size_xyz: Sequence[int],
        spacing_xyz: Sequence[float],
        origin_lps: Sequence[float],
        direction_flat: Sequence[float],
        patient: bool = True,
    ) -> Self:
        """Make the grid of the array that `SimpleITK.GetArrayFromImage` returns.

        Parameters
        ----------
        size_xyz, spacing_xyz, origin_lps, direction_flat : sequence
            What GetSize, GetSpacing (mm), GetOrigin and GetDirection (row-major) return, for a 2-D or 3-D image.
        patient : bool
            Whether a 3-D image is in LPS, which is turned into RAS. 2-D images have no anatomy and are never turned.

        Raises
        ------
        GeometryError
            If counts do not fit, or the result is not a valid grid.
        """
        n = len(_shape(size_xyz))
        direction = _numbers(direction_flat, (n * n,), "the ITK direction").reshape(n, n)
        linear = (direction * _spacing(spacing_xyz, n))[:, ::-1]
        start = _numbers(origin_lps, (n,), "the ITK origin")
        if patient and n == 3:
            return cls(tuple(size_xyz)[::-1], _affine(_LPS @ linear, _LPS @ start), space="patient")
        return cls(tuple(size_xyz)[::-1], _affine(linear, start))

    @classmethod
    def from_dicom(
        cls,
        shape: Sequence[int],
        orientation: Sequence[float],
        first: Sequence[float],
        last: Sequence[float] | None = None,
        *,
        pixel_spacing: Sequence[float],
        thickness: float | None = None,
        frame: str | None = None,
    ) -> Self:
        """Make the grid of a regular stack of DICOM slices (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1).

        Parameters
        ----------
        shape : sequence of int
            (slices, rows, columns).
        orientation : six floats
            ImageOrientationPatient: cosines along a row, then down a column. Rounded cosines are made unit length.
        first, last : three floats
            ImagePositionPatient of the first and last slice, LPS mm. The stack may be sheared (gantry tilt).
        pixel_spacing : two floats
            PixelSpacing: distance of rows, then of columns, mm.
        thickness : float, optional
            Slice distance in mm along the normal for a single slice; needed there, unused otherwise.
        frame : str, optional
            FrameOfReferenceUID.

        Raises
        ------
        GeometryError
            If the cosines are not orthonormal within 1e-3, or positions do not span a stack.
        """
        if len(_shape(shape)) != 3:
            raise GeometryError(f"Shape {tuple(shape)} is not (slices, rows, columns).")
        row, column = _numbers(orientation, (6,), "ImageOrientationPatient").reshape(2, 3)
        lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
        if np.abs(lengths - 1).max() > SKEW or abs(row @ column) > SKEW:
            raise GeometryError(f"ImageOrientationPatient {list(orientation)} is not two perpendicular unit vectors.")
        row, column = row / lengths[0], column / lengths[1]
        start = _numbers(first, (3,), "ImagePositionPatient")
        end = start if last is None else _numbers(last, (3,), "ImagePositionPatient")
        if shape[0] > 1:
            step = (end - start) / (shape[0] - 1)
        elif thickness is None or not np.array_equal(start, end):
            raise GeometryError("A single slice needs its thickness and has one position; give thickness and no last.")
        else:
            normal = np.cross(row, column)
            step = normal / np.linalg.norm(normal) * _spacing(thickness, 1)
        spacing = _spacing(pixel_spacing, 2)
        linear = np.column_stack([step, column * spacing[0], row * spacing[1]])
        return cls(tuple(shape), _affine(_LPS @ linear, _LPS @ start), frame=frame, space="patient")

    def to_nifti(self) -> FloatArray:
        """Return the (4, 4) affine of the transposed array, (i, j, k) to RAS; a 2-D grid becomes the plane z = 0."""
        n = self.ndim
        affine = np.eye(4)
        kept = [*range(n), 3]
        affine[np.ix_(kept, kept)] = self.affine[:, [*range(n)[::-1], n]]
        return affine

    def to_itk(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Return spacing (x, y, z), origin and row-major direction for the same array; LPS for patient grids.

        Raises
        ------
        GeometryError
            If the axes are not perpendicular: ITK files cannot hold a sheared grid, resample it first.
        """
        turn = _LPS if self.space == "patient" else np.eye(self.ndim)
        linear = turn @ self._linear[:, ::-1]
        spacing = np.array(self.spacing[::-1])
        direction = linear / spacing
        if np.abs(direction.T @ direction - np.eye(self.ndim)).max() > SKEW:
            raise GeometryError("The grid is sheared, which ITK cannot hold; resample it onto an upright grid first.")
        origin = turn @ self.affine[: self.ndim, -1] + 0.0
        return tuple(spacing.tolist()), tuple(origin.tolist()), tuple((direction + 0.0).ravel().tolist())

    def to_dicom(self) -> dict[str, Any]:
        """Return DICOM attributes in LPS mm, one ImagePositionPatient for each slice.

        Returns
        -------
        dict
            ImagePositionPatient (list of one triple per slice), ImageOrientationPatient (6), PixelSpacing (distance of
            rows, of columns) and SpacingBetweenSlices (along the normal).

        Raises
        ------
        GeometryError
            If this is not a patient grid, or rows and columns are not perpendicular.
        """
        if self.space != "patient":
            raise GeometryError("DICOM positions need a patient grid; this one has no anatomical axes.")
        step, down, along = (_LPS @ self._linear).T
        rows, columns = self.spacing[1:]
        row, column = along / columns + 0.0, down / rows + 0.0
        if abs(row @ column) > SKEW:
            raise GeometryError(
                "Rows and columns are not perpendicular, which DICOM cannot hold; resample the grid first."
            )
        normal = np.cross(row, column)
        positions = _LPS @ self.affine[:3, 3] + np.arange(self.shape[0])[:, None] * step + 0.0
        return {
            "ImagePositionPatient": [tuple(position) for position in positions.tolist()],
            "ImageOrientationPatient": (*row.tolist(), *column.tolist()),
            "PixelSpacing": (rows, columns),
            "SpacingBetweenSlices": abs(float(step @ normal)) / float(np.linalg.norm(normal)),
        }

    @property
    def _linear(self) -> FloatArray:
        return self.affine[:-1, :-1]

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of voxel centres along each array axis, in `unit`."""
        return tuple(np.linalg.norm(self._linear, axis=0).tolist())

    @property
    def origin(self) -> tuple[float, ...]:
        """World (x, y[, z]) of the centre of the first voxel, in `unit`."""
        return tuple(self.affine[:-1, -1].tolist())

    @property
    def voxel_size(self) -> float:
        """Area or volume of one voxel in mm^n, or in source pixels^n where the spacing is unknown."""
        return abs(float(np.linalg.det(self._linear)))

    @property
    def known(self) -> bool:
        """Whether the spacing is known."""
        return self.unit == "mm"

    @property
    def anisotropy(self) -> float:
        """Largest spacing over smallest."""
        return max(self.spacing) / min(self.spacing)

    @property
    def orientation(self) -> str | None:
        """Direction each array axis points to, as letters of RASLPI in array order ("SAR"); None for stage grids."""
        if self.space != "patient":
            return None
        # The nearest rotation, then the strongest axis first, as nibabel does; ties in NIfTI (reversed) order.
        left, _, right = np.linalg.svd(self._linear[:, ::-1] / self.spacing[::-1])
        rotation = left @ right
        letters = [""] * 3
        for axis in np.argsort(-(rotation**2).max(axis=0), kind="stable"):
            world = int(np.argmax(np.abs(rotation[:, axis])))
            letters[2 - axis] = ("LR", "PA", "IS")[world][int(rotation[world, axis] > 0)]
            rotation[world] = 0
        return "".join(letters)

    def corners(self) -> FloatArray:
        """Return the world points of the outermost voxel centres, (2^n, n), in `unit`."""
        ends = np.array(list(np.ndindex((2,) * self.ndim))) * (np.array(self.shape) - 1)
        return self.to_world(ends)

    def to_world(self, points: npt.ArrayLike) -> FloatArray:
        """Turn array indices (..., n), in array axis order, into world points (..., n) in `unit`."""
        values: FloatArray = self._points(points) @ self._linear.T + self.affine[:-1, -1]
        return values

    def to_index(self, points: npt.ArrayLike) -> FloatArray:
        """Turn world points (..., n), (x, y[, z]) in `unit`, into fractional array indices (..., n)."""
        values: FloatArray = (self._points(points) - self.affine[:-1, -1]) @ np.linalg.inv(self._linear).T
        return values

    def _points(self, points: npt.ArrayLike) -> FloatArray:
        values = np.asarray(points, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != self.ndim:
            raise GeometryError(f"Points of shape {values.shape} do not end in an axis of {self.ndim} coordinates.")
        return values

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Self:
        """Return the grid of array[start:stop]; indices are half-open and must lie inside."""
        low, high = self._per_axis(start), self._per_axis(stop)
        if any(not 0 <= a < b <= size for a, b, size in zip(low, high, self.shape, strict=True)):
            raise GeometryError(f"Crop {low} to {high} is empty or leaves the grid of shape {self.shape}.")
        return self._moved(tuple(b - a for a, b in zip(low, high, strict=True)), np.eye(self.ndim), low)

    def pad(self, before: Sequence[int], after: Sequence[int]) -> Self:
        """Return the grid with this many voxels added before and after each axis."""
        low, high = self._per_axis(before), self._per_axis(after)
        if min(*low, *high) < 0:
            raise GeometryError(f"Padding {low}, {high} is negative; use crop to take voxels away.")
        shape = tuple(size + a + b for size, a, b in zip(self.shape, low, high, strict=True))
        return self._moved(shape, np.eye(self.ndim), [-a for a in low])

    def permute(self, order: Sequence[int]) -> Self:
        """Return the grid of array.transpose(order)."""
        axes = self._per_axis(order)
        if sorted(axes) != list(range(self.ndim)):
            raise GeometryError(f"Order {axes} is not a permutation of the {self.ndim} axes.")
        moved = self._moved(tuple(self.shape[a] for a in axes), np.eye(self.ndim)[:, axes], np.zeros(self.ndim))
        return replace(moved, axes=tuple(self.axes[a] for a in axes))

    def flip(self, *axes: int) -> Self:
        """Return the grid of numpy.flip(array, axes); negative axes count from the end."""
        if any(not -self.ndim <= axis < self.ndim for axis in axes):
            raise GeometryError(f"Axes {axes} do not fit an array of {self.ndim} axes.")
        flipped = np.isin(np.arange(self.ndim), [axis % self.ndim for axis in axes])
        return self._moved(
            self.shape, np.diag(np.where(flipped, -1.0, 1.0)), np.where(flipped, np.array(self.shape) - 1, 0)
        )

    def resample(self, spacing: float | Sequence[float]) -> Self:
        """Return a grid of the given spacing over the same box, flush with the outer edge of the first voxel.

        The shape is the extent over the spacing, rounded, at least 1; the far edge is off by up to half a new voxel.

        Parameters
        ----------
        spacing : float or sequence of float
            In array axis order and in `unit`.

        Examples
        --------
        >>> Grid.from_spacing((10, 100, 100), (4, 1, 1)).resample(2).shape
        (20, 50, 50)
        """
        factor = _spacing(spacing, self.ndim) / self.spacing
        shape = tuple(max(1, math.floor(size / f + 0.5)) for size, f in zip(self.shape, factor, strict=True))
        return self._moved(shape, np.diag(factor), (factor - 1) / 2)

    def resample_to(self, shape: Sequence[int]) -> Self:
        """Return a grid of the given shape that fills exactly the same outer box."""
        new = _shape(shape)
        factor = np.array(self.shape) / self._per_axis(new)
        return self._moved(new, np.diag(factor), (factor - 1) / 2)

    def _moved(self, shape: tuple[int, ...], linear: FloatArray, start: npt.ArrayLike) -> Self:
        """Return the grid whose index p is index linear @ p + start of this one."""
        return replace(self, shape=shape, affine=self.affine @ _affine(linear, start))

    def _per_axis(self, values: Sequence[int]) -> list[int]:
        if len(values) != self.ndim:
            raise GeometryError(f"{len(values)} values given for {self.ndim} axes {self.axes}.")
        try:
            return [operator.index(value) for value in values]
        except TypeError:
            raise GeometryError(f"{values!r} are not whole numbers of voxels.") from None

    def matches(self, other: Grid) -> bool:
        """Whether both put every voxel at the same place: within min(1e-3 mm, 0.01 voxel) at each corner."""
        return self.why_not(other) is None

    def why_not(self, other: Grid) -> str | None:
        """Return why two grids do not match, in one sentence, or None if they do.

        A frame of reference that is absent on one side matches any: it is no reason against.
        """
        if self.shape != other.shape:
            return f"the shapes differ: {self.shape} and {other.shape}"
        if self.unit != other.unit:
            return "the spacing is known for only one of the two"
        if self.frame and other.frame and self.frame != other.frame:
            return "the frames of reference differ"
        fraction = 0.01 * min(*self.spacing, *other.spacing)
        tolerance = min(1e-3, fraction) if self.known else fraction
        off = float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())
        return (
            None if off <= tolerance else f"a corner lies {off:.4g} {self.unit} apart, over {tolerance:.2g} {self.unit}"
        )

    def __repr__(self) -> str:
        """One line; the frame's UID is left out."""
        return f"Grid({self.describe()}; axes {', '.join(self.axes)}; {self.space})"

    def describe(self) -> str:
        """Return one short line: shape and spacing."""
        text = " x ".join(map(str, self.shape)) + (" pixels, " if self.ndim == 2 else " voxels, ")
        if not self.known:
            return text + "spacing unknown"
        unit, scale = ("um", 1e3) if max(self.spacing) < 0.01 else ("mm", 1.0)
        return text + " x ".join(f"{step * scale:.4g}" for step in self.spacing) + f" {unit}"


def _affine(linear: FloatArray, start: npt.ArrayLike) -> FloatArray:
    n = len(linear)
    affine = np.eye(n + 1)
    affine[:n, :n], affine[:n, n] = linear, start
    return affine


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise GeometryError(f"Shape {shape!r} is not a sequence of integers.") from None
    if len(sizes) not in _AXES or min(sizes) < 1:
        raise GeometryError(f"Shape {sizes} must be two or three positive integers, such as (z, y, x).")
    return sizes


def _numbers(values: npt.ArrayLike, shape: tuple[int, ...], what: str) -> FloatArray:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise GeometryError(f"{what[0].upper()}{what[1:]} is not made of numbers.") from None
    if numbers.shape != shape or not np.isfinite(numbers).all():
        raise GeometryError(
            f"{what[0].upper()}{what[1:]} must be finite numbers of shape {shape}, not {numbers.shape}."
        )
    return numbers


def _spacing(spacing: float | Sequence[float], n: int) -> FloatArray:
    if not isinstance(spacing, (int, float)) and len(spacing) != n:
        axes = ", ".join("zyx"[-n:])
        raise GeometryError(
            f"The spacing has {len(spacing)} numbers, the image {n} axes ({axes}); give one for each, or one for all."
        )
    steps = _numbers([spacing] * n if isinstance(spacing, (int, float)) else spacing, (n,), "the spacing")
    if (steps <= 0).any():
        raise GeometryError(f"Spacing {steps.tolist()} is not positive; give None if it is unknown.")
    return steps
