"""One pipeline: an image and a model in, events out, the last of which holds the instances.

The command line draws the events, the viewer iterates them in a worker, and `segment` drains them. Stopping between
two events stops the computation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

import medseg
from medseg import heads, io, preprocess, presets, sizing
from medseg.errors import InputError, ModelError
from medseg.image import Image
from medseg.instances import Instances
from medseg.maps import Decoding, Maps
from medseg.model import Model, read_header
from medseg.ops import borders, regions
from medseg.ops.turn import Turn
from medseg.preprocess import Plan
from medseg.spec import HeadBase, RunSpec

# Largest network window and largest region decoded at once: what keeps the peak below about 2 GB.
_WINDOW = {2: (1024, 1024), 3: (64, 192, 192)}
_REGION = {2: (2048, 2048), 3: (128, 384, 384)}


@dataclass(frozen=True)
class Started:
    """The plan stands: how many network windows will run, and what was decided."""

    windows: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """``done`` of ``windows`` network windows have run."""

    done: int
    windows: int


@dataclass(frozen=True)
class Region:
    """A region of the image is decoded; ``labels`` shows it as it stands (pieces larger than the halo come at the end)."""

    place: tuple[slice, ...]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Finished:
    """All done; ``maps`` where they were to be kept and were not too large."""

    instances: Instances
    seconds: float
    notes: tuple[str, ...]
    maps: Maps | None = None


Event = Started | Progress | Region | Finished


def run(image: Image, model: Model, options: RunSpec | None = None, *, keep: int = 0) -> Iterator[Event]:
    """Segment an image.

    Parameters
    ----------
    image
        2-D or 3-D, as the model wants it.
    model
        A loaded model.
    options
        Device aside, how to run; see `RunSpec`.
    keep
        Bytes of network maps that may be kept to read instances from them again (`Maps`); 0 keeps none.

    Yields
    ------
    Started, then Progress and Region in turn, then Finished.

    Raises
    ------
    ModelError
        The image does not fit the model and ``options.force`` is not set.
    InputError
        The image holds NaN or infinite voxels.
    """
    options, started = options or RunSpec(), time.monotonic()
    seen, turn = preprocess.turned(image, model.spec.preprocess)  # all is done on this, and turned back as it is told
    notes = check_fit(seen, model, options.force)
    zoom, sized = _zoom(seen, model, options)
    plan = preprocess.plan(seen, model.spec.preprocess, zoom)
    notes += (*plan.notes, *sized)
    shape, head = seen.grid.shape, heads.make(model.spec.heads[0])
    halo = tuple(
        min(int(np.ceil(r / f)), n) for r, f, n in zip(head.reach(plan.model_spacing), plan.factor, shape, strict=True)
    )
    border = model.spec.border
    # what an image's own borders decide is decided for all of it
    cores = regions.partition(shape, shape if border else _sizes(options.region, _REGION, turn))
    jobs = [(core, regions.grow(core, halo, shape)) for core in cores]
    windows = [_windows(grown, plan, head, _sizes(options.tile, _WINDOW, turn)) for _, grown in jobs]
    total = sum(len(w) for w in windows)
    yield Started(total, notes)
    decoding, done = Decoding(shape, model.spec, head, plan.model_spacing), 0
    parts: list[tuple[regions.Region, regions.Region, NDArray[np.float32]]] = []
    for (core, grown), places in zip(jobs, windows, strict=True):
        array = plan.read(seen, grown)
        blend = _Blend(array.shape[1:], places)
        for place in places:
            blend.add(place, model.maps(array[(slice(None), *place)])[0])
            done += 1
            yield Progress(done, total)
        maps = blend.mean()
        if border:
            cut = model.spec.heads[0].threshold  # type: ignore[attr-defined]
            maps[0], at = borders.fitted(maps[0], array[0], cut, border, model.spec.least_border)
            if np.isfinite(at):
                notes += (f"by the borders in this image, a probability of {at:.2g} is taken as the threshold",)
        parts.append((core, grown, maps))
        if sum(part[2].nbytes for part in parts) > keep:
            keep, parts = 0, []
        yield Region(turn.place_back(core), turn.back(decoding.add(core, grown, maps)))
    labels, scores, classes, doubts = decoding.finish(options.min_score)
    notes += doubts
    seconds = time.monotonic() - started
    record = _provenance(image, model, options, notes, seconds)
    instances = Instances.from_labels(
        np.ascontiguousarray(turn.back(labels)),
        image.grid,
        scores=scores,
        class_ids=classes,
        classes=model.spec.classes,
        provenance=record,
    )
    kept = Maps(image.grid, model.spec, plan.model_spacing, tuple(parts), record, turn) if parts else None
    yield Finished(instances, seconds, notes, kept)


def segment(
    image: Image | str | Path | ArrayLike | None = None,
    *,
    model: Model | str | Path | None = None,
    spacing: float | tuple[float, ...] | None = None,
    unit: Literal["mm", "um"] = "mm",
    channel_axis: int | None = None,
    channels: tuple[str | int, ...] | None = None,
    options: RunSpec | None = None,
    **named: Image | str | Path | ArrayLike,
) -> Instances:
    """Find the individual instances in an image.

    Parameters
    ----------
    image
        A path (file or DICOM folder), an array (y, x) or (z, y, x), or an `Image`. Leave out when naming inputs.
    model
        Shipped name, model file or loaded `Model`; default ``nuclei2d`` or ``nuclei3d`` by the image's dimension.
    spacing
        Voxel size in the array's axis order, in ``unit``; needed for physical measurements where a file says none.
    unit
        Unit of ``spacing``.
    channel_axis
        Axis of an array that counts channels; never guessed, and asked for where an array looks like a colour image.
    channels
        Channels to use, by name or number, in the model's order.
    options
        How to run.
    **named
        Inputs of a model with several, by channel name, for example ``flair=..., t1=...``; resampled onto the first.

    Returns
    -------
    Instances
        Labels on the image's own grid and one table row per instance. None found is a normal result.

    Raises
    ------
    InputError, ModelError, DeviceError
        With one line that says what to do.

    Examples
    --------
    >>> import numpy as np, medseg
    >>> y, x = np.mgrid[:96, :96]
    >>> disc = 200.0 * ((y - 48) ** 2 + (x - 48) ** 2 < 144)
    >>> len(medseg.segment(disc, spacing=0.5, unit="um"))
    1
    """
    options = options or RunSpec()
    if stray := set(named) & set(RunSpec.model_fields):
        one = min(stray)
        raise InputError(f"{one!r} says how to run: give options=medseg.RunSpec({one}=...)")
    if image is not None and named:
        raise InputError(
            f"give one image, or named inputs such as flair=..., t1=...; {min(named)!r} came beside an image"
        )
    if image is None and not named:
        raise InputError("there is nothing to segment; give an image, or named inputs such as flair=..., t1=...")
    if named:
        whole = preprocess.combine({name: _image(one, spacing, unit, channel_axis) for name, one in named.items()})
    else:
        whole = _image(image, spacing, unit, channel_axis)
    if channels is not None:
        whole = whole.select(list(channels))
    if not isinstance(model, Model):
        model = Model.load(model or default_model(whole), options.device)
    for event in run(whole, model, options):
        if isinstance(event, Finished):
            return event.instances
    raise AssertionError("a run ends with Finished")  # unreachable


def default_model(image: Image) -> str:
    """Shipped model for an image nobody chose one for: nuclei, by dimension.

    Raises
    ------
    ModelError
        The image is a medical scan: which model fits, a person has to say.
    """
    scan = image.source is not None and image.source.format == "dicom"  # ultrasound, mammography and so on are "other"
    if scan or image.modality not in ("microscopy", "other"):
        kind = "DICOM" if image.modality == "other" else image.modality
        fitting = [
            f"{name} ({spec.title})"
            for name, path in presets.weights().items()
            if image.modality in (spec := read_header(path)).modality
        ]
        there = f"shipped for {kind}: {', '.join(fitting)}" if fitting else "none ships for such images"
        raise ModelError(
            f"what to look for in a {kind} image, a person has to say: name a model with --model (model=); {there}; "
            "or find by a rule with --threshold"
        )
    return f"nuclei{image.grid.ndim}d"


def check_fit(image: Image, model: Model, force: bool = False) -> tuple[str, ...]:
    """Refuse an image that the model was not made for, or, with ``force``, say so.

    Returns
    -------
    tuple of str
        Notes for the user.

    Raises
    ------
    ModelError
        Wrong dimension (never forced), modality or spacing.
    """
    spec, grid = model.spec, image.grid
    if grid.ndim != spec.net.ndim:
        other = "one slice or a projection" if grid.ndim == 3 else "a stack"
        raise ModelError(
            f"{spec.name} works in {spec.net.ndim}-D, the image is {grid.ndim}-D; give it {other} or choose another model"
        )
    faults = []
    if image.modality not in (*spec.modality, "other"):
        faults.append(f"{spec.name} was trained on {', '.join(spec.modality)}, the image is {image.modality}")
    if spec.spacing_range and grid.known:
        for axis, s, (low, high) in zip(grid.axes, grid.spacing, spec.spacing_range, strict=True):
            if not low * 0.99 <= s <= high * 1.01:
                faults.append(
                    f"{spec.name} was trained on {axis} spacing {low:g} to {high:g} mm, the image has {s:g} mm"
                )
    if faults and not force:
        raise ModelError("; ".join(faults) + "; choose another model, or --force to run all the same")
    return (*faults, *_doubts(image, model))


def _doubts(image: Image, model: Model) -> list[str]:
    """What is allowed but often a mistake."""
    notes = []
    if image.modality == "other" and image.source is not None:
        notes.append(
            f"the file does not say how the image was made; {model.spec.name} is for {', '.join(model.spec.modality)}"
        )
    if image.modality == "microscopy" and image.grid.known and min(image.grid.spacing) > 0.02:
        notes.append(
            f"a pixel of {min(image.grid.spacing):g} mm is large for a microscope; was it meant in um (--unit um)?"
        )
    return notes


def _zoom(image: Image, model: Model, options: RunSpec) -> tuple[float, tuple[str, ...]]:
    """Resampling that brings the image's objects to a size the model knows, and a note of it."""
    if model.spec.preprocess.diameter is None:
        return 1.0, ()
    diameter = options.diameter or sizing.estimate(image, model)
    zoom = preprocess.zoom_for(diameter, model.spec.preprocess)
    if zoom == 1.0:
        return 1.0, ()
    told = "given" if options.diameter else "estimated; give it with --diameter if that is wrong"
    return zoom, (f"resampled by {zoom:.2f}: objects of about {diameter:.0f} voxels across ({told})",)


