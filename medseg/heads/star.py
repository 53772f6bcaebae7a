"""Star head: object probability, and the distance to the object's border along many rays.

After Schmidt et al. 2018 (StarDist, arXiv:1806.03535) and Weigert et al. 2020 (StarDist 3-D, arXiv:1908.03636). Each voxel proposes
a whole object, so that a shape is drawn even where its border is faint, and an object of which only a part stands out keeps its
outline. What cannot be seen from one point, such as the far arm of a C, is lost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from medseg.candidates import Candidates
from medseg.heads import Truth
from medseg.heads.common import mirrored, probability, relative, scored, weights
from medseg.heads.watershed import inner_distance
from medseg.ops import components
from medseg.ops.rays import directions, mean_lengths, measure, paint
from medseg.spec import StarSpec

_SHORTEST = 0.5  # of a ray: the border of a voxel of the finest axis


class StarHead:
    """1 + K maps: logit of the object probability, then per ray the logarithm of its length over ``scale``."""

    blendable = True
    tunable = {
        "threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        "overlap": (0.3, 0.4, 0.5, 0.6),
        "blur": (0.5, 1.0, 1.5, 2.0),
        "average": (0.0, 1.0, 2.0, 3.0),
    }

    def __init__(self, spec: StarSpec) -> None:
        self.spec = spec

    def channels(self, ndim: int) -> int:
        """Probability and one length per ray."""
        return 1 + self._count(ndim)

    def targets(self, labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None, spacing: tuple[float, ...]) -> Truth:
        """Return ``probability`` (1, *shape) in 0..1, ``rays`` (K, *shape) and ``weight``.

        The probability is the distance to the border as a share of the object's largest. Rays are in voxels of the finest axis,
        0 on background, and negative where they leave the array or end in an ignored voxel: the object is at least that long.
        """
        step = relative(spacing)
        return {
            "probability": inner_distance(labels, step)[None],
            "rays": measure(labels, directions(labels.ndim, self._count(labels.ndim)), step, ignore),
            "weight": weights(labels, ignore),
        }

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """Exact probability and rays; those that leave the array are as long as the voxel's mean ray, if not longer."""
        p = np.clip(truth["probability"], 1e-5, 1 - 1e-5)
        ends = np.maximum(truth["rays"], 0)
        middle = ends.sum(axis=0) / np.maximum((ends > 0).sum(axis=0), 1)
        rays = np.where(truth["rays"] < 0, np.maximum(-truth["rays"], middle), truth["rays"])
        rays = np.log(np.maximum(rays, _SHORTEST) / self.spec.scale)
        return np.concatenate([np.log(p / (1 - p)), rays]).astype(np.float32)

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...]) -> Candidates:
        """Draw the stars of the probability's peaks, surest first, but none that lie in another; the score is the probability."""
        s, step, shape = self.spec, relative(spacing), maps.shape[1:]
        p = probability(maps[0])
        smooth = gaussian_filter(p, s.blur / np.asarray(step), mode="nearest")
        centres = peaks(smooth, p, s.threshold)
        score = smooth[tuple(centres.T)]
        order = np.argsort(-score, kind="stable")
        centres, score = centres[order], score[order]
        rays = directions(len(shape), self._count(len(shape)))
        longest = float(np.linalg.norm(np.multiply(shape, step)))
        lengths = mean_lengths(
            np.asarray(maps[1:], dtype=np.float32), p, centres, rays, step, s.scale, s.average, (_SHORTEST, longest)
        )
        labels, _ = paint(shape, centres, lengths, rays, step, overlap=s.overlap, rounded=len(shape) == 3)
        kept = components.largest_pieces(labels, s.min_voxels)
        number = np.zeros(int(kept.max(initial=0)) + 1, dtype=np.int64)  # of the star, index = label
        number[kept.ravel()] = labels.ravel()
        raw = np.concatenate([[0.0], score.astype(np.float64)])[number]
        return scored(kept, raw)

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Turned over, and every ray's length from the ray that points where it would; in 3-D from the nearest to it."""
        vectors = directions(maps.ndim - 1, self._count(maps.ndim - 1)).vectors
        sign = np.ones(vectors.shape[1])
        sign[axis] = -1
        other = (vectors * sign) @ vectors.T
        turned: NDArray[np.float32] = mirrored(maps, axis)[np.concatenate([[0], 1 + other.argmax(axis=1)])]
        return turned

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """Three usual rays: about three radii of a usual nucleus."""
        return tuple(int(np.ceil(3 * self.spec.scale / s)) for s in relative(spacing))

    def _count(self, ndim: int) -> int:
        return self.spec.rays if ndim == 2 else self.spec.rays_3d


def peaks(smooth: NDArray[np.float32], p: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Voxels (n, ndim) above the threshold where the smoothed probability is highest around; one of each plateau, its middle."""
    top = (smooth == maximum_filter(smooth, size=3)) & (smooth > threshold)
    where = np.argwhere(top)
    group = components.label(top)[top] - 1
    if not len(where) or group.max() + 1 == len(where):
        return where
    count = np.bincount(group)
    middle = np.stack([np.bincount(group, weights=w) for w in where.T], axis=1) / count[:, None]
    away = ((where - middle[group]) ** 2).sum(axis=1)
    order = np.lexsort((away, group))
    return where[np.sort(order[np.flatnonzero(np.diff(group[order], prepend=-1))])]
