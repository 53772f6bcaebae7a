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
from scipy.ndimage import map_coordinates

import medseg
from medseg import heads, io, preprocess, presets, sizing
from medseg.calibration import calibrated
from medseg.candidates import Candidates
from medseg.errors import InputError, ModelError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.model import Model, read_header
from medseg.ops import borders, regions, stitch
from medseg.ops.labels import taken, usual
from medseg.preprocess import Plan
from medseg.spec import HeadBase, ModelSpec, RunSpec

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


@dataclass(frozen=True, eq=False)
class Maps:
    """What the network said of an image: instances can be read from it again, under other settings, without the network.

    Attributes
    ----------
    grid : Grid
        Of the image.
    spec : ModelSpec
        Of the model.
    spacing : tuple of float
        Voxel size of the maps, per array axis.
    parts : tuple of (core, grown, maps)
        Of each region: the part it answers for, the part it covers, and float32 (channels, *shape) on the model's grid.
    provenance : mapping
        Of the first reading.
    """

    grid: Grid
    spec: ModelSpec
    spacing: tuple[float, ...]
    parts: tuple[tuple[regions.Region, regions.Region, NDArray[np.float32]], ...]
    provenance: Mapping[str, object]

    def decode(self, head: HeadBase | None = None, min_score: float | None = None) -> Instances:
        """Read the instances again.

        Parameters
        ----------
        head
            Settings of the head; those of the model file if left out.
        min_score
            Leave out instances below it; the model file's if left out.
        """
        decoding = _Decoding(self.grid.shape, self.spec, heads.make(head or self.spec.heads[0]), self.spacing)
        for core, grown, maps in self.parts:
            decoding.add(core, grown, maps)
        labels, scores, classes, _ = decoding.finish(min_score)
        changed = {"head": (head or self.spec.heads[0]).model_dump(mode="json"), "min_score": min_score}
        return Instances.from_labels(
            labels,
            self.grid,
            scores=scores,
            class_ids=classes,
            classes=self.spec.classes,
            provenance={**self.provenance, "decoded_with": changed},
        )

    def reach(self) -> tuple[int, ...]:
        """Voxels of the image around a place that its instances may depend on."""
        reach = heads.make(self.spec.heads[0]).reach(self.spacing)
        return tuple(int(np.ceil(r / self._scale(axis))) for axis, r in enumerate(reach))

    def around(self, place: regions.Region, head: HeadBase | None = None) -> Candidates:
        """Read what the maps propose in one part of the image, on that part's own voxels.

        The maps are those of the region that answers for the middle of the part.
        """
        middle = tuple((s.start + s.stop) // 2 for s in place)
        _, grown, maps = next(
            part for part in self.parts if all(s.start <= m < s.stop for s, m in zip(part[0], middle, strict=True))
        )
        inner = tuple(slice(max(p.start, g.start), min(p.stop, g.stop)) for p, g in zip(place, grown, strict=True))
        cut = self._cut(inner, grown, maps.shape[1:])
        found = heads.make(head or self.spec.heads[0]).decode(
            np.ascontiguousarray(maps[(slice(None), *cut)]), self.spacing
        )
        nearest = [
            np.clip(np.floor(c).astype(int) - s.start, 0, s.stop - s.start - 1)
            for c, s in zip(self._places(inner, grown, maps.shape[1:], 0.5), cut, strict=True)
        ]
        labels = found.paint(order="index")[0][np.ix_(*nearest)]
        kept = np.unique(labels[labels > 0]) - 1
        shown = Candidates.from_labels(labels, scores=found.scores[kept], classes=found.classes[kept])
        offset = [i.start - p.start for i, p in zip(inner, place, strict=True)]
        return shown.shift(offset, tuple(s.stop - s.start for s in place))

    def foreground(self, place: regions.Region) -> NDArray[np.float32]:
        """Probability that a voxel belongs to an object, in one part of the image."""
        out = np.zeros(tuple(s.stop - s.start for s in place), np.float32)
        for core, grown, maps in self.parts:
            inner = tuple(slice(max(p.start, c.start), min(p.stop, c.stop)) for p, c in zip(place, core, strict=True))
            if any(s.stop <= s.start for s in inner):
                continue
            # the first map of every dense head is the logit of an object
            places = np.meshgrid(*self._places(inner, grown, maps.shape[1:], 0.0), indexing="ij")
            value = map_coordinates(maps[0], places, order=1, mode="nearest")
            where = tuple(slice(i.start - p.start, i.stop - p.start) for i, p in zip(inner, place, strict=True))
            out[where] = 1 / (1 + np.exp(-np.clip(value, -30, 30)))
        return out

    def _scale(self, axis: int) -> float:
        """Voxels of the maps for each of the image, along an axis."""
        _, grown, maps = self.parts[0]
        return float(maps.shape[1 + axis] / (grown[axis].stop - grown[axis].start))

    @staticmethod
    def _places(
        inner: regions.Region, grown: regions.Region, shape: tuple[int, ...], shift: float
    ) -> list[NDArray[np.float64]]:
        """Where the middles of the image's voxels lie in the maps, per axis; a map's voxel has its middle at 0, or at ``shift``."""
        return [
            (np.arange(i.start, i.stop) - g.start + 0.5) * n / (g.stop - g.start) - 0.5 + shift
            for i, g, n in zip(inner, grown, shape, strict=True)
        ]

    @staticmethod
    def _cut(inner: regions.Region, grown: regions.Region, shape: tuple[int, ...]) -> regions.Region:
        """The part of the maps that covers a part of the image."""
        return tuple(
            slice(
                int(np.floor((i.start - g.start) * n / (g.stop - g.start))),
                min(n, int(np.ceil((i.stop - g.start) * n / (g.stop - g.start)))),
            )
            for i, g, n in zip(inner, grown, shape, strict=True)
        )


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
    notes = check_fit(image, model, options.force)
    zoom, sized = _zoom(image, model, options)
    plan = preprocess.plan(image, model.spec.preprocess, zoom)
    notes += (*plan.notes, *sized)
    shape, head = image.grid.shape, heads.make(model.spec.heads[0])
    halo = tuple(
        min(int(np.ceil(r / f)), n) for r, f, n in zip(head.reach(plan.model_spacing), plan.factor, shape, strict=True)
    )
    border = model.spec.border
    # what an image's own borders decide is decided for all of it
    cores = regions.partition(shape, shape if border else _sizes(options.region, _REGION, shape))
    jobs = [(core, regions.grow(core, halo, shape)) for core in cores]
    windows = [_windows(grown, plan, head, options) for _, grown in jobs]
    total = sum(len(w) for w in windows)
    yield Started(total, notes)
    decoding, done = _Decoding(shape, model.spec, head, plan.model_spacing), 0
    parts: list[tuple[regions.Region, regions.Region, NDArray[np.float32]]] = []
    for (core, grown), places in zip(jobs, windows, strict=True):
        array = plan.read(image, grown)
        blend = _Blend(array.shape[1:], places)
        for place in places:
            blend.add(place, model.maps(array[(slice(None), *place)])[0])
            done += 1
            yield Progress(done, total)
        maps = blend.mean()
        if border:
            maps[0], at = borders.fitted(maps[0], array[0], model.spec.heads[0].threshold, border)  # type: ignore[attr-defined]
            if np.isfinite(at):
                notes += (f"borders are sharpest at a probability of {at:.2g}, which is taken as the threshold",)
        parts.append((core, grown, maps))
        if sum(part[2].nbytes for part in parts) > keep:
            keep, parts = 0, []
        yield decoding.add(core, grown, maps)
    labels, scores, classes, doubts = decoding.finish(options.min_score)
    notes += doubts
    seconds = time.monotonic() - started
    record = _provenance(image, model, options, notes, seconds)
    instances = Instances.from_labels(
        labels, image.grid, scores=scores, class_ids=classes, classes=model.spec.classes, provenance=record
    )
    kept = Maps(image.grid, model.spec, plan.model_spacing, tuple(parts), record) if parts else None
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
        Axis of an array that counts channels; never guessed.
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
    if (image is None) == (not named):
        raise InputError("give one image, or named inputs such as flair=..., t1=...; not both and not neither")
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
    if image.modality not in ("microscopy", "other"):
        fitting = [
            f"{name} ({spec.title})"
            for name, path in presets.weights().items()
            if image.modality in (spec := read_header(path)).modality
        ]
        there = f"shipped for {image.modality}: {', '.join(fitting)}" if fitting else "none ships for such images"
        raise ModelError(
            f"what to look for in a {image.modality} image, a person has to say: name a model with --model (model=); {there}; or "
            "find by a rule with --threshold"
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
        return source
    if isinstance(source, (str, Path)):
        return io.load(source, spacing=spacing, unit=unit, channel_axis=channel_axis)
    return Image.from_array(source, spacing, unit, channel_axis=channel_axis)


def _sizes(
    asked: tuple[int, ...] | None, usual: Mapping[int, tuple[int, ...]], shape: tuple[int, ...]
) -> tuple[int, ...]:
    size = asked or usual[len(shape)]
    if len(size) != len(shape) or min(size) < 1:
        raise InputError(f"tile and region need {len(shape)} positive numbers for this image, got {size}")
    return size


def _windows(grown: regions.Region, plan: Plan, head: heads.Head, options: RunSpec) -> list[regions.Region]:
    """Network windows of a region, in the region's own index on the model's grid."""
    shape = plan.shape(tuple(s.stop - s.start for s in grown))
    size = _sizes(options.tile, _WINDOW, shape)
    return regions.windows(shape, size, _overlap(size, head, plan))


def _overlap(size: tuple[int, ...], head: heads.Head, plan: Plan) -> tuple[int, ...]:
    return tuple(min(r, s // 2) for r, s in zip(head.reach(plan.model_spacing), size, strict=True))


def _onto(found: Candidates, size: tuple[int, ...]) -> Candidates:
    """Candidates of the model's grid on the image's (nearest voxel); those that no voxel of it shows are gone."""
    if found.shape == size:
        return found
    labels = preprocess.resize(found.paint(order="index")[0], size, order=0).astype(np.int32, copy=False)
    kept = np.unique(labels)
    kept = kept[kept > 0] - 1
    return Candidates.from_labels(labels, scores=found.scores[kept], classes=found.classes[kept])


class _Decoding:
    """One region's maps after the other into one label array."""

    def __init__(self, shape: tuple[int, ...], spec: ModelSpec, head: heads.Head, spacing: tuple[float, ...]) -> None:
        self._mosaic = stitch.Mosaic(shape)
        self._spec, self._head, self._spacing = spec, head, spacing

    def add(self, core: regions.Region, grown: regions.Region, maps: NDArray[np.float32]) -> Region:
        """Decode a region; returns how its core looks so far."""
        found = _onto(self._head.decode(maps, self._spacing), tuple(s.stop - s.start for s in grown))
        self._mosaic.add(core, grown, found.boxes, found.masks, found.scores.tolist(), found.classes.tolist())
        view = self._mosaic.labels[core].view()
        view.flags.writeable = False
        return Region(core, view)

    def finish(
        self, min_score: float | None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], tuple[str, ...]]:
        """Labels of what is no speck and no doubt, scores and classes of each, and notes."""
        labels, scores, classes = self._mosaic.finish()
        kept = usual(labels, self._spec.min_share, classes)
        labels, scores, classes = taken(labels, kept), scores[kept], classes[kept]
        voxels = np.bincount(labels.ravel(), minlength=len(scores) + 1)[1:]
        scores = calibrated(scores, voxels, self._spec.calibration)
        least = self._spec.min_score if min_score is None else min_score
        notes: tuple[str, ...] = ()
        kept = scores >= least
        doubtful = int((~kept).sum())
        if doubtful and min_score is None:
            notes += (
                f"{doubtful} doubtful instances with a score below {least:g} are left out; --min-score 0 keeps them",
            )
        labels, scores, classes = taken(labels, kept), scores[kept], classes[kept]
        if len(scores) >= 10 and np.median(scores) < 0.5:
            notes += (
                f"half of the scores are below {np.median(scores):.2f}: "
                f"{self._spec.name} may not be made for such images",
            )
        return labels, scores, classes, notes


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
