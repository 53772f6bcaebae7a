"""A fault of napari that ends the process, mended for the canvases medseg uses."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QWidget


class Context(QObject):
    """Makes the graphics context of a canvas current whenever layers go.

    Napari 0.9 (pull request 8122) has what a layer drew with deleted at once, in whichever context is current, which may be that of
    the window's frame. Drivers then draw with what is no longer there: a time series, clicks, and all layers deleted ended the
    process with Mesa.

    Parameters
    ----------
    canvas
        The widget that is drawn on; this object lives as long.
    viewer
        The viewer or viewer model that is shown on it.
    """

    def __init__(self, canvas: QWidget, viewer: Any) -> None:
        super().__init__(canvas)
        self._canvas = canvas
        events = viewer.layers.events
        events.removing.connect(self._make_current)  # napari's own callbacks of removed come before any of ours
        events.removed.connect(self._make_current, position="last")  # of several at once, before the end of the batch

    def _make_current(self, event: Any = None) -> None:
        self._canvas.makeCurrent()
