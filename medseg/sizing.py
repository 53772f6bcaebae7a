"""How large the objects of an image are, for models that want them resampled to a size they know."""

from __future__ import annotations

import numpy as np

from medseg import heads, preprocess
from medseg.image import Image
from medseg.model import Model
from medseg.ops.labels import usual_size

_LOOK = {2: 512, 3: 96}  # side of what is looked at, in the model's voxels
_SMALLEST, _LARGEST = 1 / 16, 2.0  # magnifications tried
_NEAR = 0.9  # share of the largest known size from which objects may be larger ones of which only parts were seen


def estimate(image: Image, model: Model) -> float:
    """Usual diameter of the objects in voxels of the finest axis; 0 where none are found.

    The middle of the image is segmented as it is. Where the objects come out at the upper end of what the model knows, they may be
    larger ones that it saw parts of: the image is halved and looked at again; where they come out too small, it is doubled.
    So an image whose objects the model knows is looked at once. The usual object is the one that half of the area found belongs to
    objects larger than; specks hardly move it.
    """
    low, high = model.spec.preprocess.diameter or (0.0, float("inf"))
    zoom, found, turned = 1.0, 0.0, 0
    while _SMALLEST <= zoom <= _LARGEST:
        seen = _diameter(image, model, zoom)
        if seen == 0 and turned == 0:
            zoom, turned = zoom / 2, -1  # nothing: perhaps all is too large
            continue
        found = seen or found
        turn = -1 if seen * zoom > _NEAR * high else 1 if 0 < seen * zoom < low else 0
        if turn == 0 or turn == -turned:
            break
        zoom, turned = (zoom / 2 if turn < 0 else zoom * 2), turn
    return found


def _diameter(image: Image, model: Model, zoom: float) -> float:
    """Usual diameter at a magnification, in voxels of the image; 0 where nothing is found."""
    plan, ndim = preprocess.plan(image, model.spec.preprocess, zoom), image.grid.ndim
    sides = [min(n, max(8, round(_LOOK[ndim] / f))) for n, f in zip(image.grid.shape, plan.factor, strict=True)]
    region = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(image.grid.shape, sides, strict=True))
    array = plan.read(image, region)
    if min(array.shape[1:]) < 8:
        return 0.0
    found = heads.make(model.spec.heads[0]).decode(model.maps(array)[0], plan.model_spacing)
    sure = found.scores >= model.spec.min_score
    size = np.array([mask.sum() for mask in found.masks], dtype=float)[sure]
    if not size.size:
        return 0.0
    voxel = np.prod(np.array(plan.model_spacing) / min(plan.model_spacing))
    across = (usual_size(size) * voxel / (np.pi / 4 if ndim == 2 else np.pi / 6)) ** (1 / ndim)
    return float(across) * min(plan.model_spacing) / min(plan.spacing)
