"""The plugin in a real window, by real mouse and key events."""

import json
import threading
import time

import numpy as np
import pytest

from medseg import io, presets
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances

pytest.importorskip("napari")
pytestmark = pytest.mark.usefixtures("display")


def two_balls(shape=(16, 60, 80)):
    """Two balls that touch, and one apart."""
    index = np.indices(shape)
    out = np.zeros(shape, np.int32)
    for id, centre in ((1, (8, 30, 22)), (1, (8, 30, 38)), (2, (8, 20, 66))):
        distance = sum(((i - c) * s) ** 2 for i, c, s in zip(index, centre, (2.0, 1.0, 1.0), strict=True))
        out[distance < 81] = id
    return out


def work_on(window, labels=None, spacing=(2.0, 1.0, 1.0), scores=None, image=True):
    """Open labels with an image under them and begin to work on them."""
    labels = two_balls() if labels is None else labels
    grid = Grid.from_spacing(labels.shape, spacing[-labels.ndim :])
    rng = np.random.default_rng(0)
    picture = Image((1000 * (labels > 0) + rng.normal(0, 50, labels.shape)).astype(np.float32)[None], grid)
    from medseg_napari.layers import of_image

    for data, more, _ in of_image(picture, "picture") if image else ():
        window.viewer.add_image(data, **more)
    panel = window.panel or window.open_panel()
    panel.opened(Instances.from_labels(labels, grid, scores=scores), picture if image else None, None)
    window.viewer.reset_view()
    window.wait(0.1)
    return panel, panel.bound.session, panel.bound.layer


def show(panel, tab):
    """Bring a tab to the front."""
    panel.tabs.setCurrentWidget(tab.parentWidget().parentWidget())


def strokes(session):
    return [edit.name for edit in session.edits]


# --- open, segment, save


def test_a_first_image_from_open_to_files(window, tmp_path):
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    assert panel.segment.models.currentText() == "nuclei2d"
    window.segment()
    window.settle()
    session = panel.bound.session
    direct = None
    for event in __import__("medseg").pipeline.run(session.image, __import__("medseg").Model.load("nuclei2d")):
        direct = event
    np.testing.assert_array_equal(session.labels, direct.instances.labels)
    assert len(panel.instances.rows.ids) == len(session) == len(direct.instances) > 100
    assert panel.instances.rows.value(1, "perimeter_px") > 0
    panel.save.folder.setText(str(tmp_path / "out"))
    show(panel, panel.save)
    window.push(panel.save.save)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["fluorescence_instances.csv", "fluorescence_labels.tif", "fluorescence_report.html"]
    saved = io.load_labels(tmp_path / "out" / "fluorescence_labels.tif")
    np.testing.assert_array_equal(saved.labels, session.labels)


def test_sliders_read_the_maps_again(window):
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    window.segment()
    session, first = panel.bound.session, len(panel.bound.session)
    panel.segment._values["min_score"].setValue(0.9)
    window.until(lambda: len(session) < first)
    window.settle()
    expected = session.maps.decode(*panel.segment.settings())
    np.testing.assert_array_equal(session.labels, expected.labels)
    panel.segment._values["min_score"].setValue(0.0)
    window.until(lambda: len(session) > first)
    window.settle()
    assert strokes(session) == ["settings"]  # a drag of a slider is one step
    window.press("Control+Z")
    assert len(session) == first


def test_three_dimensions_and_a_region_of_interest(window):
    window.viewer.open_sample("medseg", "ovule")
    panel = window.open_panel()
    assert panel.segment.models.currentText() == "nuclei3d"
    image = panel.image_layer()
    scale = np.asarray(image.scale)
    low, high = np.array([10, 20, 20]), np.array([10, 80, 90])
    corners = [low, [10, 20, 90], high, [10, 80, 20]]
    window.viewer.add_shapes([np.array(corners) * scale], shape_type="polygon", name="region")
    panel.segment.region.setChecked(True)
    window.segment()
    session = panel.bound.session
    assert session.labels.shape == (image.data.shape[0], 61, 71) and len(session) > 2
    world = panel.bound.layer.data_to_world((0, 0, 0))
    np.testing.assert_allclose(world[1:], image.data_to_world((0, 20, 20))[1:], rtol=1e-3, atol=1e-3)


