"""A picture to look at: the image with each instance's outline in a colour of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.ops.files import write_whole

# Small images are enlarged to about this many pixels so that an outline is thinner than a nucleus; large ones are
# shrunk to the second.
_SMALLEST, _LARGEST = 900, 4096


def save_overlay(image: Image, instances: Instances, path: str | Path) -> None:
    """Write a PNG: a 2-D image whole, a volume as the slice along its first axis that shows the most instances.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    from PIL import Image as Picture

    out = io.BytesIO()
    Picture.fromarray(draw(image, instances)).save(out, format="PNG", compress_level=4)
    write_whole(path, out.getvalue())


def draw(image: Image, instances: Instances, smallest: int = _SMALLEST, largest: int = _LARGEST) -> NDArray[np.uint8]:
    """The overlay as an (y, x, 3) RGB array; rows and columns are scaled to square pixels, a patient is `turned`.

    The longer side gets at least about ``smallest`` pixels and at most ``largest``. An image on another grid is interpolated
    onto that of the instances.
    """
    if image.grid.known and instances.grid.known and not image.grid.matches(instances.grid):
        image = image.on(instances.grid)
    grid, labels = image.grid, instances.labels
    place: tuple[slice, ...] = tuple(slice(0, n) for n in grid.shape)
    if grid.ndim == 3:
        z = busiest_slice(instances)
        place = (slice(z, z + 1), *place[1:])
        labels = labels[z]
    rows, columns = _pixels(labels.shape, grid.spacing[-2:], smallest, largest)
    shown = np.ix_(rows, columns)  # a huge image is never whole in memory as floats
    voxels = image.voxels(place)
    plane = voxels.reshape(voxels.shape[0], *voxels.shape[-2:])
    channels = (0, 1, 2) if len(plane) >= 3 else (0, 0, 0)
    rgb = np.stack([plane[c][shown] for c in channels], axis=-1).astype(np.float32)
    low, high = np.percentile(rgb, [0.5, 99.8])
    rgb = np.clip((rgb - low) / max(float(high - low), 1e-6), 0, 1)
    labels = labels[shown]
    edge = inner_edge(labels, 2 if len(rows) >= 3 * grid.shape[-2] or len(columns) >= 3 * grid.shape[-1] else 1)
    rgb[edge] = colours(labels[edge])
    out: NDArray[np.uint8] = (rgb * 255).astype(np.uint8)
    return out[turned(grid, range(grid.ndim)[-2:])]


def turned(grid: Grid, axes: Sequence[int]) -> tuple[slice, slice]:
    """How rows and columns of a picture of two axes (down, right) run so that a patient lies as radiologists expect.

    The patient's right is at the left, or the front where the sides are not in the picture; front or head is at the top.
    """
    names = grid.orientation
    if names is None:
        return slice(None), slice(None)
    rows, columns = names[axes[0]] in "AS", names[axes[1]] in "RA"
    return slice(None, None, -1 if rows else 1), slice(None, None, -1 if columns else 1)


def busiest_slice(instances: Instances) -> int:
    """Index along the first axis of the slice that most instances reach, and of these the one they fill most.

    The middle one when there are none.
    """
    labels, axis = instances.labels, instances.grid.axes[0]
    start, stop = (instances.table[f"box_{axis}_{end}"].to_numpy(dtype=np.int64) for end in ("start", "stop"))
    if not len(start):
        return len(labels) // 2
    size = len(labels) + 1
    count = np.cumsum(np.bincount(start, minlength=size) - np.bincount(stop, minlength=size))[:-1]
    filled = np.count_nonzero(labels, axis=tuple(range(1, labels.ndim)))
    return int(np.lexsort((filled, count))[-1])


def _pixels(
    shape: tuple[int, ...], spacing: tuple[float, ...], smallest: int, largest: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which rows and columns to show, repeated or skipped: pixels become square and the picture gets a good size."""
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    size = max(shape)
    if size < smallest:
        size *= -(-smallest // size)
    unit = max(extent) / min(size, largest)
    out = []
    for n, e in zip(shape, extent, strict=True):
        m = max(1, round(e / unit))
        out.append(np.minimum(((np.arange(m) + 0.5) * n / m).astype(np.intp), n - 1))
    return out[0], out[1]


def inner_edge(labels: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """Pixels of an instance that have another label within ``width`` above, below, left or right."""
    other = np.zeros(labels.shape, dtype=bool)
    for d in range(1, width + 1):
        wide = np.pad(labels, d, mode="edge")
        for view in (wide[: -2 * d, d:-d], wide[2 * d :, d:-d], wide[d:-d, : -2 * d], wide[d:-d, 2 * d :]):
            other |= view != labels
    return other & (labels > 0)


def colours(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """A bright colour per id: hues a golden ratio apart, so that neighbours differ.

    From pink over red and green to sky blue: deep blue and violet cannot be seen on black or on stained nuclei.
    """
    hue = (0.85 + 0.7 * ((ids * 0.618034) % 1.0)) % 1.0
    wave = np.abs((hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    out: NDArray[np.float32] = (0.15 + 0.85 * np.clip(wave, 0, 1)).astype(np.float32)
    return out
