"""A hand for tests: real mouse and key events in a real napari window."""

import threading
import time

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

KEYS = {
    "Enter": Qt.Key.Key_Return,
    "Escape": Qt.Key.Key_Escape,
    "Delete": Qt.Key.Key_Delete,
    "Right": Qt.Key.Key_Right,
    "Left": Qt.Key.Key_Left,
    "=": Qt.Key.Key_Equal,
}
MODIFIERS = {
    "Control": Qt.KeyboardModifier.ControlModifier,
    "Shift": Qt.KeyboardModifier.ShiftModifier,
    "Alt": Qt.KeyboardModifier.AltModifier,
}


class Hand:
    """What a person does."""

    def __init__(self, viewer):
        self.viewer = viewer
        self.panel = None
        self.docks = []

    @property
    def canvas(self):
        return self.viewer.window._qt_viewer.canvas.native

    def open_panel(self):
        _, self.panel = self.viewer.window.add_plugin_dock_widget("medseg", "medseg")
        self.wait(0.05)
        return self.panel

    def open_dock(self, name):
        dock, widget = self.viewer.window.add_plugin_dock_widget("medseg", name)
        self.docks.append(widget)
        self.wait(0.05)
        return widget

    def wait(self, seconds=0.02):
        end = time.monotonic() + seconds
        while True:
            QApplication.processEvents()
            if time.monotonic() >= end:
                return
            time.sleep(0.005)

    def until(self, condition, seconds=240):  # machines that run tests have other work at times
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.wait(0.01)

    def pixel(self, layer, index):
        """Where a voxel of a layer is on the canvas; the slice is made to show it."""
        world = np.asarray(layer.data_to_world(index), dtype=float)
        dims, camera = self.viewer.dims, self.viewer.scene.camera
        extra = dims.ndim - len(world)  # axes before those of the layer, such as time
        for axis in dims.not_displayed:
            if axis >= extra:
                dims.set_point(axis, world[axis - extra])
        self.wait()
        down, right = (str(getattr(o, "value", o)) for o in camera.orientation2d)
        signs = np.array([-1 if down == "up" else 1, -1 if right == "left" else 1])
        shown = world[[axis - extra for axis in dims.displayed]]
        offset = signs * (shown - np.array(camera.center[-2:])) * camera.zoom
        size = np.array([self.canvas.height(), self.canvas.width()])
        y, x = size / 2 + offset
        assert 0 <= y < size[0] and 0 <= x < size[1], "outside of the canvas"
        return QPoint(int(round(x)), int(round(y)))

    def click(self, layer, index, modifier=""):
        where = self.pixel(layer, index)
        mods = MODIFIERS[modifier] if modifier else Qt.KeyboardModifier.NoModifier
        self._move(where, held=False)
        QTest.mouseClick(self.canvas, Qt.MouseButton.LeftButton, mods, where)
        self.wait()

    def drag(self, layer, first, last, steps=12):
        a, b = self.pixel(layer, first), self.pixel(layer, last)
        self._move(a, held=False)
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, a)
        for k in range(1, steps + 1):
            point = QPoint(a.x() + (b.x() - a.x()) * k // steps, a.y() + (b.y() - a.y()) * k // steps)
            self._move(point)
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, b)
        self.wait()

    def _move(self, point, held=True):
        from qtpy.QtCore import QEvent, QPointF
        from qtpy.QtGui import QMouseEvent

        where = QPointF(point)
        event = QMouseEvent(
            QEvent.Type.MouseMove, where, QPointF(self.canvas.mapToGlobal(point)), Qt.MouseButton.NoButton,
            Qt.MouseButton.LeftButton if held else Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
        )  # fmt: skip
        QApplication.sendEvent(self.canvas, event)
        self.wait(0.005)

    def press(self, keys):
        *mods, key = keys.split("+")
        total = Qt.KeyboardModifier.NoModifier
        for name in mods:
            total |= MODIFIERS[name]
        code = KEYS.get(key, getattr(Qt.Key, f"Key_{key}", None))
        assert code is not None, key
        self.canvas.setFocus()
        QTest.keyClick(self.canvas, code, total)
        self.wait()

    def push(self, button):
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.wait()

    def segment(self):
        self.panel.segment.note.setText("")
        self.push(self.panel.segment.start)
        self.until(lambda: self.panel.segment.run is None)
        self.wait(0.05)

    def settle(self):
        """Wait for what is measured in the background."""
        self.until(lambda: self.panel.background.idle)
        self.wait(0.12)

    def picture(self, path):
        self.wait(0.1)
        self.viewer.window.screenshot(str(path), canvas_only=False, flash=False)

    def close(self):
        """Close the window as a person does; what medseg started must end by itself."""
        self.viewer.close()
        self.until(lambda: not [t for t in threading.enumerate() if t.name == "medseg background"], 10)
