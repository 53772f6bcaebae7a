"""A closed surface around a point: how far an object reaches along each of many rays.

Star-shaped surfaces that are smooth and best by the image, as in optimal surface detection (Li et al. 2006,
doi:10.1109/TPAMI.2006.19), here by min-sum belief propagation (Felzenszwalb and Huttenlocher 2006,
doi:10.1007/s11263-006-7899-4). Radii grow by a constant factor, so that small and large objects are the same problem, and the
image is read the coarser the further away. At each of many scales the intensities within and just beyond it say what is inside;
the scale whose surface parts the two best is taken (the scale selection of Lindeberg 1998, doi:10.1023/A:1008045108935).

Arrays are (z, y, x); a plane is a volume of one slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from medseg.ops.compiled import compiled
from medseg.ops.cut import coarse, odds

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FACTOR = 1.12  # from a radius to the next
_WINDOW = 6  # radii that a surface may lie within or beyond its scale: half to twice
_RIM = 4  # radii on each side of a surface that are compared
_BEND = 0.1  # cost of one step of radius between neighbouring rays
_FIT = 0.14  # weight of the intensities against it
_ROUNDS = 12  # of belief propagation
_NOISE = 2.0  # contrast that chance gives a rim of one voxel; falls with the root of the voxels
_KEEP = 0.6  # price of leaving the span of radii by a factor e
_BROKEN = 2.0  # cost of a radius that a click forbids


class Rays(NamedTuple):
    """Directions around a point."""

    directions: Floats  # (N, 3), unit vectors (z, y, x) in space, not in voxels
    neighbours: Ints  # (N, M), nearest directions of each


class Profiles(NamedTuple):
    """An image along rays."""

    radii: Floats  # (K,), in the unit of spacing
    values: Float32s  # (N, K)
    within: Bools  # (N, K), whether that is in the image


@lru_cache
def rays(flat: bool, count: int) -> Rays:
    """Return evenly spread directions: on a sphere (a Fibonacci lattice), or, if flat, on the circle of y and x."""
    number = np.arange(count)
    if flat:
        angle = number * 2 * np.pi / count
        parts = [np.zeros(count), np.sin(angle), np.cos(angle)]
    else:
        height = 1 - (2 * number + 1) / count
        turn, ring = np.pi * (1 + 5**0.5) * (number + 0.5), np.sqrt(1 - height**2)
        parts = [height, ring * np.sin(turn), ring * np.cos(turn)]
    directions: Floats = np.stack(parts, axis=1).astype(np.float64)
    closeness = directions @ directions.T
    np.fill_diagonal(closeness, -2)
    return Rays(directions, np.argsort(-closeness, axis=1, kind="stable")[:, : 2 if flat else 6])


def profiles(values: Float32s, spacing: Floats, centre: Floats, around: Rays, reach: float) -> Profiles:
    """Read an image along rays, the coarser the further away.

    Parameters
    ----------
    values
        (z, y, x) image, or the part of it within reach.
    spacing
        (3,) voxel size.
    centre
        (3,) index where the rays start.
    around
        From `rays`.
    reach
        Largest radius in the unit of spacing.
    """
    least = float(spacing.min())
    count = max(int(np.log(reach / least) / np.log(FACTOR)) + 1, _WINDOW + 6)
    radii = np.asarray(least * FACTOR ** np.arange(count), np.float64)
    # the gap of neighbouring rays is about .22 of the radius
    level = np.maximum(0, np.floor(np.log2(np.maximum(0.22 * radii / least, 1)) + 0.25)).astype(int)
    found = np.empty((len(around.directions), count), np.float32)
    within = np.empty(found.shape, bool)
    shape = np.array(values.shape)
    for one in np.unique(level):
        some = np.flatnonzero(level == one)
        factors = np.maximum(1, np.round(least * 2**one / spacing)).astype(int)
        half = np.ceil(radii[some[-1]] / spacing / factors).astype(int) * factors + factors
        middle = np.round(centre).astype(int)
        low = np.clip(middle - half, 0, shape - 1)
        low -= low % factors  # blocks lie the same wherever the centre
        high = np.clip(middle + half + 1, low + 1, shape)
        part = coarse(values[tuple(map(slice, low, high))], factors)
        points = centre + around.directions[:, None, :] * radii[None, some, None] / spacing
        places = np.moveaxis((points - low + 0.5) / factors - 0.5, -1, 0)
        found[:, some] = map_coordinates(part, places, order=1, mode="nearest")
        within[:, some] = ((points > -0.5) & (points < shape - 0.5)).all(axis=-1)
    return Profiles(radii, found, within)


def forbidden(along: Profiles, around: Rays, borders: Sequence[tuple[Floats, float, bool]]) -> Bools:
    """Tell which radii clicks rule out.

    Parameters
    ----------
    along, around
        Profiles and their rays.
    borders
        For each click its place (3,) from the centre, how far around it its side reaches, both in the unit of spacing, and
        whether it is inside.

    Returns
    -------
    (N, K) bool
    """
    out = np.zeros(along.values.shape, bool)
    count = len(around.directions)
    flat = around.neighbours.shape[1] == 2
    cone = np.cos(1.2 * np.pi / count) if flat else np.cos(1.2 * np.sqrt(np.pi / count))
    for place, margin, inside in borders:
        far = float(np.linalg.norm(place))
        if far < along.radii[0]:
            continue
        closeness = around.directions @ place / far
        near = closeness > min(cone, closeness.max() - 1e-9)
        if inside:
            out[near] |= along.radii < min(far + margin, along.radii[-1])
        else:
            out[near] |= along.radii > max(far - margin, far / 2)
    return out


def fit(along: Profiles, around: Rays, spacing: Floats, ruled_out: Bools, span: tuple[float, float] | None) -> Floats:
    """Find the surface that best parts an object around the centre from what lies around it.

    Parameters
    ----------
    along
        From `profiles`.
    around
        The same rays.
    spacing
        (3,) voxel size.
    ruled_out
        (N, K) from `forbidden`.
    span
        Lowest and highest mean radius that costs nothing; None: all scales are equal.

    Returns
    -------
    (N,) float64
        Radius of the surface along each ray, in the unit of spacing.
    """
    best, out = -np.inf, along.radii[np.zeros(len(around.directions), int)]
    for scale in range(2, len(along.radii) - 3, 2):
        chosen = _at_scale(along, around, scale, ruled_out)
        if chosen is None:
            break
        surface = along.radii[chosen] * FACTOR  # it lies beyond the last sample inside, which reads some of either side
        broken = int(ruled_out[np.arange(len(chosen)), chosen].sum())
        score = _contrast(along, around, chosen, spacing) - 0.5 * (broken > 0) - 0.02 * broken
        if span is not None:
            mean = float(np.exp(np.log(surface).mean()))
            score -= _KEEP * max(0.0, np.log(span[0] / mean), np.log(mean / span[1]))
        if score > best:
            best, out = score, surface
    return out


def _at_scale(along: Profiles, around: Rays, scale: int, ruled_out: Bools) -> Ints | None:
    """Numbers of radii (N,) of the best surface near one scale; None if all beyond it is outside of the image."""
    ndim = 2 if around.neighbours.shape[1] == 2 else 3
    end = min(len(along.radii), scale + 1 + _WINDOW)
    values, within = along.values[:, :end], along.within[:, :end]
    size = FACTOR ** (ndim * np.arange(end))  # what a sample stands for grows with its radius
    inner, outer = np.where(within, size, 0.0), np.where(within, size, 0.0)
    inner[:, max(1, scale - 1) :] = 0
    outer[:, : scale + 2] = 0
    if not outer.any():
        return None
    more = odds(values, inner, outer, limit=2.0)
    more[~within] = -2.0
    cost = -np.cumsum(more * size / size[scale], axis=1) * (1 - FACTOR**-ndim) * _FIT
    low = max(0, scale - _WINDOW)
    cost = cost[:, low:] + _BROKEN * ruled_out[:, low:end]
    return np.asarray(low + _smoothest(np.ascontiguousarray(cost), around.neighbours, _BEND, _ROUNDS))


def _contrast(along: Profiles, around: Rays, chosen: Ints, spacing: Floats) -> float:
    """How well a surface parts its inner from its outer rim, 0 to 1, less what chance does."""
    last = len(along.radii) - 1
    ray = np.arange(len(chosen))[:, None]
    inner = along.values[ray, np.maximum(chosen[:, None] - np.arange(_RIM), 0)]
    outer = along.values[ray, np.minimum(chosen[:, None] + 2 + np.arange(_RIM), last)]
    known = along.within[ray[:, 0], np.minimum(chosen + 3, last)]
    if not known.any():
        return 0.0
    spread = np.sqrt((inner.var() + outer[known].var()) / 2) + 1e-9
    steps = np.where(known, (inner.mean(axis=1) - outer.mean(axis=1)) / spread, 0.0)
    radius = along.radii[chosen] * FACTOR**0.5
    if around.neighbours.shape[1] == 2:
        voxels = 2 * np.pi * radius.mean() / np.sqrt(spacing[1] * spacing[2])
    else:
        voxels = 4 * np.pi * np.mean(radius**2) / np.prod(spacing) ** (2 / 3)
    return float(np.tanh(max(0.0, abs(steps.mean()) - _NOISE / np.sqrt(voxels)) / 1.5))


@compiled
def _smoothest(cost: Any, neighbours: Any, bend: float, rounds: int) -> Any:
    """Label of each ray so that costs and ``bend`` times the differences of neighbours are least (min-sum, in turn)."""
    n, count = cost.shape
    m = neighbours.shape[1]
    back = np.full((n, m), -1)  # where a neighbour keeps what this ray tells it
    for i in range(n):
        for a in range(m):
            for b in range(m):
                if neighbours[neighbours[i, a], b] == i:
                    back[i, a] = b
    told = np.zeros((n, m, count))
    total, line = np.empty(count), np.empty(count)
    out = np.empty(n, dtype=np.int64)
    for turn in range(rounds + 1):
        for i in range(n):
            total[:] = cost[i]
            for a in range(m):
                total += told[i, a]
            out[i] = total.argmin()
            if turn == rounds:
                continue
            for a in range(m):
                if back[i, a] < 0:
                    continue
                line[:] = total - told[i, a]
                for k in range(1, count):
                    line[k] = min(line[k], line[k - 1] + bend)
                for k in range(count - 2, -1, -1):
                    line[k] = min(line[k], line[k + 1] + bend)
                told[neighbours[i, a], back[i, a]] = line - line.min()
    return out


def depth(shape: tuple[int, ...], spacing: Floats, centre: Floats, around: Rays, surface: Floats) -> Float32s:
    """How deep voxels lie in a surface: logarithm of its radius over their distance to the centre; 0 on it, negative outside.

    Parameters
    ----------
    shape
        (z, y, x) of the result.
    spacing
        (3,) voxel size.
    centre
        (3,) index of the centre, which may lie anywhere.
    around, surface
        Rays, and the radius (N,) of the surface along each.
    """
    count = len(surface)
    flat = around.neighbours.shape[1] == 2
    narrow = np.cos(2 * np.pi / count * 1.2) if flat else 1 - 8.8 / count  # a cone that holds a few rays
    return np.asarray(_depth(shape, spacing, centre, around.directions, np.log(surface), float(narrow)))


@compiled
def _depth(shape: Any, spacing: Any, centre: Any, directions: Any, logs: Any, narrow: float) -> Any:
    out = np.empty(shape, dtype=np.float32)
    for i in range(shape[0]):
        z = (i - centre[0]) * spacing[0]
        for j in range(shape[1]):
            y = (j - centre[1]) * spacing[1]
            for k in range(shape[2]):
                x = (k - centre[2]) * spacing[2]
                away = np.sqrt(z * z + y * y + x * x) + 1e-9
                weight, total = 1e-9, 0.0
                for a in range(len(logs)):
                    near = (z * directions[a, 0] + y * directions[a, 1] + x * directions[a, 2]) / away - narrow
                    if near > 0:
                        weight += near * near
                        total += near * near * logs[a]
                out[i, j, k] = total / weight - np.log(away)
    return out
