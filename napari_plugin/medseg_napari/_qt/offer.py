"""What an earlier window left undone, and the way back to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from medseg import io
from medseg.errors import MedsegError
from medseg.grid import Grid
from medseg.image import Image
from medseg_napari import journal, notices
from medseg_napari.layers import KEY, grid_of, of_image
from medseg_napari.session import Session

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel


class Offer(QWidget):
    """A line on top of the panel, shown where there is work that was not saved."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.banner, self.take, self.forget = (
            QLabel("", wordWrap=True),
            QPushButton("Restore"),
            QPushButton("Forget"),
        )
        self.take.clicked.connect(lambda: panel.edit.guard(self.restore))
        self.forget.clicked.connect(self._forgotten)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in (self.banner, self.take, self.forget):
            row.addWidget(widget)

    def look(self) -> None:
        """Offer to restore what an earlier session left."""
        self._left = journal.left_over()  # what a window has open is not among them
        self.forget.setText("Forget")
        self.setVisible(bool(self._left))
        if self._left:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(journal.touched(self._left[0])))
            self.banner.setText(f"Work of {when} was not saved.")

    def restore(self) -> None:
        """Go on with the newest session that did not end well."""
        found = Session.resume(self._left[0])
        image = self._image_for(found)
        found.image = image
        viewer = self.panel.viewer
        if image is not None and not any(_shows(layer, image) for layer in viewer.layers):
            for data, more, kind in of_image(image, "restored"):
                getattr(viewer, f"add_{kind}")(data, **more)
        self.panel.opened(None, image, None, found)

    def _image_for(self, session: Session) -> Image | None:
        """The image a restored session was of, told by its content: one that is open, or read again where it still is."""
        about = session.journal.about() if session.journal else {}
        wanted, files = about.get("image_sha256"), about.get("files") or []
        if not wanted:
            notices.note("This session knows no image file; the instances are restored without an image.")
            return None
        layers = [layer for layer in self.panel.viewer.layers if isinstance(layer, ImageLayer)]
        for image in [layer.metadata.get(KEY, {}).get("image") for layer in layers]:
            if image is not None and image.source is not None and image.source.content_hash() == wanted:
                return _part_of(image, session.grid)
        try:
            image = io.load(files[0] if len(files) == 1 else files)
            if image.source is not None and image.source.content_hash() == wanted:
                return _part_of(image, session.grid)
        except (MedsegError, OSError):
            pass
        notices.note("The image of this session is not where it was; the instances are restored without it.")
        return None

    def _forgotten(self) -> None:
        if self.forget.text() == "Forget":
            self.forget.setText("Really forget?")
            return
        if self._left:
            journal.forget(self._left[0])
        self.look()


def _part_of(image: Image, grid: Grid) -> Image | None:
    """The image, or the part of it that has this grid (a region of interest)."""
    if image.grid == grid:
        return image
    start = [round(float(i)) for i in image.grid.to_index(grid.to_world(np.zeros(grid.ndim)))]
    stop = [a + n for a, n in zip(start, grid.shape, strict=True)]
    if min(start) < 0 or any(b > n for b, n in zip(stop, image.grid.shape, strict=True)):
        return None
    part = image.crop(start, stop)
    return part if part.grid.matches(grid) else None


def _shows(layer: Any, image: Image) -> bool:
    return isinstance(layer, ImageLayer) and grid_of(layer, layer.data.shape[: image.grid.ndim]).matches(image.grid)
