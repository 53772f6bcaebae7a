"""Rows of the table from voxels: as instances come, and of one of them after its voxels changed. No Qt here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medseg.grid import Grid
from medseg.instances import Instances
from medseg.io.clinical.segments import recorded
from medseg.ops.deltas import Labels, Place
from medseg_napari.journal import Row


@dataclass(frozen=True, eq=False)
class Left:
    """What is known of the instances of a plain layer: as `Instances` has it, without the labels, which the layer holds.

    Of a time series the table has a column ``time``, and the grid is that of one time.
    """

    grid: Grid
    classes: tuple[str, ...]
    provenance: Mapping[str, Any]
    table: pd.DataFrame


def rows_of(instances: Instances, time: int | None = None, shift: int = 0) -> Iterator[Row]:
    """Give a row for each instance, numbered by revision; ``shift`` is added to the ids."""
    axes = instances.grid.axes
    said: dict[int, dict[str, Any]] = recorded(instances).set_index("id").to_dict("index")  # type: ignore[assignment]
    for number, row in enumerate(instances.table.to_dict("records"), 1):
        score = float(row["score"])
        yield Row(
            int(row["id"]) + shift,
            str(row["class"]),
            None if np.isnan(score) else score,
            int(row["voxels"]),
            tuple(float(row[f"centroid_{a}"]) for a in axes),
            tuple(int(row[f"box_{a}_{end}"]) for end in ("start", "stop") for a in axes),
            revision=number,
            time=time,
            **said.get(row["id"], {}),
        )


def row_after(labels: Labels, row: Row, place: Place) -> Row | None:
    """Return the row of an instance after its voxels changed in one place, or None if it is gone.

    Parameters
    ----------
    labels : int32 array
        As they are now.
    row : Row
        Before; without a box where the instance is new.
    place : tuple of slice
        Where voxels became or ceased to be of it.
    """
    n = labels.ndim
    if row.box:
        place = tuple(
            slice(min(c.start, a), max(c.stop, b)) for c, a, b in zip(place, row.box[:n], row.box[n:], strict=True)
        )
    mask = labels[place] == row.id
    lows, highs, centroid = [], [], []
    count = 0
    for axis in range(n):
        line = mask.sum(axis=tuple(a for a in range(n) if a != axis))
        where = np.flatnonzero(line)
        if not len(where):
            return None
        count = int(line.sum())
        lows.append(int(where[0]) + place[axis].start)
        highs.append(int(where[-1]) + 1 + place[axis].start)
        centroid.append(float((line * np.arange(len(line))).sum() / count) + place[axis].start)
    return row.changed(
        score=None,
        voxels=count,
        centroid=tuple(centroid),
        box=(*lows, *highs),
        edited=True,
        long_axis=(),
        short_axis=(),
    )
