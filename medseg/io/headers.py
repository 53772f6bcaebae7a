"""DICOM headers, read fast: one walk over a file that keeps what says where slices lie and how pixels are stored.

Whatever is out of the ordinary goes through pydicom, which is slower and forgives more.
Text is kept as the file has it and parsed where it is used, so that no library complains with header text in its words.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medseg.errors import FormatError
from medseg.io.common import reading
from medseg.io.find import begins_bare
from medseg.io.limits import max_bytes
from medseg.io.names import FORMATS

_NAMES = """
SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType SeriesDescription
InstanceNumber NumberOfFrames Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated
BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit ImagePositionPatient
ImageOrientationPatient PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing SliceThickness SpacingBetweenSlices
RescaleSlope RescaleIntercept RescaleType Units DoseGridScaling GridFrameOffsetVector ModalityLUTSequence
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence SequenceOfUltrasoundRegions DetectorInformationSequence
TemporalPositionIdentifier AcquisitionNumber AcquisitionTime AcquisitionDateTime ContentTime TriggerTime EchoTime
EchoNumbers DiffusionBValue DiffusionGradientOrientation KVP InversionTime FlipAngle ConvolutionKernel StackID
NominalPercentageOfCardiacPhase NominalPercentageOfRespiratoryPhase ContrastBolusAgent
"""
_KEYWORDS = _NAMES.split()
PRIVATE_B = {0x0019100C: "b-value (0019,100C)", 0x00431039: "b-value (0043,1039)", 0x20011003: "b-value (2001,1003)"}
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS")
    + (b"ST", b"TM", b"UI", b"UL", b"US")
)
_CHUNK = 1 << 16
_UNDEFINED = 0xFFFFFFFF
_DEPTH = 24  # sequences inside sequences; real files have a handful
_DEFLATED_HEADER = 64 << 20  # bytes that a deflated header may inflate to before its pixels come
_VALUE = 1 << 20  # bytes of one wanted value


def _kinds() -> dict[int, tuple[str, str]]:
    """What to keep: tag to keyword and VR."""
    kinds = {tag: (name, "raw") for tag, name in PRIVATE_B.items()}
    for keyword in _KEYWORDS:
        tag = tag_for_keyword(keyword)
        if tag is not None:
            kinds[tag] = (keyword, dictionary_VR(tag))
    return kinds


_WANTED = _kinds()
Read = Callable[[int, int], bytes]  # offset and count to bytes; fewer at the end


class _Odd(Exception):
    """The quick walk does not know how to go on."""


@dataclass(eq=False)
class Header:
    """What of a DICOM file is needed to place and decode it.

    Parameters
    ----------
    path : Path
        The file.
    values : dict
        By keyword: text (multiple values with backslashes between), tuple of int or float, bytes, True for a sequence.
    syntax : str
        Transfer syntax UID; empty if the file does not say.
    pixels : tuple, optional
        Keyword of the pixel element, offset of its value (in the inflated bytes where deflated) and length (-1: unknown).
    big : bool
        Whether numbers are big endian.
    media : str
        MediaStorageSOPClassUID.
    size : int
        Bytes of the file.
    """

    path: Path
    values: dict[str, Any]
    syntax: str
    pixels: tuple[str, int, int] | None
    big: bool = False
    media: str = ""
    size: int = 0

    def get(self, keyword: str, default: Any = None) -> Any:
        """Value of an attribute: text, a number, or a list where there are several."""
        value = self.values.get(keyword)
        if value is None or value == "" or value == ():
            return default
        if isinstance(value, str):
            return value.split("\\") if "\\" in value else value
        return (value[0] if len(value) == 1 else list(value)) if isinstance(value, tuple) else value

    def __contains__(self, keyword: str) -> bool:
        """Whether the attribute is there, be it empty."""
        return keyword in self.values

    def text(self, keyword: str) -> str:
        """Value as stored, or an empty string."""
        value = self.values.get(keyword, "")
        return value if isinstance(value, str) else ""

    @cached_property
    def dataset(self) -> Dataset:
        """The whole header through pydicom, for sequences."""
        with reading(Path("The file"), "DICOM"):
            if self.syntax == DeflatedExplicitVRLittleEndian:
                return inflated(self.path, _DEFLATED_HEADER, stop_before_pixels=True)
            return pydicom.dcmread(self.path, force=True, stop_before_pixels=True)


def read_header(path: Path) -> Header | None:
    """Return the header of a DICOM file, or None if it is not DICOM.

    Raises
    ------
    FormatError
        The header is damaged; the message does not name the file.
    """
    named = path.suffix.lower() in FORMATS["dicom"]
    with reading(Path("A DICOM file"), "DICOM"), path.open("rb", buffering=0) as stream:
        handle = stream.fileno()
        size = os.fstat(handle).st_size
        head = stream.read(_CHUNK)
        marked = head[128:132] == b"DICM"
        if not marked and not named and not begins_bare(head):
            return None
        try:
            header = _quick(path, head, _window(stream, head), size, 132 if marked else 0)
        except (_Odd, struct.error, IndexError, RecursionError):
            header = None
    if header is None:
        header = _slow(path, marked, head)
    header.size = size
    return header if marked or "SOPClassUID" in header or "Rows" in header else None


def _window(stream: Any, head: bytes) -> Read:
    def read(offset: int, count: int) -> bytes:
        if offset + count <= len(head):
            return head[offset : offset + count]
        stream.seek(offset)
        found: bytes = stream.read(count)
        return found

    return read


def _quick(path: Path, head: bytes, read: Read, size: int, start: int) -> Header:
    """Walk over the elements of a little-endian file."""
    syntax, media, start = _meta(head, start)
    if syntax == ExplicitVRBigEndian:
        raise _Odd
    if syntax == DeflatedExplicitVRLittleEndian:
        if not (plain := _inflate(path, start, _DEFLATED_HEADER)):
            raise FormatError("A deflated DICOM file is damaged; get it again.")
        values, pixels = _walk(lambda offset, count: plain[offset : offset + count], max_bytes(), 0, True)
        if pixels is None and len(plain) >= _DEFLATED_HEADER:
            raise FormatError("A deflated DICOM file inflates without end before its pixels come; it is damaged.")
        return Header(path, values, syntax, pixels, media=media)
    explicit = syntax != ImplicitVRLittleEndian
    if explicit and not syntax.startswith("1.2.840.10008."):  # none stated, or a vendor's: the first element tells
        explicit = head[start + 4 : start + 6] in _SHORT | _LONG
    values, pixels = _walk(read, size, start, explicit)
    return Header(path, values, syntax or (ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian), pixels,
                  media=media)  # fmt: skip


def _meta(head: bytes, start: int) -> tuple[str, str, int]:
    """Transfer syntax and storage class from group 2, which is explicit little endian; where the data set begins."""
    syntax = media = ""
    while head[start : start + 2] == b"\x02\0":
        vr = head[start + 4 : start + 6]
        if vr in _LONG:
            length, size = struct.unpack_from("<L", head, start + 8)[0], 12
        elif vr in _SHORT:
            length, size = struct.unpack_from("<H", head, start + 6)[0], 8
        else:
            raise _Odd
        element, value = head[start + 2], head[start + size : start + size + length]
        if element == 0x10:
            syntax = value.decode("latin-1").strip(" \0")
        elif element == 0x02:
            media = value.decode("latin-1").strip(" \0")
        start += size + length
        if start > len(head):
            raise _Odd
    return syntax, media, start


def _walk(read: Read, size: int, pos: int, explicit: bool) -> tuple[dict[str, Any], tuple[str, int, int] | None]:
    """Return the wanted values up to the pixels, and where these are.

    Raises
    ------
    _Odd
        Elements are out of order, of unknown kind, or leave the file.
    """
    values: dict[str, Any] = {}
    base, data, last = pos, read(pos, _CHUNK), 0
    wanted, unpack = _WANTED, struct.unpack_from
    while True:
        at = pos - base
        if at + 12 > len(data):
            base, data, at = pos, read(pos, _CHUNK), 0
            if len(data) < 8:
                if data.strip(b"\0"):
                    raise _Odd
                return values, None
        group, element = unpack("<HH", data, at)
        tag = group << 16 | element
        if tag <= last or group == 0:
            raise _Odd
        last = tag
        head, length, sequence = _length(data, at, explicit)
        if tag in _PIXELS:
            if length != _UNDEFINED and tag != 0x7FE00010 and pos + head + length > size:
                raise _Odd
            return values, (_PIXELS[tag], pos + head, -1 if length == _UNDEFINED else length)
        if tag in wanted and (sequence or length == _UNDEFINED or wanted[tag][1] == "SQ"):
            values[wanted[tag][0]] = True
        if length == _UNDEFINED:
            if explicit and not sequence:
                raise _Odd
            pos = _skip(read, pos + head, size, explicit, 0)
            continue
        if pos + head + length > size:
            raise _Odd
        if tag in wanted and wanted[tag][0] not in values:
            start = at + head
            raw = data[start : start + length] if start + length <= len(data) else read(pos + head, min(length, _VALUE))
            values[wanted[tag][0]] = _value(raw, wanted[tag][1], "<")
        pos += head + length


def _length(data: bytes, at: int, explicit: bool) -> tuple[int, int, bool]:
    """Size of an element's head, length of its value, and whether it says that it is a sequence."""
    if not explicit:
        return 8, struct.unpack_from("<L", data, at + 4)[0], False
    vr = data[at + 4 : at + 6]
    if vr in _SHORT:
        return 8, data[at + 6] | data[at + 7] << 8, False
    if vr not in _LONG:
        raise _Odd
    return 12, struct.unpack_from("<L", data, at + 8)[0], vr == b"SQ"


