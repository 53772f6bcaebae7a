"""Specs of data, splits, augmentation and training."""

from __future__ import annotations

from pydantic import Field, model_validator

from medseg.spec.base import Spec
from medseg.spec.heads import HeadSpec
from medseg.spec.net import NetSpec, PreprocessSpec


class SourceSpec(Spec):
    """One training data set: image and label files of the same stem in two folders."""

    name: str
    images: str = Field(description="folder of images; relative paths are below MEDSEG_DATA")
    labels: str = Field(description="folder of label images with the same stems")
    spacing: tuple[float, ...] | None = Field(default=None, description="mm, array axis order, for files that say none")
    weight: float = Field(default=1.0, gt=0, description="share of the training samples")


class DataSpec(Spec):
    """What to train on, tune on and report on."""

    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    split: str = Field(description="split file: {source: {train: [stems], tune: [...], val: [...]}}")


class SplitSource(Spec):
    """How the images of one source are grouped and which of them only report."""

    name: str
    images: str = Field(description="folder of images; relative paths are below MEDSEG_DATA")
    group: str = Field(
        default="file",
        description="'file': each image by itself; 'touching': crops whose edges continue each other; 'listed': groups.json "
        "beside the folder; else a regular expression whose match in the stem names the group",
    )
    val: str | float = Field(
        default=0.2, description="share of images; 'listed': split 'val' in manifest.json; or a regular expression"
    )


class SplitSpec(Spec):
    """Recipe of a split file: ``medseg split RECIPE.yaml``."""

    sources: tuple[SplitSource, ...] = Field(min_length=1)
    tune: float = Field(default=0.1, ge=0, lt=1, description="share of the images not in val")
    seed: int = 0


class AugmentSpec(Spec):
    """Random changes that make a small model general. Probabilities are per sample; ranges are of the whole effect."""

    scale: tuple[float, float] = Field(default=(0.5, 2.0), description="zoom range, log-uniform")
    stretch: float = Field(default=1.2, ge=1, description="extra zoom of single axes, up to this factor")
    rotate: bool = Field(default=True, description="any in-plane angle; 3-D stays about z when voxels are anisotropic")
    elastic: float = Field(default=4.0, ge=0, description="largest elastic shift in voxels")
    p_elastic: float = 0.3
    p_invert: float = 0.1
    p_gamma: float = 0.5
    gamma: tuple[float, float] = (0.4, 2.5)
    p_shading: float = 0.2
    p_blur: float = 0.2
    blur: tuple[float, float] = (0.5, 2.5)
    p_noise: float = 0.4
    noise: tuple[float, float] = (0.01, 0.2)
    p_levels: float = Field(default=0.5, description="random contrast and offset, all channels together")
    p_channels: float = Field(default=0.3, description="mix, permute or gray the channels of colour images")


class TrainSpec(Spec):
    """A whole training: ``medseg train CONFIG.yaml``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    licence: str
    description: str = ""
    modality: tuple[str, ...] = ("microscopy",)
    target: str = "nucleus"
    limits: tuple[str, ...] = Field(default=(), description="what the model cannot do, in the words of its card")
    net: NetSpec = NetSpec()
    preprocess: PreprocessSpec = PreprocessSpec()
    heads: tuple[HeadSpec, ...] = Field(min_length=1)
    data: DataSpec
    augment: AugmentSpec = AugmentSpec()
    patch: tuple[int, ...]
    batch: int = Field(default=8, ge=1)
    steps: int = Field(default=4000, ge=1)
    warmup: int = Field(default=200, ge=0)
    rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    seed: int = 0
    checkpoint_minutes: float = Field(default=3.0, gt=0)
    stage_minutes: float = Field(default=85.0, gt=0, description="stop after this long; the same command goes on")

    @model_validator(mode="after")
    def _fits(self) -> TrainSpec:
        if len(self.patch) != self.net.ndim or any(p % d for p, d in zip(self.patch, self.net.divisor, strict=True)):
            raise ValueError(f"patch needs {self.net.ndim} numbers, multiples of {self.net.divisor}")
        if self.net.in_channels != len(self.preprocess.channels):
            raise ValueError("net.in_channels must equal the number of preprocess.channels")
        return self
