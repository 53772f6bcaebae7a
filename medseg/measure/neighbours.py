"""Who lies beside whom: touching instances, distances, local density."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from medseg.instances import Instances
from medseg.ops import crofton
from medseg.ops.labels import dense


def neighbours(instances: Instances, nearest: int) -> pd.DataFrame:
    """Measure the surroundings of each instance.

    Parameters
    ----------
    instances
        2-D or 3-D.
    nearest
        How many neighbours the density looks at.

    Returns
    -------
    DataFrame
        A row per instance in the order of the table: touching (instances it shares a border with, corners included), contact_mm
        or contact_mm2 (length or area of these borders, by Crofton's formula), nearest_mm (from centroid to the nearest other
        centroid), density_per_mm2 or _mm3 (k neighbours / the disc or ball that reaches to the k-th; of fewer instances, k is
        what there is). NaN where there is no other. px where the spacing is unknown.
    """
    grid, n, count = instances.grid, instances.grid.ndim, len(instances)
    suffix = "mm" if grid.known else "px"
    power = "" if n == 2 else "2"
    _, labels = dense(instances.labels)
    _, pairs, shared = crofton.borders(labels, count, grid.affine[:-1, :-1])
    owners = pairs.ravel() - 1
    columns: dict[str, Any] = {
        "touching": np.bincount(owners, minlength=count),
        f"contact_{suffix}{power}": np.bincount(owners, weights=np.repeat(shared, 2), minlength=count),
    }
    k = min(nearest, count - 1)
    first, far = np.full(count, np.nan), np.full(count, np.nan)
    if k > 0:
        centres = grid.to_world(instances.table[[f"centroid_{a}" for a in grid.axes]].to_numpy(np.float64))
        distances, _ = cKDTree(centres).query(centres, k=k + 1)
        first, far = distances[:, 1], distances[:, k]
    columns[f"nearest_{suffix}"] = first
    ball = math.pi * far**2 if n == 2 else 4 / 3 * math.pi * far**3
    columns[f"density_per_{suffix}{n}"] = np.divide(k, ball, out=np.full(count, np.nan), where=ball > 0)
    return pd.DataFrame(columns, index=range(count))
