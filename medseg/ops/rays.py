"""Rays from a point inside an object to its border, and the star-shaped objects that such rays draw.

After Schmidt et al. 2018 (StarDist, arXiv:1806.03535) in 2-D and Weigert et al. 2020 (arXiv:1908.03636) in 3-D. Rays have the same
directions everywhere, in physical space; their lengths are in the unit of the spacing, from the middle of a voxel to the face where
its object ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from medseg.ops.compiled import compiled

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_TIE = 1e-9  # faces that a ray meets within this share of a voxel of each other are met at once
_INNER = 0.25  # of a star's mean ray: how far around its centre voxels are asked about it, at most
_WALL = -1  # label round the array


@dataclass(frozen=True, eq=False)
class Directions:
    """Where rays point, and the faces between neighbouring rays, which tile all directions.

    A plane is a volume of one slice: it has one more direction, along the axis it lacks, which belongs to every face. So one
    kernel draws both.

    Attributes
    ----------
    vectors : float64 (K, ndim)
        Unit vectors in array axis order, in physical space.
    faces : int64 (F, 3)
        Rays at the corners of each face; in 2-D the third is K, the direction along the missing axis.
    across : int64 (F, 3)
        The face beyond the side that does not hold the corner; its own where there is none.
    inverse : float64 (F, 3, 3)
        Makes of a vector its shares of the three corners; all are positive where the vector passes through the face.
    bulge : float
        Most by which a sphere stands out from the face through the ends of three equal rays, 1 for none.
    """

    vectors: NDArray[np.float64]
    faces: NDArray[np.int64]
    across: NDArray[np.int64]
    inverse: NDArray[np.float64]
    bulge: float


@lru_cache(maxsize=16)
def directions(ndim: int, count: int) -> Directions:
    """Even directions: ``count`` steps round the circle in 2-D, a Fibonacci sphere in 3-D.

    Examples
    --------
    >>> directions(2, 4).vectors.round(3).tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, -0.0]]
    """
    step = np.arange(count)
    if ndim == 2:
        angle = 2 * np.pi * step / count
        vectors = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        faces = np.stack([step, (step + 1) % count, np.full(count, count)], axis=1)
        across = np.stack([(step + 1) % count, (step - 1) % count, step], axis=1)
        corners = np.concatenate([np.pad(vectors, ((0, 0), (1, 0))), [[1.0, 0.0, 0.0]]])
    else:
        height = 1 - (2 * step + 1) / count
        angle = np.pi * (3 - np.sqrt(5)) * step
        width = np.sqrt(1 - height**2)
        vectors = corners = np.stack([height, width * np.sin(angle), width * np.cos(angle)], axis=1)
        hull = ConvexHull(vectors)
        faces, across = hull.simplices.astype(np.int64), hull.neighbors.astype(np.int64)
    inverse = np.linalg.inv(corners[faces].transpose(0, 2, 1))
    flat = inverse.sum(axis=1) if ndim == 3 else inverse[:, :2].sum(axis=1)  # normal of the face over its distance
    return Directions(vectors, faces, across, inverse, float(np.linalg.norm(flat, axis=1).max()))


def measure(labels: NDArray[np.int32], rays: Directions, spacing: tuple[float, ...], ignore: Mask | None) -> Floats:
    """Length of each ray from each labelled voxel to where its label ends.

    Parameters
    ----------
    labels
        Instance ids, 0 background, (y, x) or (z, y, x).
    rays
        Directions of as many dimensions.
    spacing
        Voxel size per array axis.
    ignore
        Where nobody annotated, or None.

    Returns
    -------
    ndarray of float32, (K, *labels.shape)
        In the unit of ``spacing``; 0 on background. Negative where the ray leaves the array or ends in an ignored voxel: the
        object is at least that long there, and how long nobody knows.
    """
    step = np.asarray(spacing, dtype=np.float64)
    walls = np.pad(labels, 1, constant_values=_WALL).astype(np.int32)  # no path leaves it unnoticed
    blind = np.zeros(0, dtype=np.bool_) if ignore is None else np.pad(ignore, 1).ravel()
    strides = np.array(walls.strides) // walls.itemsize
    voxels = np.flatnonzero(labels)
    where = np.stack(np.unravel_index(voxels, labels.shape), axis=1) + 1
    out = np.zeros((len(rays.vectors), labels.size), dtype=np.float32)
    longest = int(sum(labels.shape)) + 2
    for vector, lengths in zip(rays.vectors, out, strict=True):
        ways, ends = _path(vector, step, strides, longest)
        _march(walls.ravel(), blind, where @ strides, voxels, ways, ends, lengths)
    return out.reshape(len(out), *labels.shape)


def mean_lengths(
    logs: Floats,
    trust: Floats,
    centres: NDArray[np.int64],
    rays: Directions,
    spacing: tuple[float, ...],
    scale: float,
    radius: float,
    limits: tuple[float, float],
) -> NDArray[np.float64]:
    """Ray lengths of some voxels, each averaged with what the voxels around say about the same object.

    Each neighbour puts the ends of its rays somewhere; the distance from there to the centre is its opinion on the centre's ray.
    For a ball all agree. Where the border is oblique to a ray, what a neighbour says too much the one opposite says too little:
    so neighbours count in pairs, both with the lower trust of the two.

    Parameters
    ----------
    logs
        (K, *shape): natural logarithms of lengths over ``scale``.
    trust
        Of shape; how much a voxel counts.
    centres
        (N, ndim) voxels.
    rays, spacing
        As in `measure`.
    scale
        The length, in the unit of ``spacing``, whose logarithm is 0.
    radius
        Of the ball of neighbours, in the unit of ``spacing``; 0 for none. It is smaller where the object is small.
    limits
        Least and largest length that a voxel may say.

    Returns
    -------
    ndarray of float64, (N, K)
        Geometric means, in the unit of ``spacing``.
    """
    ndim = trust.ndim
    step = np.asarray(spacing, dtype=np.float64)
    reach = np.floor(radius / step + _TIE).astype(int)
    offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1).reshape(-1, ndim)
    offsets = offsets[np.linalg.norm(offsets * step, axis=1) <= radius + _TIE]
    away = np.linalg.norm(offsets * step, axis=1)
    shape = np.array(trust.shape)
    said = np.clip(logs[(slice(None), *centres.T)].mean(axis=0) + np.log(scale), *np.log(limits))
    weight = np.zeros((len(centres), len(offsets)))
    cell = np.zeros((len(centres), len(offsets)), dtype=np.int64)
    for j, offset in enumerate(offsets):
        one, two = centres + offset, centres - offset
        inside = ((np.minimum(one, two) >= 0) & (np.maximum(one, two) < shape)).all(axis=1)
        inside &= away[j] <= _INNER * np.exp(said) + _TIE
        here, there = tuple(one[inside].T), tuple(two[inside].T)
        weight[inside, j] = np.minimum(trust[here], trust[there])
        cell[inside, j] = np.ravel_multi_index(here, trust.shape)
    own = len(offsets) // 2  # the centre itself always has a say
    weight[:, own] = np.maximum(weight[:, own], 1e-6)
    return np.asarray(
        _opinions(
            logs.reshape(len(logs), -1), cell, weight, offsets * step, rays.vectors, scale, np.log(np.array(limits))
        )
    )


def draw(
    shape: tuple[int, ...],
    centre: tuple[int, ...],
    lengths: NDArray[np.floating],
    rays: Directions,
    spacing: tuple[float, ...],
    rounded: bool = False,
) -> Mask:
    """The star that rays of these lengths (K,) draw around a voxel: its voxels' middles lie inside; see `paint`."""
    return paint(shape, np.array([centre]), np.asarray(lengths)[None], rays, spacing, rounded=rounded)[0] > 0


