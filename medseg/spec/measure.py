"""Spec of what is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medseg.spec.base import Spec


class MeasureSpec(Spec):
    """What is measured of each instance, and by which of the field's rules."""

    kind: Literal["auto", "lesion", "cell"] = Field(
        default="auto", description="auto: cells in microscope images, lesions in all others"
    )
    slices: Literal["longest", "largest"] = Field(
        default="longest", description="slice of the axes: that of the longest axis (RECIST), or of the largest area"
    )
    plane: Literal["auto", "axial", "coronal", "sagittal"] = Field(
        default="auto",
        description="plane of the axes; auto: that of a DICOM series, else of the two finest spacings, axial on a tie",
    )
    values: Literal["auto", "HU", "SUVbw", "SUVlbm", "SUVbsa"] = Field(
        default="auto", description="what the voxels of an image say that does not know it itself, as of NIfTI"
    )
    mtv_percent: float = Field(default=41.0, gt=0, lt=100, description="threshold of MTV in % of the SUVmax")
    mtv_suv: float = Field(default=4.0, gt=0, description="fixed threshold of MTV")
    nearest: int = Field(default=5, ge=1, description="neighbours that the local density of cells looks at")
    texture: bool = Field(default=False, description="texture by pyradiomics, where that is installed")
