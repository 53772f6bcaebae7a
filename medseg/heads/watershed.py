"""Watershed head: foreground and normalised inner distance, cores flooded over the foreground.

After Naylor et al. 2018 (doi:10.1109/TMI.2018.2865709, a regressed distance map) and Graham et al. 2019 (HoVer-Net,
doi:10.1016/j.media.2019.101563, distances normalised per instance): a small nucleus gets as clear a core as a large one.
"""

from __future__ import annotations

import edt
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum
from skimage.segmentation import watershed

from medseg.candidates import Candidates
from medseg.heads import Truth
from medseg.heads.common import SURE, mean_per_label, mirrored, probability, relative, scored, weights
from medseg.ops import components
from medseg.spec import WatershedSpec


class WatershedHead:
    """Two maps: foreground logit, distance to the instance's border as a logit of its share of the largest."""

    blendable = True
    tunable = {"threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), "core": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)}

    def __init__(self, spec: WatershedSpec) -> None:
        self.spec = spec

    def channels(self, ndim: int) -> int:
        """Two, whatever the dimension."""
        return 2

    def targets(self, labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None, spacing: tuple[float, ...]) -> Truth:
        """Return ``foreground`` (1, *shape), ``distance`` (1, *shape) in 0..1, and ``weight``."""
        return {
            "foreground": (labels > 0)[None].astype(np.float32),
            "distance": inner_distance(labels, relative(spacing))[None],
            "weight": weights(labels, ignore),
        }

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """Certain foreground and the exact distance as a logit."""
        d = np.clip(truth["distance"], 1e-5, 1 - 1e-5)
        return np.concatenate([(truth["foreground"] * 2 - 1) * SURE, np.log(d / (1 - d))]).astype(np.float32)

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...]) -> Candidates:
        """Flood the cores over the foreground; the score is the mean foreground probability."""
        p, distance = probability(maps[0]), probability(maps[1])
        foreground = p > self.spec.threshold
        cores = components.label(foreground & (distance > self.spec.core))
        flooded = watershed(-distance, markers=cores, mask=foreground)  # type: ignore[no-untyped-call]
        labels = flooded.astype(np.int32)
        labels = components.largest_pieces(labels, self.spec.min_voxels)
        return scored(labels, mean_per_label(p, labels))

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Turned over."""
        return mirrored(maps, axis)

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """48 voxels of the finest axis: about three radii of a usual nucleus."""
        return tuple(int(np.ceil(48 / s)) for s in relative(spacing))


def inner_distance(labels: NDArray[np.int32], spacing: tuple[float, ...]) -> NDArray[np.float32]:
    """Distance of each voxel to the outside of its instance, divided by the largest in that instance.

    The array's border is no instance border: an object cut by the crop keeps its distances.
    """
    if not labels.any():
        return np.zeros(labels.shape, dtype=np.float32)
    distance = edt.edt(np.ascontiguousarray(labels), anisotropy=spacing, black_border=False).astype(np.float32)
    ids = np.arange(labels.max() + 1)
    peak = np.asarray(maximum(distance, labels, ids), dtype=np.float32)
    peak[peak <= 0] = 1
    if np.isinf(peak).any():  # one object fills the crop and has no border at all
        return np.ones(labels.shape, dtype=np.float32)
    return np.where(labels > 0, distance / peak[labels], 0).astype(np.float32)