def _skip(read: Read, pos: int, size: int, explicit: bool, depth: int) -> int:
    """Return where a sequence of undefined length ends."""
    if depth > _DEPTH:
        raise _Odd
    while True:
        data = read(pos, 8)
        tag, length = struct.unpack("<LL", data)
        if tag == 0xE0DDFFFE:
            return pos + 8
        if tag != 0xE000FFFE:
            raise _Odd
        pos += 8
        if length != _UNDEFINED:
            pos += length
        while length == _UNDEFINED:
            data = read(pos, 12)
            if data[:4] == b"\xfe\xff\x0d\xe0":
                pos += 8
                break
            head, inner, sequence = _length(data, 0, explicit)
            if inner == _UNDEFINED and explicit and not sequence:
                raise _Odd
            pos = _skip(read, pos + head, size, explicit, depth + 1) if inner == _UNDEFINED else pos + head + inner
            if pos > size:
                raise _Odd
        if pos > size:
            raise _Odd


def _value(raw: bytes, vr: str, order: str) -> Any:
    """Text, tuple of numbers, True for a sequence, or bytes."""
    if vr == "SQ":
        return True
    for kind, code, width in (("US", "H", 2), ("FL", "f", 4), ("FD", "d", 8)):
        if vr == kind:
            count = len(raw) // width
            return struct.unpack(f"{order}{count}{code}", raw[: count * width])
    if vr in ("raw", "US or SS"):
        return raw if order == "<" else raw[::-1]
    return raw.decode("latin-1").strip(" \0")


