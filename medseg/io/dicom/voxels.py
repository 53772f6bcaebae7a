"""Read the voxels of DICOM planes: straight from the file where it is not compressed, through a worker where it is."""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medseg.errors import FormatError, InputError
from medseg.io.common import reading
from medseg.io.dicom import decode
from medseg.io.dicom.bounded import whole
from medseg.io.dicom.codestreams import Refused
from medseg.io.dicom.elements import deflated_bytes, inflated
from medseg.io.dicom.headers import Header
from medseg.io.dicom.pixels import THREADS, Stored, frame_size, highest, lowest, native, quiet, result

AnyArray = npt.NDArray[Any]

_MANY = 24  # frames from which a second worker is worth its start
_BIG = 32 << 20  # bytes from which the kind of memory matters
_BATCH = 16  # frames of one file that a worker is asked for at once


class _Wide(Exception):
    """Values do not fit int16."""


Item = tuple[Header, int, Stored]  # a frame: its file, its number in it from 0, how it is stored


def reader(items: Sequence[Item], shape: tuple[int, ...], groups: Sequence[int]) -> Callable[[], AnyArray]:
    """Return the function that reads all frames.

    Parameters
    ----------
    items : sequence of (Header, int, Stored)
        The frames in the order of slices.
    shape : tuple of int
        (channels, slices, rows, columns) of the result.
    groups : sequence of int
        Number of each slice to name it in errors, from 1.

    Returns
    -------
    callable
        Returns the array; raises FormatError for pixels that are damaged.
    """
    kind = result([one for *_, one in items])

    def load() -> AnyArray:
        # Sixteen stored bits and an intercept need more than 16 bits only on paper: half the memory is worth a try.
        if kind == np.int32 and all(_may_be_narrow(one) for *_, one in items):
            with suppress(_Wide):
                return read(np.dtype(np.int16))
        return read(kind)

    def read(dtype: np.dtype[Any]) -> AnyArray:
        out = _room(shape, dtype)

        def run(task: list[int]) -> None:
            header = items[task[0]][0]
            frames = [items[slot][1] for slot in task]
            for slot, pixels in zip(task, _pixels(header, frames, items, task, out), strict=True):
                if pixels is not None:
                    _fill(out[:, slot], pixels, items[slot][2], groups[slot])

        def runs(some: list[list[int]]) -> None:
            for task in some:
                run(task)

        with quiet(), ThreadPoolExecutor(THREADS) as pool:
            tasks = _tasks(items)
            list(pool.map(runs, [tasks[i : i + 4] for i in range(0, len(tasks), 4)]))
        return out

    return load


