"""Semantic head: foreground probability, instances are connected components (Long 2015, Ronneberger 2015).

The floor that the instance heads are measured against: touching objects come out as one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.heads import Truth
from medseg.heads.common import SURE, mean_per_label, mirrored, probability, scored, weights
from medseg.ops import components
from medseg.spec import SemanticSpec


class SemanticHead:
    """One map: foreground logit."""

    blendable = True
    tunable = {"threshold": (0.3, 0.4, 0.5, 0.6, 0.7)}

    def __init__(self, spec: SemanticSpec) -> None:
        self.spec = spec

    def channels(self, ndim: int) -> int:
        """One, whatever the dimension."""
        return 1

    def targets(self, labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None, spacing: tuple[float, ...]) -> Truth:
        """Return ``foreground`` (1, *shape) of 0 and 1, and ``weight``."""
        return {"foreground": (labels > 0)[None].astype(np.float32), "weight": weights(labels, ignore)}

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """Certain logits."""
        return (truth["foreground"] * 2 - 1) * SURE

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...]) -> Candidates:
        """Components of the thresholded probability; the score is its mean."""
        p = probability(maps[0])
        labels = components.largest_pieces(components.label(p > self.spec.threshold), self.spec.min_voxels)
        return scored(labels, mean_per_label(p, labels))

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Turned over."""
        return mirrored(maps, axis)

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """No context: components are joined across regions by the stitching."""
        return tuple(16 for _ in spacing)
