"""Instances of several classes: any head passes its contract with classes, and they come back from maps and from a training."""

import numpy as np
import pytest
import torch

from medseg import heads
from medseg.heads.classes import ClassedHead
from medseg.nets.net import Net
from medseg.spec import NetSpec, OffsetSpec, WatershedSpec
from medseg.testing import phantoms
from medseg.testing.heads import HeadContract


class TestOffsetOfThreeClasses(HeadContract):
    spec = OffsetSpec(classes=3)


class TestWatershedOfTwoClasses(HeadContract):
    spec = WatershedSpec(classes=2)


@pytest.fixture(params=[(64, 64), (20, 40, 40)])
def drawn(request):
    labels = phantoms.blobs(request.param, 6 if len(request.param) == 2 else 4, 6.0, 1)
    classes = np.array([0, 3, 1, 2, 3, 1, 2], np.int32)[: labels.max() + 1]
    return labels, classes


def test_one_class_is_the_plain_head():
    assert not isinstance(heads.make(OffsetSpec()), ClassedHead)
    assert heads.make(OffsetSpec(classes=3)).channels(2) == heads.make(OffsetSpec()).channels(2) + 3


def test_classes_come_back_from_perfect_maps(drawn):
    labels, classes = drawn
    head, spacing = heads.make(OffsetSpec(classes=3)), (1.0,) * labels.ndim
    found = head.decode(head.perfect(head.targets(labels, None, spacing, classes=classes)), spacing)
    assert len(found) == labels.max()
    for box, mask, kind in zip(found.boxes, found.masks, found.classes, strict=True):
        middle = labels[tuple(map(slice, box[: labels.ndim], box[labels.ndim :]))][mask]
        assert classes[np.bincount(middle).argmax()] == kind


def test_the_voxels_of_an_instance_vote_for_its_class():
    labels = np.zeros((24, 24), np.int32)
    labels[4:20, 4:20] = 1
    head = heads.make(WatershedSpec(classes=2))
    maps = head.perfect(head.targets(labels, None, (1.0, 1.0), classes=np.array([0, 2])))
    maps[-2, 4:10, 4:20], maps[-1, 4:10, 4:20] = 5.0, -5.0  # a good third says the other class
    assert head.decode(maps, (1.0, 1.0)).classes.tolist() == [2]
    maps[-2, 4:20, 4:20], maps[-1, 4:20, 4:20] = 5.0, -5.0
    assert head.decode(maps, (1.0, 1.0)).classes.tolist() == [1]


def test_an_instance_of_unknown_class_teaches_no_class():
    labels = np.zeros((16, 16), np.int32)
    labels[2:8, 2:8], labels[9:15, 9:15] = 1, 2
    spec = OffsetSpec(classes=2)
    truth = heads.make(spec).targets(labels, None, (1.0, 1.0), classes=np.array([0, 1, 0]))
    assert set(np.unique(truth["class"][0][labels == 1])) == {1} and not truth["class"][0][labels != 1].any()
    net = Net(NetSpec(filters=(4, 8, 8)), (spec,))
    batch = [{k: torch.from_numpy(v)[None] for k, v in truth.items()}]
    maps = torch.zeros(1, heads.make(spec).channels(2), 16, 16, requires_grad=True)
    net.loss([maps], batch)["0.class"].backward()
    touched = maps.grad[0, -2:].abs().sum(dim=0).numpy() > 0
    np.testing.assert_array_equal(touched, labels == 1)


def test_a_tiny_net_learns_classes_by_heart():
    labels = phantoms.blobs((64, 64), 8, 7.0, 5)
    classes = np.concatenate([[0], 1 + np.arange(8) % 2]).astype(np.int32)
    image = phantoms.image_of(labels, 5) * np.where(classes[labels] == 2, 0.4, 1.0)
    spec = OffsetSpec(classes=2)
    truth = [
        {k: torch.from_numpy(v)[None] for k, v in heads.make(spec).targets(labels, None, (1.0, 1.0), classes).items()}
    ]
    torch.manual_seed(0)
    net = Net(NetSpec(filters=(8, 16, 32)), (spec,)).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    x = torch.from_numpy(image.astype(np.float32))[None, None]
    for _ in range(80):
        optimiser.zero_grad()
        torch.stack(list(net.loss(net(x, truth), truth).values())).sum().backward()
        optimiser.step()
    with torch.inference_mode():
        maps = net.eval()(x)[0][0].numpy()
    found = heads.make(spec).decode(maps, (1.0, 1.0))
    painted, _ = found.paint()
    right = [classes[np.bincount(labels[painted == i + 1]).argmax()] == c for i, c in enumerate(found.classes)]
    assert len(right) >= 7 and np.mean(right) >= 0.85
