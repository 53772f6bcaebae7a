"""Which labels are of a usual size, and taking some of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.ops.labels import dense, taken, usual


def of_sizes(*sizes):
    return np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes)[None]


def test_a_swarm_of_specks_does_not_become_the_usual():
    keep = usual(of_sizes(*[400] * 5, *[4] * 300), 0.05)
    assert keep[:5].all() and not keep[5:].any()


def test_without_a_share_everything_stays():
    assert usual(of_sizes(1, 1000), 0.0).all()
    assert usual(np.zeros((3, 3), np.int32), 0.5).tolist() == []


def test_sizes_at_the_limit_stay():
    assert usual(of_sizes(100, 100, 10, 9), 0.1).tolist() == [True, True, True, False]


@given(arrays(np.int32, (6, 7), elements=st.integers(0, 5)), st.data())
def test_taken_labels_are_renumbered_in_order(drawn, data):
    ids, labels = dense(drawn)
    keep = np.array([data.draw(st.booleans()) for _ in ids], dtype=bool)
    out = taken(labels, keep)
    assert np.array_equal(out > 0, np.isin(labels, np.flatnonzero(keep) + 1))
    for new, old in enumerate(np.flatnonzero(keep) + 1, 1):
        assert np.array_equal(out == new, labels == old)
