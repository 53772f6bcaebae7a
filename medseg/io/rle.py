"""Run-length coded masks as COCO has them: lengths of runs of 0 and 1 in turn, down the columns, 0 first.

Everything here is checked before it is used, since damaged codes make the C library read memory that is not the mask's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Runs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]  # y start, x start, y stop, x stop, half-open

MOST_PIXELS = 2**32 - 1  # pycocotools counts them in 32 bits
MOST_FILLED = 2**29 - 1  # of an image with polygons: see `pack`


def unpack(text: str) -> Runs:
    """Return the runs of COCO's compressed code: numbers of five bits a character, from the third on as differences.

    Raises
    ------
    ValueError
        A character that is none of the code's, or an unfinished number.
    """
    letters = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if not len(letters):
        return np.zeros(0, np.int64)
    more = (letters & 32) > 0
    if letters.min() < 0 or letters.max() > 63 or more[-1]:
        raise ValueError("not a code")
    first = np.flatnonzero(np.concatenate([[True], ~more[:-1]]))
    length = np.diff(np.append(first, len(letters)))
    if length.max() > 12:  # 60 bits: more than any image has
        raise ValueError("not a code")
    place = np.arange(len(letters)) - np.repeat(first, length)
    values = np.add.reduceat((letters & 31) << (5 * place), first)
    negative = (letters[first + length - 1] & 16) > 0
    values -= negative.astype(np.int64) << (5 * length)
    for turn in (1, 2):  # a count is told as the difference to the one two before it, but for the first three
        values[turn::2] = np.cumsum(values[turn::2])
    return values


def pack(runs: Runs) -> str:
    """Return COCO's compressed code of runs.

    Not by pycocotools: it takes six letters for the longest number, writes seven from 2^29 on, and breaks its memory.
    """
    values = runs.copy()
    values[3:] -= runs[1:-2]
    letters = np.empty((len(values), 8), np.int64)
    done = np.zeros(len(values), np.bool_)
    kept = np.zeros(letters.shape, np.bool_)
    for place in range(letters.shape[1]):
        low, values = values & 31, values >> 5
        ends = np.where(low & 16, values == -1, values == 0)
        letters[:, place] = low | np.where(ends, 0, 32)
        kept[:, place], done = ~done, done | ends
    return bytes((letters[kept] + 48).astype(np.uint8)).decode("ascii")


def check(runs: Runs, shape: tuple[int, int]) -> Runs:
    """Return the runs if they cover an image of `shape` (y, x) exactly.

    Raises
    ------
    ValueError
        A run is negative, or their sum is not the number of pixels.
    """
    if (runs < 0).any() or (runs > MOST_PIXELS).any() or int(runs.sum()) != shape[0] * shape[1]:
        raise ValueError("the runs do not fit the image")
    return runs


def ones(runs: Runs) -> tuple[Runs, Runs]:
    """Return start and stop of every run of 1 that is not empty, as positions down the columns."""
    ends = np.cumsum(runs)
    start, stop = ends[:-1:2], ends[1::2]
    real = stop > start
    return start[real], stop[real]


def box(runs: Runs, shape: tuple[int, int]) -> Box | None:
    """Return the box around the mask, None if it is empty."""
    height = shape[0]
    start, stop = ones(runs)
    if not len(start):
        return None
    first, last = start // height, (stop - 1) // height
    if (first != last).any():  # a run that goes over the foot of a column goes on at the head of the next
        return 0, int(first[0]), height, int(last[-1]) + 1
    return int((start % height).min()), int(first[0]), int(((stop - 1) % height).max()) + 1, int(last[-1]) + 1


def paint(runs: Runs, shape: tuple[int, int], within: Box) -> Mask:
    """Return the mask within its box; memory goes with the columns of the box, not with the image."""
    height = shape[0]
    top, left, bottom, right = within
    start, stop = ones(runs)
    step = np.zeros((right - left) * height + 1, np.int8)
    step[start - left * height] += 1
    step[stop - left * height] -= 1
    columns = np.cumsum(step[:-1], dtype=np.int8).reshape(right - left, height)
    return np.ascontiguousarray(columns[:, top:bottom].T.astype(np.bool_))


def encode(mask: Mask, corner: tuple[int, int], shape: tuple[int, int]) -> Runs:
    """Return the runs of a mask whose first pixel lies at `corner` (y, x) of an image of `shape`."""
    rows = np.pad(mask, ((1, 1), (0, 0))).astype(np.int8)
    change = np.diff(rows, axis=0).T  # (columns, rows + 1)
    offset = (np.arange(mask.shape[1])[:, None] + corner[1]) * shape[0] + corner[0] + np.arange(mask.shape[0] + 1)
    start, stop = offset[change == 1], offset[change == -1]
    apart = start[1:] != stop[:-1]  # the foot of one column and the head of the next are one run
    if len(start):
        start, stop = start[np.append(True, apart)], stop[np.append(apart, True)]
    ends = np.empty(2 * len(start) + 1, np.int64)
    ends[:-1:2], ends[1::2], ends[-1] = start, stop, shape[0] * shape[1]
    runs = np.diff(ends, prepend=0)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs


def fill(polygons: list[list[float]], shape: tuple[int, int]) -> Runs:
    """Return the runs of the union of polygons [x, y, x, y, ...], by pycocotools' own rule of which pixels are inside.

    The image has at most `MOST_FILLED` pixels.
    """
    from pycocotools import mask  # type: ignore[import-untyped,unused-ignore]

    whole = mask.merge(mask.frPyObjects(polygons, *shape))
    return check(unpack(whole["counts"].decode("ascii")), shape)


def fill_cost(polygons: list[list[float]]) -> float:
    """Return about how many bytes pycocotools takes to fill polygons: it walks their outlines in fifths of a pixel."""
    total = 0.0
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        total += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()) + len(points)
    return total * 5 * 20
