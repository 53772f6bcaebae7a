"""Basins of a distance map, described so that something that learned can say which of them are one object.

A mask is put on voxels of equal sides, fine enough to show its depth, and cut at every narrowing: each peak of the distance to the
border gets its basin (watershed, Meyer 1994). That is too many. Two neighbours are joined by what is measured of them and of the
place where they meet, the surest pair first, and what came of it is measured anew (Nunez-Iglesias 2013,
doi:10.1371/journal.pone.0071715). All measures are sums over voxels and faces, so that joining needs no voxels, and shares, so that
size does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, zoom

from medseg.ops.separation import by_height

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

DEPTH = 8.0  # voxels from the border to the deepest place of a mask, at the scale that basins are cut at
FINER = 4.0  # times that such a voxel may be finer than the scan's finest side
MOST = 4e7  # voxels that a mask may be put on
SMOOTH = 0.5  # standard deviation, in such voxels, of what takes the peaks of a rough border away
CRUMB, SHARE = 8.0, 0.03  # voxels of the scan, and share of the largest object, under which a piece is no object
_STEEP = 1.5  # faces of a plane of voxels per area, on average over its directions

FEATURES = (
    "pass / lower peak", "pass / higher peak", "lower peak / higher peak", "depth where they meet / lower peak",
    "radius where they meet / radius of smaller", "radius where they meet / radius of larger", "log volume ratio",
    "distance of peaks / depths", "distance of centres / radii", "radius where they meet / narrower silhouette",
    "ellipsoid fit of both", "ellipsoid fit of smaller", "ellipsoid fit of larger", "length / width of both",
    "length / width of smaller", "length / width of larger", "roundness of both", "roundness of smaller", "roundness of larger",
    "log radius of smaller (voxels)", "log lower peak (voxels)", "log volume of smaller (scanned voxels)", "log anisotropy",
    "share of the whole",
)  # fmt: skip


def basins(mask: Mask, spacing: tuple[float, ...]) -> tuple[Labels, Floats, float]:
    """Cut a mask at every narrowing.

    Parameters
    ----------
    mask : bool (z, y, x)
        With background on all sides of what is to be seen whole.
    spacing : tuple of float
        Voxel size, array axis order.

    Returns
    -------
    labels : int32
        Basins on voxels of equal sides over the same extent.
    depth : float64
        Smoothed distance to the border on them, in such voxels.
    step : float
        Side of such a voxel, in the unit of the spacing.
    """
    mask = np.asarray(binary_fill_holes(mask))  # a hole, as of necrosis or noise, is no border between objects
    deepest = float(np.asarray(distance_transform_edt(mask, sampling=spacing)).max())
    # what is thinner shows no more for being put on ever finer voxels, and what is very large has to fit into memory
    finest = max(min(spacing) / FINER, (mask.size * float(np.prod(spacing)) / MOST) ** (1 / 3))
    step = max(deepest / DEPTH, finest)
    for _ in range(2):  # the depth of a narrow mask on coarse voxels says little before it is put on finer ones
        shape = [max(1, round(n * s / step)) for n, s in zip(mask.shape, spacing, strict=True)]
        factor = [n / m for n, m in zip(shape, mask.shape, strict=True)]
        fine = zoom(mask.astype(np.float32), factor, order=1, grid_mode=True, mode="nearest") > 0.5
        inside = np.asarray(distance_transform_edt(fine), dtype=np.float64)
        better = max(step * float(inside.max()) / DEPTH, finest)
        if not fine.any() or abs(better - step) < 0.1 * step:
            break
        step = better
    depth = np.where(fine, gaussian_filter(inside, SMOOTH), 0.0)
    return by_height(fine, depth, 9.0), depth, step


@dataclass
class Regions:
    """Basins, and regions that were joined of them.

    Attributes
    ----------
    sums : float64 (N, 10)
        Voxels, sums of positions (3), sums of products of positions (6).
    peak : float64 (N, 4)
        Greatest depth and where it is.
    surface : float64 (N,)
        Faces that are not shared with a voxel of the same region.
    meets : dict
        (smaller number, larger number) to faces shared, summed depth there, and the greatest depth there (the pass).
    scanned : float
        Voxels of the scan per voxel here.
    anisotropy : float
        Of the scan.
    """

    sums: Floats
    peak: Floats
    surface: Floats
    meets: dict[tuple[int, int], tuple[float, float, float]]
    scanned: float
    anisotropy: float
    near: dict[int, set[int]] = field(init=False)

    def __post_init__(self) -> None:
        """List the neighbours of each region."""
        self.near = {}
        for a, b in self.meets:
            self.near.setdefault(a, set()).add(b)
            self.near.setdefault(b, set()).add(a)

    def pairs(self, a: int) -> list[tuple[int, int]]:
        """Return a region with each of its neighbours."""
        return [(min(a, b), max(a, b)) for b in sorted(self.near.get(a, ()))]

    def joined(self, a: int, b: int) -> None:
        """Make b a part of a."""
        shared = self.meets.pop((min(a, b), max(a, b)))
        self.sums[a] += self.sums[b]
        self.surface[a] += self.surface[b] - 2 * shared[0]
        if self.peak[b, 0] > self.peak[a, 0]:
            self.peak[a] = self.peak[b]
        self.near[a].discard(b)
        for other in self.near.pop(b) - {a}:
            self.near[other].discard(b)
            self.near[other].add(a)
            self.near[a].add(other)
            one, key = self.meets.pop((min(b, other), max(b, other))), (min(a, other), max(a, other))
            two = self.meets.get(key, (0.0, 0.0, 0.0))
            self.meets[key] = (one[0] + two[0], one[1] + two[1], max(one[2], two[2]))


def measured(labels: Labels, depth: Floats, step: float, spacing: tuple[float, ...]) -> Regions:
    """Measure basins 1 to N; row 0 is unused."""
    n = int(labels.max(initial=0)) + 1
    at = np.nonzero(labels)
    ids = labels[at]
    places = [a.astype(np.float64) for a in at]
    terms = [np.ones(len(ids)), *places, *[places[i] * places[j] for i in range(3) for j in range(i, 3)]]
    sums: Floats = np.stack([np.bincount(ids, weights=t, minlength=n) for t in terms], axis=1).astype(np.float64)
    order = np.argsort(depth[at], kind="stable")  # the last of each basin is its deepest
    peak = np.zeros((n, 4))
    peak[ids[order]] = np.stack([depth[at], *places], axis=1)[order]
    surface, meets = np.zeros(n), dict[tuple[int, int], tuple[float, float, float]]()
    wide, deep = np.pad(labels, 1), np.pad(depth, 1)
    for axis in range(3):
        one, two = (tuple(s if k == axis else slice(None) for k in range(3)) for s in (slice(None, -1), slice(1, None)))
        a, b = wide[one], wide[two]
        border = a != b
        surface += np.bincount(a[border], minlength=n) + np.bincount(b[border], minlength=n)
        inner = border & (a > 0) & (b > 0)
        low = np.minimum(deep[one][inner], deep[two][inner])
        key = np.minimum(a[inner], b[inner]).astype(np.int64) * n + np.maximum(a[inner], b[inner])
        found, index = np.unique(key, return_inverse=True)
        faces, total, top = np.bincount(index), np.bincount(index, weights=low), np.zeros(len(found))
        np.maximum.at(top, index, low)
        for k, f, s, t in zip(found.tolist(), faces.tolist(), total.tolist(), top.tolist(), strict=True):
            before = meets.get(divmod(k, n), (0.0, 0.0, 0.0))
            meets[divmod(k, n)] = (before[0] + f, before[1] + s, max(before[2], t))
    return Regions(
        sums,
        peak,
        np.asarray(surface, dtype=np.float64),
        meets,
        step**3 / float(np.prod(spacing)),
        max(spacing) / min(spacing),
    )


def features(regions: Regions, pairs: npt.NDArray[np.int64]) -> Floats:
    """Describe pairs of neighbours, (M, 2) to (M, len(FEATURES))."""
    r = regions
    met = np.array([r.meets[min(a, b), max(a, b)] for a, b in pairs.tolist()]).reshape(-1, 3)
    larger = r.sums[pairs[:, 0], 0] >= r.sums[pairs[:, 1], 0]
    big, small = np.where(larger, pairs[:, 0], pairs[:, 1]), np.where(larger, pairs[:, 1], pairs[:, 0])
    s_big, s_small = r.sums[big], r.sums[small]
    v_big, v_small = s_big[:, 0], s_small[:, 0]
    q_big, q_small = _radius(v_big), _radius(v_small)
    c_big, c_small, c_both = _spread(s_big), _spread(s_small), _spread(s_big + s_small)
    t_big, t_small = r.peak[big, 0], r.peak[small, 0]
    low, high = np.minimum(t_big, t_small), np.maximum(t_big, t_small)
    q_met = np.sqrt(met[:, 0] / _STEEP / np.pi)
    way = s_big[:, 1:4] / v_big[:, None] - s_small[:, 1:4] / v_small[:, None]
    apart = np.linalg.norm(way, axis=1)
    peaks = np.linalg.norm(r.peak[big, 1:] - r.peak[small, 1:], axis=1)
    both_surface = r.surface[big] + r.surface[small] - 2 * met[:, 0]
    out = [
        met[:, 2] / low, met[:, 2] / high, low / high, met[:, 1] / met[:, 0] / low,
        q_met / q_small, q_met / q_big, np.log(v_big / v_small),
        peaks / (t_big + t_small), apart / (q_big + q_small),
        q_met / np.minimum(_silhouette(c_big, way), _silhouette(c_small, way)),
        _fit(v_big + v_small, c_both), _fit(v_small, c_small), _fit(v_big, c_big),
        _length(c_both), _length(c_small), _length(c_big),
        _round(v_big + v_small, both_surface), _round(v_small, r.surface[small]), _round(v_big, r.surface[big]),
        np.log(q_small), np.log(low), np.log(v_small * r.scanned), np.full(len(pairs), np.log(r.anisotropy)),
        (v_big + v_small) / r.sums[:, 0].max(),
    ]  # fmt: skip
    return np.stack(out, axis=1)


def _radius(volume: Floats) -> Floats:
    return np.asarray((3 * volume / (4 * np.pi)) ** (1 / 3))


def _spread(sums: Floats) -> Floats:
    """Covariance of the places of each region, (M, 3, 3), with that of a voxel's own extent."""
    n = sums[:, 0, None]
    mean = sums[:, 1:4] / n
    second = sums[:, 4:] / n
    out = np.empty((len(sums), 3, 3))
    for k, (i, j) in enumerate(combinations_with_replacement(range(3), 2)):
        out[:, i, j] = out[:, j, i] = second[:, k] - mean[:, i] * mean[:, j]
    return out + np.eye(3) / 12


