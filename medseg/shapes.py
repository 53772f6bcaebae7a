"""Cut a mask by the network that learned separation from shape alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medseg import pipeline
from medseg.grid import Grid
from medseg.image import Image
from medseg.ops import components, separation
from medseg.preprocess import resize

if TYPE_CHECKING:
    from medseg.model import Model

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]

MODEL = "shapes3d"
_LEAST = 30  # voxels of a mask that has a shape to go by
_RIM = 2  # voxels of background that the network sees around a mask


@lru_cache(maxsize=1)
def shipped() -> Model:
    """Load the shipped network, once."""
    from medseg.model import Model

    return Model.load(MODEL)


def by_shape(mask: Mask, spacing: tuple[float, ...], model: Model | None = None) -> Labels:
    """Cut one connected mask into objects by its shape.

    Parameters
    ----------
    mask : bool (z, y, x)
        In its box.
    spacing : tuple of float
        Voxel size, array axis order.
    model : Model, optional
        Network trained on `medseg.data.compose`; the shipped one if absent.

    Returns
    -------
    int32 (z, y, x)
        Labels 1 to N, on every voxel of the mask. A mask under 30 voxels is one object.
    """
    if np.count_nonzero(mask) < _LEAST:
        return mask.astype(np.int32)
    wide = np.pad(mask, _RIM)
    picture = separation.pictured(wide, spacing)
    image = Image(picture[np.newaxis], Grid.from_spacing(picture.shape, 1.0), modality="other")
    found = pipeline.segment(image, model or shipped())
    back = resize(found.labels, wide.shape, order=0).astype(np.int32)
    # each object is one piece; what it loses by that goes to the nearest one
    labels = components.largest_pieces(separation.filled(wide, back))
    return separation.filled(wide, labels)[(slice(_RIM, -_RIM),) * mask.ndim]
