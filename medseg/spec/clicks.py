"""Settings of `medseg.clicks`."""

from __future__ import annotations

from pydantic import Field

from medseg.spec.base import Spec


class ClickSpec(Spec):
    """How a mask is grown from clicks; the values are chosen as the page on clicks says."""

    reach: int = Field(
        default=128, ge=8
    )  # how far from a click its object is looked for at first, in the smallest voxel size
    rays: int = Field(default=200, ge=32)  # from a click in 3-D; a third of them in 2-D
    voxels: int = Field(
        default=80_000, ge=1000
    )  # in which the border is settled; larger objects are settled on coarser ones
    shape: float = Field(default=3.0, ge=0)  # weight of the shape found along rays, against the intensities
    smooth: float = Field(default=0.2, ge=0)  # weight of the border's area, against the intensities
    spread: float = Field(
        default=0.8, ge=0, le=1
    )  # of the way from a click to the present border that surely shares its side
