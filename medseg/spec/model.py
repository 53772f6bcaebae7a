"""Specs of a model file and of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from medseg.spec.base import Spec
from medseg.spec.heads import HeadSpec
from medseg.spec.net import NetSpec, PreprocessSpec

SPEC_VERSION = 2  # 2: the calibration belongs to the model, not to the head


class ScoreSpec(Spec):
    """One measured figure of a model, with the split and averaging it was measured with."""

    source: str
    split: str
    figure: str
    averaging: Literal["pooled", "image mean"]
    value: float
    images: int


class CalibrationSpec(Spec):
    """Weights of the logistic that makes a chance of a raw score; see `medseg.calibration`."""

    score: float = Field(description="of the logit of the instance's raw score")
    size: float = Field(default=0.0, description="of the log of its size beside the image's usual one, if smaller")
    image: float = Field(default=0.0, description="of the logit of the image's median raw score")
    offset: float = 0.0


class ModelSpec(Spec):
    """Everything a model file says about itself (DESIGN: one self-describing file)."""

    spec_version: int = SPEC_VERSION
    name: str
    title: str
    description: str = ""
    licence: str
    modality: tuple[str, ...]
    target: str
    classes: tuple[str, ...] = ("object",)
    net: NetSpec
    preprocess: PreprocessSpec
    heads: tuple[HeadSpec, ...] = Field(min_length=1)
    members: int = Field(default=1, ge=1, description="networks whose maps are averaged (an ensemble)")
    mirrors: bool = Field(
        default=False, description="average over the image and its mirror images too; four times the work"
    )
    calibration: CalibrationSpec | None = Field(
        default=None, description="what makes chances of raw scores; none: scores stay raw"
    )
    min_score: float = Field(
        default=0.0, ge=0, le=1, description="instances with a lower score are left out, unless asked for"
    )
    min_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="instances smaller than this share of the image's usual instance are left out",
    )
    border: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="take the threshold at which borders are sharpest in the image, and leave out what stands out by less than "
        "this share of the rest; 0: neither",
    )
    least_border: float = Field(
        default=0.0,
        ge=0,
        description="change across borders, in the unit of the preprocessed image, under which an image shows no object but those "
        "that are all but certain",
    )
    training: dict[str, Any] = Field(default_factory=dict, description="data, split, steps, seed, config, as run")
    spacing_range: tuple[tuple[float, float], ...] = Field(
        default=(), description="(smallest, largest) trained spacing per array axis in mm; empty: voxels, any spacing"
    )
    scores: tuple[ScoreSpec, ...] = ()
    limits: tuple[str, ...] = ()
    revision: str = ""

    @model_validator(mode="after")
    def _has_threshold(self) -> ModelSpec:
        if self.border and not hasattr(self.heads[0], "threshold"):
            raise ValueError(f"border needs a head with a threshold, which {self.heads[0].kind} has not")
        return self


class RunSpec(Spec):
    """How to run a model on an image."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    tile: tuple[int, ...] | None = Field(default=None, description="largest network window, voxels, array axis order")
    region: tuple[int, ...] | None = Field(default=None, description="largest region decoded at once, array axis order")
    diameter: float | None = Field(
        default=None, gt=0, description="usual diameter of the objects in voxels, where the model would estimate it"
    )
    min_score: float | None = Field(
        default=None, ge=0, le=1, description="instances with a lower score are left out; None: as the model says"
    )
    force: bool = Field(default=False, description="run even where the model says it does not fit the image")
