"""What a person does to one object: split, fill, grow, shrink, smooth, draw between slices. Pure functions on masks.

Arrays are (y, x) or (z, y, x); lengths are in the unit of ``spacing``, which is in array axis order. A mask is a part of the image
with a margin around the object: what an operation may need of the surroundings, the caller has to include.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter
from skimage.draw import line
from skimage.segmentation import watershed

from medseg.errors import InputError
from medseg.ops import components
from medseg.ops.separation import depth

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.floating]
Spacing = tuple[float, ...]


def split_by_seeds(
    mask: Mask, seeds: Sequence[Sequence[int]], spacing: Spacing, height: Floats | None = None
) -> Labels:
    """Cut an object into as many parts as it was clicked at, along the lowest passes between the clicks.

    Parameters
    ----------
    mask
        The object.
    seeds
        Two or more voxels, each of which is in the object or takes its nearest voxel.
    spacing
        Voxel size.
    height
        What is low where objects meet, such as a network's foreground; the distance to the border if left out.

    Returns
    -------
    int32 array
        1 to N in the order of the seeds, 0 outside. Watershed from markers (Meyer 1994).

    Raises
    ------
    InputError
        Fewer than two different places, or nothing to split.
    """
    if not mask.any():
        raise InputError("There is nothing to split here.")
    nearest = distance_transform_edt(~mask, sampling=spacing, return_distances=False, return_indices=True)
    markers = np.zeros(mask.shape, np.int32)
    for number, seed in enumerate(seeds, 1):
        at = tuple(int(min(max(0, i), n - 1)) for i, n in zip(seed, mask.shape, strict=True))
        markers[tuple(int(axis[at]) for axis in nearest)] = number
    if len(np.unique(markers)) - 1 < max(2, len(seeds)):
        raise InputError("To split an object, click at two or more different places of it.")
    wide = np.pad(mask, 1)  # a voxel of background around it, so that the border of the part is no border of the object
    shape = depth(wide, spacing, 0.5 * min(spacing))[(slice(1, -1),) * mask.ndim]
    landscape = shape if height is None else np.asarray(height, np.float64) * shape / max(float(shape.max()), 1e-9)
    out = watershed(-landscape, markers, mask=mask, connectivity=mask.ndim)  # type: ignore[no-untyped-call]
    return _whole(np.asarray(out).astype(np.int32), mask)


def split_by_line(mask: Mask, path: npt.ArrayLike, axis: int | None = None) -> Labels:
    """Cut an object along a line that was drawn across it, through all slices.

    Parameters
    ----------
    mask
        The object.
    path : array (N, ndim)
        Corners of the line, as voxel indices.
    axis
        In 3-D, the axis that the line is drawn through: the one the viewer looks along.

    Returns
    -------
    int32 array
        1 and 2, the larger part first; pieces that the line does not cut belong to the nearer one.

    Raises
    ------
    InputError
        The line leaves the object in one piece.
    """
    kept = [a for a in range(mask.ndim) if a != axis] if mask.ndim == 3 else [0, 1]
    corners = np.rint(np.asarray(path, dtype=float)[:, kept]).astype(int)
    size = tuple(mask.shape[a] for a in kept)
    cut = np.zeros(size, dtype=bool)
    for a, b in zip(corners[:-1], corners[1:], strict=True):
        rows, columns = line(*a.tolist(), *b.tolist())  # type: ignore[no-untyped-call]
        inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        cut[rows[inside], columns[inside]] = True
    down, up = cut[:-1, :-1] & cut[1:, 1:], cut[1:, :-1] & cut[:-1, 1:]  # no diagonal step to slip through
    cut[:-1, 1:] |= down
    cut[:-1, :-1] |= up
    whole = np.broadcast_to(cut if mask.ndim == 2 else np.expand_dims(cut, axis or 0), mask.shape)
    pieces, parts = components.label(mask), components.label(mask & ~whole)
    voxels = np.bincount(parts.ravel())
    owner = np.zeros(len(voxels), np.int64)  # the piece that a part was cut from
    owner[parts.ravel()] = pieces.ravel()
    best: list[int] = []
    for piece in range(1, int(pieces.max(initial=0)) + 1):
        mine: npt.NDArray[np.int64] = np.flatnonzero((owner == piece) & (np.arange(len(voxels)) > 0))
        two = mine[np.argsort(-voxels[mine], kind="stable")[:2]].tolist()
        if len(two) == 2 and (not best or voxels[two[1]] > voxels[best[1]]):
            best = two
    if not best:
        raise InputError("The line does not cut the object in two; draw it right across, from outside to outside.")
    out = np.zeros(mask.shape, np.int32)
    out[parts == best[0]], out[parts == best[1]] = (
        1,
        2,
    )  # what else there is, specks and other pieces, goes to the nearer one
    return _whole(out, mask)


def _whole(labels: Labels, mask: Mask) -> Labels:
    """Give what is left of a mask to its nearest part."""
    if not ((labels == 0) & mask).any():
        return labels
    nearest = distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return np.where(mask, labels[tuple(nearest)], 0).astype(np.int32)


def filled(mask: Mask) -> Mask:
    """Fill what the object encloses on all sides."""
    return np.asarray(binary_fill_holes(mask))


def resized(mask: Mask, by: float, spacing: Spacing) -> Mask:
    """Grow an object by a length, or shrink it by a negative one, measured to voxel centres."""
    if by >= 0:
        return np.asarray(distance_transform_edt(~mask, sampling=spacing) <= by)
    return np.asarray(distance_transform_edt(mask, sampling=spacing) > -by)


def smoothed(mask: Mask, by: float, spacing: Spacing) -> Mask:
    """Round an object off at the scale of a length; its volume stays as it is, but for ties."""
    soft = gaussian_filter(mask.astype(np.float32), [by / s for s in spacing])
    count = int(mask.sum())
    level = np.partition(soft.ravel(), -count)[-count]
    return np.asarray((soft >= level) & (soft > 0))


def interpolated(mask: Mask, axis: int, spacing: Spacing) -> Mask:
    """Draw the slices between those that are drawn, by the distance to their outlines (Raya and Udupa 1990).

    Raises
    ------
    InputError
        Fewer than two slices are drawn, or none lies between them.
    """
    rows = np.moveaxis(mask, axis, 0)
    drawn = np.flatnonzero(rows.any(axis=tuple(range(1, mask.ndim))))
    if len(drawn) < 2 or not (np.diff(drawn) > 1).any():
        raise InputError("To draw between slices, draw the object on two slices with empty ones between them.")
    plane = tuple(s for a, s in enumerate(spacing) if a != axis)
    out = rows.copy()
    for low, high in zip(drawn[:-1], drawn[1:], strict=True):
        if high - low < 2:
            continue
        first, last = _signed(rows[low], plane), _signed(rows[high], plane)
        for k in range(low + 1, high):
            share = (k - low) / (high - low)
            out[k] = (1 - share) * first + share * last > 0
    return np.moveaxis(out, 0, axis)


def _signed(mask: Mask, spacing: Spacing) -> npt.NDArray[np.float64]:
    """Distance to the outline, positive inside."""
    inner = distance_transform_edt(mask, sampling=spacing)
    outer = distance_transform_edt(~mask, sampling=spacing)
    return np.asarray(np.where(mask, inner - 0.5 * min(spacing), 0.5 * min(spacing) - outer))
