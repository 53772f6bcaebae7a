"""The whole network: one backbone, any number of heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.nets import heads
from medseg.nets.backbone import Backbone, place
from medseg.nets.stem import SharedStem
from medseg.spec import HeadBase, NetSpec


class Net(nn.Module):
    """Backbone and heads.

    Parameters
    ----------
    spec
        The backbone.
    head_specs
        One entry per head; ``forward`` returns their maps in this order.
    """

    def __init__(self, spec: NetSpec, head_specs: tuple[HeadBase, ...]) -> None:
        super().__init__()
        self.stem = SharedStem(spec.ndim) if spec.stem == "shared" else nn.Identity()
        self.backbone = Backbone(spec, SharedStem.CHANNELS if spec.stem == "shared" else spec.in_channels)
        self.heads = nn.ModuleList(heads.make(s, spec.ndim, self.backbone.channels) for s in head_specs)
        place(self, spec.ndim)

    def forward(self, x: Tensor, truth: list[dict[str, Tensor]] | None = None) -> list[Tensor]:
        """Map (N, C, *shape) to one (N, channels, *shape) per head, raw."""
        features = self.backbone(self.stem(x))
        return [head(features, None if truth is None else truth[i]) for i, head in enumerate(self.heads)]

    def loss(self, maps: list[Tensor], truth: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """All heads' loss terms, named ``i.term``."""
        return {
            f"{i}.{name}": value
            for i, head in enumerate(self.heads)
            for name, value in head.loss(maps[i], truth[i]).items()  # type: ignore[operator]
        }


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """Autocast type that pays on this device: bf16 on CUDA and on processors with bf16 arithmetic, else None.

    Without the instructions bf16 on a CPU is emulated and twice slower than float32; float16 on a CPU is 40 times slower.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None
