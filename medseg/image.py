"""A medical image: voxels, the grid they lie on, and where they came from."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from medseg.errors import FormatError, InputError, MissingError
from medseg.grid import Grid
from medseg.ops.resample import check_world, onto

AnyArray = npt.NDArray[Any]

MODALITIES = ("CT", "MR", "PT", "microscopy", "other")
_CHUNK = 1 << 20


class LazyArray:
    """An array whose voxels are read once, whole, when they are first touched; safe to share between threads.

    Parameters
    ----------
    shape : tuple of int
        Shape that `read` promises.
    dtype : dtype
        Type that holds whatever `read` may return. Once read, `dtype` is the type that the voxels have: the same, or a
        narrower one of its kind (16-bit CT whose header allows for more than its voxels need).
    read : callable
        Takes nothing, returns the array.

    Examples
    --------
    >>> lazy = LazyArray((2, 3), np.int16, lambda: np.ones((2, 3), np.int16))
    >>> lazy.loaded, lazy[0].tolist(), lazy.loaded
    (False, [1, 1, 1], True)
    """

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike, read: Callable[[], AnyArray]) -> None:
        self.shape = tuple(int(size) for size in shape)
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self._read: Callable[[], AnyArray] | None = read
        self._values: AnyArray | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Shape, type and whether the voxels were read, never the voxels."""
        return f"LazyArray(shape={self.shape}, dtype={self.dtype}, loaded={self.loaded})"

    def __getitem__(self, key: Any) -> Any:
        """Index like a NumPy array; the result is read-only."""
        return self._load()[key]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        """Return all voxels, read-only unless a copy is asked for."""
        return np.array(self._load(), dtype=dtype, copy=copy)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels; until they are read, the widest that they may have."""
        return self._dtype if self._values is None else self._values.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def loaded(self) -> bool:
        """Whether the voxels are in memory."""
        return self._values is not None

    def _load(self) -> AnyArray:
        with self._lock:
            if self._read is not None:
                values = np.asarray(self._read())
                if values.shape != self.shape:
                    raise FormatError(
                        f"The header promises voxels of shape {self.shape}, the data hold {values.shape}; "
                        "the file is damaged or truncated, get it again."
                    )
                if not np.can_cast(values.dtype, self._dtype, "safe"):
                    raise FormatError(f"The header promises {self._dtype} voxels, the data hold {values.dtype}.")
                kept = values.dtype if values.dtype.kind == self._dtype.kind else self._dtype
                self._values = _read_only(values.astype(kept.newbyteorder("="), copy=False))
                self._read = None  # lets go of open files and buffers
            return self._values  # type: ignore[return-value]  # set above, before _read was dropped


@dataclass(frozen=True)
class Source:
    """Where an image came from.

    Parameters
    ----------
    files : tuple of Path
        Files, or folders that hold one image (zarr), in reading order.
    format : str
        Name of the format, such as "nifti".
    uids : mapping
        DICOM UIDs by keyword.
    notes : tuple of str
        Decisions the reader took; free of anything that identifies a patient.
    """

    files: tuple[Path, ...]
    format: str
    uids: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    def content_hash(self) -> str:
        """Return the SHA-256 of the bytes of all files in order, in hex; computed once.

        Raises
        ------
        MissingError
            If a file is gone.
        """
        return self._digest

    @property
    def key(self) -> str:
        """First 12 hex digits of the content hash: the same wherever the files lie."""
        return self._digest[:12]

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for path in self._every_file():
            try:
                with path.open("rb") as stream:
                    while block := stream.read(_CHUNK):
                        digest.update(block)
            except FileNotFoundError:
                raise MissingError(
                    f"{path.name} is not there any more; it may have been moved since reading."
                ) from None
        return digest.hexdigest()

    def _every_file(self) -> Iterator[Path]:
        for path in self.files:
            if path.is_dir():
                yield from sorted(inner for inner in path.rglob("*") if inner.is_file())
            else:
                yield path


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    """Voxels on a grid.

    Parameters
    ----------
    array : array (C, *grid.shape)
        Channel first; NumPy (made read-only, not copied) or `LazyArray`. Values in the unit of the modality (CT: HU).
    grid : Grid
        Where the voxels lie.
    modality : str
        "CT", "MR", "PT", "microscopy" or "other".
    channels : tuple of str
        One name for each channel; "0", "1", ... if empty.
    source : Source, optional
        Where it came from.

    Raises
    ------
    InputError
        If shapes, channel names or voxel type do not fit.

    Examples
    --------
    >>> image = Image.from_array(np.zeros((3, 64, 64), np.uint8), 0.5, "um", channel_axis=0, modality="microscopy")
    >>> image.grid.describe(), image.channels, image.length_unit
    ('64 x 64 pixels, 0.5 x 0.5 um', ('0', '1', '2'), 'um')
    """

    array: AnyArray | LazyArray = field(repr=False)
    grid: Grid
    modality: str = "other"
    channels: tuple[str, ...] = ()
    source: Source | None = None

    def __post_init__(self) -> None:
        """Check the fields and make the array read-only."""
        array, shape = self.array, self.grid.shape
        if array.ndim != len(shape) + 1 or array.shape[1:] != shape or array.shape[0] < 1:
            raise InputError(f"Voxels of shape {array.shape} do not fit (channels, *{shape}) of the grid.")
        if array.dtype.kind not in "iuf":
            raise InputError(
                f"Voxels of type {array.dtype} cannot be an image; convert them to an integer or float type."
            )
        if self.modality not in MODALITIES:
            raise InputError(f"Modality {self.modality!r} is not known; use one of {', '.join(MODALITIES)}.")
        channels = tuple(self.channels) or tuple(map(str, range(array.shape[0])))
        if len(channels) != array.shape[0] or len(set(channels)) != len(channels):
            raise InputError(
                f"Channel names {channels} do not fit {array.shape[0]} channels; give that many, all different."
            )
        object.__setattr__(self, "channels", channels)
        if isinstance(array, np.ndarray):
            object.__setattr__(self, "array", _read_only(array))

    def __repr__(self) -> str:
        """One line without the source, whose paths may name a patient."""
        return (
            f"Image({self.modality}; channels {', '.join(self.channels)}; {self.grid.describe()}; {self.array.dtype})"
        )

    @classmethod
    def from_array(
        cls,
        array: npt.ArrayLike,
        spacing: float | Sequence[float] | None = None,
        unit: Literal["mm", "um"] = "mm",
        *,
        axes: Sequence[str] = (),
        modality: str = "other",
        channels: Sequence[str] = (),
        channel_axis: int | None = None,
    ) -> Self:
        """Make an image from an array in memory, without copying it.

        Parameters
        ----------
        array : array (y, x) or (z, y, x), with one more axis if `channel_axis` is given
            Integers or floats, kept as they are; bool becomes uint8.
        spacing : float or sequence of float, optional
            Distance of voxel centres in ARRAY axis order (spatial axes only). None: unknown.
        unit : "mm" or "um"
            Unit of `spacing`.
        axes : sequence of str
            Names of the spatial axes.
        modality : str
            "CT", "MR", "PT", "microscopy" or "other".
        channels : sequence of str
            Channel names.
        channel_axis : int, optional
            Which axis of `array` counts channels. It is never guessed: without it (y, x, 3) is a volume 3 columns wide.

        Raises
        ------
        InputError
            If the array has no voxels, the wrong number of axes or a type that is not a number.
        GeometryError
            If `spacing` does not fit.
        """
        values = np.asarray(array)
        if values.dtype == np.bool_:
            values = values.view(np.uint8)
        if values.dtype.kind not in "iuf":
            raise InputError(f"An array of type {values.dtype} is no image; convert it to an integer or float type.")
        if values.size == 0:
            raise InputError(f"The array of shape {values.shape} has no voxels.")
        extra = 0 if channel_axis is None else 1
        if values.ndim - extra not in (2, 3):
            raise InputError(
                f"An array of shape {values.shape} has {values.ndim - extra} spatial axes; give (y, x) or (z, y, x), "
                "name a channel axis with channel_axis, and pass time points one by one."
            )
        if channel_axis is None:
            values = values[np.newaxis]
        elif not -values.ndim <= channel_axis < values.ndim:
            raise InputError(f"channel_axis {channel_axis} is not an axis of an array of shape {values.shape}.")
        else:
            values = np.moveaxis(values, channel_axis, 0)
        grid = Grid.from_spacing(values.shape[1:], spacing, unit=unit, axes=axes)
        return cls(values, grid, modality, tuple(channels))

    @property
    def length_unit(self) -> Literal["um", "mm", "px"]:
        """Unit to show lengths in: "um" for microscopy, "mm" for others, "px" where the spacing is unknown."""
        if not self.grid.known:
            return "px"
        return "um" if self.modality == "microscopy" else "mm"

    def voxels(self, region: Sequence[slice] | None = None) -> AnyArray:
        """Return the voxels (C, ...) of a spatial region, read-only, reading them if needed.

        Parameters
        ----------
        region : sequence of slice, optional
            One slice for each spatial axis; everything if absent.
        """
        if region is None:
            region = (slice(None),) * self.grid.ndim
        if len(region) != self.grid.ndim or not all(isinstance(part, slice) for part in region):
            raise InputError(f"A region of this image is {self.grid.ndim} slices, one for each of {self.grid.axes}.")
        values: AnyArray = self.array[(slice(None), *region)]
        return values

    def check_finite(self, region: Sequence[slice] | None = None) -> None:
        """Raise InputError if the region (the whole image if absent) holds NaN or infinite voxels."""
        if self.array.dtype.kind != "f":
            return
        values = self.voxels(region)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            nans = int(np.isnan(values).sum())
            raise InputError(
                f"{bad} of {values.size} voxels are not finite ({nans} NaN, {bad - nans} infinite); "
                "replace them first, for example with numpy.nan_to_num."
            )

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Self:
        """Return the image between two spatial indices (half-open), without copying or reading voxels."""
        grid = self.grid.crop(start, stop)
        region = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
        return replace(self, array=_part(self.array, region, (self.array.shape[0], *grid.shape)), grid=grid)

    def on(self, grid: Grid) -> Self:
        """Return the image at the voxels of another grid in the same world, float32, by linear interpolation.

        Beyond the image lies the lowest value of each channel. Voxels are read when they are touched. Where the grids
        match, this is the image itself.

        Raises
        ------
        GeometryError
            If the grids do not share a world: other number of axes, unit or frame of reference.
        """
        check_world(self.grid, grid)
        if self.grid.matches(grid):
            return self

        def read() -> AnyArray:
            voxels = self.voxels().astype(np.float32)
            return np.stack([onto(c, self.grid, grid, order=1, outside=float(c.min())) for c in voxels])

        return replace(self, array=LazyArray((self.array.shape[0], *grid.shape), np.float32, read), grid=grid)

    def select(self, channels: str | int | Sequence[str | int]) -> Self:
        """Return the image with some channels, by name or number, in the order given; lazy voxels stay unread.

        A text such as "2" is the channel of that name, as plates have it, and else that number.
        """
        wanted = [channels] if isinstance(channels, (str, int)) else list(channels)
        numbers = [self._channel(channel) for channel in wanted]
        if not numbers:
            raise InputError("No channel was selected; name at least one.")
        array = _part(self.array, (numbers,), (len(numbers), *self.grid.shape))
        return replace(self, array=array, channels=tuple(self.channels[number] for number in numbers))

    def _channel(self, channel: str | int) -> int:
        if isinstance(channel, str) and channel in self.channels:
            return self.channels.index(channel)
        if isinstance(channel, str) and channel.isdecimal():
            channel = int(channel)
        if isinstance(channel, int) and 0 <= channel < len(self.channels):
            return channel
        raise InputError(f"There is no channel {channel!r}; the channels are {', '.join(self.channels)}.")


def _read_only(array: AnyArray) -> AnyArray:
    view = array.view()
    view.flags.writeable = False
    return view


def _part(array: AnyArray | LazyArray, region: tuple[Any, ...], shape: tuple[int, ...]) -> AnyArray | LazyArray:
    """Index an array, or, if it is lazy, promise to."""
    if isinstance(array, LazyArray):
        return LazyArray(shape, array.dtype, lambda: array[region])
    part: AnyArray = array[region]
    return part
