"""Spec of how lesions are followed over time."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medseg.spec.base import Spec


class FollowSpec(Spec):
    """How visits are laid onto each other, and what counts as the same lesion and as change."""

    registration: Literal["auto", "none", "rigid", "affine", "deformable"] = Field(
        default="auto",
        description="auto: none where both visits share a frame of reference, else affine; deformable: B-splines after affine",
    )
    overlap: float = Field(
        default=0.4,
        gt=0,
        le=1,
        description="share of the smaller of two lesions that the other must cover to be the same",
    )
    tolerance: float = Field(
        default=3.0,
        ge=0,
        description="mm that borders of the same lesion may be apart after registration, where none overlaps",
    )
    change: float = Field(default=20.0, gt=0, description="change of volume in % from which a lesion grew or shrank")
    knot: float = Field(default=40.0, gt=0, description="mm between the knots of the deformation")
