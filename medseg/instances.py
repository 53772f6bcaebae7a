"""Instances: what a head proposes (`Candidates`) and what stands on a grid with its measurements (`Instances`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import cc3d
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from medseg.errors import GeometryError, InputError
from medseg.grid import Grid

IntArray = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

LAST_ID = int(np.iinfo(np.int32).max)
_MEASURES = {2: "area", 3: "volume"}


@dataclass(frozen=True, eq=False)
class Candidates:
    """Proposed objects, which may overlap.

    Parameters
    ----------
    boxes : int array (N, 2 * ndim)
        Start then stop of each box in array axis order, half-open, inside `shape`.
    scores : float32 array (N,)
        Higher is surer; NaN where there is none.
    classes : int32 array (N,)
        1-based index into the class names.
    masks : tuple of bool arrays
        Each object within its box; none is empty.
    shape : tuple of int
        Shape of the field the boxes refer to.

    Raises
    ------
    InputError
        If the parts do not fit one another.

    Examples
    --------
    >>> found = Candidates.from_labels(np.array([[1, 1, 0], [0, 0, 7]]), scores=[0.9, 0.4])
    >>> len(found), found.boxes.tolist()
    (2, [[0, 0, 1, 2], [1, 2, 2, 3]])
    """

    boxes: IntArray
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    masks: tuple[Mask, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that all parts fit and freeze the arrays."""
        shape = tuple(int(size) for size in self.shape)
        n, ndim = len(self.masks), len(shape)
        boxes = np.array(self.boxes, dtype=np.int64)
        scores = np.array(self.scores, dtype=np.float32)
        classes = np.array(self.classes, dtype=np.int32)
        if boxes.shape != (n, 2 * ndim) or scores.shape != (n,) or classes.shape != (n,):
            raise InputError(
                f"{n} masks need boxes {(n, 2 * ndim)} and {n} scores and classes, "
                f"not {boxes.shape}, {scores.shape} and {classes.shape}."
            )
        start, stop = boxes[:, :ndim], boxes[:, ndim:]
        if (start < 0).any() or (stop <= start).any() or (stop > np.array(shape)).any():
            raise InputError(f"A box is empty or leaves the field of shape {shape}; clip boxes first.")
        if (classes < 1).any() or np.isinf(scores).any():
            raise InputError("Classes count from 1, and scores are finite, or NaN for none.")
        for i, (mask, sizes) in enumerate(zip(self.masks, (stop - start).tolist(), strict=True)):
            if mask.dtype != np.bool_ or mask.shape != tuple(sizes) or not mask.any():
                raise InputError(f"Mask {i} must be bool, fill its box of shape {tuple(sizes)} and not be empty.")
        for name, value in (("boxes", boxes), ("scores", scores), ("classes", classes)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        object.__setattr__(self, "masks", tuple(self.masks))
        object.__setattr__(self, "shape", shape)

    @classmethod
    def empty(cls, shape: Sequence[int]) -> Self:
        """Return no candidates on a field of this shape."""
        none = np.empty(0)
        return cls(
            np.empty((0, 2 * len(shape)), np.int64), none.astype(np.float32), none.astype(np.int32), (), tuple(shape)
        )

    @classmethod
    def from_labels(
        cls, labels: npt.ArrayLike, scores: npt.ArrayLike | None = None, classes: npt.ArrayLike | None = None
    ) -> Self:
        """Make one candidate of each positive id, in the order of the ids.

        Parameters
        ----------
        labels : array
            Ids, 0 is background; they need not be contiguous.
        scores, classes : array (N,), optional
            One for each id that occurs, in id order. Without them scores are NaN and classes 1.

        Raises
        ------
        InputError
            If labels are not whole numbers of 0 to 2^31-1, or counts differ.
        """
        values = _whole(labels)
        ids, dense = _dense(values)
        boxes = _statistics(dense, len(ids))[1]
        masks = tuple(
            dense[tuple(map(slice, box[: values.ndim], box[values.ndim :]))] == number
            for number, box in enumerate(boxes.tolist(), 1)
        )
        score, kind = _per_instance(scores, np.nan, ids, "scores"), _per_instance(classes, 1, ids, "classes")
        return cls(boxes, score.astype(np.float32), kind.astype(np.int32), masks, values.shape)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.masks)

    def take(self, indices: npt.ArrayLike) -> Self:
        """Return some candidates, by number (in that order) or by a bool array (N,)."""
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_ and chosen.shape != (len(self),):
            raise InputError(f"A choice of shape {chosen.shape} does not fit {len(self)} candidates.")
        numbers = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64).ravel()
        if chosen.size and chosen.dtype.kind not in "biu":
            raise InputError("Choose candidates by whole numbers or by a bool array.")
        if ((numbers < 0) | (numbers >= len(self))).any():
            raise InputError(f"A number is not one of the {len(self)} candidates.")
        masks = tuple(self.masks[i] for i in numbers.tolist())
        return replace(
            self, boxes=self.boxes[numbers], scores=self.scores[numbers], classes=self.classes[numbers], masks=masks
        )

    def shift(self, offset: Sequence[int], shape: Sequence[int]) -> Self:
        """Return the candidates on a field of another shape, moved by `offset` voxels.

        Masks are clipped at the edges of the new field; candidates with nothing left in it are dropped.
        """
        ndim = len(self.shape)
        if len(offset) != ndim or len(shape) != ndim:
            raise InputError(f"Offset {tuple(offset)} and shape {tuple(shape)} must have {ndim} entries.")
        moved = self.boxes + np.tile(np.asarray(offset, dtype=np.int64), 2)
        clipped = np.clip(moved, 0, np.tile(np.asarray(shape, dtype=np.int64), 2))
        low, high = clipped[:, :ndim] - moved[:, :ndim], clipped[:, ndim:] - moved[:, :ndim]
        masks = [m[tuple(map(slice, a, b))] for m, a, b in zip(self.masks, low.tolist(), high.tolist(), strict=True)]
        kept = [i for i, mask in enumerate(masks) if mask.any()]
        return type(self)(
            clipped[kept], self.scores[kept], self.classes[kept], tuple(masks[i] for i in kept), tuple(shape)
        )

    def paint(self, order: Literal["score", "index"] = "score") -> tuple[Labels, IntArray]:
        """Draw all candidates into one label array; where they overlap one wins.

        Parameters
        ----------
        order : "score" or "index"
            Who wins: the higher score (NaN last, ties to the lower index), or the lower index.

        Returns
        -------
        labels : int32 array of the field's shape
            Candidate number + 1.
        lost : int64 array (N,)
            Voxels that each candidate lost to others; all of its voxels if it is hidden.
        """
        if order not in ("score", "index"):
            raise InputError(f"Order {order!r} is not known; use score or index.")
        keys = -self.scores if order == "score" else np.arange(len(self))
        labels = np.zeros(self.shape, np.int32)
        ndim = len(self.shape)
        for i in np.argsort(keys, kind="stable")[::-1].tolist():
            box = self.boxes[i].tolist()
            labels[tuple(map(slice, box[:ndim], box[ndim:]))][self.masks[i]] = i + 1
        seen = np.bincount(labels.ravel(), minlength=len(self) + 1)[1:]
        sizes = np.array([np.count_nonzero(mask) for mask in self.masks], dtype=np.int64)
        return labels, sizes - seen


