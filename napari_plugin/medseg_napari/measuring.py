"""Measurements and scores of single instances, for the table: only what changed is measured again."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from medseg.calibration import calibrated
from medseg.errors import MedsegError
from medseg.instances import Instances
from medseg.measure import measure
from medseg_napari.journal import Row
from medseg_napari.session import Session

# Of the table itself, or of the whole image, which one instance in a box cannot tell.
_NOT_HERE = (
    "class",
    "voxels",
    "touches_border",
    "pieces",
    "contact",
    "nearest",
    "density",
    "centroid",
    "box_",
    "slice",
)


def measured(session: Session, row: Row) -> dict[str, Any]:
    """Measure one instance as it is now.

    Returns
    -------
    dict
        Column to value, units in the names; empty where the instance went meanwhile.
    """
    frame = session.of([row.id])
    place = frame.around([row.id], 12.0 if frame.grid.known else 3.0)
    inner = np.where(frame.labels[place] == row.id, np.int32(row.id), np.int32(0))
    start, stop = [s.start for s in place], [s.stop for s in place]
    if not inner.any():
        return {}
    one = Instances.from_labels(inner, frame.grid.crop(start, stop))
    image = None
    if frame.image is not None and frame.image.grid.matches(frame.grid):
        image = frame.image.crop(start, stop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            table = measure(one, image)
        except MedsegError:
            table = measure(one)
    found = table.iloc[0].to_dict()
    return {
        str(name): _plain(value)
        for name, value in found.items()
        if name not in ("id", "score") and not str(name).startswith(_NOT_HERE)
    }


def score(session: Session, row: Row) -> float | None:
    """How far the model agrees with an instance that was edited: the best score times overlap (IoU) of what its maps propose.

    None where there are no maps.
    """
    frame = session.of([row.id])
    maps = frame.maps
    if maps is None:
        return None
    place = frame.around([row.id], 8 * max(frame.grid.spacing))
    mask = frame.labels[place] == row.id
    found = maps.around(place)
    if not len(found) or not mask.any():
        return 0.0
    labels, _ = found.paint()
    shared = np.bincount(labels[mask], minlength=len(found) + 1)[1:]
    size = np.bincount(labels.ravel(), minlength=len(found) + 1)[1:]
    overlap = shared / np.maximum(size + mask.sum() - shared, 1)
    sure = calibrated(found.scores, size, maps.spec.calibration)
    return float(np.max(np.nan_to_num(sure) * overlap))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
