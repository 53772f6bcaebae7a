"""Generalised overlap of boxes in 2-D and 3-D."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from medseg.errors import InputError


def giou(a: npt.ArrayLike, b: npt.ArrayLike) -> NDArray[np.float64]:
    """Generalised IoU of boxes, pair by pair: IoU less the share of the common hull that neither box fills (-1 to 1).

    Parameters
    ----------
    a, b : array (N, 2 * ndim)
        Start then stop in array axis order, half-open; 2-D or 3-D. The spacing makes no difference.

    Returns
    -------
    ndarray of float64, (N,)

    Raises
    ------
    InputError
        The shapes differ, or a box is empty or not finite.

    References
    ----------
    Rezatofighi et al., Generalized intersection over union, CVPR 2019.

    Examples
    --------
    >>> giou([[0, 0, 2, 2]], [[0, 2, 2, 4]]).tolist()
    [0.0]
    """
    one, two = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if one.shape != two.shape or one.ndim != 2 or one.shape[1] not in (4, 6):
        raise InputError(f"boxes of shape {one.shape} and {two.shape}; both must be (N, 4) or (N, 6)")
    ndim = one.shape[1] // 2
    (low_a, high_a), (low_b, high_b) = ((box[:, :ndim], box[:, ndim:]) for box in (one, two))
    if not (
        (high_a - low_a > 0) & (high_b - low_b > 0) & np.isfinite(one + two).reshape(-1, 2, ndim).all(axis=1)
    ).all():
        raise InputError("a box is empty or not finite; each must stop after it starts, along every axis")
    common = np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0).prod(axis=1)
    union = (high_a - low_a).prod(axis=1) + (high_b - low_b).prod(axis=1) - common
    hull = (np.maximum(high_a, high_b) - np.minimum(low_a, low_b)).prod(axis=1)
    value: NDArray[np.float64] = common / union - (hull - union) / hull
    return value