@dataclass(frozen=True, eq=False)
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
        values, names = _whole(labels), tuple(classes)
        if values.shape != grid.shape:
            raise InputError(f"Labels of shape {values.shape} do not fit the grid of shape {grid.shape}.")
        if not names or len(set(names)) != len(names):
            raise InputError(f"Class names {names} must be at least one, all different.")
        ids, dense = _dense(values)
        kinds = _per_instance(class_ids, 1, ids, "class ids").astype(np.int64)
        if ((kinds < 1) | (kinds > len(names))).any():
            raise InputError(f"Class ids must be 1 to {len(names)}, for the classes {', '.join(names)}.")
        head = {
            "id": ids.astype(np.int32),
            "class": pd.Series([names[kind - 1] for kind in kinds.tolist()], dtype="str"),
            "score": _per_instance(scores, np.nan, ids, "scores"),
        }
        table = pd.DataFrame({**head, **_measure(dense, len(ids), grid)})
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
        """Return the same instances with ids 1 to N in order; the old ids go into provenance["relabelled_from"]."""
        ids, dense = _dense(self.labels)
        if np.array_equal(ids, np.arange(1, len(ids) + 1)):
            return self
        table = self.table.assign(id=np.arange(1, len(ids) + 1, dtype=np.int32))
        return replace(self, labels=dense, table=table, provenance={**self.provenance, "relabelled_from": ids.tolist()})

    def on(self, grid: Grid) -> Self:
        """Return the instances on another grid in the same world; each voxel takes the id of the nearest one here.

        Ids, classes and scores stay, everything else is measured anew. Ids that no voxel took are dropped and added to
        provenance["vanished"].

        Raises
        ------
        GeometryError
            If the grids do not share a world: other number of axes, unit or frame of reference.
        """
        if grid.ndim != self.grid.ndim or grid.unit != self.grid.unit:
            raise GeometryError(
                f"Labels on {self.grid.describe()} cannot be put on {grid.describe()}: no common world."
            )
        if grid.frame and self.grid.frame and grid.frame != self.grid.frame:
            raise GeometryError("The frames of reference differ; register the two images first.")
        labels = self.labels if self.grid.matches(grid) else _nearest(self.labels, self.grid, grid)
        kept = np.isin(self.table["id"].to_numpy(), np.unique(labels))
        record = dict(self.provenance)
        if not kept.all():
            before = record.get("vanished", [])
            record["vanished"] = [*(before if isinstance(before, list) else []), *self.table["id"][~kept].tolist()]
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