def test_cancel_gives_the_window_back_and_stops(window):
    from medseg.pipeline import Progress, Started

    begun, patch, stopped, after = threading.Event(), threading.Event(), threading.Event(), []

    def events(_image):
        try:
            yield Started(100, ())
            for k in range(3):
                time.sleep(0.1)
                yield Progress(k + 1, 100)
            begun.set()
            patch.wait(60)  # a patch that takes long
            for k in range(3, 100):
                after.append(k)
                yield Progress(k + 1, 100)
        finally:
            stopped.set()

    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    panel.segment.begin(events)
    window.until(lambda: panel.segment.bar.value() >= 2 and begun.is_set())
    assert "s left" in panel.segment.left.text()
    window.push(panel.segment.stop)
    assert panel.segment.run is None and panel.segment.start.isEnabled()
    assert not stopped.is_set()  # the window does not wait for the patch
    patch.set()
    assert stopped.wait(60) and len(after) <= 1
    assert panel.bound is None


def test_a_layer_deleted_while_running_costs_nothing(window):
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    window.push(panel.segment.start)
    window.viewer.layers.clear()
    window.until(lambda: panel.segment.run is None)
    assert panel.bound is not None and len(panel.bound.session) > 100


# --- choosing, table


def test_a_click_chooses_and_the_table_jumps(window):
    panel, session, layer = work_on(window)
    window.click(layer, (8, 30, 22))
    assert panel.chosen() == [1] and layer.selected_label == 1
    window.click(layer, (8, 20, 66), "Shift")
    assert sorted(panel.chosen()) == [1, 2]
    window.click(layer, (8, 2, 2))
    assert panel.chosen() == []
    window.viewer.dims.set_point(0, 0)
    show(panel, panel.instances)
    line = panel.instances.rows.ids.index(2)
    index = panel.instances.proxy.mapFromSource(panel.instances.rows.index(line, 0))
    where = panel.instances.view.visualRect(index).center()
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    QTest.mouseClick(panel.instances.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    window.wait()
    assert panel.chosen() == [2] and window.viewer.dims.point[0] == pytest.approx(16, abs=1)
    np.testing.assert_allclose(window.viewer.scene.camera.center[-2:], (20, 66), atol=1.5)


def test_the_table_sorts_filters_and_colours(window):
    panel, session, layer = work_on(window, scores=[0.9, 0.3])
    window.settle()
    view, proxy = panel.instances.view, panel.instances.proxy
    from qtpy.QtCore import Qt

    view.sortByColumn(panel.instances.rows.columns.index("score"), Qt.SortOrder.AscendingOrder)
    shown = [panel.instances.rows.ids[proxy.mapToSource(proxy.index(k, 0)).row()] for k in range(proxy.rowCount())]
    assert shown == [2, 1]
    panel.edit.guard(lambda: __import__("medseg_napari.commands").commands.accept(session, [1]))
    panel.instances.filter.setText("accepted")
    assert proxy.rowCount() == 1
    panel.instances.filter.setText("")
    panel.instances._coloured("score")
    one, two = layer.get_color(1), layer.get_color(2)
    assert not np.allclose(one, two) and one[0] > two[0] and one[2] < two[2]  # red is high, blue is low
    assert panel.instances.rows.value(1, "volume_mm3") == pytest.approx(session.rows[1].voxels * 2.0)
    assert {"long_axis_mm", "short_axis_mm", "diameter_3d_mm"} <= set(panel.instances.rows.columns)


def test_only_edited_instances_are_measured_again(window, monkeypatch):
    panel, session, layer = work_on(window)
    window.settle()
    from medseg_napari import measuring

    seen, real = [], measuring.measured
    monkeypatch.setattr(measuring, "measured", lambda s, row: seen.append(row.id) or real(s, row))
    before = panel.instances.rows.value(1, "volume_mm3")
    panel.choose([1])
    panel.edit.length.setValue(1.0)
    window.press("Alt+Minus")
    window.settle()
    assert seen == [1] and panel.instances.rows.value(1, "volume_mm3") < before
    window.press("Control+Z")
    assert panel.instances.rows.value(1, "volume_mm3") == before and seen == [1]


# --- tools


def test_split_by_clicks_merge_and_undo_by_keys(window):
    panel, session, layer = work_on(window)
    start = session.labels.copy()
    window.press("Alt+S")
    window.click(layer, (8, 30, 22))
    window.click(layer, (8, 30, 38))
    window.press("Enter")
    assert len(session) == 3 and session.labels[8, 30, 20] != session.labels[8, 30, 40]
    assert panel.tool == "" and "clicks" not in window.viewer.layers
    window.click(layer, (8, 30, 20))
    window.click(layer, (8, 30, 40), "Shift")
    window.press("Alt+M")
    assert len(session) == 2
    window.press("Control+Z")
    assert len(session) == 3
    window.press("Control+Z")
    np.testing.assert_array_equal(session.labels, start)
    window.press("Control+Shift+Z")
    assert len(session) == 3 and strokes(session) == ["split"]


def test_split_by_a_drawn_line(window):
    panel, session, layer = work_on(window)
    window.press("Alt+D")
    window.drag(layer, (8, 12, 30), (8, 48, 30))
    assert strokes(session) == ["split by line"] and len(session) == 3
    assert all(len(set(np.unique(plane)) - {0, 2}) == 2 for plane in session.labels[5:12])
    assert window.viewer.scene.camera.mouse_pan


def test_napari_brush_and_its_undo_are_steps_of_ours(window):
    panel, session, layer = work_on(window)
    start = session.labels.copy()
    layer.selected_label, layer.brush_size, layer.mode = 2, 5, "paint"
    window.drag(layer, (8, 45, 60), (8, 45, 70))
    painted = session.labels.copy()
    assert strokes(session) == ["paint"] and session.rows[2].voxels == (painted == 2).sum() > (start == 2).sum()
    window.viewer.dims.set_point(0, 4)  # napari itself would forget here
    window.press("Control+Z")
    np.testing.assert_array_equal(session.labels, start)
    window.press("Control+Shift+Z")
    np.testing.assert_array_equal(session.labels, painted)
    layer.mode = "erase"
    window.drag(layer, (8, 45, 60), (8, 45, 70))
    layer.mode = "fill"
    layer.selected_label = 5
    window.click(layer, (8, 30, 22))
    assert strokes(session) == ["paint", "paint", "paint"] and 5 in session.rows and 1 in session.rows


def test_delete_grow_fill_and_class_by_keys_and_buttons(window):
    labels = two_balls()
    labels[8, 28:31, 20:23] = 0
    panel, session, layer = work_on(window, labels)
    show(panel, panel.edit)
    window.click(layer, (8, 30, 38))
    window.press("Alt+F")
    assert session.labels[8, 29, 21] == 1
    before = session.rows[1].voxels
    panel.edit.length.setValue(2.0)
    window.push(panel.edit.buttons["grow"])
    assert session.rows[1].voxels > before
    window.push(panel.edit.buttons["accept"])
    assert session.rows[1].status == "accepted"
    window.click(layer, (8, 20, 66))
    window.press("Delete")
    assert list(session.rows) == [1]
    for _ in range(4):
        window.push(panel.edit.buttons["undo"])
    np.testing.assert_array_equal(session.labels, labels)


def test_wrong_use_is_told_and_nothing_breaks(window):
    panel = window.open_panel()
    window.push(panel.segment.start)
    assert "no image" in panel.segment.note.text()
    window.press("Alt+M")
    assert "no instances" in panel.edit.help.text()
    window.push(panel.save.save)
    assert "Not saved" in panel.save.done.text()
    window.viewer.add_image(np.zeros((30, 30), bool), name="mask")
    window.push(panel.segment.start)
    assert "image of numbers" in panel.segment.note.text()
    window.viewer.layers.clear()
    window.viewer.open_sample("medseg", "ovule")
    panel.segment.models.setCurrentText("nuclei2d")
    window.push(panel.segment.start)
    window.until(lambda: panel.segment.run is None)
    assert "works in 2-D" in panel.segment.note.text() and panel.bound is None


def test_of_a_time_series_the_point_that_is_shown_is_segmented(window):
    frame = io.load(presets.samples() / "fluorescence.tif").voxels()[0]
    movie = np.stack([np.zeros_like(frame), frame, frame[::-1]])
    window.viewer.add_image(movie, name="movie", axis_labels=("t", "y", "x"))
    panel = window.open_panel()
    window.viewer.dims.set_point(0, 2)
    window.segment()
    session = panel.bound.session
    assert session.labels.shape == frame.shape and len(session) > 100
    brighter = frame[::-1][session.labels > 0].mean() / frame[::-1][session.labels == 0].mean()
    assert brighter > 2
    window.click(panel.bound.layer, session.rows[20].centroid)
    assert panel.chosen() == [20]


def test_a_damaged_model_file_is_told(window, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    panel.segment.models.addItem(str(bad))
    panel.segment.models.setCurrentText(str(bad))
    window.push(panel.segment.start)
    window.until(lambda: panel.segment.run is None)
    assert "damaged" in panel.segment.note.text()


def test_a_disk_full_at_save_loses_nothing(window, tmp_path, monkeypatch):
    panel, session, layer = work_on(window)
    panel.choose([1])
    window.press("Delete")
    import medseg.ops.files as files

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    panel.save.folder.setText(str(tmp_path / "out"))
    window.push(panel.save.save)
    assert "Not saved" in panel.save.done.text() and strokes(session) == ["delete"] and not session.saved
    assert not [p for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")]


# --- nothing is lost


def test_a_deleted_layer_is_restored_with_its_undo(window, sessions):
    panel, session, layer = work_on(window)
    start = session.labels.copy()
    panel.choose([1])
    window.press("Delete")
    after = session.labels.copy()
    window.viewer.layers.remove(layer)
    window.wait(0.05)
    assert panel.bound is None and panel.offer.banner.isVisible() and "not saved" in panel.offer.banner.text()
    window.push(panel.offer.take)
    again = panel.bound.session
    np.testing.assert_array_equal(again.labels, after)
    np.testing.assert_array_equal(panel.bound.layer.data, after)
    window.press("Control+Z")
    np.testing.assert_array_equal(panel.bound.layer.data, start)


def test_what_was_saved_is_not_offered_again(window, sessions, tmp_path):
    panel, session, layer = work_on(window)
    panel.choose([1])
    window.press("Delete")
    panel.save.folder.setText(str(tmp_path))
    window.push(panel.save.save)
    window.viewer.window.remove_dock_widget(panel)  # as the X of the dock does
    window.until(lambda: not list(sessions.glob("*.session")), 10)


# --- review


def test_review_goes_from_the_most_doubtful_and_keeps_what_was_decided(window, tmp_path):
    panel, session, layer = work_on(window, scores=[0.95, 0.2])
    window.settle()
    show(panel, panel.review)
    window.press("Alt+Right")
    first = panel.review.current
    assert first in (1, 2) and str(first) in panel.review.text.text()
    doubts = panel.doubts
    assert doubts[first].value == max(d.value for d in doubts.values())
    window.wait(0.15)
    window.press("Alt+Y")
    window.press("Alt+N")
    assert {session.rows[1].status, session.rows[2].status} == {"accepted", "rejected"}
    assert session.rows[first].seconds >= 0.1 and "decided" in panel.review.text.text()
    panel.save.folder.setText(str(tmp_path))
    window.push(panel.save.save)
    review = (tmp_path / "instances_review.csv").read_text()
    assert "accepted" in review and "rejected" in review
    kept = io.load_labels(tmp_path / "instances_labels.nii.gz")
    rejected = next(id for id, row in session.rows.items() if row.status == "rejected")
    assert rejected not in kept.labels and len(kept) == 1


# --- geometry


def test_letters_follow_the_patient(window, tmp_path):
    import nibabel as nib

    data = np.zeros((20, 30, 10), np.int16)
    data[5:9, 10:20, 2:8] = 100
    nib.save(nib.Nifti1Image(data, np.diag([-2.0, 1.5, 3.0, 1.0])), tmp_path / "a.nii.gz")
    window.viewer.open(str(tmp_path / "a.nii.gz"), plugin="medseg")
    window.open_panel()
    from medseg_napari._qt.orient import Edges

    edges = window.canvas.findChild(Edges)
    assert edges.told() == ("R", "L", "A", "P")  # as radiologists look at it
    window.viewer.dims.order = (1, 0, 2)  # coronal
    window.wait(0.05)
    assert edges.told() == ("R", "L", "S", "I")
    layer = window.viewer.layers[0]
    assert layer.axis_labels == ("z", "y", "x") and tuple(layer.scale) == (3.0, 1.5, 2.0)


def test_an_oblique_volume_keeps_its_true_affine_to_the_file(window, tmp_path):
    import nibabel as nib

    turn = np.eye(4)
    angle = 0.3
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ np.diag([1.0, 1.0, 2.5, 1.0])
    affine[:3, 3] = (-40, 12, 7)
    data = np.zeros((24, 26, 12), np.int16)
    data[6:14, 8:16, 3:9] = 500
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "oblique.nii.gz")
    window.viewer.open(str(tmp_path / "oblique.nii.gz"), plugin="medseg")
    panel = window.open_panel()
    image = window.viewer.layers[0].metadata["medseg"]["image"]
    panel.opened(Instances.from_labels((image.voxels()[0] > 250).astype(np.int32), image.grid), image, None)
    path = tmp_path / "saved.nii.gz"
    assert window.viewer.layers.selection.active is panel.bound.layer
    panel.bound.layer.save(str(path), plugin="medseg")
    saved = nib.load(path)
    np.testing.assert_allclose(saved.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(saved.dataobj) > 0, data > 0)


def test_three_views_share_one_point(window):
    panel, session, layer = work_on(window)
    views = window.open_dock("medseg: three views")
    window.viewer.dims.point = (10.0, 22.0, 33.0)
    window.wait(0.05)
    for view in views.views:
        assert view.model.dims.point == (10.0, 22.0, 33.0)
        assert "crosshair" in view.model.layers
    assert views.views[0].model.dims.displayed == (0, 2) and views.views[1].model.dims.displayed == (0, 1)
    model = views.views[0].model
    canvas = views.views[0].canvas.canvas.native
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(canvas.width() // 2, canvas.height() // 2))
    window.wait(0.05)
    np.testing.assert_allclose(window.viewer.dims.point[0], model.scene.camera.center[1], atol=2.1)
    panel.choose([2])
    window.press("Delete")
    copy = next(c for original, c in views.views[1]._pairs.items() if original is layer)
    assert not (np.asarray(copy.data) == 2).any()


def test_the_side_views_have_their_letters_and_two_dates_too(window):
    window.viewer.open_sample("medseg", "nodule")
    window.open_panel()
    views = window.open_dock("medseg: three views")
    window.wait(0.1)
    coronal, sagittal = views.views
    assert coronal.edges.told() == ("R", "L", "S", "I")
    assert sagittal.edges.told() in (("A", "P", "S", "I"), ("P", "A", "S", "I"))
    canvas = coronal.canvas.canvas.native
    for label in coronal.edges.labels:
        assert label.isVisible() and canvas.rect().contains(label.geometry())
    window.panel.segment.models.setCurrentText("a rule, no model")
    window.panel.segment.rule.setText("HU>200")
    window.segment()
    result = window.panel.bound.layer
    for view in views.views:
        np.testing.assert_array_equal(view._pairs[result].data, window.panel.bound.session.labels)


def test_letters_go_with_the_last_layer(window):
    from medseg_napari._qt.orient import Edges

    window.viewer.open_sample("medseg", "nodule")
    window.open_panel()
    views = window.open_dock("medseg: three views")
    window.wait(0.1)
    every = [*(view.edges for view in views.views), window.canvas.findChild(Edges)]
    assert [all(edges.told()) for edges in every] == [True] * 3
    window.viewer.layers.clear()
    window.wait(0.1)
    assert [edges.told() for edges in every] == [("", "", "", "")] * 3
    assert not any(label.isVisible() for edges in every for label in edges.labels)


def test_two_dates_go_to_the_same_lesion(window):
    panel, session, layer = work_on(window)
    later = np.roll(two_balls(), (0, 5, 4), (0, 1, 2))
    window.viewer.add_labels(later, name="later", scale=(2.0, 1.0, 1.0))
    dates = window.open_dock("medseg: two dates")
    dates.here.setCurrentText(layer.name)
    dates.labels.setCurrentText("later")
    window.push(
        next(b for b in dates.findChildren(__import__("qtpy.QtWidgets").QtWidgets.QPushButton) if "beside" in b.text())
    )
    window.click(layer, (8, 20, 66))
    assert "Lesion 2" in dates.told.text()
    here, there = np.array(window.viewer.dims.point), np.array(dates.model.dims.point)
    np.testing.assert_allclose((there - here)[0], 0, atol=0.1)
    np.testing.assert_allclose(
        np.array(dates.model.scene.camera.center)[-2:] - np.array(window.viewer.scene.camera.center)[-2:],
        (5, 4),
        atol=0.1,
    )
    assert np.allclose(layer.get_color(2), dates._there.get_color(2))
    assert not dates.go_to(7)
    assert "not there" in dates.told.text()


def test_calipers_write_back_to_the_table(window, tmp_path):
    panel, session, layer = work_on(window)
    window.settle()
    panel.choose([2])
    show(panel, panel.instances)
    window.push(panel.instances.calipers)
    lines = panel.calipers.layer
    measured = panel.instances.rows.value(2, "long_axis_mm")
    ends = np.asarray(lines.data[0])
    assert np.linalg.norm((ends[1] - ends[0]) * (2.0, 1.0, 1.0)) == pytest.approx(measured, rel=1e-6)
    window.viewer.layers.selection.active = lines
    far = ends[1] + (ends[1] - ends[0]) * 0.5
    window.drag(lines, ends[1], far)
    told = panel.instances.rows.value(2, "long_axis_mm")
    assert told == pytest.approx(1.5 * measured, rel=0.05) and strokes(session) == ["move calipers"]
    panel.save.folder.setText(str(tmp_path))
    panel.calipers.hide()
    window.push(panel.save.save)
    import pandas as pd

    table = pd.read_csv(tmp_path / "instances_instances.csv").set_index("id")
    assert table.loc[2, "long_axis_mm"] == pytest.approx(told, rel=1e-4)


def test_what_a_person_says_of_a_lesion_reaches_the_table(window, tmp_path):
    panel, session, layer = work_on(window)
    rows = panel.instances.rows
    for column, text in (("finding_site", "liver"), ("role", "target"), ("nodal", "yes")):
        assert rows.setData(rows.index(rows.ids.index(1), rows.columns.index(column)), text)
    assert not rows.setData(rows.index(0, rows.columns.index("role")), "nonsense")
    panel.save.folder.setText(str(tmp_path))
    window.push(panel.save.save)
    import pandas as pd

    table = pd.read_csv(tmp_path / "instances_instances.csv").set_index("id")
    assert table.loc[1, ["finding_site", "role"]].tolist() == ["liver", "target"] and bool(table.loc[1, "nodal"])


def test_what_changed_after_saving_is_said(window, tmp_path):
    panel, session, layer = work_on(window)
    panel.save.folder.setText(str(tmp_path))
    show(panel, panel.save)
    window.push(panel.save.save)
    assert panel.save.done.text().startswith("Saved: ")
    panel.choose([2])
    window.press("Delete")
    assert len(session) == 1 and panel.save.done.text().startswith("Changed since it was saved: ")
    window.press("Control+Z")
    assert len(session) == 2 and panel.save.done.text().startswith("Saved: ")


def test_rejected_instances_are_pale(window):
    panel, session, layer = work_on(window)
    before = {id: tuple(layer.get_color(id)) for id in (1, 2)}
    panel.choose([2])
    panel.edit.act("reject")
    gray = layer.get_color(2)
    assert gray[0] == gray[1] == gray[2] and gray[3] < 0.5 and tuple(layer.get_color(1)) == pytest.approx(before[1])
    panel.instances._coloured("voxels")
    assert tuple(layer.get_color(2)) == pytest.approx(tuple(gray)) and layer.get_color(1)[3] == 1
    panel.instances._coloured("id")
    window.press("Control+Z")
    assert {id: tuple(layer.get_color(id)) for id in (1, 2)} == before


def test_an_error_stands_alone(window):
    """What an earlier run found is not shown beside what went wrong now."""
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    window.segment()
    assert "found" in panel.segment.left.text()
    panel.segment.region.setChecked(True)
    window.push(panel.segment.start)
    assert "There is no region" in panel.segment.note.text() and panel.segment.left.text() == ""


# --- discovery


def test_the_manifest_names_what_is_there():
    import importlib

    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("medseg")
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert hasattr(importlib.import_module(module), name)


def test_readers_are_asked_without_torch_napari_or_qt(tmp_path):
    import subprocess
    import sys

    for k in range(300):
        (tmp_path / f"{k}.txt").write_text("x")
    script = (
        "import sys, json\n"
        "from medseg_napari.reader import get_reader, read\n"
        f"found = get_reader({str(tmp_path)!r})\n"
        "heavy = [m for m in ('torch', 'monai', 'napari', 'qtpy', 'pandas') if m in sys.modules]\n"
        "print(json.dumps([found is read, heavy]))"
    )
    taken, heavy = json.loads(subprocess.check_output([sys.executable, "-c", script], text=True))
    assert not taken and not heavy
