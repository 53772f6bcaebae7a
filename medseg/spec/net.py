"""Specs of the network and of what it is fed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.spec.base import Spec


class NetSpec(Spec):
    """A MONAI DynUNet as multi-scale encoder/decoder, one entry per resolution level, finest first."""

    kind: Literal["dynunet"] = "dynunet"
    ndim: Literal[2, 3] = 2
    in_channels: int = Field(default=1, ge=1, le=1 << 16)
    stem: Literal["plain", "shared"] = Field(
        default="plain",
        description="shared: all channels go through the same first layers and what they see is pooled, so that 1 to "
        "in_channels of them may come in any order",
    )
    filters: tuple[Annotated[int, Field(ge=1, le=1 << 16)], ...] = (16, 32, 64, 128, 192)
    strides: tuple[tuple[int, ...], ...] = Field(
        default=(), description="stride into each level, array axis order; first all 1. Empty: 2 everywhere"
    )

    @model_validator(mode="after")
    def _complete(self) -> NetSpec:
        if len(self.filters) < 3:
            raise ValueError("filters needs at least three levels")
        if not self.strides:
            one, two = (1,) * self.ndim, (2,) * self.ndim
            object.__setattr__(self, "strides", (one, *[two] * (len(self.filters) - 1)))
        if len(self.strides) != len(self.filters) or any(len(s) != self.ndim for s in self.strides):
            raise ValueError(f"strides needs one entry of {self.ndim} numbers for each of {len(self.filters)} levels")
        if any(v not in (1, 2) for s in self.strides for v in s) or any(v != 1 for v in self.strides[0]):
            raise ValueError("strides are 1 or 2, and 1 into the finest level")
        return self

    @property
    def divisor(self) -> tuple[int, ...]:
        """What each input axis must be a multiple of (array axis order)."""
        out = [1] * self.ndim
        for stride in self.strides:
            out = [o * s for o, s in zip(out, stride, strict=True)]
        return tuple(out)


class PreprocessSpec(Spec):
    """From an image's voxels to what the network was trained on."""

    channels: tuple[str, ...] = Field(default=("gray",), description="named input channels, in the network's order")
    any_channels: int = Field(
        default=0,
        ge=0,
        description="take all channels of an image, up to so many, in any order, whatever their names; 0: no",
    )
    optional: tuple[str, ...] = Field(
        default=(), description="which of the channels an image may lack; the network then sees zeros in their place"
    )
    inside: bool = Field(
        default=False,
        description="percentiles of the voxels that are not 0: for brains that were cut out; whole heads are refused",
    )
    gray_to_rgb: bool = Field(default=False, description="a one-channel image is repeated over all channels")
    low: float = Field(default=1.0, ge=0, lt=50, description="percentile that becomes 0")
    high: float = Field(default=99.8, gt=50, le=100, description="percentile that becomes 1")
    joint: bool = Field(default=True, description="one pair of percentiles for all channels, so that colour survives")
    anisotropy: float | None = Field(
        default=None, gt=0, description="resample z so that z spacing / in-plane spacing is this; None: native voxels"
    )
    spacing: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        default=None, description="resample to this spacing in mm, array order"
    )
    orientation: str | None = Field(
        default=None,
        description="turn images of patients so that their array axes point to these directions, as SAR for superior, anterior, "
        "right; others, and all if None, are taken as they are stored",
    )
    diameter: tuple[float, float] | None = Field(
        default=None,
        description="objects of usual diameters between these, in voxels, are taken as they are; images of smaller or larger ones "
        "are resampled. None: no image is",
    )

    @model_validator(mode="after")
    def _one_needed(self) -> PreprocessSpec:
        if self.optional and (self.any_channels or not set(self.optional) < set(self.channels)):
            raise ValueError("optional names some of the channels, not all, and goes without any_channels")
        return self

    @model_validator(mode="after")
    def _directions(self) -> PreprocessSpec:
        ends = ["".join(end for end in ends if end in (self.orientation or "")) for ends in ("LR", "PA", "IS")]
        if self.orientation is not None and (len(self.orientation) != 3 or sorted(map(len, ends)) != [1, 1, 1]):
            raise ValueError("orientation is three letters, one of L and R, one of A and P, one of S and I, as SAR")
        return self

    @model_validator(mode="after")
    def _one_size(self) -> PreprocessSpec:
        if self.diameter is not None and (self.spacing is not None or not 0 < self.diameter[0] < self.diameter[1]):
            raise ValueError("diameter is two numbers, the smaller one first, and goes without spacing")
        return self
