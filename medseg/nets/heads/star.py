"""Star head, torch half: a wide block on the finest features, then the object probability and the rays."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg import heads
from medseg.nets.heads.dense import mean
from medseg.spec import HeadBase, StarSpec


class StarModule(nn.Module):
    """Learns the object probability and the ray lengths.

    The block is wider than the features it reads: dozens of rays that were linear in a few features could only draw few shapes.
    """

    def __init__(self, spec: HeadBase, ndim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        self.spec = cast(StarSpec, spec)
        self.layers = nn.Sequential(
            conv(channels[0], self.spec.width, 3 if ndim == 2 else 1, padding=1 if ndim == 2 else 0, bias=False),
            norm(self.spec.width),
            nn.LeakyReLU(0.01, inplace=True),
            conv(self.spec.width, heads.make(spec).channels(ndim), 1),
        )

    def forward(self, features: list[Tensor], truth: dict[str, Tensor] | None = None) -> Tensor:
        """Raw maps from the finest features; ``truth`` is for two-stage heads and not used here."""
        return self.layers(features[0])  # type: ignore[no-any-return]

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of the probability over its least, and the absolute error of the rays' logarithms.

        Rays count by the probability: most in the middle of objects, where candidates are. A ray that leaves the crop costs
        only where it is too short.
        """
        target, weight = truth["probability"], truth["weight"]
        entropy = F.binary_cross_entropy_with_logits(maps[:, :1].float(), target, reduction="none")
        least = F.binary_cross_entropy(target, target, reduction="none")
        wanted = torch.log(truth["rays"].abs().clamp(min=0.5) / self.spec.scale)
        short = wanted - maps[:, 1:].float()
        error = torch.where(truth["rays"] < 0, short.clamp(min=0), short.abs()).mean(dim=1, keepdim=True)
        return {
            "probability": 2 * mean((entropy - least).clamp(min=0), weight),
            "rays": mean(error, weight * target),
        }
