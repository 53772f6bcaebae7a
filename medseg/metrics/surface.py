"""Distances between the surfaces of two masks in mm: Hausdorff at a percentile, average distance, surface Dice at a tolerance.

Two kinds of surface. "area" puts an element between every 2 x 2 (x 2) voxels that are not all alike, weighted by the area of
the surface that marching cubes would draw there, as Nikolov 2021 and the surface-distance package do. "voxels" takes the
voxels of the mask that have a face neighbour outside, all of equal weight, as MedPy and MONAI do. What lies outside the
image is background, so an object cut by the image border has a surface there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from medseg.candidates import Candidates
from medseg.errors import GeometryError, InputError
from medseg.instances import Instances
from medseg.metrics.areas import areas
from medseg.metrics.contingency import Objects, Overlap, Side
from medseg.metrics.counting import Rows

Borders = Literal["area", "voxels"]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

SLACK = 1 + 1e-9  # of a tolerance: what lies at it but for rounding is within it
_VISITS = 6  # points a tree visits in the time the distance transform spends on one voxel; measured
_SMALL = 1 << 17  # voxels below which the tree is never dear enough to ask


@dataclass(frozen=True, eq=False)
class Surface:
    """Distances between two surfaces, each element's in the order of the distances.

    Attributes
    ----------
    to_prediction : ndarray of float64, (n,)
        Distance of each element of the true surface to the nearest element of the predicted one, ascending, in mm
        (in voxels where the spacing is unknown); infinite where there is none.
    to_truth : ndarray of float64, (m,)
        Distance of each element of the predicted surface to the nearest element of the true one, ascending.
    truth_areas, prediction_areas : ndarray of float64, (n,) and (m,)
        Weight of each element: mm2 (mm in 2-D) for "area" borders, 1 for "voxels".
    diagonal : float
        Diagonal of the whole image, the distance where one of the masks is empty.
    """

    to_prediction: Floats
    to_truth: Floats
    truth_areas: Floats
    prediction_areas: Floats
    diagonal: float

    def hd(self, percent: float = 95.0) -> float:
        """Hausdorff distance at a percentile of the surface's area: the larger of the two directed ones (100: the maximum).

        Both masks empty gives 0, one empty the image diagonal.
        """
        if not 0 < percent <= 100:
            raise InputError(f"a percentile of {percent} was asked for; give one above 0 and at most 100")
        if (alone := self._alone()) is not None:
            return alone
        return max(
            _percentile(self.to_prediction, self.truth_areas, percent),
            _percentile(self.to_truth, self.prediction_areas, percent),
        )

    def assd(self) -> float:
        """Average symmetric surface distance: the mean over the elements of both surfaces pooled (Heimann 2009).

        Each mm2 of either surface counts alike, whichever surface is larger; this is "ASSD" of Metrics Reloaded
        (Maier-Hein 2024). See `masd` for the other convention. Both masks empty gives 0, one empty the image diagonal.
        """
        if (alone := self._alone()) is not None:
            return alone
        total = self.truth_areas.sum() + self.prediction_areas.sum()
        return float((self.to_prediction @ self.truth_areas + self.to_truth @ self.prediction_areas) / total)

    def masd(self) -> float:
        """Mean of the two directed average distances, what MedPy calls ASSD and Metrics Reloaded MASD.

        Both masks empty gives 0, one empty the image diagonal.
        """
        if (alone := self._alone()) is not None:
            return alone
        there = self.to_prediction @ self.truth_areas / self.truth_areas.sum()
        back = self.to_truth @ self.prediction_areas / self.prediction_areas.sum()
        return float((there + back) / 2)

    def nsd(self, tau: float) -> float:
        """Normalised surface Dice (Nikolov 2021): share of both surfaces that lies within ``tau`` mm of the other one.

        Both masks empty gives 1, one empty 0. Three voxels of 0.1 mm are within 0.3 mm, though 3 * 0.1 > 0.3 in floats.
        """
        if not tau >= 0:
            raise InputError(f"a tolerance of {tau} mm was given; it must be 0 or more")
        if self._alone() is not None:
            return float(len(self.to_prediction) == len(self.to_truth))
        most = tau * SLACK
        near = self.truth_areas[self.to_prediction <= most].sum() + self.prediction_areas[self.to_truth <= most].sum()
        return float(near / (self.truth_areas.sum() + self.prediction_areas.sum()))

    def _alone(self) -> float | None:
        """The declared distance where a mask is empty; None where both have a surface."""
        if len(self.to_prediction) and len(self.to_truth):
            return None
        return self.diagonal if len(self.to_prediction) or len(self.to_truth) else 0.0


def surface_distances(
    truth: Mask, prediction: Mask, spacing: Sequence[float] | None = None, borders: Borders = "area"
) -> Surface:
    """Distances between the surfaces of two masks.

    Parameters
    ----------
    truth, prediction : bool array, (y, x) or (z, y, x)
        Masks of equal shape.
    spacing : sequence of float, optional
        Voxel size in mm along each array axis; without it distances are in voxels.
    borders : {"area", "voxels"}
        Elements between the voxels weighted by their area (default), or border voxels of equal weight.

    Raises
    ------
    InputError
        Shapes differ, or the arrays are not bool, 2-D or 3-D.
    GeometryError
        The spacing is not positive or does not fit the axes.

    Examples
    --------
    >>> truth, prediction = np.zeros((2, 5, 5), dtype=bool)
    >>> truth[1:3, 1:4] = prediction[1:4, 1:4] = True
    >>> round(surface_distances(truth, prediction, (3.0, 1.0)).hd(100), 3)
    3.0
    """
    size = check(truth, prediction, spacing)
    diagonal = math.hypot(*(n * s for n, s in zip(truth.shape, size, strict=True)))
    return _between(truth, prediction, size, borders, diagonal)


def instance_surfaces(
    truth: Objects, prediction: Objects, table: Overlap, partner: Rows, borders: Borders = "area"
) -> Iterator[tuple[int, Surface]]:
    """Distances between the surfaces of matched objects, each pair looked at within its boxes.

    Parameters
    ----------
    truth, prediction
        As they were given to `overlap`.
    table, partner
        From `overlap` and from `match`: for each true object the row of its prediction, -1 where none.
    borders
        As for `surface_distances`.

    Yields
    ------
    row, surface : int, Surface
        Row of the true object, and the distances; lengths in mm where the table knows the spacing. Objects without a
        partner are left out.

    Raises
    ------
    InputError
        The objects are not 2-D or 3-D, or ``partner`` does not fit the table.
    """
    ndim = len(table.shape)
    if partner.shape != (table.n_truth,) or ndim not in (2, 3):
        raise InputError(f"partners of shape {partner.shape} for {table.n_truth} objects on a field {table.shape}")
    size = table.spacing or (1.0,) * ndim
    diagonal = math.hypot(*(n * s for n, s in zip(table.shape, size, strict=True)))
    for i in np.flatnonzero(partner >= 0).tolist():
        j = int(partner[i])
        a, b = table.truth.boxes[i], table.prediction.boxes[j]
        start, stop = np.minimum(a[:ndim], b[:ndim]), np.maximum(a[ndim:], b[ndim:])
        pair = _cut(truth, table.truth, i, start, stop), _cut(prediction, table.prediction, j, start, stop)
        yield i, _between(*pair, size, borders, diagonal)


def check(truth: Mask, prediction: Mask, spacing: Sequence[float] | None) -> tuple[float, ...]:
    """Return the spacing (1 where unknown) of two masks that can be compared; else raise."""
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if mask.dtype != np.bool_ or mask.ndim not in (2, 3):
            raise InputError(f"{name} is {mask.dtype} of shape {mask.shape}; give a bool mask (y, x) or (z, y, x)")
    if truth.shape != prediction.shape:
        raise InputError(f"truth has shape {truth.shape}, prediction {prediction.shape}; both must be the same")
    if spacing is None:
        return (1.0,) * truth.ndim
    size = tuple(float(s) for s in spacing)
    if len(size) != truth.ndim or not all(math.isfinite(s) and s > 0 for s in size):
        raise GeometryError(f"spacing {size} does not fit {truth.ndim} axes; give one positive size in mm for each")
    return size


def box_of(*masks: Mask) -> tuple[slice, ...] | None:
    """The smallest box that holds all foreground of masks of one shape; None where there is none."""
    box: list[slice] = []
    for axis in range(masks[0].ndim):
        others = tuple(a for a in range(masks[0].ndim) if a != axis)
        hit = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        if not len(hit):
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
        masks = tuple(mask[(slice(None),) * axis + (box[-1],)] for mask in masks)
    return tuple(box)


def _between(truth: Mask, prediction: Mask, size: tuple[float, ...], borders: Borders, diagonal: float) -> Surface:
    """`surface_distances` of checked masks."""
    if borders not in ("area", "voxels"):
        raise InputError(f"borders {borders!r} are not known; use area or voxels")
    box = box_of(truth, prediction)
    if box is None:
        none = np.empty(0)
        return Surface(none, none, none, none, diagonal)
    sides = [_elements(np.pad(mask[box], 1), size, borders) for mask in (truth, prediction)]
    (on, a), (off, b) = sides
    to_prediction, to_truth = nearest(on, off, size), nearest(off, on, size)
    first, second = np.lexsort((a, to_prediction)), np.lexsort((b, to_truth))
    return Surface(to_prediction[first], to_truth[second], a[first], b[second], diagonal)


def _cut(objects: Objects, side: Side, row: int, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Mask:
    """The mask of one object within a box that holds it."""
    if not isinstance(objects, Candidates):
        labels = objects.labels if isinstance(objects, Instances) else objects
        inside: Mask = labels[tuple(map(slice, start.tolist(), stop.tolist()))] == side.ids[row]
        return inside
    number = int(side.ids[row]) - 1
    at = objects.boxes[number, : len(start)] - start
    own, mask = objects.masks[number], np.zeros(stop - start, np.bool_)
    mask[tuple(slice(a, a + n) for a, n in zip(at.tolist(), own.shape, strict=True))] = own
    return mask


def _elements(padded: Mask, size: tuple[float, ...], borders: Borders) -> tuple[Mask, Floats]:
    """Where the elements of a mask's surface are, and their weights in C order. The mask has a margin of background."""
    if borders == "voxels":
        inner = padded.copy()
        for axis in range(padded.ndim):
            inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        edge = padded & ~inner
        return edge, np.ones(int(edge.sum()))
    code = padded.view(np.uint8)
    for axis in range(padded.ndim):  # 2, 4, then 8 neighbours in one number
        lead = (slice(None),) * axis
        code = code[(*lead, slice(None, -1))] | code[(*lead, slice(1, None))] << np.uint8(1 << axis)
    on = (code != 0) & (code != (1 << (1 << padded.ndim)) - 1)
    return on, areas(size)[code[on]]


