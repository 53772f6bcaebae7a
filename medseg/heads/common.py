"""What several heads share: probability, weights of a partly annotated image, scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.special import expit

from medseg.candidates import Candidates
from medseg.ops import tally

# The logit that stands for certainty in perfect maps; expit(12) = 0.999994.
SURE = np.float32(12.0)


def relative(spacing: tuple[float, ...]) -> tuple[float, ...]:
    """Spacing in units of the finest axis: heads are scale-free, only anisotropy matters to them."""
    finest = min(spacing)
    return tuple(s / finest for s in spacing)


def weights(labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """(1, *shape): how much the loss counts, 0 where ``ignore`` says that nobody annotated.

    1, but up to 3 on instances of fewer than 100 voxels and two voxels around them: beside large ones, small ones would hardly
    matter. The voxels around count as much, or the network would draw small instances too large.
    """
    size = np.maximum(np.bincount(labels.ravel()), 1)
    size[0] = 100
    out = np.clip(np.sqrt(100 / size), 1, 3).astype(np.float32)[labels]
    if out.max(initial=1) > 1:
        out = maximum_filter(out, size=5)
    if ignore is not None:
        out[ignore] = 0
    return out[None]


def mirrored(maps: NDArray[np.float32], axis: int, vectors: slice | None = None) -> NDArray[np.float32]:
    """Maps (C, *shape) as they would be if an axis ran the other way; of ``vectors``, a channel per axis, its own changes sign."""
    out = np.flip(maps, axis + 1)
    if vectors is not None:
        out = out.copy()
        out[(vectors.start or 0) + axis] *= -1
    return out


def probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic of the raw map, float32."""
    return expit(logits.astype(np.float32, copy=False))  # type: ignore[no-any-return]


def mean_per_label(values: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Mean of ``values`` over each label, index = label (index 0: background)."""
    return tally.totals(labels, values) / np.maximum(tally.sizes(labels), 1)


def scored(labels: NDArray[np.int32], raw: NDArray[np.float64]) -> Candidates:
    """Candidates with raw scores in 0..1, which the model's calibration makes chances of; ``raw`` is indexed by label, 0 unused."""
    return Candidates.from_labels(labels, scores=raw[1:].astype(np.float32))
