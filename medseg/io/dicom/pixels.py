"""How DICOM pixels are stored and what turns them into values: types, masks, padding, inversion, rescaling, sizes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from medseg.errors import FormatError, InputError
from medseg.io.dicom import tables
from medseg.io.dicom.headers import Header
from medseg.io.dicom.scale import Scale, scale_of
from medseg.io.dicom.scale import header_number as header_number  # which readers ask here, too

AnyArray = npt.NDArray[Any]

THREADS = min(4, os.cpu_count() or 1)
GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@dataclass(frozen=True, eq=False)
class Stored:
    """How the pixels of one frame are stored and what turns them into values."""

    dtype: np.dtype[Any]
    bits: int  # BitsStored
    shift: int  # bits below the lowest stored one
    colour: bool
    inverted: int | None  # MONOCHROME1: stored value v stands for inverted - v
    slope: float
    intercept: float
    padding: tuple[int, int] | None  # stored values from and to which a pixel is padding
    table: tuple[int, AnyArray] | None  # Modality LUT: first stored value, values (n,)
    palette: np.dtype[Any] | None = None  # type of the colours a palette gives
    display: bool = False  # MONOCHROME1
    notes: tuple[str, ...] = ()  # what was decided

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept."""
        return self.slope, self.intercept

    @property
    def exact(self) -> bool:
        """Whether the bytes in the file are the values."""
        whole = self.dtype.kind == "f" or (self.bits == 8 * self.dtype.itemsize and not self.shift)
        return whole and self.inverted is None and self.scale == (1.0, 0.0) and self.table is None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings and log lines quote header values."""
    log = logging.getLogger("pydicom")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def stored(header: Header, scale: tuple[float, float] | None = None) -> Stored:
    """Read how the pixels of a file are stored.

    Parameters
    ----------
    header : Header
        Its header.
    scale : tuple of float, optional
        Slope and intercept of one frame, where the frame has its own.

    Raises
    ------
    FormatError
        A field is malformed, pixels have other than 8, 16 or 32 bits, or there are no pixels.
    InputError
        A kind of colour or scale that is not read.
    """
    if header.pixels is None:
        raise FormatError("A DICOM file has no pixels, or breaks off before them; get it again.")
    colour = _colour(header)
    bits, used, shift, dtype = _width(header)
    signed, integers = dtype.kind == "i", dtype.kind != "f"
    table = None if colour or "ModalityLUTSequence" not in header else tables.modality(header, signed)
    if table and header.get("Modality") == "RTDOSE":
        raise InputError("The RT dose has a Modality LUT, which is not read; export it again with a DoseGridScaling.")
    # Colours have no scale; what a table gives is one already.
    values = Scale(quantity=bool(table)) if colour or table else scale_of(header, scale, integers)
    notes = [*values.notes, *(["values were looked up in a Modality LUT"] if table else [])]
    if header.big and integers and bits == 32:
        # Words of 16 bits (OW) leave it open: pydicom takes them whole, GDCM half by half.
        notes.append("32-bit numbers in big-endian words of 16 bits were taken whole, highest byte first")
    photometric = header.text("PhotometricInterpretation")
    inverted, display = None, photometric == "MONOCHROME1" and integers
    if display and not values.quantity:
        inverted = -1 if signed else (1 << used) - 1
        notes.append("MONOCHROME1: stored values were inverted, so that larger is brighter")
    elif display:
        notes.append("MONOCHROME1 is about display here: values are quantities and were not inverted")
    palette = tables.palette_type(header) if photometric == "PALETTE COLOR" else None
    padding = None if colour or not integers else _padding(header, signed, bits)
    return Stored(dtype, used, shift, colour, inverted, values.slope, values.intercept, padding, table, palette,
                  display, tuple(notes))  # fmt: skip


def _colour(header: Header) -> bool:
    """Whether a file holds colour rather than gray."""
    samples, photometric = header_number(header, "SamplesPerPixel", 1), header.text("PhotometricInterpretation")
    if samples == 1 and (
        photometric in GRAY or (not photometric and header.pixels and header.pixels[0] != "PixelData")
    ):
        return False
    if photometric in COLOUR and samples == (1 if photometric == "PALETTE COLOR" else 3):
        return True
    known = (
        photometric if photometric in (*GRAY, *COLOUR, "HSV", "ARGB", "CMYK", "YBR_PARTIAL_420") else "an unknown kind"
    )
    raise InputError(
        f"The pixels are {known} with {samples:.0f} samples; medseg reads gray and the colours RGB, YBR and palette."
    )


def _width(header: Header) -> tuple[int, int, int, np.dtype[Any]]:
    """BitsAllocated, BitsStored, bits below the lowest stored one, and the type of the stored numbers."""
    keyword = header.pixels[0] if header.pixels else ""
    if keyword != "PixelData":
        width = 32 if keyword == "FloatPixelData" else 64
        return width, width, 0, np.dtype(f"f{width // 8}")
    bits, used = (int(header_number(header, key, 0)) for key in ("BitsAllocated", "BitsStored"))
    if bits not in (8, 16, 32) or not 0 < used <= bits:
        raise FormatError(f"A slice has {used} of {bits} bits for each pixel; medseg reads 8, 16 and 32.")
    signed = header_number(header, "PixelRepresentation", 0) == 1
    high = int(header_number(header, "HighBit", used - 1))
    shift = max(0, min(high + 1 - used, bits - used)) if native(header) or header.syntax == RLELossless else 0
    return bits, used, shift, np.dtype(f"{'i' if signed else 'u'}{bits // 8}")


def _padding(header: Header, signed: bool, bits: int) -> tuple[int, int] | None:
    """Stored values that mean "nothing here", as a range."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        raw = header.values.get(keyword)
        if isinstance(raw, bytes) and len(raw) in (2, 4):
            value = int.from_bytes(raw, "little", signed=signed)
            # An explicit US in a signed image holds the same bits.
            ends.append(value if bits >= 16 else (value + 128) % 256 - 128 if signed else value % 256)
    return (min(ends), max(ends)) if ends else None


