"""Dense heads: one convolution block on the finest features, then one map per quantity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg import heads
from medseg.spec import HeadBase


class DenseModule(nn.Module):
    """Convolution, normalisation, activation, and a 1 x 1 convolution to the head's channels."""

    def __init__(self, spec: HeadBase, ndim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        width = channels[0]
        self.spec = spec
        self.layers = nn.Sequential(
            conv(width, width, 3 if ndim == 2 else 1, padding=1 if ndim == 2 else 0, bias=False),
            norm(width),
            nn.LeakyReLU(0.01, inplace=True),
            conv(width, heads.make(spec).channels(ndim), 1),
        )

    def forward(self, features: list[Tensor], truth: dict[str, Tensor] | None = None) -> Tensor:
        """Raw maps from the finest features; ``truth`` is for two-stage heads and not used here."""
        return self.layers(features[0])  # type: ignore[no-any-return]


class SemanticModule(DenseModule):
    """Learns the foreground."""

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy plus soft Dice."""
        return {"foreground": foreground_loss(maps[:, :1], truth)}


class WatershedModule(DenseModule):
    """Learns the foreground and the normalised inner distance."""

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Foreground loss, and the distance's absolute error inside instances plus a little outside."""
        distance, weight = truth["distance"], truth["weight"]
        share = weight * (0.2 + 0.8 * truth["foreground"])
        error = (torch.sigmoid(maps[:, 1:2].float()) - distance).abs()
        return {
            "foreground": foreground_loss(maps[:, :1], truth),
            "distance": 2 * mean(error, share),
        }


class OffsetModule(DenseModule):
    """Learns the foreground and the offsets to the instance's centre."""

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Foreground loss, and the absolute error of the offset, in voxels, weighted towards small instances."""
        error = (maps[:, 1:].float() - truth["offset"]).abs().sum(dim=1, keepdim=True)
        share = truth["share"] * truth["weight"] * truth["foreground"]
        return {
            "foreground": foreground_loss(maps[:, :1], truth),
            "offset": mean(error, share),
        }


class FlowModule(DenseModule):
    """Learns the foreground and the direction to the instance's middle."""

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Foreground loss, and the squared error of the direction inside instances."""
        error = ((maps[:, 1:].float() - truth["flow"]) ** 2).sum(dim=1, keepdim=True)
        return {
            "foreground": foreground_loss(maps[:, :1], truth),
            "flow": 2 * mean(error, truth["weight"] * truth["foreground"]),
        }


def mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean, 0 where nothing counts."""
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def foreground_loss(logits: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """Binary cross-entropy plus soft Dice (Milletari 2016) over the batch, on voxels that count."""
    logits, target, weight = logits.float(), truth["foreground"], truth["weight"]
    entropy = mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), weight)
    p = torch.sigmoid(logits) * weight
    dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + (target * weight).sum() + 1)
    return entropy + dice
