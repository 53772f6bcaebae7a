"""Read an array that lies on one grid at the voxels of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from medseg.grid import Grid


def onto(array: NDArray[np.generic], source: Grid, target: Grid, order: int) -> NDArray[np.generic]:
    """Sample ``array`` (on ``source``) at the voxel centres of ``target``.

    Parameters
    ----------
    order
        0 nearest (labels), 1 linear (intensities).

    Returns
    -------
    ndarray
        Shape ``target.shape``, type of ``array``; 0 outside ``source``.
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    out = affine_transform(
        array, to_source[:-1, :-1], to_source[:-1, -1], output_shape=target.shape, order=order, mode="grid-constant"
    )
    return np.asarray(out).astype(array.dtype, copy=False)
