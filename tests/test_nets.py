"""Networks: shapes, strides, names of weights, and the same numbers on every device."""

import numpy as np
import pytest
import torch

from medseg.nets.backbone import Backbone, kernels, memory_format
from medseg.nets.heads.dense import foreground_loss
from medseg.nets.net import Net, fast_dtype
from medseg.spec import NetSpec, OffsetSpec, SemanticSpec, WatershedSpec

FLAT = NetSpec(ndim=2, in_channels=3, filters=(4, 8, 12))
STACK = NetSpec(ndim=3, filters=(4, 6, 8, 10), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)))
HEADS = (OffsetSpec(), SemanticSpec(), WatershedSpec())


def net_of(spec, heads=HEADS):
    torch.manual_seed(0)
    return Net(spec, heads)


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "spec, shape, levels",
    [
        (FLAT, (16, 24), [(16, 24), (8, 12), (4, 6)]),
        (STACK, (8, 16, 24), [(8, 16, 24), (8, 8, 12), (4, 4, 6), (2, 2, 3)]),
    ],
)
def test_a_backbone_keeps_its_word_on_channels_and_strides(spec, shape, levels):
    backbone = Backbone(spec)
    features = backbone(drawn(2, spec.in_channels, *shape))
    assert [tuple(f.shape) for f in features] == [(2, c, *s) for c, s in zip(backbone.channels, levels, strict=True)]
    assert backbone.channels == spec.filters
    assert [tuple(n // s for n, s in zip(shape, stride, strict=True)) for stride in backbone.strides] == levels
    assert backbone.strides[-1] == spec.divisor


def test_kernels_leave_an_axis_that_is_too_coarse_alone():
    assert kernels(STACK.strides) == [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert kernels(FLAT.strides) == [[3, 3]] * 3


@pytest.mark.parametrize("spec, shape", [(FLAT, (16, 16)), (STACK, (4, 8, 8))])
def test_heads_answer_in_order(spec, shape):
    maps = net_of(spec)(drawn(2, spec.in_channels, *shape))
    assert [tuple(m.shape) for m in maps] == [(2, c, *shape) for c in (1 + spec.ndim, 1, 2)]


def test_losses_are_named_by_head():
    net = net_of(FLAT)
    truth = [
        {"foreground": torch.ones(1, 1, 8, 8), "weight": torch.ones(1, 1, 8, 8)} | more
        for more in (
            {"offset": torch.zeros(1, 2, 8, 8), "share": torch.ones(1, 1, 8, 8)},
            {},
            {"distance": torch.zeros(1, 1, 8, 8)},
        )
    ]
    terms = net.loss(net(drawn(1, 3, 8, 8), truth), truth)
    assert list(terms) == ["0.foreground", "0.offset", "1.foreground", "2.foreground", "2.distance"]


def test_each_head_is_given_its_own_truth():
    net, seen = net_of(FLAT), []
    for head in net.heads:
        head.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    truth = [{"who": torch.tensor(i)} for i in range(3)]
    net(drawn(2, 3, 8, 8), truth)
    net(drawn(2, 3, 8, 8))
    assert [s and int(s["who"]) for s in seen] == [0, 1, 2, None, None, None]


def test_foreground_costs_cross_entropy_and_dice_where_voxels_count():
    p, t, w = np.array([0.9, 0.4, 0.2, 0.7]), np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 1, 0])
    entropy = -(np.log(0.9) + np.log(0.4) + np.log(0.8)) / 3
    dice = 1 - (2 * (0.9 + 0.4) + 1) / (0.9 + 0.4 + 0.2 + 2 + 1)
    logits, target, weight = (torch.tensor(v, dtype=torch.float32) for v in (np.log(p / (1 - p)), t, w))
    found = foreground_loss(logits, {"foreground": target, "weight": weight})
    assert found.item() == pytest.approx(entropy + dice, rel=1e-5)


def test_no_weight_is_stored_twice_and_all_learn():
    net = net_of(FLAT)
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == sum(
        v.numel() for k, v in net.state_dict().items() if "running_" not in k and "num_batches" not in k
    )
    torch.stack([m.abs().mean() for m in net(drawn(2, 3, 16, 16))]).sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_names_of_weights_stay():
    names = set(net_of(FLAT, (SemanticSpec(),)).state_dict())  # shipped files are read by these
    assert {
        "backbone.down.0.conv1.conv.weight",
        "backbone.up.0.transp_conv.conv.weight",
        "heads.0.layers.3.bias",
    } <= names
    assert {name.split(".")[0] for name in names} == {"backbone", "heads"}


def test_every_level_reaches_the_output():
    net = net_of(FLAT, (SemanticSpec(),)).eval()
    x = drawn(1, 3, 32, 32)
    with torch.inference_mode():
        plain = net(x)[0]
        for block in net.backbone.down:
            hook = block.register_forward_hook(lambda _, __, out: out + 1)
            assert not torch.allclose(net(x)[0], plain, atol=1e-4)
            hook.remove()


@pytest.mark.parametrize("spec, shape", [(FLAT, (16, 16)), (STACK, (4, 16, 16))])
def test_devices_agree(device, spec, shape):
    net, x = net_of(spec).eval(), drawn(2, spec.in_channels, *shape)
    with torch.inference_mode():
        expected = [m.numpy() for m in net(x)]
        there = net.to(device)
        x = x.to(device).contiguous(memory_format=memory_format(spec.ndim))
        found = [m.float().cpu().numpy() for m in there(x)]
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-2, atol=2e-3)  # TF32 on CUDA


def test_bf16_is_used_only_where_it_pays(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert fast_dtype(torch.device("cpu")) is None
    assert fast_dtype(torch.device("mps")) is None
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert fast_dtype(torch.device("cpu")) is torch.bfloat16
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda there=there, **_: there)
        assert (fast_dtype(torch.device("cuda")) is torch.bfloat16) == there
