"""What a compressed frame says about itself, held against the header before either is believed.

The decoders fill up a JPEG that breaks off with made-up pixels, know nothing of BitsStored, and guess colours from markers
that may contradict the header. Here a frame has to be whole, and to agree with its header wherever the pixels depend on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import FormatError

AnyArray = npt.NDArray[Any]

JPEG = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in ("50", "51", "53", "55", "57", "70"))
JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in ("80", "81"))
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in ("90", "91", "201", "202", "203"))
KNOWN = JPEG | JPEG_LS | JPEG_2000  # of the kinds whose frames say something about themselves
_YBR = ("YBR_FULL", "YBR_FULL_422")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF, 0xF7)
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed byte, nor a restart, nor fill
_AFTER_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # JPEG-LS stuffs a bit: any byte below 0x80 is data
_TAIL = b"\xaa" * 64


class Refused(FormatError):
    """A frame that is not whole or contradicts its header; the text is ours and says why."""


CUT = "the compressed data break off; get the file again"
SEVERAL = "they are several images where the header promises one"


@dataclass(frozen=True)
class Stream:
    """What a compressed frame says about its pixels.

    Parameters
    ----------
    precision : int
        Bits of each number.
    signed : bool
        Whether the numbers have a sign; JPEG and JPEG-LS know none.
    components : int
        Numbers of each pixel.
    lossless : bool
        Whether it is a lossless kind of JPEG or JPEG-LS.
    space : str
        "RGB" or "YBR" where the frame says what its numbers are ("RGB" of JPEG 2000: the decoder makes them so), else "".
    end : int
        Of JPEG: where the pixels of the last scan end.
    """

    precision: int
    signed: bool
    components: int
    lossless: bool
    space: str
    end: int = 0


def frame_data(dataset: Any, number: int) -> bytes:
    """Return the compressed bytes of one frame of a pydicom data set, from 0."""
    from pydicom.encaps import get_frame

    table = tuple(dataset.get(f"ExtendedOffsetTable{end}") for end in ("", "Lengths"))
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    offsets = table if all(table) else None
    return get_frame(dataset.PixelData, number, number_of_frames=count, extended_offsets=offsets)


def parsed(data: bytes, syntax: str) -> Stream:
    """Return what a frame of one of the transfer syntaxes in `KNOWN` says.

    Raises
    ------
    Refused
        It breaks off, holds several images or is of another kind than the transfer syntax.
    """
    try:
        return _jpeg_2000(data) if syntax in JPEG_2000 else _jpeg(data)
    except IndexError:
        raise Refused(CUT) from None


def _jpeg(data: bytes) -> Stream:
    """Walk over the markers of a JPEG or JPEG-LS image to its end."""
    if data[:2] != b"\xff\xd8":
        raise Refused("they are not the JPEG that the transfer syntax says")
    at, end, kind, frame, scanned, space = 2, 0, 0, b"", set(), ""
    while (marker := _marker(data, at)) != 0xD9:
        at, body = at + 2, b""
        if marker != 0x01 and not 0xD0 <= marker <= 0xD7:
            length = data[at] << 8 | data[at + 1]
            body = data[at + 2 : at + length]
            at += length
            if at > len(data):
                raise Refused(CUT)
        if marker in _SOF:
            kind, frame = marker, body
        elif marker == 0xE0 and body.startswith(b"JFIF"):
            space = "YBR"
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            space = space or ("YBR" if body[11] == 1 else "RGB")
        elif marker == 0xDA:
            scanned |= set(body[1 : 1 + 2 * body[0] : 2])
            found = (_AFTER_LS_SCAN if kind == 0xF7 else _AFTER_SCAN).search(data, at)
            if found is None:
                raise Refused(CUT)
            at = end = found.start()
            while data[end - 1] == 0xFF:  # fill, which may stand before any marker
                end -= 1
        while data[at + 1] == 0xFF:
            at += 1
    if b"\xff\xd8\xff" in data[at + 2 :]:
        raise Refused(SEVERAL)
    parts = set(frame[6::3])
    if not frame or not parts or parts - scanned:
        raise Refused(CUT)
    if parts in ({82, 71, 66}, {114, 103, 98}):  # the letters R, G, B
        space = "RGB"
    return Stream(frame[0], False, frame[5], kind in _LOSSLESS, space if frame[5] == 3 else "", end)


def _marker(data: bytes, at: int) -> int:
    if data[at] != 0xFF:
        raise Refused("the compressed data are damaged; get the file again")
    return data[at + 1]


def _jpeg_2000(data: bytes) -> Stream:
    """Walk over the main header and the tile parts of a JPEG 2000 image to its end."""
    at = start = _codestream(data)
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise Refused("they are not the JPEG 2000 that the transfer syntax says")
    components = data[start + 40] << 8 | data[start + 41]
    kinds = set(data[start + 42 : start + 42 + 3 * components : 3])
    if len(kinds) != 1:
        raise Refused("their components have different numbers of bits, which is not read")
    kind, at, turned = kinds.pop(), at + 2, False
    while (marker := _marker(data, at)) != 0xD9:
        length = data[at + 2] << 8 | data[at + 3]
        if marker == 0x52:
            turned = data[at + 8] == 1
        if marker == 0x90:
            length = int.from_bytes(data[at + 6 : at + 10], "big") - 2
            if length == -2:  # up to the end
                length = len(data.rstrip(b"\0")) - at - 4
        if length < 2 or at + 2 + length > len(data) - 2:
            raise Refused(CUT)
        at += 2 + length
    if b"\xff\x4f\xff\x51" in data[at:]:
        raise Refused(SEVERAL)
    return Stream((kind & 0x7F) + 1, kind > 0x7F, components, False, "RGB" if turned else "")


def _codestream(data: bytes) -> int:
    """Where the code stream begins: after the boxes of a JP2 file, which should not be there but is."""
    if not data.startswith(b"\0\0\0\x0cjP  "):
        return 0
    at = 12
    while data[at + 4 : at + 8] != b"jp2c":
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8 or at + length >= len(data):
            raise Refused(CUT)
        if b"colr\x01\0\0\0\0\0\x12" in data[at : at + length]:
            raise Refused("colours are said to be sYCC, which DICOM does not know")
        at += length
    return at + 8


def check_colours(stream: Stream, photometric: str, syntax: str) -> None:
    """Raise Refused where header and frame disagree about what the colours are, and only one of them can be right."""
    if stream.components != 3:
        return
    ybr, turned = photometric in _YBR, stream.space == "RGB"
    if syntax in JPEG_2000:
        if (turned and ybr) or (not turned and photometric in ("YBR_RCT", "YBR_ICT")):
            raise Refused("header and compressed data contradict each other about the transform of colours")
    elif stream.lossless and stream.space and (stream.space == "YBR") != ybr:
        raise Refused("header and compressed data contradict each other about the kind of colours")


def check_bits(pixels: AnyArray, stream: Stream, dataset: Any) -> None:
    """Raise Refused where gray pixels cannot be what BitsStored and PixelRepresentation say.

    Parameters
    ----------
    pixels : array (rows, columns)
        As decoded, the sign extended from the highest bit of the frame where the header says that there is one.
    stream : Stream
        What the frame says.
    dataset : pydicom.Dataset
        What the header says.
    """
    used, signed = int(dataset.get("BitsStored", 0)), int(dataset.get("PixelRepresentation", 0)) == 1
    if stream.precision > used:
        low, high = (-(1 << (used - 1)), (1 << (used - 1)) - 1) if signed else (0, (1 << used) - 1)
        odd = (pixels < low) | (pixels > high)
        if (padding := _padding(dataset, signed)) is not None:
            odd &= (pixels < padding[0]) | (pixels > padding[1])
        if odd.any():
            raise Refused(f"they need more than the {used} bits that BitsStored says")
        return
    # The highest bit is a sign to some readers and a number to others.
    doubtful = stream.precision < used and stream.signed != signed
    if doubtful and ((pixels < 0) | (pixels >= 1 << (stream.precision - 1))).any():
        raise Refused(f"the sign is in doubt: they have {stream.precision} bits, and BitsStored says {used}")


def _padding(dataset: Any, signed: bool) -> tuple[int, int] | None:
    """Stored values that are padding, which may lie outside of the bits that are used."""
    ends = [dataset.get(f"PixelPadding{end}") for end in ("Value", "RangeLimit")]
    dtype = np.int16 if signed else np.uint16  # an explicit US in a signed image holds the same bits
    known = [int(np.int64(end).astype(dtype)) for end in ends if isinstance(end, int)]
    return (min(known), max(known)) if known else None


def jpeg_pixels(data: bytes, stream: Stream, photometric: str, signed: bool) -> AnyArray:
    """Decode a JPEG image of any kind: gray with its sign extended, colours as red, green, blue.

    Raises
    ------
    Refused
        Data are missing before its end, or colours of more than 8 bits would have to be converted.
    """
    import imagecodecs
    from pydicom.pixels.processing import convert_color_space

    # Colours as they are in the file: what libjpeg makes of them by itself depends on markers alone.
    raw = "rgb" if stream.components == 3 else None

    def decoded(data: bytes) -> AnyArray:
        return np.asarray(imagecodecs.jpeg8_decode(data, colorspace=raw, outcolorspace=raw))

    pixels = decoded(data)
    # libjpeg makes up pixels where data are missing. They are not missing if more data before the end change nothing.
    if not np.array_equal(pixels, decoded(data[: stream.end] + _TAIL + data[stream.end :])):
        raise Refused(CUT)
    if stream.components == 1:
        spare = 8 * pixels.dtype.itemsize - stream.precision
        return pixels.view(f"i{pixels.dtype.itemsize}") << spare >> spare if signed else pixels
    if (stream.space or ("YBR" if photometric in _YBR else "RGB")) == "YBR":
        if pixels.dtype != np.uint8:
            raise Refused("they are YBR of more than 8 bits, which is not read")
        return convert_color_space(pixels, "YBR_FULL", "RGB")
    return pixels
