"""Look at instances one after the other, the most doubtful first; what a person decides and how long it took is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from medseg_napari import commands, review

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel


KEYS = {"Alt-Left": "back", "Alt-Right": "next", "Alt-Y": "accept", "Alt-N": "reject"}


class ReviewTab(QWidget):
    """What is shown under "Review"."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.current: int | None = None
        self._since = time.monotonic()
        self._seen: list[int] = []
        self.text = QLabel("", wordWrap=True)
        self.bar = QProgressBar()
        buttons = {
            "Back (Alt-Left)": self.back,
            "Next (Alt-Right)": self.next,
            "Accept (Alt-Y)": self.accept,
            "Reject (Alt-N)": self.reject,
        }
        keys = QGridLayout()
        for number, (text, action) in enumerate(buttons.items()):
            button = QPushButton(text)
            button.clicked.connect(lambda _=False, action=action: action())
            keys.addWidget(button, number // 2, number % 2)
        box = QVBoxLayout(self)
        box.addWidget(QLabel("Instances that are likely wrong come first.", wordWrap=True))
        box.addWidget(self.bar)
        box.addWidget(self.text)
        box.addLayout(keys)
        box.addStretch()
        for key, name in KEYS.items():
            panel.viewer.bind_key(key, lambda _, name=name: getattr(self, name)(), overwrite=True)

    def begin(self) -> None:
        """Start anew, with another session or none."""
        self.current, self._seen = None, []
        self.text.setText("")

    def next(self) -> None:
        """Go to the most doubtful one that was not decided and not just seen."""
        bound = self.panel.bound
        if bound is None:
            self.text.setText("There is nothing to review: segment an image, or open labels.")
            return
        queue = review.order(bound.session, self.panel.doubts)
        rest = [id for id in queue if id not in self._seen] or queue
        if not rest:
            self.text.setText("All instances are decided.")
            self._leave()
            self.current = None
        else:
            self._go(rest[0])
        self.told()

    def back(self) -> None:
        """Go to the one before."""
        if len(self._seen) > 1:
            self._seen.pop()
            self._go(self._seen.pop())

    def accept(self) -> None:
        """It is right; on to the next."""
        self._decide(commands.accept)

    def reject(self) -> None:
        """It is wrong and will not be saved; on to the next."""
        self._decide(commands.reject)

    def _decide(self, command: object) -> None:
        bound = self.panel.bound
        # what a person clicked on since counts
        chosen = self.panel.chosen() or ([self.current] if self.current is not None else [])
        if bound is None or not chosen or chosen[0] not in bound.session.rows:
            self.next()
            return
        self._leave()
        self.panel.edit.guard(lambda: command(bound.session, chosen))  # type: ignore[operator]
        self.next()

    def _go(self, id: int) -> None:
        self._leave()
        bound = self.panel.bound
        assert bound is not None
        self.current, self._since = id, time.monotonic()
        self._seen.append(id)
        self.panel.choose([id])
        bound.go_to(id)
        doubt = self.panel.doubts.get(id)
        row = bound.session.rows[id]
        score = "" if row.score is None else f", score {row.score:.2f}"
        why = f": {doubt.why}" if doubt and doubt.why else ""
        self.text.setText(f"<b>Instance {id}</b>{score}{why}")

    def _leave(self) -> None:
        """Add the time that was spent to the row."""
        bound = self.panel.bound
        if bound is None or self.current is None or self.current not in bound.session.rows:
            return
        row = bound.session.rows[self.current]
        spent = time.monotonic() - self._since
        bound.session.amend(row.id, row.revision, seconds=round(row.seconds + spent, 1))
        self._since = time.monotonic()

    def told(self) -> None:
        """Show how far it is."""
        bound = self.panel.bound
        rows = list(bound.session.rows.values()) if bound else []
        self.bar.setRange(0, max(1, len(rows)))
        self.bar.setValue(sum(1 for row in rows if row.status))
        self.bar.setFormat("%v of %m decided")
