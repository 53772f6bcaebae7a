"""What people do that nobody planned for: two runs, two panels, foreign layers, renamed ones, changes in the middle of things."""

import threading

import numpy as np
import pytest
from medseg_napari import journal
from test_window import show, strokes, two_balls, work_on

from medseg import io, presets
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances

pytest.importorskip("napari")
pytestmark = pytest.mark.usefixtures("display")


def test_a_second_run_over_unsaved_edits_keeps_them_on_disk(window):
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    window.segment()
    panel.choose([1])
    window.press("Delete")
    edited = panel.bound.session.labels.copy()
    window.segment()
    assert not strokes(panel.bound.session) and panel.offer.banner.isVisible()
    window.push(panel.offer.take)
    np.testing.assert_array_equal(panel.bound.session.labels, edited)
    assert strokes(panel.bound.session) == ["delete"]
    assert panel.bound.session.image is not None


def test_closing_the_dock_or_the_window_ends_all_threads(window):
    panel, session, layer = work_on(window)
    callbacks = len(window.viewer.mouse_drag_callbacks)
    panel.choose([1])
    window.press("Delete")
    window.viewer.window.remove_dock_widget(panel)
    window.until(lambda: not [t for t in threading.enumerate() if t.name == "medseg background"], 10)
    assert len(window.viewer.mouse_drag_callbacks) == callbacks - 1
    (left,) = journal.left_over()
    again = window.open_panel()
    assert again.offer.banner.isVisible()
    window.push(again.offer.take)
    assert strokes(again.bound.session) == ["delete"]


def test_a_restored_session_takes_no_other_image(window, tmp_path):
    rng = np.random.default_rng(0)
    grid = Grid.from_spacing((40, 40), 0.5, unit="um")
    for name in ("mine", "other"):
        io.save_image(
            Image(rng.integers(0, 200, (1, 40, 40), dtype=np.uint8), grid, "microscopy"), tmp_path / f"{name}.tif"
        )
    window.viewer.open(str(tmp_path / "mine.tif"), plugin="medseg")
    panel = window.open_panel()
    image = window.viewer.layers[0].metadata["medseg"]["image"]
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15] = 1
    panel.opened(Instances.from_labels(labels, image.grid), image, None)
    panel.edit.length.setValue(1.0)
    panel.choose([1])
    window.push(panel.edit.buttons["grow"])
    window.viewer.layers.clear()
    window.wait(0.05)
    window.viewer.open(str(tmp_path / "other.tif"), plugin="medseg")
    window.push(panel.offer.take)
    assert panel.bound.session.image.source.content_hash() == image.source.content_hash()
    (tmp_path / "mine.tif").unlink()


def test_labels_begun_with_naparis_own_button_lie_where_the_image_lies(window, tmp_path):
    window.viewer.open(str(presets.samples() / "nodule"), plugin="medseg")
    panel = window.open_panel()
    picture = window.viewer.layers[0]
    window.viewer._new_labels()
    drawn = window.viewer.layers[-1]
    drawn.data[8:12, 60:66, 60:70] = 1
    drawn.save(str(tmp_path / "drawn.nii.gz"), plugin="medseg")
    image = picture.metadata["medseg"]["image"]
    saved = io.load_labels(tmp_path / "drawn.nii.gz")
    np.testing.assert_array_equal(saved.on(image.grid).labels, drawn.data)
    panel.labels.setCurrentIndex(0)
    panel.edit.guard(panel.adopt)
    session = panel.bound.session
    np.testing.assert_array_equal(session.labels, drawn.data)
    assert session.grid == image.grid and session.instances().provenance["edited"] is True


