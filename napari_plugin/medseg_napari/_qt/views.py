"""More canvases beside napari's own: coronal and sagittal with a crosshair, and the other date of a follow-up."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Shapes
from napari.qt import QtViewer
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QPushButton, QSplitter, QVBoxLayout, QWidget

from medseg_napari import notices
from medseg_napari._qt.docked import Ending
from medseg_napari._qt.drawing import Context
from medseg_napari._qt.orient import Edges, displayed, shown_grid, turned
from medseg_napari.layers import KEY, named

_CROSS = "crosshair"


def shared(layer: Any) -> Layer:
    """A layer of another canvas that shows the same array."""
    data, state, kind = layer.as_layer_data_tuple()
    keep = {k: v for k, v in state.items() if k not in ("metadata",)}
    copy = Layer.create(data, keep, kind)
    copy.metadata.update(layer.metadata)
    return copy


class View:
    """One more canvas that follows the main viewer's layers."""

    def __init__(self, main: Any, order: tuple[int, ...]) -> None:
        self.main = main
        self.model = ViewerModel(title="medseg view")
        self.canvas = QtViewer(self.model)
        self.order = order
        self.edges = Edges(self.canvas.canvas.native, self.model)
        Context(self.canvas.canvas.native, self.model)
        self._pairs: dict[Any, Layer] = {}
        for layer in main.layers:
            self._add(layer)
        main.layers.events.inserted.connect(self._inserted)
        main.layers.events.removed.connect(self._removed)

    def _inserted(self, event: Any) -> None:
        self._add(event.value)

    def _add(self, layer: Any) -> None:
        if layer.metadata.get("medseg_help") and isinstance(layer, Labels):  # a run's: it gets its name with its result
            layer.events.name.connect(lambda: self._named(layer))
        if layer.name.startswith(_CROSS) or layer.metadata.get("medseg_help") or layer.ndim != 3:
            return
        copy = shared(layer)
        self._pairs[layer] = copy
        self.model.layers.append(copy)
        layer.events.visible.connect(lambda: setattr(copy, "visible", layer.visible))
        layer.events.set_data.connect(lambda: copy.refresh(extent=False))
        if hasattr(layer, "contrast_limits"):
            layer.events.contrast_limits.connect(lambda: setattr(copy, "contrast_limits", layer.contrast_limits))
        if isinstance(layer, Labels):
            layer.events.colormap.connect(lambda: setattr(copy, "colormap", layer.colormap))
        self.turn(layer)

    def _named(self, layer: Any) -> None:
        if layer not in self._pairs and layer in self.main.layers and not layer.metadata.get("medseg_help"):
            self._add(layer)

    def turn(self, layer: Any) -> None:
        """Lay the axes of this canvas as the patient lies."""
        if self.model.dims.ndim != 3:
            return
        self.model.dims.order = self.order
        grid = shown_grid(layer)
        axes = displayed(self.model.dims, grid) if grid is not None else None
        if grid is not None and axes is not None:
            self.model.scene.camera.orientation2d = turned(grid, axes)
            self.edges.grid = grid
        self.edges.tell()
        self.model.reset_view()

    def _removed(self, event: Any) -> None:
        copy = self._pairs.pop(event.value, None)
        if copy is not None and copy in self.model.layers:
            self.model.layers.remove(copy)
        if not self._pairs:  # letters are of what is shown
            self.edges.grid = None
            self.edges.tell()

    def refresh(self) -> None:
        """Draw what was changed in place."""
        for copy in self._pairs.values():
            if isinstance(copy, Labels):
                copy.refresh(extent=False)

    def close(self) -> None:
        """Let go of the main viewer."""
        self.main.layers.events.inserted.disconnect(self._inserted)
        self.main.layers.events.removed.disconnect(self._removed)
        self.canvas.close()


