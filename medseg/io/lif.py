"""LIF of Leica, by liffile (BSD-3-Clause). Each of its images is a scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medseg.errors import FormatError
from medseg.image import Image
from medseg.io import scopes
from medseg.io.common import millimetres, reading
from medseg.io.scopes import AnyArray

_AXES = {"1": "X", "2": "Y", "3": "Z"}  # by DimID


def scenes(path: Path) -> int:
    """How many images the file holds; voxels are not read."""
    with _opened(path) as lif:
        return len(lif.images)


def read(path: Path, channel_axis: int | None = None, labels: bool = False, series: str | int | None = None) -> Image:
    """Read an image of a LIF lazily.

    Parameters
    ----------
    path, channel_axis, labels
        As for every reader.
    series
        Which image: its name, or a number from 1.

    Raises
    ------
    MissingError
        liffile is not installed.
    FormatError
        The file is damaged, or holds several images and none was chosen.
    InputError
        Time points, tiles of a mosaic, lifetimes.
    """
    scopes.plain(path, channel_axis)
    with _opened(path) as lif:
        which = scopes.chosen(path, [str(one.name) for one in lif.images], series)
        one = lif.images[which]
        sizes = {str(axis): int(size) for axis, size in one.sizes.items()}
        scopes.check_axes(path, sizes)
        count = len(lif.images)
        dtype, steps, names = one.dtype, _steps(one.xml_element), _names(one.xml_element)

    def load() -> AnyArray:
        with _opened(path) as lif:
            one = lif.images[which]
            return scopes.arranged(one.asarray(), "".join(one.dims))

    return scopes.image(path, sizes, dtype, load, steps, names, scopes.noted(which, count))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    library = scopes.library("lif")
    with reading(path, "LIF"):
        with path.open("rb") as file:
            head = file.read(13)  # 0x70, length, 0x2A, and how many characters of two bytes follow
        if 2 * int.from_bytes(head[9:], "little") > path.stat().st_size:
            raise FormatError(f"{path.name} is a damaged or truncated LIF file; get it again.")
    with reading(path, "LIF"), library.LifFile(path) as lif:
        yield lif


def _steps(about: Any) -> dict[str, float | None]:
    """Spacing in mm: lengths reach from the centre of the first voxel to that of the last."""
    steps: dict[str, float | None] = {}
    for one in about.iterfind("./Data/Image/ImageDescription/Dimensions/DimensionDescription"):
        count, factor = int(one.get("NumberOfElements", 1)), millimetres(one.get("Unit", ""))
        axis = _AXES.get(one.get("DimID", ""))
        if axis and factor and count > 1:
            steps[axis] = abs(float(one.get("Length", "nan"))) / (count - 1) * factor
    return steps


def _names(about: Any) -> list[str]:
    """Colours that channels are shown in, which is all that every LIF says of them."""
    channels = about.iterfind("./Data/Image/ImageDescription/Channels/ChannelDescription")
    return [one.get("LUTName", "").lower() for one in channels]
