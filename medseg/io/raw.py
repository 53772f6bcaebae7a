"""The voxels of NRRD and MetaImage: where they are stored, and how they are unpacked whole, bounded and checked.

ITK reads these formats too, but takes the rest of a broken stream for 0, reads a stream whose length the header leaves out
as noise, and writes to stderr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from medseg.errors import FormatError, InputError
from medseg.image import LazyArray
from medseg.io.common import reading
from medseg.io.limits import DEFLATE, SLACK, check_claim

AnyArray = npt.NDArray[Any]
Encoding = Literal["raw", "zlib", "text", "hex"]

MAP_FROM = 1 << 26  # bytes from which raw voxels are mapped, not read: small files gain nothing
_CHUNK = 1 << 20
_NRRD = {"raw": "raw", "gzip": "zlib", "gz": "zlib", "ascii": "text", "text": "text", "txt": "text", "hex": "hex"}


@dataclass(frozen=True)
class Stored:
    """Where voxels are stored.

    Parameters
    ----------
    path : Path
        The header's file, for messages.
    files : tuple of Path
        The data, in order; each holds an equal share.
    start : int
        First byte of the data in each file; -1: they end with the file.
    lines, skip : int
        Lines to pass over at `start`, then bytes (of what is unpacked, where it is packed; -1: see `start`).
    encoding : str
        "raw", "zlib" (gzip as well), "text" or "hex".
    dtype : dtype
        With its byte order.
    shape : tuple of int
        As stored, slowest axis first.
    """

    path: Path
    files: tuple[Path, ...]
    start: int
    lines: int
    skip: int
    encoding: Encoding
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def array(self) -> AnyArray | LazyArray:
        """Return the voxels, mapped or to be read when touched, in the shape and type stored, native byte order.

        Raises
        ------
        FormatError
            A data file is not there or cannot hold the voxels.
        InputError
            The header claims more voxels than `medseg.io.limits` allows, or an arrangement that is not read.
        """
        for file in self.files:
            if not file.is_file():
                raise FormatError(f"{self.path.name} names a data file that is not there; keep the two together.")
        if len(self.files) > 1 and (self.encoding != "raw" or self.nbytes % len(self.files)):
            raise InputError(f"{self.path.name} spreads its voxels over files in a way that is not read; join them.")
        mapped = self.encoding == "raw" and len(self.files) == 1 and self.dtype.isnative and self.nbytes >= MAP_FROM
        if not mapped:
            check_claim(self.nbytes, self.path)
        least = {"raw": self.nbytes, "zlib": self.nbytes // DEFLATE, "text": self.nbytes // self.dtype.itemsize,
                 "hex": 2 * self.nbytes}[self.encoding] // len(self.files)  # fmt: skip
        starts = [self._start(file, least) for file in self.files]
        if mapped:
            return np.memmap(self.files[0], self.dtype, "r", starts[0], self.shape)
        return LazyArray(self.shape, self.dtype.newbyteorder("="), lambda: self._load(starts))

    def _start(self, file: Path, least: int) -> int:
        """Return the first byte of the data in a file that must hold at least so many more."""
        size = file.stat().st_size
        at_end = self.encoding == "raw" and (self.skip < 0 or self.start < 0)
        start = size - least if at_end else max(0, self.start)
        if self.lines and not at_end:
            with file.open("rb") as stream:
                stream.seek(start)
                for _ in range(self.lines):
                    if not stream.readline(_CHUNK):
                        break
                start = stream.tell()
        start += self.skip if self.encoding == "raw" and not at_end else 0
        if start < 0 or start + max(1, least) > size:
            raise FormatError(f"{self.path.name} is truncated: its data have fewer bytes than it states; get it again.")
        return start

    def _load(self, starts: Sequence[int]) -> AnyArray:
        with reading(self.path, "NRRD or MetaImage"):
            if self.encoding == "text":
                return self._text(starts[0])
            out = np.empty(self.nbytes, np.uint8)
            share = self.nbytes // len(self.files)
            for i, (file, start) in enumerate(zip(self.files, starts, strict=True)):
                part = out[i * share : (i + 1) * share].data
                with file.open("rb") as stream:
                    stream.seek(start)
                    done = {"raw": _raw, "zlib": self._inflate, "hex": _hex}[self.encoding](stream, part)
                if done < share:
                    raise FormatError(f"{self.path.name} is truncated or damaged: its voxels end early; get it again.")
            stored = out.view(self.dtype).reshape(self.shape)
            return stored.astype(self.dtype.newbyteorder("="), copy=False)

    def _inflate(self, stream: BinaryIO, out: memoryview) -> int:
        """Unpack into `out`, then to the end of the stream, where its checksum is; stop after SLACK bytes more."""
        unpack = isal_zlib.decompressobj(wbits=47)  # zlib or gzip, by the first bytes
        skip, done, beyond = max(0, self.skip), 0, 0
        while not unpack.eof:
            # isal keeps what it was given and did not unpack
            packed = unpack.unconsumed_tail or stream.read(_CHUNK)
            block = unpack.decompress(packed, _CHUNK)
            if not block and not packed:
                return -1
            block, skip = block[skip:], max(0, skip - len(block))
            part = block[: len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)
            beyond += len(block) - len(part)
            if beyond > SLACK:
                raise FormatError(f"{self.path.name} holds more voxels than its header states; get it again.")
        return done

    def _text(self, start: int) -> AnyArray:
        count = int(np.prod(self.shape))
        with self.files[0].open("rb") as stream:
            stream.seek(start)
            words = stream.read().replace(b",", b" ").split()[: count + 1]
        if len(words) < count or not words:
            raise FormatError(f"{self.path.name} is truncated or damaged: its voxels end early; get it again.")
        kind = float if self.dtype.kind == "f" else int
        values = np.array([kind(word) for word in words[:count]], self.dtype.newbyteorder("="))
        return values.reshape(self.shape)


def _raw(stream: BinaryIO, out: memoryview) -> int:
    done = 0
    while count := stream.readinto(out[done:]):  # type: ignore[attr-defined]
        done += count
    return done


def _hex(stream: BinaryIO, out: memoryview) -> int:
    values = bytes.fromhex(stream.read().decode("ascii"))[: len(out)]
    out[: len(values)] = values
    return len(values)


def of_nrrd(path: Path, header: Mapping[str, str], end: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Stored:
    """Where a NRRD file stores its voxels.

    Parameters
    ----------
    path : Path
        The header's file.
    header : mapping
        Its fields, keys in lower case; the names after LIST under "".
    end : int
        First byte after the header.
    dtype, shape
        As stored; the byte order is added here.

    Raises
    ------
    InputError
        An encoding that is not read.
    FormatError
        A field that cannot be.
    """
    name = header.get("data file") or header.get("datafile") or ""
    encoding = _NRRD.get(header.get("encoding", "").lower())
    if encoding is None:
        raise InputError(f"{path.name} is packed in a way that is not read; write it again with gzip or raw.")
    lines = _whole(header.get("line skip") or header.get("lineskip") or "0", path)
    skip = _whole(header.get("byte skip") or header.get("byteskip") or "0", path)
    stated = header.get("endian", "").lower()
    if stated not in ("big", "little") and dtype.itemsize > 1 and encoding in ("raw", "zlib"):
        raise FormatError(f"{path.name} does not say which byte of a voxel comes first (endian); write it again.")
    order = ">" if stated == "big" else "<"
    files = (path,) if not name else _files(path, name, header)
    start = end if not name else 0
    return Stored(path, files, start, lines, skip, encoding, dtype.newbyteorder(order), shape)  # type: ignore[arg-type]


def of_meta(path: Path, header: Mapping[str, str], end: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Stored:
    """Where a MetaImage file stores its voxels; parameters and errors as for `of_nrrd`."""
    name = header["elementdatafile"]
    local = name.upper() == "LOCAL"
    msb = header.get("binarydatabyteordermsb") or header.get("elementbyteordermsb") or "false"
    packed = header.get("compresseddata", "").lower() == "true"
    text = header.get("binarydata", "true").lower() == "false"
    skip = 0 if local else _whole(header.get("headersize", "0"), path)
    files = (path,) if local else _files(path, name, header)
    encoding: Encoding = "zlib" if packed else "text" if text else "raw"
    kind = dtype.newbyteorder(">" if msb.lower() in ("true", "1") else "<")
    # HeaderSize counts bytes of the file, packed or not.
    start = end if local else skip
    return Stored(path, files, start, 0, 0, encoding, kind, shape)


def _files(path: Path, name: str, header: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that a name, a pattern with numbers (NAME%03d 1 9 1) or a list stands for."""
    words = name.split()
    if words[0].upper() == "LIST":
        names = header.get("", "").split("\n")
    elif "%" in words[0] and len(words) >= 4:
        first, last, step = (_whole(word, path) for word in words[1:4])
        numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
        if len(numbers) > 1 << 16 or words[0].count("%") != 1:
            raise FormatError(f"{path.name} names its data files in a way that cannot be; correct the header.")
        names = [_numbered(words[0], number, path) for number in numbers]
    else:
        names = [name]
    found = [Path(one.strip()) for one in names if one.strip()]
    if any(one.is_absolute() or ".." in one.parts for one in found):
        raise FormatError(
            f"{path.name} names data outside its own folder; keep the two together and correct the header."
        )
    files = tuple(path.parent / one for one in found)
    if not files:
        raise FormatError(f"{path.name} names no data file; correct the header.")
    return files


def _numbered(pattern: str, number: int, path: Path) -> str:
    try:
        return pattern % number
    except (TypeError, ValueError):
        raise FormatError(f"{path.name} names its data files in a way that cannot be; correct the header.") from None


def _whole(text: str, path: Path) -> int:
    try:
        return int(text)
    except ValueError:
        raise FormatError(f"{path.name} has a field that is no whole number; the header is damaged.") from None
