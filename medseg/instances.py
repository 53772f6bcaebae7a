"""Instances: individual objects on a grid, with one table row of measurements each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self
from warnings import warn

import numpy as np
import numpy.typing as npt
import pandas as pd

from medseg.candidates import Candidates
from medseg.errors import GeometryError, InputError, MedsegWarning
from medseg.grid import Grid
from medseg.ops import labels as ops
from medseg.ops.labels import Labels
from medseg.ops.resample import check_world, onto, outside

Mask = npt.NDArray[np.bool_]

_MEASURES = {2: "area", 3: "volume"}


@dataclass(frozen=True, eq=False, repr=False)
class Instances:
    """Labelled objects on a grid with one table row each. Make one by `from_labels` or `from_candidates`.

    Parameters
    ----------
    labels : int32 array of grid.shape
        Instance ids, 0 is background; read-only.
    grid : Grid
        Where the labels lie.
    table : DataFrame
        One row for each id, in id order: id, class, score (NaN: none), voxels, area_mm2 or volume_mm3 (area_px,
        volume_px if the spacing is unknown), centroid_<axis> (array index), centroid_<x|y|z>_mm (world, only if known),
        box_<axis>_start, box_<axis>_stop (half-open), touches_border (axes one voxel long have no border), pieces
        (connected pieces, corners connect).
    classes : tuple of str
        Class names; class ids are 1-based indices into them.
    provenance : mapping
        How the labels came about, and what was decided or lost on the way.

    Examples
    --------
    >>> grid = Grid.from_spacing((2, 3), (2.0, 1.0))
    >>> cells = Instances.from_labels(np.array([[1, 1, 0], [0, 0, 7]]), grid, scores=[0.9, 0.4])
    >>> cells
    Instances(2 object; 2 x 3 pixels, 2 x 1 mm)
    >>> cells.table[["id", "voxels", "area_mm2", "centroid_x"]].values.tolist()
    [[1.0, 2.0, 4.0, 0.5], [7.0, 1.0, 2.0, 2.0]]
    """

    labels: Labels = field(repr=False)
    grid: Grid
    table: pd.DataFrame = field(repr=False)
    classes: tuple[str, ...] = ("object",)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the shape and freeze the labels."""
        if self.labels.shape != self.grid.shape or self.labels.dtype != np.int32:
            raise InputError(
                f"Labels of shape {self.labels.shape} and type {self.labels.dtype} do not fit a grid of shape "
                f"{self.grid.shape}, int32; use Instances.from_labels."
            )
        view = self.labels.view()
        view.flags.writeable = False
        object.__setattr__(self, "labels", view)

    def __repr__(self) -> str:
        """One line: how many of which class, on what."""
        counts = self.table["class"].value_counts().reindex(list(self.classes), fill_value=0)
        return f"Instances({', '.join(f'{n} {name}' for name, n in counts.items())}; {self.grid.describe()})"

    @classmethod
    def from_labels(
        cls,
        labels: npt.ArrayLike,
        grid: Grid,
        *,
        scores: npt.ArrayLike | None = None,
        class_ids: npt.ArrayLike | None = None,
        classes: Sequence[str] = ("object",),
        provenance: Mapping[str, object] | None = None,
    ) -> Self:
        """Measure the instances of a label array (copied; ids are kept as they are, no instances is fine).

        Parameters
        ----------
        labels : array of grid.shape
            Ids, 0 is background. Floats with whole values and bool (one instance) are accepted.
        grid : Grid
            Where the labels lie.
        scores, class_ids : array (N,), optional
            One for each id that occurs, in id order. Without them scores are NaN and class ids 1.
        classes : sequence of str
            Class names.
        provenance : mapping, optional
            How the labels came about.

        Raises
        ------
        InputError
            If labels are not whole numbers of 0 to 2^31-1, or shapes, counts or class ids do not fit.
        """
        values, names = ops.whole(labels), tuple(classes)
        if values.shape != grid.shape:
            raise InputError(f"Labels of shape {values.shape} do not fit the grid of shape {grid.shape}.")
        if not names or len(set(names)) != len(names):
            raise InputError(f"Class names {names} must be at least one, all different.")
        ids, dense, voxels, boxes, centroids = ops.facts(values)
        kinds = ops.per_label(class_ids, 1, ids, "class ids").astype(np.int64)
        if ((kinds < 1) | (kinds > len(names))).any():
            raise InputError(f"Class ids must be 1 to {len(names)}, for the classes {', '.join(names)}.")
        head = {
            "id": ids.astype(np.int32),
            "class": pd.Series([names[kind - 1] for kind in kinds.tolist()], dtype="str"),
            "score": ops.per_label(scores, np.nan, ids, "scores"),
        }
        table = pd.DataFrame({**head, **_measure(dense, voxels, boxes, centroids, grid)})
        owned = values.copy() if np.may_share_memory(values, np.asarray(labels)) else values
        return cls(owned, grid, table, names, dict(provenance or {}))

    @classmethod
    def from_candidates(
        cls,
        candidates: Candidates,
        grid: Grid,
        *,
        classes: Sequence[str] = ("object",),
        provenance: Mapping[str, object] | None = None,
    ) -> Self:
        """Paint candidates, higher scores on top; ids are candidate numbers + 1.

        What overlap cost goes into the provenance: "voxels_lost" (voxels by id) and "vanished" (ids wholly hidden).
        """
        labels, lost = candidates.paint()
        seen = np.bincount(labels.ravel(), minlength=len(candidates) + 1)[1:] > 0
        record = dict(provenance or {})
        if lost.any():
            record["voxels_lost"] = {int(i) + 1: int(lost[i]) for i in np.flatnonzero(lost)}
        if not seen.all():
            record["vanished"] = (np.flatnonzero(~seen) + 1).tolist()
        scores, class_ids = candidates.scores[seen], candidates.classes[seen]
        return cls.from_labels(labels, grid, scores=scores, class_ids=class_ids, classes=classes, provenance=record)

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self.table)

    def mask(self, id: int) -> Mask:
        """Return the bool array, of the grid's shape, of one instance."""
        if id not in self.table["id"].to_numpy():
            raise InputError(f"There is no instance {id}; the table lists the {len(self)} ids there are.")
        found: Mask = self.labels == id
        return found

    def relabel(self) -> Self:
        """Return the same instances with ids 1 to N in order; the first ids they had go into provenance["relabelled_from"].

        Done twice, these are the ids before the first time, which is what the rest of the provenance speaks of; 0 stands for an
        instance that came between.
        """
        ids, dense = ops.dense(self.labels)
        if np.array_equal(ids, np.arange(1, len(ids) + 1)):
            return self
        table = self.table.assign(id=np.arange(1, len(ids) + 1, dtype=np.int32))
        first, before = ids.tolist(), self.provenance.get("relabelled_from")
        if isinstance(before, (list, tuple)):
            first = [int(before[id - 1]) if id <= len(before) else 0 for id in first]
        return replace(self, labels=dense, table=table, provenance={**self.provenance, "relabelled_from": first})

    def on(self, grid: Grid) -> Self:
        """Return the instances on another grid in the same world; each voxel takes the id of the nearest one here.

        Ids, classes and scores stay, everything else is measured anew. Ids that no voxel took are dropped and added to
        provenance["vanished"].

        Raises
        ------
        GeometryError
            If the grids do not share a world: other number of axes, unit or frame of reference.

        Warns
        -----
        MedsegWarning
            Voxels lie outside the other grid; how many of each instance is in provenance["outside"].
        """
        check_world(self.grid, grid)
        if self.grid.matches(grid):
            labels, beyond = self.labels, {}
        else:
            labels = onto(self.labels, self.grid, grid, order=0).astype(np.int32)
            beyond = outside(self.labels, self.grid, grid)
        kept = np.isin(self.table["id"].to_numpy(), np.unique(labels))
        record = dict(self.provenance)
        if not kept.all():
            before = record.get("vanished", [])
            record["vanished"] = [*(before if isinstance(before, list) else []), *self.table["id"][~kept].tolist()]
        if beyond:
            record["outside"] = beyond
            warn(f"{sum(beyond.values())} of {int(self.table['voxels'].sum())} labelled voxels, of {len(beyond)} "
                 "instances, lie outside the other image and were left out.", MedsegWarning, stacklevel=2)  # fmt: skip
        number = {name: i for i, name in enumerate(self.classes, 1)}
        return type(self).from_labels(
            labels,
            grid,
            scores=self.table["score"].to_numpy()[kept],
            class_ids=[number[name] for name in self.table["class"][kept]],
            classes=self.classes,
            provenance=record,
        )

    def table_in(self, unit: Literal["um", "mm", "px"]) -> pd.DataFrame:
        """Return a copy of the table with physical columns converted and renamed (area_um2, centroid_x_um).

        "px" gives areas or volumes in voxels and no world positions; index columns never change.

        Raises
        ------
        GeometryError
            If the spacing is unknown and `unit` is not "px".
        """
        if unit not in ("um", "mm", "px"):
            raise InputError(f"Unit {unit!r} is not known; use um, mm or px.")
        table = self.table.copy()
        if unit == "mm" and self.grid.known or unit == "px" and not self.grid.known:
            return table
        if not self.grid.known:
            raise GeometryError(f"The spacing is unknown, so there is no table in {unit}; give the spacing on loading.")
        n = self.grid.ndim
        measure = f"{_MEASURES[n]}_mm{n}"
        world = [f"centroid_{axis}_mm" for axis in "xyz"[:n]]
        if unit == "px":
            table[measure] = table["voxels"].astype(np.float64)
            return table.drop(columns=world).rename(columns={measure: f"{_MEASURES[n]}_px"})
        table[measure] *= 1000.0**n
        table[world] *= 1000.0
        return table.rename(columns={name: name.replace("_mm", "_um") for name in [measure, *world]})


