"""Heads, torch half: the layers that make the maps and the losses that teach them.

A module here has ``forward(features, truth=None) -> maps`` on the backbone's list of features (finest first) and
``loss(maps, truth) -> dict[str, Tensor]``. Truth arrays are those of the NumPy half, batched; voxels of ``weight`` 0 do not count.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

from torch import Tensor, nn

from medseg.errors import SpecError
from medseg.spec import HeadBase


class HeadModule(Protocol):
    """The contract of a head's torch half."""

    def __call__(self, features: list[Tensor], truth: dict[str, Tensor] | None = None) -> Tensor:
        """Raw maps (N, channels, *shape of the finest level)."""
        ...

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Named loss terms, each a scalar; training minimises their sum."""
        ...


def make(spec: HeadBase, ndim: int, channels: tuple[int, ...]) -> nn.Module:
    """Build the torch half for a spec: built in, or registered under the entry point group ``medseg.nets.heads``."""
    from medseg.nets.heads.classes import ClassedModule

    inner = _separating(spec.model_copy(update={"classes": 1}), ndim, channels)
    return ClassedModule(inner, spec, ndim, channels) if spec.classes > 1 else inner


def _separating(spec: HeadBase, ndim: int, channels: tuple[int, ...]) -> nn.Module:
    from medseg.nets.heads.dense import FlowModule, OffsetModule, SemanticModule, WatershedModule
    from medseg.nets.heads.embedding import EmbeddingModule
    from medseg.nets.heads.star import StarModule

    built_in = {
        "semantic": SemanticModule,
        "watershed": WatershedModule,
        "offset": OffsetModule,
        "flow": FlowModule,
        "star": StarModule,
        "embedding": EmbeddingModule,
    }
    if spec.kind in built_in:
        return built_in[spec.kind](spec, ndim, channels)
    for point in entry_points(group="medseg.nets.heads", name=spec.kind):
        return point.load()(spec, ndim, channels)  # type: ignore[no-any-return]
    raise SpecError(f"no network half for head {spec.kind!r}; known: {', '.join(sorted(built_in))}")
