"""Composed groups: the truth fits the picture, real shapes keep their form, the same seed gives the same group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.data import compose
from medseg.ops import components


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_a_scanned_group_has_its_objects_in_one_piece_each(seed):
    labels = compose.compose(compose.ellipsoid, np.random.default_rng(seed))
    assert labels is not None
    truth, spacing = compose.scanned(labels, np.random.default_rng(seed))
    assert len(spacing) == 3 and min(spacing) >= 0.99
    if truth.any():
        assert not truth[0].any() and not truth[-1].any()  # a rim
        volume = (truth > 0).sum() * np.prod(spacing)
        assert volume == pytest.approx((labels > 0).sum(), rel=0.35)
        assert components.pieces(truth).max() >= len(np.unique(truth)) - 1


def test_the_same_seed_composes_the_same_group():
    first, again = (compose.compose(compose.ellipsoid, np.random.default_rng(5)) for _ in range(2))
    other = compose.compose(compose.ellipsoid, np.random.default_rng(6))
    assert first is not None and again is not None and other is not None
    assert (first == again).all() and not (first == other).all()


def test_objects_of_a_group_touch():
    touching = 0
    for seed in range(20):
        labels = compose.compose(compose.ellipsoid, np.random.default_rng(seed))
        assert labels is not None
        touching += len(np.unique(labels)) - 1 > components.label(labels > 0).max()
    assert touching >= 10  # a quarter are single on purpose, and some are torn apart


@pytest.mark.parametrize("size", [3.0, 8.0])
def test_a_turned_shape_has_the_volume_asked_for(size):
    rng = np.random.default_rng(0)
    ball = compose.ellipsoid(rng)
    volumes = [compose.turned(ball, size, rng).sum() / (4 / 3 * np.pi * size**3) for _ in range(30)]
    assert np.exp(np.mean(np.log(volumes))) == pytest.approx(1, rel=0.2)  # stretching spreads single ones
    assert compose.shape_of(np.ones((2, 3, 3), bool), (1.0, 1.0, 1.0), "a", "b") is None


def test_shapes_of_patients_left_out_are_not_used(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_DATA", str(real_data))
    shapes = compose.library(real_data, ["patient19", "sarcoma"])
    families = {s.family for s in shapes}
    assert families == {"lesion", "hippocampus", "nucleus", "tumour"}
    groups = {s.group for s in shapes}
    assert "patient19" not in groups and "patient20" in groups
    assert all((s.depth > 0).any() and max(s.depth.shape) < 140 for s in shapes)
