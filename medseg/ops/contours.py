"""Outlines of 2-D masks and masks of outlines, so that each gives back the other exactly.

Outlines run along the edges of pixels. A hole is joined to the outline around it by a keyhole (a channel of no width),
so that one closed polygon is right for readers that fill each polygon as for those that combine them by exclusive or.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Corner = tuple[int, int]  # (row, column); corner (0, 0) is the outer corner of pixel (0, 0)

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # east, south, west, north; a right turn is one further
_SNAP = 6  # decimals of a pixel: an outline through pixel centres must not depend on rounding


def outlines(mask: Mask) -> list[FloatArray]:
    """Return the outlines of a mask, holes joined in by keyholes.

    Parameters
    ----------
    mask : bool array (rows, columns)
        Pixels that touch at a corner only are outlined apart.

    Returns
    -------
    list of float64 arrays (N, 2)
        (row, column) of the vertices in pixels, pixel centres at whole numbers; not closed by repeating the first.

    Examples
    --------
    >>> outlines(np.array([[True, True]]))[0].tolist()
    [[-0.5, -0.5], [-0.5, 1.5], [0.5, 1.5], [0.5, -0.5]]
    """
    loops = _loops(_edges(mask))
    outer = [loop for loop in loops if _area(loop) > 0]
    holes = sorted((_from_top(loop) for loop in loops if _area(loop) < 0), key=lambda loop: loop[0])
    owner = {corner: number for number, loop in enumerate(outer) for corner in loop}
    for hole in holes:
        _join(outer, owner, hole)
    return [np.array(_straight(loop), dtype=np.float64) - 0.5 for loop in outer]


def _edges(mask: Mask) -> dict[Corner, list[int]]:
    """Return the directions of the boundary edges that leave each corner; the mask is on their right."""
    inside = np.pad(mask, 1)
    edges: dict[Corner, list[int]] = {}
    above, below = inside[:-1, 1:-1], inside[1:, 1:-1]
    before, after = inside[1:-1, :-1], inside[1:-1, 1:]
    for direction, found, shift in (
        (0, below & ~above, (0, 0)),
        (1, before & ~after, (0, 0)),
        (2, above & ~below, (0, 1)),
        (3, after & ~before, (1, 0)),
    ):
        for row, column in np.argwhere(found).tolist():
            edges.setdefault((row + shift[0], column + shift[1]), []).append(direction)
    return edges


def _loops(edges: dict[Corner, list[int]]) -> list[list[Corner]]:
    """Chain edges to closed loops of unit steps; where two cross at a corner, turn right, around the same pixel."""
    loops = []
    for start in sorted(edges):
        while edges[start]:
            corner, direction, loop = start, edges[start].pop(0), []
            while True:
                loop.append(corner)
                corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
                leaving = edges[corner]
                if corner == start and (direction + 1) % 4 not in leaving:
                    break
                turn = (direction + 1) % 4
                direction = turn if turn in leaving else leaving[0]
                leaving.remove(direction)
            loops.append(loop)
    return loops


def _area(loop: Sequence[Corner]) -> float:
    """Return the signed area, positive around the mask and negative around a hole."""
    points = np.array(loop)
    rows, columns = points[:, 0], points[:, 1]
    return float(np.sum(columns * np.roll(rows, -1) - np.roll(columns, -1) * rows)) / 2


def _from_top(loop: list[Corner]) -> list[Corner]:
    """Return the loop begun at its topmost, then leftmost corner."""
    first = loop.index(min(loop))
    return loop[first:] + loop[:first]


def _join(outer: list[list[Corner]], owner: dict[Corner, int], hole: list[Corner]) -> None:
    """Join a hole, begun at its top, to the outline above it: holes higher up are joined already."""
    row, column = hole[0]
    channel = []
    while (row, column) not in owner:
        channel.append((row, column))
        row -= 1
    number = owner[row, column]
    loop = outer[number]
    at = loop.index((row, column))
    # Down the channel, around the hole, and up again: the channel is passed twice and encloses nothing.
    way = [*channel[::-1], *hole[1:], hole[0], *channel[1:]] if channel else [*hole[1:], hole[0]]
    outer[number] = [*loop[: at + 1], *way, *loop[at:]] if channel else [*loop[: at + 1], *way, *loop[at + 1 :]]
    for corner in (*channel, *hole):
        owner.setdefault(corner, number)


def _straight(loop: list[Corner]) -> list[Corner]:
    """Drop the corners in the middle of a straight line; the ends of a channel stay."""
    kept = []
    for i, (row, column) in enumerate(loop):
        before, after = loop[i - 1], loop[(i + 1) % len(loop)]
        if (row - before[0], column - before[1]) != (after[0] - row, after[1] - column):
            kept.append((row, column))
    return kept


def fill(polygons: Sequence[FloatArray], shape: tuple[int, int]) -> Mask:
    """Return the pixels whose centres lie inside an odd number of polygons (even-odd rule, XOR of several).

    A centre on a left or upper edge is inside, one on a right or lower edge is not. Parts outside the shape are cut.

    Parameters
    ----------
    polygons : sequence of float arrays (N, 2)
        (row, column) of the vertices in pixels, pixel centres at whole numbers; closed implicitly.
    shape : two ints
        Rows and columns.

    Examples
    --------
    >>> fill([np.array([[-0.5, -0.5], [-0.5, 1.5], [0.5, 1.5], [0.5, -0.5]])], (2, 3)).tolist()
    [[True, True, False], [False, False, False]]
    """
    toggles = np.zeros((shape[0], shape[1] + 1), np.int64)
    for polygon in polygons:
        start = np.round(np.asarray(polygon, dtype=np.float64), _SNAP)
        stop = np.roll(start, -1, axis=0)
        # Each edge is crossed by the rows from ceil of its upper end to before ceil of its lower one.
        upper = np.where((start[:, :1] <= stop[:, :1]), start, stop)
        lower = np.where((start[:, :1] <= stop[:, :1]), stop, start)
        first = np.clip(np.ceil(upper[:, 0]), 0, shape[0]).astype(np.int64)
        last = np.clip(np.ceil(lower[:, 0]), 0, shape[0]).astype(np.int64)
        count = last - first
        edge = np.repeat(np.arange(len(start)), count)
        rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        height = np.where(count > 0, lower[:, 0] - upper[:, 0], 1.0)
        share = (rows - upper[edge, 0]) / height[edge]
        columns = upper[edge, 1] + share * (lower[edge, 1] - upper[edge, 1])
        where = np.clip(np.ceil(np.round(columns, _SNAP)), 0, shape[1]).astype(np.int64)
        np.add.at(toggles, (rows, where), 1)
    inside: Mask = (np.cumsum(toggles, axis=1)[:, :-1] & 1).astype(np.bool_)
    return inside