def _image(
    source: Any, spacing: float | tuple[float, ...] | None, unit: Literal["mm", "um"], channel_axis: int | None
) -> Image:
    if isinstance(source, Image):
        if spacing is not None or channel_axis is not None:
            raise InputError(
                "spacing and channel_axis belong to arrays and files; an Image has its own: leave them out"
            )
        return source
    if isinstance(source, (str, Path)):
        return io.load(source, spacing=spacing, unit=unit, channel_axis=channel_axis)
    shape = np.shape(source)
    if channel_axis is None and len(shape) == 3 and shape[-1] in (3, 4) and min(shape[:2]) > 4:
        raise InputError(
            f"an array of shape {shape} looks like a colour image: give channel_axis=-1; "
            "if it is a stack so narrow, pass medseg.Image.from_array(array)"
        )
    return Image.from_array(source, spacing, unit, channel_axis=channel_axis)


def _sizes(asked: tuple[int, ...] | None, usual: Mapping[int, tuple[int, ...]], turn: Turn) -> tuple[int, ...]:
    """Sizes in the order of the turned axes; what was asked for goes by the image's own."""
    ndim = len(turn.shape)
    if asked is None:
        return usual[ndim]
    if len(asked) != ndim or min(asked) < 1:
        raise InputError(f"tile and region need {ndim} positive numbers for this image, got {asked}")
    return turn.sizes(asked)


