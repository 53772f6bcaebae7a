"""CZI of Zeiss, by pylibCZIrw (LGPL-3.0). The tiles of a mosaic come as one image, at the places that the file says.

Damaged files can end the library, so it works in a process of its own, `medseg.io.czichild`.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import FormatError, InputError
from medseg.image import Image
from medseg.io import scopes
from medseg.io.common import reading
from medseg.io.limits import DEFLATE, max_bytes
from medseg.io.scopes import AnyArray

_TYPES = {"Gray8": (np.uint8, 1), "Gray16": (np.uint16, 1), "Gray32Float": (np.float32, 1)}
_TYPES |= {"Bgr24": (np.uint8, 3), "Bgr48": (np.uint16, 3)}
_FREE = 1 << 26  # bytes that any file may hold: blank images take next to none
_SLACK = 1 << 30  # bytes that the library may take beside voxels
_CHANNELS = "./Metadata/Information/Image/Dimensions/Channels/Channel"
_DISTANCES = "./Metadata/Scaling/Items/Distance"
_CHILD = Path(__file__).with_name("czichild.py")


def scenes(path: Path) -> int:
    """How many scenes the file holds; voxels are not read. In this process, unlike `read`: it may end."""
    library = scopes.library("czi", "pylibCZIrw.czi")
    with reading(path, "CZI"):
        path.open("rb").close()
        with library.open_czi(str(path)) as czi:
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
    with _asked(path) as answer:
        told = json.loads(answer.readline())
        box, places = told["box"], {int(key): place for key, place in told["scenes"].items()}
        which = scopes.chosen(path, [str(n) for n in range(1, max(1, len(places)) + 1)], series)
        scene = sorted(places)[which] if places else None
        if told["most"] > told["room"]:  # each takes a block with a header of its own
            raise FormatError(
                f"{path.name} is damaged: it cannot hold the {told['most']} planes it states; get it again."
            )
        about = ElementTree.fromstring(told["xml"])
        # only a scene's own rectangle counts: that of the file spans all of them
        roi = places[scene] if scene is not None else told["whole"]
    kinds = set(told["types"])
    if len(kinds) != 1 or not kinds <= _TYPES.keys():
        raise InputError(
            f"{path.name} holds voxels of type {', '.join(sorted(kinds))}; medseg reads one of {', '.join(_TYPES)}."
        )
    dtype, samples = _TYPES[kinds.pop()]
    sizes = {axis: stop - start for axis, (start, stop) in box.items() if axis not in "XY"}
    sizes |= {"Y": roi[3], "X": roi[2], "S": samples}
    scopes.check_axes(path, sizes)
    _check_size(path, math.prod(sizes.values()) * np.dtype(dtype).itemsize)

    def load() -> AnyArray:
        first = {axis: start for axis, (start, _) in box.items() if axis not in "XY"}
        counted = [[(axis, n) for n in range(*box[axis])] for axis in "CZ" if axis in box]
        shape = [roi[3], roi[2], samples]
        values = np.empty((sizes.get("C", 1), sizes.get("Z", 1), *shape), dtype)
        order = {
            "planes": [first | dict(plane) for plane in product(*counted)], "roi": roi, "scene": scene,
            "dtype": values.dtype.name, "shape": shape,
        }  # fmt: skip
        with _asked(path, **order) as answer:
            if answer.readinto(values.data.cast("B")) != values.nbytes:
                raise EOFError
        return scopes.arranged(values, "CZYXS")

    steps = {one.get("Id", ""): _millimetres(one.findtext("Value")) for one in about.iterfind(_DISTANCES)}
    names = [one.get("Name", "") for one in about.iterfind(_CHANNELS)]
    return scopes.image(path, sizes, dtype, load, steps, names, scopes.noted(which, len(places)))


def _check_size(path: Path, size: int) -> None:
    """Raise if there are far more voxels than the file can hold, however they are packed: between tiles there is nothing."""
    if size > max(_FREE, DEFLATE * path.stat().st_size):
        raise FormatError(f"{path.name} is damaged: it cannot hold the {size / 1e6:.0f} MB it states; get it again.")


@contextmanager
def _asked(path: Path, **order: Any) -> Iterator[BufferedReader]:
    """What `medseg.io.czichild` answers; if it ends or says nothing, the file is damaged."""
    scopes.library("czi", "pylibCZIrw.czi")
    with reading(path, "CZI"):
        path.open("rb").close()  # what cannot be opened is told as for every format
        # -P: what lies beside the file is not to be imported in place of what it asks for
        child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with child:
            try:
                order |= {"path": str(path.absolute()), "memory": max_bytes() + _SLACK}
                assert child.stdin is not None and isinstance(child.stdout, BufferedReader)
                child.stdin.write(json.dumps(order).encode())
                child.stdin.close()
                yield child.stdout
            finally:
                child.kill()


def _millimetres(text: str | None) -> float | None:
    try:
        return float(text or "") * 1e3  # the file's are metres
    except ValueError:
        return None
