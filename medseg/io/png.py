"""PNG and JPEG. They hold no spacing that means anything for tissue, so it stays unknown unless the caller gives it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from medseg.errors import FormatError, InputError
from medseg.grid import Grid
from medseg.image import Image, Source
from medseg.io.common import reading
from medseg.io.limits import check_claim

AnyArray = npt.NDArray[Any]

RGB = ("red", "green", "blue")
_ORIENTATION = 0x0112  # EXIF tag
_BYTES = {"1": 1, "L": 1, "P": 3, "LA": 2, "RGB": 6, "RGBA": 8, "I;16": 2}  # of a pixel at most, by Pillow's mode


def read(path: Path, channel_axis: int | None = None, labels: bool = False) -> Image:
    """Read a PNG or JPEG whole.

    Parameters
    ----------
    path : Path
        The file.
    channel_axis : int, optional
        Must be absent: these formats say themselves what is a channel.
    labels : bool
        Whether values are ids, so that a palette must not turn them into colours.

    Raises
    ------
    FormatError
        Not a PNG or JPEG, truncated, damaged.
    InputError
        More pixels than Pillow deems safe or `medseg.io.limits` allows, or CMYK.
    """
    if channel_axis is not None:
        raise InputError(f"{path.name} says itself what its channels are; leave channel_axis out.")
    notes: list[str] = []
    _check_whole(path)
    with reading(path, "PNG or JPEG"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)  # the error at twice the size still comes
        try:
            with Pillow.open(path, formats=("PNG", "JPEG")) as picture:
                check_claim(picture.width * picture.height * _BYTES.get(picture.mode, 4), path)
                values = _pixels(path, picture, labels)  # before getexif, which loads and forgets the stored depth
                if picture.getexif().get(_ORIENTATION, 1) != 1:
                    notes.append("an EXIF orientation is stated; pixels are kept as stored")
        except UnidentifiedImageError:
            raise FormatError(f"{path.name} is neither PNG nor JPEG; get it again.") from None
        except Pillow.DecompressionBombError:
            raise InputError(f"{path.name} has more pixels than are safe to read; cut it into tiles.") from None
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1]
        notes.append("the alpha channel was dropped")
    if values.ndim == 2:
        values = values[..., np.newaxis]
    elif values.shape[2] == 3 and (values == values[..., :1]).all():
        values = values[..., :1]
        notes.append("red, green and blue are equal; read as one gray channel")
    array = np.ascontiguousarray(np.moveaxis(values, 2, 0))
    channels = ("gray",) if len(array) == 1 else RGB
    source = Source((path,), "png", notes=tuple(notes))
    return Image(array, Grid.from_spacing(array.shape[1:]), "microscopy", channels, source)


def _check_whole(path: Path) -> None:
    """Raise FormatError if a PNG has no last chunk: Pillow is content once it has all pixels, right or not."""
    with reading(path, "PNG or JPEG"), path.open("rb") as stream:
        if stream.read(8) != b"\x89PNG\r\n\x1a\n":
            return
        while len(head := stream.read(8)) == 8:
            if head[4:] == b"IEND" and len(stream.read(4)) == 4:
                return
            stream.seek(int.from_bytes(head[:4], "big") + 4, 1)
        raise FormatError(f"{path.name} is truncated: it ends before its last chunk; get it again.")


def _pixels(path: Path, picture: Pillow.Image, labels: bool) -> AnyArray:
    """Return pixels (y, x) or (y, x, samples) with all their bits."""
    if picture.mode in ("CMYK", "YCCK", "LAB", "HSV"):
        raise InputError(f"{path.name} is coloured as {picture.mode}; convert it to RGB.")
    deep = any("16" in str(tile[3]) for tile in getattr(picture, "tile", ()))
    if deep and picture.format == "PNG":
        picture.load()  # finds truncation; Pillow itself would keep only 8 of 16 bits of colour
        return np.asarray(imagecodecs.png_decode(path.read_bytes()))
    if picture.mode == "P" and not labels:
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    values = np.asarray(picture)
    return values.astype(np.uint8) if values.dtype == np.bool_ else values