def nearest(on: Mask, other: Mask, size: tuple[float, ...]) -> Floats:
    """Distance of each element to the nearest one of the other surface, in C order.

    Exact in float64, where a fast distance transform gives float32: the nearest element is found first, then the distance
    is taken from whole numbers of voxels. 2 x 0.7 mm are within 1.4 mm so; 3 x 0.1 mm are 0.30000000000000004, not within 0.3.
    """
    here = np.flatnonzero(on)
    distance = np.zeros(len(here))
    away = ~other.ravel()[here]  # elements that both surfaces share are at 0
    points, targets = (
        np.stack(np.unravel_index(flat, on.shape), axis=1) for flat in (here[away], np.flatnonzero(other))
    )
    if not len(targets):
        return np.full(len(here), np.inf)
    if not len(points):
        return distance
    spacing = np.array(size)
    tree = cKDTree(targets * spacing)
    if on.size > _SMALL and _dear(tree, points * spacing, 2 * max(size), on.size):
        where = distance_transform_edt(~other, sampling=size, return_distances=False, return_indices=True)
        nearest = where[(slice(None), *points.T)].T
    else:
        nearest = targets[tree.query(points * spacing)[1]]
    distance[away] = np.sqrt((((points - nearest) * spacing) ** 2).sum(axis=1))
    return distance


def _dear(tree: Any, points: Floats, leaf: float, voxels: int) -> bool:
    """Whether a search in the tree would cost more than a distance transform of all voxels.

    It does where many targets are about equally far, as around the centre of a sphere. A sample of points tells.
    """
    sample = points[:: max(1, len(points) // 64)]
    radius = tree.query(sample)[0] + leaf
    visits = tree.query_ball_point(sample, radius, return_length=True).mean()
    return bool(visits * len(points) > _VISITS * voxels)


def _percentile(distances: Floats, areas: Floats, percent: float) -> float:
    """Distance that ``percent`` of the area does not exceed."""
    if percent == 100:
        return float(distances[-1])
    place = np.searchsorted(np.cumsum(areas) / np.sum(areas), percent / 100)
    return float(distances[min(int(place), len(distances) - 1)])
