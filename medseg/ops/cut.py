"""A smooth border where the image has one: the convex form of a graph cut, and the intensities that tell two sides apart.

Arrays are (z, y, x); a plane is a volume of one slice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.ops.compiled import compiled

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]

_BINS = 16  # of the histograms of intensities
_FLAT = 0.1  # share of a border's price that is left where the image changes much
_BETWEEN = (
    5  # further ones between the usual values of both sides: what is on the border is as much of one as of the other
)
_DOUBT = 0.01  # added to each bin, so that a bin of one side alone does not decide all


def coarse(values: NDArray[Any], factors: Ints) -> Float32s:
    """Mean of blocks of ``factors`` voxels per axis; what lacks in the last blocks repeats the border."""
    lacking = [(0, int(-size % factor)) for size, factor in zip(values.shape, factors, strict=True)]
    whole = np.pad(values, lacking, mode="edge").astype(np.float32, copy=False)
    for axis, factor in enumerate(factors):
        if factor > 1:
            split = (*whole.shape[:axis], -1, int(factor), *whole.shape[axis + 1 :])
            whole = whole.reshape(split).mean(axis=axis + 1)
    return whole


def fine(values: Float32s, factors: Ints, shape: tuple[int, ...]) -> Float32s:
    """Read blocks of ``factors`` voxels at the voxels again, by linear interpolation."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            values = np.take(values, np.arange(shape[axis]), axis=axis)
            continue
        place = (np.arange(shape[axis]) + 0.5) / factor - 0.5
        first = np.clip(np.floor(place), 0, values.shape[axis] - 1).astype(int)
        second = np.minimum(first + 1, values.shape[axis] - 1)
        share = np.clip(place - first, 0, 1).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        values = np.take(values, first, axis=axis) * (1 - share) + np.take(values, second, axis=axis) * share
    return values


def odds(values: NDArray[Any], inside: NDArray[Any], outside: NDArray[Any], limit: float) -> Floats:
    """Logarithm of how much likelier each value is inside than outside.

    Parameters
    ----------
    values
        Intensities, any shape. No scale and no shift changes the result, so that modalities need no rules of their own.
        `inside` and `outside` must have a weight over 0 each.
    inside, outside
        Weights of the samples of either side, 0 for none; the shape of ``values``.
    limit
        Largest logarithm.
    """
    levels = np.quantile(values[(inside + outside) > 0], np.linspace(0, 1, _BINS + 1)[1:-1])
    usual = [float(np.median(values[weight > 0])) for weight in (inside, outside)]
    edges = np.sort(np.concatenate([levels, np.linspace(usual[0], usual[1], _BETWEEN + 2)[1:-1]]))
    bins = np.searchsorted(edges, values)
    shares = []
    for weight in (inside, outside):
        counts = np.bincount(bins.ravel(), weight.ravel().astype(np.float64), len(edges) + 1)
        smooth = np.convolve(np.pad(counts, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
        shares.append(smooth / max(smooth.sum(), 1e-9) + _DOUBT)
    return np.asarray(np.clip(np.log(shares[0] / shares[1]), -limit, limit)[bins])


def cut(cost: Float32s, image: Float32s, spacing: Floats, smooth: float, rounds: int) -> Float32s:
    """Part a volume in two so that costs and the area of the border are least.

    The border is cheaper where the image changes (Boykov and Jolly 2001, doi:10.1109/ICCV.2001.937505). The membership is
    relaxed to 0..1, which keeps the optimum (Chan et al. 2006, doi:10.1137/040615286), and found by the primal-dual method of
    Chambolle and Pock 2011 (doi:10.1007/s10851-010-0251-1).

    Parameters
    ----------
    cost
        (z, y, x) what a voxel costs inside; negative if it should be.
    image
        (z, y, x) intensities.
    spacing
        (3,) voxel size in the unit of length in which ``smooth`` is the price of a border.
    smooth
        That price, per volume.
    rounds
        Of the iteration.

    Returns
    -------
    (z, y, x) float32
        Membership; over .5 is inside.
    """
    step = np.diff(image, axis=2)
    usual = 1.5 * float(np.sqrt(np.mean(step**2))) if step.size else 0.0
    inside = (cost < 0).astype(np.float32)
    _descend(inside, cost, image, max(smooth, 1e-6) / spacing, max(usual, 1e-6), rounds)
    return inside


@compiled
def _cheapness(image: Any, dearest: Any, usual: float) -> Any:
    """One over the price of a border between a voxel and the next along each axis; 0 past the last."""
    out = np.zeros((3, *image.shape), dtype=np.float32)
    size = image.shape
    for z in range(size[0]):
        for y in range(size[1]):
            for x in range(size[2]):
                here = image[z, y, x]
                for axis in range(3):
                    a, b, c = z + (axis == 0), y + (axis == 1), x + (axis == 2)
                    if a < size[0] and b < size[1] and c < size[2]:
                        change = (image[a, b, c] - here) / usual
                        share = _FLAT + (1 - _FLAT) * np.exp(-change * change / 2)
                        out[axis, z, y, x] = 1 / (dearest[axis] * share)
    return out


@compiled
def _descend(inside: Any, cost: Any, image: Any, dearest: Any, usual: float, rounds: int) -> None:
    cheap = _cheapness(image, dearest, usual)
    flow = np.zeros_like(cheap)
    ahead = inside.copy()
    nz, ny, nx = cost.shape
    step, one, none = np.float32(0.28), np.float32(1), np.float32(0)  # just under 1 / sqrt(12), where it converges
    for _ in range(rounds):
        for z in range(nz):
            for y in range(ny):
                for x in range(nx):
                    here = ahead[z, y, x]
                    a = b = c = excess = none
                    if cheap[0, z, y, x] > 0:
                        a = flow[0, z, y, x] + step * (ahead[z + 1, y, x] - here)
                        excess += (a * cheap[0, z, y, x]) ** 2
                    if cheap[1, z, y, x] > 0:
                        b = flow[1, z, y, x] + step * (ahead[z, y + 1, x] - here)
                        excess += (b * cheap[1, z, y, x]) ** 2
                    if cheap[2, z, y, x] > 0:
                        c = flow[2, z, y, x] + step * (ahead[z, y, x + 1] - here)
                        excess += (c * cheap[2, z, y, x]) ** 2
                    shrink = one / np.sqrt(excess) if excess > one else one
                    flow[0, z, y, x], flow[1, z, y, x], flow[2, z, y, x] = a * shrink, b * shrink, c * shrink
        for z in range(nz):
            for y in range(ny):
                for x in range(nx):
                    gain = flow[0, z, y, x] + flow[1, z, y, x] + flow[2, z, y, x]
                    if z > 0:
                        gain -= flow[0, z - 1, y, x]
                    if y > 0:
                        gain -= flow[1, z, y - 1, x]
                    if x > 0:
                        gain -= flow[2, z, y, x - 1]
                    old = inside[z, y, x]
                    new = min(max(old + step * (gain - cost[z, y, x]), none), one)
                    inside[z, y, x] = new
                    ahead[z, y, x] = 2 * new - old
