"""What compressed pictures say of their own size: a tile of a TIFF may hold one that is far larger than the tile."""

from __future__ import annotations

from medseg.errors import FormatError, InputError

# TIFF Compression tags. The decoders of other codecs (deflate, LZW, Zstandard, ...) fill no more than a tile.
_JPEG = (6, 7, 34892)
_JPEG2000 = (33003, 33004, 33005, 34712)
_PNG, _WEBP = 34933, (34927, 50001)
_UNBOUNDED = {34887: "LERC", 34934: "JPEG XR", 22610: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL"}
CODED = frozenset((*_JPEG, *_JPEG2000, _PNG, *_WEBP, *_UNBOUNDED))
START = 1 << 16  # bytes of a picture in which its size stands


def check_coded(start: bytes, compression: int, pixels: int, name: str) -> None:
    """Raise if a compressed picture is larger than the tile it is stored for.

    Parameters
    ----------
    start : bytes
        The first START bytes of the picture, or all.
    compression : int
        TIFF Compression tag, one of CODED.
    pixels : int
        Pixels of the tile.
    name : str
        File name, for messages.

    Raises
    ------
    FormatError
        The picture is larger.
    InputError
        The codec is one whose size cannot be told before it is decoded.
    """
    if compression in _UNBOUNDED:
        raise InputError(f"{name} is compressed with {_UNBOUNDED[compression]}, which is not read; save it as deflate.")
    if compression in _JPEG:
        size = _jpeg(start)
    elif compression in _JPEG2000:
        size = _jpeg2000(start)
    elif compression == _PNG:
        size = _numbers(start, 16, 4, "big") if start[12:16] == b"IHDR" else None
    else:
        size = _webp(start)
    # Tiles at an edge are padded to whole blocks, hence the allowance; no size at all is left to the decoder to refuse.
    if size is not None and size[0] * size[1] > 4 * pixels + (1 << 16):
        raise FormatError(f"{name} holds a tile of {size[0]} x {size[1]} pixels where {pixels} belong; get it again.")


def _numbers(start: bytes, at: int, width: int, order: str) -> tuple[int, int] | None:
    values = [int.from_bytes(start[i : i + width], order) for i in (at, at + width)]  # type: ignore[arg-type]
    return (values[0], values[1]) if len(start) >= at + 2 * width else None


def _jpeg(start: bytes) -> tuple[int, int] | None:
    """The frame header: after segments that each say how long they are."""
    at = 2
    while at + 9 <= len(start) and start[at] == 0xFF:
        marker = start[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _numbers(start, at + 5, 2, "big")
        stands_alone = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += (1 if marker == 0xFF else 2) if stands_alone else 2 + int.from_bytes(start[at + 2 : at + 4], "big")
    return None


def _jpeg2000(start: bytes) -> tuple[int, int] | None:
    at = start.find(b"\xff\x4f\xff\x51")
    return _numbers(start, at + 8, 4, "big") if at >= 0 else None


def _webp(start: bytes) -> tuple[int, int] | None:
    kind = start[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(start[i : i + 3], "little") + 1 for i in (24, 27))
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        size = _numbers(start, 26, 2, "little")
        return (size[0] & 0x3FFF, size[1] & 0x3FFF) if size else None
    return None