def test_a_layer_of_another_reader_is_laid_over_exactly(window):
    frame = io.load(presets.samples() / "fluorescence.tif").voxels()[0]
    window.viewer.add_image(frame, name="foreign", scale=(0.25, 0.25), translate=(100, 50))
    panel = window.open_panel()
    window.segment()
    layer, image = panel.bound.layer, window.viewer.layers["foreign"]
    np.testing.assert_allclose(layer.data_to_world((10, 20)), image.data_to_world((10, 20)))
    row = panel.bound.session.rows[20]
    window.viewer.reset_view()
    window.click(layer, row.centroid)
    assert panel.chosen() == [20]


def test_a_layer_may_be_renamed(window):
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    window.viewer.layers[0].name = "another name"
    window.wait()
    assert panel.images.currentText() == "another name"
    window.segment()
    assert panel.bound is not None


def test_a_slider_moved_before_a_new_session_changes_nothing_there(window):
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    window.segment()
    panel.segment._values["min_score"].setValue(0.9)
    other = Instances.from_labels(np.ones((30, 30), np.int32), Grid.from_spacing((30, 30)))
    panel.opened(other, None, None)
    window.settle()
    assert panel.bound.session.labels.all() and not strokes(panel.bound.session)


def test_reject_in_review_is_of_what_was_clicked_since(window):
    panel, session, layer = work_on(window, scores=[0.9, 0.3])
    window.settle()
    show(panel, panel.review)
    window.press("Alt+Right")
    other = 1 if panel.review.current == 2 else 2
    window.click(layer, session.rows[other].centroid if other == 2 else (8, 30, 22))
    window.press("Alt+N")
    assert session.rows[other].status == "rejected" and session.rows[3 - other].status == ""


def test_a_tool_puts_the_brush_down_and_refuses_the_3d_view(window):
    panel, session, layer = work_on(window)
    layer.mode = "paint"
    window.press("Alt+S")
    window.click(layer, (8, 30, 22))
    assert not strokes(session) and len(panel.hands.clicks) == 1
    panel.take("")
    window.viewer.dims.ndisplay = 3
    window.press("Alt+S")
    assert panel.tool == ""


def test_a_filter_hides_no_choice_and_an_edit_keeps_it(window):
    panel, session, layer = work_on(window)
    panel.instances.filter.setText("nothing like it")
    window.click(layer, (8, 20, 66))
    assert panel.chosen() == [2]
    panel.instances.filter.setText("")
    panel.edit.length.setValue(1.0)
    window.push(panel.edit.buttons["grow"])
    assert panel.chosen() == [2]


def test_undo_works_whatever_layer_is_active(window):
    panel, session, layer = work_on(window)
    panel.choose([1])
    window.press("Delete")
    window.viewer.layers.selection.active = window.viewer.layers["picture"]
    window.press("Control+Z")
    assert not strokes(session) and (session.labels == 1).any()


def test_an_array_put_in_by_another_is_a_step_like_any_other(window):
    panel, session, layer = work_on(window)
    start = session.labels.copy()
    layer.data = np.where(start == 2, 0, start).astype(np.uint16)
    assert layer.data is session.labels and strokes(session) == ["change"] and list(session.rows) == [1]
    window.press("Control+Z")
    np.testing.assert_array_equal(layer.data, start)


def test_a_layer_left_behind_is_let_go(window):
    panel, session, layer = work_on(window)
    panel.choose([1])
    window.press("Delete")
    panel.opened(Instances.from_labels(two_balls(), session.grid), session.image, None)
    window.viewer.layers.selection.active = layer
    before = layer.data.copy()
    session_two = panel.bound.session
    window.press("Control+Z")
    np.testing.assert_array_equal(layer.data, before)
    assert session.maps is None and session_two is panel.bound.session