def frame_size(header: Header) -> int:
    """Return the bytes of one frame as an uncompressed file holds them."""
    width = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(header.pixels[0] if header.pixels else "", 0)
    bits = width or int(header_number(header, "BitsAllocated", 0))
    samples = int(header_number(header, "SamplesPerPixel", 1))
    pixels = int(header_number(header, "Rows", 0)) * int(header_number(header, "Columns", 0))
    if header.text("PhotometricInterpretation") == "YBR_FULL_422" and native(header):
        return pixels * 2 * bits // 8  # two pixels share their colour
    return pixels * samples * bits // 8


def native(header: Header) -> bool:
    """Whether pixels are not compressed one by one."""
    return header.syntax in _NATIVE


def check_size(header: Header, frames: int) -> None:
    """Raise FormatError if a file cannot hold the pixels it promises: found before anyone waits or memory is taken."""
    wanted = frame_size(header) * frames
    size = header.size
    _, offset, length = header.pixels or ("", 0, 0)
    if native(header):
        deflated = header.syntax == DeflatedExplicitVRLittleEndian
        # deflate makes at most 1,032 bytes of one
        if 0 <= length < wanted or (wanted > 1032 * size if deflated else offset + wanted > size):
            raise FormatError(f"A slice is truncated: its file cannot hold the {wanted} bytes of pixels it promises.")
        if length > wanted + 1 and not deflated:
            _check_rest(header, offset + wanted, length - wanted)
        return
    stored_bytes = size - offset if length < 0 else min(length, size - offset)
    # A run of RLE makes at most 128 bytes of two. Of the others, a huge frame in next to nothing is nobody's image.
    most = 64 * stored_bytes if header.syntax == RLELossless else max(256 << 20, 1000 * stored_bytes)
    if wanted > most * (1 if header.syntax == RLELossless else frames) or frames * 8 > stored_bytes:
        raise FormatError(f"A slice promises {wanted} bytes of pixels but holds {stored_bytes}; it is damaged.")


def _check_rest(header: Header, start: int, count: int) -> None:
    """Raise FormatError if more than zeros follow the pixels: then the header says fewer or smaller ones than there are."""
    with header.path.open("rb") as stream:
        stream.seek(start)
        while count > 0 and (block := stream.read(min(count, 1 << 20))):
            if block.strip(b"\0"):
                raise FormatError(
                    "A slice holds more pixels than its Rows, Columns and frames say; its header is damaged."
                )
            count -= len(block)


def result(frames: Sequence[Stored]) -> np.dtype[Any]:
    """Return the type of all values.

    As stored without a rescale; with one that is whole and the same for all, int16 or int32, whichever holds every value
    that the stored bits allow (`voxels.reader` takes int16 where the values fit); else float32, or float64 for more than
    24 bits.

    Raises
    ------
    InputError
        Some slices of MONOCHROME1 hold quantities and some do not.
    """
    first = frames[0]
    if len({one.inverted is None for one in frames if one.display}) > 1:
        raise InputError("Some MONOCHROME1 slices have a rescale and some have none; split the series.")
    if first.colour:
        return first.palette or first.dtype
    kinds = {np.dtype("u2") if one.table else one.dtype for one in frames}
    scales = {one.scale for one in frames}
    if scales == {(1.0, 0.0)}:
        return kinds.pop() if len(kinds) == 1 else np.result_type(*kinds)
    slope, intercept = first.scale
    if (
        len(scales) == 1
        and slope.is_integer()
        and intercept.is_integer()
        and all(one.dtype.kind != "f" for one in frames)
    ):
        ends = [slope * end + intercept for one in frames for end in (lowest(one), highest(one))]
        for narrow in (np.int16, np.int32):
            fits = np.iinfo(narrow)
            if fits.min <= min(ends) and max(ends) <= fits.max and abs(slope) <= fits.max:
                return np.dtype(narrow)
    wide = any(one.dtype == np.dtype("f8") or (one.dtype.kind != "f" and one.bits > 24) for one in frames)
    return np.dtype(np.float64 if wide else np.float32)


def lowest(one: Stored) -> int:
    """Return the lowest number that the stored bits can hold."""
    return -(1 << (one.bits - 1)) if one.dtype.kind == "i" else 0


def highest(one: Stored) -> int:
    """Return the highest number that the stored bits can hold."""
    return (1 << (one.bits - 1 if one.dtype.kind == "i" else one.bits)) - 1
