"""Read an array that lies on one grid at the voxels of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from medseg.errors import GeometryError
from medseg.grid import Grid


def onto(
    array: NDArray[np.generic], source: Grid, target: Grid, order: int, outside: float = 0.0
) -> NDArray[np.generic]:
    """Sample ``array`` (on ``source``) at the voxel centres of ``target``.

    Parameters
    ----------
    order
        0 nearest (labels), 1 linear (intensities).
    outside
        Value beyond the voxels of ``source``.

    Returns
    -------
    ndarray
        Shape ``target.shape``, type of ``array``.
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    out = affine_transform(
        array,
        to_source[:-1, :-1],
        to_source[:-1, -1],
        output_shape=target.shape,
        order=order,
        mode="grid-constant",
        cval=outside,
    )
    return np.asarray(out).astype(array.dtype, copy=False)


def beyond(labels: NDArray[np.int32], source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Return which labelled voxels (on ``source``) have their centre outside the voxels of ``target``; shape of ``labels``."""
    index = np.nonzero(labels)
    places = source.to_world(np.stack(index, axis=1).astype(np.float64))
    inside = target.to_index(places)
    half = 0.5 + 1e-6
    out = np.zeros(labels.shape, np.bool_)
    out[index] = ((inside < -half) | (inside > np.array(target.shape) - 1 + half)).any(axis=1)
    return out


def outside(labels: NDArray[np.int32], source: Grid, target: Grid) -> dict[int, int]:
    """Return, by id, how many voxels of ``labels`` (on ``source``) have their centre outside the voxels of ``target``."""
    ids, counts = np.unique(labels[beyond(labels, source, target)], return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def check_meets(labels: NDArray[np.int32], source: Grid, target: Grid) -> None:
    """Raise where no labelled voxel lies on the other grid; nothing labelled is fine.

    Raises
    ------
    GeometryError
        Labels and image share no place.
    """
    count = int(np.count_nonzero(labels))
    if count and sum(outside(labels, source, target).values()) == count:
        raise GeometryError(
            "All labels lie outside of the image; are both of one patient, one scan and one space? Register or resample first."
        )


def check_world(source: Grid, target: Grid) -> None:
    """Raise unless positions on both grids mean the same place.

    Raises
    ------
    GeometryError
        Another number of axes, a spacing known for only one, or another frame of reference.
    """
    if source.ndim != target.ndim or source.unit != target.unit:
        raise GeometryError(f"{source.describe()} cannot be put onto {target.describe()}: no common world.")
    if source.frame and target.frame and source.frame != target.frame:
        raise GeometryError("The frames of reference differ; register the two images first.")
