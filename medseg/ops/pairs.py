"""Which ids of two label arrays lie on one another, counted in one pass.

Voxels of one pair of ids come in runs along the last axis. A run is looked up once in a table of pairs, so the pass costs little
more than reading both arrays, and memory follows the pairs and not the voxels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg.ops.compiled import compiled

Ints = NDArray[np.int64]


class Table(NamedTuple):
    """Pairs seen so far, and where to find them.

    Attributes
    ----------
    ids : int64 (rows, 2)
        The ids of each pair; only the first ``used[0]`` rows count.
    facts : int64 (rows, 2 + 3 * ndim)
        All voxels, those not hidden; then per axis the first index, the last index, and twice the sum of the indices.
    slots : int64 (power of two,)
        Row of a pair + 1 at the place that its ids give, or at the next free one; 0 is free.
    used : int64 (1,)
        Rows in use.
    """

    ids: Ints
    facts: Ints
    slots: Ints
    used: Ints


def empty_table(ndim: int, rows: int = 256) -> Table:
    """A table without pairs; `rows` is a power of two, and grows as needed."""
    return Table(
        np.zeros((rows, 2), np.int64),
        np.zeros((rows, 2 + 3 * ndim), np.int64),
        np.zeros(2 * rows, np.int64),
        np.zeros(1, np.int64),
    )


def add(
    table: Table,
    a: NDArray[np.integer[Any]],
    b: NDArray[np.integer[Any]],
    hidden: NDArray[np.bool_] | None,
    offset: int,
) -> Table | None:
    """Count the voxels of a slab of two or more axes into the table.

    Parameters
    ----------
    a, b
        Ids of one shape, 0 is background; pairs of it with itself are not counted.
    hidden
        Voxels that count only towards all.
    offset
        Index of the slab's first plane along the first axis.

    Returns
    -------
    Table or None
        The table to go on with, the old one being spent; None where an id is negative as int64.
    """
    kind = np.int32 if all(_fits(part.dtype) for part in (a, b)) else np.int64
    width = a.shape[-1]
    one, two = (np.ascontiguousarray(part).astype(kind, copy=False).reshape(-1, width) for part in (a, b))
    mask = np.zeros((0, width), np.bool_) if hidden is None else np.ascontiguousarray(hidden).reshape(-1, width)
    new = np.ones(one.shape, np.bool_)  # where a run begins
    np.not_equal(one[:, 1:], one[:, :-1], out=new[:, 1:])
    for part in (two, mask) if mask.size else (two,):
        new[:, 1:] |= part[:, 1:] != part[:, :-1]
    starts = np.flatnonzero(new)
    runs = one.ravel(), two.ravel(), mask.ravel(), starts
    good, ids, facts, slots = _add(runs, np.array(a.shape, np.int64), offset, tuple(table))
    return Table(ids, facts, slots, table.used) if good else None


def _fits(kind: np.dtype[Any]) -> bool:
    """Whether all values of a type are int32 values."""
    return kind.itemsize < 4 or kind == np.int32


@compiled
def _add(runs: Any, shape: Any, offset: int, table: Any) -> Any:
    """Add runs to the table; whether all ids were good, and the arrays that may be new."""
    a, b, hidden, starts = runs
    ids, facts, slots, used = table
    index = np.zeros(len(shape), np.int64)
    index[0] = offset
    line_start, width = 0, shape[-1]
    for run in range(len(starts)):
        start = starts[run]
        stop = starts[run + 1] if run + 1 < len(starts) else len(a)
        while start >= line_start + width:  # a line begins with a run
            line_start += width
            for axis in range(len(shape) - 2, -1, -1):
                index[axis] += 1
                if axis == 0 or index[axis] < shape[axis]:
                    break
                index[axis] = 0
        first, second = a[start], b[start]
        if first == 0 and second == 0:
            continue
        if first < 0 or second < 0:
            return False, ids, facts, slots
        row, slot = _find(ids, slots, first, second)
        if row < 0:
            row = used[0]
            if row == len(ids):
                ids, facts, slots = _larger(ids, facts)
                _, slot = _find(ids, slots, first, second)
            ids[row, 0], ids[row, 1] = first, second
            slots[slot] = row + 1
            used[0] = row + 1
            for axis in range(len(index)):
                facts[row, 2 + 3 * axis] = np.iinfo(np.int64).max
        fact, length = facts[row], stop - start
        fact[0] += length
        if not len(hidden) or not hidden[start]:
            fact[1] += length
        index[-1] = start - line_start
        for axis in range(len(index)):
            last = index[axis] + (length - 1 if axis == len(index) - 1 else 0)
            fact[2 + 3 * axis] = min(fact[2 + 3 * axis], index[axis])
            fact[3 + 3 * axis] = max(fact[3 + 3 * axis], last)
            fact[4 + 3 * axis] += (index[axis] + last) * length
    return True, ids, facts, slots


@compiled
def _find(ids: Any, slots: Any, first: int, second: int) -> Any:
    """Row of a pair, or -1, and the slot where it is or belongs (open addressing, Knuth 6.4)."""
    mask = len(slots) - 1
    key = np.int64(first) * np.int64(0x9E3779B97F4A7C1) + np.int64(second) * np.int64(0x2545F4914F6CDD1)
    slot = (key ^ (key >> 29)) & mask
    while slots[slot]:
        row = slots[slot] - 1
        if ids[row, 0] == first and ids[row, 1] == second:
            return row, slot
        slot = (slot + 1) & mask
    return np.int64(-1), slot


@compiled
def _larger(ids: Any, facts: Any) -> Any:
    """Twice the room, everything in it again."""
    rows = len(ids)
    more_ids, more_facts = np.zeros((2 * rows, 2), np.int64), np.zeros((2 * rows, facts.shape[1]), np.int64)
    more_ids[:rows], more_facts[:rows] = ids, facts
    slots = np.zeros(4 * rows, np.int64)
    for row in range(rows):
        _, slot = _find(more_ids, slots, ids[row, 0], ids[row, 1])
        slots[slot] = row + 1
    return more_ids, more_facts, slots
