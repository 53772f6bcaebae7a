"""Hand on: labels, table, report, DICOM, all of the same instances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from medseg.export import KINDS, OF_SERIES
from medseg_napari import notices
from medseg_napari.handing import hand_on

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel
    from medseg_napari.journal import Edit

_DICOM = ("seg", "rtstruct", "sr")


class SaveTab(QWidget):
    """What is shown under "Save"."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.folder = QLineEdit(str(Path.home()))
        choose = QPushButton("...")
        choose.clicked.connect(self._choose)
        self.boxes = {kind: QCheckBox(kind) for kind in KINDS}
        for kind in ("labels", "csv", "report"):
            self.boxes[kind].setChecked(True)
        self.deidentify = QCheckBox("leave the patient out of DICOM files")
        self.save = QPushButton("Save")
        self.save.clicked.connect(lambda: self.write())
        self.done = QLabel("", wordWrap=True)
        self._names = ""  # of the files of the last save
        self._of: Edit | None = None  # the last step that they hold
        grid = QGridLayout()
        grid.addWidget(QLabel("folder"), 0, 0)
        grid.addWidget(self.folder, 0, 1)
        grid.addWidget(choose, 0, 2)
        box = QVBoxLayout(self)
        kinds = QGridLayout()
        for line, (kind, text) in enumerate(KINDS.items()):
            kinds.addWidget(self.boxes[kind], line, 0)
            kinds.addWidget(QLabel(text, wordWrap=True), line, 1)
        kinds.setColumnStretch(1, 1)
        box.addLayout(grid)
        box.addLayout(kinds)
        box.addWidget(self.deidentify)
        box.addWidget(QLabel("Rejected instances are left out. For research use only.", wordWrap=True))
        box.addWidget(self.save)
        box.addWidget(self.done)
        box.addStretch()

    def shown(self) -> None:
        """DICOM can be written of what was read from DICOM, times of a series in files that have an axis for them."""
        self._names = ""
        self.done.setText("")
        bound = self.panel.bound
        image = bound.session.image if bound else None
        series = bound is not None and bound.session.times is not None
        for kind in KINDS:
            if kind not in (*OF_SERIES, *_DICOM):
                self.boxes[kind].setEnabled(not series)
                self.boxes[kind].setToolTip("not for a time series" if series else "")
                if series:
                    self.boxes[kind].setChecked(False)
        dicom = not series and image is not None and image.source is not None and image.source.format == "dicom"
        for kind in _DICOM:
            self.boxes[kind].setEnabled(dicom)
            self.boxes[kind].setToolTip("" if dicom else "only for images that were read from DICOM")
            if not dicom:
                self.boxes[kind].setChecked(False)
        self.deidentify.setEnabled(dicom)

    def _choose(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder for the results", self.folder.text()):
            self.folder.setText(folder)

    def write(self) -> list[Path]:
        """Write what is ticked; on a problem nothing that was drawn is lost."""

        def done() -> list[Path]:
            session = self.panel.session()
            chosen = [kind for kind, box in self.boxes.items() if box.isChecked()]
            return hand_on(session, Path(self.folder.text()), chosen, deidentify=self.deidentify.isChecked())

        files = self.panel.edit.guard(done) or []
        self._names = ", ".join(file.name for file in files)
        if files:
            self._of = self.panel.session().latest
            self.changed()
            notices.note(f"Saved {len(files)} files")
        else:
            self.done.setText("Not saved; what you drew is still here.")
        return list(files)

    def changed(self) -> None:
        """Say whether the files that were written last hold what there is now."""
        if self._names:
            now = self.panel.session().latest is self._of
            self.done.setText(f"{'Saved' if now else 'Changed since it was saved'}: {self._names}")
