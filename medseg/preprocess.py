"""From an image's own voxels to what the network was trained on, region by region.

The plan is made once per image (channels, intensity range, resampling); regions are then read on demand, so that an
image larger than memory never has to be whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from medseg.errors import GeometryError, InputError, ModelError
from medseg.grid import Grid
from medseg.image import Image, LazyArray, Source
from medseg.instances import Instances
from medseg.ops.turn import Turn
from medseg.spec import PreprocessSpec

Region = tuple[slice, ...]

# Voxels looked at for the percentiles: enough for a stable 0.1 percentile, cheap on any volume.
_SAMPLE = 2_000_000
_MOST = 1000.0  # times as many voxels as the image has that a model may ask for
_LARGEST = 2200.0  # mL that no brain exceeds, and no head falls short of
_CUT_OUT = 0.1  # share of voxels outside, from which an image counts as cut out
_COARSER = 0.8  # a factor below this needs smoothing before voxels are dropped


@dataclass(frozen=True)
class Plan:
    """How one image goes into the network.

    Attributes
    ----------
    grid : Grid
        The model's grid over the same extent as the image.
    factor : tuple of float
        Model voxels per image voxel, per array axis.
    spacing : tuple of float
        Size of an image voxel as the heads take it, per array axis: the image's own, or, where that is unknown, the
        anisotropy that the model was trained on.
    channels : tuple of int
        Which image channel feeds each network input; -1: none, the network sees zeros.
    low, high : float32 arrays, (channels,)
        Intensities that become 0 and 1.
    notes : tuple of str
        What was decided and the user should know.
    """

    grid: Grid
    factor: tuple[float, ...]
    spacing: tuple[float, ...]
    channels: tuple[int, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    @property
    def model_spacing(self) -> tuple[float, ...]:
        """Size of a voxel of the model's grid, as the heads take it."""
        return tuple(s / f for s, f in zip(self.spacing, self.factor, strict=True))

    def read(self, image: Image, region: Region) -> NDArray[np.float32]:
        """Voxels of a region given in the image's own index, as (channels, *shape) on the model's grid."""
        voxels = image.voxels(region)
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            image.check_finite(region)
        array = voxels[list(self.channels)].astype(np.float32)
        wide = (-1, *[1] * image.grid.ndim)
        array = (array - self.low.reshape(wide)) / (self.high - self.low).reshape(wide)
        array[[c < 0 for c in self.channels]] = 0
        np.clip(array, -0.5, 2, out=array)
        if min(self.factor) < _COARSER:  # what a coarser voxel would have averaged, as the samples of a training do
            array = gaussian_filter(array, (0, *[0.4 / f if f < _COARSER else 0 for f in self.factor]))
        return np.stack([resize(c, self.shape(c.shape), order=1) for c in array])

    def to_model_labels(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Instance ids of the whole image on the model's grid (nearest voxel)."""
        return resize(labels, self.grid.shape, order=0).astype(np.int32, copy=False)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape on the model's grid of a region that has ``shape`` on the image's."""
        return tuple(max(1, round(n * f)) for n, f in zip(shape, self.factor, strict=True))


def plan(image: Image, spec: PreprocessSpec, zoom: float = 1.0) -> Plan:
    """Decide channels, intensity range and resampling for an image.

    Parameters
    ----------
    image
        What is to be segmented.
    spec
        What the model was trained on.
    zoom
        Resampling of all axes beyond what `spec` asks for, to bring objects to the size that the model knows.

    Raises
    ------
    ModelError
        The image's channels do not fit the model.
    InputError
        The image holds NaN or infinite voxels, or the model wants a brain that was cut out and this is a whole head.
    """
    channels, named = _channels(image, spec)
    if spec.inside:
        _check_cut_out(image, channels)
    low, high = _levels(image, spec, channels)
    if spec.any_channels and (flat := high - low <= 0).any() and not flat.all():
        channels = tuple(c for c, f in zip(channels, flat, strict=True) if not f)
        low, high = low[~flat], high[~flat]
        named += (f"{int(flat.sum())} channels without any contrast are left out",)
    # float32 cannot tell 1e9 from 1e9 + 1, so the step grows with the value
    high = np.where(high > low, high, low + np.maximum(1, np.abs(low) * np.float32(1e-3))).astype(np.float32)
    factor, notes = _factor(image.grid, spec)
    factor = tuple(f * zoom for f in factor)
    if not 0 < math.prod(factor) < _MOST:
        raise ModelError(
            f"the model's voxels are {math.prod(factor):.3g} times as many as the image's; it does not fit the image"
        )
    shape = tuple(max(1, round(n * f)) for n, f in zip(image.grid.shape, factor, strict=True))
    grid = image.grid if shape == image.grid.shape else image.grid.resample_to(shape)
    spacing = image.grid.spacing
    if spec.anisotropy is not None and image.grid.ndim == 3 and not image.grid.known:
        spacing = (spec.anisotropy, 1.0, 1.0)  # as the note of `_factor` says
    return Plan(grid, factor, spacing, channels, low, high, named + notes)


def turned(image: Image, spec: PreprocessSpec) -> tuple[Image, Turn]:
    """The image in the orientation that the model knows, voxels unread, and how it was turned."""
    turn = Turn.to(image.grid, spec.orientation)
    if not turn.needed:
        return image, turn
    grid = turn.grid(image.grid)
    array = LazyArray((len(image.channels), *grid.shape), image.array.dtype, lambda: turn.forth(image.voxels()))
    return replace(image, array=array, grid=grid), turn


def zoom_for(diameter: float, spec: PreprocessSpec) -> float:
    """Resampling that brings objects of a median diameter, in voxels, to a size that the model knows; 1 where they have it.

    Examples
    --------
    >>> zoom_for(80.0, PreprocessSpec(diameter=(10.0, 40.0))), zoom_for(30.0, PreprocessSpec(diameter=(10.0, 40.0)))
    (0.25, 1.0)
    """
    if spec.diameter is None or not diameter or spec.diameter[0] <= diameter <= spec.diameter[1]:
        return 1.0
    return float(np.sqrt(spec.diameter[0] * spec.diameter[1])) / diameter


def masked(image: Image, mask: Instances) -> Image:
    """The image with 0 wherever the mask, brought to the image's voxels by nearest voxel, has no label.

    Raises
    ------
    InputError
        The mask is empty on the image.
    GeometryError
        The two lie in different worlds.
    """
    inside = mask.on(image.grid).labels > 0
    if not inside.any():
        raise InputError("The brain mask has no voxel on the image; are they of one patient and one space?")
    array = np.where(inside, image.voxels(), 0)
    array.flags.writeable = False
    return replace(image, array=array)


def _check_cut_out(image: Image, channels: tuple[int, ...]) -> None:
    """Refuse a whole head where a brain is wanted: told by how much is not 0."""
    first = image.voxels()[channels[0]]
    inside = float(np.count_nonzero(first))
    volume = inside * image.grid.voxel_size / 1000
    if inside > (1 - _CUT_OUT) * first.size or (image.grid.known and volume > _LARGEST):
        raise InputError(
            "The model wants a brain that was cut out, with 0 around it, and this looks like a whole head; cut the brain out "
            "with a program such as HD-BET or SynthStrip, or give its mask with --brain-mask (preprocess.masked)."
        )


def combine(images: Mapping[str, Image]) -> Image:
    """One image of several one-channel images of the same body or field, on the grid of the first.

    Raises
    ------
    GeometryError
        Frames of reference differ, so that nothing says how the images lie to one another, or a spacing is unknown.
    InputError
        An image has several channels.
    """
    first_name, first = next(iter(images.items()))
    arrays = []
    for name, image in images.items():
        if len(image.channels) != 1:
            raise InputError(f"{name}: has {len(image.channels)} channels; a named input must have one")
        if not (image.grid.known or first.grid.matches(image.grid)):
            raise GeometryError(f"{name}: {first.grid.why_not(image.grid)}; give images that lie in one space")
        try:
            arrays.append(image.on(first.grid).voxels()[0].astype(np.float32))
        except GeometryError as error:
            raise GeometryError(f"{name}: does not lie in the space of {first_name}: {error}") from None
    array = np.stack(arrays)
    array.flags.writeable = False
    return replace(first, array=array, channels=tuple(images), source=_sources([i.source for i in images.values()]))


def _sources(sources: list[Source | None]) -> Source | None:
    """One source of all images, so that the content hash is of everything that was looked at; None if one has none."""
    known = [s for s in sources if s is not None]
    if len(known) < len(sources):
        return None
    files = tuple(file for s in known for file in s.files)
    notes = tuple(dict.fromkeys(n for s in known for n in s.notes))
    return replace(known[0], files=files, notes=notes)


def resize(array: NDArray[np.generic], shape: tuple[int, ...], order: int) -> NDArray[np.generic]:
    """Resample to ``shape`` over the same extent, edges aligned; the array itself when nothing changes."""
    if array.shape == tuple(shape):
        return array
    factor = [n / m for n, m in zip(shape, array.shape, strict=True)]
    return np.asarray(zoom(array, factor, order=order, mode="nearest", grid_mode=True)).astype(array.dtype, copy=False)


def _channels(image: Image, spec: PreprocessSpec) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Which channel feeds each input, and a note where that was not a matter of names."""
    wanted, have = tuple(c.lower() for c in spec.channels), tuple(c.lower() for c in image.channels)
    optional = tuple(c.lower() for c in spec.optional)
    needed = tuple(c for c in wanted if c not in optional)
    if spec.any_channels:
        if len(have) > spec.any_channels:
            raise ModelError(
                f"the model takes up to {spec.any_channels} channels, the image has {len(have)} ({', '.join(have)}); "
                "choose with --channels, for example --channels 0,1"
            )
        return tuple(range(len(have))), ()
    if set(wanted) <= set(have):
        return tuple(have.index(name) for name in wanted), ()
    if spec.optional and (set(needed) <= set(have) or len(have) == len(needed)):
        names = have if set(needed) <= set(have) else needed  # what has no names comes in the order of those needed
        missing = [c for c in spec.optional if c.lower() not in names]
        return tuple(names.index(c) if c in names else -1 for c in wanted), (f"without {', '.join(missing)}",)
    if len(have) == 1 and (len(wanted) == 1 or spec.gray_to_rgb):
        return (0,) * len(wanted), ()
    if len(have) == len(wanted):
        note = f"channels {', '.join(have)} taken as {', '.join(wanted)}; choose one with --channels if that is wrong"
        return tuple(range(len(have))), (note,)
    raise ModelError(
        f"the model wants the channels {', '.join(wanted)}, the image has {len(have)} ({', '.join(have)}); "
        "choose with --channels, for example --channels 0"
    )


def _levels(
    image: Image, spec: PreprocessSpec, channels: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Intensities that become 0 and 1, per channel; the same where a channel is constant."""
    step = max(1, int(np.ceil((np.prod(image.grid.shape) / _SAMPLE) ** (1 / image.grid.ndim))))
    region = tuple(slice(None, None, step) for _ in image.grid.shape)
    voxels = image.voxels(region)[sorted(set(channels))].astype(np.float32)
    if not np.isfinite(voxels).all():
        image.check_finite()
    parts = [voxels] if spec.joint else list(voxels)
    found = np.array([_percentiles(part, spec) for part in parts], dtype=np.float32)
    low, high = np.broadcast_to(found, (len(voxels), 2)).T
    # a percentile range of nothing (a few bright specks on black): fall back to the full range
    flat = high - low < 1e-6 * np.maximum(np.abs(high), 1e-6)
    top = voxels.reshape(len(voxels), -1).max(axis=1)
    high = np.where(flat, np.where(top > low, top, low), high)
    pick = np.searchsorted(sorted(set(channels)), channels)
    return low[pick].astype(np.float32), high[pick].astype(np.float32)


def _percentiles(voxels: NDArray[np.float32], spec: PreprocessSpec) -> tuple[np.float32, np.float32]:
    some = voxels[voxels != 0] if spec.inside else voxels
    low, high = np.percentile(some if some.size else voxels, [spec.low, spec.high])
    return low, high


def _factor(grid: Grid, spec: PreprocessSpec) -> tuple[tuple[float, ...], tuple[str, ...]]:
    same = (1.0,) * grid.ndim
    if spec.spacing is not None:
        if len(spec.spacing) != grid.ndim:
            raise ModelError(f"the model works in {len(spec.spacing)}-D, the image is {grid.ndim}-D")
        if not grid.known:
            raise InputError("the model needs the voxel spacing and the file says none; give it with --spacing")
        return tuple(s / t for s, t in zip(grid.spacing, spec.spacing, strict=True)), ()
    if spec.anisotropy is None or grid.ndim != 3:
        return same, ()
    if not grid.known:
        return same, (f"spacing unknown: z is taken to be {spec.anisotropy:g} times coarser than in plane",)
    factor = grid.spacing[0] / grid.spacing[-1] / spec.anisotropy
    if 0.75 <= factor <= 1.33:  # the scale augmentation covers this; resampling would only blur
        return same, ()
    return (factor, 1.0, 1.0), (f"z resampled by {factor:.2f} to the model's anisotropy {spec.anisotropy:g}",)
