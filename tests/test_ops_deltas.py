"""Deltas: exactly what changed, there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medseg.errors import FormatError
from medseg.ops.deltas import Delta

shapes = st.one_of(st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 6)] * 3))


@st.composite
def _states(draw):
    shape = draw(shapes)
    ids = st.integers(0, 3)
    before = draw(arrays.arrays(np.int32, shape, elements=ids))
    place = tuple(slice(a, draw(st.integers(a + 1, n))) for n, a in ((n, draw(st.integers(0, n - 1))) for n in shape))
    after = draw(arrays.arrays(np.int32, before[place].shape, elements=ids))
    return before, place, after


@given(_states())
def test_apply_and_revert_are_exact(state):
    before, place, after = state
    delta = Delta.between(before[place], after, place, before.shape)
    whole = before.copy()
    whole[place] = after
    work = before.copy()
    delta.apply(work)
    np.testing.assert_array_equal(work, whole)
    assert len(delta) == (before != whole).sum()
    again = Delta.from_bytes(delta.to_bytes(), before.shape)
    again.revert(work)
    np.testing.assert_array_equal(work, before)
    changed = before != whole
    assert delta.ids == set(np.unique(np.concatenate([before[changed], whole[changed]])).tolist()) - {0}
    if changed.any():
        for axis, cut in enumerate(delta.place):
            where = np.flatnonzero(changed.any(axis=tuple(a for a in range(changed.ndim) if a != axis)))
            assert (cut.start, cut.stop) == (where[0], where[-1] + 1)


@given(_states())
def test_single_voxels_make_the_same_runs(state):
    before, place, after = state
    whole = before.copy()
    whole[place] = after
    flat = np.flatnonzero(before.ravel() != whole.ravel())
    one = Delta.of_voxels(flat, before.ravel()[flat], whole.ravel()[flat], before.shape)
    two = Delta.between(before, whole, tuple(slice(0, n) for n in before.shape), before.shape)
    np.testing.assert_array_equal(one.runs, two.runs)


def test_of_a_voxel_painted_twice_the_first_and_the_last_id_count():
    delta = Delta.of_voxels([4, 5, 4], [1, 0, 2], [2, 2, 3], (3, 3))
    assert delta.runs.tolist() == [(4, 1, 1, 3), (5, 1, 0, 2)]


def test_an_organ_is_few_runs():
    z, y, x = np.mgrid[:60, :60, :60]
    ball = ((z - 30) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 < 25**2).astype(np.int32)
    delta = Delta.of_array(ball)
    assert len(delta) == ball.sum() > 60000 and len(delta.runs) < 2100


@pytest.mark.parametrize("damage", [lambda b: b[:-4], lambda b: b"x" + b, lambda b: b""])
def test_damage_is_told(damage):
    delta = Delta.of_array(np.ones((4, 4), np.int32))
    with pytest.raises(FormatError):
        Delta.from_bytes(damage(delta.to_bytes()), (4, 4))


def test_a_record_of_another_image_is_refused():
    delta = Delta.of_array(np.ones((4, 4), np.int32))
    with pytest.raises(FormatError, match="outside"):
        Delta.from_bytes(delta.to_bytes(), (3, 4))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(1, 8)), max_size=8), st.integers(0, 99))
def test_joined_deltas_do_and_undo_what_the_single_ones_did(strokes, seed):
    start = np.random.default_rng(seed).integers(0, 3, (4, 7)).astype(np.int32)
    labels, deltas = start.copy(), []
    for id, first, length in strokes:
        index = np.arange(first, min(28, first + length))
        deltas.append(Delta.of_voxels(index, labels.ravel()[index], np.full(len(index), id), labels.shape))
        deltas[-1].apply(labels)
    whole = Delta.joined(deltas, labels.shape)
    again = start.copy()
    whole.apply(again)
    np.testing.assert_array_equal(again, labels)
    assert len(whole) == (start != labels).sum()
    for id in range(4):
        np.testing.assert_array_equal(
            np.sort(whole.of(id).runs, axis=0), whole.runs[[id in (r["old"], r["new"]) for r in whole.runs]]
        )
    whole.revert(again)
    np.testing.assert_array_equal(again, start)
