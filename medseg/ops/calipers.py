"""Lengths of shapes, measured on their half-level boundary: half a voxel outside of the outermost voxel centres.

Between the centre of a voxel inside and that of a neighbour outside the boundary lies halfway, as marching squares has it at
level 0.5. Through pixel centres a disc of 10 mm measures 9.86 mm at 0.14 mm, around pixel corners more than it is.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform
from skimage.measure import find_contours

from medseg.ops.components import largest_of

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_FEW = 120  # points from which a hull is cheaper than all pairs


@dataclass(frozen=True, eq=False)
class Axes:
    """The two axes of a 2-D shape.

    Attributes
    ----------
    long, short : float
        Lengths, in the unit of the step.
    long_ends, short_ends : float64 (2, 2)
        End points (row, column) in pixels, pixel centres at whole numbers.
    """

    long: float
    short: float
    long_ends: FloatArray
    short_ends: FloatArray


def flat(step: npt.ArrayLike) -> FloatArray:
    """Return the (k, k) matrix that takes index offsets to plane or space coordinates with true lengths and angles.

    Parameters
    ----------
    step : array (n, k)
        World offset of one step along each of k axes, one column each; axes may lie askew.

    Examples
    --------
    >>> flat([[0.0, 0.5], [2.0, 0.0], [0.0, 0.0]]).tolist()
    [[2.0, 0.0], [0.0, 0.5]]
    """
    columns = np.asarray(step, np.float64)
    return np.asarray(np.linalg.cholesky(columns.T @ columns).T)


def boundary(mask: Mask) -> FloatArray:
    """Return points (N, ndim), in voxels, among which are all corners of the convex hull of a mask's half-level boundary.

    Raises
    ------
    ValueError
        The mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty mask has no boundary")
    # of each line along the last axis only the ends can be corners
    first, last = mask.argmax(-1), mask.shape[-1] - 1 - mask[..., ::-1].argmax(-1)
    lines = np.argwhere(mask.any(-1))
    where = tuple(lines.T)
    ends = np.unique(np.concatenate([np.column_stack([lines, end[where]]) for end in (first, last)]), axis=0)
    half = 0.5 * np.eye(mask.ndim)
    return np.asarray((ends[:, None] + np.concatenate([half, -half])).reshape(-1, mask.ndim), np.float64)


def farthest(points: FloatArray) -> tuple[float, int, int]:
    """Return the largest distance between two of some points (N, k), and which two; exact.

    Examples
    --------
    >>> farthest(np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]]))
    (5.0, 0, 1)
    """
    kept = np.arange(len(points))
    if len(points) > _FEW:
        with suppress(QhullError):  # all on one line or plane
            kept = np.sort(ConvexHull(points).vertices)
    best = (0.0, 0, 0)
    for start in range(0, len(kept), 2000):  # of a hull of many corners, so many rows at once
        some = points[kept[start : start + 2000]]
        distances = squareform(pdist(some)) if len(kept) <= 2000 else _between(some, points[kept])
        a, b = divmod(int(distances.argmax()), distances.shape[1])
        if distances[a, b] > best[0]:
            best = (float(distances[a, b]), int(kept[start + a]), int(kept[b]))
    return best


def longest(mask: Mask, step: FloatArray) -> tuple[float, FloatArray]:
    """Return the longest axis of a shape, and its end points (2, ndim) in voxels.

    Parameters
    ----------
    mask : bool array
        2-D or 3-D, not empty.
    step : float64 (ndim, ndim)
        From `flat`.
    """
    points = boundary(mask)
    length, a, b = farthest(points @ step.T)
    return length, points[[a, b]]


def axes(mask: Mask, step: FloatArray) -> Axes:
    """Return the longest axis of a 2-D shape and the longest chord at right angles to it.

    A chord is the stretch between the outermost crossings of a line with the boundary, so it may bridge a notch. Of several
    pieces the largest is measured.

    Parameters
    ----------
    mask : bool array (rows, columns)
        Not empty.
    step : float64 (2, 2)
        From `flat`.
    """
    mask = largest_of(mask)
    long, ends = longest(mask, step)
    # corners of pieces connect, in the contour as in the pieces
    contours = [c - 1.0 for c in find_contours(np.pad(mask, 1).astype(np.float64), 0.5, fully_connected="high")]  # type: ignore[no-untyped-call]
    outline = max(contours, key=lambda c: float(np.ptp(c, axis=0).prod()))
    placed = outline @ step.T
    along = (ends[1] - ends[0]) @ step.T / long
    across = np.array([-along[1], along[0]])
    where, height = placed @ along, placed @ across
    low, high, at = _chords(where, height)
    k = int(np.argmax(high - low))
    back = np.linalg.inv(step)
    chord = np.stack([at[k] * along + low[k] * across, at[k] * along + high[k] * across])
    return Axes(long, float(high[k] - low[k]), ends, chord @ back.T)


def width(points: FloatArray) -> float:
    """Return the smallest distance of two parallel lines that enclose points (N, 2): the smallest Feret diameter."""
    try:
        hull = points[ConvexHull(points).vertices]
    except QhullError:
        return 0.0
    edges = np.roll(hull, -1, axis=0) - hull
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1)[:, None]
    heights = (hull[None] * normals[:, None]).sum(-1)
    return float(np.ptp(heights, axis=1).min())


def _chords(where: FloatArray, height: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return lowest and highest crossing of a closed outline with lines across, just beside each of its vertices.

    Between vertices the outermost edges stay the same, as edges do not cross: the longest chord is found at a vertex, from its
    left or from its right.
    """
    a, b = np.stack([where[:-1], where[1:]]), np.stack([height[:-1], height[1:]])
    order = a.argsort(axis=0)
    left, right = np.take_along_axis(a, order, 0)
    start, stop = np.take_along_axis(b, order, 0)
    sloped = right - left > 1e-9
    left, right, start, stop = left[sloped], right[sloped], start[sloped], stop[sloped]
    slope = (stop - start) / (right - left)
    places = np.unique(where.round(9))
    lows, highs, ats = [], [], []
    for chunk in np.array_split(places, max(1, len(places) * len(left) // 2_000_000)):
        t = chunk[:, None]
        value = start + (np.clip(t, left, right) - left) * slope
        for on in ((left < t - 1e-9) & (t <= right + 1e-9), (left <= t + 1e-9) & (t < right - 1e-9)):
            lows.append(np.where(on, value, np.inf).min(axis=1))
            highs.append(np.where(on, value, -np.inf).max(axis=1))
            ats.append(chunk)
    low, high, at = (np.concatenate(v) for v in (lows, highs, ats))
    none = ~np.isfinite(low)
    return np.where(none, 0.0, low), np.where(none, 0.0, high), at


def _between(some: FloatArray, all_: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(some[:, None] - all_[None], axis=-1))
