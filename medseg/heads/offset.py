"""Offset head: foreground and the vector from each voxel to its instance's centre.

After Neven et al. 2019 (arXiv:1906.11109) and Panoptic-DeepLab (Cheng et al. 2020, arXiv:1911.10194). Hundreds of
voxels vote for one centre, so that it is found although every single vector is noisy; touching objects vote for
different places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.heads import Memory, Truth
from medseg.heads.common import SURE, mean_per_label, mirrored, probability, relative, scored, weights
from medseg.ops import components
from medseg.ops.votes import agreement, centre_offsets, group_by_votes
from medseg.spec import OffsetSpec


class OffsetHead:
    """1 + ndim maps: foreground logit, then the offset per array axis divided by ``spec.scale``."""

    blendable = True
    remembers = True
    tunable = {
        "threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        "blur": (1.5, 2.0, 3.0, 4.0, 5.0, 6.0),
        "votes": (3.0, 8.0, 14.0, 20.0, 30.0, 45.0),
        "separation": (0.3, 0.5, 0.7, 0.9),
    }

    def __init__(self, spec: OffsetSpec) -> None:
        self.spec = spec

    def channels(self, ndim: int) -> int:
        """Foreground and one offset per axis."""
        return 1 + ndim

    def targets(self, labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None, spacing: tuple[float, ...]) -> Truth:
        """Return ``foreground`` (1, *shape), ``offset`` (ndim, *shape), ``share`` (1, *shape) and ``weight``.

        ``offset`` is in finest-axis voxels over ``spec.scale``. ``share`` weighs a voxel's offset by one over the square root of
        its instance's size, so that small instances are not drowned by large ones.
        """
        size = np.maximum(np.bincount(labels.ravel()), 1).astype(np.float32)
        size[0] = np.inf
        share = np.sqrt(100.0 / size)[labels]
        offset = centre_offsets(labels, relative(spacing)) / np.float32(self.spec.scale)
        return {
            "foreground": (labels > 0)[None].astype(np.float32),
            "offset": offset,
            "share": share[None].astype(np.float32),
            "weight": weights(labels, ignore),
        }

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """Certain foreground and the exact offsets."""
        return np.concatenate([(truth["foreground"] * 2 - 1) * SURE, truth["offset"]]).astype(np.float32)

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...], memory: Memory | None = None) -> Candidates:
        """Let the foreground vote; the score is mean probability times agreement of the votes."""
        s, memory = self.spec, {} if memory is None else memory
        if memory.get("scale") != s.scale:
            memory |= {"scale": s.scale, "probability": probability(maps[0]), "offsets": maps[1:] * np.float32(s.scale)}
        p, offsets = memory["probability"], memory["offsets"]
        labels, miss = group_by_votes(
            p,
            p > s.threshold,
            offsets,
            relative(spacing),
            blur=s.blur,
            votes=s.votes,
            separation=s.separation,
        )
        kept = components.largest_pieces(labels, s.min_voxels)
        return scored(kept, mean_per_label(p, kept) * agreement(kept, miss, relative(spacing)))

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Turned over, vectors along the axis with the other sign."""
        return mirrored(maps, axis, slice(1, None))

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """Three times ``scale``: about three radii of a usual nucleus."""
        return tuple(int(np.ceil(3 * self.spec.scale / s)) for s in relative(spacing))
