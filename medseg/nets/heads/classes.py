"""A class for each instance, on any head: torch half."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.nets.heads.dense import mean
from medseg.spec import HeadBase


class ClassedModule(nn.Module):
    """Another head's module, and beside it a block of its own that tells classes apart."""

    def __init__(self, inner: nn.Module, spec: HeadBase, ndim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        self.spec, self.inner = spec, inner
        self.layers = nn.Sequential(
            conv(channels[0], channels[0], 3, padding=1, bias=False),
            norm(channels[0]),
            nn.LeakyReLU(0.01, inplace=True),
            conv(channels[0], spec.classes, 1),
        )

    def forward(self, features: list[Tensor], truth: dict[str, Tensor] | None = None) -> Tensor:
        """Maps of the other head, then one logit per class."""
        return torch.cat([self.inner(features, truth), self.layers(features[0])], dim=1)

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms of the other head, and cross-entropy on voxels of instances whose class is known."""
        count = self.spec.classes
        number = truth["class"][:, 0].long()
        logits = maps[:, -count:].float()
        wrong = F.cross_entropy(logits, (number - 1).clamp(min=0), reduction="none")[:, None]
        share = truth["weight"] * (truth["class"] > 0)
        terms: dict[str, Tensor] = self.inner.loss(maps[:, :-count], truth)  # type: ignore[operator]
        return terms | {"class": mean(wrong, share)}
