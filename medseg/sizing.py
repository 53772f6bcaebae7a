"""How large the objects of an image are, for models that want them resampled to a size they know."""

from __future__ import annotations

import numpy as np

from medseg import heads, preprocess
from medseg.image import Image
from medseg.model import Model

_LOOK = {2: 384, 3: 96}  # side of what is looked at, in the model's voxels
_ZOOMS = (1.0, 0.5, 0.25, 0.125, 2.0)
_BETTER = 1.25  # by how much another zoom must explain the image better than the image's own


def estimate(image: Image, model: Model) -> float:
    """Median diameter of the objects in voxels of the finest axis; 0 where none are found.

    The middle of the image is segmented at several magnifications. The one at which the model is surest of most of the
    area, the sum of score times area, is believed.
    """
    best, found = 0.0, 0.0
    for zoom in _ZOOMS:
        sure, diameter = _at(image, model, zoom)
        if sure > best * (_BETTER if found else 1.0):
            best, found = sure, diameter
    return found


def _at(image: Image, model: Model, zoom: float) -> tuple[float, float]:
    """How sure the model is at a magnification, as a share of the area, and the diameter it sees, in the image's voxels."""
    plan, ndim = preprocess.plan(image, model.spec.preprocess, zoom), image.grid.ndim
    sides = [min(n, max(8, round(_LOOK[ndim] / f))) for n, f in zip(image.grid.shape, plan.factor, strict=True)]
    region = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(image.grid.shape, sides, strict=True))
    array = plan.read(image, region)
    if min(array.shape[1:]) < 8:
        return 0.0, 0.0
    found = heads.make(model.spec.heads[0]).decode(model.maps(array)[0], plan.model_spacing)
    if not len(found):
        return 0.0, 0.0
    size = np.array([mask.sum() for mask in found.masks], dtype=float)
    share = found.scores.astype(float) * size / np.prod(array.shape[1:])
    voxel = np.prod(np.array(plan.model_spacing) / min(plan.model_spacing))
    across = (size * voxel / (np.pi / 4 if ndim == 2 else np.pi / 6)) ** (1 / ndim)
    order = np.argsort(across)
    weight = np.cumsum(found.scores[order])
    middle = order[np.searchsorted(weight, weight[-1] / 2)]  # median of the objects, the surer the more
    return float(share.sum()), float(across[middle]) * min(plan.model_spacing) / min(plan.spacing)
