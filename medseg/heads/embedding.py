"""Embedding head: foreground, an embedding per voxel, how wide its instance is there, and which voxels speak for it.

After Neven et al. 2019 (arXiv:1906.11109) and EmbedSeg (Lalit et al. 2022, doi:10.1016/j.media.2022.102523). A voxel points to a
place that its instance shares, and says how far from there its instance still reaches: small instances ask for exact pointing,
large ones are content with less, and both can lie side by side. The place is not given to the network; it is where the voxels of
the instance point on average. The paper takes the seed score for the foreground too; here the foreground has its own map, since
at the border of an instance its Gaussian, which the seed score learns, is about one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from medseg.candidates import Candidates
from medseg.heads import Truth
from medseg.heads.common import SURE, mean_per_label, mirrored, probability, relative, scored, weights
from medseg.ops.grow import seed_and_grow
from medseg.ops.labels import dense
from medseg.spec import EmbeddingSpec

# A bandwidth map of 0 says sigma = NARROW * scale; it counts between -BROAD and BROAD, so that no sigma is 0 or endless.
NARROW = 0.5
BROAD = 4.0


class EmbeddingHead:
    """Foreground logit; offset per array axis over ``scale``; log bandwidth, one or one per axis; seed logit."""

    blendable = True
    tunable = {
        "threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        "seed": (0.3, 0.5, 0.7, 0.8, 0.9),
        "claim": (0.2, 0.35, 0.5, 0.65),
        "apart": (0.05, 0.1, 0.2, 0.35, 0.5),
    }

    def __init__(self, spec: EmbeddingSpec) -> None:
        self.spec = spec

    def channels(self, ndim: int) -> int:
        """Foreground, an offset per axis, one bandwidth or one per axis, seed."""
        return 2 + ndim + (ndim if self.spec.per_axis else 1)

    def targets(self, labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None, spacing: tuple[float, ...]) -> Truth:
        """Return ``foreground`` (1, *shape), ``ids`` (1, *shape), ``place`` (ndim, *shape) and ``weight``.

        ``ids`` are numbered from 1, so that float32 holds them exactly. ``place`` is where each voxel lies, in finest-axis voxels
        over ``spec.scale``: what has to be added to an offset for the embedding.
        """
        scale = self.spec.scale
        axes = [np.arange(n) * (s / scale) for n, s in zip(labels.shape, relative(spacing), strict=True)]
        return {
            "foreground": (labels > 0)[None].astype(np.float32),
            "ids": dense(labels)[1][None].astype(np.float32),
            "place": np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32),
            "weight": weights(labels, ignore),
        }

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """Certain foreground and seeds, offsets to the centroid, and a sigma of a quarter of the radius."""
        ids, place = truth["ids"][0].astype(np.intp), truth["place"]
        inside = ids > 0
        count = np.maximum(np.bincount(ids.ravel()), 1)
        offset = np.stack([(np.bincount(ids.ravel(), weights=p.ravel()) / count)[ids] - p for p in place]) * inside
        square = np.bincount(ids.ravel(), weights=(offset**2).sum(axis=0).ravel()) / count
        sigma = np.maximum(np.sqrt(square) / 3, 0.5 / self.spec.scale)[ids]
        width = np.where(inside, np.clip(np.log(sigma / NARROW), -BROAD, BROAD), 0)
        sure = (truth["foreground"] * 2 - 1) * SURE
        widths = [width[None]] * (len(place) if self.spec.per_axis else 1)
        return np.concatenate([sure, offset, *widths, sure]).astype(np.float32)

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...]) -> Candidates:
        """Grow instances from the best seeds; the score is mean seed score times mean Gaussian of the voxels."""
        s, ndim, step = self.spec, maps.ndim - 1, relative(spacing)
        grown = seed_and_grow(
            np.asarray(maps[-1]),
            probability(maps[0]) > s.threshold,
            maps[1 : 1 + ndim] * np.float32(s.scale),
            np.clip(maps[1 + ndim : -1], -BROAD, BROAD) + np.float32(np.log(NARROW * s.scale)),
            step,
            lowest=float(logit(s.seed)),
            claim=s.claim,
            apart=s.apart,
            min_voxels=s.min_voxels,
        )
        fit = mean_per_label(probability(maps[-1]), grown.labels) * mean_per_label(grown.phi, grown.labels)
        return scored(grown.labels, fit)

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Turned over, vectors along the axis with the other sign."""
        return mirrored(maps, axis, slice(1, None))

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """Three times ``scale``: about three radii of a usual nucleus."""
        return tuple(int(np.ceil(3 * self.spec.scale / s)) for s in relative(spacing))
