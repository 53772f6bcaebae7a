"""Connected components and clean-up of label arrays. Arrays are (y, x) or (z, y, x); label 0 is background."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from medseg.ops.compiled import compiled
from medseg.ops.tally import sizes as sizes


def label(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Connected components of a mask, full connectivity (8 in 2-D, 26 in 3-D), numbered from 1."""
    return _components(mask.astype(np.uint8))


def pieces(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Connected pieces of equal label, numbered from 1; pieces of different labels stay apart though they touch."""
    return _components(labels)


def largest_pieces(labels: NDArray[np.int32], min_voxels: int = 1) -> NDArray[np.int32]:
    """Keep the largest connected piece of each label, drop what is smaller than ``min_voxels``, renumber from 1.

    Returns
    -------
    ndarray of int32
        Labels 1..N in the order of the old ids, without gaps.
    """
    parts = pieces(labels)
    size = sizes(parts)
    size[0] = 0
    owner = _owners(parts.ravel(), labels.ravel(), len(size))
    order = np.lexsort((-size, owner))  # by label, the largest piece first
    order = order[(owner[order] > 0) & (size[order] >= min_voxels)]
    _, first = np.unique(owner[order], return_index=True)
    new = np.zeros(len(size), dtype=np.int32)
    new[order[first]] = np.arange(1, len(first) + 1)
    return np.asarray(_renumbered(parts.ravel(), new)).reshape(parts.shape)


def largest_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece of a mask, full connectivity; of equal ones the first."""
    parts = label(mask)
    size = sizes(parts)
    size[0] = 0
    return np.asarray(parts == size.argmax()) if size.any() else mask


def _components(array: NDArray[np.generic]) -> NDArray[np.int32]:
    array = np.require(array, requirements=["C", "W"])  # cc3d refuses read-only arrays, though it does not write
    out = cc3d.connected_components(array, connectivity=26 if array.ndim == 3 else 8, out_dtype=np.uint32)
    return np.asarray(out).astype(np.int32, copy=False).reshape(array.shape)


@compiled
def _owners(parts: Any, labels: Any, count: int) -> Any:
    """Label of each piece."""
    out = np.zeros(count, np.int64)
    for k in range(len(parts)):
        out[parts[k]] = labels[k]
    return out


@compiled
def _renumbered(parts: Any, new: Any) -> Any:
    out = np.empty(len(parts), np.int32)
    for k in range(len(parts)):
        out[k] = new[parts[k]]
    return out