def _room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
    """Fresh memory for a volume, in pages of the usual size.

    NumPy asks for huge pages, which virtual machines hand out slowly: several times the seconds of everything else here.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _BIG or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.empty(shape, dtype)
    try:
        return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype).reshape(shape)
    except (OSError, ValueError):
        raise InputError(f"{size / 1e9:.1f} GB of voxels do not fit into memory; use a larger machine.") from None


def _tasks(items: Sequence[Item]) -> list[list[int]]:
    """Slots to read at one go: of a deflated file all, of a compressed file some, else one by one."""
    files: dict[Path, list[int]] = {}
    for slot, (header, *_) in enumerate(items):
        files.setdefault(header.path, []).append(slot)
    tasks = []
    for slots in files.values():
        header = items[slots[0]][0]
        deflated = header.syntax == DeflatedExplicitVRLittleEndian
        size = len(slots) if deflated else 1 if native(header) else _BATCH
        tasks += [slots[i : i + size] for i in range(0, len(slots), size)]
    return tasks


def _pixels(
    header: Header, frames: list[int], items: Sequence[Item], slots: list[int], out: AnyArray
) -> Iterator[AnyArray | None]:
    """Yield the stored pixels of frames of one file; None where they went straight into `out`."""
    number = slots[0] + 1
    try:
        if not native(header):
            workers = THREADS if len(items) >= _MANY else 1
            for pixels in decode.frames(header.path, frames, frame_size(header), workers):
                yield pixels
                number += 1
            return
        with reading(Path("A DICOM file"), "DICOM"):
            if header.big:
                _check_words(header, items[slots[0]][2].dtype.itemsize)
            if items[slots[0]][2].colour:
                dataset = _whole(header, frames)
                for frame in frames:
                    yield decode.frame(dataset, frame)
            elif header.syntax == DeflatedExplicitVRLittleEndian:
                yield from _deflated(header, frames, items[slots[0]][2], out.shape[2:])
            elif header.big:
                yield _big(header, frames[0], items[slots[0]][2], out.shape[2:])
            else:
                yield _native(header, frames[0], items[slots[0]][2], out[0, slots[0]])
    except Refused as error:
        raise FormatError(f"The pixels of slice {number} cannot be decoded: {error}.") from None
    except FormatError:
        raise FormatError(
            f"The pixels of slice {number} cannot be decoded: they are missing, damaged, or compressed in a way "
            "that is not supported."
        ) from None


def _whole(header: Header, frames: list[int]) -> pydicom.Dataset:
    if header.syntax == DeflatedExplicitVRLittleEndian:
        _, offset, length = header.pixels or ("", 0, 0)
        return inflated(header.path, offset + length)
    return whole(header.path)


def _deflated(header: Header, frames: list[int], one: Stored, shape: tuple[int, ...]) -> Iterator[AnyArray]:
    _, offset, length = header.pixels or ("", 0, 0)
    plain = deflated_bytes(header.path, offset + length)
    for frame in frames:
        yield np.frombuffer(plain, one.dtype, math.prod(shape), offset + frame * frame_size(header)).reshape(shape)


_own = threading.local()


def _native(header: Header, frame: int, one: Stored, target: AnyArray) -> AnyArray | None:
    """Read one frame of an uncompressed little-endian file, straight into `target` where the bytes are the values."""
    start = (header.pixels or ("", 0, 0))[1] + frame * frame_size(header)
    straight = one.exact and one.dtype == target.dtype
    # A buffer per thread: fresh memory for every slice costs more than the reading.
    if straight:
        buffer = target
    else:
        buffer = getattr(_own, "buffer", target)
        if buffer is target or buffer.shape != target.shape or buffer.dtype != one.dtype:
            buffer = _own.buffer = np.empty(target.shape, one.dtype)
    view = memoryview(buffer.data).cast("B")
    with header.path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while len(view):
            count = stream.readinto(view)
            if not count:
                raise FormatError("The file is shorter than it was.")
            view = view[count:]
    return None if straight else buffer


def _words(header: Header) -> int:
    """Bytes of the words that the pixels of a big-endian file are stored in, 0 if unknown."""
    with header.path.open("rb") as stream:
        stream.seek((header.pixels or ("", 8, 0))[1] - 8)  # the VR lies eight bytes before the value
        return {b"OB": 1, b"OW": 2, b"OF": 4, b"OD": 8}.get(stream.read(2), 0)


def _check_words(header: Header, width: int) -> None:
    """Raise Refused if the order of the bytes of big-endian pixels of `width` bytes is open."""
    # Of 32 bits in OW `pixels.stored` tells how they are taken.
    if (_words(header), width) not in ((1, 1), (2, 1), (2, 2), (2, 4), (4, 4), (8, 8)):
        raise Refused(f"the order of the bytes of {8 * width} big-endian bits is in doubt; export the series again")


def _big(header: Header, frame: int, one: Stored, shape: tuple[int, ...]) -> AnyArray:
    """Read one frame of an uncompressed big-endian file."""
    size = frame_size(header)
    start = frame * size
    words = _words(header) == 2 and one.dtype.itemsize == 1  # two pixels to a word, the first in its low byte
    odd = start % 2 if words else 0
    with header.path.open("rb") as stream:
        stream.seek((header.pixels or ("", 0, 0))[1] + start - odd)
        data = stream.read(odd + size + ((odd + size) % 2 if words else 0))
    if words:
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()[odd : odd + size]
    return np.frombuffer(data, one.dtype.newbyteorder(">")).astype(one.dtype).reshape(shape)


def _fill(out: AnyArray, pixels: AnyArray, one: Stored, number: int) -> None:
    """Turn stored pixels (rows, columns[, 3]) into values and put them into `out` (channels, rows, columns)."""
    if one.colour:
        if one.palette and pixels.dtype.itemsize > out.dtype.itemsize:
            pixels = (pixels >> 8).astype(out.dtype)
        if pixels.shape != (*out.shape[1:], 3) or not np.can_cast(pixels.dtype, out.dtype, "safe"):
            raise FormatError(f"Slice {number} holds pixels of another size or type than its header says.")
        out[...] = np.moveaxis(pixels, -1, 0)
        return
    if pixels.shape != out.shape[1:] or pixels.dtype.itemsize > one.dtype.itemsize:
        raise FormatError(f"Slice {number} holds pixels of another size or type than its header says.")
    padded = None
    if one.padding and one.dtype.kind != "f":
        outside = one.padding[0] < lowest(one) or one.padding[1] > highest(one)
        if one.inverted is not None or outside:
            padded = (pixels >= one.padding[0]) & (pixels <= one.padding[1])
    pixels = _masked(pixels, one)
    if one.inverted is not None:
        pixels = (one.inverted - pixels.astype(np.int64)).astype(one.dtype)
    if padded is not None:
        pixels = np.where(padded, one.dtype.type(lowest(one)), pixels)
    target = out[0]
    if one.table:
        first, entries = one.table
        target[...] = entries[np.clip(pixels.astype(np.int64) - first, 0, len(entries) - 1)]
    elif one.scale == (1.0, 0.0):
        target[...] = pixels
    elif target.dtype.kind == "i":
        if target.dtype == np.int16:
            _check_narrow(pixels, one)
        # The ends were checked to fit; what wraps on the way wraps back.
        if one.slope != 1:
            pixels = np.multiply(pixels, target.dtype.type(one.slope), dtype=target.dtype, casting="unsafe")
        np.add(pixels, target.dtype.type(one.intercept), out=target, dtype=target.dtype, casting="unsafe")
    else:
        target[...] = pixels.astype(np.float64) * one.slope + one.intercept


def _may_be_narrow(one: Stored) -> bool:
    """Whether int16 may hold the values, as far as the header can tell."""
    return one.dtype.itemsize <= 2 and one.scale != (1.0, 0.0) and max(map(abs, one.scale)) <= np.iinfo(np.int16).max


def _check_narrow(pixels: AnyArray, one: Stored) -> None:
    """Raise _Wide if a value does not fit int16."""

    def fits(end: int) -> bool:
        return -(1 << 15) <= one.slope * end + one.intercept < 1 << 15

    # Only the end that may not fit is looked for.
    if not (fits(lowest(one)) or fits(int(pixels.min()))) or not (fits(highest(one)) or fits(int(pixels.max()))):
        raise _Wide


def _masked(pixels: AnyArray, one: Stored) -> AnyArray:
    """Drop bits that hold something else (overlays, rubbish) and extend the sign of the highest stored one."""
    spare = 8 * one.dtype.itemsize - one.bits - one.shift
    if one.dtype.kind == "f" or (not spare and not one.shift):
        return pixels.astype(one.dtype, copy=False)
    wide = pixels.astype(one.dtype, copy=False)
    return (wide << spare) >> (spare + one.shift)
