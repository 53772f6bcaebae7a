"""Calipers on the image: lines of the chosen lesion that can be dragged, and write back to the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes

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
        self._drawing = False

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
        data = [np.array(line) for line in found.values()]
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
        self.layer.mode = "direct"
        self.layer.selected_data = set(range(len(data)))  # their ends can be dragged at once
        self.layer.events.data.connect(self._moved)
        world = bound.layer.data_to_world(data[0].mean(axis=0))
        for axis in self.panel.viewer.dims.not_displayed:
            self.panel.viewer.dims.set_point(axis, world[axis - (self.panel.viewer.dims.ndim - len(world))])

    def hide(self) -> None:
        """Take the lines away."""
        if self.layer is not None and self.layer in self.panel.viewer.layers:
            self.layer.events.data.disconnect(self._moved)
            self.panel.viewer.layers.remove(self.layer)
        self.layer = self.id = None

    def _moved(self, event: Any) -> None:
        """Write back what was dragged; a line that was deleted or added is put right."""
        bound = self.panel.bound
        if bound is None or self.layer is None or self.id not in bound.session.rows:
            return
        if str(getattr(event, "action", "changed")).split(".")[-1].lower() != "changed":
            return
        if len(self.layer.data) != len(self._axes):
            return
        row = bound.session.rows[self.id]
        told: dict[str, Any] = {}
        for axis, line in zip(self._axes, self.layer.data, strict=True):
            ends = tuple(tuple(round(float(v), 4) for v in point) for point in np.asarray(line)[[0, -1]])
            old = calipers.lines(self.panel.measured_of(self.id), row, bound.session.grid).get(axis)
            if old is None or not np.allclose(ends, old, atol=1e-3):
                told[axis] = ends
        if told:
            bound.session.tell("move calipers", [self.id], **told)
