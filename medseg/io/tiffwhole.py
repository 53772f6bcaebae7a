"""Whether a TIFF is whole, and its tiles are no larger than they say: what tifffile passes over in silence."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import tifffile

from medseg.errors import FormatError
from medseg.io.coded import CODED, START, check_coded

_TILE = 4096  # voxels along one side of a tile that no image is too small for
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}  # bytes, by TIFF type


def check_tags(tif: tifffile.TiffFile, path: Path) -> None:
    """Raise if a value of the first page lies behind the end: tifffile leaves such a tag out, and with it the spacing."""
    tiff, file = tif.tiff, tif.filehandle
    file.seek(tif.pages.first.offset)
    (count,) = struct.unpack(tiff.tagnoformat, file.read(tiff.tagnosize))
    for _ in range(count):
        entry = file.read(tiff.tagsize)
        _, kind = struct.unpack(tiff.tagformat1, entry[:4])
        number, place = struct.unpack(tiff.offsetformat + tiff.offsetformat[1:], entry[4:])
        size = number * _SIZES.get(kind, 0)
        if size > tiff.tagoffsetthreshold and place + size > file.size:
            raise FormatError(f"{path.name} is truncated: part of its header lies beyond its end; get it again.")


def check_whole(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
    """Raise FormatError if planes are missing or their data would lie behind the end of the file."""
    size = tif.filehandle.size
    cut = FormatError(f"{path.name} is truncated: its voxels should reach beyond its {size} bytes; get it again.")
    # tifffile stops where the chain of pages breaks off and calls the rest a shorter stack; the last link must be 0.
    tif.filehandle.seek(tif.pages.next_page_offset or 0)
    link = tif.filehandle.read(tif.tiff.offsetsize)
    if len(link) < tif.tiff.offsetsize or any(link):
        raise cut
    if series.dataoffset is not None:
        if series.dataoffset + series.nbytes > size:
            raise cut
        return
    for page in series.pages:
        if page is None:
            raise FormatError(f"{path.name} misses some of its {len(series.pages)} planes; get it again.")
        if page.parent is tif and any(
            start + count > size for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        ):
            raise cut


def check_tiles(tif: tifffile.TiffFile, path: Path) -> None:
    """Raise if a tile is far larger than its image, tiles are missing, or one is a compressed picture larger than itself."""
    for page in tif.series[0].pages:
        whole: Any = None if page is None else page.keyframe
        if page is None:
            continue
        if whole.is_tiled and (
            whole.tilewidth > max(_TILE, whole.imagewidth + 16)
            or whole.tilelength > max(_TILE, whole.imagelength + 16)
            or whole.tiledepth > max(_TILE, whole.imagedepth + 16)
        ):
            raise FormatError(
                f"{path.name} claims tiles far larger than its image; its header is damaged, get it again."
            )
        if len(page.dataoffsets) < math.prod(whole.chunked):
            raise FormatError(f"{path.name} holds fewer tiles or strips than its size needs; get it again.")
        if int(whole.compression) not in CODED:
            continue
        pixels = whole.tilewidth * whole.tilelength if whole.is_tiled else whole.imagewidth * whole.rowsperstrip
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if count:
                page.parent.filehandle.seek(start)
                head = page.parent.filehandle.read(min(count, START))
                check_coded(head, int(whole.compression), int(pixels), path.name)
