"""Elements of DICOM files: their lengths, the file meta group, sequences to step over, and deflated data sets.

A megabyte can inflate to a gigabyte: what is wanted is inflated, and no more.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medseg.errors import FormatError

LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS")
    + (b"ST", b"TM", b"UI", b"UL", b"US")
)
CHUNK = 1 << 16
UNDEFINED = 0xFFFFFFFF
Read = Callable[[int, int], bytes]  # offset and count to bytes; fewer at the end
_DEPTH = 24  # sequences inside sequences; real files have a handful


class Odd(Exception):
    """The quick walk over elements does not know how to go on."""


def group_two(head: bytes, start: int) -> tuple[str, str, int]:
    """Transfer syntax and storage class from group 2, which is explicit little endian; where the data set begins."""
    syntax = media = ""
    while head[start : start + 2] == b"\x02\0":
        vr = head[start + 4 : start + 6]
        if vr in LONG:
            length, size = struct.unpack_from("<L", head, start + 8)[0], 12
        elif vr in SHORT:
            length, size = struct.unpack_from("<H", head, start + 6)[0], 8
        else:
            raise Odd
        element, value = head[start + 2], head[start + size : start + size + length]
        if element == 0x10:
            syntax = value.decode("latin-1").strip(" \0")
        elif element == 0x02:
            media = value.decode("latin-1").strip(" \0")
        start += size + length
        if start > len(head):
            raise Odd
    return syntax, media, start


def element_length(data: bytes, at: int, explicit: bool) -> tuple[int, int, bool]:
    """Size of an element's head, length of its value, and whether it says that it is a sequence."""
    if not explicit:
        return 8, struct.unpack_from("<L", data, at + 4)[0], False
    vr = data[at + 4 : at + 6]
    if vr in SHORT:
        return 8, data[at + 6] | data[at + 7] << 8, False
    if vr not in LONG:
        raise Odd
    return 12, struct.unpack_from("<L", data, at + 8)[0], vr == b"SQ"


class Budget:
    """How many more elements a header may have: each costs time, and a file of nothing else is nobody's image."""

    def __init__(self, count: int = 2_000_000) -> None:
        self.count = count

    def spend(self) -> None:
        """Count one element.

        Raises
        ------
        FormatError
            There are too many.
        """
        self.count -= 1
        if self.count < 0:
            raise FormatError("A DICOM file has millions of elements before its pixels; it is damaged, get it again.")


def after_sequence(read: Read, pos: int, size: int, explicit: bool, budget: Budget, depth: int = 0) -> int:
    """Return where a sequence of undefined length ends."""
    if depth > _DEPTH:
        raise Odd
    while True:
        budget.spend()
        data = read(pos, 8)
        tag, length = struct.unpack("<LL", data)
        if tag == 0xE0DDFFFE:
            return pos + 8
        if tag != 0xE000FFFE:
            raise Odd
        pos += 8
        if length != UNDEFINED:
            pos += length
        while length == UNDEFINED:
            budget.spend()
            data = read(pos, 12)
            if data[:4] == b"\xfe\xff\x0d\xe0":
                pos += 8
                break
            head, inner, sequence = element_length(data, 0, explicit)
            if inner == UNDEFINED and explicit and not sequence:
                raise Odd
            pos = (
                after_sequence(read, pos + head, size, explicit, budget, depth + 1)
                if inner == UNDEFINED
                else pos + head + inner
            )
            if pos > size:
                raise Odd
        if pos > size:
            raise Odd


def inflate(path: Path, start: int, limit: int) -> bytes:
    """Inflate a raw deflate stream that begins at `start`, up to `limit` bytes; what is damaged is left away."""
    engine, found, room = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), limit
    with path.open("rb") as stream:
        stream.seek(start)
        while room > 0 and not engine.eof:
            block = engine.unconsumed_tail or stream.read(CHUNK)
            if not block:
                break
            try:
                part = engine.decompress(block, min(room, 1 << 20))
            except zlib.error:
                break
            found += part
            room -= len(part)
    return bytes(found)


def deflated_bytes(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of the inflated data set of a deflated file."""
    with path.open("rb") as stream:
        head = stream.read(CHUNK)
    return inflate(path, group_two(head, 132 if head[128:132] == b"DICM" else 0)[2], count)


def inflated(path: Path, limit: int, stop_before_pixels: bool = False) -> Dataset:
    """Return the data set of a deflated file, from at most `limit` inflated bytes."""
    with path.open("rb") as stream:
        head = stream.read(CHUNK)
    plain = inflate(path, group_two(head, 132 if head[128:132] == b"DICM" else 0)[2], limit)
    dataset = pydicom.dcmread(BytesIO(plain), force=True, stop_before_pixels=stop_before_pixels)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