def test_clicks_in_another_image_land_where_they_lie_in_the_world(window):
    labels = np.zeros((20, 40, 40), np.int32)
    labels[2:4, 2:5, 2:5] = 1
    panel, session, layer = work_on(window, labels, spacing=(1.0, 1.0, 1.0))
    index = np.indices((10, 20, 20))
    ball = ((index - np.array([5, 10, 10])[:, None, None, None]) ** 2).sum(0) < 16
    coarse = Image((100.0 * ball + 5).astype(np.float32)[None], Grid.from_spacing((10, 20, 20), 2.0), "PT")
    from medseg_napari.layers import of_image

    for data, more, _ in of_image(coarse, "pet"):
        window.viewer.add_image(data, **more)
    panel.images.setCurrentText("pet")
    window.press("Alt+C")
    window.click(window.viewer.layers["pet"], (5, 10, 10))
    window.press("Enter")
    assert len(session) == 2
    np.testing.assert_allclose(session.rows[2].centroid, (10, 20, 20), atol=1.5)
    assert session.rows[2].voxels > 8 * 0.6 * ball.sum()


def test_calipers_follow_an_undo_and_write_what_was_dragged_alone(window):
    panel, session, layer = work_on(window)
    window.settle()
    panel.choose([2])
    show(panel, panel.instances)
    window.push(panel.instances.calipers)
    first = [np.array(line) for line in panel.calipers.layer.data]
    window.viewer.layers.selection.active = panel.calipers.layer
    short = first[1]
    window.drag(panel.calipers.layer, short[1], short[1] + 0.4 * (short[1] - short[0]))
    row = session.rows[2]
    assert row.short_axis and not row.long_axis
    window.press("Control+Z")
    window.settle()
    assert not session.rows[2].short_axis
    for line, before in zip(panel.calipers.layer.data, first, strict=True):
        np.testing.assert_allclose(line, before, atol=1e-3)


def test_several_chosen_are_grown_by_one_key_in_one_step(window):
    panel, session, layer = work_on(window)
    start = session.labels.copy()
    window.click(layer, (8, 30, 22))
    window.click(layer, (8, 20, 66), "Shift")
    panel.edit.length.setValue(2.0)
    window.press("Alt+=")
    assert strokes(session) == ["grow by 2"]
    assert all((session.labels == id).sum() > (start == id).sum() for id in (1, 2))
    window.press("Control+Z")
    np.testing.assert_array_equal(session.labels, start)
    assert not strokes(session) and panel.chosen() == [1, 2]


def test_undo_in_the_middle_of_a_stroke_waits_for_its_end(window):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    panel, session, layer = work_on(window)
    panel.choose([1])
    window.press("Delete")
    start = session.labels.copy()
    layer.mode, layer.brush_size, layer.selected_label = "paint", 5, 2
    a, b = window.pixel(layer, (8, 50, 10)), window.pixel(layer, (8, 50, 40))
    window._move(a, held=False)
    QTest.mousePress(window.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, a)
    window._move(b)
    painted = session.labels.copy()
    assert (painted != start).any()
    window.press("Control+Z")
    np.testing.assert_array_equal(session.labels, painted)  # the delete before it is not taken back under the brush
    assert strokes(session) == ["delete"]
    QTest.mouseRelease(window.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, b)
    window.wait()
    assert strokes(session) == ["delete", "paint"]
    window.press("Control+Z")
    np.testing.assert_array_equal(session.labels, start)


def test_of_a_multiscale_layer_the_finest_level_is_used(window):
    frame = io.load(presets.samples() / "fluorescence.tif").voxels()[0]
    window.viewer.add_image([frame, frame[::2, ::2], frame[::4, ::4]], name="pyramid", multiscale=True)
    panel = window.open_panel()
    window.segment()
    assert panel.bound.session.labels.shape == frame.shape and len(panel.bound.session) > 100
    window.settle()
    row = panel.bound.session.rows[20]
    window.viewer.reset_view()
    window.click(panel.bound.layer, row.centroid)
    assert panel.chosen() == [20]
    inside = frame[panel.bound.session.labels == 20]
    values = panel.measured_of(20)
    mean = next(value for name, value in values.items() if name.endswith("_mean"))
    assert mean == pytest.approx(inside.mean(), rel=1e-4)


