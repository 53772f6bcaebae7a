"""Seed and grow: from an embedding, a bandwidth and a seed score per voxel to instances.

After Neven et al. 2019 (arXiv:1906.11109) and EmbedSeg (Lalit et al. 2022, doi:10.1016/j.media.2022.102523), in any dimension and
on anisotropic voxels: the best seed not yet claimed says where its instance lies in the embedding and how wide it is there, and
all voxels under that Gaussian are the instance. Here a seed's centre and width are settled by the voxels around it, so that a
single noisy voxel decides neither; and voxels are looked up in a grid over the embedding, so that an instance costs what it
covers and not the image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.ops import components
from medseg.ops.compiled import compiled

Floats = NDArray[np.float32]

_CELL = 4.0  # side of a cell of the grid over the embedding, in the unit of spacing
_SETTLE = 2  # times that centre and width are taken anew from the voxels under the Gaussian
_FREE = 0.5  # share of the voxels under the Gaussian that must be unclaimed yet
_RIM = 2  # voxels that an instance takes of the foreground beside it, whatever they embed
_FAINT = 0.05  # what a voxel further away must have of the Gaussian to be taken all the same


class Grown(NamedTuple):
    """Instances that grew from seeds."""

    labels: NDArray[np.int32]  # 0 background, 1..N
    phi: Floats  # what each labelled voxel has of its instance's Gaussian, 0..1


def seed_and_grow(
    seed: Floats,
    foreground: NDArray[np.bool_],
    offsets: Floats,
    log_sigma: Floats,
    spacing: tuple[float, ...],
    *,
    lowest: float,
    claim: float,
    apart: float,
    min_voxels: int,
) -> Grown:
    """Let the best seeds claim the voxels that embed near them.

    Parameters
    ----------
    seed
        Seed score as a logit: higher is better, in steps of 1/512 between -64 and 64.
    foreground
        The voxels that are labelled.
    offsets
        (ndim, *shape): vector from a voxel to its embedding in the unit of ``spacing``.
    log_sigma
        (1 or ndim, *shape): logarithm of the standard deviation of the voxel's instance in the embedding, one or one per axis.
    spacing
        Voxel size per array axis.
    lowest
        Seed score that a seed must exceed.
    claim
        A voxel belongs where the Gaussian, 1 at its peak, is above this.
    apart
        A voxel that has more than this of an instance's Gaussian is no seed of another.
    min_voxels
        An instance that claims fewer is none.

    Returns
    -------
    Grown
        Labels by their seeds, the best first, each in one piece.
    """
    shape, ndim = foreground.shape, foreground.ndim
    labels, phi = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32)
    index = np.nonzero(foreground)
    if not len(index[0]):
        return Grown(labels, phi)
    # a plane is a volume of one slice, its last axis, so that one kernel does both
    voxels = np.zeros((len(index[0]), 3), dtype=np.int32)
    voxels[:, :ndim] = np.stack(index, axis=1)
    step, size = np.ones(3), np.ones(3, dtype=np.int64)
    step[:ndim], size[:ndim] = spacing, shape
    rows = np.ravel_multi_index(index, shape)
    where, narrow, place, starts, cells = _place(voxels, rows, _flat(offsets), _flat(log_sigma), step, size)
    score = seed[index]
    able = np.flatnonzero(score > lowest)
    level = np.clip((64 - score[able]) * 512, 0, 65535).astype(np.uint16)  # 16 bits sort fast; equals go by place
    seeds = place[able[np.argsort(level, kind="stable")]]
    owner, centres, widths = _claim(where, narrow, seeds, starts, cells, float(claim), float(apart), min_voxels)
    labels[index] = owner[place]
    whole = components.largest_pieces(labels)
    old = np.zeros(int(whole.max()) + 1, dtype=np.int64)  # whose centre each kept piece has
    old[whole.ravel()] = labels.ravel()
    number = np.full(foreground.size, -1, dtype=np.int32)  # row of each foreground voxel
    number[rows] = np.arange(len(rows))
    got = whole[index]
    phi[index] = _spread(voxels, number.reshape(size), where, place, got, centres[old], widths[old])
    labels[index] = got
    kept = components.largest_pieces(labels, min_voxels)
    return Grown(kept, phi * (kept > 0))


def _flat(maps: Floats) -> Floats:
    return np.ascontiguousarray(maps).reshape(len(maps), -1)


@compiled
def _place(voxels: Any, rows: Any, offsets: Any, log_sigma: Any, step: Any, size: Any) -> Any:
    """Embedding and log sigma of each voxel, those of a cell of the grid together; where each went; starts of cells; cells."""
    n, ndim, kinds = len(voxels), len(offsets), len(log_sigma)
    cells = np.ones(3, dtype=np.int64)
    for axis in range(3):
        cells[axis] = max(int(np.ceil(size[axis] * step[axis] / _CELL)), 1)
    starts = np.zeros(cells[0] * cells[1] * cells[2] + 1, dtype=np.int64)
    place = np.empty(n, dtype=np.int64)
    for k in range(n):
        flat = 0
        for axis in range(3):
            one = voxels[k, axis] * step[axis] + (np.float64(offsets[axis, rows[k]]) if axis < ndim else 0.0)
            flat = flat * cells[axis] + int(min(max(np.floor(one / _CELL), 0.0), cells[axis] - 1.0))
        place[k] = flat
        starts[flat + 1] += 1
    for cell in range(len(starts) - 1):
        starts[cell + 1] += starts[cell]
    where, narrow = np.zeros((n, 3)), np.zeros((n, 3), dtype=np.float32)
    filled = starts[:-1].copy()
    for k in range(n):
        to = filled[place[k]]
        filled[place[k]] += 1
        place[k] = to
        for axis in range(ndim):
            where[to, axis] = voxels[k, axis] * step[axis] + np.float64(offsets[axis, rows[k]])
            narrow[to, axis] = log_sigma[min(axis, kinds - 1), rows[k]]
    return where, narrow, place, starts, cells


@compiled
def _gather(where: Any, starts: Any, cells: Any, centre: Any, width: Any, far: float, found: Any, squares: Any) -> int:
    """Rows of voxels within ``far`` squared widths of a centre, and their squared distances in widths."""
    count = 0
    reach = np.sqrt(far)
    low, high = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    for axis in range(3):
        last = cells[axis] - 1
        low[axis] = int(min(max(np.floor((centre[axis] - reach * width[axis]) / _CELL), 0.0), last))
        high[axis] = int(min(max(np.floor((centre[axis] + reach * width[axis]) / _CELL), 0.0), last))
    for z in range(low[0], high[0] + 1):
        for y in range(low[1], high[1] + 1):
            row = (z * cells[1] + y) * cells[2]
            for k in range(starts[row + low[2]], starts[row + high[2] + 1]):  # cells of a row follow one another
                away = 0.0
                for axis in range(3):
                    away += ((where[k, axis] - centre[axis]) / width[axis]) ** 2
                if away < far:
                    found[count] = k
                    squares[count] = away
                    count += 1
    return count


@compiled
def _claim(
    where: Any,
    narrow: Any,
    seeds: Any,
    starts: Any,
    cells: Any,
    claim: float,
    apart: float,
    min_voxels: int,
) -> Any:
    """Instance of each voxel, and centre and width of each instance, index = instance."""
    n = len(where)
    owner = np.zeros(n, dtype=np.int32)
    spent = np.zeros(n, dtype=np.bool_)  # may no longer be a seed
    found = np.empty(n, dtype=np.int64)
    squares = np.empty(n)
    centres, widths = np.zeros((len(seeds) + 1, 3)), np.ones((len(seeds) + 1, 3))
    centre, width, around = np.zeros(3), np.zeros(3), np.full(3, _CELL)
    inner, outer = -2 * np.log(claim), -2 * np.log(min(claim, apart))
    count = 0
    for seed in seeds:
        if spent[seed]:
            continue
        spent[seed] = True
        centre[:] = where[seed]
        near = _gather(where, starts, cells, centre, around, 1.0, found, squares)
        for axis in range(3):
            width[axis] = np.exp(narrow[found[:near], axis].mean())
        for _ in range(_SETTLE):
            near = _gather(where, starts, cells, centre, width, inner, found, squares)
            total = 0.0
            middle, log_width = np.zeros(3), np.zeros(3)
            for j in range(near):
                k = found[j]
                if owner[k] == 0:
                    total += 1.0
                    for axis in range(3):
                        middle[axis] += where[k, axis] - where[seed, axis]  # small numbers, wherever in the array
                        log_width[axis] += narrow[k, axis]
            if total < max(_FREE / 2 * near, 1.0):  # little hope
                break
            for axis in range(3):
                centre[axis] = where[seed, axis] + middle[axis] / total
                width[axis] = np.exp(log_width[axis] / total)
        near = _gather(where, starts, cells, centre, width, outer, found, squares)
        inside, free = 0, 0
        for j in range(near):
            if squares[j] < inner:
                inside += 1
                if owner[found[j]] == 0:
                    free += 1
        good = free >= min_voxels and free >= _FREE * inside
        if good:
            count += 1
            centres[count] = centre
            widths[count] = width
        for j in range(near):
            k = found[j]
            if squares[j] < inner:
                spent[k] = True
                if good and owner[k] == 0:
                    owner[k] = count
            elif good:
                spent[k] = True
    return owner, centres[: count + 1], widths[: count + 1]


@compiled
def _spread(voxels: Any, number: Any, where: Any, place: Any, got: Any, centres: Any, widths: Any) -> Any:
    """Give foreground beside an instance to it, layer by layer, in place; and what each voxel has of its Gaussian.

    Where several reach a voxel in one layer, that of the highest Gaussian takes it.
    """
    n = len(voxels)
    share = np.zeros(n, dtype=np.float32)
    best = np.zeros(n, dtype=np.int64)
    front = np.empty(n, dtype=np.int64)
    touched = np.empty(n, dtype=np.int64)
    size = number.shape
    length = 0
    for k in range(n):
        if got[k] > 0:
            share[k] = _phi(where, place[k], centres, widths, got[k])
            front[length] = k
            length += 1
    layer = 0
    while length > 0:
        layer += 1
        count = 0
        for j in range(length):
            one = got[front[j]]
            a, b, c = voxels[front[j], 0], voxels[front[j], 1], voxels[front[j], 2]
            for z in range(max(a - 1, 0), min(a + 2, size[0])):
                for y in range(max(b - 1, 0), min(b + 2, size[1])):
                    for x in range(max(c - 1, 0), min(c + 2, size[2])):
                        k = number[z, y, x]
                        if k < 0 or got[k] > 0 or best[k] == one:
                            continue
                        phi = _phi(where, place[k], centres, widths, one)
                        if best[k] == 0:
                            touched[count] = k
                            count += 1
                        elif phi < share[k] or (phi == share[k] and one > best[k]):
                            continue
                        best[k], share[k] = one, phi
        length = 0
        for j in range(count):
            k = touched[j]
            if layer <= _RIM or share[k] > _FAINT:
                got[k] = best[k]
                front[length] = k
                length += 1
            else:
                share[k] = 0.0
            best[k] = 0
    return share


@compiled
def _phi(where: Any, k: int, centres: Any, widths: Any, one: int) -> Any:
    away = 0.0
    for axis in range(3):
        away += ((where[k, axis] - centres[one, axis]) / widths[one, axis]) ** 2
    return np.float32(np.exp(-away / 2))
