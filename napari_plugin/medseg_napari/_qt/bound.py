"""A session and the labels layer that shows it, each following the other."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.layers import Labels, Shapes
from napari.utils.colormaps import DirectLabelColormap, label_colormap

from medseg.ops.deltas import Delta
from medseg_napari import notices
from medseg_napari.journal import Edit
from medseg_napari.layers import KEY, in_time, placed
from medseg_napari.session import Change, Session

_REJECTED = (0.5, 0.5, 0.5, 0.35)
UNDO_KEYS = {"Control-Z": "undo", "Control-Shift-Z": "redo", "Control-Y": "redo"}


class Bound:
    """Show a session as a labels layer.

    The layer's array is the session's own. Strokes of napari's brush become steps of the session, and napari's own undo, which
    knows nothing of the table, is put out of use.

    Parameters
    ----------
    viewer
        Where.
    session : Session
        What is shown.
    name : str
        Of the layer.
    like : dict, optional
        Scale, translate and units of the layer, in place of those of the grid.
    layer : napari.layers.Labels, optional
        One of the viewer that is of the same shape, in place of a new one: napari takes its time to add one.
    """

    def __init__(
        self,
        viewer: Any,
        session: Session,
        name: str,
        like: dict[str, Any] | None = None,
        layer: Labels | None = None,
    ) -> None:
        self.viewer = viewer
        if layer is None:
            more = placed(session.grid) if session.times is None else in_time(placed(session.grid))
            self.layer = Labels(session.labels, name=name, **(more | (like or {})))
        else:
            self.layer = layer
            layer.metadata.pop("medseg_help", None)
            layer.data = session.labels
            layer.name = name
        self.session = session
        self._frame: Any = None
        self._values: dict[int, float] | None = None  # what instances are coloured by; their ids without
        self._colours: dict[int | None, Any] = {}  # of single ids, while some are told apart by more than their id
        session.labels = self.layer.data
        self.layer.metadata[KEY] = {"session": session, "image": session.image}
        if layer is None:
            viewer.add_layer(self.layer)
        self.layer.events.paint.connect(self._painted)
        self.layer.events.data.connect(self._replaced)
        session.changed.connect(self._draw)
        self._recolour()
        session.complained.connect(notices.problem)
        if session.problem is not None:
            notices.problem(session.problem)
        for key, step in UNDO_KEYS.items():
            self.layer.bind_key(key, lambda _, step=step: getattr(self, step)(), overwrite=True)

    def undo(self) -> None:
        """Take the last step back."""
        if self.layer._block_history:  # a stroke is being drawn
            return
        self._went(self.session.undo(), "There is nothing to undo.")

    def redo(self) -> None:
        """Do it again."""
        if self.layer._block_history:
            return
        self._went(self.session.redo(), "There is nothing to do again.")

    def _went(self, edit: Edit | None, nothing: str) -> None:
        """Show the time of a series that a step was of."""
        if edit is None:
            notices.note(nothing)
            return
        rows = {**edit.before, **edit.after}
        times = {row.time for row in rows.values()}
        axis = self.viewer.dims.ndim - self.layer.ndim
        if len(times) != 1 or None in times or axis not in self.viewer.dims.not_displayed:
            return
        self.viewer.dims.set_point(axis, self.layer.data_to_world((times.pop(), *(0,) * self.session.grid.ndim))[0])

    def _draw(self, change: Change) -> None:
        if any(s.stop > s.start for s in change.place):
            self.layer.refresh(extent=False)
        self._recolour()

    def _painted(self, event: Any) -> None:
        """Take napari's own stroke as a step."""
        shape = self.session.labels.shape
        index, old, new = [], [], []
        for atom in event.value:
            where, before, after = _voxels(atom)
            flat = np.ravel_multi_index(tuple(np.asarray(axis) for axis in where), shape)
            index.append(flat)
            old.append(np.asarray(before))
            new.append(np.broadcast_to(np.asarray(after), flat.shape))
        if not index:
            return
        delta = Delta.of_voxels(np.concatenate(index), np.concatenate(old), np.concatenate(new), shape)
        edit = self.session.took("paint", delta)
        self.layer._reset_history()
        brush = self.layer.selected_label
        if edit is not None and brush and brush not in edit.delta.ids and set(edit.after) - set(edit.before):
            self.layer.selected_label = max(edit.after)  # painted at another time: it got a number of its own

    def _replaced(self, event: Any) -> None:
        """Another part of napari put an array in place of ours: what it changed is a step, and ours is put back."""
        new, mine = self.layer.data, self.session.labels
        if new is mine:
            return
        values = np.asarray(new)
        if values.shape == mine.shape and values.dtype.kind in "iu":
            whole = tuple(slice(0, n) for n in mine.shape)
            self.session.commit("change", whole, values.astype(np.int32))
        else:
            notices.problem("The labels of a session keep their shape; what was put in their place is not taken over.")
        self.layer.data = mine

    def colour_by(self, values: dict[int, float] | None) -> None:
        """Colour instances by numbers, dark to bright; by id without. Rejected ones are pale and gray."""
        self._values, self._colours = values, {None: "gray"}
        self._recolour()

    def _recolour(self) -> None:
        """Give colours where they are others than before."""
        rows = self.session.rows
        rejected = {id for id, row in rows.items() if row.status == "rejected"}
        by_id = label_colormap(49, 0.5, background_value=0)
        if self._values is None and not rejected:
            if self._colours:
                self._colours, self.layer.colormap = {}, by_id
            return
        colours: dict[int | None, Any] = {None: "gray", 0: "transparent"}
        if self._values is None:
            ids = np.array(sorted(rows), np.int32)
            colours |= dict(zip(ids.tolist(), map(tuple, by_id.map(ids).tolist()), strict=True))
        else:
            colours |= _scaled(self._values)
        colours |= dict.fromkeys(rejected, _REJECTED)
        if colours != self._colours:
            self._colours, self.layer.colormap = colours, DirectLabelColormap(color_dict=dict(colours))

    def go_to(self, id: int) -> None:
        """Move the view to an instance."""
        row = self.session.rows.get(id)
        if row is None:
            return
        world = self.layer.data_to_world(row.where)
        for axis in self.viewer.dims.not_displayed:
            offset = axis - (self.viewer.dims.ndim - len(world))
            if offset >= 0:
                self.viewer.dims.set_point(axis, world[offset])
        shown = [a - (self.viewer.dims.ndim - len(world)) for a in self.viewer.dims.displayed]
        centre = [float(world[a]) for a in shown]
        self.viewer.scene.camera.center = (0.0, *centre) if len(centre) == 2 else tuple(centre)

    def select(self, ids: Iterable[int]) -> None:
        """Show what is chosen: the layer's brush paints the first."""
        chosen = [id for id in ids if id in self.session.rows]
        if chosen:
            self.layer.selected_label = chosen[0]
        self._framed(chosen)

    def _framed(self, ids: list[int]) -> None:
        """Draw a frame around what is chosen, on its middle slice and in the plane that is shown."""
        here = self._frame is not None and self._frame in self.viewer.layers
        if not ids or self.viewer.dims.ndisplay != 2:
            if here:
                self._frame.visible = False  # emptied, its last drawing would crash the graphics driver
            return
        n = self.session.labels.ndim
        shown = [axis - (self.viewer.dims.ndim - n) for axis in self.viewer.dims.displayed]
        frames = []
        for id in ids[:200]:
            row = self.session.rows[id]
            corners = np.tile(np.rint(row.where), (4, 1))
            for axis, ends in zip(shown, ((0, 0, 1, 1), (0, 1, 1, 0)), strict=True):
                low, high = row.span[axis] - 2.0, row.span[n + axis] + 1.0
                corners[:, axis] = [high if end else low for end in ends]
            frames.append((corners, "rectangle"))
        if here:
            self._frame.data = frames
            self._frame.visible = True
            return
        active = self.viewer.layers.selection.active
        self._frame = Shapes(
            frames,
            name="chosen",
            edge_color="white",
            face_color="transparent",
            edge_width=0.5,
            scale=self.layer.scale,
            translate=self.layer.translate,
            units=self.layer.units,
        )
        self._frame.metadata["medseg_help"] = True
        self.viewer.add_layer(self._frame)
        self.viewer.layers.selection.active = active

    def close(self, *, keep: bool) -> None:
        """Let go of the layer. The session's file stays where it is to be offered again, else it goes."""
        if self._frame is not None and self._frame in self.viewer.layers:
            self.viewer.layers.remove(self._frame)
        self.layer.events.paint.disconnect(self._painted)
        self.layer.events.data.disconnect(self._replaced)
        for key in UNDO_KEYS:
            self.layer.bind_key(key, None, overwrite=True)
        self.session.changed.disconnect()
        self.session.complained.disconnect()
        rejected = [id for id, row in self.session.rows.items() if row.status == "rejected"]
        about: dict[str, Any] = {"instances": self.session.left(), "rejected": rejected}
        if self.session.times is not None:
            about["times"] = self.session.times
        elif self.session.image is not None:
            about["image"] = self.session.image
        self.layer.metadata[KEY] = about
        if self.session.journal is not None:
            if keep:
                self.session.journal.close()
            else:
                self.session.journal.remove()
            self.session.journal = None
        self.session.let_go()


