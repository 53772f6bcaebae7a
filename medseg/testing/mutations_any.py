"""Damage to bytes of any kind, for `medseg.testing.mutations`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Draw = np.random.Generator
Mutation = Callable[[bytes, Draw], bytes]

INTEGERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
    2**62,
    2**64 - 1,
)


def pick(draw: Draw, values: Sequence[T]) -> T:
    """Return one of several."""
    return values[int(draw.integers(len(values)))]


def place(data: bytes, draw: Draw) -> int:
    """Return a position, half of the time in the first kilobyte, where headers are."""
    size = max(1, len(data))
    return int(draw.integers(min(size, 1024) if draw.random() < 0.5 else size))


def flip(data: bytes, draw: Draw) -> bytes:
    """Flip single bits."""
    out = bytearray(data)
    for _ in range(int(draw.integers(1, 9))):
        if out:
            out[place(data, draw)] ^= 1 << int(draw.integers(8))
    return bytes(out)


def overwrite(data: bytes, draw: Draw) -> bytes:
    """Put noise, zeros or ones over a run."""
    at, length = place(data, draw), int(draw.integers(1, 64))
    run = pick(draw, (draw.bytes(length), bytes(length), b"\xff" * length))
    return data[:at] + run + data[at + length :]


def truncate(data: bytes, draw: Draw) -> bytes:
    """Cut off the end."""
    return data[: place(data, draw)]


def remove(data: bytes, draw: Draw) -> bytes:
    """Take a run out, so that all behind it moves."""
    at = place(data, draw)
    return data[:at] + data[at + int(draw.integers(1, 64)) :]


def repeat(data: bytes, draw: Draw) -> bytes:
    """Put a run in twice, or very often."""
    at, length = place(data, draw), int(draw.integers(1, 200))
    return data[:at] + data[at : at + length] * int(pick(draw, (2, 2, 3, 500))) + data[at + length :]


def integer(data: bytes, draw: Draw) -> bytes:
    """Put an awkward number where a length, a count or an offset may be."""
    width, at = int(pick(draw, (1, 2, 4, 8))), place(data, draw)
    value = pick(draw, INTEGERS) & ((1 << 8 * width) - 1)
    return data[:at] + value.to_bytes(width, pick(draw, ("little", "big"))) + data[at + width :]


def append(data: bytes, draw: Draw) -> bytes:
    """Let something follow."""
    return data + pick(draw, (draw.bytes(30), bytes(5000), data))


ANY: tuple[Mutation, ...] = (flip, overwrite, truncate, remove, repeat, integer, append)
