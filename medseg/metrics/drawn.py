"""One case as a picture: outlines of what was found, missed and invented, on the image or on the labels alone."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.cases import CaseScore, Faults
from medseg.metrics.contingency import Side
from medseg.metrics.counting import Mask, Rows

Labels = NDArray[np.integer]

# Okabe and Ito's colours, which people with any common kind of colour blindness tell apart; line and letter tell it too
COLOURS = {
    "found": "#56b4e9",
    "missed": "#f0e442",
    "spurious": "#e8590c",
    "drawn": "#ffffff",
    "ignored": "#9e9e9e",
    "halo": "#000000",
}
_GREYS = 64
_LARGEST = 512  # pixels of the image shown along either side; more is cut to the part with the most errors
_SIZE = 1040  # pixels that smaller images are enlarged to: about twice what a page shows, for fine lines in print
_LETTERS = 60  # of either kind in one picture


@dataclass(frozen=True)
class Drawing:
    """A picture and which part of the case it shows.

    Attributes
    ----------
    png : bytes
        The file.
    size : tuple of int
        Its width and height in pixels.
    shown : str
        Which slice and which part of it, in words; empty where it is all.
    """

    png: bytes
    size: tuple[int, int]
    shown: str


def draw(case: CaseScore, truth: Labels, prediction: Labels, image: NDArray[np.generic] | None = None) -> Drawing:
    """Draw the errors of a case at IoU .5.

    Outlines of true objects: found (blue) and missed (yellow, thick). Of predictions: spurious (orange, dashed) and those
    that have a partner (white, dotted). S marks true objects that were split, M predictions that merge several. Of a volume
    the slice with the most voxels in error is shown, of a large image the part with the most errors.

    Parameters
    ----------
    case : CaseScore
    truth, prediction : int array (y, x) or (z, y, x)
        Labels with the ids of the case.
    image : array (channel, *shape), optional
        Drawn in grey below the outlines, its channels averaged.
    """
    errors = case.errors()
    told = []
    spacing = case.table.spacing or (1.0,) * truth.ndim
    if truth.ndim == 3:
        axis, number = _slice(errors, truth, prediction, spacing)
        told.append(f"slice {number} of 0 to {truth.shape[axis] - 1} along {'zyx'[axis]}, the one with the most error")
        truth, prediction = np.take(truth, number, axis), np.take(prediction, number, axis)
        image = None if image is None else np.take(image, number, axis + 1)
        spacing = tuple(np.delete(spacing, axis))
        errors = {kind: _within(one, axis, number) for kind, one in errors.items()}
    window = _window(errors, truth.shape)
    if window is not None:
        told.append(f"rows {window[0].start} to {window[0].stop - 1}, columns {window[1].start} to {window[1].stop - 1}, "
                    "where most errors are")  # fmt: skip
        truth, prediction = truth[window], prediction[window]
        image = None if image is None else image[(slice(None), *window)]
    shown = _enlarged(truth.shape, spacing)
    canvas = _background(truth, prediction, image)[shown]
    _outlines(canvas, case, truth[shown], prediction[shown])
    _letters(canvas, errors, truth[shown], prediction[shown])
    return Drawing(_png(canvas), (canvas.shape[1], canvas.shape[0]), "; ".join(told))


def _slice(errors: dict[str, Faults], truth: Labels, prediction: Labels, spacing: tuple[float, ...]) -> tuple[int, int]:
    """Axis and index of the slice to show: across the coarsest axis, where most voxels belong to missed or spurious objects."""
    axis = int(np.argmax(spacing))
    others = tuple(a for a in range(3) if a != axis)
    count = np.zeros(truth.shape[axis], np.int64)
    for labels, faults in ((truth, errors["missed"]), (prediction, errors["spurious"])):
        for number, box in zip(faults.ids.tolist(), faults.boxes.tolist(), strict=True):
            inside = labels[tuple(map(slice, box[:3], box[3:]))] == number
            count[box[axis] : box[axis + 3]] += inside.sum(axis=others)
    if not count.any():
        count = np.count_nonzero((truth != 0) != (prediction != 0), axis=others)
    if not count.any():
        count = np.count_nonzero(truth, axis=others)
    return axis, int(np.argmax(count)) if count.any() else len(count) // 2


def _within(faults: Faults, axis: int, number: int) -> Faults:
    """The objects whose boxes reach a slice, with boxes in its plane."""
    start, stop = faults.boxes[:, :3], faults.boxes[:, 3:]
    some = (start[:, axis] <= number) & (number < stop[:, axis])
    return Faults(faults.ids[some], np.delete(faults.boxes[some], [axis, axis + 3], axis=1))


def _window(errors: dict[str, Faults], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Where most errors are in a plane too large to be shown whole; None for one that is not."""
    if max(shape) <= _LARGEST:
        return None
    size = np.minimum(shape, _LARGEST)
    boxes = np.concatenate([errors[kind].boxes for kind in ("missed", "spurious", "split", "merged")])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    middle = np.array(shape) / 2
    if len(centre):
        some = centre[:: max(1, len(centre) // 1000)]
        near = [int((np.abs(centre - one) <= size / 2).all(axis=1).sum()) for one in some]
        middle = some[int(np.argmax(near))]
    start = np.clip((middle - size / 2).astype(int), 0, np.array(shape) - size)
    rows, columns = (slice(a, a + n) for a, n in zip(start.tolist(), size.tolist(), strict=True))
    return rows, columns


def _enlarged(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[Rows, ...]:
    """Which rows and columns to show, repeated or left out so that pixels become square and the picture large."""
    unit = min(spacing)
    wide = [n * s / unit for n, s in zip(shape, spacing, strict=True)]
    scale = max(1.0, _SIZE // max(wide)) if max(wide) <= 2 * _SIZE else 2 * _SIZE / max(wide)
    count = [max(1, round(w * scale)) for w in wide]
    return np.ix_(*[(np.arange(n) * size // n).astype(np.intp) for n, size in zip(count, shape, strict=True)])


def _background(truth: Labels, prediction: Labels, image: NDArray[np.generic] | None) -> NDArray[np.uint8]:
    """Grey levels 0 to 63: the image, or the truth light and predictions beside it darker."""
    if image is None:
        out = np.full(truth.shape, 6, np.uint8)
        out[prediction != 0] = 14
        out[truth != 0] = 26
        return out
    planes = image.astype(np.float64)
    grey = np.nan_to_num(planes, nan=0.0, posinf=0.0, neginf=0.0).mean(axis=0)
    low, high = np.percentile(grey, [0.5, 99.8])
    level = np.clip((grey - low) / max(float(high - low), 1e-9), 0, 1)
    shade: NDArray[np.uint8] = np.round(level * (_GREYS - 10)).astype(np.uint8)  # white stays for outlines
    return shade


def _outlines(canvas: NDArray[np.uint8], case: CaseScore, truth: Labels, prediction: Labels) -> None:
    """Put the outlines into a picture."""
    thin = _pen(canvas)
    thick = 2 * thin
    y, x = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    marks, sides = case.marks, case.table
    missed, spurious = marks.missed[0], marks.spurious[0]
    has_partner = np.zeros(sides.n_prediction, np.bool_)
    has_partner[marks.partner[0][marks.partner[0] >= 0]] = True
    dotted, dashed = (x + y) // (2 * thin) % 2 == 0, (x + y) // (4 * thin) % 3 < 2
    lines: tuple[tuple[str, Labels, Side, Mask, int, Mask | bool], ...] = (
        ("ignored", truth, sides.truth, sides.truth.ignored, thin, dotted),
        ("drawn", prediction, sides.prediction, has_partner, thin, dotted),
        ("found", truth, sides.truth, marks.found[0], thin, True),
        ("missed", truth, sides.truth, missed, thick, True),
        ("spurious", prediction, sides.prediction, spurious, thick, dashed),
    )
    for kind, labels, side, some, width, pattern in lines:
        if some.any():
            canvas[_edge(np.where(_of(labels, side, some), labels, 0), width) & pattern] = _index(kind)


def _of(labels: Labels, side: Side, some: Mask) -> Mask:
    """Voxels of some of the objects of a side."""
    ids = side.ids[some]
    row = np.minimum(np.searchsorted(ids, labels.ravel().astype(np.int64)), len(ids) - 1)
    inside: Mask = (ids[row] == labels.ravel()).reshape(labels.shape)
    return inside


def _edge(labels: Labels, width: int) -> Mask:
    """Pixels of objects within `width` of another value; the border of the picture is no edge."""
    edge = np.zeros(labels.shape, np.bool_)
    for axis in range(2):
        for step in range(1, min(width + 1, labels.shape[axis])):
            low = (slice(None),) * axis + (slice(None, -step),)
            high = (slice(None),) * axis + (slice(step, None),)
            differs = labels[low] != labels[high]
            edge[low] |= differs
            edge[high] |= differs
    edge &= labels != 0
    return edge


def _letters(canvas: NDArray[np.uint8], errors: dict[str, Faults], truth: Labels, prediction: Labels) -> None:
    """Write S on true objects that were split and M on predictions that merge, with a dark rim."""
    from PIL import Image, ImageDraw, ImageFont

    pen = _pen(canvas)
    font = ImageFont.load_default(18 * pen)
    for letter, labels, faults in (("S", truth, errors["split"]), ("M", prediction, errors["merged"])):
        for number in faults.ids[:_LETTERS].tolist():
            rows, columns = np.nonzero(labels == number)
            if not len(rows):
                continue
            near = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)  # within the object
            place = (float(columns[near]), float(rows[near]))
            for rim, colour in ((2 * pen, "halo"), (0, "drawn")):
                mask = Image.new("1", (canvas.shape[1], canvas.shape[0]))
                ImageDraw.Draw(mask).text(place, letter, fill=1, font=font, anchor="mm", stroke_width=rim)
                canvas[np.asarray(mask)] = _index(colour)


def _pen(canvas: NDArray[np.uint8]) -> int:
    """Pixels of a thin line."""
    return max(1, round(2 * max(int(n) for n in canvas.shape) / _SIZE))


def _index(kind: str) -> int:
    return _GREYS + list(COLOURS).index(kind)


def _png(canvas: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(canvas)
    greys = [v for n in range(_GREYS) for v in (n * 255 // (_GREYS - 1),) * 3]
    picture.putpalette(greys + [int(c[i : i + 2], 16) for c in COLOURS.values() for i in (1, 3, 5)])
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()
