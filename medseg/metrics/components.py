"""Components of masks of volumes, their dilation, and which of two labellings share voxels."""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, generate_binary_structure

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint32]
Ints = NDArray[np.int64]


def components(mask: Mask, connectivity: Literal[18, 26]) -> tuple[Labels, int]:
    """Connected components, numbered from 1, and their number."""
    array = np.require(mask, requirements=["C", "W"]).view(np.uint8)  # cc3d refuses read-only arrays
    labels: NDArray[np.generic] = cc3d.connected_components(array, connectivity=connectivity, out_dtype=np.uint32)
    found = labels.reshape(mask.shape).astype(np.uint32, copy=False)
    return found, int(found.max(initial=0))


def facts(labels: Labels, count: int) -> tuple[Ints, Ints]:
    """Voxels (N,) and boxes (N, 6) of labels 1 to N, half-open."""
    found = cc3d.statistics(labels, no_slice_conversion=True)
    ends = found["bounding_boxes"][1 : count + 1].astype(np.int64)
    return found["voxel_counts"][1 : count + 1].astype(np.int64), np.concatenate([ends[:, 0::2], ends[:, 1::2] + 1], 1)


def dilated(mask: Mask, steps: int) -> Mask:
    """The mask dilated by its 18 nearest neighbours, worked out around each component only."""
    out = mask.copy()
    if not steps:
        return out
    structure = generate_binary_structure(3, 2)
    labels, count = components(mask, 26)
    _, boxes = facts(labels, count)
    low, high = np.maximum(boxes[:, :3] - steps, 0), np.minimum(boxes[:, 3:] + steps, mask.shape)
    for k, (start, stop) in enumerate(zip(low.tolist(), high.tolist(), strict=True), 1):
        region = tuple(map(slice, start, stop))
        out[region] |= binary_dilation(labels[region] == k, structure, steps)
    return out


def shared(a: Labels, b: Labels) -> tuple[Ints, Ints, Ints]:
    """Rows (labels less 1) of the pairs of labels that share voxels, and how many."""
    both = (a > 0) & (b > 0)
    one, two = a[both].astype(np.int64) - 1, b[both].astype(np.int64) - 1
    width = int(two.max(initial=0)) + 1
    key, shared = np.unique(one * width + two, return_counts=True)
    return key // width, key % width, shared.astype(np.int64)
