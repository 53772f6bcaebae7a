"""When a dock widget ends: its X was pressed, the window was closed, or the program quits. napari tells none of these."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication


class Ending(QObject):
    """Calls ``widget.end()`` once, when its dock goes.

    Parameters
    ----------
    widget
        A dock widget with a method ``end``.
    viewer
        napari's viewer.
    """

    def __init__(self, widget: Any, viewer: Any) -> None:
        super().__init__(widget)
        self._widget = widget
        self._docked = False
        self._done = False
        widget.installEventFilter(self)
        window = getattr(getattr(viewer, "window", None), "_qt_window", None)
        if window is not None:
            window.installEventFilter(self)
        self._window = window
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.end)

    def end(self) -> None:
        """End the widget, once."""
        if not self._done:
            self._done = True
            app = QApplication.instance()
            if app is not None:
                app.aboutToQuit.disconnect(self.end)
            self._widget.end()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Qt asks before each event of the widget and of the window."""
        if watched is self._widget and event.type() == QEvent.Type.ParentChange:
            if watched.parent() is not None:
                self._docked = True
            elif self._docked:  # X: napari takes the widget out of its dock
                QTimer.singleShot(0, self.end)
        elif watched is self._window and event.type() == QEvent.Type.Close:
            QTimer.singleShot(0, self._closed)  # a person may still say no to closing
        return False

    def _closed(self) -> None:
        if self._window is not None and not self._window.isVisible():
            self.end()