def _slow(path: Path, marked: bool, head: bytes) -> Header:
    """Read a header that the quick walk did not understand with pydicom.

    Raises
    ------
    FormatError
        pydicom does not understand it either, or it is deflated (pydicom would inflate all of it, however much that is).
    """
    if DeflatedExplicitVRLittleEndian.encode() in head[:4096]:
        raise FormatError("A deflated DICOM file has a damaged header; get it again.")
    tags: list[Any] = [*_KEYWORDS, *PRIVATE_B]
    with reading(Path("A DICOM file"), "DICOM"), path.open("rb") as stream:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=not marked, specific_tags=tags)
        implicit, little = dataset.original_encoding
        order = "<" if little or little is None else ">"
        values: dict[str, Any] = {}
        for tag, (keyword, vr) in _WANTED.items():
            if tag in dataset:
                item = dataset.get_item(tag)
                raw = getattr(item, "value", None)
                values[keyword] = _value(raw, vr, order) if isinstance(raw, bytes) and vr != "SQ" else vr == "SQ" or ""
        meta = getattr(dataset, "file_meta", FileMetaDataset())
        pixels = _pixel_element(stream, bool(implicit), order)
    unknown = ExplicitVRLittleEndian if implicit is False else ImplicitVRLittleEndian
    if order == ">":
        unknown = ExplicitVRBigEndian
    syntax = str(meta.get("TransferSyntaxUID") or unknown)
    return Header(path, values, syntax, pixels, order == ">", str(meta.get("MediaStorageSOPClassUID") or ""))


def _pixel_element(stream: Any, implicit: bool, order: str) -> tuple[str, int, int] | None:
    """Where the pixels are, if the stream stands before them."""
    start = stream.tell()
    head = stream.read(12)
    if len(head) < 8:
        return None
    group, element = struct.unpack(f"{order}HH", head[:4])
    keyword = _PIXELS.get(group << 16 | element)
    if keyword is None or (not implicit and len(head) < 12):
        return None
    size = 8 if implicit else 12
    length = struct.unpack(f"{order}L", head[size - 4 : size])[0]
    return keyword, start + size, -1 if length == _UNDEFINED else length


def _inflate(path: Path, start: int, limit: int) -> bytes:
    """Inflate a raw deflate stream that begins at `start`, up to `limit` bytes; what is damaged is left away."""
    engine, found, room = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), limit
    with path.open("rb") as stream:
        stream.seek(start)
        while room > 0 and not engine.eof:
            block = engine.unconsumed_tail or stream.read(_CHUNK)
            if not block:
                break
            try:
                part = engine.decompress(block, min(room, 1 << 20))
            except zlib.error:
                break
            found += part
            room -= len(part)
    return bytes(found)


def deflated_bytes(header: Header, count: int) -> bytes:
    """Return the first `count` bytes of the inflated data set of a deflated file."""
    with header.path.open("rb") as stream:
        head = stream.read(_CHUNK)
    return _inflate(header.path, _meta(head, 132 if head[128:132] == b"DICM" else 0)[2], count)


def inflated(path: Path, limit: int, stop_before_pixels: bool = False) -> Dataset:
    """Return the data set of a deflated file, from at most `limit` inflated bytes."""
    with path.open("rb") as stream:
        head = stream.read(_CHUNK)
    plain = _inflate(path, _meta(head, 132 if head[128:132] == b"DICM" else 0)[2], limit)
    dataset = pydicom.dcmread(BytesIO(plain), force=True, stop_before_pixels=stop_before_pixels)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
