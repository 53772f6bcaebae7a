"""Read deflated DICOM objects: pydicom inflates all that comes, and a megabyte can inflate to a gigabyte.

What may come is known from the header: frames of a stated size, and little behind them.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medseg.errors import FormatError
from medseg.io.dicom.bounded import meta as meta_of
from medseg.io.limits import SLACK, check_claim

_BLOCK = 1 << 20
_HEADER = 128 << 20  # bytes that an object without pixels, or what comes before them, may inflate to
_PIXEL_DATA = b"\xe0\x7f\x10\0"
_HEAD = 12  # bytes of an element before its value, where its length has 4 bytes


def read(path: Path) -> Dataset | None:
    """Return the data set of a deflated file, or None if the file is not deflated.

    Raises
    ------
    InputError
        Its pixels are more than one image may have.
    FormatError
        It breaks off, or inflates to more than its header announces.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
    meta = meta_of(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    stream = _Stream(path, 144 + int(meta.get("FileMetaInformationGroupLength") or 0))  # preamble, mark, the length
    stream.fill(_HEADER)
    source = BytesIO(stream.found)
    dataset = pydicom.dcmread(source, force=True, stop_before_pixels=True)
    dataset.file_meta = FileMetaDataset(meta)
    at = source.tell()
    source.close()
    if bytes(stream.found[at : at + 4]) == _PIXEL_DATA:
        _add_pixels(dataset, stream, at, path)
    elif stream.more():
        raise FormatError(f"{path.name} inflates to more than {_HEADER >> 20} MB without pixels; get it undeflated.")
    return dataset


class _Stream:
    """What of a deflated file is inflated so far."""

    def __init__(self, path: Path, start: int) -> None:
        self.path, self.at = path, start
        self.engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self.found = bytearray()

    def fill(self, size: int) -> None:
        """Inflate until there are `size` bytes, or no more come.

        Raises
        ------
        FormatError
            The file ends within its stream.
        """
        with self.path.open("rb") as file:
            file.seek(self.at)
            while len(self.found) < size and not self.engine.eof:
                block = self.engine.unconsumed_tail or file.read(_BLOCK)
                if not block:
                    raise FormatError(f"{self.path.name} is damaged: its deflated stream breaks off; get it again.")
                self.found += self.engine.decompress(block, min(_BLOCK, size - len(self.found)))
            self.at = file.tell()

    def more(self) -> bool:
        """Whether the stream goes on."""
        before = len(self.found)
        self.fill(before + 1)
        return len(self.found) > before


def _add_pixels(dataset: Dataset, stream: _Stream, at: int, path: Path) -> None:
    """Inflate the pixels, which begin at `at`, if they are what the header announces, and put them into the data set."""
    length = struct.unpack_from("<L", stream.found, at + 8)[0]
    # Each frame has an item that places it, so that a number alone cannot announce a terabyte.
    frames = min(int(dataset.get("NumberOfFrames") or 1), len(dataset.get("PerFrameFunctionalGroupsSequence") or "1"))
    pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    claim = -(-frames * pixels * int(dataset.BitsAllocated) // 8)
    check_claim(claim, path)
    end = at + _HEAD + length
    if length <= claim + 1:  # of even length
        stream.fill(end + SLACK)  # what comes behind the pixels is not wanted, but it must end
    if length > claim + 1 or len(stream.found) > end + SLACK or stream.more():
        raise FormatError(f"{path.name} inflates to more than the {frames} frames its header places; it is damaged.")
    dataset.add_new(
        "PixelData", "OW" if dataset.BitsAllocated > 8 else "OB", bytes(memoryview(stream.found)[at + _HEAD : end])
    )
