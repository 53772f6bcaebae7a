"""What an earlier window left undone, and the way back to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from medseg import io
from medseg.errors import MedsegError
from medseg.grid import Grid
from medseg.image import Image
from medseg.io import scopes
from medseg_napari import journal, notices
from medseg_napari.layers import KEY, grid_of, of_frames, of_image
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
        images = self._images_for(found)
        viewer = self.panel.viewer
        if images:
            found.remember(images if found.times is not None else images[0])
            if not any(_shows(layer, images) for layer in viewer.layers):
                made = of_image(images[0], "restored") if len(images) == 1 else of_frames(images, "restored")
                for data, more, kind in made:
                    getattr(viewer, f"add_{kind}")(data, **more)
        self.panel.opened(None, None, None, found)

    def _images_for(self, session: Session) -> list[Image]:
        """The image a restored session was of, of a series each time, told by its content: one that is open, or read again."""
        about = session.journal.about() if session.journal else {}
        wanted, files = about.get("image_sha256"), about.get("files") or []
        if not wanted:
            notices.note("This session knows no image file; the instances are restored without an image.")
            return []
        for every in self._known(files):
            first = every[0]
            if (
                first.source is not None
                and first.source.content_hash() == wanted
                and len(every) == (session.times or 1)
            ):
                parts = [_part_of(image, session.grid) for image in every]
                return [part for part in parts if part is not None]
        notices.note("The image of this session is not where it was; the instances are restored without it.")
        return []

    def _known(self, files: list[str]) -> Iterator[list[Image]]:
        """Images that are open, then what the files hold."""
        for layer in self.panel.viewer.layers:
            about = layer.metadata.get(KEY, {})
            if isinstance(layer, ImageLayer) and ("image" in about or "frames" in about):
                yield list(about["frames"]) if "frames" in about else [about["image"]]
        try:
            scenes = scopes.count(Path(files[0])) if len(files) == 1 else 1
            if scenes == 1:
                yield list(io.frames(files[0])) if len(files) == 1 else [io.load(files)]
                return
            for which in range(1, scenes + 1):
                yield [io.load(files[0], series=which)]
        except (MedsegError, OSError):
            return

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


def _shows(layer: Any, images: list[Image]) -> bool:
    if not isinstance(layer, ImageLayer):
        return False
    about, grid = layer.metadata.get(KEY, {}), images[0].grid
    if "frames" in about or len(images) > 1:
        return len(about.get("frames", ())) == len(images) and about["frames"][0].grid.matches(grid)
    return grid_of(layer, layer.data.shape[: grid.ndim]).matches(grid)
