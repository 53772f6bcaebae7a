"""ND2 of Nikon, by the library nd2 (BSD-3-Clause). Positions of the stage are its scenes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medseg.image import Image
from medseg.io import scopes
from medseg.io.common import reading
from medseg.io.scopes import AnyArray


def scenes(path: Path) -> int:
    """How many positions the file holds; voxels are not read."""
    with _opened(path) as nd2:
        return int(nd2.sizes.get("P", 1))


def read(path: Path, channel_axis: int | None = None, labels: bool = False, series: str | int | None = None) -> Image:
    """Read a position of an ND2 lazily.

    Parameters
    ----------
    path, channel_axis, labels
        As for every reader.
    series
        Which position, a number from 1.

    Raises
    ------
    MissingError
        The library nd2 is not installed.
    FormatError
        The file is damaged, or holds several positions and none was chosen.
    InputError
        Time points or other axes.
    """
    scopes.plain(path, channel_axis)
    with _opened(path) as nd2:
        sizes = {str(axis): int(size) for axis, size in nd2.sizes.items()}
        positions = sizes.pop("P", 1)
        which = scopes.chosen(path, [str(n) for n in range(1, positions + 1)], series)
        scopes.check_axes(path, sizes)
        channels = getattr(nd2.metadata, "channels", None) or []
        names = [str(one.channel.name) for one in channels]
        steps, dtype = _steps(nd2, channels), nd2.dtype

    def load() -> AnyArray:
        with _opened(path) as nd2:
            axes = [axis for axis in nd2.sizes if axis != "P"]
            values: AnyArray = nd2.asarray(position=which) if positions > 1 else nd2.asarray()
        shape = tuple(sizes[axis] for axis in axes)
        return scopes.arranged(values.reshape(shape), "".join(axes))

    return scopes.image(path, sizes, dtype, load, steps, names, scopes.noted(which, positions))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    library = scopes.library("nd2")
    with reading(path, "ND2"), library.ND2File(path) as nd2:
        yield nd2


def _steps(nd2: Any, channels: Any) -> dict[str, float | None]:
    """Spacing in mm of the axes that were calibrated; the library says 1 for others."""
    size = nd2.voxel_size()
    volume = channels[0].volume if channels else None
    known = getattr(volume, "axesCalibrated", None) or (False, False, False)
    steps = zip("XYZ", (size.x, size.y, size.z), known, strict=True)
    return {axis: step / 1e3 if told and math.isfinite(step) else None for axis, step, told in steps}