class ThreeViews(QSplitter):
    """Dock widget "medseg: three views": coronal and sagittal beside the main view, all at one point, marked by a crosshair.

    A click in one of the two moves the point; in the main view a double click does.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        from qtpy.QtCore import Qt

        self.setOrientation(Qt.Orientation.Vertical)
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._following = False
        # the second axis, then the third, is looked along
        self.views = [View(self.viewer, (1, 0, 2)), View(self.viewer, (2, 0, 1))]
        for view in self.views:
            view.canvas.setMinimumHeight(200)
            self.addWidget(view.canvas)
            view.model.mouse_drag_callbacks.append(self._clicked)
            view.model.dims.events.point.connect(lambda event, view=view: self._moved(view.model))
        self.viewer.dims.events.point.connect(self._main_moved)
        self.viewer.mouse_double_click_callbacks.append(self._jumped)
        self._ending = Ending(self, self.viewer)
        self._crosses = [self._cross(model) for model in (self.viewer, *(view.model for view in self.views))]
        self._main_moved()

    def _cross(self, model: Any) -> Shapes | None:
        if model.dims.ndim != 3:
            return None
        units = model.layers[0].units if len(model.layers) else None
        layer = Shapes(ndim=3, name=_CROSS, edge_color="#ffd75e", opacity=0.6, units=units)
        layer.metadata["medseg_help"] = True
        active = model.layers.selection.active
        model.layers.append(layer)
        model.layers.selection.active = active
        return layer

    def _main_moved(self, event: Any = None) -> None:
        self._moved(self.viewer)

    def _moved(self, source: Any) -> None:
        """Bring all canvases to the point of one."""
        if self._following or source.dims.ndim != 3 or self.viewer.dims.ndim != 3:  # layers are going
            return
        self._following = True
        try:
            point = tuple(source.dims.point)
            for model in (self.viewer, *(view.model for view in self.views)):
                if model is not source and model.dims.ndim == 3:
                    model.dims.point = point
            self._draw(point)
        finally:
            self._following = False

    def _draw(self, point: tuple[float, ...]) -> None:
        low = [r.start for r in self.viewer.dims.range]
        high = [r.stop for r in self.viewer.dims.range]
        models = [self.viewer, *(view.model for view in self.views)]
        for number, model in enumerate(models):
            layer = self._crosses[number]
            if layer is None or layer not in model.layers:
                if model.dims.ndim == 3:
                    self._crosses[number] = layer = self._cross(model)
                if layer is None:
                    continue
            lines = []
            for axis in model.dims.displayed:
                ends = np.array([point, point], dtype=float)
                ends[0, axis], ends[1, axis] = low[axis], high[axis]
                lines.append(ends)
            layer.data = [(ends, "line") for ends in lines]
            layer.edge_width = [0.002 * max(h - lo for h, lo in zip(high, low, strict=True))] * len(lines)

    def _clicked(self, model: Any, event: Any) -> Any:
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        if not dragged:
            model.dims.point = tuple(event.position)

    def _jumped(self, viewer: Any, event: Any) -> None:
        viewer.dims.point = tuple(event.position)
        self._moved(viewer)

    def end(self) -> None:
        """Let go of the main viewer."""
        self.viewer.dims.events.point.disconnect(self._main_moved)
        if self._jumped in self.viewer.mouse_double_click_callbacks:
            self.viewer.mouse_double_click_callbacks.remove(self._jumped)
        for view in self.views:
            view.close()
        if self._crosses[0] is not None and self._crosses[0] in self.viewer.layers:
            self.viewer.layers.remove(self._crosses[0])


class TwoDates(QWidget):
    """Dock widget "medseg: two dates": the other date of a follow-up beside the main view.

    `medseg follow` gives a lesion the same number at every date: it has the same colour here, and choosing it at one date goes to
    it at the other. Between lesions both scroll together, by the offset of the lesion chosen last.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.model = ViewerModel(title="medseg other date")
        self.canvas = QtViewer(self.model)
        self.edges = Edges(self.canvas.canvas.native, self.model)
        Context(self.canvas.canvas.native, self.model)
        self.image, self.labels = QComboBox(), QComboBox()
        self.here = QComboBox()
        put = QPushButton("Show beside")
        put.clicked.connect(lambda: self.show_beside())
        self.told = QLabel("", wordWrap=True)
        self._offset: np.ndarray[Any, Any] | None = None
        self._following = False
        form = QFormLayout()
        form.addRow("labels of this date", self.here)
        form.addRow("image of the other date", self.image)
        form.addRow("labels of the other date", self.labels)
        form.addRow(put)
        box = QVBoxLayout(self)
        box.addLayout(form)
        self.canvas.setMinimumHeight(260)
        box.addWidget(self.canvas)
        box.addWidget(self.told)
        self.viewer.layers.events.inserted.connect(self._filled)
        self.viewer.layers.events.removed.connect(self._filled)
        self.viewer.dims.events.point.connect(self._scrolled)
        self.viewer.mouse_drag_callbacks.append(self._clicked)
        self.model.mouse_drag_callbacks.append(self._clicked_there)
        self._there: Labels | None = None
        self._ending = Ending(self, self.viewer)
        self._filled()

    def _filled(self, event: Any = None) -> None:
        if getattr(event, "type", "") == "inserted":
            event.value.events.name.connect(self._filled)
        for box, kind in ((self.here, "labels"), (self.image, "image"), (self.labels, "labels")):
            names = [
                layer.name
                for layer in self.viewer.layers
                if layer._type_string == kind and not layer.metadata.get("medseg_help")
            ]
            current = box.currentText()
            box.clear()
            box.addItems(names)
            if current in names:
                box.setCurrentText(current)

    def show_beside(self) -> None:
        """Move the chosen image and labels of the other date to the canvas here."""
        names = [self.image.currentText(), self.labels.currentText()]
        if self.labels.currentText() in ("", self.here.currentText()):
            notices.problem("Open the labels of both dates, and choose a different one for the other date.")
            return
        self.model.layers.clear()
        for name in names:
            if name in self.viewer.layers:
                layer = self.viewer.layers[name]
                copy = shared(layer)
                self.model.layers.append(copy)
                layer.visible = False
                if isinstance(copy, Labels):
                    self._there = copy
        grid = shown_grid(self.viewer.layers[names[1]])
        axes = displayed(self.model.dims, grid) if grid is not None else None
        if grid is not None and axes is not None:
            self.model.scene.camera.orientation2d = turned(grid, axes)
        self.edges.grid = grid
        self.edges.tell()
        self.model.reset_view()
        self.told.setText("Click on a lesion at either date to go to it at the other.")

    def go_to(self, id: int, there: bool = True) -> bool:
        """Go to a lesion at the other date (or, from there, at this one); False where it is not."""
        here = named(self.viewer, self.here.currentText())
        if here is None or self._there is None:
            return False
        a, b = _middle(here, id), _middle(self._there, id)
        if a is None or b is None:
            when = "the other date" if there else "this date"
            self.told.setText(f"Lesion {id} is not there at {when}.")
            return False
        self._offset = b - a
        self._following = True
        try:
            for model, point in ((self.viewer, a), (self.model, b)):
                model.dims.point = tuple(point)
                shown = [point[axis] for axis in model.dims.displayed]
                model.scene.camera.center = (0.0, *shown) if len(shown) == 2 else tuple(shown)
        finally:
            self._following = False
        here.selected_label = self._there.selected_label = id
        self.told.setText(f"Lesion {id}")
        return True

    def _scrolled(self, event: Any) -> None:
        if self._following or self._offset is None or self.model.dims.ndim != self.viewer.dims.ndim:
            return
        self.model.dims.point = tuple(np.asarray(self.viewer.dims.point) + self._offset)

    def _clicked(self, viewer: Any, event: Any) -> Any:
        yield from self._pressed(self.viewer, self.here.currentText(), event, there=True)

    def _clicked_there(self, model: Any, event: Any) -> Any:
        yield from self._pressed(self.model, self._there.name if self._there else "", event, there=False)

    def _pressed(self, model: Any, name: str, event: Any, there: bool) -> Any:
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        if dragged or name not in model.layers:
            return
        value = model.layers[name].get_value(event.position, world=True)
        if value:
            self.go_to(int(value), there)

    def end(self) -> None:
        """Let go of the main viewer."""
        events = self.viewer.layers.events
        events.inserted.disconnect(self._filled)
        events.removed.disconnect(self._filled)
        self.viewer.dims.events.point.disconnect(self._scrolled)
        if self._clicked in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
        self.canvas.close()


def _middle(layer: Any, id: int) -> np.ndarray[Any, Any] | None:
    """World position of the middle of an instance, None where there is none."""
    about = layer.metadata.get(KEY, {})
    session = about.get("session")
    if session is not None:
        row = session.rows.get(id)
        return None if row is None else np.asarray(layer.data_to_world(row.where))
    where = np.argwhere(np.asarray(layer.data) == id)
    return np.asarray(layer.data_to_world(where.mean(axis=0))) if len(where) else None
