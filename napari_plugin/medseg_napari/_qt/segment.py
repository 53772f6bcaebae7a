"""Run a model: choose it, run, watch, cancel; then move the sliders, which read the kept maps again."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider, QLabeledSlider

from medseg import heads, model, presets
from medseg.errors import InputError, MedsegError
from medseg.image import Image
from medseg.instances import Instances
from medseg.pipeline import Progress, Region, Started
from medseg.spec import HeadBase, ModelSpec, RunSpec
from medseg_napari import notices
from medseg_napari.layers import KEY, WINDOWS, image_of, limits, spatial, timed, times_of, transform
from medseg_napari.runner import Cancelled, Failed, Ready, Run, by_rule
from medseg_napari.session import Session

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel

RULE = "a rule, no model"
_OF_CELLS = ("cells2d", "nuclei2d", "nuclei3d")
ABOUT_RULES = (
    "All voxels that meet a rule, cut into single objects by their shape. <b>SUV&gt;4</b> (also SUVlbm, SUVbsa), <b>HU&gt;200</b>, "
    "<b>&gt;0.5</b> (values as they are), <b>&gt;41%</b> (of the image's maximum), <b>&gt;p99</b> (percentile), <b>otsu</b>; "
    "<b>SUV&gt;4, 41%</b> keeps of each object what reaches 41 % of its own maximum."
)
_LOOK = 40  # ms between two looks at a run


class SegmentTab(QWidget):
    """What is shown under "Segment"."""

    finished = Signal()

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.panel = panel
        self.run: Run | None = None
        self._images: tuple[Image, ...] = ()
        self._asked = 0  # how many settings of the sliders were asked for
        self._preview: Any = None
        self._suggested: Any = None
        self._like: dict[str, Any] | None = None
        self.models = QComboBox()
        self.models.addItems(list(presets.weights()))
        self.models.addItem(RULE)
        self.rule = QLineEdit(placeholderText="such as SUV>4 or HU>200 or otsu")
        self.values = QComboBox()
        self.values.addItems(["auto", "HU", "SUVbw", "SUVlbm", "SUVbsa"])
        self.values.setToolTip("what the voxels of a file hold that does not say so itself")
        self.card = QLabel(wordWrap=True)
        self.device = QComboBox()
        self.device.addItems(["auto", "cpu", "cuda", "mps"])
        self.series = QCheckBox("all times of the series")
        self.series.setToolTip("one after the other; not ticked, the time that is shown")
        self.region = QCheckBox("only in the box of the active shapes layer")
        self.force = QCheckBox("run although the model does not fit")
        self.windows = QComboBox()
        self.windows.addItems(list(WINDOWS))
        self.windows.textActivated.connect(self._windowed)
        self.start = QPushButton("Segment")
        self.stop = QPushButton("Cancel")
        self.stop.setEnabled(False)
        self.bar = QProgressBar()
        self.left = QLabel("")
        self.note = QLabel("", wordWrap=True)
        self.sliders = QGroupBox("Settings of the result (the network does not run again)")
        self._form = QFormLayout(self.sliders)
        self._values: dict[str, Any] = {}
        self._made_for: ModelSpec | None = None
        self._layout()
        self.models.currentTextChanged.connect(self._described)
        self.start.clicked.connect(lambda: self.begin())
        self.stop.clicked.connect(lambda: self.cancel())
        self._look = QTimer(self, interval=_LOOK)
        self._look.timeout.connect(self._looked)
        self._again = QTimer(self, interval=0, singleShot=True)
        self._again.timeout.connect(self._decoded)
        self._described(self.models.currentText())
        self.show_sliders()

    def _layout(self) -> None:
        form = QFormLayout()
        form.addRow("model", self.models)
        form.addRow(self.card)
        form.addRow("rule", self.rule)
        form.addRow("values are", self.values)
        self._form_of_rule = form
        form.addRow("device", self.device)
        form.addRow(self.series)
        form.addRow(self.region)
        form.addRow(self.force)
        form.addRow("CT window", self.windows)
        row = QHBoxLayout()
        row.addWidget(self.start)
        row.addWidget(self.stop)
        box = QVBoxLayout(self)
        box.addLayout(form)
        box.addLayout(row)
        for widget in (self.bar, self.left, self.note, self.sliders):
            box.addWidget(widget)
        box.addStretch()

    def _described(self, name: str) -> None:
        """Show the model's card, or what a rule does."""
        for widget in (self.rule, self.values):
            self._form_of_rule.setRowVisible(widget, name == RULE)
        if name == RULE:
            self.card.setText(ABOUT_RULES)
            return
        try:
            spec = model.read_header(model.find(name))
        except MedsegError as error:
            self.card.setText(str(error))
            return
        limits = "".join(f"<li>{one}</li>" for one in spec.limits[:3])
        self.card.setText(
            f"<b>{spec.title}</b><br>{spec.net.ndim}-D, {', '.join(spec.modality)}. {spec.description}"
            f"<ul>{limits}</ul><i>{spec.licence}</i>"
        )

    def suggest(self, layer: Any) -> None:
        """Choose the model that fits an image nobody chose one for; windows are for CT, times for a series. No voxel is read."""
        self._form_of_rule.setRowVisible(self.series, timed(layer))
        if layer is self._suggested:
            return
        self._suggested = layer
        about = layer.metadata.get(KEY, {})
        image = about["frames"][0] if "frames" in about else about.get("image")
        self.windows.setEnabled(image is not None and image.modality == "CT")
        if image is not None and (image.modality not in ("microscopy", "other") or image.grid.space == "patient"):
            if self.models.currentText() in _OF_CELLS:  # ms-lesions is for FLAIR of a brain alone: never a guess
                self.models.setCurrentText(RULE)
            return
        several = len(image.channels) > 1 if image is not None else bool(layer.rgb)
        flat = image.grid.ndim == 2 if image is not None else spatial(layer) == 2
        self.models.setCurrentText("cells2d" if flat and several else "nuclei2d" if flat else "nuclei3d")

    def stop_timers(self) -> None:
        """Nothing is looked at any more."""
        self._look.stop()
        self._again.stop()

    def _windowed(self, name: str) -> None:
        layer = self.panel.image_layer()
        if layer is not None:
            layer.contrast_limits_range = (
                min(-1024, layer.contrast_limits_range[0]),
                max(3071, layer.contrast_limits_range[1]),
            )
            layer.contrast_limits = limits(name)

    # --- running

    def begin(self, events: Any = None) -> None:
        """Start a run on the chosen image; what goes wrong is told in words."""
        if self.run is not None:
            return
        self._ended("")  # what an earlier run found is not what this one says
        try:
            layer = self.panel.image_layer()
            at = () if layer is None else layer.world_to_data(self.panel.viewer.dims.point)
            series = self.series.isChecked() and timed(layer)
            every = times_of(layer) if series else [image_of(layer, at)]
            box = self._box(every[0]) if self.region.isChecked() else None
            self._images = tuple(every if box is None else [image.crop(*box) for image in every])
            grid = self._images[0].grid
            shape, start = grid.shape, (0,) * grid.ndim if box is None else box[0]
            if series:
                shape, start = (len(every), *shape), (0, *start)
            self._like = transform(layer, shape, start)
            if events is None and self.models.currentText() == RULE:
                events = by_rule(self.rule.text(), self.values.currentText())
            options = RunSpec(device=self.device.currentText(), force=self.force.isChecked())  # type: ignore[arg-type]
            # now and not at the end: napari takes its time to add a layer, and the window is to go on when the result comes
            self._preview = self.panel.preview(grid, shape, self._like)
            images = self._images if series else self._images[0]
            self.run = Run(images, self.models.currentText(), options, events)
        except (MedsegError, MemoryError) as error:
            self._no_preview()
            self.tell(notices.words(error))
            return
        self.note.setText("")
        self._busy(True)
        self.bar.setRange(0, 0)
        self.left.setText("reading the model")
        self._look.start()

    def _box(self, image: Image) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Region of interest: the box around all shapes of the active shapes layer, whole in axes that it does not cover."""
        shapes = self.panel.shapes_layer()
        if shapes is None or not len(shapes.data):
            raise InputError("There is no region: add a shapes layer, draw a rectangle in it, and choose that layer.")
        layer = self.panel.image_layer()
        corners = [layer.world_to_data(shapes.data_to_world(point)) for shape in shapes.data for point in shape]
        shape = image.grid.shape
        corners = [corner[-len(shape) :] for corner in corners]  # axes such as time come before
        low = [max(0, round(min(c[a] for c in corners))) for a in range(len(shape))]
        high = [min(n, round(max(c[a] for c in corners)) + 1) for a, n in enumerate(shape)]
        for axis, n in enumerate(shape):
            if len(shape) == 3 and high[axis] - low[axis] <= 1:
                low[axis], high[axis] = 0, n  # drawn on one slice: all slices
        if any(b - a < 2 for a, b in zip(low, high, strict=True)):
            raise InputError("The region lies outside of the image, or is empty.")
        return tuple(low), tuple(high)

    def cancel(self, *, forget: bool = False) -> None:
        """Give the window back now; the thread ends after the network window that runs. Times of a series that are done stay."""
        if self.run is None:
            return
        if self.run.series and not forget:
            self.run.cancel(forget=False)
            self.stop.setEnabled(False)
            self.left.setText("stopping; what is done stays")
            return
        self.run.cancel()
        self._ended("cancelled")
        self._no_preview()

    def _looked(self) -> None:
        if self.run is None:
            return
        for event in self.run.events():
            if isinstance(event, Started):
                self.bar.setRange(0, event.windows)
                for text in event.notes:
                    self.note.setText(text)
            elif isinstance(event, Progress):
                self._progressed(event)
            elif isinstance(event, Region):
                self._shown(event)
            elif isinstance(event, Ready):
                self._done(event)
                return
            elif isinstance(event, Failed):
                self._ended(event.text)
                self._no_preview()
                self.tell(event.text)
                return
            elif isinstance(event, Cancelled):
                self._ended("cancelled")
                self._no_preview()
                return

    def _progressed(self, event: Progress) -> None:
        assert self.run is not None
        self.bar.setRange(0, event.windows)
        self.bar.setValue(event.done)
        if not self.stop.isEnabled():  # it is ending
            return
        left = self.run.left(event.done, event.windows)
        text = "" if left is None else f"about {left:.0f} s left"
        if self.run.series:
            time = min(event.done * len(self._images) // event.windows, len(self._images) - 1)
            text = f"time {time} of 0 to {len(self._images) - 1}, {text}"
        self.left.setText(text)

    def _shown(self, region: Region) -> None:
        """Draw a region as it comes; of an image that is one region the result is about to come."""
        if region.labels.shape == self._images[0].grid.shape:
            return
        if self._preview not in self.panel.viewer.layers:
            return  # a person deleted it: the run goes on
        self._preview.data[region.place] = region.labels
        self._preview.refresh(extent=False)

    def _done(self, ready: Ready) -> None:
        session = ready.session
        done = "" if session.times is None else f" at {len(session.done())} of {session.times} times"
        self._ended(f"{len(session)} found{done} in {ready.seconds:.1f} s")
        notes = [
            re.sub(r"; ?--[^;]*$", "", note) for note in ready.notes
        ]  # options of the command line are sliders here
        if session.maps is None and self.models.currentText() != RULE:
            notes.append("the maps are too large to be kept: the sliders are off, splitting goes by shape")
        self.note.setText("; ".join(notes))
        layer, self._preview = self._preview, None
        if layer not in self.panel.viewer.layers:  # a person deleted it
            layer = None
        like = self._like
        self.panel.edit.guard(lambda: self.panel.opened(None, None, None, session, like, layer))
        self._images = ()
        if ready.problem:
            self.tell(ready.problem)
        self.finished.emit()

    def _ended(self, text: str) -> None:
        self._look.stop()
        self.run = None
        self._busy(False)
        self.bar.setRange(0, 1)
        self.bar.setValue(1 if "found" in text else 0)
        self.left.setText(text)

    def _no_preview(self) -> None:
        if self._preview is not None and self._preview in self.panel.viewer.layers:
            self.panel.viewer.layers.remove(self._preview)
        self._preview = None

    def _busy(self, busy: bool) -> None:
        self.start.setEnabled(not busy)
        self.stop.setEnabled(busy)

    def tell(self, text: str) -> None:
        """Show a problem beside the button and as a notification."""
        text = re.sub(r"say so: --values (\w+) \(values=\)", r"choose \1 under 'values are'", text)
        self.note.setText(text)
        notices.problem(text)

    # --- sliders

    def show_sliders(self) -> None:
        """Sliders for the settings of the model's head, made from its spec."""
        bound = self.panel.bound
        maps = bound.session.maps if bound else None
        self.sliders.setVisible(maps is not None)
        if maps is None:
            return
        spec = maps.spec
        if spec == self._made_for:
            self._reset(spec)
            self._again.stop()
            return
        self._made_for = spec
        while self._form.rowCount():
            self._form.removeRow(0)
        self._values = {}
        for name, low, high in ranges(spec):
            value = spec.min_score if name == "min_score" else getattr(spec.heads[0], name)
            whole = isinstance(value, int)
            slider = (QLabeledSlider if whole else QLabeledDoubleSlider)(self.sliders)
            slider.setOrientation(_horizontal())
            slider.setRange(low, high)
            slider.setValue(value)
            slider.setToolTip(HELP.get(name) or str(type(spec.heads[0]).model_fields[name].description))
            slider.valueChanged.connect(lambda _: self._again.start())
            self._values[name] = slider
            self._form.addRow(name.replace("_", " "), slider)
        reset = QPushButton("as the model says")
        reset.clicked.connect(partial(self._reset, spec))
        self._form.addRow(reset)

    def _reset(self, spec: ModelSpec) -> None:
        for name, slider in self._values.items():
            slider.setValue(spec.min_score if name == "min_score" else getattr(spec.heads[0], name))

    def settings(self) -> tuple[HeadBase, float]:
        """Head and least score as the sliders stand."""
        bound = self.panel.bound
        assert bound is not None and bound.session.maps is not None
        head = bound.session.maps.spec.heads[0]
        told = {name: slider.value() for name, slider in self._values.items() if name != "min_score"}
        return head.model_copy(update=told), float(self._values["min_score"].value())

    def _decoded(self) -> None:
        bound = self.panel.bound
        if bound is None or bound.session.maps is None:
            return
        if bound.session.edits and any(edit.name != "settings" for edit in bound.session.edits):
            self.note.setText("The result was edited; undo the edits, or segment again, to change its settings.")
            return
        head, least = self.settings()
        self._asked += 1
        # beside the window; of several waiting settings the last counts
        self.panel.background.put("settings", partial(self._read_again, self._asked, bound.session, head, least))

    def _read_again(
        self, asked: int, session: Session, head: HeadBase, least: float
    ) -> tuple[Session, Instances | list[Instances | None]] | None:
        """Read the maps again; None where other settings were asked for meanwhile."""
        every: list[Instances | None] = []
        for maps in session.every_maps:
            if asked != self._asked and session.times is not None or session.maps is None:
                return None
            every.append(None if maps is None else maps.decode(head, least))
        if session.times is not None:
            return session, every
        return None if every[0] is None else (session, every[0])


HELP = {"min_score": "instances with a lower score are left out", "min_voxels": "smallest instance in voxels"}


def ranges(spec: ModelSpec) -> list[tuple[str, float, float]]:
    """Name, lowest and highest value of each setting of a model's head that can be moved."""
    head = heads.make(spec.heads[0])
    out: list[tuple[str, float, float]] = [("min_score", 0.0, 1.0)]
    for name, tried in head.tunable.items():
        value = getattr(spec.heads[0], name)
        if name in ("threshold", "core", "seed", "claim", "apart"):
            out.append((name, 0.02, 0.98))
        else:
            out.append((name, min(*tried, value) / 2, max(*tried, value) * 2))
    return [*out, ("min_voxels", 1, max(500, 4 * spec.heads[0].min_voxels))]


def _horizontal() -> Any:
    from qtpy.QtCore import Qt

    return Qt.Orientation.Horizontal
