"""Spec of what is done with one case: how it is read, by what its instances are found, what is written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medseg.spec.base import Spec
from medseg.spec.finding import FindingSpec
from medseg.spec.measure import MeasureSpec
from medseg.spec.model import RunSpec
from medseg.spec.separate import SeparateSpec

Kind = Literal["labels", "nifti", "tiff", "csv", "parquet", "overlay", "report", "seg", "rtstruct", "sr"]


class CaseSpec(Spec):
    """All that decides what becomes of an image. Two cases of equal bytes and equal specs have equal results."""

    model: str | None = Field(default=None, description="shipped or added name, or model file; none: by dimension")
    threshold: str | None = Field(default=None, description='a rule in place of a model, such as "SUV>4" or otsu')
    run: RunSpec = RunSpec()
    separate: SeparateSpec = SeparateSpec()
    measure: MeasureSpec = MeasureSpec()
    finding: FindingSpec | None = Field(default=None, description="what the objects are")
    spacing: float | tuple[float, ...] | None = Field(default=None, description="voxel size in array order")
    unit: Literal["mm", "um"] = Field(default="mm", description="unit of spacing")
    channels: tuple[str | int, ...] | None = Field(default=None, description="channels to use, by name or number")
    channel_axis: int | None = Field(default=None, description="axis that counts channels, where no file says")
    regularize: bool = Field(default=False, description="resample irregular DICOM stacks instead of refusing them")
    save: tuple[Kind, ...] = Field(default=("labels", "csv", "overlay"), min_length=1, description="files to write")
    deidentify: bool = Field(default=False, description="leave out of DICOM files what the basic profile removes")

    @model_validator(mode="after")
    def _one_way(self) -> CaseSpec:
        if self.model is not None and self.threshold is not None:
            raise ValueError("a threshold is a rule in place of a model; give one of the two")
        return self
