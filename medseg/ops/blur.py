"""Gaussian smoothing and peaks of float32 arrays, as `scipy.ndimage` has them to the last bit, several times as fast.

SciPy takes a line at a time out of the array; here neighbouring lines go together, in the same order of additions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.ops.compiled import compiled

Floats = NDArray[np.float32]

_TRUNCATE = 4.0  # standard deviations at which the kernel ends
_BLOCK = 1024  # lines that go together: what the nearest cache holds


def gaussian(values: Floats, sigma: NDArray[np.floating]) -> Floats:
    """Smooth with a Gaussian; outside of the array all is 0.

    Parameters
    ----------
    values
        Of any number of axes.
    sigma
        Standard deviation in voxels, per axis; 0 leaves an axis as it is.
    """
    out = np.ascontiguousarray(values, dtype=np.float32)
    for axis, deviation in enumerate(np.asarray(sigma, dtype=np.float64).tolist()):
        if deviation > 1e-15:
            before, size, after = (int(np.prod(n)) for n in (out.shape[:axis], out.shape[axis], out.shape[axis + 1 :]))
            out = _smoothed(out.reshape(before, size, after), _half_kernel(deviation)).reshape(out.shape)
    return out


def peaks(values: Floats, least: float) -> NDArray[np.int64]:
    """Index of voxels of at least ``least`` that no neighbour, corners included, exceeds: (n, ndim) in C order.

    Values are not negative.
    """
    ndim = values.ndim
    found = _peaks(np.ascontiguousarray(values).reshape((1,) * (3 - ndim) + values.shape), np.float32(least))
    return np.stack(np.unravel_index(np.flatnonzero(found), values.shape), axis=1)


def _half_kernel(sigma: float) -> NDArray[np.float64]:
    """Weights of a Gaussian of sum 1, from its middle outwards."""
    radius = int(_TRUNCATE * sigma + 0.5)
    places = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 / (sigma * sigma) * places**2)
    return np.asarray((kernel / kernel.sum())[radius:])


@compiled
def _add(total: Any, lines: Any, start: int, kernel: Any, step: int) -> None:
    """Add to a line the lines on its both sides by their weights, the outermost first, two pairs at a time."""
    n = len(total)
    k = len(kernel) - 1
    while k >= 2:
        w1, w2 = kernel[k], kernel[k - 1]
        a1, b1 = lines[start - k * step : start - k * step + n], lines[start + k * step : start + k * step + n]
        a2 = lines[start - (k - 1) * step : start - (k - 1) * step + n]
        b2 = lines[start + (k - 1) * step : start + (k - 1) * step + n]
        for j in range(n):
            total[j] = (total[j] + (a1[j] + b1[j]) * w1) + (a2[j] + b2[j]) * w2
        k -= 2
    if k == 1:
        w1 = kernel[1]
        a1, b1 = lines[start - step : start - step + n], lines[start + step : start + step + n]
        for j in range(n):
            total[j] += (a1[j] + b1[j]) * w1


@compiled
def _smoothed(values: Any, kernel: Any) -> Any:
    """Smooth the middle one of three axes. Lines of ``values`` and zeros beside them are pairs that are added one by one."""
    before, size, after = values.shape
    out = np.empty(values.shape, np.float32)
    radius = len(kernel) - 1
    if after == 1:
        line = np.zeros(size + 2 * radius)
        total = np.empty(size)
        for a in range(before):
            for i in range(size):
                line[radius + i] = values[a, i, 0]
            middle = line[radius : radius + size]
            for i in range(size):
                total[i] = middle[i] * kernel[0]
            _add(total, line, radius, kernel, 1)
            for i in range(size):
                out[a, i, 0] = total[i]
        return out
    wide = min(after, _BLOCK)
    lines = np.zeros((size + 2 * radius) * wide)
    total = np.empty(wide)
    for a in range(before):
        for first in range(0, after, wide):
            n = min(wide, after - first)
            for i in range(size):
                for j in range(n):
                    lines[(radius + i) * wide + j] = values[a, i, first + j]
            for i in range(size):
                start = (radius + i) * wide
                for j in range(n):
                    total[j] = lines[start + j] * kernel[0]
                _add(total, lines, start, kernel, wide)
                for j in range(n):
                    out[a, i, first + j] = total[j]
    return out


@compiled
def _peaks(values: Any, least: Any) -> Any:
    """Whether each voxel of a volume is at least ``least`` and no neighbour exceeds it."""
    nz, ny, nx = values.shape
    out = np.zeros(values.shape, np.bool_)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                value = values[z, y, x]
                if value < least:
                    continue
                highest = True
                for k in range(max(z - 1, 0), min(z + 2, nz)):
                    for j in range(max(y - 1, 0), min(y + 2, ny)):
                        for i in range(max(x - 1, 0), min(x + 2, nx)):
                            if values[k, j, i] > value:
                                highest = False
                                break
                        if not highest:
                            break
                    if not highest:
                        break
                out[z, y, x] = highest
    return out
