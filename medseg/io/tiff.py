"""TIFF: plain, ImageJ and OME."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from medseg.errors import FormatError, InputError
from medseg.grid import Grid
from medseg.image import Image, LazyArray, Source
from medseg.io.common import millimetres, reading
from medseg.io.limits import check_claim
from medseg.io.tiffwhole import check_tags, check_tiles, check_whole

AnyArray = npt.NDArray[Any]

MAP_FROM = 1 << 26  # bytes from which uncompressed voxels are mapped, not read: small files gain nothing
# Dots per inch that programs write when they know nothing: tifffile, libvips, screens, printers.
_PRINT = (1.0, 2.54, 25.4, 72.0, 96.0, 150.0, 300.0, 600.0, 1200.0)
_REFUSED = {5: "CMYK", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "colour filter array"}

# tifffile logs what is wrong with a file to stderr; here it becomes a typed error or a note instead.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Layout:
    """How the stored array becomes (C, *spatial): the letters of its axes, channel names, notes."""

    order: tuple[int, ...]  # stored axes in the order (channel, *spatial)
    axes: str  # "ZYX" or "YX"
    drop: bool  # the last channel is alpha
    channels: tuple[str, ...]
    notes: tuple[str, ...]


def read(path: Path, channel_axis: int | None = None, labels: bool = False) -> Image:
    """Read a TIFF lazily.

    Parameters
    ----------
    path : Path
        The file. Its first series is read; of a pyramid the full resolution.
    channel_axis : int, optional
        Which axis of the stored array counts channels, where the file does not say.
    labels : bool
        Whether values are ids, so that a palette must not turn them into colours.

    Raises
    ------
    FormatError
        The file is no TIFF, is truncated or damaged.
    InputError
        Time points, complex values, colours other than gray and RGB, or more voxels than `medseg.io.limits` allows.
    """
    return _read(path, channel_axis, labels, timed=False)[0]


def frames(path: Path) -> tuple[Image, ...]:
    """Read a time series, an image for each time point; of a file without a time axis its one image.

    Parameters and errors are those of `read`; the time axis is the one that the file itself names so.
    """
    return _read(path, None, False, timed=True)


def _read(path: Path, channel_axis: int | None, labels: bool, timed: bool) -> tuple[Image, ...]:
    with reading(path, "TIFF"), tifffile.TiffFile(path) as tif:
        check_tags(tif, path)
        _check_planes(tif, path)
        if not tif.series:
            raise FormatError(f"{path.name} is a TIFF without an image; get it again.")
        series = tif.series[0]
        check_whole(tif, series, path)
        page = series.keyframe
        if series.dtype is None or series.dtype.kind not in "biuf":
            raise InputError(f"{path.name} holds {series.dtype} voxels; convert them to integers or real numbers.")
        if page.photometric in _REFUSED:
            raise InputError(f"{path.name} is coloured as {_REFUSED[page.photometric]}; convert it to RGB or gray.")
        letters = list(series.axes)
        time = letters.index("T") if timed and "T" in letters else None
        layout = _layout(tif, series, path, channel_axis, time)
        spacing, told = _spacing(tif, page, layout.axes)
        palette = None if labels or page.photometric != 3 or page.colormap is None else page.colormap
        if time is None:
            array, channels = _voxels(path, tif, series, layout, palette)
            arrays: list[Any] = [array]
        else:
            if palette is not None:
                raise InputError(f"{path.name} is a time series in palette colours; convert it to gray.")
            check_claim(series.nbytes, path)
            stored = series.asarray()
            count, channels = len(layout.channels), layout.channels
            parts = np.moveaxis(stored, time, 0)
            order = [axis - (axis > time) for axis in layout.order]
            shape = tuple(parts.shape[1 + axis] for axis in order)
            arrays = [one.transpose(order).reshape(-1, *shape[-len(layout.axes) :])[:count] for one in parts]
    notes = [*layout.notes, *told]
    if page.photometric == 0 and not labels:
        notes.append("the file says that white is 0; values are kept as stored")
    if len(tif.series) > 1:
        notes.append(f"the file holds {len(tif.series)} images; the first was read")
    grid = Grid.from_spacing(arrays[0].shape[1:], spacing, axes=tuple(layout.axes.lower()))
    source = Source((path,), "tiff", notes=tuple(notes))
    return tuple(Image(array, grid, "microscopy", channels, source) for array in arrays)


def _check_planes(tif: tifffile.TiffFile, path: Path) -> None:
    """Raise if OME-XML claims more planes than there can be: tifffile makes a list of them before it looks."""
    for pixels in _ome_images(tif):
        sizes = [int(pixels.get(f"Size{axis}") or 1) for axis in "XYZCT"]
        planes = max(1, sizes[2]) * max(1, sizes[3]) * max(1, sizes[4])
        elsewhere = any(uuid.get("FileName") for uuid in pixels.iter("{*}UUID"))
        if not elsewhere and planes // max(1, sizes[3]) > tif.filehandle.size:
            raise FormatError(f"{path.name} is truncated: it cannot hold the {planes} planes it states; get it again.")
        check_claim(planes * max(sizes[0] * sizes[1], 1024), path)


def _layout(
    tif: tifffile.TiffFile,
    series: tifffile.TiffPageSeries,
    path: Path,
    channel_axis: int | None,
    time: int | None = None,
) -> _Layout:
    """Work out which stored axis is what; ``time`` is one that is taken apart by the caller."""
    letters, notes = list(series.axes), []
    if channel_axis is not None:
        if not -len(letters) <= channel_axis < len(letters) or letters[channel_axis] in "YX":
            raise InputError(
                f"channel_axis {channel_axis} does not name a channel axis of an array of shape {series.shape}."
            )
        letters = ["Q" if letter in "CS" else letter for letter in letters]
        letters[channel_axis] = "C"
    if "T" in letters and time is None:
        raise InputError(
            f"{path.name} holds {series.shape[letters.index('T')]} time points; split it into one file for each."
        )
    unknown = [i for i, letter in enumerate(letters) if letter not in "ZYXCS" and i != time]
    if len(unknown) == 1 and "Z" not in letters:
        letters[unknown[0]] = "Z"
        notes.append("the file does not say what its planes are; they are read as z slices")
    colour = [i for i, letter in enumerate(letters) if letter in "CS"]
    spatial = [letters.index(letter) for letter in "ZYX" if letter in letters]
    if (
        len(colour) > 1
        or len(colour) + len(spatial) + (time is not None) != len(letters)
        or not {"Y", "X"} <= set(letters)
    ):
        raise InputError(
            f"{path.name} has axes {series.axes} of sizes {series.shape}; medseg reads z, y, x and one channel axis. "
            "Split it, or name the channels with channel_axis."
        )
    count = series.shape[colour[0]] if colour else 1
    rgb = bool(colour) and letters[colour[0]] == "S" and series.keyframe.photometric in (2, 6)
    drop = bool(colour) and letters[colour[0]] == "S" and count in (2, 4) and bool(series.keyframe.extrasamples)
    if drop:
        count -= 1
        notes.append("the alpha channel was dropped")
    axes = "".join(letters[i] for i in spatial)
    return _Layout((*colour, *spatial), axes, drop, _names(tif, count, rgb), tuple(notes))


def _names(tif: tifffile.TiffFile, count: int, rgb: bool) -> tuple[str, ...]:
    """Return one name for each channel: colours, what OME says, or numbers."""
    if rgb and count == 3:
        return ("red", "green", "blue")
    if count == 1:
        return ("gray",)
    pixels = _ome_pixels(tif)
    if pixels is not None:
        names = [channel.get("Name", "").strip() for channel in pixels.findall("{*}Channel")]
        if len(names) == count == len(set(names)) and all(names):
            return tuple(names)
    return tuple(f"c{i}" for i in range(count))


def _ome_pixels(tif: tifffile.TiffFile) -> ElementTree.Element | None:
    """Return the Pixels element of the first OME image, or None if there is no readable OME-XML."""
    return next(iter(_ome_images(tif)), None)


def _ome_images(tif: tifffile.TiffFile) -> list[ElementTree.Element]:
    """Return the Pixels element of each OME image."""
    if not tif.is_ome or not tif.ome_metadata:
        return []
    try:
        return ElementTree.fromstring(tif.ome_metadata).findall("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return []


def _spacing(tif: tifffile.TiffFile, page: Any, axes: str) -> tuple[list[float] | None, list[str]]:
    """Return the spacing in mm, array axis order, if the file states it for all axes, and notes."""
    pixels = _ome_pixels(tif)
    if pixels is not None:
        found = [_ome_size(pixels, axis) for axis in axes]
    elif tif.is_imagej:
        found = _imagej_sizes(tif, page, axes)
    else:
        found = _resolution(page, axes)
        if all(found):
            return [float(step) for step in found if step], ["spacing from the TIFF resolution tags"]
    steps = [step for step in found if step is not None and np.isfinite(step) and step > 0]
    if len(steps) == len(axes):
        return steps, []
    return None, ["the file states a spacing for some axes only; it is not used"] if steps else []


def _ome_size(pixels: ElementTree.Element, axis: str) -> float | None:
    factor = millimetres(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    try:
        return float(pixels.get(f"PhysicalSize{axis}", "")) * factor if factor else None
    except ValueError:
        return None


def _imagej_sizes(tif: tifffile.TiffFile, page: Any, axes: str) -> list[float | None]:
    """ImageJ counts pixels per `unit` in the resolution tags, whatever ResolutionUnit says, and z in `spacing`."""
    metadata = tif.imagej_metadata or {}
    factor = millimetres(str(metadata.get("unit", "")))
    if not factor:
        return _resolution(page, axes)
    x, y = _ratio(page, "XResolution"), _ratio(page, "YResolution")
    if factor == 25.4 and x and _is_print(x):
        return [None] * len(axes)
    depth = metadata.get("spacing")
    z = float(depth) * factor if isinstance(depth, (int, float)) else None
    return [z, *_per(factor, y, x)][-len(axes) :]


def _resolution(page: Any, axes: str) -> list[float | None]:
    """Plain tags count only where a person or a microscope set them: print and screen defaults say nothing."""
    unit = page.tags.valueof("ResolutionUnit", default=2)
    x, y = _ratio(page, "XResolution"), _ratio(page, "YResolution")
    inches = {2: 1.0, 3: 2.54}.get(int(unit))  # 3: centimetres, which scanners of slides and gels do mean
    if axes != "YX" or inches is None or not x or not y or _is_print(x * inches) or _is_print(y * inches):
        return [None] * len(axes)
    return _per(25.4 / inches, y, x)


def _per(factor: float, *counts: float | None) -> list[float | None]:
    return [factor / count if count else None for count in counts]


def _is_print(dots: float) -> bool:
    return any(abs(dots / known - 1) < 0.005 for known in _PRINT)


def _ratio(page: Any, tag: str) -> float | None:
    value = page.tags.valueof(tag)
    if isinstance(value, tuple) and len(value) == 2 and value[1]:
        return float(value[0]) / float(value[1])
    return None


def _voxels(
    path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, layout: _Layout, palette: AnyArray | None
) -> tuple[AnyArray | LazyArray, tuple[str, ...]]:
    """Return voxels (C, *spatial), mapped or lazy, and the channel names."""
    shape = tuple(series.shape[i] for i in layout.order)
    shape = shape if len(shape) > len(layout.axes) else (1, *shape)

    def arrange(stored: AnyArray) -> AnyArray:
        values = stored.transpose(layout.order) if len(layout.order) == stored.ndim else stored
        values = values if values.ndim > len(layout.axes) else values[np.newaxis]
        return values[:-1] if layout.drop else values

    if palette is not None and shape[0] == 1:
        check_claim(4 * series.nbytes, path)
        table = (palette >> 8).astype(np.uint8)
        colours = LazyArray((3, *shape[1:]), np.uint8, _reader(path, lambda a: table[:, arrange(a)[0]]))
        return colours, ("red", "green", "blue")
    native = series.dtype.newbyteorder("=")
    offset = series.dataoffset
    if (
        offset is not None
        and series.nbytes >= MAP_FROM
        and tif.byteorder == ("<" if np.little_endian else ">")
        and offset % native.itemsize == 0
        and native.kind != "b"
    ):
        return arrange(np.memmap(path, native, "r", offset, series.shape)), layout.channels
    check_claim(series.nbytes, path)
    dtype = np.dtype(np.uint8) if native.kind == "b" else native
    final = (shape[0] - int(layout.drop), *shape[1:])
    return LazyArray(final, dtype, _reader(path, lambda a: arrange(a.astype(dtype, copy=False)))), layout.channels


def _reader(path: Path, arrange: Callable[[AnyArray], AnyArray]) -> Callable[[], AnyArray]:
    """Return the function that opens the file again and reads its first series."""

    def load() -> AnyArray:
        with reading(path, "TIFF"), tifffile.TiffFile(path) as tif:
            check_tiles(tif, path)
            # One thread: decoding is a small part of the work, and callers run their own workers.
            return arrange(tif.series[0].asarray(maxworkers=1))

    return load
