"""The instances as a table, linked both ways with the layer: sort, filter, colour by a column, jump."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from medseg.words import counted
from medseg_napari.session import Session

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel

_FIRST, _DOUBT = ["id", "class", "score", "status"], ["doubt", "voxels"]
_SAID = ["finding_site", "role", "nodal"]
_NARROW = {"id": 44, "score": 54, "nodal": 50, "edited": 54}  # pixels, so that what a person says is seen at once
_EDITABLE = {"finding_site", "role", "nodal", "class"}


class Rows(QAbstractTableModel):
    """Rows of a session, and what was measured of them."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.ids: list[int] = []
        self.columns: list[str] = [*_FIRST, *_DOUBT, *_SAID, "edited"]
        self._end = len(_FIRST) + len(_DOUBT)  # where columns of measurements end
        self._known = set(self.columns)

    @property
    def session(self) -> Session | None:
        """The session shown."""
        return self.panel.bound.session if self.panel.bound else None

    def reload(self) -> None:
        """Take all rows anew."""
        self.beginResetModel()
        session = self.session
        self.ids = sorted(session.rows) if session else []
        patient = session is not None and session.grid.space == "patient"
        # what a person says of lesions is near the left; of cells it is seldom said, and is at the end
        before, after = ([*_FIRST, *_SAID], _DOUBT) if patient else ([*_FIRST, *_DOUBT], _SAID)
        if session is not None and session.times is not None:
            before.insert(1, "time")
        self.columns, self._end = [*before, *after, "edited"], len(before)
        self._known = set(self.columns)
        for values in self.panel.measures.values():
            self._learn(values)
        self.endResetModel()

    def _learn(self, values: dict[str, Any]) -> bool:
        """Make columns for what was measured; whether there were new ones."""
        new = [name for name in values if name not in self._known and not _end(name)]
        self._known |= set(new)
        self.columns[self._end : self._end] = new
        self._end += len(new)
        return bool(new)

    def refresh(self, ids: set[int]) -> None:
        """Draw some rows again, and rows that came or went."""
        session = self.session
        if session is None:
            self.reload()
            return
        if any([self._learn(self.panel.measured_of(id)) for id in ids]):
            self.beginResetModel()
            self.endResetModel()
        changed = []
        for id in ids:
            line = bisect_left(self.ids, id)
            here = line < len(self.ids) and self.ids[line] == id
            if here and id not in session.rows:
                self.beginRemoveRows(QModelIndex(), line, line)
                del self.ids[line]
                self.endRemoveRows()
            elif not here and id in session.rows:
                self.beginInsertRows(QModelIndex(), line, line)
                self.ids.insert(line, id)
                self.endInsertRows()
            elif here:
                changed.append(line)
        if changed:  # one signal for all: each makes the view sort and filter
            self.dataChanged.emit(self.index(min(changed), 0), self.index(max(changed), len(self.columns) - 1))

    def value(self, id: int, column: str) -> Any:
        """What a cell holds; None where it is empty."""
        session = self.session
        if session is None or id not in session.rows:
            return None
        row = session.rows[id]
        if column == "class":
            return row.kind
        if column == "doubt":
            found = self.panel.doubts.get(id)
            return None if found is None else round(found.value, 3)
        if column in ("id", "time", "score", "status", "voxels", "edited", *_SAID):
            return getattr(row, column)
        return self.panel.measured_of(id).get(column)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Qt asks."""
        return len(self.ids)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Qt asks."""
        return len(self.columns)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt asks."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self.columns[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Qt asks."""
        value = self.value(self.ids[index.row()], self.columns[index.column()])
        if role == Qt.ItemDataRole.UserRole:  # for sorting
            if value is None or (isinstance(value, float) and np.isnan(value)):
                return -np.inf if self.columns[index.column()] not in ("status", "edited", *_SAID) else ""
            return float(value) if isinstance(value, (int, float, bool)) else str(value)
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return shown(value)
        if role == Qt.ItemDataRole.ToolTipRole and self.columns[index.column()] == "doubt":
            found = self.panel.doubts.get(self.ids[index.row()])
            return found.why if found else None
        return None

    def flags(self, index: QModelIndex) -> Any:
        """Cells that a person may fill in."""
        base = super().flags(index)
        return base | Qt.ItemFlag.ItemIsEditable if self.columns[index.column()] in _EDITABLE else base

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Take what a person wrote, as one undoable step."""
        if role != Qt.ItemDataRole.EditRole:
            return False
        return self.panel.said(self.ids[index.row()], self.columns[index.column()], str(value).strip())


def _end(name: str) -> bool:
    """Whether a column is a coordinate of an axis' end, which the calipers show."""
    return "_axis_a_" in name or "_axis_b_" in name


