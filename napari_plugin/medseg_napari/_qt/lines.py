"""Calipers on the image: lines of the chosen lesion that can be dragged, and write back to the table."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QTimer

from medseg_napari import calipers, notices

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel

NAME = "calipers"


class Calipers:
    """A shapes layer with the two axes of one instance."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.layer: Shapes | None = None
        self.id: int | None = None
        self._axes: list[str] = []
        self._drawn: list[Any] = []
        self._stale = self._writing = False

    def show(self, id: int) -> None:
        """Draw the axes of an instance and go to their slice."""
        bound = self.panel.needed()
        row = bound.session.row(id)
        found = calipers.lines(self.panel.measured_of(id), row, bound.session.grid)
        if not found:
            notices.note("This instance is not measured yet, or too small for axes.")
            return
        self.hide()
        self.id, self._axes = id, list(found)
        lead = () if row.time is None else (float(row.time),)
        data = [np.array([(*lead, *point) for point in line]) for line in found.values()]
        colours = {"long_axis": "yellow", "short_axis": "cyan"}
        thin = 0.6 * float(min(bound.layer.scale)) / float(max(bound.layer.scale))
        self.layer = Shapes(
            data,
            shape_type="line",
            edge_color=[colours[axis] for axis in self._axes],
            edge_width=max(0.4, thin),
            name=NAME,
            scale=bound.layer.scale,
            translate=bound.layer.translate,
            units=bound.layer.units,
        )
        self.panel.viewer.add_layer(self.layer)
        self.layer.metadata["medseg_help"] = True
        self._drawn = [np.array(line) for line in self.layer.data]
        self.layer.mode = "direct"
        self.layer.selected_data = set(range(len(data)))  # their ends can be dragged at once
        self.layer.events.data.connect(self._moved)
        world = bound.layer.data_to_world(data[0].mean(axis=0))
        for axis in self.panel.viewer.dims.not_displayed:
            offset = axis - (self.panel.viewer.dims.ndim - len(world))
            if offset >= 0:
                self.panel.viewer.dims.set_point(axis, world[offset])

    def hide(self) -> None:
        """Take the lines away."""
        if self.layer is not None and self.layer in self.panel.viewer.layers:
            self.layer.events.data.disconnect(self._moved)
            self.panel.viewer.layers.remove(self.layer)
        self.layer = self.id = None

    def follow(self, ids: frozenset[int]) -> None:
        """Draw anew what an edit or its undo has changed."""
        bound = self.panel.bound
        if self.layer is None or self.id not in ids or self._writing:
            return
        if bound is None or self.id not in bound.session.rows:
            self.hide()
        else:
            self._stale = True  # until it is measured

    def measured(self, ids: set[int]) -> None:
        """Draw anew what was measured."""
        if self._stale and self.id in ids and self.id is not None:
            self._stale = False
            self.panel.edit.guard(partial(self.show, self.id))

    def _moved(self, event: Any) -> None:
        """Write back the line that was dragged; one that was deleted is drawn again."""
        bound = self.panel.bound
        if bound is None or self.layer is None or self.id not in bound.session.rows:
            return
        if len(self.layer.data) != len(self._axes):
            QTimer.singleShot(0, lambda: self.panel.edit.guard(lambda: self.show(self.id or 0)))
            return
        if str(getattr(event, "action", "changed")).split(".")[-1].lower() != "changed":
            return
        told: dict[str, Any] = {}
        for axis, line, drawn in zip(self._axes, self.layer.data, self._drawn, strict=True):
            if not np.allclose(line, drawn, atol=1e-3):
                told[axis] = tuple(
                    tuple(round(float(v), 4) for v in bound.session.inner(point)) for point in np.asarray(line)[[0, -1]]
                )
        self._drawn = [np.array(line) for line in self.layer.data]
        if told:
            self._writing = True
            try:
                bound.session.tell("move calipers", [self.id], **told)
            finally:
                self._writing = False
