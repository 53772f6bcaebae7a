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
    assert not strokes(panel.bound.session) and panel.banner.isVisible()
    window.push(panel._restore)
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
    assert again.banner.isVisible()
    window.push(again._restore)
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
    window.push(panel._restore)
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
