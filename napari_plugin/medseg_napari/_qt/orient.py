"""Which way a patient lies on the screen: turned as radiologists expect, with letters at the edges."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QLabel, QWidget

from medseg.export.marks import letters
from medseg.grid import Grid
from medseg.io import overlay
from medseg_napari.layers import KEY


def shown_grid(layer: Any) -> Grid | None:
    """Grid of what a layer shows, if medseg read it."""
    about = layer.metadata.get(KEY, {})
    for value in about.values():
        grid = getattr(value, "grid", None)
        if isinstance(grid, Grid):
            return grid
    return None


def turned(grid: Grid, axes: tuple[int, int]) -> tuple[str, str]:
    """How the camera should lay the two displayed axes: the patient's right at the left of the screen, front or head on top."""
    rows, columns = overlay.turned(grid, axes)
    return ("up" if rows.step == -1 else "down"), ("left" if columns.step == -1 else "right")


def face(viewer: Any, layer: Any) -> None:
    """Turn the view to the anatomy of a layer, and letter its edges; without a layer take the letters away."""
    grid = None if layer is None else shown_grid(layer)
    axes = displayed(viewer.dims, grid) if grid is not None and viewer.dims.ndisplay == 2 else None
    if grid is not None and axes is not None:
        viewer.scene.camera.orientation2d = turned(grid, axes)
    canvas = canvas_of(viewer)
    if canvas is not None:
        edges = canvas.findChild(Edges) or Edges(canvas, viewer)
        edges.grid = grid
        edges.tell()


def displayed(dims: Any, grid: Grid) -> tuple[int, int] | None:
    """Axes of the grid that are shown, (vertical, horizontal)."""
    axes = [axis - (dims.ndim - grid.ndim) for axis in dims.displayed]
    return (axes[0], axes[1]) if len(axes) == 2 and min(axes) >= 0 else None


def canvas_of(viewer: Any) -> QWidget | None:
    """The widget that a viewer with a window is drawn on."""
    window = getattr(viewer, "window", None)
    shown = getattr(window, "_qt_viewer", None)
    return shown.canvas.native if shown is not None else None


class Edges(QObject):
    """Letters at the four edges of a canvas: where left, right, front, back, head and feet are."""

    def __init__(self, canvas: QWidget, viewer: Any) -> None:
        super().__init__(canvas)
        self.grid: Grid | None = None
        self._canvas, self._viewer = canvas, viewer
        self.labels = [QLabel("", canvas) for _ in range(4)]
        for label in self.labels:
            label.setStyleSheet(
                "color: #ffd75e; font: bold 16px; background: rgba(0, 0, 0, 150); padding: 1px 4px; border-radius: 3px;"
            )
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        canvas.installEventFilter(self)
        for event in (viewer.dims.events.order, viewer.dims.events.ndisplay):
            event.connect(self._turn)
        viewer.scene.camera.events.connect(self._later)

    def _turn(self, event: Any = None) -> None:
        axes = displayed(self._viewer.dims, self.grid) if self.grid and self._viewer.dims.ndisplay == 2 else None
        if axes is not None:
            self._viewer.scene.camera.orientation2d = turned(self.grid, axes)  # type: ignore[arg-type]
        self.tell()

    def _later(self, event: Any) -> None:
        if str(event.type).startswith("orientation"):
            self.tell()

    def told(self) -> tuple[str, str, str, str]:
        """Letters as they stand: left, right, top, bottom."""
        return tuple(label.text() for label in self.labels)  # type: ignore[return-value]

    def tell(self) -> None:
        """Write the letters."""
        axes = displayed(self._viewer.dims, self.grid) if self.grid and self._viewer.dims.ndisplay == 2 else None
        found = letters(self.grid, axes) if axes is not None and self.grid is not None else ("", "", "", "")
        left, right, top, bottom = found
        vertical, horizontal = (str(o).split(".")[-1].lower() for o in self._viewer.scene.camera.orientation2d)
        if horizontal.endswith("left"):
            left, right = right, left
        if vertical.endswith("up"):
            top, bottom = bottom, top
        for label, text in zip(self.labels, (left, right, top, bottom), strict=True):
            label.setText(text)
            label.adjustSize()
            label.setVisible(bool(text))
        self._place()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the size of the canvas."""
        if event.type() in (QEvent.Type.Resize, QEvent.Type.Show):
            self._place()
        return False

    def _place(self) -> None:
        width, height = self._canvas.width(), self._canvas.height()
        left, right, top, bottom = self.labels
        left.move(6, height // 2)
        right.move(width - right.width() - 6, height // 2)
        top.move(width // 2, 4)
        bottom.move(width // 2, height - bottom.height() - 4)
        for label in self.labels:
            label.raise_()
