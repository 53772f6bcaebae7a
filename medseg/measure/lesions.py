"""Size of lesions: volume, the longest diameter in space, and the two axes of RECIST in a plane.

Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1), European Journal of
Cancer 45, 2009. The axes are end to end on the half-level boundary (`medseg.ops.calipers`), in the plane's true geometry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from medseg.errors import GeometryError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.measure.recist import LONG
from medseg.ops import calipers, components
from medseg.spec import MeasureSpec

Mask = npt.NDArray[np.bool_]

_NAMES = {"axial": 2, "coronal": 1, "sagittal": 0}  # world axis that a plane is normal to
_TIE = 0.01  # share by which spacings may differ and count as equal


def plane_of(grid: Grid, spec: MeasureSpec, sliced: bool) -> tuple[int, str]:
    """Return the array axis that the plane of the axes is normal to, and the plane's name.

    Parameters
    ----------
    grid
        Three axes.
    spec
        Its `plane`.
    sliced
        Whether axis 0 is known to count the slices of an acquisition, as in a DICOM series.

    Raises
    ------
    GeometryError
        A plane by name of an image that does not know the patient's directions.
    """
    if spec.plane != "auto":
        if grid.space != "patient":
            raise GeometryError(f"The image does not say how the patient lies, so there is no {spec.plane} plane.")
        axis = int(np.argmax(np.abs(_unit(grid)[_NAMES[spec.plane]])))
        return axis, spec.plane
    if sliced:
        return 0, "acquisition"
    spacing = np.array(grid.spacing)
    area = spacing.prod() / spacing  # of a voxel in the plane normal to each axis
    finest = np.flatnonzero(area <= area.min() * (1 + _TIE))
    if len(finest) > 1:  # also where the axial plane is none of them, as in PET of slices thinner than its pixels
        return int(np.argmax(np.abs(_unit(grid)[2]))), "axial"
    return int(finest[0]), "finest"


def lesions(instances: Instances, spec: MeasureSpec, sliced: bool = False) -> pd.DataFrame:
    """Measure the size of each instance.

    Parameters
    ----------
    instances
        2-D or 3-D; lengths are in mm, or in voxels where the spacing is unknown.
    spec
        Rules.
    sliced
        See `plane_of`.

    Returns
    -------
    DataFrame
        One row per instance, in the order of the table. In mm (else _px): volume_ml (3-D, mm), long_axis_mm and short_axis_mm,
        axes_plane (what the plane is: acquisition, finest spacings, or its name), axes_slice (array index along axes_axis),
        long_axis_a_<x|y|z>_mm to short_axis_b_<x|y|z>_mm (end points in the world, RAS; index columns where the spacing is
        unknown), diameter_3d_mm (3-D), and measurable (RECIST 1.1: the long axis is at least 10 mm and two slices thick).
    """
    grid = instances.grid
    suffix = "mm" if grid.known else "px"
    axis, plane = plane_of(grid, spec, sliced) if grid.ndim == 3 else (-1, "image")
    rows = [_one(mask, start, grid, axis, spec, suffix) for start, mask in masks(instances)]
    table = pd.DataFrame(rows, index=range(len(instances)), columns=_columns(grid, suffix))
    table["axes_plane"] = plane
    if grid.known and grid.ndim == 3:
        table.insert(0, "volume_ml", instances.table["volume_mm3"].to_numpy() / 1000.0)
        thick = float(grid.spacing[axis])
        table["measurable"] = table["long_axis_mm"].to_numpy(np.float64) >= max(LONG, 2 * thick)
    return table


def masks(instances: Instances) -> list[tuple[npt.NDArray[np.int64], Mask]]:
    """Return the corner of each instance's box and its mask in it, in the order of the table."""
    axes, table = instances.grid.axes, instances.table
    starts = table[[f"box_{a}_start" for a in axes]].to_numpy(np.int64)
    stops = table[[f"box_{a}_stop" for a in axes]].to_numpy(np.int64)
    return [
        (start, instances.labels[tuple(map(slice, start, stop))] == id)
        for id, start, stop in zip(table["id"].to_numpy(), starts, stops, strict=True)
    ]


def slice_axes(mask: Mask, axis: int, step: npt.NDArray[np.float64], rule: str) -> tuple[int, calipers.Axes]:
    """Return the slice that a rule chooses of a 3-D mask, and the axes there.

    Parameters
    ----------
    mask
        Not empty.
    axis
        Normal of the slices.
    step
        In-plane steps, from `medseg.ops.calipers.flat`.
    rule
        "longest" or "largest"; on a tie the first slice.
    """
    planes = np.moveaxis(mask, axis, 0)
    filled = np.flatnonzero(planes.any(axis=(1, 2)))
    parts = [_largest(planes[k], step) for k in filled]
    # rounded, so that of equal ones the first wins whatever the last digit
    sizes = [float(p.sum()) if rule == "largest" else round(calipers.longest(p, step)[0], 9) for p in parts]
    best = int(np.argmax(sizes))
    return int(filled[best]), calipers.axes(parts[best], step)


def _largest(plane: Mask, step: npt.NDArray[np.float64]) -> Mask:
    """Return the largest piece; of equal ones the longest, so that the order of the axes does not choose."""
    pieces = components.label(plane)
    size = components.sizes(pieces)
    size[0] = 0
    found = [pieces == number for number in np.flatnonzero(size == size.max())]
    return found[0] if len(found) == 1 else max(found, key=lambda piece: calipers.longest(piece, step)[0])


def _one(
    mask: Mask, start: npt.NDArray[np.int64], grid: Grid, axis: int, spec: MeasureSpec, suffix: str
) -> dict[str, Any]:
    linear = grid.affine[:-1, :-1]
    row: dict[str, Any] = {}
    if grid.ndim == 2:
        found, where = calipers.axes(mask, calipers.flat(linear)), None
        ends = np.concatenate([found.long_ends, found.short_ends])
    else:
        inside = [k for k in range(3) if k != axis]
        where, found = slice_axes(mask, axis, calipers.flat(linear[:, inside]), spec.slices)
        ends = np.insert(np.concatenate([found.long_ends, found.short_ends]), axis, where, axis=1)
        row |= {"axes_axis": grid.axes[axis], "axes_slice": where + int(start[axis])}
        row[f"diameter_3d_{suffix}"] = calipers.longest(mask, calipers.flat(linear))[0]
    row |= {f"long_axis_{suffix}": found.long, f"short_axis_{suffix}": found.short}
    placed = grid.to_world(ends + start)
    for name, point in zip(_ENDS, placed, strict=True):
        row |= {f"{name}_{a}_{suffix}": float(v) for a, v in zip("xyz", point, strict=False)}
    return row


_ENDS = ("long_axis_a", "long_axis_b", "short_axis_a", "short_axis_b")


def _columns(grid: Grid, suffix: str) -> list[str]:
    names = [f"long_axis_{suffix}", f"short_axis_{suffix}"]
    if grid.ndim == 3:
        names += [f"diameter_3d_{suffix}", "axes_axis", "axes_slice"]
    return names + [f"{end}_{a}_{suffix}" for end in _ENDS for a in "xyz"[: grid.ndim]]


def _unit(grid: Grid) -> npt.NDArray[np.float64]:
    """Return the direction of each array axis in the world, a column each."""
    return np.asarray(grid.affine[:-1, :-1] / np.array(grid.spacing))
