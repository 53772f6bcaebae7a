"""How large the objects of an image are, for models that want them resampled to a size they know."""

from __future__ import annotations

import numpy as np

from medseg import heads, preprocess
from medseg.calibration import calibrated
from medseg.image import Image
from medseg.model import Model
from medseg.ops.labels import across, usual_size

_LOOK = {2: 512, 3: 96}  # side of what is looked at, in the model's voxels
_SMALLEST = {2: 1 / 16, 3: 1 / 4}  # magnifications tried; what is read grows as they shrink
_LARGEST = 2.0
_NEAR = 0.9  # share of the largest known size from which objects may be larger ones of which only parts were seen


def estimate(image: Image, model: Model) -> float:
    """Usual diameter of the objects in voxels of the finest axis; 0 where none are found.

    The middle of the image is segmented as it is. Where the objects come out at the upper end of what the model knows, they may be
    larger ones that it saw parts of: the image is halved and looked at again; where they come out too small, it is doubled.
    So an image whose objects the model knows is looked at once. The usual object is the one that half of the area found belongs to
    objects larger than; specks hardly move it.
    """
    low, high = model.spec.preprocess.diameter or (0.0, float("inf"))
    zoom, found = 1.0, _diameter(image, model, 1.0)
    if found and found < low:
        return _diameter(image, model, _LARGEST) or found
    while zoom > _SMALLEST[image.grid.ndim] and (not found or found * zoom > _NEAR * high):
        zoom /= 2
        found = _diameter(image, model, zoom) or found
    return found or _diameter(image, model, _LARGEST)


def _diameter(image: Image, model: Model, zoom: float) -> float:
    """Usual diameter at a magnification, in voxels of the image; 0 where nothing is found."""
    plan, ndim = preprocess.plan(image, model.spec.preprocess, zoom), image.grid.ndim
    sides = [min(n, max(8, round(_LOOK[ndim] / f))) for n, f in zip(image.grid.shape, plan.factor, strict=True)]
    region = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(image.grid.shape, sides, strict=True))
    array = plan.read(image, region)
    if min(array.shape[-2:]) < 8:
        return 0.0
    found = heads.make(model.spec.heads[0]).decode(model.maps(array)[0], plan.model_spacing)
    size = np.array([mask.sum() for mask in found.masks], dtype=float)
    scores = calibrated(found.scores, size, model.spec.calibration)
    size = size[scores >= model.spec.min_score]
    if not size.size:
        return 0.0
    seen = float(across(usual_size(size), plan.model_spacing))
    return seen * min(plan.model_spacing) / min(plan.spacing)
