"""Facts about label arrays: valid ids, dense numbering, boxes, centroids, pieces. Background is 0."""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt

from medseg.errors import InputError

IntArray = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]

LAST_ID = int(np.iinfo(np.int32).max)


def whole(labels: npt.ArrayLike) -> Labels:
    """Return labels as C-order int32, refusing values that would change."""
    values = np.asarray(labels)
    if values.ndim not in (2, 3) or values.size == 0:
        raise InputError(f"Labels of shape {values.shape} must be (y, x) or (z, y, x), with at least one voxel.")
    if values.dtype.kind not in "biuf":
        raise InputError(f"Labels of type {values.dtype} are not ids; convert them to integers.")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise InputError(
            "Labels hold NaN, infinite or fractional values; were they interpolated? Resample by nearest. A map of chances "
            "is no mask: give it a limit, medseg segment MAP --threshold '>0.5'."
        )
    if values.dtype.kind in "if" and values.min() < 0:
        raise InputError(f"Labels hold the negative value {values.min()}; ids are positive and background is 0.")
    if values.max() > LAST_ID:
        raise InputError(f"Label {values.max()} is over {LAST_ID}, the largest id; renumber the instances first.")
    return np.ascontiguousarray(values, dtype=np.int32)


def dense(labels: Labels) -> tuple[IntArray, Labels]:
    """Return the sorted positive ids and the labels renumbered 1 to N in that order."""
    last = int(labels.max())
    if last > 2 * labels.size + 1000:  # a table over all ids would be larger than the array
        ids, inverse = np.unique(labels, return_inverse=True)
        renumbered = inverse.reshape(labels.shape).astype(np.int32)
        return (
            (ids[1:].astype(np.int64), renumbered) if ids[0] == 0 else (ids.astype(np.int64), renumbered + np.int32(1))
        )
    present = np.bincount(labels.ravel(), minlength=last + 1) > 0
    present[0] = False
    if present[1:].all():
        return np.arange(1, last + 1), labels
    return np.flatnonzero(present), np.cumsum(present, dtype=np.int32)[labels]


def statistics(dense: Labels, count: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Return voxels (N,), boxes (N, 2 * ndim) half-open and centroids (N, ndim) of labels 1 to N."""
    found = cc3d.statistics(dense, no_slice_conversion=True)
    ends = found["bounding_boxes"][1 : count + 1].astype(np.int64)  # (N, 2 * ndim): low, high of each axis, inclusive
    boxes = np.concatenate([ends[:, 0::2], ends[:, 1::2] + 1], axis=1)
    return found["voxel_counts"][1 : count + 1].astype(np.int64), boxes, found["centroids"][1 : count + 1]


def facts(labels: Labels) -> tuple[IntArray, Labels, IntArray, IntArray, npt.NDArray[np.float64]]:
    """Ids and dense labels (`dense`), then the `statistics` of each id."""
    last = int(labels.max())
    if last > labels.size // 100:  # ids with gaps: numbers for all of them would cost more than to close the gaps first
        ids, labels = dense(labels)
        return (ids, labels, *statistics(labels, len(ids)))
    voxels, boxes, centroids = statistics(labels, last)
    there = voxels > 0
    if not there.all():
        labels = np.concatenate([[0], np.cumsum(there)]).astype(np.int32)[labels]
    return np.flatnonzero(there) + 1, labels, voxels[there], boxes[there], centroids[there]


def pieces(dense: Labels, boxes: IntArray) -> IntArray:
    """Count the connected pieces of each label, looking only where there are any."""
    n, count = dense.ndim, len(boxes)
    if not count:
        return np.zeros(0, np.int64)
    region = tuple(map(slice, boxes[:, :n].min(axis=0).tolist(), boxes[:, n:].max(axis=0).tolist()))
    inner = np.require(
        dense[region], requirements=["C", "W"]
    )  # cc3d refuses read-only arrays, though it does not write
    parts = cc3d.connected_components(inner, connectivity=8 if n == 2 else 26)
    owner = np.zeros(int(parts.max()) + 1, np.int32)
    owner[parts.ravel()] = inner.ravel()  # every voxel of a piece writes the same label
    return np.bincount(owner, minlength=count + 1)[1:].astype(np.int64)


def per_label(values: npt.ArrayLike | None, default: float, ids: IntArray, what: str) -> npt.NDArray[np.float64]:
    """Values given for each of ``ids``, or ``default`` for all; ``what`` names them in the error."""
    if values is None:
        return np.full(len(ids), default, dtype=np.float64)
    given = np.asarray(values, dtype=np.float64)
    if given.shape != ids.shape:
        raise InputError(f"{what[0].upper()}{what[1:]} of shape {given.shape} do not fit {len(ids)} instances.")
    return given


def across(voxels: npt.ArrayLike, spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Diameter of a disc (2-D) or ball (3-D) of so many voxels, in voxels of the finest axis.

    Examples
    --------
    >>> across([np.pi * 25], (1.0, 1.0)).tolist()
    [10.0]
    """
    ndim = len(spacing)
    size = np.asarray(voxels, np.float64) * np.prod(np.array(spacing) / min(spacing))
    return np.asarray((size / (np.pi / 4 if ndim == 2 else np.pi / 6)) ** (1 / ndim))


def usual_size(sizes: npt.NDArray[np.number]) -> float:
    """The size that half of all voxels belong to objects of at least; a swarm of specks hardly moves it.

    Examples
    --------
    >>> usual_size(np.array([400, 380, 420] + [4] * 100))
    400.0
    """
    order = np.sort(sizes)[::-1]
    return float(order[np.searchsorted(np.cumsum(order), order.sum() / 2)])


def usual(
    labels: Labels, share: float, kinds: npt.NDArray[np.int32] | None = None, voxels: IntArray | None = None
) -> npt.NDArray[np.bool_]:
    """Which of the labels 1 to N are not much smaller than the others: at least ``share`` of the usual size.

    With ``kinds`` (N,) the usual size is that of the same kind. ``voxels`` (N,) of each label, where they are known.

    Examples
    --------
    >>> usual(np.array([1] * 50 + [2] * 40 + [3], np.int32)[None], 0.1).tolist()
    [True, True, False]
    """
    size = np.bincount(labels.ravel(), minlength=1)[1:] if voxels is None else voxels
    if not size.any():
        return np.ones(len(size), np.bool_)
    groups = np.zeros(len(size), np.int32) if kinds is None else kinds
    keep = np.ones(len(size), np.bool_)
    for kind in np.unique(groups).tolist():
        some = (groups == kind) & (size > 0)
        if some.any():
            keep[some] = size[some] >= share * usual_size(size[some])
    return keep


def taken(labels: Labels, keep: npt.NDArray[np.bool_]) -> Labels:
    """Only some of the labels 1 to N, renumbered in order."""
    if keep.all():
        return labels
    return np.concatenate([[0], np.cumsum(keep) * keep]).astype(np.int32)[labels]
