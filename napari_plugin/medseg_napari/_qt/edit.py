"""Tools to correct instances. A tool that needs clicks stays chosen until its clicks are made; Escape puts it down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from medseg_napari import commands, notices

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel

# Tools that wait for clicks in the image: what a person reads while they are chosen.
TOOLS = {
    "": "Click on an instance to choose it, with Shift for several.",
    "split": "Click at two or more places of the instance, then press Enter.",
    "line": "Drag a line across the instance.",
    "model": "Click on something that was missed: it is added as the model sees it.",
    "clicks": "Click inside of the object; Shift-click outside where it leaks. Enter accepts, Escape forgets.",
    "box": "Drag a box around the object, then correct with clicks. Enter accepts, Escape forgets.",
}
KEYS = {
    "split": "Alt-S",
    "line": "Alt-D",
    "separate": "Alt-P",
    "merge": "Alt-M",
    "delete": "Delete",
    "fill": "Alt-F",
    "largest": "Alt-L",
    "grow": "Alt-=",
    "shrink": "Alt--",
    "smooth": "Alt-O",
    "between": "Alt-I",
    "model": "Alt-A",
    "clicks": "Alt-C",
    "box": "Alt-B",
}


class EditTab(QWidget):
    """What is shown under "Edit"."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.help = QLabel(TOOLS[""], wordWrap=True)
        self.length = QDoubleSpinBox(minimum=0.001, maximum=1000, value=1.0, decimals=3)
        self.kind = QComboBox()
        self.buttons: dict[str, QPushButton] = {}
        grid = QGridLayout()
        names = [
            ("split", "Split by clicks"), ("line", "Split by a line"), ("separate", "Separate by shape"),
            ("merge", "Merge"), ("delete", "Delete"),
            ("fill", "Fill holes"), ("largest", "Keep largest piece"), ("grow", "Grow"), ("shrink", "Shrink"),
            ("smooth", "Smooth"), ("between", "Draw between slices"), ("model", "Add from the model"),
            ("clicks", "Add by clicks"), ("box", "Add by a box"), ("accept", "Accept"), ("reject", "Reject"),
            ("undo", "Undo"), ("redo", "Redo"),
        ]  # fmt: skip
        for number, (name, text) in enumerate(names):
            button = QPushButton(text)
            button.setCheckable(name in TOOLS)
            key = KEYS.get(name)
            button.setToolTip(f"key: {key}" if key else "")
            button.clicked.connect(lambda _=False, name=name: self.act(name))
            self.buttons[name] = button
            grid.addWidget(button, number // 2, number % 2)
        form = QFormLayout()
        form.addRow(self.help)
        self.length_label = QLabel("by (mm)")
        form.addRow(self.length_label, self.length)
        box = QVBoxLayout(self)
        box.addLayout(form)
        box.addLayout(grid)
        form = QFormLayout()
        form.addRow("class", self.kind)
        box.addLayout(form)
        box.addStretch()
        self.kind.textActivated.connect(
            lambda text: self._each(lambda ids: commands.set_kind(self._session, ids, text))
        )
        for name, key in KEYS.items():
            panel.viewer.bind_key(key, lambda _, name=name: self.act(name), overwrite=True)

    @property
    def _session(self) -> Any:
        return self.panel.session()

    def shown(self) -> None:
        """Follow the session: its classes, its unit."""
        bound = self.panel.bound
        self.kind.clear()
        if bound is None:
            return
        self.kind.addItems(bound.session.classes)
        grid = bound.session.grid
        micro = self.panel.micro
        self.length_label.setText("by (um)" if micro else "by (mm)" if grid.known else "by (pixels)")
        self.length.setValue(max(grid.spacing) * (1000 if micro else 1))

    def act(self, name: str) -> None:
        """Do what a button or key stands for."""
        if name in TOOLS:
            self.panel.take("" if self.panel.tool == name else name)
            return
        by = self.length.value() / (1000 if self.panel.micro else 1)
        one: dict[str, Callable[[Any, int], Any]] = {
            "separate": commands.separate,
            "fill": commands.fill_holes,
            "largest": commands.keep_largest,
            "grow": lambda s, id: commands.resize(s, id, by),
            "shrink": lambda s, id: commands.resize(s, id, -by),
            "smooth": lambda s, id: commands.smooth(s, id, by),
            "between": lambda s, id: commands.interpolate(s, id, self.panel.axis()),
        }
        several: dict[str, Callable[[Any, list[int]], Any]] = {
            "merge": commands.merge,
            "delete": commands.delete,
            "accept": commands.accept,
            "reject": commands.reject,
        }
        if name in ("undo", "redo"):
            self.guard(lambda: getattr(self.panel.needed(), name)())
        elif name in several:
            self._each(lambda ids: several[name](self._session, ids))
        else:
            self._each(lambda ids: self._alike(ids, one[name]))

    def _alike(self, ids: list[int], action: Callable[[Any, int], Any]) -> None:
        """Do the same to each, as one step."""
        session = self._session
        if left := commands.each(session, ids, lambda id: action(session, id)):
            notices.note(f"{len(left)} of {len(ids)} stay as they are. {left[0]}")

    def _each(self, action: Callable[[list[int]], Any]) -> None:
        def done() -> None:
            self._session  # noqa: B018  refuses where there is nothing to edit
            ids = self.panel.chosen()
            if not ids:
                notices.problem("Choose an instance first: click on it, or on its line in the table.")
                return
            action(ids)

        self.guard(done)

    def guard(self, action: Callable[[], Any]) -> Any:
        """Do something; what goes wrong is told in words."""
        try:
            return action()
        except Exception as error:  # a fault of ours too: words, and what was drawn stays
            self.help.setText(notices.problem(error))
            return None

    def tool_shown(self, tool: str) -> None:
        """Show which tool is in hand."""
        self.help.setText(TOOLS[tool])
        for name, button in self.buttons.items():
            if name in TOOLS:
                button.setChecked(name == tool)
