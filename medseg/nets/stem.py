"""First layers for images whose channels come in any number and order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WIDTH = 8


class SharedStem(nn.Module):
    """The same two layers on every channel; of what they see, the largest, the smallest and the mean go on.

    Pooling makes the features a function of the set of channels (Zaheer et al. 2017, Deep Sets, arXiv:1703.06114): their order
    cannot matter, and any number of them fits.
    """

    CHANNELS = 3 * _WIDTH

    def __init__(self, ndim: int) -> None:
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        self.layers = nn.Sequential(
            conv(1, _WIDTH, 3, padding=1, bias=False),
            norm(_WIDTH),
            nn.LeakyReLU(0.01, inplace=True),
            conv(_WIDTH, _WIDTH, 3, padding=1, bias=False),
            norm(_WIDTH),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *shape), any C, to (N, CHANNELS, *shape)."""
        one = x.flatten(0, 1).unsqueeze(1)
        seen = self.layers(one).unflatten(0, x.shape[:2])
        return torch.cat([seen.amax(dim=1), seen.amin(dim=1), seen.mean(dim=1)], dim=1)
