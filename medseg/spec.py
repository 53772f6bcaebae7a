"""Specs: the frozen, validated settings every face of medseg reads. Every default in the project is written here, once.

A spec comes from YAML (training), from the header of a model file (inference) or from keywords (the API), and is always the same
class. Unknown keys are refused. Specs that come in several kinds are told apart by ``kind``.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from medseg.errors import SpecError

SPEC_VERSION = 1
S = TypeVar("S", bound="Spec")


class Spec(BaseModel):
    """Base of all specs: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- heads


class HeadBase(Spec):
    """What every head's spec has. ``kind`` is the key in the head registry.

    A third-party head subclasses this and registers its NumPy half under the entry point group ``medseg.heads``.
    """

    kind: str
    min_voxels: int = Field(default=15, ge=1, description="instances smaller than this many voxels are dropped")
    calibration: tuple[float, float] | None = Field(
        default=None, description="(slope, intercept) of the logistic that turns a raw score into a probability"
    )


class SemanticSpec(HeadBase):
    """Foreground probability; instances are its connected components (Long 2015, Ronneberger 2015)."""

    kind: Literal["semantic"] = "semantic"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")


class WatershedSpec(HeadBase):
    """Foreground and normalised inner distance; cores are flooded (Naylor 2018, Graham 2019)."""

    kind: Literal["watershed"] = "watershed"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")
    core: float = Field(default=0.5, gt=0, lt=1, description="normalised distance from which a voxel is core")


class OffsetSpec(HeadBase):
    """Foreground and the vector to the instance's centre; voxels vote (after Neven 2019, Cheng 2020)."""

    kind: Literal["offset"] = "offset"
    threshold: float = Field(default=0.5, gt=0, lt=1, description="foreground probability from which a voxel belongs")
    scale: float = Field(default=16.0, gt=0, description="offset, in finest-axis voxels, that the network outputs as 1")
    blur: float = Field(default=1.5, gt=0, description="smoothing of the votes, in finest-axis voxels")
    votes: float = Field(default=8.0, gt=0, description="votes (voxels that agree) a centre needs")
    separation: float = Field(
        default=0.5, ge=0, description="centres nearer than this share of the larger one's radius are one"
    )


HEAD_SPECS: dict[str, type[HeadBase]] = {"semantic": SemanticSpec, "watershed": WatershedSpec, "offset": OffsetSpec}


def _head_spec(value: object) -> object:
    """Find the spec class of a head by its ``kind``: built in, or registered by another package."""
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError("a head needs 'kind', for example {kind: offset}")
    if kind in HEAD_SPECS:
        return HEAD_SPECS[kind].model_validate(value)
    for point in entry_points(group="medseg.heads", name=kind):
        return point.load().Spec.model_validate(value)
    raise ValueError(f"unknown head kind {kind!r}; known: {', '.join(sorted(HEAD_SPECS))}")


HeadSpec = Annotated[SerializeAsAny[HeadBase], BeforeValidator(_head_spec)]

# ---------------------------------------------------------------- network and preprocessing


class NetSpec(Spec):
    """A MONAI DynUNet as multi-scale encoder/decoder, one entry per resolution level, finest first."""

    kind: Literal["dynunet"] = "dynunet"
    ndim: Literal[2, 3] = 2
    in_channels: int = Field(default=1, ge=1)
    filters: tuple[int, ...] = (16, 32, 64, 128, 192)
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
    gray_to_rgb: bool = Field(default=False, description="a one-channel image is repeated over all channels")
    low: float = Field(default=1.0, ge=0, lt=50, description="percentile that becomes 0")
    high: float = Field(default=99.8, gt=50, le=100, description="percentile that becomes 1")
    joint: bool = Field(default=True, description="one pair of percentiles for all channels, so that colour survives")
    anisotropy: float | None = Field(
        default=None, gt=0, description="resample z so that z spacing / in-plane spacing is this; None: native voxels"
    )
    spacing: tuple[float, ...] | None = Field(default=None, description="resample to this spacing in mm, array order")


# ---------------------------------------------------------------- training


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


# ---------------------------------------------------------------- model file and run


class ScoreSpec(Spec):
    """One measured figure of a model, with the split and averaging it was measured with."""

    source: str
    split: str
    figure: str
    averaging: Literal["pooled", "image mean"]
    value: float
    images: int


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
    training: dict[str, Any] = Field(default_factory=dict, description="data, split, steps, seed, config, as run")
    spacing_range: tuple[tuple[float, float], ...] = Field(
        default=(), description="(smallest, largest) trained spacing per array axis in mm; empty: voxels, any spacing"
    )
    scores: tuple[ScoreSpec, ...] = ()
    limits: tuple[str, ...] = ()
    revision: str = ""


class RunSpec(Spec):
    """How to run a model on an image."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    tile: tuple[int, ...] | None = Field(default=None, description="largest network window, voxels, array axis order")
    region: tuple[int, ...] | None = Field(default=None, description="largest region decoded at once, array axis order")
    min_score: float = Field(default=0.0, ge=0, le=1, description="instances with a lower score are left out")
    force: bool = Field(default=False, description="run even where the model says it does not fit the image")


class FindingSpec(Spec):
    """What exported instances are, in coded terms, and who drew them: for DICOM SEG, RTSTRUCT and SR.

    A code is [value, coding scheme, meaning]; `medseg.io.clinical.codes` has the usual ones.
    """

    category: tuple[str, str, str] = ("49755003", "SCT", "Morphologically Abnormal Structure")
    type: tuple[str, str, str] = ("52988006", "SCT", "Lesion")
    types: dict[str, tuple[str, str, str]] = Field(
        default_factory=dict, description="code of each class; a class that is not here has `type`"
    )
    site: tuple[str, str, str] | None = Field(default=None, description="anatomic site, where all findings share it")
    algorithm: str = Field(default="", max_length=64, description="name of what drew them; empty: the model's name")
    algorithm_version: str = Field(default="", max_length=64, description="empty: medseg's version")
    algorithm_type: Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"] | None = Field(
        default=None, description="None: as recorded; automatic, or semiautomatic where a person edited the instance"
    )
    roi_type: str = Field(
        default="", max_length=16, description="RT ROI interpreted type, for example GTV; empty: not interpreted"
    )
    colour: tuple[int, int, int] | None = Field(
        default=None, description="red, green, blue (0 to 255) of all; None: a colour for each instance"
    )

    @model_validator(mode="after")
    def _codes(self) -> FindingSpec:
        for code in (self.category, self.type, self.site, *self.types.values()):
            if code and not all(part and len(part) <= size for part, size in zip(code, (64, 16, 64), strict=True)):
                raise ValueError(f"{list(code)} is no code; give [value, coding scheme, meaning], none of them empty")
        if self.colour and not all(0 <= part <= 255 for part in self.colour):
            raise ValueError("colour is red, green, blue, each 0 to 255")
        return self


def parse(cls: type[S], data: object, where: str) -> S:
    """Validate ``data`` as ``cls``; a failure is one `SpecError` line naming ``where`` and the keys."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'top level'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()[:5]
        )
        raise SpecError(f"{where}: {faults}") from None


def load_yaml(cls: type[S], path: str | Path) -> S:
    """Read a YAML file as ``cls``.

    Raises
    ------
    SpecError
        The file is missing, is not YAML, or does not fit the spec.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SpecError(f"{path}: is not valid YAML") from None
    return parse(cls, data, str(path))