def shown(value: Any) -> str:
    """A cell as text: four digits are enough to read."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Sorted(QSortFilterProxyModel):
    """Sorts and filters; by id there is nothing to sort, and no cell is asked for."""

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Qt asks when a heading is pressed."""
        super().sort(-1 if column == 0 and order == Qt.SortOrder.AscendingOrder else column, order)


class InstancesTab(QWidget):
    """What is shown under "Instances"."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.rows = Rows(panel)
        self.proxy = _Sorted()
        self.proxy.setSourceModel(self.rows)
        self.proxy.setSortRole(Qt.ItemDataRole.UserRole)
        self.proxy.setFilterKeyColumn(-1)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.view = QTableView()
        self.view.setModel(self.proxy)
        self.view.setSortingEnabled(True)
        self.view.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.view.verticalHeader().hide()
        self.view.horizontalHeader().setDefaultSectionSize(78)
        self.filter = QLineEdit(placeholderText="filter, such as: accepted, or part of a word")
        self.filter.textChanged.connect(self.proxy.setFilterFixedString)
        self.colour = QComboBox()
        self.colour.textActivated.connect(self._coloured)
        self.count = QLabel("")
        self.calipers = QPushButton("calipers")
        self.calipers.setCheckable(True)
        self.calipers.setToolTip("show the long and short axis of the chosen lesion; drag their ends to correct them")
        self.calipers.clicked.connect(self._lines)
        row = QHBoxLayout()
        row.addWidget(QLabel("colour by"))
        row.addWidget(self.colour, 1)
        row.addWidget(self.calipers)
        box = QVBoxLayout(self)
        box.addWidget(self.filter)
        box.addLayout(row)
        box.addWidget(self.view)
        box.addWidget(self.count)
        self._quiet = False
        self.view.selectionModel().selectionChanged.connect(lambda *_: self._selected())
        self.view.clicked.connect(lambda index: self._clicked(index))
        self.rows.modelReset.connect(self._reset)
        self._reset()

    def marked(self) -> list[int]:
        """Ids of the marked lines."""
        lines = self.view.selectionModel().selectedRows()
        return [self.rows.ids[self.proxy.mapToSource(line).row()] for line in lines]

    def choose(self, ids: list[int]) -> None:
        """Mark the lines of some ids, without moving the view of the image."""
        self._quiet = True
        model = self.view.selectionModel()
        model.clearSelection()
        flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        for id in ids:
            if id in self.rows.ids:
                line = self.proxy.mapFromSource(self.rows.index(self.rows.ids.index(id), 0))
                model.select(line, flags)
                self.view.scrollTo(line)
        self._quiet = False

    def _selected(self) -> None:
        if not self._quiet:
            self.panel.choose(self.marked(), from_table=True)

    def _clicked(self, index: QModelIndex) -> None:
        if self.panel.bound:
            self.panel.bound.go_to(self.rows.ids[self.proxy.mapToSource(index).row()])

    def _lines(self, on: bool) -> None:
        ids = self.panel.chosen()
        if on and ids:
            self.panel.edit.guard(lambda: self.panel.calipers.show(ids[0]))
        else:
            self.panel.calipers.hide()
        self.calipers.setChecked(self.panel.calipers.layer is not None)

    def _reset(self) -> None:
        current = self.colour.currentText()
        self.colour.clear()
        self.colour.addItems(self.rows.columns)
        self.colour.setCurrentText(current or "id")
        for number, name in enumerate(self.rows.columns):
            self.view.setColumnWidth(number, _NARROW.get(name, self.view.horizontalHeader().defaultSectionSize()))
        self.count.setText(counted(len(self.rows.ids)))
        self.choose(self.panel.chosen())

    def _coloured(self, column: str) -> None:
        bound = self.panel.bound
        if bound is None:
            return
        if column == "id":
            bound.colour_by(None)
            return
        values = {id: self.rows.value(id, column) for id in self.rows.ids}
        words = sorted({v for v in values.values() if isinstance(v, str)})
        numbers = {
            id: float(words.index(v)) if isinstance(v, str) else np.nan if v is None else float(v)
            for id, v in values.items()
        }
        bound.colour_by(numbers)
