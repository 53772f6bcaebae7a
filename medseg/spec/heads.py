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
    min_voxels: int = Field(default=15, ge=1, description="instances smaller than this many voxels are dropped")
    calibration: tuple[float, float] | None = Field(
        default=None, description="(slope, intercept) of the logistic that turns a raw score into a probability"
    )


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


HEAD_SPECS: dict[str, type[HeadBase]] = {
    "semantic": SemanticSpec,
    "watershed": WatershedSpec,
    "offset": OffsetSpec,
    "flow": FlowSpec,
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