def _whole(labels: npt.ArrayLike) -> Labels:
    """Return labels as C-order int32, refusing values that would change."""
    values = np.asarray(labels)
    if values.ndim not in (2, 3) or values.size == 0:
        raise InputError(f"Labels of shape {values.shape} must be (y, x) or (z, y, x), with at least one voxel.")
    if values.dtype.kind not in "biuf":
        raise InputError(f"Labels of type {values.dtype} are not ids; convert them to integers.")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise InputError("Labels hold NaN, infinite or fractional values; were they interpolated? Resample by nearest.")
    if values.dtype.kind in "if" and values.min() < 0:
        raise InputError(f"Labels hold the negative value {values.min()}; ids are positive and background is 0.")
    if values.max() > LAST_ID:
        raise InputError(f"Label {values.max()} is over {LAST_ID}, the largest id; renumber the instances first.")
    return np.ascontiguousarray(values, dtype=np.int32)


def _dense(labels: Labels) -> tuple[IntArray, Labels]:
    """Return the sorted positive ids and the labels renumbered 1 to N in that order."""
    last = int(labels.max())
    if last > 2 * labels.size + 1000:  # a table over all ids would be larger than the array
        ids, inverse = np.unique(labels, return_inverse=True)
        dense = inverse.reshape(labels.shape).astype(np.int32)
        return (ids[1:].astype(np.int64), dense) if ids[0] == 0 else (ids.astype(np.int64), dense + np.int32(1))
    present = np.bincount(labels.ravel(), minlength=last + 1) > 0
    present[0] = False
    if present[1:].all():
        return np.arange(1, last + 1), labels
    return np.flatnonzero(present), np.cumsum(present, dtype=np.int32)[labels]


def _statistics(dense: Labels, count: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Return voxels (N,), boxes (N, 2 * ndim) half-open and centroids (N, ndim) of labels 1 to N."""
    found = cc3d.statistics(dense, no_slice_conversion=True)
    ends = found["bounding_boxes"][1 : count + 1].astype(np.int64)  # (N, 2 * ndim): low, high of each axis, inclusive
    boxes = np.concatenate([ends[:, 0::2], ends[:, 1::2] + 1], axis=1)
    return found["voxel_counts"][1 : count + 1].astype(np.int64), boxes, found["centroids"][1 : count + 1]


def _measure(dense: Labels, count: int, grid: Grid) -> dict[str, Any]:
    """Return the measured columns for labels 1 to `count`."""
    n = grid.ndim
    voxels, boxes, centroids = _statistics(dense, count)
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
    columns["pieces"] = _pieces(dense, boxes)
    return columns


def _pieces(dense: Labels, boxes: IntArray) -> IntArray:
    """Count the connected pieces of each label, looking only where there are any."""
    n, count = dense.ndim, len(boxes)
    if not count:
        return np.zeros(0, np.int64)
    region = tuple(map(slice, boxes[:, :n].min(axis=0).tolist(), boxes[:, n:].max(axis=0).tolist()))
    inner = np.require(
        dense[region], requirements=["C", "W"]
    )  # cc3d refuses read-only arrays, though it does not write
    parts = cc3d.connected_components(inner, connectivity=8 if n == 2 else 26)
    owner = np.zeros(int(parts.max()) + 1, np.int32)
    owner[parts.ravel()] = inner.ravel()  # every voxel of a piece writes the same label
    return np.bincount(owner, minlength=count + 1)[1:].astype(np.int64)


def _nearest(labels: Labels, source: Grid, target: Grid) -> Labels:
    """Return labels of `source` looked up at the voxel centres of `target`, 0 outside."""
    n = source.ndim
    pull = np.linalg.inv(source.affine) @ target.affine
    # grid-constant: a target centre in the outer half of an edge voxel is inside; "constant" would lose it.
    moved: Labels = ndimage.affine_transform(
        labels, pull[:n, :n], pull[:n, n], output_shape=target.shape, order=0, mode="grid-constant", cval=0
    )
    return moved


def _per_instance(values: npt.ArrayLike | None, default: float, ids: IntArray, what: str) -> npt.NDArray[np.float64]:
    if values is None:
        return np.full(len(ids), default, dtype=np.float64)
    given = np.asarray(values, dtype=np.float64)
    if given.shape != ids.shape:
        raise InputError(f"{what[0].upper()}{what[1:]} of shape {given.shape} do not fit {len(ids)} instances.")
    return given