def _voxels(atom: Any) -> tuple[Any, Any, Any]:
    """Indices, old and new ids of one of napari's history atoms: since 0.9 a box with a mask, or the indices themselves."""
    if not hasattr(atom, "slice_key"):
        return atom  # type: ignore[no-any-return]
    starts = [s.start or 0 for s in atom.slice_key]
    size = [s.stop - (s.start or 0) for s in atom.slice_key]
    mask = np.ones(size, bool) if atom.mask is None else atom.mask.reshape(size)
    where = tuple(axis + start for axis, start in zip(np.nonzero(mask), starts, strict=True))
    return where, np.asarray(atom.old_values).ravel(), atom.new_value


def _scaled(values: dict[int, float]) -> dict[int, Any]:
    """A colour for each number; gray where there is none."""
    known = [v for v in values.values() if np.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    shares = {id: (v - low) / (high - low) if high > low else 0.5 for id, v in values.items() if np.isfinite(v)}
    return {id: (*_scale(shares[id]), 1.0) if id in shares else (0.5, 0.5, 0.5, 1.0) for id in values}


def _scale(share: float) -> tuple[float, float, float]:
    """Blue to red over the hues, bright."""
    return colorsys.hsv_to_rgb(0.67 * (1 - float(np.clip(share, 0, 1))), 0.85, 0.95)