def _windows(grown: regions.Region, plan: Plan, head: heads.Head, size: tuple[int, ...]) -> list[regions.Region]:
    """Network windows of a region, in the region's own index on the model's grid."""
    shape = plan.shape(tuple(s.stop - s.start for s in grown))
    return regions.windows(shape, size, _overlap(size, head, plan))


def _overlap(size: tuple[int, ...], head: heads.Head, plan: Plan) -> tuple[int, ...]:
    return tuple(min(r, s // 2) for r, s in zip(head.reach(plan.model_spacing), size, strict=True))


class _Blend:
    """Weighted mean of the maps of overlapping windows."""

    def __init__(self, shape: tuple[int, ...], places: list[regions.Region]) -> None:
        self._shape = shape
        self._single = len(places) == 1
        self._sum: NDArray[np.float32] | None = None
        self._weight = np.zeros(shape, dtype=np.float32)

    def add(self, place: regions.Region, maps: NDArray[np.float32]) -> None:
        if self._single:
            self._sum = maps
            return
        if self._sum is None:
            self._sum = np.zeros((maps.shape[0], *self._shape), dtype=np.float32)
        overlap = tuple(max(8, (s.stop - s.start) // 8) for s in place)
        weight = regions.blend_weight(place, self._shape, overlap)
        self._sum[(slice(None), *place)] += maps * weight
        self._weight[place] += weight

    def mean(self) -> NDArray[np.float32]:
        assert self._sum is not None  # a region has at least one window
        return self._sum if self._single else self._sum / self._weight


def _provenance(
    image: Image, model: Model, options: RunSpec, notes: tuple[str, ...], seconds: float
) -> dict[str, object]:
    head: HeadBase = model.spec.heads[0]
    return {
        "medseg": medseg.__version__,
        "model": model.spec.name,
        "model_sha256": model.digest,
        "head": head.kind,
        "device": str(model.device),
        "options": options.model_dump(mode="json"),
        "source_sha256": image.source.content_hash() if image.source else None,
        "notes": list(notes),
        "seconds": round(seconds, 3),
    }
