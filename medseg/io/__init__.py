"""Read images and instance labels, write results. One file for each format; a format's library is loaded on first use."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medseg.errors import FormatError, InputError, MissingError
from medseg.io.common import FORMATS, SUFFIXES, is_image, respace, stem, suffix

if TYPE_CHECKING:
    from medseg.image import Image
    from medseg.instances import Instances


def load(path, *, spacing=None, unit="mm", channel_axis=None) -> Image:
    path = Path(path)
    return respace(_read(path, channel_axis, False), spacing, unit)


def load_labels(path, *, spacing=None, unit="mm") -> Instances:
    from medseg.instances import Instances

    path = Path(path)
    image = respace(_read(path, None, True), spacing, unit)
    return Instances.from_labels(image.voxels()[0], image.grid)


def _read(path: Path, channel_axis, labels):
    if not path.exists():
        raise MissingError(f"{path}: is not there; check the path.")
    ending = suffix(path)
    for name, endings in FORMATS.items():
        if ending in endings:
            return import_module(f"medseg.io.{name}").read(path, channel_axis, labels)
    raise FormatError(f"{path.name}: is of a kind that medseg does not read.")
