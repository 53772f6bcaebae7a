"""How much surface lies between 2 x 2 (x 2) voxels: marching squares and marching cubes (Lorensen 1987) at the half level.

The surface passes through the middles of the edges between voxel centres. Between four or fewer voxels of one kind and the
rest there are six shapes; each is cut into triangles here as the surface-distance package of Nikolov 2021 cuts them, which
matters for the two shapes that are not flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@lru_cache(maxsize=64)
def areas(size: tuple[float, ...]) -> Floats:
    """Area in mm2 (length in mm in 2-D) of the surface between 2 x 2 x 2 (2 x 2) voxels.

    Parameters
    ----------
    size : tuple of 2 or 3 floats
        Voxel size in mm along each axis.

    Returns
    -------
    ndarray of float64, (256,) or (16,)
        Indexed by the neighbourhood's code: bit k is the voxel whose position along axis a is bit a of k.
    """
    codes, normals = _triangles(len(size))
    across = math.prod(size) / np.array(size)  # a face across axis a has the product of the other sizes
    lengths = np.sqrt(((normals * across) ** 2).sum(axis=1))
    table: Floats = np.bincount(codes, lengths, minlength=1 << (1 << len(size))).astype(np.float64)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=2)
def _triangles(ndim: int) -> tuple[NDArray[np.int64], Floats]:
    """Code and normal (its length is the area for unit voxels) of every triangle of the marching-cubes surfaces.

    Of a neighbourhood and its complement, the one with fewer voxels is drawn. Voxels of it that share no face are apart
    (diagonal neighbours do not connect), so the surface is a cap over each of its pieces.
    """
    found = []
    corners = 1 << ndim
    for code in range(1, (1 << corners) - 1):
        inside = [k for k in range(corners) if code >> k & 1]
        if len(inside) > corners // 2:
            inside = [k for k in range(corners) if not code >> k & 1]
        while inside:
            piece = [inside.pop()]
            for k in piece:
                piece += (near := [k ^ 1 << axis for axis in range(ndim) if k ^ 1 << axis in inside])
                inside = [other for other in inside if other not in near]
            found += [(code, normal) for normal in _cap(piece, ndim)]
    codes, normals = zip(*found, strict=True)
    return np.array(codes), np.array(normals)


def _cap(piece: list[int], ndim: int) -> Iterator[tuple[float, ...]]:
    """Normals of the triangles that cut a piece of up to half the corners off, through the middles of the cube's edges.

    The signs are left out: only lengths are used. Triangles in one plane are summed.
    """
    steps = [(k, axis) for k in piece for axis in range(ndim) if k < k ^ 1 << axis and k ^ 1 << axis in piece]
    axes = {axis for _, axis in steps}
    rest = [float(axis not in axes) for axis in range(ndim)]  # axes the piece does not extend along
    if len(piece) <= 2:  # a corner, or two side by side: one flat cut
        share = {2: (0.5, 1.0), 3: (0.125, 0.5)}[ndim][len(steps)]
        yield tuple(share * value for value in rest)
    elif len(piece) == 4 and len(steps) == 4:  # half the cube
        yield tuple(rest)
    elif len(piece) == 3:  # three in a face: a pentagon
        yield tuple(0.5 * value for value in rest)
        yield (0.375,) * 3
    else:
        degree = [sum(k ^ 1 << axis in piece for axis in range(ndim)) for k in piece]
        if max(degree) == 3:  # a corner and its three neighbours: a flat hexagon
            yield (0.75,) * 3
            return
        ends = [k for k, d in zip(piece, degree, strict=True) if d == 1]  # a path along the three axes: a bent hexagon
        middle = next(axis for k, axis in steps if k not in ends and k ^ 1 << axis not in ends)
        yield (0.5,) * 3
        for other in sorted(axes - {middle}):
            yield tuple(0.25 * (axis in (middle, other)) for axis in range(3))
