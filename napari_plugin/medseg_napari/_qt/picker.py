"""Which image, where there are several: of a DICOM folder with a picture of each series, of a microscope's file its scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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
    """Choose one of several.

    Parameters
    ----------
    title, about
        Of the window; what a person needs to know.
    lines
        Text of each, with its picture where there is one.
    first
        Which is marked at first.
    """

    def __init__(
        self,
        title: str,
        about: str,
        lines: Sequence[tuple[str, QPixmap | None]],
        first: int = 0,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.resize(620, 460)
        self.list = QListWidget()
        self.list.setIconSize(QSize(_SIZE, _SIZE))
        for text, picture in lines:
            self.list.addItem(QListWidgetItem(text) if picture is None else QListWidgetItem(QIcon(picture), text))
        self.list.setCurrentRow(first)
        self.list.itemDoubleClicked.connect(lambda _: self.accept())
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        box = QVBoxLayout(self)
        box.addWidget(QLabel(about, wordWrap=True))
        box.addWidget(self.list)
        box.addWidget(buttons)

    def ask(self) -> int | None:
        """Number of the line that is marked, from 0; None if the person cancelled."""
        return self.list.currentRow() if self.exec() and self.list.currentRow() >= 0 else None


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
    """Ask for a series; None if the person cancelled. Without a window the first that loads."""
    if QApplication.instance() is None:
        return next((one for one in found if not one.problems), None)
    first = next((i for i, one in enumerate(found) if not one.problems), 0)
    about = f"There {'is one image' if len(found) == 1 else f'are {len(found)} images'} in this folder."
    if any(one.problems for one in found):
        about += (
            " Where it says what is wrong, Open tries to mend it: slices with gaps or tilt are put on an even grid."
        )
    row = Picker("medseg: which series?", about, [(told(one), thumbnail(one)) for one in found], first, parent).ask()
    return None if row is None else found[row]


def choose_scene(path: Path, number: int, parent: QWidget | None = None) -> int | None:
    """Ask for a scene of a microscope's file, from 1; None if the person cancelled. Without a window the first."""
    if QApplication.instance() is None:
        return 1
    about = f"There are {number} images in this file. No voxel is read before one is chosen."
    lines = [(scene(path, which), None) for which in range(1, number + 1)]
    row = Picker("medseg: which scene?", about, lines, 0, parent).ask()
    return None if row is None else row + 1


def scene(path: Path, which: int) -> str:
    """What a person needs to tell scenes apart: number, size and channels, or why it does not open."""
    from medseg import io
    from medseg.errors import MedsegError

    try:
        image = io.load(path, series=which)
    except (MedsegError, OSError) as error:
        return f"{which}\n{error}"
    return f"{which}\n{image.grid.describe()}; {', '.join(image.channels)}"
