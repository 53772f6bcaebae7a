"""Channels in any number and order: the network cannot tell them apart, and samples show what may come."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg import preprocess
from medseg.data.cases import Case, centres, diameter
from medseg.data.channels import compose, distractor
from medseg.data.sampling import Sampler
from medseg.errors import ModelError
from medseg.image import Image
from medseg.nets.net import Net
from medseg.spec import NetSpec, OffsetSpec, PreprocessSpec
from medseg.testing import phantoms


@pytest.fixture(params=[2, 3])
def shared(request):
    ndim = request.param
    torch.manual_seed(0)
    net = Net(NetSpec(ndim=ndim, in_channels=4, stem="shared", filters=(4, 8, 8)), (OffsetSpec(),)).eval()
    return net, torch.randn(2, 4, *(16,) * ndim, generator=torch.Generator().manual_seed(1))


def test_the_order_of_channels_changes_nothing(shared):
    net, x = shared
    with torch.inference_mode():
        expected = net(x)[0]
        for order in ([1, 0, 3, 2], [3, 2, 1, 0], [2, 0, 1, 3]):
            torch.testing.assert_close(net(x[:, order])[0], expected)
        assert not torch.allclose(net(x[:, :3])[0], expected)


def test_any_number_of_channels_fits(shared):
    net, x = shared
    with torch.inference_mode():
        for count in range(1, 5):
            assert net(x[:, :count])[0].shape == net(x)[0].shape
        torch.testing.assert_close(net(x[:, [0, 0]])[0], net(x[:, :1])[0])  # a copy adds nothing


def test_a_plan_takes_all_channels_but_those_without_contrast():
    rng = np.random.default_rng(0)
    spec = PreprocessSpec(any_channels=4, joint=False)
    voxels = rng.random((3, 20, 20)).astype(np.float32) * np.array([1, 100, 0]).reshape(3, 1, 1)
    prepared = preprocess.plan(Image.from_array(voxels, channel_axis=0), spec)
    assert prepared.channels == (0, 1) and "1 channels without any contrast" in prepared.notes[0]
    array = prepared.read(Image.from_array(voxels, channel_axis=0), (slice(0, 20), slice(0, 20)))
    assert array.shape == (2, 20, 20) and np.allclose(array.max(axis=(1, 2)), 1, atol=0.1)
    with pytest.raises(ModelError, match="up to 4 channels, the image has 5"):
        preprocess.plan(Image.from_array(rng.random((5, 20, 20)), channel_axis=0), spec)
    flat = preprocess.plan(Image.from_array(np.full((2, 20, 20), 7.0), channel_axis=0), spec)
    assert len(flat.channels) == 2  # nothing but constants: there is nothing to choose


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4))
def test_composed_channels_are_as_many_as_asked(seed, have, want):
    rng = np.random.default_rng(seed)
    labels = phantoms.blobs((32, 32), 3, 5.0, 0)
    image = rng.random((have, 32, 32)).astype(np.float32)
    out = compose(rng, image, labels, want)
    assert out.shape == (want, 32, 32) and out.dtype == np.float32 and np.isfinite(out).all()
    if want == have > 1:  # the same channels in some order
        assert sorted(c.sum() for c in out) == sorted(c.sum() for c in image)


@pytest.mark.parametrize("seed", range(15))
def test_distractors_are_not_the_image(seed):
    labels = phantoms.blobs((48, 48), 5, 5.0, 0)
    image = phantoms.image_of(labels, 0)[None]
    out = distractor(np.random.default_rng(seed), image, labels)
    assert out.shape == (48, 48) and out.dtype == np.float32 and np.isfinite(out).all()
    assert not np.allclose(out, image[0], atol=0.05)


def case_of(labels, channels=1, source="cells"):
    image = np.repeat(phantoms.image_of(labels, 0)[None], channels, axis=0)
    return Case(
        source, "stem", image, labels, (1.0,) * labels.ndim, centres(labels), None, diameter(labels, (1.0, 1.0))
    )


def test_all_samples_of_a_batch_show_the_same_number_of_channels(tiny_training):
    spec = tiny_training(
        net={"ndim": 2, "filters": [4, 8, 8], "in_channels": 4, "stem": "shared"},
        preprocess={"any_channels": 4, "joint": False},
        augment={"channels": [0.25, 0.25, 0.25, 0.25]},
        batch=4,
        steps=12,
    )
    cases = (case_of(phantoms.blobs((60, 60), 6, 7.0, 0)), case_of(phantoms.blobs((60, 60), 6, 7.0, 1), 3))
    sampler = Sampler(spec, cases)
    counts = [[sampler[4 * b + i]["image"].shape[0] for i in range(4)] for b in range(12)]
    assert all(len(set(c)) == 1 for c in counts)
    assert {c[0] for c in counts} == {1, 2, 3, 4}


def test_objects_are_zoomed_to_the_diameters_wanted(tiny_training):
    spec = tiny_training(
        augment={"diameter": [8, 8.01], "stretch": 1, "p_elastic": 0}, patch=[64, 64], heads=[{"kind": "semantic"}]
    )
    labels = np.zeros((400, 400), np.int32)
    y, x = np.ogrid[:400, :400]
    for number in range(64):
        labels[(y - 25 - 50 * (number // 8)) ** 2 + (x - 25 - 50 * (number % 8)) ** 2 < 16**2] = number + 1
    sampler = Sampler(spec, (case_of(labels),))
    assert sampler.cases[0].diameter == pytest.approx(32, rel=0.02)
    area = np.mean([sampler[i]["0.foreground"].mean() for i in range(40)])
    assert area == pytest.approx((labels > 0).mean(), rel=0.25)
    from scipy.ndimage import label

    sizes = np.concatenate([np.bincount(label(sampler[i]["0.foreground"][0])[0].ravel())[1:] for i in range(20)])
    assert np.median(sizes) == pytest.approx(np.pi * 16, rel=0.15)  # discs of 8 across