def paint(
    shape: tuple[int, ...],
    centres: NDArray[np.int64],
    lengths: NDArray[np.floating],
    rays: Directions,
    spacing: tuple[float, ...],
    *,
    overlap: float = 1.0,
    rounded: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Draw stars one after the other, the most trusted first, and leave out those that lie in earlier ones.

    A star's surface is flat between neighbouring rays, a polygon or polyhedron: a vector that is ``u`` shares of the rays at the
    corners of its face ends on it where the sum of ``u / length`` is 1.

    Parameters
    ----------
    shape
        Of the field; what lies outside is cut off.
    centres
        (N, ndim) voxels.
    lengths
        (N, K) in the unit of ``spacing``.
    rays, spacing
        As in `measure`.
    overlap
        A star of which more than this share is taken, or that takes in more than this share of an earlier one, is left out.
    rounded
        Surfaces between rays are curved, so that equal rays draw a ball. Flat ones lose 9 % of a ball of 64 rays.

    Returns
    -------
    labels : ndarray of int32
        Number of the star plus 1; where two overlap, of the earlier one.
    kept : ndarray of int64
        Numbers of the stars that were drawn.
    """
    n, ndim = len(centres), len(shape)
    labels = np.zeros((1,) * (3 - ndim) + tuple(shape), dtype=np.int32)
    if not n:
        return labels.reshape(shape), np.zeros(0, dtype=np.int64)
    step = _three(spacing)
    place = np.zeros((n, 3), dtype=np.int64)
    place[:, 3 - ndim :] = centres
    radii = np.maximum(lengths.astype(np.float64), 1e-3)
    span = radii[:, :, None] * rays.vectors[None] * (rays.bulge if rounded else 1.0) / step[3 - ndim :]
    size = np.array(labels.shape)
    low, high = np.zeros((n, 3), dtype=np.int64), np.ones((n, 3), dtype=np.int64)
    low[:, 3 - ndim :] = np.floor(np.clip(span.min(axis=1) + centres, 0, size[3 - ndim :] - 1))
    high[:, 3 - ndim :] = np.ceil(np.clip(span.max(axis=1) + centres, 0, size[3 - ndim :] - 1)) + 1
    inverse_radii = np.concatenate([1 / radii, np.zeros((n, 1))], axis=1)  # the missing axis of a plane ends nowhere
    kept = _paint(labels, place, low, high, inverse_radii, radii.max(axis=1), rays.faces, rays.across, rays.inverse,
                  step, rounded, overlap)  # fmt: skip
    return labels.reshape(shape), np.flatnonzero(kept)


def _three(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Spacing of the volume that an array is; 1 along the axis that a plane lacks."""
    return np.array((1.0,) * (3 - len(spacing)) + tuple(spacing))


@compiled
def _path(vector: Any, spacing: Any, strides: Any, longest: int) -> Any:
    """Voxels that a ray passes, from the middle of one on (Amanatides and Woo 1987): flat steps away, and where each begins."""
    ways, ends = np.zeros(longest, dtype=np.int64), np.zeros(longest)
    ndim = len(vector)
    turn = np.zeros(ndim, dtype=np.int64)
    stride, following = np.full(ndim, np.inf), np.full(ndim, np.inf)
    for axis in range(ndim):
        if abs(vector[axis]) > _TIE:
            turn[axis] = strides[axis] if vector[axis] > 0 else -strides[axis]
            stride[axis] = spacing[axis] / abs(vector[axis])
            following[axis] = stride[axis] / 2
    way = 0
    for i in range(longest):
        ends[i] = following.min()
        for axis in range(ndim):
            if following[axis] <= ends[i] + _TIE:
                way += turn[axis]
                following[axis] += stride[axis]
        ways[i] = way
    return ways, ends


@compiled
def _march(walls: Any, blind: Any, starts: Any, voxels: Any, ways: Any, ends: Any, out: Any) -> None:
    """Follow the same path from each voxel until the label changes. Every path hits a wall in the end."""
    for i in range(len(starts)):
        start = starts[i]
        label = walls[start]
        step = 0
        while walls[start + ways[step]] == label:
            step += 1
        end = start + ways[step]
        unknown = walls[end] == _WALL or (len(blind) > 0 and blind[end])
        out[voxels[i]] = -ends[step] if unknown else ends[step]


@compiled
def _paint(
    labels: Any,
    centres: Any,
    low: Any,
    high: Any,
    inverse_radii: Any,
    longest: Any,
    faces: Any,
    across: Any,
    inverse: Any,
    spacing: Any,
    rounded: bool,
    overlap: float,
) -> Any:
    """Paint the stars that do not lie in earlier ones; which they are."""
    n = len(centres)
    flat = labels.ravel()  # a view
    kept = np.zeros(n, dtype=np.bool_)
    area = np.zeros(n + 1, dtype=np.int64)  # voxels painted, index = label
    shared = np.zeros(n + 1, dtype=np.int64)  # voxels in this star, index = label
    inside = np.zeros(flat.size, dtype=np.int64)
    for i in range(n):
        count = _inside(labels.shape, centres[i], low[i], high[i], inverse_radii[i], longest[i], faces, across, inverse,
                        spacing, rounded, inside)  # fmt: skip
        taken = 0
        for j in range(count):
            label = flat[inside[j]]
            if label:
                taken += 1
                shared[label] += 1
        over = taken > overlap * count
        for j in range(count):
            label = flat[inside[j]]
            over |= shared[label] > overlap * area[label]  # of background nothing is shared
            shared[label] = 0
        if over or count == 0:
            continue
        kept[i] = True
        area[i + 1] = count - taken
        for j in range(count):
            if flat[inside[j]] == 0:
                flat[inside[j]] = i + 1
    return kept


@compiled
def _inside(
    shape: Any,
    centre: Any,
    low: Any,
    high: Any,
    inverse_radii: Any,
    longest: float,
    faces: Any,
    across: Any,
    inverse: Any,
    spacing: Any,
    rounded: bool,
    out: Any,
) -> int:
    """Write the flat indices of a star's voxels to ``out``; how many.

    The face that a voxel lies behind is found by walking from that of the voxel before: mostly it is the same.
    """
    count, face = 0, 0
    u = np.zeros(3)
    for z in range(low[0], high[0]):
        vz = (z - centre[0]) * spacing[0]
        for y in range(low[1], high[1]):
            vy = (y - centre[1]) * spacing[1]
            for x in range(low[2], high[2]):
                vx = (x - centre[2]) * spacing[2]
                away = vz * vz + vy * vy + vx * vx
                if away > longest * longest:
                    continue
                for _ in range(len(faces)):
                    lowest, side = -1e-9, -1
                    for corner in range(3):
                        u[corner] = (
                            inverse[face, corner, 0] * vz
                            + inverse[face, corner, 1] * vy
                            + inverse[face, corner, 2] * vx
                        )
                        if u[corner] < lowest:
                            lowest, side = u[corner], corner
                    if side < 0:
                        break
                    face = across[face, side]
                value = 0.0
                for corner in range(3):
                    value += u[corner] * inverse_radii[faces[face, corner]]
                limit = 1.0
                if rounded:
                    value *= np.sqrt(away)
                    limit = u[0] + u[1] + u[2]
                if value <= limit:
                    out[count] = (z * shape[1] + y) * shape[2] + x
                    count += 1
    return count


@compiled
def _opinions(logs: Any, cell: Any, weight: Any, shift: Any, vectors: Any, scale: float, limits: Any) -> Any:
    """Geometric mean of the distances from each centre to the ends of its neighbours' rays, (n, K)."""
    n, near = cell.shape
    out = np.zeros((n, len(vectors)))
    base = np.log(scale)
    for k in range(len(vectors)):
        for i in range(n):
            total, share = 0.0, 0.0
            for j in range(near):
                if weight[i, j] <= 0:
                    continue
                length = np.exp(min(max(logs[k, cell[i, j]] + base, limits[0]), limits[1]))
                square = 0.0
                for axis in range(vectors.shape[1]):
                    square += (shift[j, axis] + length * vectors[k, axis]) ** 2
                total += weight[i, j] * np.log(max(square, 1e-12)) / 2
                share += weight[i, j]
            out[i, k] = np.exp(total / share)
    return out
