"""Flow head: the contract, and drawn objects whose flow and paths are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import heads
from medseg.ops import flow as flow_module
from medseg.ops.flow import Paths, flows, follow
from medseg.spec import FlowSpec
from medseg.testing.heads import HeadContract


class TestFlow(HeadContract):
    spec = FlowSpec()


def test_a_bar_flows_to_its_middle():
    labels = np.zeros((3, 9), np.int32)
    labels[1, 1:8] = 5
    got = flows(labels, (1.0, 1.0))
    assert got[1, 1, 1:8].tolist() == [1, 1, 1, 0, -1, -1, -1]
    assert not got[0].any() and not got[:, labels == 0].any()


def test_flow_goes_round_a_corner():
    labels = np.zeros((12, 12), np.int32)
    labels[1:11, 1:3] = labels[9:11, 1:11] = 1  # an L: its middle is the corner, its centroid nearly outside
    paths = follow(flows(labels, (1.0, 1.0)), labels > 0, (1.0, 1.0))
    ends = np.argwhere(labels) + paths[:, labels > 0].T
    assert np.linalg.norm(ends - ends.mean(axis=0), axis=1).max() < 1.5
    assert labels[tuple(np.rint(ends).astype(int).T)].all()


def test_spacing_counts_as_length():
    ball = np.indices((9, 27, 27)) - np.array([4, 13, 13])[:, None, None, None]
    labels = (((ball * np.array([3, 1, 1])[:, None, None, None]) ** 2).sum(axis=0) <= 12**2).astype(np.int32)
    got = flows(labels, (3.0, 1.0, 1.0))
    toward = -ball * np.array([3, 1, 1])[:, None, None, None]
    inside = (labels > 0) & (np.abs(toward).sum(axis=0) > 6)
    cosine = (got * toward).sum(axis=0)[inside] / np.linalg.norm(toward, axis=0)[inside]
    assert np.quantile(cosine, 0.02) > 0.9
    ends = follow(got, labels > 0, (3.0, 1.0, 1.0))[:, labels > 0] - toward[:, labels > 0]
    assert np.quantile(np.linalg.norm(ends, axis=0), 0.98) < 2


def test_two_touching_halves_flow_apart():
    labels = np.ones((10, 20), np.int32)
    labels[:, 10:] = 2
    got = flows(labels, (1.0, 1.0))
    assert (got[1, :, 9] < 0).all() and (got[1, :, 10] > 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
def test_one_voxel_has_no_direction(shape):
    labels = np.ones(shape, np.int32)
    assert not flows(labels, (1.0,) * len(shape)).any()
    assert not follow(np.ones((len(shape), *shape), np.float32), labels > 0, (1.0,) * len(shape)).any()


def test_noise_of_half_the_flow_still_finds_the_objects():
    labels = np.zeros((64, 64), np.int32)
    for number, (y, x) in enumerate([(16, 16), (16, 40), (44, 20), (46, 46)], 1):
        labels[(np.indices(labels.shape)[0] - y) ** 2 + (np.indices(labels.shape)[1] - x) ** 2 < 11**2] = number
    head = heads.make(FlowSpec(blur=2.0))
    maps = head.perfect(head.targets(labels, None, (1.0, 1.0)))
    maps[1:] += np.random.default_rng(0).normal(0, 0.5, maps[1:].shape)
    assert len(head.decode(maps, (1.0, 1.0))) == 4


@given(
    st.sampled_from([((9, 14), (1.0, 1.0)), ((4, 7, 6), (2.5, 1.0, 1.0)), ((1, 12), (1.0, 1.0))]),
    st.lists(st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.75, 0.99]), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_paths_under_another_threshold_are_those_walked_anew(field, thresholds, seed):
    shape, spacing = field
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, rng.choice([0.3, 1.0]), (len(shape), *shape)).astype(np.float32)
    probability = np.round(rng.random(shape), 2).astype(np.float32)  # some equal a threshold
    kept = Paths(flow, probability, spacing)
    for threshold in thresholds:
        wanted = follow(flow, probability > np.float32(threshold), spacing)
        np.testing.assert_array_equal(kept.ends(threshold), wanted)


def test_only_paths_that_a_threshold_changes_are_walked_again(monkeypatch):
    labels = np.zeros((40, 40), np.int32)
    labels[5:20, 5:20] = 1
    labels[25:35, 5:35] = 2
    probability = np.where(labels > 0, 0.8, 0.1).astype(np.float32)
    probability[25:35, 30:35] = 0.4
    walked = []
    real = flow_module._walk
    monkeypatch.setattr(flow_module, "_walk", lambda *a: walked.append(len(a[3])) or real(*a))
    paths = Paths(flows(labels, (1.0, 1.0)), probability, (1.0, 1.0))
    for threshold in (0.5, 0.6, 0.3, 0.5):
        paths.ends(threshold)
    # at .6 none, at .3 the 50 voxels that came in, at .5 again none: all that was walked before is known
    assert walked == [475, 0, 50, 0]
