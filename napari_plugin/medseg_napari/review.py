"""Which instances a person should look at first, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from medseg.ops import components, separation
from medseg_napari.journal import Row
from medseg_napari.session import Session


@dataclass(frozen=True)
class Doubt:
    """How likely an instance is wrong, from 0, and the reason that counts most."""

    value: float
    why: str


def usual_size(session: Session) -> tuple[float, float]:
    """Middle and spread (median absolute deviation) of the logarithm of the instances' voxels."""
    sizes = np.log([row.voxels for row in session.rows.values()] or [1])
    middle = float(np.median(sizes))
    return middle, max(float(np.median(np.abs(sizes - middle))), 0.1)


def doubt(session: Session, row: Row, usual: tuple[float, float]) -> Doubt:
    """Judge one instance by its score, its shape, its neighbours, the image border and its size.

    Parameters
    ----------
    session, row
        Which.
    usual
        From `usual_size`.
    """
    frame = session.of([row.id])
    place = frame.around([row.id], 2 * max(frame.grid.spacing))
    part = frame.labels[place]
    mask = part == row.id
    if not mask.any():
        return Doubt(0.0, "")
    found = {
        "low score": 0.0 if row.score is None else 1.0 - row.score,
        "two in one?": _two_in_one(mask, session.grid.spacing),
        "part of a neighbour?": _contact(part, mask),
        "several pieces": 0.6 if int(components.label(mask).max()) > 1 else 0.0,
        "cut by the border": 0.3 if _at_border(session, row) else 0.0,
        "unusual size": min(1.0, max(0.0, (abs(np.log(row.voxels) - usual[0]) / usual[1] - 3) / 5)),
    }
    if found["cut by the border"]:
        found["unusual size"] = 0.0  # it is larger than what is seen of it
    why = max(found, key=lambda name: found[name])
    # the strongest reason counts, the others break ties
    value = found[why] + 0.1 * (sum(found.values()) - found[why])
    return Doubt(float(value), why if found[why] > 0.25 else "")


def order(session: Session, doubts: dict[int, Doubt]) -> list[int]:
    """Ids still to be looked at, the most doubtful first."""
    open_ = [id for id, row in session.rows.items() if not row.status]
    return sorted(open_, key=lambda id: (-doubts[id].value if id in doubts else 0.0, id))


def _two_in_one(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], spacing: tuple[float, ...]) -> float:
    """Share of the smaller of two parts that the shape narrows between, times two."""
    wide = np.pad(mask, 1)
    height = separation.depth(wide, spacing, 0.7 * min(spacing))
    sizes = np.sort(np.bincount(separation.by_height(wide, height, 0.75).ravel())[1:])
    return float(min(1.0, 2 * sizes[-2] / sizes.sum())) if len(sizes) > 1 else 0.0


def _contact(
    part: np.ndarray[tuple[int, ...], np.dtype[np.int32]], mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> float:
    """Share of the surface that touches another instance, beyond what neighbours usually share."""
    rim = binary_dilation(mask) & ~mask
    touching = float((part[rim] > 0).mean()) if rim.any() else 0.0
    return max(0.0, touching - 0.3) / 0.7


def _at_border(session: Session, row: Row) -> bool:
    n = session.grid.ndim
    return any(
        size > 1 and (a == 0 or b == size)
        for a, b, size in zip(row.box[:n], row.box[n:], session.grid.shape, strict=True)
    )
