"""The mouse on the image: choosing instances, and the tools that wait for clicks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points
from qtpy.QtCore import QTimer

from medseg.errors import InputError
from medseg.instances import Instances
from medseg_napari import commands, notices
from medseg_napari.layers import image_of, timed, times_of, transform
from medseg_napari.prompts import Prompt

if TYPE_CHECKING:
    from medseg_napari._qt.panel import Panel


class Hands:
    """What clicks and drags do, by the tool in hand."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.viewer = panel.viewer
        self.clicks: list[tuple[float, ...]] = []
        self.prompt: Prompt | None = None
        self._over: Any = None  # the image layer that is clicked in
        self._time: int | None = None  # of a series, when
        self._marks: Points | None = None
        self._preview: Labels | None = None
        self.viewer.mouse_drag_callbacks.append(self._mouse)
        self._held: list[Any] = []  # layers that lend us their Enter and Escape while a tool is in hand

    def take_up(self) -> None:
        """Listen to Enter and Escape, which layers use for shapes of their own, until the tool is put down."""
        self._held = list(self.viewer.layers)
        for one in (self.viewer, *self._held):
            one.bind_key("Enter", lambda _: self.finish(), overwrite=True)
            one.bind_key("Escape", lambda _: self.panel.take(""), overwrite=True)

    def _mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        """Napari calls this at a press, and goes on with it at each move and at the release."""
        active = viewer.layers.selection.active
        if event.button != 1 or (getattr(active, "mode", "pan_zoom") not in ("pan_zoom", "transform")):
            return
        shift = "Shift" in event.modifiers
        path = [tuple(event.position)]
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            path.append(tuple(event.position))
            yield
        view = None if event.view_direction is None else np.array(event.view_direction)
        shown = list(event.dims_displayed)
        # after the event: napari does not bear layers that come and go in the middle of one
        if self.panel.tool in ("line", "box"):
            if dragged:
                QTimer.singleShot(0, lambda: self.panel.edit.guard(lambda: self._drawn(path)))
        elif not dragged:
            QTimer.singleShot(0, lambda: self.panel.edit.guard(lambda: self._clicked(path[0], shift, view, shown)))

    def _clicked(self, position: tuple[float, ...], shift: bool, view: Any, shown: list[int]) -> None:
        tool = self.panel.tool
        if tool in ("clicks", "box"):
            self._prompted(position, shift)
            return
        bound = self.panel.bound
        if bound is None:
            return
        where = bound.layer.world_to_data(position)
        if tool == "split":
            self.clicks.append(tuple(position))
            if not self.panel.chosen() and (id := bound.session.at(where)):
                self.panel.choose([id])
            self._mark()
        elif tool == "model":
            commands.regrow(bound.session, where)
            self.panel.choose([max(bound.session.rows)])
        else:
            # under the mouse, in slices and in 3-D
            id = int(bound.layer.get_value(position, view_direction=view, dims_displayed=shown, world=True) or 0)
            kept = self.panel.chosen() if shift else []
            if id:
                self.panel.choose([i for i in kept if i != id] if id in kept else [*kept, id])
            elif not shift:
                self.panel.choose([])

    def _drawn(self, path: list[tuple[float, ...]]) -> None:
        if self.panel.tool == "box":
            self._boxed(path[0], path[-1])
            return
        bound = self.panel.needed()
        points = [bound.layer.world_to_data(point) for point in path]
        ids = self.panel.chosen() or self._crossed(bound, points)
        commands.split_by_line(bound.session, ids[0] if ids else 0, points, self.panel.axis())
        self.panel.take("")

    def _crossed(self, bound: Any, points: list[Any]) -> list[int]:
        """The instance that most of a line lies on."""
        dense = [
            a + (np.asarray(b) - a) * t
            for a, b in zip(map(np.asarray, points[:-1]), points[1:], strict=True)
            for t in np.linspace(0, 1, 20)
        ]
        hit = [id for id in map(bound.session.at, dense) if id]
        return [max(set(hit), key=hit.count)] if hit else []

    def finish(self) -> None:
        """Enter: do what the clicks are for."""
        tool = self.panel.tool
        if tool == "split":
            ids = self.panel.chosen()
            bound = self.panel.bound
            if bound is not None:
                clicks = [bound.layer.world_to_data(click) for click in self.clicks]
                self.panel.edit.guard(lambda: commands.split(bound.session, ids[0] if ids else 0, clicks))
            self.panel.take("")
        elif tool in ("clicks", "box") and self.prompt is not None:
            self.panel.edit.guard(self._accept)

    def put_down(self) -> None:
        """Forget clicks and what was drawn for them."""
        self.clicks = []
        self.prompt = None
        for one in (self.viewer, *self._held):
            for key in ("Enter", "Escape"):
                if key in one.keymap:
                    one.bind_key(key, None, overwrite=True)
        self._held = []
        for layer in (self._marks, self._preview):
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._marks = self._preview = None

    # --- a mask by clicks in the image, without a model

    def _start(self) -> Prompt:
        """Begin with the image that is chosen, at the time that is shown."""
        if self.prompt is None:
            layer = self.panel.image_layer()
            at = () if layer is None else layer.world_to_data(self.viewer.dims.point)
            self.prompt, self._over = Prompt(image_of(layer, at)), layer
            self._time = int(round(float(at[0]))) if timed(layer) else None
        return self.prompt

    def _where(self, position: tuple[float, ...]) -> np.ndarray[Any, Any]:
        """Voxel index in the image that is clicked; axes such as time come before and are left out."""
        assert self.prompt is not None
        return np.asarray(self._over.world_to_data(position))[-self.prompt.image.grid.ndim :]

    def _prompted(self, position: tuple[float, ...], outside: bool) -> None:
        prompt = self._start()
        where = self._where(position)
        prompt.click(where, inside=not outside)
        self.clicks.append(tuple(position))
        self._mark()
        self._show()

    def _boxed(self, first: tuple[float, ...], last: tuple[float, ...]) -> None:
        prompt = self._start()
        prompt.box(self._where(first), self._where(last))
        self._show()
        self.viewer.scene.camera.mouse_pan = True
        self.panel.tool = "clicks"
        self.panel.edit.tool_shown("clicks")

    def _show(self) -> None:
        """Draw what would be added, as a layer of the size of its box."""
        assert self.prompt is not None
        mask, place = self.prompt.mask, self.prompt.place
        if self._preview is not None and self._preview in self.viewer.layers:
            self.viewer.layers.remove(self._preview)
        like = transform(self._over, self.prompt.image.grid.shape, [s.start for s in place])
        mask = mask.astype(np.uint8)
        if self._time is not None:  # at its time alone
            mask, when = mask[None], self._over.scale[0] * self._time + self._over.translate[0]
            like = {
                "scale": [self._over.scale[0], *like["scale"]],
                "translate": [when, *like["translate"]],
                "units": list(self._over.units),
            }
        self._preview = Labels(mask, name="preview", opacity=0.5, **like)
        self._preview.metadata["medseg_help"] = True
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(self._preview)
        self.viewer.layers.selection.active = active

    def _accept(self) -> None:
        assert self.prompt is not None
        mask, place, image = self.prompt.mask, self.prompt.place, self.prompt.image
        tool = self.panel.tool
        if self.panel.bound is None:
            empty = Instances.from_labels(np.zeros(image.grid.shape, np.int32), image.grid)
            if self._time is None:
                self.panel.opened(empty, image, None, like=transform(self._over, image.grid.shape))
            else:
                every = times_of(self._over)
                shape = (len(every), *image.grid.shape)
                self.panel.opened([empty] * len(every), every, None, like=transform(self._over, shape))
        session = self.panel.session()
        if not image.grid.matches(session.grid):  # clicked in another image, such as the PET beside the CT
            whole = np.zeros(image.grid.shape, np.int32)
            whole[place][mask] = 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what lies beyond the other image is not there to be kept
                whole = Instances.from_labels(whole, image.grid).on(session.grid).labels
            if not whole.any():
                raise InputError("The object lies outside of the image that the instances are of.")
            found = np.argwhere(whole)
            place = tuple(slice(int(a), int(b) + 1) for a, b in zip(found.min(0), found.max(0), strict=True))
            mask = whole[place] > 0
        commands.add(session, mask, place, "add by clicks", time=self._time)
        new = max(session.rows)
        self.panel.take(tool)
        self.panel.choose([new])
        notices.note(f"Instance {new} added")

    def _mark(self) -> None:
        """Show the clicks."""
        points = np.asarray(self.clicks)
        if self._marks is None or self._marks not in self.viewer.layers:
            active = self.viewer.layers.selection.active
            like = self._over if self.panel.tool in ("clicks", "box") else self.panel.needed().layer
            size = 6 * float(min(like.scale[-2:]))
            self._marks = Points(
                points, name="clicks", size=size, face_color="yellow", units=self.viewer.layers[0].units
            )
            self._marks.metadata["medseg_help"] = True
            self.viewer.add_layer(self._marks)
            self.viewer.layers.selection.active = active
        else:
            self._marks.data = points

    def end(self) -> None:
        """Let go of the mouse."""
        if self._mouse in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._mouse)
