"""What an edit changed in a label array, as runs: small to keep, quick to take back, exact.

An edit of a whole organ changes millions of voxels but few runs of equal ones, so a delta is as large as the object's surface.
The array itself, as the change from nothing to what it is, is a delta too.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from medseg.errors import FormatError
from medseg.ops.compiled import compiled

Labels = npt.NDArray[np.int32]
Place = tuple[slice, ...]

_HEAD = np.dtype([("start", "<i8"), ("length", "<i4"), ("old", "<i4"), ("new", "<i4")])


@dataclass(frozen=True, eq=False)
class Delta:
    """Runs of voxels that lie behind one another in C order and changed from one id to another.

    Parameters
    ----------
    shape : tuple of int
        Of the whole array.
    runs : structured array (N,)
        start (flat index), length, old, new.
    """

    shape: tuple[int, ...]
    runs: npt.NDArray[Any]

    @classmethod
    def between(cls, before: Labels, after: Labels, place: Place, shape: Sequence[int]) -> Self:
        """Compare two states of one part of an array.

        Parameters
        ----------
        before, after : int32 array
            The part, in C order or not.
        place : tuple of slice
            Where it lies in the whole.
        shape : sequence of int
            Of the whole.
        """
        if before.shape != after.shape:
            raise ValueError(f"states of {before.shape} and {after.shape} voxels cannot be compared")
        width = before.shape[-1]
        old = np.ascontiguousarray(before).reshape(-1, width)
        new = np.ascontiguousarray(after).reshape(-1, width)
        rows = _rows(place, shape)
        none = np.zeros(0, _HEAD)  # counted first, so that there is room for just as many
        runs = np.zeros(_fill(old, new, rows, *(none[name] for name in _HEAD.names or ())), _HEAD)
        _fill(old, new, rows, *(runs[name] for name in _HEAD.names or ()))
        return cls(tuple(shape), runs)

    @classmethod
    def of_voxels(cls, flat: npt.ArrayLike, old: npt.ArrayLike, new: npt.ArrayLike, shape: Sequence[int]) -> Self:
        """Make a delta of single voxels by flat index; of a voxel named twice the first old and the last new id count."""
        index = np.asarray(flat, dtype=np.int64).ravel()
        before = np.broadcast_to(np.asarray(old, np.int32), index.shape)
        after = np.broadcast_to(np.asarray(new, np.int32), index.shape)
        if not len(index):
            return cls(tuple(shape), np.zeros(0, _HEAD))
        order = np.argsort(index, kind="stable")
        index, before, after = index[order], before[order], after[order]
        first = np.flatnonzero(np.diff(index, prepend=-1))
        last = np.append(first[1:], len(index)) - 1
        index, before, after = index[first], before[first], after[last]
        kept = before != after
        index, before, after = index[kept], before[kept], after[kept]
        if not len(index):
            return cls(tuple(shape), np.zeros(0, _HEAD))
        joined = (
            (np.diff(index, prepend=-2) == 1) & (np.diff(before, prepend=-1) == 0) & (np.diff(after, prepend=-1) == 0)
        )
        # a run ends at the end of its line, as in `between`
        joined &= index % shape[-1] != 0
        starts = np.flatnonzero(~joined)
        runs = np.zeros(len(starts), _HEAD)
        runs["start"], runs["old"], runs["new"] = index[starts], before[starts], after[starts]
        runs["length"] = np.diff(np.append(starts, len(index)))
        return cls(tuple(shape), runs)

    @classmethod
    def of_array(cls, labels: Labels) -> Self:
        """Return the change from an empty array to this one."""
        return cls.between(
            np.broadcast_to(np.int32(0), labels.shape), labels, tuple(slice(0, n) for n in labels.shape), labels.shape
        )

    @classmethod
    def joined(cls, deltas: Sequence[Self], shape: Sequence[int]) -> Self:
        """Make one delta of several, made one after the other."""
        if len(deltas) == 1:
            return deltas[0]
        runs = np.concatenate([delta.runs for delta in deltas]) if deltas else np.zeros(0, _HEAD)
        length = runs["length"]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        index = np.repeat(runs["start"], length) + within
        return cls.of_voxels(index, np.repeat(runs["old"], length), np.repeat(runs["new"], length), shape)

    def of(self, id: int) -> Self:
        """Return what concerns one id: where it lost or gained voxels."""
        return type(self)(self.shape, self.runs[(self.runs["old"] == id) | (self.runs["new"] == id)])

    def __len__(self) -> int:
        """Return the number of voxels that changed."""
        return int(self.runs["length"].sum())

    def apply(self, labels: Labels) -> None:
        """Write the new ids into an array of the whole."""
        _write(self._flat(labels), self.runs["start"], self.runs["length"], self.runs["new"])

    def revert(self, labels: Labels) -> None:
        """Write the old ids back."""
        _write(self._flat(labels), self.runs["start"], self.runs["length"], self.runs["old"])

    def _flat(self, labels: Labels) -> Labels:
        if labels.shape != self.shape or not labels.flags.c_contiguous:
            raise ValueError(f"a delta of {self.shape} does not fit an array of {labels.shape} in this order")
        return labels.reshape(-1)

    @property
    def place(self) -> Place:
        """Smallest box of all that changed; empty slices if nothing did."""
        if not len(self.runs):
            return tuple(slice(0, 0) for _ in self.shape)
        start = np.unravel_index(self.runs["start"], self.shape)
        lows = [int(index.min()) for index in start]
        highs = [int(index.max()) + 1 for index in start]
        highs[-1] = int((start[-1] + self.runs["length"]).max())  # runs lie within one line
        return tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))

    @property
    def ids(self) -> set[int]:
        """Ids that gained or lost voxels, background left out."""
        return {int(i) for i in np.unique(np.concatenate([self.runs["old"], self.runs["new"]]))} - {0}

    def to_bytes(self) -> bytes:
        """Return the runs, compressed."""
        return zlib.compress(self.runs.tobytes(), 1)

    @classmethod
    def from_bytes(cls, data: bytes, shape: Sequence[int]) -> Self:
        """Read what `to_bytes` gave.

        Raises
        ------
        FormatError
            The bytes are damaged or reach outside of the array.
        """
        size = prod(shape)
        unpack = zlib.decompressobj()
        try:
            raw = unpack.decompress(data, size * _HEAD.itemsize + 1)
            if not unpack.eof:
                raise ValueError
            runs = np.frombuffer(raw, _HEAD)
        except (zlib.error, ValueError):
            raise FormatError("The record of an edit is damaged.") from None
        if len(runs) and (
            runs["start"].min() < 0 or runs["length"].min() < 1 or (runs["start"] + runs["length"]).max() > size
        ):
            raise FormatError("The record of an edit reaches outside of the image.")
        return cls(tuple(shape), runs)


def _rows(place: Place, shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """Flat index of the first voxel of each line of a part, in the whole."""
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    out = np.array([place[-1].start], dtype=np.int64)
    for axis in range(len(shape) - 2, -1, -1):
        steps = np.arange(place[axis].start, place[axis].stop, dtype=np.int64) * strides[axis]
        out = (steps[:, None] + out[None]).ravel()
    return out


@compiled
def _fill(old: Any, new: Any, rows: Any, start: Any, length: Any, before: Any, after: Any) -> int:
    """Write the runs, as far as there is room for them; return how many there are."""
    k = -1
    for i in range(old.shape[0]):
        inside = False
        for j in range(old.shape[1]):
            a, b = old[i, j], new[i, j]
            if a == b:
                inside = False
                continue
            begins = not inside or a != old[i, j - 1] or b != new[i, j - 1]
            inside = True
            k += begins
            if k < len(start):
                if begins:
                    start[k], length[k], before[k], after[k] = rows[i] + j, 0, a, b
                length[k] += 1
    return k + 1


@compiled
def _write(flat: Any, start: Any, length: Any, value: Any) -> None:
    for k in range(len(start)):
        for i in range(start[k], start[k] + length[k]):
            flat[i] = value[k]
