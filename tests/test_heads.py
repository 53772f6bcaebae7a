"""Heads: each passes the public contract; and small drawn maps with the objects that must come out."""

from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from pydantic import ValidationError

import medseg.heads
import medseg.nets.heads
import medseg.spec.heads
from medseg import heads
from medseg.errors import SpecError
from medseg.heads.semantic import SemanticHead
from medseg.heads.watershed import inner_distance
from medseg.nets.heads.dense import SemanticModule
from medseg.nets.net import Net
from medseg.spec import (
    HEAD_SPECS,
    HeadBase,
    ModelSpec,
    NetSpec,
    OffsetSpec,
    PreprocessSpec,
    SemanticSpec,
    WatershedSpec,
)
from medseg.testing.heads import HeadContract


class TestSemantic(HeadContract):
    spec = SemanticSpec()
    separates_touching = False


class TestWatershed(HeadContract):
    spec = WatershedSpec()


class TestOffset(HeadContract):
    spec = OffsetSpec()


def logit(p):
    return np.log(p / (1 - np.asarray(p, dtype=np.float32))).astype(np.float32)


def decode(spec, maps, spacing=None):
    maps = np.asarray(maps, dtype=np.float32)
    found = heads.make(spec).decode(maps, spacing or (1.0,) * (maps.ndim - 1))
    return found.paint(order="index")[0], found.scores


# --- semantic


def test_semantic_components_connect_at_corners_and_score_their_mean_probability():
    drawn = np.array(
        [
            [0.9, 0.9, 0.2, 0.2, 0.2],
            [0.9, 0.7, 0.2, 0.2, 0.6],
            [0.2, 0.2, 0.7, 0.2, 0.6],
        ]
    )
    labels, scores = decode(SemanticSpec(min_voxels=2), logit(drawn)[None])
    assert labels.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 2], [0, 0, 1, 0, 2]]
    assert scores == pytest.approx([(3 * 0.9 + 2 * 0.7) / 5, 0.6], abs=1e-5)


def test_a_probability_must_exceed_the_threshold():
    maps = logit([[[0.25, 0.5, 0.75]]])
    assert decode(SemanticSpec(min_voxels=1), maps)[0].tolist() == [[0, 0, 1]]
    assert decode(SemanticSpec(min_voxels=1, threshold=0.4), maps)[0].tolist() == [[0, 1, 1]]


# --- watershed


def test_inner_distance_of_drawn_squares():
    labels = np.zeros((5, 9), np.int32)
    labels[:, 1:6] = 7
    labels[1:4, 6:9] = 2
    drawn = np.array(  # in thirds of the large one's and halves of the small one's largest distance
        [
            [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0, 0],
            [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 1 / 2, 1 / 2, 1 / 2],
            [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 1 / 2, 1, 1],
            [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 1 / 2, 1 / 2, 1 / 2],
            [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0, 0],
        ]
    )
    np.testing.assert_allclose(inner_distance(labels, (1.0, 1.0)), drawn, atol=1e-6)


def test_inner_distance_is_in_physical_units():
    labels = np.zeros((7, 7), np.int32)
    labels[2:5, 1:6] = 1
    row = [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]  # three wide of spacing 2: the middle row is limited by the columns, 3 x 1
    outer = [1 / 3, 2 / 3, 2 / 3, 2 / 3, 1 / 3]
    found = inner_distance(labels, (2.0, 1.0))[2:5, 1:6]
    np.testing.assert_allclose(found, [outer, row, outer], atol=1e-6)


def test_watershed_floods_each_core_and_drops_foreground_without_one():
    inside, outside = 0.9, 0.1
    foreground = np.full((4, 11), outside)
    foreground[1:3, 1:8] = inside
    foreground[1:3, 9:11] = inside
    distance = np.full((4, 11), 0.01)
    distance[1:3, 1:8] = [0.3, 0.9, 0.3, 0.1, 0.3, 0.9, 0.4]
    distance[1:3, 9:11] = 0.4
    labels, scores = decode(WatershedSpec(min_voxels=2), [logit(foreground), logit(distance)])
    assert labels[1].tolist()[:4] == [0, 1, 1, 1]
    assert labels[1].tolist()[5:] == [2, 2, 2, 0, 0, 0]
    assert labels[1, 4] in (1, 2)
    assert scores == pytest.approx([0.9, 0.9], abs=1e-4)
    lower, _ = decode(WatershedSpec(min_voxels=2, core=0.35), [logit(foreground), logit(distance)])
    assert lower[1, 9:].tolist() == [3, 3]


# --- offset


def offset_maps(foreground, target, scale=16.0):
    """Maps of voxels that all vote for the index `target` (one per voxel, or the same for all)."""
    index = np.indices(foreground.shape)
    vote = (np.asarray(target).reshape(2, -1).repeat(foreground.size if np.ndim(target) == 1 else 1, axis=1)).reshape(
        index.shape
    )
    return np.concatenate([np.where(foreground, 12.0, -12.0)[None], (vote - index) / scale])


