"""Which of several DICOM series: asked in a window where there is one, else the first that loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medseg.io.dicom.series import Series


def choose(found: Sequence[Series]) -> Series | None:
    """Ask a person; None if nothing was chosen."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:
        return next((one for one in found if not one.problems), None)
    from medseg_napari._qt.picker import pick

    return pick(found)
