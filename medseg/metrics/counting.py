"""Voxel counting: which objects share how many voxels, for label arrays and for masks in boxes.

Label arrays are read once, slab by slab (`medseg.ops.pairs`), so that memory follows the slab and the pairs and not the array.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.errors import InputError
from medseg.ops import pairs

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]

SLAB = 1 << 18  # voxels looked at together: small enough for the cache, large enough to hide the cost of a call
PAIRS = 1 << 20  # box pairs compared together
LARGEST = int(np.iinfo(np.int64).max)


class Tally(NamedTuple):
    """Pairs of ids with what is known about the voxels of each; an id of 0 is the background.

    `total` counts all voxels, `counted` those outside the ignore region; `low` and `high` (ndim, P) are the first and the
    last index along each axis; `moment` (ndim, P) is twice the sum of the indices.
    """

    a: Ints
    b: Ints
    total: Ints
    counted: Ints
    low: Ints
    high: Ints
    moment: Ints


class Facts(NamedTuple):
    """The objects of one side: ids (N,), voxels in all and outside the ignore region (N,), boxes, sums of indices."""

    ids: Ints
    total: Ints
    counted: Ints
    boxes: Ints
    moment: Ints


def tally(a: NDArray[np.integer], b: NDArray[np.integer], ignore: Mask | None, names: tuple[str, str]) -> Tally:
    """Count the pairs of ids of two label arrays of equal shape; `names` are for the errors.

    Raises
    ------
    InputError
        If an id is negative or over 2^63 - 1.
    """
    if a.ndim > 1 and _fortran(a) and _fortran(b):  # read along memory, then turn the axes back
        found = tally(a.T, b.T, None if ignore is None else ignore.T, names)
        return found._replace(low=found.low[::-1], high=found.high[::-1], moment=found.moment[::-1])
    if a.ndim == 1:
        found = tally(a[None], b[None], None if ignore is None else ignore[None], names)
        return found._replace(low=found.low[1:], high=found.high[1:], moment=found.moment[1:])
    step = max(1, SLAB // max(1, int(np.prod(a.shape[1:]))))
    table = pairs.empty_table(a.ndim)
    for z in range(0, a.shape[0] if a.size else 0, step):
        cut = slice(z, z + step)
        grown = pairs.add(table, a[cut], b[cut], None if ignore is None else ignore[cut], z)
        if grown is None:
            raise _bad_ids(a[cut], b[cut], names)
        table = grown
    rows = int(table.used[0])
    order = np.lexsort(table.ids[:rows].T[::-1])
    first, second = table.ids[order].T.copy()
    facts = table.facts[order].T.copy()
    return Tally(first, second, facts[0], facts[1], facts[2::3], facts[3::3], facts[4::3])


def facts_of_labels(found: Tally, first: bool) -> Facts:
    """Sum a tally over one of its sides, in the order of the ids."""
    ids = found.a if first else found.b
    own = found._replace(a=ids, b=np.zeros_like(ids))
    own = _grouped(Tally(*(part[..., ids > 0] for part in own)))
    return Facts(own.a, own.total, own.counted, np.concatenate([own.low, own.high + 1]).T.copy(), own.moment.T.copy())


def facts_of_masks(boxes: Ints, masks: Sequence[Mask], counted: Sequence[Mask]) -> Facts:
    """Facts of masks in boxes; ids are numbers + 1. `counted` holds the masks without the ignore region."""
    ndim = boxes.shape[1] // 2
    moment = np.zeros((len(masks), ndim), np.int64)
    for n, mask in enumerate(masks):
        moment[n] = [2 * int(index.sum()) for index in np.nonzero(mask)]
    total, some = (np.array([np.count_nonzero(m) for m in each], np.int64) for each in (masks, counted))
    moment += 2 * total[:, None] * boxes[:, :ndim]
    return Facts(np.arange(1, len(masks) + 1), total, some, boxes, moment)


def centre_voxels(facts: Facts) -> Ints:
    """Voxel that holds the centroid of each object (N, ndim); half way between two voxels it is the later one."""
    return (facts.moment + facts.total[:, None]) // (2 * facts.total[:, None])


def rows_of(ids: Ints, values: NDArray[np.integer]) -> tuple[Rows, Rows]:
    """Where `values` are among the sorted `ids`, and the row of each."""
    at = np.flatnonzero(values)
    return at, np.searchsorted(ids, values[at].astype(np.int64))


def mask_label_pairs(
    boxes: Ints, masks: Sequence[Mask], labels: NDArray[np.integer], ids: Ints
) -> tuple[Rows, Rows, Ints]:
    """Rows of masks and of label ids that share voxels, and how many."""
    out: list[tuple[Rows, Rows, Ints]] = []
    for n, (box, mask) in enumerate(zip(boxes.tolist(), masks, strict=True)):
        seen = labels[_region(box)][mask]
        values, shared = np.unique(seen[seen > 0], return_counts=True)
        row = np.searchsorted(ids, values.astype(np.int64))
        out.append((np.full(len(row), n, np.intp), row, shared.astype(np.int64)))
    return _stacked(out)


def mask_pairs(
    boxes_a: Ints, masks_a: Sequence[Mask], boxes_b: Ints, masks_b: Sequence[Mask]
) -> tuple[Rows, Rows, Ints]:
    """Rows of two sets of masks that share voxels, and how many; counted where their boxes meet, nothing is painted."""
    i, j = touching(boxes_a, boxes_b)
    ndim = boxes_a.shape[1] // 2
    low = np.maximum(boxes_a[i, :ndim], boxes_b[j, :ndim])
    high = np.minimum(boxes_a[i, ndim:], boxes_b[j, ndim:])
    in_a = np.concatenate([low - boxes_a[i, :ndim], high - boxes_a[i, :ndim]], axis=1).tolist()
    in_b = np.concatenate([low - boxes_b[j, :ndim], high - boxes_b[j, :ndim]], axis=1).tolist()
    shared = np.array(
        [
            np.count_nonzero(masks_a[m][_region(one)] & masks_b[n][_region(two)])
            for m, n, one, two in zip(i.tolist(), j.tolist(), in_a, in_b, strict=True)
        ],
        np.int64,
    )
    some = shared > 0
    return i[some], j[some], shared[some]


def touching(boxes_a: Ints, boxes_b: Ints) -> tuple[Rows, Rows]:
    """Rows of the boxes that meet, ordered by the first and then the second set."""
    ndim = boxes_a.shape[1] // 2
    none = np.zeros(0, np.intp)
    if not len(boxes_a) or not len(boxes_b):
        return none, none
    # sweep along the axis on which the boxes are shortest for its length
    extent = (boxes_b[:, ndim:] - boxes_b[:, :ndim]).max(axis=0)
    axis = int(np.argmin(extent / np.maximum(1, boxes_b[:, ndim:].max(axis=0) - boxes_b[:, :ndim].min(axis=0))))
    order = np.argsort(boxes_b[:, axis], kind="stable")
    starts = boxes_b[order, axis]
    first = np.searchsorted(starts, boxes_a[:, axis] - extent[axis], side="right")
    last = np.searchsorted(starts, boxes_a[:, ndim + axis], side="left")
    found = []
    for rows in _chunks(last - first):
        count = (last - first)[rows]
        i = np.repeat(np.arange(rows.start, rows.stop), count)
        j = order[np.arange(len(i)) - np.repeat(np.cumsum(count) - count - first[rows], count)]
        meet = ((boxes_a[i, :ndim] < boxes_b[j, ndim:]) & (boxes_b[j, :ndim] < boxes_a[i, ndim:])).all(axis=1)
        found.append((i[meet], j[meet]))
    i, j = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((j, i))
    return i[order], j[order]


def _bad_ids(a: NDArray[np.integer], b: NDArray[np.integer], names: tuple[str, str]) -> InputError:
    """What to say of ids of which one is no positive int64."""
    for values, name in zip((a, b), names, strict=True):
        if values.dtype.kind == "i" and values.min() < 0:
            return InputError(f"{name} labels hold the negative id {values.min()}; ids are positive, background is 0")
        if values.dtype == np.uint64 and int(values.max()) > LARGEST:
            return InputError(f"{name} labels hold the id {values.max()}, over 2^63 - 1; renumber the objects")
    raise AssertionError("called without a bad id")


def _grouped(found: Tally) -> Tally:
    """Sum the rows of each pair of ids; sorted by the first, then the second id."""
    if not len(found.a):
        return found
    order = np.lexsort((found.b, found.a))
    new = (np.diff(found.a[order]) != 0) | (np.diff(found.b[order]) != 0)
    at = np.concatenate([[0], np.flatnonzero(new) + 1])
    total, counted, low, high, moment = (part[..., order] for part in found[2:])
    return Tally(
        found.a[order[at]],
        found.b[order[at]],
        np.add.reduceat(total, at),
        np.add.reduceat(counted, at),
        np.minimum.reduceat(low, at, axis=1),
        np.maximum.reduceat(high, at, axis=1),
        np.add.reduceat(moment, at, axis=1),
    )


def _fortran(array: NDArray[np.integer]) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


def _region(box: list[int]) -> tuple[slice, ...]:
    half = len(box) // 2
    return tuple(map(slice, box[:half], box[half:]))


def _stacked(parts: list[tuple[Rows, Rows, Ints]]) -> tuple[Rows, Rows, Ints]:
    if not parts:
        return np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.int64)
    i, j, shared = zip(*parts, strict=True)
    return np.concatenate(i), np.concatenate(j), np.concatenate(shared)


def _chunks(counts: Rows) -> Iterator[slice]:
    """Slices of consecutive rows whose counts sum to about `PAIRS`."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + PAIRS, side="right")))
        yield slice(start, stop)
        start = stop
