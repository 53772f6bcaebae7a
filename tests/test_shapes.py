"""Separation by learned shape: what is measured of basins adds up, and objects that a person would see apart come apart."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import presets, shapes
from medseg.data.compose import ellipsoid, groups
from medseg.errors import ModelError
from medseg.metrics import match, overlap
from medseg.ops import merging
from medseg.testing.groups import ellipsoids


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_joining_measures_what_measuring_anew_would(seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((14, 14, 14), np.int32)
    labels[2:12, 2:12, 2:12] = rng.integers(1, 4, (10, 10, 10))
    depth = rng.uniform(0.5, 3, labels.shape) * (labels > 0)
    spacing = (2.0, 1.0, 1.0)
    one = merging.measured(labels, depth, 1.0, spacing)
    one.joined(1, 2)
    two = merging.measured(np.where(labels == 2, 1, labels), depth, 1.0, spacing)
    np.testing.assert_allclose(one.sums[[1, 3]], two.sums[[1, 3]])
    np.testing.assert_allclose(one.peak[[1, 3]], two.peak[[1, 3]])
    np.testing.assert_allclose(one.surface[[1, 3]], two.surface[[1, 3]])
    # depth where two voxels meet is summed over other pairs of voxels, but over the same faces
    assert one.meets.keys() == two.meets.keys() == {(1, 3)}
    np.testing.assert_allclose(one.meets[1, 3], two.meets[1, 3])


def test_features_of_a_ball_cut_in_half_say_so():
    index = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), -1)
    inside = (index**2).sum(-1) <= 100
    labels = np.where(inside, np.where(index[..., 0] <= 0, 1, 2), 0).astype(np.int32)
    depth = np.where(inside, 10 - np.linalg.norm(index, axis=-1), 0) + 0.1 * inside
    regions = merging.measured(labels, depth, 1.0, (1.0, 1.0, 1.0))
    row = dict(zip(merging.FEATURES, merging.features(regions, np.array([(1, 2)]))[0], strict=True))
    assert row["ellipsoid fit of both"] == pytest.approx(1, abs=0.02)
    assert row["ellipsoid fit of smaller"] < 0.98
    assert row["length / width of both"] == pytest.approx(1, abs=0.02)
    assert row["pass / lower peak"] > 0.85
    assert row["share of the whole"] > 1.8  # of the larger of the two


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (0.3, 0.3, 0.3)])
def test_size_in_mm_does_not_matter_but_voxels_do(spacing):
    some = next(g for g in ellipsoids(20, 3) if g.labels.max() > 1)
    scaled = tuple(s * 7 for s in spacing)
    one, two = (shapes.by_shape(some.labels > 0, s) for s in (spacing, scaled))
    assert (one == two).all()


def test_ellipsoids_that_touch_come_apart_and_single_ones_stay_whole():
    right, wrong, total = 0, 0, 0
    for group in ellipsoids(24, 11):
        found = shapes.by_shape(group.labels > 0, group.grid.spacing)
        assert ((found > 0) == (group.labels > 0)).all()
        assert found.max() == len(np.unique(found)) - 1
        if group.contact < 0.33:
            counts, _ = match(overlap(group.labels, found), 0.5)
            right, total = right + counts.tp, total + counts.tp + counts.fp + counts.fn
            wrong += group.labels.max() == 1 and found.max() > 1
    assert right / total > 0.9 and wrong == 0


def test_what_has_no_shape_is_one_object():
    for shape in ((1, 1, 1), (1, 2, 3), (1, 1, 7)):
        assert (shapes.by_shape(np.ones(shape, bool), (1.0, 1.0, 1.0)) == 1).all()
    assert shapes.by_shape(np.ones((1, 12, 12), bool), (5.0, 1.0, 1.0)).max() == 1


def test_a_network_learned_from_other_features_is_refused():
    told = json.loads((presets.PACKAGE / "weights" / "shape.json").read_text())
    again = shapes.MergeNet.from_json(shapes.MergeNet.from_json(told).to_json())
    x = np.random.default_rng(0).normal(size=(5, len(merging.FEATURES)))
    np.testing.assert_allclose(again.chance(x), shapes.shipped().chance(x))
    with pytest.raises(ModelError, match="other features"):
        shapes.MergeNet.from_json(told | {"features": ["one"]})


def test_learning_finds_what_tells_objects_apart(real_data):
    from medseg.train.merging import Prepared, learn, plain, quality

    drawn = [ellipsoid(np.random.default_rng(i)) for i in range(3)]
    some = [Prepared(truth, spacing) for truth, spacing in groups(drawn, 40, 5)]
    found = [p.examples(plain) for p in some]
    x, y = np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
    net = learn(x, y, 0, epochs=20)
    with_net, _ = quality(some, net.chance, 0.5)
    nothing, _ = quality(some, lambda f: np.ones(len(f)), 0.5)
    assert with_net > nothing + 0.1
