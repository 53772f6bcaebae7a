"""Flow head: foreground and the direction to the middle of the instance, followed step by step.

After Stringer et al. 2021 (Cellpose, doi:10.1038/s41592-020-01018-x). A direction is the same for a small and a large object and
for a round and a bent one, which makes it the easiest of the vectors to learn; the price is the walk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.heads import Memory, Truth
from medseg.heads.common import SURE, mean_per_label, mirrored, probability, relative, scored, weights
from medseg.ops import components
from medseg.ops.flow import Paths, flows
from medseg.ops.votes import agreement, group_by_votes
from medseg.spec import FlowSpec


class FlowHead:
    """1 + ndim maps: foreground logit, then the direction per array axis."""

    blendable = True
    remembers = True
    tunable = {
        "threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        "blur": (0.7, 1.0, 1.5, 2.0, 3.0),
        "votes": (3.0, 8.0, 14.0, 20.0, 30.0, 45.0),
        "separation": (0.3, 0.5, 0.7, 0.9, 1.1),
    }

    def __init__(self, spec: FlowSpec) -> None:
        self.spec = spec

    def channels(self, ndim: int) -> int:
        """Foreground and one direction per axis."""
        return 1 + ndim

    def targets(self, labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None, spacing: tuple[float, ...]) -> Truth:
        """Return ``foreground`` (1, *shape), ``flow`` (ndim, *shape) of unit vectors, and ``weight``."""
        return {
            "foreground": (labels > 0)[None].astype(np.float32),
            "flow": flows(labels, relative(spacing)),
            "weight": weights(labels, ignore),
        }

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """Certain foreground and the exact directions."""
        return np.concatenate([(truth["foreground"] * 2 - 1) * SURE, truth["flow"]]).astype(np.float32)

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...], memory: Memory | None = None) -> Candidates:
        """Follow the flow and group the voxels by where they end; the score is mean probability times agreement."""
        s, memory = self.spec, {} if memory is None else memory
        if "paths" not in memory:
            p = probability(maps[0])
            memory |= {"probability": p, "paths": Paths(np.asarray(maps[1:]), p, relative(spacing))}
        p, paths = memory["probability"], memory["paths"]
        ends, foreground = paths.ends(s.threshold), p > s.threshold
        labels, miss = group_by_votes(
            p, foreground, ends, relative(spacing), blur=s.blur, votes=s.votes, separation=s.separation
        )
        kept = components.largest_pieces(labels, s.min_voxels)
        return scored(kept, mean_per_label(p, kept) * agreement(kept, miss, relative(spacing)))

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Turned over, vectors along the axis with the other sign."""
        return mirrored(maps, axis, slice(1, None))

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """48 voxels of the finest axis: about three radii of a usual nucleus."""
        return tuple(int(np.ceil(48 / s)) for s in relative(spacing))
