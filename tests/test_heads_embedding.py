"""Embedding head: the contract, and drawn maps whose instances are known."""

import time

import numpy as np
import pytest
import torch

from medseg import heads
from medseg.metrics import match, overlap
from medseg.nets import heads as modules
from medseg.nets.heads.embedding import lovasz, neighbourhoods, number
from medseg.spec import EmbeddingSpec
from medseg.testing.heads import HeadContract

SURE = 12.0


class TestEmbedding(HeadContract):
    spec = EmbeddingSpec()


class TestEmbeddingPerAxis(HeadContract):
    spec = EmbeddingSpec(per_axis=True)


def discs(shape, *drawn):
    """Labels 1, 2, ... of (y, x, radius)."""
    labels = np.zeros(shape, np.int32)
    for one, (y, x, radius) in enumerate(drawn, 1):
        labels[(np.indices(shape)[0] - y) ** 2 + (np.indices(shape)[1] - x) ** 2 <= radius**2] = one
    return labels


def maps_of(labels, sigma, **settings):
    """Maps that point exactly to the centroids, with a sigma in voxels per label."""
    head = heads.make(EmbeddingSpec(**settings))
    maps = head.perfect(head.targets(labels, None, (1.0,) * labels.ndim))
    maps[1 + labels.ndim] = np.log(np.array([8.0, *sigma])[labels] / 8)
    return head, maps


def found(head, maps):
    candidates = head.decode(maps.astype(np.float32), (1.0,) * (maps.ndim - 1))
    return candidates.paint(order="index")[0], candidates.scores


# --- decoding drawn maps


def test_voxels_that_embed_together_are_one_instance():
    # a row of nine voxels; the numbers are where each embeds, with sigma 1: within 1.18 of a centre belongs
    embeds = np.array([[0, 2, 2, 2.5, 2, 7, 7, 6.5, 0]])
    place = np.arange(9)
    inside = np.array([[0, 1, 1, 1, 1, 1, 1, 1, 0]], bool)
    seed = np.array([[-SURE, 1, 2, 1, 1, 3, 1, 1, -SURE]])
    maps = np.stack(
        [np.where(inside, SURE, -SURE), 0 * seed, (embeds - place) / 16, np.full((1, 9), np.log(1 / 8)), seed]
    )
    labels, _ = found(heads.make(EmbeddingSpec(min_voxels=2)), maps)
    assert labels.tolist() == [[0, 2, 2, 2, 2, 1, 1, 1, 0]]  # the best seed's is the first


def test_the_better_seed_claims_first_and_what_is_mostly_claimed_is_dropped():
    place, embeds = np.arange(8), np.array([[3.0, 3, 3, 3, 3, 3.5, 4.2, 4.2]])
    seed = np.array([[2.0, 2, 2, 4, 2, 2, 3, 3]])
    maps = np.stack([np.full((1, 8), SURE), 0 * seed, (embeds - place) / 16, np.full((1, 8), np.log(1 / 8)), seed])
    labels, _ = found(heads.make(EmbeddingSpec(min_voxels=2)), maps)
    assert labels.tolist() == [[1] * 8]  # the last two are leftovers, and lie beside it


def test_a_seed_must_exceed_the_setting():
    labels = discs((24, 24), (11, 11, 6))
    head, maps = maps_of(labels, [3.0])
    maps[-1] = np.log(0.6 / 0.4)
    assert found(head, maps)[0].max() == 1
    assert found(heads.make(EmbeddingSpec(seed=0.7)), maps)[0].max() == 0


def test_the_score_is_seed_times_gaussian():
    labels = discs((24, 24), (11, 11, 6))
    head, maps = maps_of(labels, [4.0])
    maps[-1] = np.log(0.8 / 0.2)
    assert found(head, maps)[1] == pytest.approx([0.8], abs=1e-4)
    there = labels > 0
    maps[2][there] += np.where(np.arange(there.sum()) % 2, 2, -2) / 16  # two voxels off the centre, half to each side
    assert found(head, maps)[1] == pytest.approx([0.8 * np.exp(-((2 / 4) ** 2) / 2)], abs=0.01)


def test_the_bandwidth_lets_small_and_large_lie_side_by_side():
    labels = discs((64, 80), (32, 26, 24), (32, 54, 4))  # the centres of small ones are nearer to it than its own rim
    labels[discs((64, 80), (32, 64, 5)) > 0] = 3
    head, maps = maps_of(labels, [12.0, 2.0, 2.0])
    rng = np.random.default_rng(0)
    spread = np.array([0, 8.0, 0.7, 0.7])[labels]  # the large one points inexactly
    maps[1:3] += rng.normal(0, 1, (2, *labels.shape)) * spread / 16
    drawn, _ = found(head, maps)
    counts, _ = match(overlap(labels, drawn), 0.8)
    assert (counts.tp, counts.fp, counts.fn) == (3, 0, 0)
    for sigma in (2.0, 12.0):  # one for all does not do
        one, same = maps_of(labels, [sigma] * 3)
        same[1:3] = maps[1:3]
        assert match(overlap(labels, found(one, same)[0]), 0.8)[0].ap < 1