def _fit(volume: Floats, spread: Floats) -> Floats:
    """Volume as a share of that of the solid ellipsoid of the same spread: 1 for an ellipsoid, less for anything else."""
    return np.asarray(volume / (4 / 3 * np.pi * np.sqrt(np.maximum(np.linalg.det(5 * spread), 1e-12))))


def _length(spread: Floats) -> Floats:
    values = np.linalg.eigvalsh(spread)
    return np.asarray(np.sqrt(values[:, 2] / values[:, 1]))


def _round(volume: Floats, faces: Floats) -> Floats:
    """Sphericity cubed, of a surface that is made of faces."""
    return np.asarray(36 * np.pi * volume**2 / (faces / _STEEP) ** 3)


def _silhouette(spread: Floats, way: Floats) -> Floats:
    """Radius of a disc as large as the ellipsoid of that spread looks from a direction."""
    unit = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    # the shadow of an ellipsoid with matrix S along u has the area pi sqrt(det(S) u' S^-1 u)
    matrix = 5 * spread
    inner = np.einsum("ki,kij,kj->k", unit, np.linalg.inv(matrix), unit)
    return np.asarray(np.maximum(np.linalg.det(matrix) * inner, 1e-9) ** 0.25)


def _crumbs(regions: Regions, chance: Chance, owner: npt.NDArray[np.int64], wanted: bool) -> None:
    """Give what is too small for an object of its own to the neighbour that it is likeliest a part of."""
    if not wanted:
        return
    size = regions.sums[:, 0]
    least = max(CRUMB / regions.scanned, SHARE * float(size[np.unique(owner[1:])].max(initial=0.0)))
    queue = [(float(size[k]), k) for k in regions.near if size[k] < least]
    heapify(queue)
    while queue:  # the smallest first
        was, b = heappop(queue)
        if b not in regions.near or not regions.near[b] or size[b] != was:
            continue  # joined, alone, or grown since
        pairs = regions.pairs(b)
        one, two = pairs[int(np.argmax(chance(features(regions, np.array(pairs)))))]
        a = two if one == b else one
        regions.joined(a, b)
        owner[owner == b] = a
        if size[a] < least:
            heappush(queue, (float(size[a]), a))


