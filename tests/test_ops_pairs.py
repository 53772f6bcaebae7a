"""Counting pairs of ids: against a count voxel by voxel, whatever the slabs, the types and the size of the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg.ops import pairs


def counted(a, b, hidden):
    """Facts of each pair in the order of the pairs, the slow way."""
    out = {}
    for index in np.ndindex(a.shape):
        key = (int(a[index]), int(b[index]))
        if key != (0, 0):
            out.setdefault(key, []).append((index, not hidden[index]))
    rows = {}
    for key, seen in sorted(out.items()):
        where = np.array([i for i, _ in seen])
        facts = [[where[:, k].min(), where[:, k].max(), 2 * where[:, k].sum()] for k in range(a.ndim)]
        rows[key] = [len(seen), sum(free for _, free in seen), *np.ravel(facts).tolist()]
    return rows


def found(a, b, hidden, step, rows=256):
    table = pairs.empty_table(a.ndim, rows)
    for z in range(0, a.shape[0], step):
        cut = slice(z, z + step)
        table = pairs.add(table, a[cut], b[cut], None if hidden is None else hidden[cut], z)
        assert table is not None
    n = int(table.used[0])
    return {tuple(i): f for i, f in sorted(zip(table.ids[:n].tolist(), table.facts[:n].tolist(), strict=True))}


@given(
    st.data(),
    array_shapes(min_dims=2, max_dims=4, max_side=6),
    st.sampled_from([np.uint8, np.int16, np.int32, np.uint32, np.int64]),
    st.integers(1, 6),
)
def test_counts_every_voxel_once(data, shape, kind, step):
    a = data.draw(arrays(kind, shape, elements=st.integers(0, 3)))
    b = data.draw(arrays(np.int32, shape, elements=st.integers(0, 3)))
    hidden = data.draw(arrays(np.bool_, shape))
    assert found(a, b, hidden, step, rows=2) == counted(a, b, hidden)  # a table that has to grow
    assert found(a, b, None, step) == counted(a, b, np.zeros(shape, bool))


def test_memory_order_changes_nothing():
    a, b = np.random.default_rng(0).integers(0, 4, (2, 5, 6, 7))
    hidden = np.zeros(a.shape, bool)
    assert found(np.asfortranarray(a), b[::-1].copy()[::-1], None, 2) == counted(a, b, hidden)


def test_many_pairs_of_far_ids():
    rng = np.random.default_rng(1)
    a, b = rng.integers(1, 2**62, (2, 40, 50))
    a[:, 1::2] = a[:, ::2]  # runs of two
    b[:, 1::2] = b[:, ::2]
    facts = found(a, b, None, 7, rows=2)
    assert len(facts) == 1000 and {f[0] for f in facts.values()} == {2}


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64])
def test_a_negative_id_is_no_count(kind):
    a = np.zeros((3, 4), kind)
    a[2, 3] = -1
    assert pairs.add(pairs.empty_table(2), a, np.zeros((3, 4), np.int32), None, 0) is None
    assert pairs.add(pairs.empty_table(2), np.zeros((3, 4), np.int32), a, None, 0) is None
