"""Boxes of an array: regions that partition it, windows that cover it with overlap, and weights that blend them."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice, ...]


def partition(shape: tuple[int, ...], size: tuple[int, ...]) -> list[Region]:
    """Cut ``shape`` into boxes of about equal size, none larger than ``size``, in C order."""
    cuts = []
    for n, s in zip(shape, size, strict=True):
        edges = np.linspace(0, n, -(-n // s) + 1).round().astype(int)
        cuts.append([slice(int(a), int(b)) for a, b in itertools.pairwise(edges)])
    return list(itertools.product(*cuts))


def grow(region: Region, halo: tuple[int, ...], shape: tuple[int, ...]) -> Region:
    """The region with a halo on all sides, cut at the array's border."""
    return tuple(slice(max(0, s.start - h), min(n, s.stop + h)) for s, h, n in zip(region, halo, shape, strict=True))


def windows(shape: tuple[int, ...], size: tuple[int, ...], overlap: tuple[int, ...]) -> list[Region]:
    """Windows of equal size that cover ``shape``, fitted so that no more is computed twice than ``overlap`` asks for."""
    cuts = []
    for n, s, o in zip(shape, size, overlap, strict=True):
        if n <= s:
            cuts.append([slice(0, n)])
            continue
        count = -(-(n - o) // max(1, s - o))
        width = min(n, -(-(n + o * (count - 1)) // count))
        starts = np.linspace(0, n - width, count).round().astype(int)
        cuts.append([slice(int(a), int(a) + width) for a in starts])
    return list(itertools.product(*cuts))


def blend_weight(window: Region, shape: tuple[int, ...], overlap: tuple[int, ...]) -> NDArray[np.float32]:
    """Weight of a window's voxels when overlapping windows are averaged: 1 inside, falling linearly towards inner borders."""
    weight = np.ones((1,) * len(shape), dtype=np.float32)
    for axis, (s, n, o) in enumerate(zip(window, shape, overlap, strict=True)):
        place = np.arange(s.stop - s.start, dtype=np.float32)
        line = np.ones_like(place)
        if s.start > 0:
            line = np.minimum(line, (place + 1) / (o + 1))
        if s.stop < n:
            line = np.minimum(line, (place[::-1] + 1) / (o + 1))
        weight = weight * line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return weight