def test_what_was_measured_while_voxels_changed_is_thrown_away(window, monkeypatch):
    import threading

    from medseg_napari import measuring

    panel, session, layer = work_on(window)
    window.settle()
    inside, go = threading.Event(), threading.Event()
    real = measuring.measured

    def slow(session, row):
        found = real(session, row)
        if not go.is_set():
            inside.set()
            assert go.wait(20)
        return found

    monkeypatch.setattr(measuring, "measured", slow)
    panel.choose([2])
    panel.edit.length.setValue(1.0)
    window.press("Alt+=")
    old = session.rows[2].revision
    window.until(inside.is_set)
    window.press("Alt+=")  # while it is being measured
    go.set()
    window.settle()
    assert (2, old) not in panel.measures
    now = session.rows[2]
    assert panel.measures[2, now.revision]["volume_mm3"] == pytest.approx(2.0 * (session.labels == 2).sum())


def test_a_time_series_opens_with_its_time_and_the_point_shown_is_segmented(window, tmp_path):
    import tifffile

    frame = io.load(presets.samples() / "fluorescence.tif").voxels()[0]
    movie = np.stack([np.stack([frame // 9, one]) for one in (np.zeros_like(frame), frame, frame[::-1])])
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": {"Name": ["weak", "nuclei"]}}
    tifffile.imwrite(tmp_path / "movie.ome.tif", movie, ome=True, metadata={"axes": "TCYX", **sizes})
    window.viewer.open(str(tmp_path / "movie.ome.tif"), plugin="medseg")
    assert [layer.name for layer in window.viewer.layers] == ["movie weak", "movie nuclei"]
    layer = window.viewer.layers[1]
    assert layer.axis_labels == ("t", "y", "x") and layer.data.shape == (3, *frame.shape)
    np.testing.assert_allclose(layer.scale, (1.0, 0.5, 0.5))
    panel = window.open_panel()
    assert panel.segment.models.currentText() == "cells2d"  # two channels in 2-D
    panel.segment.models.setCurrentText("a rule, no model")
    panel.segment.rule.setText("otsu")
    window.segment()
    assert "one channel" in panel.segment.note.text()
    window.viewer.layers.clear()
    tifffile.imwrite(tmp_path / "one.ome.tif", movie[:, 1], ome=True, metadata={"axes": "TYX", **sizes})
    window.viewer.open(str(tmp_path / "one.ome.tif"), plugin="medseg")
    window.viewer.dims.set_point(0, 2)
    panel.segment.rule.setText("otsu")
    window.segment()
    session = panel.bound.session
    assert (
        session.labels.shape == frame.shape and len(session) > 50 and session.grid.spacing[0] == pytest.approx(0.0005)
    )
    bright = frame[::-1]
    assert bright[session.labels > 0].mean() > 2 * bright[session.labels == 0].mean()
    window.settle()
    found = panel.measured_of(max(session.rows.values(), key=lambda row: row.voxels).id)
    assert any(name.startswith("area") for name in found)


@pytest.mark.parametrize("how", ["all at once", "one by one"])
def test_what_layers_drew_with_is_deleted_in_the_context_of_its_canvas(window, monkeypatch, how):
    """Elsewhere it ended the process: time series, clicks, all layers deleted."""
    from qtpy.QtGui import QOpenGLContext
    from vispy.gloo.glir import GlirProgram

    window.open_panel()
    deleted, context = [], window.canvas.context()
    before = GlirProgram.delete

    def delete(program):
        deleted.append(QOpenGLContext.currentContext() == context)
        before(program)

    monkeypatch.setattr(GlirProgram, "delete", delete)
    window.viewer.add_image(np.zeros((3, 40, 50)))
    window.viewer.add_points(np.array([(1, 10, 10), (1, 20, 20)]))
    window.viewer.reset_view()
    window.wait(0.2)
    if how == "all at once":
        window.viewer.layers.clear()
    else:
        for layer in list(window.viewer.layers):
            window.viewer.layers.remove(layer)
    window.wait(0.2)
    assert deleted and all(deleted)