def test_offset_targets_of_a_drawn_array():
    labels = np.array([[3, 3, 3, 0], [0, 0, 0, 9]], np.int32)
    truth = heads.make(OffsetSpec(scale=2.0)).targets(labels, None, (3.0, 1.0))
    assert truth["offset"].tolist() == [[[0, 0, 0, 0], [0, 0, 0, 0]], [[0.5, 0, -0.5, 0], [0, 0, 0, 0]]]
    three, one = np.sqrt(100 / 3), 10.0
    np.testing.assert_allclose(truth["share"][0], [[three, three, three, 0], [0, 0, 0, one]], rtol=1e-6)


def test_offsets_count_finest_voxels_whatever_the_unit():
    labels = np.zeros((4, 1, 1), np.int32)
    labels[:3] = 1
    truth = heads.make(OffsetSpec(scale=1.0)).targets(labels, None, (0.006, 0.002, 0.002))
    np.testing.assert_allclose(truth["offset"][0].ravel(), [3, 0, -3, 0], atol=1e-5)


def test_separation_decides_whether_two_near_centres_are_one():
    square = np.zeros((24, 24), bool)
    square[6:18, 6:18] = True
    left = np.indices(square.shape)[1] < 12
    target = np.stack([np.full(square.shape, 11.0), np.where(left, 9.0, 14.0)])
    maps = offset_maps(square, target)  # two halves of 72 voxels, radius 4.8, centres 5 apart
    apart, _ = decode(OffsetSpec(separation=0.9), maps)
    joined, _ = decode(OffsetSpec(separation=1.2), maps)
    assert (apart[square & left].tolist(), apart[square & ~left].tolist()) == ([1] * 72, [2] * 72)
    assert np.array_equal(joined > 0, square) and joined.max() == 1


def test_a_centre_needs_its_votes():
    row = np.zeros((9, 9), bool)
    row[4, 1:7] = True  # six voxels
    maps = offset_maps(row, np.array([4.0, 4.0]))
    assert decode(OffsetSpec(votes=7, min_voxels=1), maps)[0].max() == 0
    assert decode(OffsetSpec(votes=5, min_voxels=1), maps)[0].max() == 1


def test_voxels_apart_from_their_object_are_dropped():
    field = np.zeros((20, 30), bool)
    field[5:12, 5:12] = True
    field[5:8, 20:23] = True  # elsewhere, but votes for the same centre
    labels, _ = decode(OffsetSpec(), offset_maps(field, np.array([8.0, 8.0])))
    assert labels[8, 8] == 1
    assert not labels[:, 20:].any()


def test_votes_that_disagree_lower_the_score():
    field = np.zeros((20, 20), bool)
    field[5:15, 5:15] = True
    target = np.array([9.5, 9.5]).reshape(2, 1, 1) + np.random.default_rng(0).normal(0, 2.5, (2, 20, 20))
    sure, unsure = (
        decode(OffsetSpec(separation=2.0), offset_maps(field, t))[1] for t in (np.array([10.0, 10.0]), target)
    )
    assert sure == pytest.approx([1.0], abs=1e-3)
    assert 0.4 < unsure[0] < 0.8


# --- registry


class ThirdSpec(HeadBase):
    kind: Literal["third"] = "third"
    depth: int = 3


class ThirdHead(SemanticHead):
    Spec = ThirdSpec


@pytest.fixture
def installed(monkeypatch):
    """Another package that registers a head."""
    offered = {("medseg.heads", "third"): ThirdHead, ("medseg.nets.heads", "third"): SemanticModule}

    def entry_points(group, name):
        found = offered.get((group, name))
        return [SimpleNamespace(load=lambda: found)] if found else []

    for module in (medseg.spec.heads, medseg.heads, medseg.nets.heads):
        monkeypatch.setattr(module, "entry_points", entry_points)


def model_spec(head):
    return ModelSpec(
        name="m",
        title="t",
        licence="l",
        modality=("other",),
        target="cell",
        net=NetSpec(filters=(4, 8, 8)),
        preprocess=PreprocessSpec(),
        heads=(head,),
    )


@pytest.mark.usefixtures("installed")
def test_a_head_of_another_package_is_found_everywhere():
    spec = ModelSpec.model_validate_json(model_spec({"kind": "third", "depth": 5}).model_dump_json())
    assert spec.heads[0] == ThirdSpec(depth=5)
    assert type(heads.make(spec.heads[0])) is ThirdHead
    assert type(Net(spec.net, spec.heads).heads[0]) is SemanticModule
    with pytest.raises(ValidationError, match="depth"):
        model_spec({"kind": "third", "depth": "deep"})


def test_unknown_heads_are_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match=f"unknown head kind 'third'; known: {', '.join(sorted(HEAD_SPECS))}"):
        model_spec({"kind": "third"})
    with pytest.raises(ValidationError, match="needs 'kind'"):
        model_spec({})
    with pytest.raises(SpecError, match="no head of kind 'third'; known: .*offset"):
        heads.make(ThirdSpec())
    with pytest.raises(SpecError, match="no network half for head 'third'"):
        medseg.nets.heads.make(ThirdSpec(), 2, (8, 16))