def _measure(
    dense: Labels, voxels: ops.IntArray, boxes: ops.IntArray, centroids: npt.NDArray[np.float64], grid: Grid
) -> dict[str, Any]:
    """Return the measured columns for labels 1 to N, of which voxels, boxes and centroids are known."""
    n = grid.ndim
    start, stop = boxes[:, :n], boxes[:, n:]
    suffix = f"mm{n}" if grid.known else "px"
    columns: dict[str, Any] = {"voxels": voxels, f"{_MEASURES[n]}_{suffix}": voxels * grid.voxel_size}
    columns |= {f"centroid_{axis}": centroids[:, i] for i, axis in enumerate(grid.axes)}
    if grid.known:
        world = grid.to_world(centroids)
        columns |= {f"centroid_{axis}_mm": world[:, i] for i, axis in enumerate("xyz"[:n])}
    for i, axis in enumerate(grid.axes):
        columns |= {f"box_{axis}_start": start[:, i], f"box_{axis}_stop": stop[:, i]}
    # In a single slice every object touches both faces, which says nothing about being cut off.
    size = np.array(grid.shape)
    columns["touches_border"] = (((start == 0) | (stop == size)) & (size > 1)).any(axis=1)
    columns["pieces"] = ops.pieces(dense, boxes)
    return columns