Chance = Callable[[Floats], Floats]


def joined(regions: Regions, chance: Chance, least: float, ask: Callable[[int, int], bool] | None = None) -> Labels:
    """Join neighbours, the likeliest first, as long as one is likelier than `least`.

    Parameters
    ----------
    regions
        From `measured`; changed.
    chance
        From features (M, F) to the chance (M,) that the two are one object.
    least
        Chance under which nothing is joined.
    ask
        Overrules the decision on a pair that is likely enough, and is told of each: for training.

    Returns
    -------
    int32 (N,)
        For each basin the region that it is of, numbered 1 to K; 0 of background.
    """
    count = len(regions.sums)
    owner = np.arange(count)
    born = np.zeros(count, dtype=np.int64)  # changes of each region, so that what was said before is not believed after
    queue: list[tuple[float, int, int, int, int]] = []

    def consider(pairs: list[tuple[int, int]]) -> None:
        if pairs:
            for p, (a, b) in zip(chance(features(regions, np.array(pairs))).tolist(), pairs, strict=True):
                if p >= least:
                    heappush(queue, (-p, a, b, int(born[a]), int(born[b])))

    consider(list(regions.meets))
    while queue:
        _, a, b, age_a, age_b = heappop(queue)
        if (born[a], born[b]) != (age_a, age_b) or (ask is not None and not ask(a, b)):
            continue
        regions.joined(a, b)
        owner[owner == b] = a
        born[b] += 1
        born[a] += 1
        consider(regions.pairs(a))
    _crumbs(regions, chance, owner, ask is None)
    owner[0] = 0
    _, number = np.unique(owner, return_inverse=True)
    return np.asarray(number).astype(np.int32)
