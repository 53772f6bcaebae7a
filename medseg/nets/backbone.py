"""MONAI's DynUNet (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z) as a multi-scale backbone.

Its blocks are used one by one, so that a head can ask for any resolution level. Batch normalisation throughout: it folds into the
convolutions at inference and costs nothing, where instance normalisation costs up to 1.7 times.
"""

from __future__ import annotations

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from medseg.spec import NetSpec


def kernels(strides: tuple[tuple[int, ...], ...]) -> list[list[int]]:
    """Kernel size per level: 3, but 1 along an axis too coarse to be halved yet (anisotropic voxels, the nnU-Net rule)."""
    out = []
    for level, _ in enumerate(strides):
        onward = strides[level + 1] if level + 1 < len(strides) else (2,) * len(strides[0])
        out.append([1 if s == 1 and max(onward) > 1 else 3 for s in onward])
    return out


class Backbone(nn.Module):
    """From an image batch to feature maps of every level.

    Attributes
    ----------
    channels : tuple of int
        Feature channels per level, finest first.
    strides : tuple of tuple of int
        Cumulated stride per level and array axis, finest first.
    """

    def __init__(self, spec: NetSpec, in_channels: int | None = None) -> None:
        super().__init__()
        size = kernels(spec.strides)
        net = DynUNet(
            spatial_dims=spec.ndim,
            in_channels=in_channels or spec.in_channels,
            out_channels=1,
            kernel_size=size,
            strides=[list(s) for s in spec.strides],
            upsample_kernel_size=[list(s) for s in spec.strides[1:]],
            filters=list(spec.filters),
            norm_name=("BATCH", {"affine": True}),
            res_block=False,
        )
        # taken apart: DynUNet registers its blocks a second time inside nested skip layers, which would double the weights' names
        self.down = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.up = nn.ModuleList(net.upsamples)  # coarsest first
        self.channels = spec.filters
        cumulated = [(1,) * spec.ndim]
        for stride in spec.strides[1:]:
            cumulated.append(tuple(a * b for a, b in zip(cumulated[-1], stride, strict=True)))
        self.strides = tuple(cumulated)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, C, *shape) to decoder features per level, finest first: (N, channels[i], *shape / strides[i])."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        features = [x]
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(x, skip)
            features.append(x)
        return features[::-1]


def place(net: nn.Module, ndim: int, device: torch.device | None = None) -> nn.Module:
    """Move a network to a device, weights in the memory format that is fast there."""
    return net.to(device=device, memory_format=memory_format(ndim))  # type: ignore[call-overload, no-any-return]


def memory_format(ndim: int) -> torch.memory_format:
    """Channels last: 1.2 times faster on CPU, more with bf16."""
    return torch.channels_last if ndim == 2 else torch.channels_last_3d
