"""From a few clicks, or a box, to the mask of one object, with no model at all: `region`, and `Clicks` for a click after another.

The first click looks for the closed surface around it that best parts an object from its surroundings (`ops.surface`). Its
inside and outside say what the intensities mean; a smooth cut (`ops.cut`) then settles the border voxel by voxel. Each further
click says more than its own voxel: whoever corrects a mask clicks into the middle of what is wrong, so what lies between the
click and the present border is wrong too, and the true border is about as far away on the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError
from medseg.image import Image
from medseg.ops import surface
from medseg.ops.settle import Click, Scene, Settings, Settled, settle, to_border
from medseg.spec import ClickSpec

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Place = tuple[slice, ...]

_SURE = 0.7  # of the way from a click to the border that binds the surface


def region(
    image: Image,
    inside: Iterable[Sequence[int]] = (),
    outside: Iterable[Sequence[int]] = (),
    box: tuple[Sequence[int], Sequence[int]] | None = None,
    spec: ClickSpec | None = None,
) -> tuple[Mask, Place]:
    """Return the mask of the object that clicks, or a box, point at.

    Parameters
    ----------
    image : Image
        2-D or 3-D; of several channels, their mean counts.
    inside, outside : iterable of index
        Voxels (z, y, x) or (y, x) in the object, and beside it. The first one inside should lie near its middle, the others
        in the middle of what is still missing or too much; all inside are taken first.
    box : pair of index, optional
        First corner and the one past the last: the object lies in it and nearly fills it.
    spec : ClickSpec, optional
        Settings.

    Returns
    -------
    mask : bool array
        Of a part of the image. Holds every voxel of `inside` and none of `outside`.
    place : tuple of slice
        Where that part lies in the image.

    Raises
    ------
    InputError
        Neither a click inside nor a box; a click or a box outside of the image; a voxel clicked as both; voxels that are not
        finite.

    Examples
    --------
    >>> y, x = np.indices((64, 64))
    >>> disc = np.hypot(y - 30, x - 36) < 10
    >>> mask, place = region(Image.from_array(100.0 * disc), inside=[(30, 36)])
    >>> bool((disc[place] == mask).mean() > 0.98)
    True
    """
    session = Clicks(image, box, spec)
    for point in inside:
        session.add(point)
    for point in outside:
        session.add(point, inside=False)
    if not session.started:
        raise InputError("There is no click inside and no box; give one of them.")
    return session.mask, session.place


@dataclass(frozen=True, eq=False)
class _State:
    """What is known after a click. Indices are (z, y, x), lengths in the unit of the spacing."""

    clicks: tuple[Click, ...]
    centre: Floats  # (3,)
    radii: Floats  # (N,), of the surface around the centre
    result: Settled


class Clicks:
    """A mask that grows better click by click.

    The part of the image around the clicks is read once and kept; it grows when the object does.

    Parameters
    ----------
    image : Image
        2-D or 3-D; of several channels, their mean counts.
    box : pair of index, optional
        First corner and the one past the last of a box that the object nearly fills; nothing outside of it is taken.
    spec : ClickSpec, optional
        Settings.

    Raises
    ------
    InputError
        The box is empty or not in the image.

    Examples
    --------
    >>> y, x = np.indices((64, 64))
    >>> session = Clicks(Image.from_array(100.0 * (np.hypot(y - 30, x - 36) < 10)))
    >>> session.add((30, 36))
    >>> session.add((30, 50), inside=False)
    >>> bool(session.full()[30, 36]), bool(session.full()[30, 50])
    (True, False)
    """

    def __init__(
        self, image: Image, box: tuple[Sequence[int], Sequence[int]] | None = None, spec: ClickSpec | None = None
    ) -> None:
        self.image = image
        self.spec = spec or ClickSpec()
        flat = image.grid.ndim == 2  # a plane is a volume of one slice
        self._shape = np.array((1, *image.grid.shape) if flat else image.grid.shape)
        spacing = image.grid.spacing
        self._spacing = np.array((min(spacing), *spacing) if flat else spacing)
        self._held: tuple[npt.NDArray[np.float32], Ints] | None = None
        self._along: surface.Profiles | None = None  # around the first click
        self._states: list[_State] = []
        self._box = None if box is None else self._checked_box(box)
        if self._box is not None:
            self._states.append(self._from_box(*self._box))

    @property
    def started(self) -> bool:
        """Whether there is a mask yet."""
        return bool(self._states)

    @property
    def points(self) -> tuple[tuple[tuple[int, ...], bool], ...]:
        """Clicks so far: index, and whether it is inside."""
        n = self.image.grid.ndim
        clicks = self._states[-1].clicks if self._states else ()
        return tuple((click.point[3 - n :], click.inside) for click in clicks)

    @property
    def place(self) -> Place:
        """Where `mask` lies in the image: a slice for each axis, empty before the first click."""
        n = self.image.grid.ndim
        if not self._states:
            return (slice(0, 0),) * n
        low, mask = self._states[-1].result
        return tuple(slice(int(a), int(a) + size) for a, size in zip(low, mask.shape, strict=True))[3 - n :]

    @property
    def mask(self) -> Mask:
        """The object in `place`, bool, read-only."""
        shape = tuple(part.stop - part.start for part in self.place)
        return self._states[-1].result.mask.reshape(shape) if self._states else np.zeros(shape, bool)

    def full(self) -> Mask:
        """Return the object as a bool array of the image's shape."""
        out = np.zeros(self.image.grid.shape, bool)
        out[self.place] = self.mask
        return out

    def add(self, point: Sequence[int], inside: bool = True) -> None:
        """Take one more click into account.

        Parameters
        ----------
        point : index (z, y, x) or (y, x)
            The voxel.
        inside : bool
            Whether it belongs to the object.

        Raises
        ------
        InputError
            The voxel is not in the image or was clicked as the other side; the first click is not inside; voxels around it are
            not finite. The clicks before stand.
        """
        place = self._checked(point, inside)
        if not self._states:
            centre, self._along = np.array(place, np.float64), None
            clicks: tuple[Click, ...] = (Click(place, True),)
            radii = self._around_first(centre, clicks, None)
        else:
            last = self._states[-1]
            centre, radii = last.centre, last.radii
            margin, wrong = to_border(last.result, place, inside, self._spacing)
            part = wrong and margin > self._spacing.min()
            own = self._around(place, margin, inside, last.clicks) if part else None
            clicks = (*last.clicks, Click(place, inside, margin, own))
            if wrong and not inside and self._box is None:
                radii = self._around_first(centre, clicks, radii)
        self._states.append(self._settled(clicks, centre, radii))

    def undo(self) -> None:
        """Take the last click back, if there is one."""
        if self._states and self._states[-1].clicks:
            self._states.pop()

    def _checked(self, point: Sequence[int], inside: bool) -> tuple[int, ...]:
        n = self.image.grid.ndim
        shape = self.image.grid.shape
        index = np.asarray(point)
        if index.shape != (n,) or index.dtype.kind not in "iu":
            raise InputError(f"A click is {n} whole numbers, one for each of {self.image.grid.axes}; got {point!r}.")
        if (index < 0).any() or (index >= shape).any():
            raise InputError(f"The click {tuple(index.tolist())} is outside of the image of shape {shape}.")
        if not self._states and not inside:
            raise InputError("The first click must be inside the object; or give a box.")
        place = (*(0,) * (3 - n), *index.tolist())
        if self._states and any(c.point == place and c.inside != inside for c in self._states[-1].clicks):
            raise InputError(
                f"The voxel {tuple(index.tolist())} was clicked as inside and as outside; undo one of them."
            )
        if self._box is not None and inside and not all(a <= x < b for a, b, x in zip(*self._box, place, strict=True)):
            raise InputError(f"The click {tuple(index.tolist())} is inside the object but outside of the box.")
        return place

    def _checked_box(self, box: tuple[Sequence[int], Sequence[int]]) -> tuple[Ints, Ints]:
        n = self.image.grid.ndim
        corners = np.asarray(box)
        if corners.shape != (2, n) or corners.dtype.kind not in "iu":
            raise InputError(f"A box is two corners of {n} whole numbers each; got {box!r}.")
        low, high = np.zeros(3, np.int64), np.ones(3, np.int64)
        low[3 - n :], high[3 - n :] = corners
        if (low < 0).any() or (high > self._shape).any() or (low >= high).any():
            raise InputError(
                f"The box {corners.tolist()} is empty or not in the image of shape {self.image.grid.shape}."
            )
        return low, high

    def _values(self, low: Ints, high: Ints) -> tuple[npt.NDArray[np.float32], Ints]:
        """Voxels that hold a part of the image, and where they start."""
        low, high = np.maximum(low, 0), np.minimum(high, self._shape)
        if self._held is not None:
            held, start = self._held
            if (low >= start).all() and (high <= start + held.shape).all():
                return self._held
            low, high = np.minimum(low, start), np.maximum(high, start + held.shape)
        part = [slice(int(a), int(b)) for a, b in zip(low, high, strict=True)][3 - self.image.grid.ndim :]
        self.image.check_finite(part)
        voxels = self.image.voxels(part)
        mean = voxels[0] if len(voxels) == 1 else voxels.mean(axis=0)
        self._held = mean.astype(np.float32).reshape(tuple(high - low)), low
        return self._held

    def _profiles(self, centre: Floats, around: surface.Rays, reach: float) -> surface.Profiles:
        half = np.ceil(reach / self._spacing).astype(int) + 2
        middle = np.round(centre).astype(int)
        values, start = self._values(middle - half, middle + half + 1)
        return surface.profiles(values, self._spacing, centre - start, around, reach)

    def _rays(self, share: float = 1.0) -> surface.Rays:
        flat = bool(self._shape[0] == 1)
        return surface.rays(flat, round(self.spec.rays * share * (1 / 3 if flat else 1)))

    def _around_first(self, centre: Floats, clicks: tuple[Click, ...], radii: Floats | None) -> Floats:
        """Radii of the surface around the first click; missed parts have their own."""
        binding = tuple(c for c in clicks if c.radii is None or not c.inside)
        span = None
        if radii is not None:  # a leak: the object may be smaller than it seemed, but not larger
            mean = float(np.exp(np.log(radii).mean()))
            far = float(np.linalg.norm((np.array(clicks[-1].point) - centre) * self._spacing))
            span = min(mean, max(far - 2 * clicks[-1].margin, 0.3 * far)), mean
        around = self._rays()
        whole = float(np.linalg.norm(self._shape * self._spacing))
        reach = self.spec.reach * float(self._spacing.min()) if self._along is None else float(self._along.radii[-1])
        while True:
            if self._along is None:
                self._along = self._profiles(centre, around, min(reach, whole))
            ruled_out = self._ruled_out(self._along, around, centre, binding)
            found = surface.fit(self._along, around, self._spacing, ruled_out, span)
            if np.exp(np.log(found).mean()) < 0.6 * reach or reach >= whole:
                return found
            reach, self._along = 2 * reach, None  # the object may go on where nothing was read

    def _around(self, place: tuple[int, ...], margin: float, inside: bool, clicks: tuple[Click, ...]) -> Floats:
        """Radii of the surface around a click of what is wrong, which is hardly wider than the way to the present border."""
        centre, around = np.array(place, np.float64), self._rays(0.5)
        along = self._profiles(centre, around, min(5 * margin, self.spec.reach * float(self._spacing.min())))
        ruled_out = self._ruled_out(
            along, around, centre, tuple(c._replace(inside=False) for c in clicks if c.inside != inside)
        )
        return surface.fit(along, around, self._spacing, ruled_out, (1e-9, 1.2 * margin))

    def _ruled_out(
        self, along: surface.Profiles, around: surface.Rays, centre: Floats, clicks: tuple[Click, ...]
    ) -> Mask:
        borders = [((np.array(c.point) - centre) * self._spacing, _SURE * c.margin, c.inside) for c in clicks]
        return surface.forbidden(along, around, borders)

    def _from_box(self, low: Ints, high: Ints) -> _State:
        """Start from the ellipsoid in a box."""
        half = (high - low) / 2 * self._spacing
        across = self._rays().directions / half
        return self._settled((), (low + high - 1) / 2, 1 / np.linalg.norm(across, axis=1))

    def _settled(self, clicks: tuple[Click, ...], centre: Floats, radii: Floats) -> _State:
        parts = [(centre, self._rays(), radii)]
        parts += [
            (np.array(c.point, float), self._rays(0.5), c.radii) for c in clicks if c.inside and c.radii is not None
        ]
        settings = Settings(self.spec.voxels, self.spec.shape, self.spec.smooth, self.spec.spread)
        result = settle(Scene(self._values, self._shape, self._spacing), parts, clicks, self._box, settings)
        return _State(clicks, centre, radii, result)
