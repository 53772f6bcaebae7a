"""PET: standardised uptake values, metabolic volume, total lesion glycolysis.

Wahl et al., From RECIST to PERCIST, Journal of Nuclear Medicine 50, 2009 (SUVpeak: a sphere of 1 cm3).
Boellaard et al., FDG PET/CT: EANM procedure guidelines for tumour imaging: version 2.0,
European Journal of Nuclear Medicine 42, 2015 (41 % of the maximum).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import convolve
from scipy.signal import fftconvolve

from medseg.grid import Grid
from medseg.instances import Instances
from medseg.measure.lesions import masks
from medseg.spec import MeasureSpec

Floats = npt.NDArray[np.float64]

RADIUS = (3 * 1000 / (4 * math.pi)) ** (1 / 3)  # mm, of a ball of 1 cm3
_FINE = 9  # points per axis and voxel by which the share of a voxel inside the ball is counted


def uptake(instances: Instances, suv: npt.NDArray[np.floating], name: str, spec: MeasureSpec) -> pd.DataFrame:
    """Measure uptake inside each instance.

    Parameters
    ----------
    instances
        3-D, with known spacing.
    suv
        SUV at each voxel, of the grid's shape.
    name
        Prefix of the columns: "suv", "suvlbm" or "suvbsa".
    spec
        Thresholds of MTV.

    Returns
    -------
    DataFrame
        <name>_max, _mean, _peak, _median, _sd, and, for "suv", mtv_ml and tlg_g (of the mask itself), mtv_<P>pct_ml and
        tlg_<P>pct_g (voxels of at least P % of the maximum), mtv_suv<T>_ml and tlg_suv<T>_g (of at least T). TLG = mean x volume.
    """
    tags = ("", f"_{spec.mtv_percent:g}pct", f"_suv{spec.mtv_suv:g}") if name == "suv" else ()
    columns = [f"{name}_{said}" for said in ("max", "mean", "peak", "median", "sd")]
    columns += [column for tag in tags for column in (f"mtv{tag}_ml", f"tlg{tag}_g")]
    rows = []
    millilitres = instances.grid.voxel_size / 1000.0
    ball = sphere(instances.grid)
    for start, mask in masks(instances):
        place = tuple(slice(a, a + n) for a, n in zip(start.tolist(), mask.shape, strict=True))
        inside = suv[place][mask].astype(np.float64)
        row = {
            f"{name}_max": inside.max(),
            f"{name}_mean": inside.mean(),
            f"{name}_peak": peak(suv, mask, start, ball),
            f"{name}_median": np.median(inside),
            f"{name}_sd": inside.std(),
        }
        if name == "suv":
            least = (-np.inf, spec.mtv_percent / 100 * inside.max(), spec.mtv_suv)
            for tag, values in zip(tags, [inside[inside >= limit] for limit in least], strict=True):
                row |= {f"mtv{tag}_ml": len(values) * millilitres, f"tlg{tag}_g": float(values.sum()) * millilitres}
        rows.append(row)
    return pd.DataFrame(rows, columns=columns, dtype=np.float64)  # nothing found is MTV 0: the columns stay


def sphere(grid: Grid) -> Floats:
    """Return how much of each voxel around a voxel's centre lies in a ball of 1 cm3 there; odd sizes, sums to 1."""
    linear = grid.affine[:-1, :-1]
    # how far the ball reaches along each array axis, which need not be at right angles
    reach = RADIUS * np.linalg.norm(np.linalg.inv(linear), axis=1)
    half = np.floor(reach + 0.5).astype(int)
    fine = (np.arange(_FINE) + 0.5) / _FINE - 0.5
    lines = [np.add.outer(np.arange(-h, h + 1), fine).ravel() for h in half]
    points = np.stack(np.meshgrid(*lines, indexing="ij"))
    far = np.einsum("ij,j...->i...", linear, points)
    inside = ((far**2).sum(0) <= RADIUS**2).astype(np.float64)
    shape = [part for h in half for part in (2 * h + 1, _FINE)]
    share = inside.reshape(shape).mean(axis=tuple(range(1, 2 * grid.ndim, 2)))
    return np.asarray(share / share.sum())


def peak(
    suv: npt.NDArray[np.floating],
    mask: npt.NDArray[np.bool_],
    start: npt.NDArray[np.int64],
    ball: Floats,
) -> float:
    """Return the highest mean over a ball of 1 cm3 whose centre is a voxel of the lesion.

    The ball may reach out of the lesion; beyond the image it is cut off.
    """
    half = np.array(ball.shape) // 2
    low, high = start - half, start + mask.shape + half
    inner = tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, suv.shape, strict=True))
    pads = [(s.start - a, b - s.stop) for s, a, b in zip(inner, low, high, strict=True)]
    values = np.pad(suv[inner].astype(np.float64), pads)
    there = np.pad(np.ones(tuple(s.stop - s.start for s in inner)), pads)
    if ball.size * mask.size > 50_000_000:
        total, weight = (fftconvolve(part, ball, mode="valid") for part in (values, there))
    else:
        cut = tuple(slice(h, h + n) for h, n in zip(half, mask.shape, strict=True))
        total, weight = (convolve(part, ball, mode="constant")[cut] for part in (values, there))
    return float((total / np.maximum(weight, 1e-9))[mask].max())
