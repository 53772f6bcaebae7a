"""Spec of how a mask is cut into objects."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medseg.spec.base import Spec


class SeparateSpec(Spec):
    """How a foreground becomes instances.

    The shares are those that did best on composed groups of touching lesions; see docs/explanation/separating-instances.md.
    """

    method: Literal["shape", "components", "distance", "intensity"] = Field(
        default="shape",
        description="shape: a network that learned shapes, 3-D only (2-D: distance); components: connected pieces; "
        "distance: cut where the shape narrows; intensity: where the image dips",
    )
    ratio: float = Field(
        default=0.75,
        gt=0,
        le=1.5,
        description="two peaks are one object if the pass between them reaches this share of the lower",
    )
    smooth: float = Field(
        default=1.0, ge=0, description="Gaussian over distance or image, in units of the finest voxel"
    )
    min_volume: float = Field(
        default=0.0,
        ge=0,
        description="mm3 (mm2; voxels without spacing) under which a piece joins its neighbour or is dropped",
    )
