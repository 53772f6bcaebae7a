"""What the readers of microscopes' own formats share: CZI, ND2 and LIF. One file may hold several images, its scenes.

Their libraries come with the extra `medseg[microscopes]`. Names of scenes are a person's words and stand in no message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import FormatError, InputError, MissingError
from medseg.grid import Grid
from medseg.image import Image, LazyArray, Source
from medseg.io.limits import check_claim
from medseg.io.names import SCOPES, suffix

AnyArray = npt.NDArray[Any]

_LIBRARIES = {"czi": "pylibCZIrw", "nd2": "nd2", "lif": "liffile"}
_RGB = ("red", "green", "blue")


def library(name: str, module: str = "") -> Any:
    """Import the library of a format.

    Raises
    ------
    MissingError
        It is not installed.
    """
    try:
        return import_module(module or _LIBRARIES[name])
    except ImportError:
        raise MissingError(
            f'{name.upper()} files need {_LIBRARIES[name]}; install it with: pip install "medseg[microscopes]", or convert '
            "them to OME-TIFF"
        ) from None


def count(path: Path) -> int:
    """How many scenes a file of a microscope holds; 1 for any other file. Voxels are not read.

    Raises
    ------
    MissingError
        The library of its format is not installed.
    FormatError, InputError
        It is damaged, or may not be read.
    """
    name = suffix(path).lstrip(".")
    return int(import_module(f"medseg.io.{name}").scenes(path)) if name in SCOPES else 1


def chosen(path: Path, names: Sequence[str], series: str | int | None) -> int:
    """Which scene is meant, from 0.

    Parameters
    ----------
    path
        The file.
    names
        What its scenes are called.
    series
        A number from 1, or a name that one scene alone has; None if the file has one.

    Raises
    ------
    FormatError
        There is none, or several and none was chosen.
    InputError
        There is no such scene.
    """
    if not names:
        raise FormatError(f"{path.name} holds no image; get it again.")
    if series is None:
        if len(names) > 1:
            raise FormatError(
                f"{path.name} holds {len(names)} scenes; choose one with series, a number from 1 to {len(names)}."
            )
        return 0
    if isinstance(series, int) or series.isdecimal():
        if 1 <= int(series) <= len(names):
            return int(series) - 1
    elif names.count(series) == 1:
        return names.index(series)
    raise InputError(
        f"{path.name} has no such scene, or more than one of that name; give a number from 1 to {len(names)}."
    )


def noted(which: int, number: int) -> list[str]:
    """Which scene an image is, where there are several: all are of one file, with one hash."""
    return [f"scene {which + 1} of {number}"] if number > 1 else []


def plain(path: Path, channel_axis: int | None) -> None:
    """Raise InputError if a caller names the axis of channels, which these files name themselves."""
    if channel_axis is not None:
        raise InputError(f"{path.name} says itself which axis counts channels; leave channel_axis out.")


def check_axes(path: Path, sizes: Mapping[str, int]) -> None:
    """Raise InputError for what is no image with y, x and perhaps z and channels.

    Parameters
    ----------
    path
        The file.
    sizes
        Length of each axis by its letter; S are the samples of a colour picture.
    """
    if sizes.get("T", 1) > 1:
        raise InputError(f"{path.name} holds {sizes['T']} time points; split it into one file for each.")
    if sizes.get("M", 1) > 1:
        raise InputError(f"{path.name} holds {sizes['M']} tiles of a mosaic; stitch them in the microscope's program.")
    strange = [axis for axis, size in sizes.items() if size > 1 and axis not in "TMSCZYX"]
    if strange or not {"Y", "X"} <= set(sizes):
        found = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
        raise InputError(f"{path.name} has axes {found}; medseg reads z, y, x and channels. Split it.")
    if sizes.get("S", 1) not in (1, 3) or (sizes.get("S", 1) > 1 and sizes.get("C", 1) > 1):
        raise InputError(f"{path.name} holds colours in a way medseg does not read; convert it to OME-TIFF.")


def image(
    path: Path,
    sizes: Mapping[str, int],
    dtype: npt.DTypeLike,
    load: Callable[[], AnyArray],
    steps: Mapping[str, float | None],
    names: Sequence[str],
    notes: Sequence[str] = (),
) -> Image:
    """Return an image whose voxels are read when they are touched.

    Parameters
    ----------
    path
        The file.
    sizes
        Length of each axis by its letter; checked.
    dtype
        Type of the voxels.
    load
        Returns the voxels, (C, *spatial).
    steps
        Spacing in mm by axis, where the file states it.
    names
        What the file calls its channels; used where they are as many, and no two are the same.
    notes
        What was decided.

    Raises
    ------
    InputError
        The voxels take more memory than one image may, or are no integers or real numbers.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "uif":
        raise InputError(f"{path.name} holds {kind} voxels; convert them to integers or real numbers.")
    axes = "ZYX" if sizes.get("Z", 1) > 1 else "YX"
    rgb = sizes.get("S", 1) > 1
    channels = 3 if rgb else sizes.get("C", 1)
    shape = (channels, *(sizes[axis] for axis in axes))
    check_claim(math.prod(shape) * kind.itemsize, path)
    known = [step for axis in axes if (step := steps.get(axis)) is not None and math.isfinite(step) and step > 0]
    told = list(notes)
    if known and len(known) < len(axes):
        told.append("the file states a spacing for some axes only; it is not used")
    spacing = known if len(known) == len(axes) else None
    called = _RGB if rgb else tuple(name.strip() for name in names)
    if len(called) != channels or len(set(called)) < channels or not all(called):
        called = ("gray",) if channels == 1 else tuple(f"c{i}" for i in range(channels))
    grid = Grid.from_spacing(shape[1:], spacing, axes=tuple(axes.lower()))
    source = Source((path,), suffix(path).lstrip("."), notes=tuple(told))
    return Image(LazyArray(shape, kind, load), grid, "microscopy", called, source)


def arranged(values: AnyArray, letters: str) -> AnyArray:
    """Return an array with axes named by letters as (C, *spatial); axes of length one that have no place are dropped."""
    for axis in [letter for letter in letters if letter not in "SCZYX"]:
        values, letters = np.take(values, 0, letters.index(axis)), letters.replace(axis, "", 1)
    for axis in "SCZ":
        if axis in letters and values.shape[letters.index(axis)] == 1:
            values, letters = np.take(values, 0, letters.index(axis)), letters.replace(axis, "", 1)
    order = [letters.index(axis) for axis in "SCZYX" if axis in letters]
    values = values.transpose(order)
    return values if "S" in letters or "C" in letters else values[np.newaxis]
