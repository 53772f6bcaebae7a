"""The voxels of an object whose rough shape is known and of which a few voxels were clicked.

Arrays are (z, y, x); a plane is a volume of one slice. Indices are those of the image, lengths in the unit of the spacing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import edt
import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medseg.ops import components
from medseg.ops.cut import coarse, cut, fine, odds
from medseg.ops.surface import Rays, depth

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Part = tuple[Floats, Rays, Floats]  # centre, rays, and the radius of the surface along each

_AROUND = 1.7  # the part of the image that is looked at, in radii
_RIM = 0.1  # logarithm of radii around the surface that says nothing about intensities: it may be either side
_FAR = 0.8  # nor does what is further out
_DEEP = 0.7  # where being deeper makes no difference any more
_LIMIT = 3.0  # largest log odds of an intensity
_CLICKED = 0.4  # share of what was clicked among the samples
_PULL = 4.0  # log odds next to what a click is sure of; fades over the same distance again
_SURE = 50.0  # log odds of what a click is sure of
_BLUR = 0.7  # of the image in voxels: intensities are of neighbourhoods
_TURNS = 2  # times that intensities and border are taken anew
_ROUNDS = 60  # of the cut


class Click(NamedTuple):
    """A voxel that somebody clicked."""

    point: tuple[int, ...]  # (z, y, x)
    inside: bool
    margin: float = 0.0  # how far away the border was then
    radii: Floats | None = None  # surface around it of what was wrong


class Settled(NamedTuple):
    """The mask of an object and where it starts in the image."""

    low: Ints
    mask: Bools


def to_border(settled: Settled, point: tuple[int, ...], inside: bool, spacing: Floats) -> tuple[float, bool]:
    """Distance of a click to the border of a mask, at most a voxel if the click is right; and whether the mask was wrong there."""
    mask, index = settled.mask, np.array(point) - settled.low
    here = bool(((index >= 0) & (index < mask.shape)).all()) and bool(mask[tuple(index)])
    axes = [((np.arange(n) - i) * s) ** 2 for n, i, s in zip(mask.shape, index, spacing, strict=True)]
    squares = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    other = squares[mask != here]
    far = float(np.sqrt(other.min() if other.size else squares.max()))  # else all that was looked at is the object
    return (far, True) if here != inside else (min(far, float(spacing.min())), False)


class Scene(NamedTuple):
    """An image."""

    read: Callable[
        [Ints, Ints], tuple[Float32s, Ints]
    ]  # voxels that hold what lies between two corners, and their start
    shape: Ints  # (3,)
    spacing: Floats  # (3,)


class Settings(NamedTuple):
    """As in `medseg.spec.ClickSpec`."""

    voxels: int
    shape: float
    smooth: float
    spread: float


class _Lattice(NamedTuple):
    """Blocks of voxels on which the border is settled."""

    low: Ints
    high: Ints
    factors: Ints
    shape: tuple[int, ...]
    spacing: Floats

    def at(self, point: npt.ArrayLike) -> Floats:
        """Where a voxel of the image lies."""
        return np.asarray((np.asarray(point, np.float64) - self.low + 0.5) / self.factors - 0.5)


def settle(
    scene: Scene,
    parts: Sequence[Part],
    clicks: Sequence[Click],
    box: tuple[Ints, Ints] | None,
    settings: Settings,
) -> Settled:
    """Return the mask of an object.

    Parameters
    ----------
    scene
        The image.
    parts
        Surfaces; the object is about their union. The size of the first counts as that of the object.
    clicks
        In the order in which they came.
    box
        First corner, and the one past the last, of what the object lies within.
    settings
        Weights, and how many voxels may be looked at.
    """
    lattice = _lattice(scene, parts, clicks, settings.voxels)
    values, start = scene.read(lattice.low, lattice.high)
    region = tuple(slice(a, b) for a, b in zip(lattice.low - start, lattice.high - start, strict=True))
    image = coarse(values[region], lattice.factors)
    image = gaussian_filter(image, _BLUR * lattice.spacing.min() / lattice.spacing, mode="nearest")
    size = float(np.exp(np.log(parts[0][2]).mean()))
    deep = np.full(lattice.shape, -np.inf, np.float32)
    for centre, around, radii in parts:
        here = depth(lattice.shape, lattice.spacing, lattice.at(centre), around, radii)
        deep = np.maximum(deep, here)
    pull, sure = _clicked(lattice, deep, clicks, settings.spread)
    if box is not None:
        inner = np.zeros(lattice.shape, bool)
        first, last = lattice.at(box[0]), lattice.at(box[1] - 1)
        inner[tuple(slice(max(0, round(a)), max(0, round(b) + 1)) for a, b in zip(first, last, strict=True))] = True
        sure[~inner] = -1
        deep[~inner] = np.minimum(deep[~inner], -2 * _RIM)
    member = _parted(image, deep, pull, sure, lattice.spacing / size, settings)
    if (lattice.factors > 1).any():
        member = fine(member, lattice.factors, tuple(lattice.high - lattice.low))
    mask = member > 0.5
    if box is not None:
        mask = _within(mask, box[0] - lattice.low, box[1] - lattice.low)
    return Settled(lattice.low, _connected(mask, lattice.low, clicks))


def _lattice(scene: Scene, parts: Sequence[Part], clicks: Sequence[Click], most: int) -> _Lattice:
    """The part of the image around surfaces and clicks, in blocks as near to cubes as voxels allow, at most ``most`` of them."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for number, (centre, around, radii) in enumerate(parts):
        reach = radii[:, None] * (_AROUND if number == 0 else 1.0)
        ends = centre + around.directions * reach / scene.spacing
        low, high = np.minimum(low, ends.min(axis=0)), np.maximum(high, ends.max(axis=0))
    for click in clicks:
        if click.inside:
            reach = 1.5 * click.margin / scene.spacing + 2
            low, high = np.minimum(low, click.point - reach), np.maximum(high, click.point + reach)
    first = np.maximum(0, np.floor(low) - 2).astype(int)
    past = np.minimum(scene.shape, np.ceil(high) + 3).astype(int)
    side = float(scene.spacing.min())
    while True:
        factors = np.maximum(1, np.round(side / scene.spacing)).astype(int)
        shape = np.ceil((past - first) / factors).astype(int)
        if shape.prod() <= most:
            return _Lattice(first, past, factors, tuple(shape.tolist()), scene.spacing * factors)
        side *= 1.1


