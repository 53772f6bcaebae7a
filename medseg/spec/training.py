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
    classes: str | None = Field(
        default=None,
        description="folder with a class for each instance: NAME.csv with columns id and class, or images of class numbers",
    )
    ignore: str | None = Field(default=None, description="folder of images that are not 0 where nobody annotated")
    partial: bool = Field(
        default=False, description="only some objects are labelled: what lies away from them does not count"
    )
    slices: int = Field(
        default=0, ge=0, description="train a 2-D network on every so many-th slice of a stack; 0: no stacks"
    )


class DataSpec(Spec):
    """What to train on, tune on and report on."""

    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    split: str = Field(description="split file: {source: {train: [stems], tune: [...], val: [...]}}")
    fold: int | None = Field(default=None, ge=0, description="which of a split file's folds, from 0")


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
    tune: str | None = Field(
        default=None, description="regular expression of the images to tune on, instead of a share"
    )


class SplitSpec(Spec):
    """Recipe of a split file: ``medseg split RECIPE.yaml``."""

    sources: tuple[SplitSource, ...] = Field(min_length=1)
    tune: float = Field(default=0.1, ge=0, lt=1, description="share of the images not in val")
    seed: int = 0
    folds: int | None = Field(default=None, ge=2, description="make so many splits; every image is in val once")

    @model_validator(mode="after")
    def _fits(self) -> SplitSpec:
        if self.folds and any(isinstance(s.val, str) or s.tune for s in self.sources):
            raise ValueError("with folds every image is in val once; leave 'val' and 'tune' of the sources out")
        return self


class AugmentSpec(Spec):
    """Random changes that make a small model general. Probabilities are per sample; ranges are of the whole effect."""

    scale: tuple[float, float] = Field(default=(0.5, 2.0), description="zoom range, log-uniform")
    diameter: tuple[float, float] | None = Field(
        default=None,
        description="range of the median diameter that an image's objects are zoomed to, in voxels; replaces scale",
    )
    stretch: float = Field(default=1.2, ge=1, description="extra zoom of single axes, up to this factor")
    rotate: float = Field(
        default=180,
        ge=0,
        le=180,
        description="largest turn in degrees; in 3-D about any axis, but only in plane where voxels are anisotropic",
    )
    flip: bool = Field(default=True, description="mirror along any axis; not where left and right tell objects apart")
    elastic: float = Field(default=4.0, ge=0, description="largest elastic shift in voxels")
    p_elastic: float = Field(default=0.3, ge=0, le=1)
    p_invert: float = Field(default=0.1, ge=0, le=1)
    p_gamma: float = Field(default=0.5, ge=0, le=1)
    gamma: tuple[float, float] = (0.4, 2.5)
    p_shading: float = Field(default=0.2, ge=0, le=1)
    p_blur: float = Field(default=0.2, ge=0, le=1)
    blur: tuple[float, float] = (0.5, 2.5)
    p_noise: float = Field(default=0.4, ge=0, le=1)
    noise: tuple[float, float] = (0.01, 0.2)
    p_levels: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="random contrast and offset, of each channel where any may come, else of all together",
    )
    p_coarse: float = Field(
        default=0.0, ge=0, le=1, description="thick slices along one axis, brought back to the network's voxels"
    )
    coarse: tuple[float, float] = Field(default=(1.5, 5.0), description="thickness of such slices in voxels")
    p_drop: float = Field(default=0.5, ge=0, le=1, description="leave out the channels that preprocess calls optional")
    p_channels: float = Field(default=0.3, ge=0, le=1, description="mix, permute or gray the channels of colour images")
    p_paste: float = Field(default=0.0, ge=0, le=1, description="paste instances of another image of the source")
    channels: tuple[float, ...] = Field(
        default=(0.5, 0.1, 0.3, 0.1),
        min_length=1,
        description="shares of the batches with 1, 2, ... channels, where any may come",
    )


class TrainSpec(Spec):
    """A whole training: ``medseg train CONFIG.yaml``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    licence: str
    description: str = ""
    modality: tuple[str, ...] = ("microscopy",)
    target: str = "nucleus"
    classes: tuple[str, ...] = Field(default=(), description="class names, where instances are of several classes")
    limits: tuple[str, ...] = Field(default=(), description="what the model cannot do, in the words of its card")
    net: NetSpec = NetSpec()
    preprocess: PreprocessSpec = PreprocessSpec()
    heads: tuple[HeadSpec, ...] = Field(min_length=1)
    data: DataSpec
    augment: AugmentSpec = AugmentSpec()
    choose_at: tuple[float, ...] = Field(
        default=(0.5, 0.6, 0.7, 0.8),
        min_length=1,
        description="IoU thresholds over which AP is averaged while head and settings are chosen; scores are calibrated at the "
        "first",
    )
    alike: bool = Field(
        default=True,
        description="objects are of like size, as cells are: what is far smaller than the usual one may be left out (chosen on "
        "tune); lesions are not",
    )
    patch: tuple[int, ...]
    batch: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1, description="parts that a batch is cut into, where memory is short")
    steps: int = Field(default=4000, ge=1)
    warmup: int = Field(default=200, ge=0)
    rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    seed: int = 0
    start: str = Field(
        default="", description="SHA-256 of the model file and number of the network that it began with (--start)"
    )
    checkpoint_minutes: float = Field(default=3.0, gt=0)
    stage_minutes: float = Field(default=85.0, gt=0, description="stop after this long; the same command goes on")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by number from 1; one class is called as the target is."""
        return self.classes or (self.target,)

    @model_validator(mode="after")
    def _fits(self) -> TrainSpec:
        if len(self.patch) != self.net.ndim or any(p % d for p, d in zip(self.patch, self.net.divisor, strict=True)):
            raise ValueError(f"patch needs {self.net.ndim} numbers, multiples of {self.net.divisor}")
        named, several = len(self.preprocess.channels), self.preprocess.any_channels
        if self.net.in_channels != (several or named):
            raise ValueError("net.in_channels must equal the number of preprocess.channels, or preprocess.any_channels")
        if (self.net.stem == "shared") != bool(several):
            raise ValueError("preprocess.any_channels and net.stem: shared go together")
        if self.batch % self.accumulate:
            raise ValueError("batch must be a multiple of accumulate")
        names = self.class_names
        if len(set(names)) != len(names):
            raise ValueError("class names must be all different")
        if several and (len(self.augment.channels) < several or sum(self.augment.channels[:several]) <= 0):
            raise ValueError(f"augment.channels needs a share for each number of channels, 1 to {several}, not all 0")
        if self.net.ndim != 2 and any(s.slices for s in self.data.sources):
            raise ValueError("slices of stacks are for 2-D networks; leave 'slices' out")
        heads = tuple(h.model_copy(update={"classes": len(names)}) for h in self.heads)
        object.__setattr__(self, "heads", heads)
        return self
