"""Spec of how a mask grows from clicks."""

from __future__ import annotations

from pydantic import Field

from medseg.spec.base import Spec


class ClickSpec(Spec):
    """How clicks become the mask of an object; see docs/reference/clicks.md for what the weights were chosen on."""

    reach: int = Field(
        default=128,
        ge=8,
        description="how far from a click its object is looked for at first, in the finest voxel size; doubled while it goes on",
    )
    rays: int = Field(
        default=200, ge=36, description="rays from the first click in 3-D; half for a later one, a third in 2-D"
    )
    voxels: int = Field(
        default=80_000, ge=1000, description="blocks at most on which the border is settled; more are made coarser"
    )
    shape: float = Field(
        default=3.0, ge=0, description="weight of the surface found along rays, against the intensities"
    )
    smooth: float = Field(default=0.2, ge=0, description="weight of the border's area, against the intensities")
    spread: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="share of the way from a click to the present border that surely lies on the click's side",
    )
