"""Which series of a DICOM folder: a list with a picture of the middle slice and what is wrong with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from medseg.io.dicom.series import Series

_SIZE = 96


class Picker(QDialog):
    """Choose one series."""

    def __init__(self, found: Sequence[Series], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("medseg: which series?")
        self.resize(620, 460)
        self._found = list(found)
        self.list = QListWidget()
        self.list.setIconSize(QSize(_SIZE, _SIZE))
        for one in self._found:
            item = QListWidgetItem(QIcon(thumbnail(one)), told(one))
            self.list.addItem(item)
        self.list.setCurrentRow(next((i for i, one in enumerate(found) if not one.problems), 0))
        self.list.itemDoubleClicked.connect(lambda _: self.accept())
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        box = QVBoxLayout(self)
        box.addWidget(
            QLabel("There are several images in this folder. Slices of one with gaps or tilt are put in place.")
        )
        box.addWidget(self.list)
        box.addWidget(buttons)

    @property
    def chosen(self) -> Series | None:
        """The series of the line that is marked."""
        row = self.list.currentRow()
        return self._found[row] if 0 <= row < len(self._found) else None


def told(one: Series) -> str:
    """What a person needs to tell series apart: kind, size, and what is wrong."""
    size = " x ".join(str(n) for n in one.shape)
    spacing = "" if one.spacing is None else f", {' x '.join(f'{s:.3g}' for s in one.spacing)} mm"
    lines = [f"{one.modality}  {one.description}".strip(), f"{size}{spacing}", *one.problems]
    return "\n".join(lines)


def thumbnail(one: Series) -> QPixmap:
    """The middle slice; a gray square where it cannot be read."""
    from medseg import io
    from medseg.errors import MedsegError
    from medseg_napari.layers import span

    try:
        image = io.load(one.files[len(one.files) // 2])
        plane = np.asarray(image.voxels()[0], dtype=np.float32)
        plane = plane[len(plane) // 2] if plane.ndim == 3 else plane
        low, high = span(plane)
        gray = (np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    except (MedsegError, OSError, MemoryError):
        gray = np.full((_SIZE, _SIZE), 96, np.uint8)
    gray = np.ascontiguousarray(gray)
    picture = QImage(gray.data, gray.shape[1], gray.shape[0], gray.shape[1], QImage.Format.Format_Grayscale8).copy()
    return QPixmap.fromImage(picture).scaled(
        _SIZE, _SIZE, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )


def choose(found: Sequence[Series], parent: QWidget | None = None) -> Series | None:
    """Ask; None if the person cancelled. Without a window the first that loads."""
    if QApplication.instance() is None:
        return next((one for one in found if not one.problems), None)
    dialog = Picker(found, parent)
    return dialog.chosen if dialog.exec() else None
