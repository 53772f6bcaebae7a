"""The medseg window: what is open, and the tabs that work on it. It holds no logic of its own; sessions and commands do."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from medseg.errors import InputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.maps import Maps
from medseg.words import counted
from medseg_napari import calipers, commands, journal, measuring, notices, review
from medseg_napari._qt.bound import UNDO_KEYS, Bound
from medseg_napari._qt.docked import Ending
from medseg_napari._qt.drawing import Context
from medseg_napari._qt.edit import KEYS as EDIT_KEYS
from medseg_napari._qt.edit import EditTab
from medseg_napari._qt.hands import Hands
from medseg_napari._qt.lines import Calipers
from medseg_napari._qt.offer import Offer
from medseg_napari._qt.orient import canvas_of, face
from medseg_napari._qt.reviewing import KEYS as REVIEW_KEYS
from medseg_napari._qt.reviewing import ReviewTab
from medseg_napari._qt.saving import SaveTab
from medseg_napari._qt.segment import SegmentTab
from medseg_napari._qt.table import InstancesTab
from medseg_napari.background import Background
from medseg_napari.layers import (
    image_of,
    in_time,
    instances_of,
    micro,
    named,
    placed,
    series_of,
    timed,
    times_of,
    transform,
)
from medseg_napari.runner import unsettle
from medseg_napari.session import Change, Session, start

_REMEMBERED = 50_000  # states of instances whose measurements are kept for undo
_FETCH = 50  # ms between two looks at what the background has done


class Panel(QWidget):
    """Dock widget "medseg".

    Parameters
    ----------
    napari_viewer
        napari gives it, by this name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        # plugins get a proxy that hides the canvas, on which the letters lie
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.bound: Bound | None = None
        self.tool = ""
        self._ids: list[int] = []
        self.measures: dict[
            tuple[int, int], dict[str, Any]
        ] = {}  # by id and revision: undo finds what was measured before
        self.doubts: dict[int, review.Doubt] = {}
        self.background = Background()
        self.images, self.labels = QComboBox(), QComboBox()
        self.segment, self.instances = SegmentTab(self), InstancesTab(self)
        self.edit, self.review, self.save = EditTab(self), ReviewTab(self), SaveTab(self)
        self.hands, self.calipers, self.offer = Hands(self), Calipers(self), Offer(self)
        self._layout()
        canvas = canvas_of(self.viewer)
        if canvas is not None and canvas.findChild(Context) is None:
            Context(canvas, self.viewer)
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._layers_changed)
        events.removed.connect(self._removed)
        self._fetch = QTimer(self, interval=_FETCH)
        self._fetch.timeout.connect(self._fetched)
        self._fetch.start()
        for key, name in UNDO_KEYS.items():  # also while another layer is active
            self.viewer.bind_key(key, lambda _, name=name: self.edit.act(name), overwrite=True)
        for layer in self.viewer.layers:
            layer.events.name.connect(self._layers_changed)
        self._ending = Ending(self, self.viewer)
        self._layers_changed()
        self.offer.look()

    def _layout(self) -> None:
        self.tabs = QTabWidget()
        for name, tab in {
            "Segment": self.segment,
            "Instances": self.instances,
            "Edit": self.edit,
            "Review": self.review,
            "Save": self.save,
        }.items():
            scroll = QScrollArea(widgetResizable=True)
            scroll.setWidget(tab)
            self.tabs.addTab(scroll, name)
        adopt = QPushButton("Work on it")
        adopt.setToolTip("edit, measure and save the instances of a labels layer that is open already")
        adopt.clicked.connect(lambda: self.edit.guard(self.adopt))
        row = QHBoxLayout()
        row.addWidget(self.labels)
        row.addWidget(adopt)
        form = QFormLayout()
        form.addRow("image", self.images)
        form.addRow("labels", row)
        box = QVBoxLayout(self)
        box.addWidget(self.offer)
        box.addLayout(form)
        box.addWidget(self.tabs)
        box.addWidget(QLabel("medseg: for research use only."))

    # --- what is open

    def image_layer(self) -> Any:
        """The image layer that is chosen, or None."""
        return named(self.viewer, self.images.currentText())

    def shapes_layer(self) -> Any:
        """The active layer if it holds shapes, else the topmost that does, or None."""
        active = self.viewer.layers.selection.active
        drawn = [one for one in self.viewer.layers if isinstance(one, Shapes) and not one.metadata.get("medseg_help")]
        return active if active in drawn else drawn[-1] if drawn else None

    def _layers_changed(self, event: Any = None) -> None:
        if getattr(event, "type", "") == "inserted":
            event.value.events.name.connect(self._layers_changed)
        for box, kind in ((self.images, ImageLayer), (self.labels, Labels)):
            current = box.currentData()
            box.clear()
            for layer in self.viewer.layers:
                if isinstance(layer, kind) and not layer.metadata.get("medseg_help"):
                    box.addItem(layer.name, id(layer))
            box.setCurrentIndex(max(0, box.findData(current)))
        if (layer := self.image_layer()) is not None:
            self.segment.suggest(layer)
        if self.bound is None and (layer is not None or not len(self.viewer.layers)):
            face(self.viewer, layer)

    def _removed(self, event: Any) -> None:
        """A person deleted a layer: of the session's the file stays, so that it can be restored."""
        if self.bound is not None and event.value is self.bound.layer:
            bound, self.bound = self.bound, None
            # after the event: napari does not bear that more layers go in the middle of it
            QTimer.singleShot(0, lambda: self._deleted(bound))

    def _deleted(self, bound: Bound) -> None:
        self.calipers.hide()
        bound.close(keep=bool(bound.session.edits) and not bound.session.saved)
        self.background.clear()
        self._ids = []
        self._shown()
        self.offer.look()

    def session(self) -> Session:
        """The session.

        Raises
        ------
        InputError
            There is none.
        """
        return self.needed().session

    def needed(self) -> Bound:
        """The session and its layer, or an error in words."""
        if self.bound is None:
            raise InputError(
                "There are no instances to work on: segment an image, or open labels and press Work on it."
            )
        return self.bound

    @property
    def micro(self) -> bool:
        """Whether lengths are in um."""
        return self.bound is not None and micro(self.bound.session.grid)

    def axis(self) -> int:
        """The axis of the labels that the viewer looks along; the first in 3-D views."""
        n = self.needed().session.grid.ndim
        hidden = [axis - (self.viewer.dims.ndim - n) for axis in self.viewer.dims.not_displayed]
        return next((axis for axis in hidden if axis >= 0), 0)

    # --- sessions

    def opened(
        self,
        instances: Instances | Sequence[Instances | None] | None,
        image: Image | Sequence[Image] | None,
        maps: Maps | None,
        session: Session | None = None,
        like: dict[str, Any] | None = None,
        layer: Any = None,
    ) -> None:
        """Begin to work on instances; what was worked on before stays as a plain layer, and on disk if it was not saved.

        Parameters
        ----------
        instances, image, maps
            For a new session; of a series those of each time.
        session
            One that goes on, in place of a new one.
        like
            Scale, translate and units of the layer that shows them, where that is not a layer of medseg.
        layer
            One of the viewer that is to show them, in place of a new one.
        """
        self._leave()
        self.take("")
        name = self.images.currentText() or "image"
        if session is None:
            assert instances is not None
            session = start(instances, image, maps)
        self.bound = Bound(self.viewer, session, f"{name} instances", like, layer)
        self.bound.session.changed.connect(self._changed)
        self.viewer.layers.selection.active = self.bound.layer
        face(self.viewer, self.bound.layer)
        self._shown()
        self._measure(set(self.bound.session.rows))
        self.offer.look()

    def _leave(self) -> None:
        """Let go of the session that is open."""
        self.background.clear()
        self.measures.clear()
        self.doubts.clear()
        self._ids = []
        if self.bound is not None:
            bound, self.bound = self.bound, None
            self.calipers.hide()
            bound.close(keep=bool(bound.session.edits) and not bound.session.saved)

    def adopt(self) -> None:
        """Work on the labels layer that is chosen."""
        layer = named(self.viewer, self.labels.currentText())
        if layer is None:
            raise InputError("There are no labels: open a label file first, or segment an image.")
        if self.bound is not None and layer is self.bound.layer:
            return
        picture = self.image_layer()
        if timed(layer) or (timed(picture) and layer.data.shape == picture.data.shape[: layer.ndim]):
            self._adopt_series(layer, picture)
            return
        instances, image = instances_of(layer, self.viewer.layers), None
        if picture is not None:
            found = image_of(picture, picture.world_to_data(self.viewer.dims.point))
            image, before = found, len(instances)
            if not found.grid.matches(instances.grid):
                # on the image's grid, so that measurements and DICOM are of it
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    instances = instances.on(found.grid)
                for text in dict.fromkeys(str(w.message) for w in caught):
                    notices.note(text)
            if before and not len(instances):
                raise InputError("No instance of these labels lies in the image; choose the image they were drawn on.")
        self.opened(
            instances, image, None, like=None if picture is None else transform(picture, instances.labels.shape)
        )
        layer.visible = False

    def _adopt_series(self, layer: Any, picture: Any) -> None:
        """Work on the labels of a time series."""
        found = series_of(layer, self.viewer.layers)
        images, first = None, next(one for one in found if one is not None)
        if timed(picture):
            images = times_of(picture)
            if len(images) != len(found) or not images[0].grid.matches(first.grid):
                raise InputError(
                    "These labels have other times or voxels than the image; choose the image they were drawn on."
                )
        shape = (len(found), *first.grid.shape)
        self.opened(found, images, None, like=transform(layer if images is None else picture, shape))
        layer.visible = False

    def redecoded(self, instances: Instances | Sequence[Instances | None]) -> None:
        """Show what the sliders gave."""
        session = self.session()
        if not session.edits or session.edits[-1].name == "settings":
            session.replace("settings", instances)

    def preview(self, grid: Grid, shape: tuple[int, ...], like: dict[str, Any] | None = None) -> Any:
        """A labels layer for regions as they come, of no session."""
        more = placed(grid) if len(shape) == grid.ndim else in_time(placed(grid))
        layer = Labels(np.zeros(shape, np.int32), name="finding...", **(more | (like or {})))
        layer.metadata["medseg_help"] = True
        self.viewer.add_layer(layer)
        return layer

    # --- choosing and changing

    def chosen(self) -> list[int]:
        """Ids that are chosen, in the table or by clicks, also those that a filter hides."""
        return [id for id in self._ids if self.bound and id in self.bound.session.rows]

    def choose(self, ids: list[int], from_table: bool = False) -> None:
        """Choose instances, everywhere."""
        self._ids = list(ids)
        if not from_table:
            self.instances.choose(ids)
        if self.bound is not None:
            self.bound.select(ids)
            if ids and ids[0] in self.bound.session.rows:
                if self.calipers.layer is not None and self.calipers.id != ids[0]:
                    self.calipers.show(ids[0])
                self.edit.kind.setCurrentText(self.bound.session.rows[ids[0]].kind)

    def take(self, tool: str) -> None:
        """Take a tool in hand; "" puts it down."""
        self.hands.put_down()
        if tool and tool not in ("clicks", "box") and self.bound is None:
            notices.problem("There are no instances to work on: segment an image, or open labels and press Work on it.")
            tool = ""
        if tool and self.viewer.dims.ndisplay == 3:
            notices.problem("Tools that need clicks work on slices; leave the 3-D view first.")
            tool = ""
        self.tool = tool
        if tool:
            for layer in self.viewer.layers:  # a brush in hand would paint
                if getattr(layer, "mode", "pan_zoom") != "pan_zoom":
                    layer.mode = "pan_zoom"
            self.hands.take_up()
        self.edit.tool_shown(tool)
        self.viewer.scene.camera.mouse_pan = tool not in ("line", "box")

    def said(self, id: int, column: str, text: str) -> bool:
        """Take what a person wrote into the table."""
        session = self.bound.session if self.bound else None
        if session is None or id not in session.rows:
            return False
        if column == "class":
            return self.edit.guard(lambda: commands.set_kind(session, [id], text)) is not None
        return self.edit.guard(lambda: commands.say(session, id, column, text)) is not None

    def _changed(self, change: Change) -> None:
        self.instances.rows.refresh(set(change.ids))
        self.instances.count.setText(counted(len(self.session())))
        self.review.told()
        if change.name != "score":
            self.save.changed()
            if self.bound is not None:
                self.bound.select(self.chosen())  # their frames move with them
            self.calipers.follow(change.ids)
            self.calipers.measured({id for id in change.ids if self.measured_of(id)})
            self._measure(set(change.ids))

    def measured_of(self, id: int) -> dict[str, Any]:
        """What was measured of an instance as it is now; empty until it is."""
        row = self.bound.session.rows.get(id) if self.bound else None
        if self.bound is None or row is None:
            return {}
        return self.measures.get((id, row.revision), {}) | calipers.corrected(row, self.bound.session.grid)

    def _measure(self, ids: set[int]) -> None:
        """Measure, score and judge in the background what changed."""
        session = self.session()
        usual = review.usual_size(session)
        for id in sorted(ids, reverse=True):
            row = session.rows.get(id)
            if row is None:
                self.doubts.pop(id, None)
            elif (id, row.revision) not in self.measures or id not in self.doubts:
                self.background.put(id, partial(_looked_at, session, row, usual))

    def _fetched(self) -> None:
        """Take what the background has done."""
        session = self.bound.session if self.bound else None
        fresh: set[int] = set()
        for key, result in self.background.results():
            if result is None or result[0] is not session:
                continue
            if key == "settings":
                self.redecoded(result[1])
                continue
            of, row, values, score, doubt = result
            self.measures[(row.id, row.revision)] = values
            while len(self.measures) > _REMEMBERED:
                self.measures.pop(next(iter(self.measures)))
            self.doubts[row.id] = doubt
            fresh.add(row.id)
            if row.edited and row.score is None and score is not None:
                of.amend(row.id, row.revision, score=score)
        if fresh:
            self.instances.rows.refresh(fresh)
            self.calipers.measured(fresh)

    def _shown(self) -> None:
        self.review.begin()
        self.instances.rows.reload()
        self.edit.shown()
        self.save.shown()
        self.segment.show_sliders()
        self.review.told()

    def end(self) -> None:
        """End threads, let go of napari; edits that were not saved stay on disk and are offered next time."""
        self._fetch.stop()
        self.take("")
        self.segment.cancel(forget=True)
        self.segment.stop_timers()
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._layers_changed)
        events.removed.disconnect(self._removed)
        for layer in self.viewer.layers:
            layer.events.name.disconnect(self._layers_changed)
        self.hands.end()
        for key in (*EDIT_KEYS.values(), *REVIEW_KEYS, *UNDO_KEYS):
            self.viewer.bind_key(key, None, overwrite=True)
        self._leave()
        self.background.close()
        unsettle()


def _looked_at(session: Session, row: journal.Row, usual: tuple[float, float]) -> tuple[Any, ...] | None:
    if session.rows.get(row.id) is not row:
        return None
    score = measuring.score(session, row) if row.edited and row.score is None else None
    judged = row if score is None else row.changed(score=score)
    found = session, row, measuring.measured(session, row), score, review.doubt(session, judged, usual)
    # the voxels may have changed under our hands: what was measured is then of neither state
    return found if session.rows.get(row.id) is row else None
