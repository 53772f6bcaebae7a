"""Cut a mask into objects by its shape alone, as a small network learned it (`medseg.train.merging`). NumPy, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg import presets
from medseg.errors import ModelError
from medseg.ops import components, merging
from medseg.ops.separation import absorbed, filled
from medseg.preprocess import resize

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

_LEAST = 8  # voxels of a mask that has a shape to go by
_RIM = 2  # voxels of background around a mask


@dataclass(frozen=True)
class MergeNet:
    """Chance that two neighbouring basins are one object: a network of three layers over `medseg.ops.merging.FEATURES`.

    Attributes
    ----------
    mean, scale : float64 (F,)
        Of the features learned from.
    layers : tuple of (weight (out, in), bias (out,))
        ReLU between them.
    least : float
        Chance from which two are joined.
    """

    mean: Floats = field(repr=False)
    scale: Floats = field(repr=False)
    layers: tuple[tuple[Floats, Floats], ...] = field(repr=False)
    least: float

    def chance(self, features: Floats) -> Floats:
        """Return the chance (M,) for features (M, F)."""
        x = np.clip((features - self.mean) / self.scale, -5, 5)
        for weight, bias in self.layers[:-1]:
            x = np.maximum(x @ weight.T + bias, 0)
        weight, bias = self.layers[-1]
        return np.asarray(1 / (1 + np.exp(-(x @ weight.T + bias)[:, 0])))

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain numbers, five digits each."""
        short = [[_short(w), _short(b)] for w, b in self.layers]
        return {
            "features": list(merging.FEATURES),
            "mean": _short(self.mean),
            "scale": _short(self.scale),
            "layers": short,
            "least": self.least,
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> MergeNet:
        """Read it back.

        Raises
        ------
        ModelError
            It was learned from other features.
        """
        if told.get("features") != list(merging.FEATURES):
            raise ModelError("The network for separation by shape was learned from other features; train it again.")
        layers = tuple((np.array(w, float), np.array(b, float)) for w, b in told["layers"])
        return cls(np.array(told["mean"], float), np.array(told["scale"], float), layers, float(told["least"]))


def _short(values: Floats) -> Any:
    return np.vectorize(lambda v: float(f"{v:.5g}"))(values).tolist()


@lru_cache(maxsize=1)
def shipped() -> MergeNet:
    """Load the shipped network, once."""
    return MergeNet.from_json(json.loads((presets.PACKAGE / "weights" / "shape.json").read_text(encoding="utf-8")))


def by_shape(mask: Mask, spacing: tuple[float, ...], net: MergeNet | None = None) -> Labels:
    """Cut one connected mask into objects by its shape.

    Parameters
    ----------
    mask : bool (z, y, x)
        In its box.
    spacing : tuple of float
        Voxel size, array axis order.
    net : MergeNet, optional
        The shipped one if absent.

    Returns
    -------
    int32 (z, y, x)
        Labels 1 to N, on every voxel of the mask, 8 voxels each at least. A mask of fewer is one object.
    """
    if np.count_nonzero(mask) < _LEAST:
        return mask.astype(np.int32)
    net = net or shipped()
    wide = np.pad(mask, _RIM)
    labels, depth, step = merging.basins(wide, spacing)
    number = merging.joined(merging.measured(labels, depth, step, spacing), net.chance, net.least)
    found = assigned(wide, number[labels])
    # what touches by a corner only has no neighbour to join, and goes to the nearest
    return filled(wide, absorbed(found, _LEAST))[(slice(_RIM, -_RIM),) * 3]


def assigned(mask: Mask, fine: Labels) -> Labels:
    """Bring regions back to the mask's own voxels: one piece each, and every voxel of the mask somebody's."""
    back = resize(fine, mask.shape, order=0).astype(np.int32)
    return filled(mask, components.largest_pieces(filled(mask, back)))
