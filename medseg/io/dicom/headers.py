"""DICOM headers, read fast: one walk over a file that keeps what says where slices lie and how pixels are stored.

Whatever is out of the ordinary goes through pydicom, which is slower and forgives more.
Text is kept as the file has it and parsed where it is used, so that no library complains with header text in its words.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import cached_property
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
from medseg.io.dicom.bounded import Bounded
from medseg.io.dicom.elements import (
    CHUNK,
    LONG,
    SHORT,
    UNDEFINED,
    Budget,
    Odd,
    Read,
    after_sequence,
    element_length,
    group_two,
    inflate,
    inflated,
)
from medseg.io.find import begins_bare
from medseg.io.limits import max_bytes
from medseg.io.names import FORMATS

_NAMES = """
SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType SeriesDescription
InstanceNumber NumberOfFrames Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated
BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit ImagePositionPatient
ImageOrientationPatient PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing SliceThickness SpacingBetweenSlices
RescaleSlope RescaleIntercept RescaleType Units DoseGridScaling DoseUnits GridFrameOffsetVector ModalityLUTSequence
RealWorldValueMappingSequence
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence SequenceOfUltrasoundRegions DetectorInformationSequence
TemporalPositionIdentifier AcquisitionNumber AcquisitionTime AcquisitionDateTime ContentTime TriggerTime EchoTime
EchoNumbers DiffusionBValue DiffusionGradientOrientation KVP InversionTime FlipAngle ConvolutionKernel StackID
NominalPercentageOfCardiacPhase NominalPercentageOfRespiratoryPhase ContrastBolusAgent AcquisitionDate ContentDate
PixelSpacingCalibrationType PixelAspectRatio
"""
_KEYWORDS = _NAMES.split()
PRIVATE_B = {0x0019100C: "b-value (0019,100C)", 0x00431039: "b-value (0043,1039)", 0x20011003: "b-value (2001,1003)"}
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
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
            with Bounded(self.path) as stream:
                return pydicom.dcmread(stream, force=True, stop_before_pixels=True)


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
        head = stream.read(CHUNK)
        marked = head[128:132] == b"DICM"
        if not marked and not named and not begins_bare(head):
            return None
        try:
            header = _quick(path, head, _window(stream, head), size, 132 if marked else 0)
        except (Odd, struct.error, IndexError, RecursionError):
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
    syntax, media, start = group_two(head, start)
    if syntax == ExplicitVRBigEndian:
        raise Odd
    if syntax == DeflatedExplicitVRLittleEndian:
        if not (plain := inflate(path, start, _DEFLATED_HEADER)):
            raise FormatError("A deflated DICOM file is damaged; get it again.")
        values, pixels = _walk(lambda offset, count: plain[offset : offset + count], max_bytes(), 0, True)
        if pixels is None and len(plain) >= _DEFLATED_HEADER:
            raise FormatError("A deflated DICOM file inflates without end before its pixels come; it is damaged.")
        return Header(path, values, syntax, pixels, media=media)
    explicit = syntax != ImplicitVRLittleEndian
    if explicit and not syntax.startswith("1.2.840.10008."):  # none stated, or a vendor's: the first element tells
        explicit = head[start + 4 : start + 6] in SHORT | LONG
    values, pixels = _walk(read, size, start, explicit)
    return Header(path, values, syntax or (ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian), pixels,
                  media=media)  # fmt: skip


def _walk(read: Read, size: int, pos: int, explicit: bool) -> tuple[dict[str, Any], tuple[str, int, int] | None]:
    """Return the wanted values up to the pixels, and where these are.

    Raises
    ------
    Odd
        Elements are out of order, of unknown kind, or leave the file.
    """
    values: dict[str, Any] = {}
    base, data, last = pos, read(pos, CHUNK), 0
    wanted, unpack, budget = _WANTED, struct.unpack_from, Budget()
    while True:
        budget.spend()
        at = pos - base
        if at + 12 > len(data):
            base, data, at = pos, read(pos, CHUNK), 0
            if len(data) < 8:
                if data.strip(b"\0"):
                    raise Odd
                return values, None
        group, element = unpack("<HH", data, at)
        tag = group << 16 | element
        if tag <= last or group == 0:
            raise Odd
        last = tag
        head, length, sequence = element_length(data, at, explicit)
        if tag in _PIXELS:
            if length != UNDEFINED and tag != 0x7FE00010 and pos + head + length > size:
                raise Odd
            return values, (_PIXELS[tag], pos + head, -1 if length == UNDEFINED else length)
        if tag in wanted and (sequence or length == UNDEFINED or wanted[tag][1] == "SQ"):
            values[wanted[tag][0]] = True
        if length == UNDEFINED:
            if explicit and not sequence:
                raise Odd
            pos = after_sequence(read, pos + head, size, explicit, budget)
            continue
        if pos + head + length > size:
            raise Odd
        if tag in wanted and wanted[tag][0] not in values:
            start = at + head
            raw = data[start : start + length] if start + length <= len(data) else read(pos + head, min(length, _VALUE))
            values[wanted[tag][0]] = _value(raw, wanted[tag][1], "<")
        pos += head + length


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
    with reading(Path("A DICOM file"), "DICOM"), Bounded(path) as stream:
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
        syntax, media = (str(meta.get(key) or "") for key in ("TransferSyntaxUID", "MediaStorageSOPClassUID"))
    return Header(path, values, syntax or str(unknown), pixels, order == ">", media)


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
    return keyword, start + size, -1 if length == UNDEFINED else length
