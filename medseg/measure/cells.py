"""Shape of cells: sizes, axes, how round and how solid they are. All in physical units, for any voxel size and direction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import ConvexHull, QhullError

from medseg.instances import Instances
from medseg.measure.lesions import masks
from medseg.ops import calipers, crofton
from medseg.ops.labels import dense

Floats = npt.NDArray[np.float64]


def cells(instances: Instances) -> pd.DataFrame:
    """Measure the shape of each instance.

    Returns
    -------
    DataFrame
        A row per instance in the order of the table, lengths in mm (px where the spacing is unknown):

        - equivalent_diameter: of the disc or ball of the same size;
        - feret_max, feret_min (2-D): largest and smallest distance of two parallel lines around the half-level boundary;
        - perimeter (2-D) or surface (3-D), by Crofton's formula (`medseg.ops.crofton`);
        - major_axis, minor_axis (middle_axis in 3-D): of the ellipse or ellipsoid with the same second moments; these are no
          diameters, and of a cell that is not an ellipse they may be longer than it;
        - eccentricity (2-D): of that ellipse, 0 for a circle;
        - orientation (2-D): of its major axis in degrees, -90 to 90, from the x axis, positive where it rises to the right
          on a screen that shows y downwards;
        - circularity (2-D, 4 pi area / perimeter^2) or sphericity (3-D, Wadell 1935), about 1 for a disc or ball;
        - solidity: share of the convex hull that is filled.
    """
    grid, table, n = instances.grid, instances.table, instances.grid.ndim
    linear = grid.affine[:-1, :-1]
    suffix = "mm" if grid.known else "px"
    count = len(table)
    size = table["voxels"].to_numpy(np.float64) * grid.voxel_size
    _, labels = dense(instances.labels)
    border, _, _ = crofton.borders(labels, count, linear)
    values, vectors = _moments(labels, count, linear)
    columns: dict[str, Any] = {
        f"equivalent_diameter_{suffix}": 2 * (size / (math.pi if n == 2 else 4 * math.pi / 3)) ** (1 / n)
    }
    step = calipers.flat(linear)
    hulls = np.array([_hull(mask, step) for _, mask in masks(instances)]).reshape(count, 3)
    columns[f"feret_max_{suffix}"] = hulls[:, 0]
    # the moments of an ellipse of semi-axis a are a^2/4, those of an ellipsoid a^2/5
    axes = 2 * np.sqrt((n + 2) * np.maximum(values, 0))
    if n == 2:
        columns[f"feret_min_{suffix}"] = hulls[:, 1]
        columns[f"perimeter_{suffix}"] = border
        columns |= {f"major_axis_{suffix}": axes[:, 1], f"minor_axis_{suffix}": axes[:, 0]}
        columns["eccentricity"] = np.sqrt(np.maximum(0, 1 - (axes[:, 0] / axes[:, 1]) ** 2))
        columns["orientation"] = _angle(vectors[:, :, 1])
        columns["circularity"] = np.minimum(4 * math.pi * size / border**2, 1.0)
    else:
        columns[f"surface_{suffix}2"] = border
        columns |= {f"{name}_axis_{suffix}": axes[:, k] for name, k in (("major", 2), ("middle", 1), ("minor", 0))}
        columns["sphericity"] = np.minimum(math.pi ** (1 / 3) * (6 * size) ** (2 / 3) / border, 1.0)
    columns["solidity"] = hulls[:, 2]
    return pd.DataFrame(columns, index=range(count))


def _moments(labels: npt.NDArray[np.int32], count: int, linear: Floats) -> tuple[Floats, Floats]:
    """Return variances along the principal axes (N, n), smallest first, and these axes (N, n, n), a column each, in the world."""
    n = labels.ndim
    places = np.nonzero(labels)
    owner = labels[places] - 1
    size = np.maximum(np.bincount(owner, minlength=count), 1)
    index = [p.astype(np.float64) for p in places]
    means = [np.bincount(owner, weights=p, minlength=count) / size for p in index]
    index = [p - m[owner] for p, m in zip(index, means, strict=True)]
    spread = np.zeros((count, n, n))
    for a in range(n):
        for b in range(a, n):
            spread[:, a, b] = np.bincount(owner, weights=index[a] * index[b], minlength=count) / size
            spread[:, b, a] = spread[:, a, b]
    spread += np.eye(n) / 12  # a voxel is a box, not a point
    values, vectors = np.linalg.eigh(linear @ spread @ linear.T)
    return values, vectors


def _angle(vectors: Floats) -> Floats:
    """Return the direction of (x, y) vectors, y downwards, in degrees above the x axis, in (-90, 90]."""
    degrees = np.degrees(np.arctan2(-vectors[:, 1], vectors[:, 0]))
    return np.asarray(90 - (90 - degrees) % 180)


def _hull(mask: npt.NDArray[np.bool_], step: Floats) -> tuple[float, float, float]:
    """Return largest and smallest Feret diameter (the latter 0 in 3-D), and solidity."""
    points = calipers.boundary(mask)
    placed = points @ step.T
    long = calipers.farthest(placed)[0]
    if mask.ndim == 2:
        return long, calipers.width(placed), _solidity(mask)
    return long, 0.0, min(1.0, int(mask.sum()) / float(ConvexHull(points).volume))


def _solidity(mask: npt.NDArray[np.bool_]) -> float:
    """Return the share of the pixels in the convex hull of the pixel centres that are set, counted by Pick's theorem."""
    centres = np.argwhere(mask)
    try:
        corners = centres[ConvexHull(centres).vertices].astype(np.int64)
    except (QhullError, ValueError):  # all in one line: its ends are set, and so it is filled or has gaps
        step = centres[-1] - centres[0]
        return len(centres) / (math.gcd(*step.tolist()) + 1) if step.any() else 1.0
    edges = np.roll(corners, -1, axis=0) - corners
    twice = abs(int((corners[:, 0] * edges[:, 1] - corners[:, 1] * edges[:, 0]).sum()))
    rim = int(np.gcd(edges[:, 0], edges[:, 1]).sum())
    return len(centres) / ((twice + rim) / 2 + 1)
