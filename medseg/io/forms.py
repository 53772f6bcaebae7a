"""Where NIfTI voxels lie: the sform before the qform, and pixdim where neither is coded."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, MedsegWarning
from medseg.grid import Grid
from medseg.io.common import OFF

Matrix = npt.NDArray[np.float64]

_UNITS = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}  # xyzt_units & 7: unknown, metre, millimetre, micrometre


def grid_of(header: Any, sizes: tuple[int, ...], path: Path) -> tuple[Grid, list[str]]:
    """Choose among sform, qform and pixdim, and say what was chosen.

    Parameters
    ----------
    header : nibabel header
        Unchecked.
    sizes : tuple of int
        (i, j[, k]).
    path : Path
        The file, for messages.

    Returns
    -------
    grid : Grid
        Of the transposed array, in mm. A 2-D file oblique in space gives a stack of one slice.
    notes : list of str
        What was assumed, and where parts of the header contradict one another, which also gives a `MedsegWarning`.

    Raises
    ------
    GeometryError
        The unit is unknown, or the form that counts is not usable.
    """
    n, unit = len(sizes), int(header["xyzt_units"]) & 7
    if unit not in _UNITS:
        raise GeometryError(f"{path.name}: xyzt_units {unit} is not a length; correct the header.")
    notes = [] if unit else ["the file states no unit of length; mm is assumed"]
    scale = np.diag([_UNITS[unit]] * 3 + [1.0])
    steps = header["pixdim"][1 : n + 1].astype(np.float64)
    sform, qform = (int(header[code]) for code in ("sform_code", "qform_code"))
    if sform <= 0 and not (np.isfinite(steps).all() and (steps > 0).all()):
        raise GeometryError(f"{path.name}: pixdim {steps.tolist()} is no spacing; correct the header.")
    if sform > 0:
        matrix = header.get_sform().astype(np.float64)
        if not np.isfinite(matrix).all():
            raise GeometryError(f"{path.name}: the sform holds numbers that are not finite; correct the header.")
        grid = _placed(sizes, scale @ matrix)
        told = _compared(header, sizes, scale, grid, path) if qform > 0 else _stale(grid, steps * scale[0, 0])
        if told:
            warnings.warn(f"{path.name}: {told}", MedsegWarning, stacklevel=4)  # the caller of io.load
            notes.append(told)
        return grid, notes
    if qform > 0:
        return _placed(sizes, scale @ _qform(header, path)), notes
    if not unit and (steps == 1).all():
        return Grid.from_spacing(sizes[::-1], None), ["the file states no orientation, unit or spacing"]
    grid = _placed(sizes, scale @ header.get_base_affine().astype(np.float64))
    notes.append("the file states no orientation; spacing from pixdim, x taken to point left and the centre as origin")
    return replace(grid, space="stage"), notes


def _placed(sizes: tuple[int, ...], affine: Matrix) -> Grid:
    if len(sizes) == 2 and np.abs(affine[2, :2]).max() > 1e-6 * np.abs(affine[:2, :2]).max():
        if not affine[:3, 2].any():
            affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1]) / np.linalg.norm(affine[:3, 0])
        return Grid.from_nifti((*sizes, 1), affine)
    return Grid.from_nifti(sizes, affine)


def _qform(header: Any, path: Path) -> Matrix:
    fixed = header.copy()
    if len(header.get_data_shape()) < 3 and not fixed["pixdim"][3] > 0:
        fixed["pixdim"][3] = 1  # a 2-D file has no third step
    parts = [*(fixed[f"quatern_{name}"] for name in "bcd"), *(fixed[f"qoffset_{name}"] for name in "xyz")]
    if not np.isfinite([*parts, *fixed["pixdim"][:4]]).all():
        raise GeometryError(f"{path.name}: the qform holds numbers that are not finite; correct the header.")
    try:
        matrix: Matrix = fixed.get_qform().astype(np.float64)
    except Exception:
        raise GeometryError(f"{path.name}: the quaternion of the qform is no rotation; correct the header.") from None
    return matrix


def _compared(header: Any, sizes: tuple[int, ...], scale: Matrix, grid: Grid, path: Path) -> str | None:
    """Return what to say if sform and qform put voxels at different places."""
    try:
        other = _placed(sizes, scale @ _qform(header, path))
        why = grid.why_not(other)
        if why and grid.shape == other.shape and _within_rounding(header, grid, other):
            return None
    except GeometryError:
        why = "the qform is not valid"
    return why and f"sform and qform disagree ({why}); the sform is used"


def _stale(grid: Grid, steps: Matrix) -> str | None:
    """Return what to say if pixdim, which nothing but a qform needs, states another spacing than the sform."""
    stated = grid.spacing[::-1][: len(steps)]
    if not (np.isfinite(steps).all() and (steps > 0).all()) or (np.abs(steps / stated - 1) <= OFF).all():
        return None
    told = " x ".join(f"{step:.4g}" for step in steps)
    return f"pixdim states a spacing of {told} mm, the sform another; the sform is used"


def _within_rounding(header: Any, grid: Grid, other: Grid) -> bool:
    """Whether two grids differ by no more than rounding the quaternion can explain: most when it turns by half a turn.

    The header holds b, c and d; a = sqrt(1 - b^2 - c^2 - d^2) is the less certain the nearer it is to 0.
    """
    parts = np.array([float(header[f"quatern_{name}"]) for name in "bcd"])
    square = 1 - float(parts @ parts)
    rounding = 3 * float(np.finfo(header["quatern_b"].dtype).eps)  # of the square
    # Below about the rounding the square says nothing, and nibabel takes it for 0.
    angle = rounding / np.sqrt(square) if square > 2 * rounding else 2 * np.sqrt(2 * rounding)
    here, there = grid.corners(), other.corners()
    reach = np.linalg.norm(here - here[0], axis=1).max()
    return bool(np.linalg.norm(here - there, axis=1).max() <= angle * reach + 1e-3)