def test_a_bandwidth_per_axis_parts_long_neighbours():
    labels = np.zeros((24, 64), np.int32)
    labels[4:10, 4:60], labels[10:16, 4:60] = 1, 2
    head = heads.make(EmbeddingSpec(per_axis=True))
    truth = head.targets(labels, None, (1.0, 1.0))
    maps = head.perfect(truth)
    maps[1:3] = 0
    maps[1][labels > 0] = maps[1][labels > 0] + head.perfect(truth)[1][labels > 0]
    maps[2] = 0.6 * head.perfect(truth)[2]  # points inexactly along the long axis
    maps[3], maps[4] = np.log(1.5 / 8), np.log(12 / 8)
    assert (found(head, maps)[0] == labels).all()


def test_noise_in_all_maps_still_finds_the_objects():
    labels = discs((72, 72), (16, 16, 11), (16, 39, 11), (44, 20, 11), (48, 46, 11), (60, 64, 6))
    head, maps = maps_of(labels, [4.5, 4.5, 4.5, 4.5, 3.0])
    rng = np.random.default_rng(0)
    maps[1:3] += rng.normal(0, 2.5 / 16, maps[1:3].shape)
    maps[3] += rng.normal(0, 0.5, labels.shape)
    maps[4] = rng.normal(2, 2, labels.shape)
    drawn, _ = found(head, maps)
    counts, _ = match(overlap(labels, drawn), 0.8)
    assert (counts.tp, counts.fp, counts.fn) == (5, 0, 0)


def test_leftovers_go_to_the_instance_beside_them_not_to_one_far_away():
    labels = discs((40, 40), (14, 14, 9))
    head, maps = maps_of(labels, [3.0])
    maps[1:3, 14, 22] = 5  # a voxel at the rim that embeds 80 voxels away
    maps[0, 30:36, 30:36] = SURE  # foreground without a seed
    drawn, _ = found(head, maps)
    assert (drawn == labels).all()


def test_no_foreground_is_no_object():
    maps = np.full((5, 20, 20), 3.0)
    maps[0] = -3
    assert not found(heads.make(EmbeddingSpec()), maps)[0].any()


@pytest.mark.parametrize("size", [256])
def test_decoding_is_fast(size):
    centres = [(y, x, 14) for y in range(16, size - 15, 30) for x in range(16, size - 15, 30)]
    labels = discs((size, size), *centres)
    head, maps = maps_of(labels, [5.0] * len(centres))
    found(head, maps)
    start = time.process_time()
    drawn, _ = found(head, maps)
    assert time.process_time() - start < 0.5  # about 0.03 alone
    assert (drawn == labels).all()


# --- learning


def test_lovasz_of_drawn_errors():
    # Berman 2018: errors from the largest, each times the growth of the Jaccard loss
    inside = torch.tensor([True, True, False, True, False])
    phi = torch.tensor([0.9, 0.4, 0.3, 0.5, 0.75])
    instance = torch.tensor([0, 0, 0, 1, 1])
    # sorted: 1.2 (inside), .6 (outside), .2 (inside); Jaccard losses 1/2, 2/3, 1
    first = 1.2 * 1 / 2 + 0.6 * (2 / 3 - 1 / 2) + 0.2 * (1 - 2 / 3)
    second = 1.5 * 1 / 2 + 1.0 * (1 - 1 / 2)  # 1.5 (outside), 1 (inside); losses 1/2, 1
    assert lovasz(-torch.log(phi), inside, instance, 2).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_neighbourhoods_hold_the_box_and_a_margin_in_the_same_image():
    ids = torch.zeros(2, 8, 10)
    ids[0, 0:2, 0:2] = 7
    ids[1, 4, 5] = 7
    owner, inside = number(ids)
    assert owner[inside].tolist() == [0, 0, 0, 0, 1]
    instance, voxel = neighbourhoods(owner, inside, (2, 8, 10), 2)
    drawn = torch.zeros(2, 2, 8, 10)
    drawn.view(2, -1)[instance, voxel] = 1
    assert drawn[0, 0, :4, :4].all() and drawn[1, 1, 2:7, 3:8].all()
    assert drawn.sum() == len(instance) == 16 + 25


def test_small_instances_weigh_as_much_as_large_ones():
    spec, labels = EmbeddingSpec(), discs((48, 48), (14, 14, 12), (38, 38, 3))
    head, module = heads.make(spec), modules.make(spec, 2, (8, 16))
    truth = {k: torch.from_numpy(v)[None] for k, v in head.targets(labels, None, (1.0, 1.0)).items()}
    losses = []
    for one in (1, 2):
        maps = head.perfect({k: v[0].numpy() for k, v in truth.items()})
        maps[3][labels == one] = 3  # a Gaussian far too wide
        losses.append(module.loss(torch.from_numpy(maps)[None], truth)["gaussian"].item())
    assert losses[0] > 0.1 and losses[1] > 0.1
    assert 0.5 < losses[0] / losses[1] < 2


def test_the_loss_draws_an_instance_together_and_away_from_its_neighbour():
    spec, labels = EmbeddingSpec(), discs((24, 40), (12, 11, 8), (12, 28, 8))
    head, module = heads.make(spec), modules.make(spec, 2, (8, 16))
    truth = {k: torch.from_numpy(v)[None] for k, v in head.targets(labels, None, (1.0, 1.0)).items()}
    maps = torch.zeros(1, 5, 24, 40, requires_grad=True)
    optimiser = torch.optim.Adam([maps], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        torch.stack(list(module.loss(maps, truth).values())).sum().backward()
        optimiser.step()
    assert (found(head, maps.detach()[0].numpy())[0] == labels).all()
