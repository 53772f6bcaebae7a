"""What a reader needs in a picture of a slice: which way is which, how long a centimetre is, which outline is whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.grid import Grid
from medseg.io.overlay import turned

Pixels = npt.NDArray[np.uint8]

_NAMED = 12  # instances of a slice that get their id, the largest ones
_BARS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)  # mm
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
_MARGIN = 4  # pixels


def marked(
    picture: Pixels, ids: npt.NDArray[np.int32], tints: dict[int, list[int]], grid: Grid, shown: list[int], unit: float
) -> Pixels:
    """Write ids beside outlines, letters of direction at the edges, and a scale bar.

    Parameters
    ----------
    picture : uint8 (rows, columns, 3)
        Square pixels, `turned` as radiologists expect a patient.
    ids : int32 (rows, columns)
        Instance that each pixel belongs to, turned likewise.
    tints
        Colour of each id.
    grid
        Of what is shown; letters where it lies in a patient, the bar where its spacing is known.
    shown
        Its axes that run down and to the right.
    unit
        mm of a pixel.
    """
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont

    out = Picture.fromarray(picture)
    pen = ImageDraw.Draw(out)
    high, wide = ids.shape
    small, large = ImageFont.load_default(13), ImageFont.load_default(15)

    def write(place: tuple[float, float], text: str, tint: tuple[int, ...], anchor: str, font: Any = large) -> None:
        pen.text(place, text, fill=tint, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))

    sizes = np.bincount(ids.ravel())
    sizes[0] = 0
    for id in np.argsort(-sizes, kind="stable")[: min(_NAMED, np.count_nonzero(sizes))].tolist():
        rows, columns = np.nonzero(ids == id)
        top = int(np.argmin(rows - columns))  # to the upper right of it
        column = min(int(columns[top]) + 4, wide - 10 * len(str(id)))
        write((column, max(int(rows[top]) - 2, 14)), str(id), tuple(tints[id]), "ls", small)
    white = (255, 255, 255)
    places = ((_MARGIN, high / 2), (wide - _MARGIN, high / 2), (wide / 2, _MARGIN), (wide / 2, high - _MARGIN))
    for place, letter, anchor in zip(places, facing(grid, shown), ("lm", "rm", "mt", "mb"), strict=True):
        write(place, letter, white, anchor)
    bar = bar_for(wide * unit) if grid.known else 0.0
    if bar:
        foot, length = high - 2 * _MARGIN, bar / unit
        pen.line([(2 * _MARGIN, foot), (2 * _MARGIN + length, foot)], fill=(0, 0, 0), width=5)
        pen.line([(2 * _MARGIN, foot), (2 * _MARGIN + length, foot)], fill=white, width=3)
        told = f"{bar:g} mm" if bar >= 1 else f"{bar * 1000:g} um"
        write((2 * _MARGIN, foot - 5), told, white, "lb", small)
    return np.asarray(out)


def letters(grid: Grid, shown: Sequence[int]) -> tuple[str, str, str, str]:
    """Directions at the left, right, top and bottom of a picture of two axes (down, right); "" where there is no anatomy.

    An oblique axis is named by its nearest direction.
    """
    names = grid.orientation
    if names is None:
        return "", "", "", ""
    down, right = names[shown[0]], names[shown[1]]
    return _OPPOSITE[right], right, _OPPOSITE[down], down


def facing(grid: Grid, shown: Sequence[int]) -> tuple[str, str, str, str]:
    """The same of a picture that is `turned`."""
    left, right, top, bottom = letters(grid, shown)
    rows, columns = turned(grid, shown)
    if columns.step == -1:
        left, right = right, left
    if rows.step == -1:
        top, bottom = bottom, top
    return left, right, top, bottom


def bar_for(width: float) -> float:
    """Length of the scale bar for a picture so many mm wide: the longest round one of at most a third; 0 for none."""
    return float(max((bar for bar in _BARS if bar <= width / 3), default=0))
