"""Specs of heads, told apart by ``kind``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from medseg.spec.base import Spec


class HeadBase(Spec):
    """What every head's spec has. ``kind`` is the key in the head registry.

    A third-party head subclasses this and registers its NumPy half under the entry point group ``medseg.heads``.
    """

    kind: str
    classes: int = Field(default=1, ge=1, le=1 << 16, description="classes that instances are told apart into")
    min_voxels: int = Field(default=15, ge=1, description="instances smaller than this many voxels are dropped")


class SemanticSpec(HeadBase):
    """Foreground probability; instances are its connected components (Long 2015, Ronneberger 2015)."""

    kind: Literal["semantic"] = "semantic"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")


class WatershedSpec(HeadBase):
    """Foreground and normalised inner distance; cores are flooded (Naylor 2018, Graham 2019)."""

    kind: Literal["watershed"] = "watershed"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")
    core: float = Field(default=0.5, gt=0, lt=1, description="normalised distance from which a voxel is core")


class OffsetSpec(HeadBase):
    """Foreground and the vector to the instance's centre; voxels vote (after Neven 2019, Cheng 2020)."""

    kind: Literal["offset"] = "offset"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")
    scale: float = Field(default=16.0, gt=0, description="offset, in finest-axis voxels, that the network outputs as 1")
    blur: float = Field(default=1.5, gt=0, description="smoothing of the votes, in finest-axis voxels")
    votes: float = Field(default=8.0, gt=0, description="votes (voxels that agree) a centre needs")
    separation: float = Field(
        default=0.5, ge=0, description="centres nearer than this share of the larger one's radius are one"
    )


class FlowSpec(HeadBase):
    """Foreground and the direction to the instance's middle, followed step by step (Stringer 2021)."""

    kind: Literal["flow"] = "flow"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")
    blur: float = Field(default=1.5, gt=0, description="smoothing of where paths end, in finest-axis voxels")
    votes: float = Field(default=8.0, gt=0, description="paths (voxels) that must end together")
    separation: float = Field(
        default=0.5, ge=0, description="ends nearer than this share of the larger one's radius are one"
    )


class EmbeddingSpec(HeadBase):
    """Foreground, embedding, its bandwidth and seeds; the best seeds grow (Neven 2019, Lalit 2022)."""

    kind: Literal["embedding"] = "embedding"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")
    scale: float = Field(default=16.0, gt=0, description="offset, in finest-axis voxels, that the network outputs as 1")
    per_axis: bool = Field(default=False, description="a bandwidth for each axis, for long objects, instead of one")
    seed: float = Field(default=0.5, gt=0, lt=1, description="seed score from which a voxel may begin an instance")
    claim: float = Field(
        default=0.5, gt=0, lt=1, description="share of an instance's Gaussian from which a voxel is its"
    )
    apart: float = Field(
        default=0.2, gt=0, lt=1, description="share of an instance's Gaussian from which a voxel begins no other"
    )


class StarSpec(HeadBase):
    """Object probability and the distance to the border along many rays (Schmidt 2018, Weigert 2020)."""

    kind: Literal["star"] = "star"
    threshold: float = Field(
        default=0.5, gt=0, lt=1, description="object probability from which a peak proposes an object"
    )
    overlap: float = Field(
        default=0.4, gt=0, le=1, description="objects that share more than this part of either are one"
    )
    blur: float = Field(default=1.0, gt=0, description="smoothing of the probability, in finest-axis voxels")
    average: float = Field(
        default=2.0, ge=0, description="how far around a peak rays are averaged, in finest-axis voxels"
    )
    rays: int = Field(default=32, ge=8, le=360, description="rays in 2-D")
    rays_3d: int = Field(default=64, ge=12, le=1000, description="rays in 3-D")
    scale: float = Field(default=16.0, gt=0, description="usual length of a ray, in finest-axis voxels")
    width: int = Field(default=64, ge=1, le=1 << 16, description="features from which probability and rays are read")


HEAD_SPECS: dict[str, type[HeadBase]] = {
    "semantic": SemanticSpec,
    "watershed": WatershedSpec,
    "offset": OffsetSpec,
    "flow": FlowSpec,
    "star": StarSpec,
    "embedding": EmbeddingSpec,
}


def _head_spec(value: object) -> object:
    """Find the spec class of a head by its ``kind``: built in, or registered by another package."""
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError("a head needs 'kind', for example {kind: offset}")
    if kind in HEAD_SPECS:
        return HEAD_SPECS[kind].model_validate(value)
    for point in entry_points(group="medseg.heads", name=kind):
        return point.load().Spec.model_validate(value)
    raise ValueError(f"unknown head kind {kind!r}; known: {', '.join(sorted(HEAD_SPECS))}")


HeadSpec = Annotated[SerializeAsAny[HeadBase], BeforeValidator(_head_spec)]
