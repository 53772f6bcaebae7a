"""CZI of Zeiss, by pylibCZIrw (LGPL-3.0). The tiles of a mosaic come as one image, at the places that the file says."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import FormatError, InputError
from medseg.image import Image
from medseg.io import scopes
from medseg.io.common import reading
from medseg.io.limits import DEFLATE
from medseg.io.scopes import AnyArray

_TYPES = {"Gray8": (np.uint8, 1), "Gray16": (np.uint16, 1), "Gray32Float": (np.float32, 1)}
_TYPES |= {"Bgr24": (np.uint8, 3), "Bgr48": (np.uint16, 3)}
_BLOCK = 128  # bytes at least of a block, the unit that tiles are stored in
_FREE = 1 << 26  # bytes that any file may hold: blank images take next to none
_CHANNELS = "./Metadata/Information/Image/Dimensions/Channels/Channel"
_DISTANCES = "./Metadata/Scaling/Items/Distance"


def scenes(path: Path) -> int:
    """How many scenes the file holds; voxels are not read."""
    with _opened(path) as czi:
        return max(1, len(czi.scenes_bounding_rectangle))


def read(path: Path, channel_axis: int | None = None, labels: bool = False, series: str | int | None = None) -> Image:
    """Read a scene of a CZI lazily.

    Parameters
    ----------
    path, channel_axis, labels
        As for every reader.
    series
        Which scene, a number from 1; its places in the file have no names.

    Raises
    ------
    MissingError
        pylibCZIrw is not installed.
    FormatError
        The file is damaged, or holds several scenes and none was chosen.
    InputError
        Time points or other axes, complex voxels, or channels of several types.
    """
    scopes.plain(path, channel_axis)
    with _opened(path) as czi:
        places = dict(sorted(czi.scenes_bounding_rectangle.items()))
        which = scopes.chosen(path, [str(n) for n in range(1, max(1, len(places)) + 1)], series)
        scene = list(places)[which] if places else None
        box = {axis: (int(start), int(stop)) for axis, (start, stop) in czi.total_bounding_box_no_pyramid.items()}
        _check_planes(path, box)
        kinds = set(czi.pixel_types.values())  # asked of one channel after the other
        about = ElementTree.fromstring(czi.raw_metadata)
        # only a scene's own rectangle counts: that of the file spans all of them
        place = places[scene] if scene is not None else czi.total_bounding_rectangle_no_pyramid
        roi = (int(place.x), int(place.y), int(place.w), int(place.h))
    if len(kinds) != 1 or not kinds <= _TYPES.keys():
        named = ", ".join(sorted(map(str, kinds)))
        raise InputError(f"{path.name} holds voxels of type {named}; medseg reads one of {', '.join(_TYPES)}.")
    dtype, samples = _TYPES[kinds.pop()]
    sizes = {axis: stop - start for axis, (start, stop) in box.items() if axis not in "XY"}
    sizes |= {"Y": roi[3], "X": roi[2], "S": samples}
    scopes.check_axes(path, sizes)
    _check_size(path, math.prod(sizes.values()) * np.dtype(dtype).itemsize)
    planes = {axis: range(*box.get(axis, (0, 1))) for axis in "CZ"}

    def load() -> AnyArray:
        with _opened(path) as czi:
            values = [[_plane(czi, roi, c, z, box, scene) for z in planes["Z"]] for c in planes["C"]]
        return scopes.arranged(np.asarray(values), "CZYXS")

    steps = {one.get("Id", ""): _millimetres(one.findtext("Value")) for one in about.iterfind(_DISTANCES)}
    names = [one.get("Name", "") for one in about.iterfind(_CHANNELS)]
    return scopes.image(path, sizes, dtype, load, steps, names, scopes.noted(which, len(places)))


def _check_planes(path: Path, box: dict[str, tuple[int, int]]) -> None:
    """Raise if an axis claims more planes than the file has room for: each takes a block with a header of its own."""
    most = max((stop - start for axis, (start, stop) in box.items() if axis not in "XY"), default=1)
    if most > path.stat().st_size // _BLOCK:
        raise FormatError(f"{path.name} is damaged: it cannot hold the {most} planes it states; get it again.")


def _check_size(path: Path, size: int) -> None:
    """Raise if there are far more voxels than the file can hold, however they are packed: between tiles there is nothing."""
    if size > max(_FREE, DEFLATE * path.stat().st_size):
        raise FormatError(f"{path.name} is damaged: it cannot hold the {size / 1e6:.0f} MB it states; get it again.")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    library = scopes.library("czi", "pylibCZIrw.czi")
    with reading(path, "CZI"):
        path.open("rb").close()  # what cannot be opened is told as for every format
        with library.open_czi(str(path)) as czi:
            yield czi


def _plane(czi: Any, roi: tuple[int, int, int, int], c: int, z: int, box: Any, scene: int | None) -> AnyArray:
    """One plane, (y, x, samples)."""
    at = {axis: box[axis][0] for axis in box if axis not in "XY"} | {"C": c, "Z": z}
    at = {axis: value for axis, value in at.items() if axis in box}
    values: AnyArray = np.asarray(czi.read(roi=roi, plane=at, scene=scene))
    return values[..., ::-1]  # blue, green, red


def _millimetres(text: str | None) -> float | None:
    try:
        return float(text or "") * 1e3  # the file's are metres
    except ValueError:
        return None