def _clicked(
    lattice: _Lattice, deep: Float32s, clicks: Sequence[Click], spread: float
) -> tuple[Float32s, NDArray[np.int8]]:
    """What clicks say: log odds around them, and 1 or -1 where they are sure; ``deep`` is carved by those outside, in place."""
    pull, sure = np.zeros(lattice.shape, np.float32), np.zeros(lattice.shape, np.int8)
    axes = np.ogrid[tuple(slice(size) for size in lattice.shape)]
    least = 0.75 * float(lattice.spacing.min())
    for click in clicks:
        at = lattice.at(click.point)
        away = np.sqrt(sum(((a - b) * s) ** 2 for a, b, s in zip(axes, at, lattice.spacing, strict=True)))
        known = spread * click.margin
        if click.radii is not None:  # what is wrong may be smaller than the way to the present border
            known = min(known, spread * float(np.median(click.radii)))
        known = max(known, least)
        side = 1 if click.inside else -1
        sure[away <= known] = side
        near = np.clip(2 - away / known, 0, 1)
        pull[...] = np.where(near > 0, pull * (1 - near) + side * _PULL * near, pull)
        if not click.inside and known > least:
            np.minimum(
                deep, np.log(np.maximum(away, 1e-6) / (known / max(spread, 1e-3))), out=deep, casting="same_kind"
            )
    return pull, sure


def _parted(
    image: Float32s, deep: Float32s, pull: Float32s, sure: NDArray[np.int8], spacing: Floats, settings: Settings
) -> Float32s:
    """Membership of each voxel. Spacing is in radii of the object, so that all objects are one size."""
    shape: Float32s = deep
    member = deep
    likely: Floats | float
    gain: NDArray[np.floating]
    for turn in range(_TURNS):
        inside = _samples((shape > _RIM) & (sure >= 0), sure > 0)
        outside = _samples((shape < -_RIM) & (shape > -_FAR) & (sure <= 0), sure < 0)
        likely = odds(image, inside, outside, _LIMIT) if inside.any() and outside.any() else 0.0
        gain = likely + settings.shape * np.clip(shape, -_DEEP, _DEEP) + pull
        gain = np.asarray(np.where(sure == 0, gain, _SURE * sure))
        member = cut(-gain.astype(np.float32), image, spacing, settings.smooth, _ROUNDS)
        if turn + 1 < _TURNS:
            shape = ((deep + np.clip(_signed(member > 0.5, spacing), -_DEEP, _DEEP)) / 2).astype(np.float32)
    return member


def _samples(known: Bools, clicked: Bools) -> Float32s:
    """Weights of samples; what was clicked counts for a share of all, however few voxels."""
    weight = known.astype(np.float32)
    count = int(clicked.sum())
    if count:
        weight[clicked] += _CLICKED * max(float(weight.sum()), 1.0) / count
    return weight


def _signed(mask: Bools, spacing: Floats) -> Float32s:
    """Distance to the border, negative outside."""
    size = tuple(spacing.tolist())
    inner = edt.edt(np.ascontiguousarray(mask).astype(np.uint8), anisotropy=size, parallel=1)
    outer = edt.edt(np.ascontiguousarray(~mask).astype(np.uint8), anisotropy=size, parallel=1)
    return np.asarray(np.where(mask, inner, -outer), np.float32)


def _within(mask: Bools, low: Ints, high: Ints) -> Bools:
    out = np.zeros_like(mask)
    inner = tuple(slice(max(0, int(a)), max(0, int(b))) for a, b in zip(low, high, strict=True))
    out[inner] = mask[inner]
    return out


def _connected(mask: Bools, low: Ints, clicks: Sequence[Click]) -> Bools:
    """Keep the pieces that were clicked, or the largest if none was, without holes; what was clicked is as it was clicked."""
    marks = [(tuple((click.point - low).tolist()), click.inside) for click in clicks]
    marks = [(at, inside) for at, inside in marks if all(0 <= x < n for x, n in zip(at, mask.shape, strict=True))]
    for at, inside in marks:
        mask[at] = inside
    if any(inside for _, inside in marks):
        labels = components.label(mask)
        mask = np.isin(labels, [labels[at] for at, inside in marks if inside])
    else:
        mask = components.largest_of(mask)
    mask = _without_holes(mask, [at for at, inside in marks if not inside])
    for at, inside in marks:
        mask[at] = inside
    mask.flags.writeable = False
    return np.asarray(mask)


def _without_holes(mask: Bools, hollow: Sequence[tuple[int, ...]]) -> Bools:
    """Fill what is enclosed, unless it holds a voxel of ``hollow``; in a plane, what is enclosed in it."""
    around = [(int(size > 1 or axis > 0),) * 2 for axis, size in enumerate(mask.shape)]
    beside = components.label(~np.pad(mask, around))
    inner = tuple(slice(before, size + before) for (before, _), size in zip(around, mask.shape, strict=True))
    beside, corner = beside[inner], beside[0, 0, 0]
    return np.asarray(~np.isin(beside, [corner, *(beside[at] for at in hollow if beside[at])]))
