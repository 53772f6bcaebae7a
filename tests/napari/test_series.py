"""Time series as one session: all times segmented, corrected, undone, restored and saved."""

import threading

import numpy as np
import pandas as pd
import pytest
import tifffile
from medseg_napari import commands
from medseg_napari.handing import hand_on
from medseg_napari.runner import Cancelled, Failed, Ready, Run
from medseg_napari.session import Session, start

from medseg import io, presets
from medseg.errors import InputError, OutputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.pipeline import Finished, Progress, Started
from medseg.spec import RunSpec

GRID = Grid.from_spacing((40, 60), (0.5, 0.5), unit="um")


def discs(*places):
    """Discs of radius 5, numbered from 1."""
    y, x = np.indices(GRID.shape)
    out = np.zeros(GRID.shape, np.int32)
    for id, (cy, cx) in enumerate(places, 1):
        out[(y - cy) ** 2 + (x - cx) ** 2 < 25] = id
    return out


TIMES = (discs((10, 10), (10, 40)), discs((12, 12)), discs(), discs((20, 10), (20, 30), (30, 50)))


def series(kept=None):
    """A session of four times; one of None was not looked at."""
    found = [Instances.from_labels(labels, GRID) for labels in TIMES]
    images = [Image((100 * (labels > 0) + time).astype(np.uint8)[None], GRID) for time, labels in enumerate(TIMES)]
    return start([one if kept is None or time in kept else None for time, one in enumerate(found)], images)


@pytest.fixture(autouse=True)
def _kept(sessions):
    """No test writes where a person's sessions are."""


def test_ids_are_numbered_through_and_rows_know_their_time():
    session = series()
    assert session.labels.shape == (4, *GRID.shape) and session.times == 4
    assert {id: row.time for id, row in session.rows.items()} == {1: 0, 2: 0, 3: 1, 4: 3, 5: 3, 6: 3}
    for time, labels in enumerate(TIMES):
        np.testing.assert_array_equal(session.labels[time] > 0, labels > 0)
    for id, row in session.rows.items():
        assert session.at(row.where) == id and np.count_nonzero(session.labels == id) == row.voxels
        inside = session.labels[tuple(slice(a, b) for a, b in zip(row.span[:3], row.span[3:], strict=True))]
        assert np.count_nonzero(inside == id) == row.voxels


def random_step(session, rng):
    """One edit of any kind at any time; what cannot be done is not done."""
    ids = sorted(session.rows)
    where = tuple(slice(int(a), int(a) + 6) for a in rng.integers(0, (30, 50)))
    time = int(rng.integers(session.times))
    if len(ids) < 4:
        return commands.add(session, np.ones((6, 6), bool), where, time=time)
    id = int(rng.choice(ids))
    row = session.rows[id]
    y, x = row.centroid
    steps = [
        lambda: commands.split(session, id, [(row.time, y, x - 2), (row.time, y, x + 2)]),
        lambda: commands.merge(session, [i for i in ids if session.rows[i].time == row.time]),
        lambda: commands.delete(session, [int(i) for i in rng.choice(ids, 2)]),
        lambda: commands.resize(session, id, 0.0005),
        lambda: commands.resize(session, id, -0.0005),
        lambda: commands.accept(session, [int(i) for i in rng.choice(ids, 2)]),
        lambda: commands.add(session, np.ones((6, 6), bool), where, time=time),
    ]
    try:
        return steps[int(rng.integers(len(steps)))]()
    except InputError:
        return None


def test_random_edits_across_times_undo_redo_and_restart_exactly():
    session, rng = series(), np.random.default_rng(3)
    states = [(session.labels.copy(), dict(session.rows))]
    while len(states) < 61:
        if random_step(session, rng) is None:
            continue
        states.append((session.labels.copy(), dict(session.rows)))
    assert len({row.time for row in states[-1][1].values()} | {row.time for row in states[0][1].values()}) > 2

    def check(one, state):
        np.testing.assert_array_equal(one.labels, state[0])
        assert one.rows == state[1]
        assert {int(i) for i in np.unique(one.labels)} - {0} == set(one.rows)

    for state in reversed(states[:-1]):
        assert session.undo() is not None
        check(session, state)
    for state in states[1:]:
        assert session.redo() is not None
        check(session, state)
    path = session.journal.path
    session.journal.close()  # as a killed process leaves it
    again = Session.resume(path)
    assert again.times == 4 and again.grid == GRID
    for state in reversed(states):
        check(again, state)
        again.undo()


def test_a_stroke_with_the_number_of_another_time_gets_its_own():
    from medseg.ops.deltas import Delta

    session = series()
    before = session.labels.copy()
    flat = np.ravel_multi_index((2, np.arange(5, 9), 7), session.labels.shape)
    session.labels.reshape(-1)[flat] = 1  # 1 is of time 0; the brush wrote it at time 2
    edit = session.took("paint", Delta.of_voxels(flat, 0, 1, session.labels.shape))
    assert set(edit.after) == {7} and session.rows[7].time == 2 and session.rows[1].time == 0
    assert set(np.unique(session.labels[2])) == {0, 7}
    session.undo()
    np.testing.assert_array_equal(session.labels, before)


def test_instances_of_several_times_do_not_merge_and_clicks_must_be_of_the_time():
    session = series()
    with pytest.raises(InputError, match="several times"):
        commands.merge(session, [1, 3])
    with pytest.raises(InputError, match="not of the time"):
        commands.split(session, 1, [(3, 10, 8), (3, 10, 12)])
    commands.delete(session, [1, 3, 5])  # what needs no neighbours goes for all times, as one step
    assert sorted(session.rows) == [2, 4, 6] and len(session.edits) == 1
    session.undo()
    assert len(session.rows) == 6


def test_files_of_a_series_have_an_axis_of_time(tmp_path):
    from medseg.measure import measure

    session = series()
    commands.reject(session, [2])
    files = hand_on(session, tmp_path, ["labels", "csv"])
    assert [file.name for file in files] == [
        "instances_labels.tif", "instances_instances.csv", "instances_review.csv",
    ]  # fmt: skip
    with tifffile.TiffFile(files[0]) as tif:
        assert tif.series[0].axes == "TYX"
    read = io.frames(files[0])
    assert len(read) == 4 and read[0].grid.spacing == pytest.approx((0.0005, 0.0005))
    for time, frame in enumerate(read):
        expected = np.where(session.labels[time] == 2, 0, session.labels[time])
        np.testing.assert_array_equal(frame.voxels()[0], expected)
    table = pd.read_csv(files[1])
    assert table.columns[:2].tolist() == ["id", "time"]
    assert dict(zip(table["id"], table["time"], strict=True)) == {1: 0, 3: 1, 4: 3, 5: 3, 6: 3}
    alone = measure(Instances.from_labels(TIMES[3], GRID), session.images[3])
    mine = table[table["time"] == 3].reset_index(drop=True)
    assert set(mine.columns) - {"time"} == set(alone.columns)
    for name in ("voxels", "area_mm2", "centroid_x", "mean_0"):
        if name in alone:
            np.testing.assert_allclose(mine[name], alone[name], rtol=1e-5)
    with pytest.raises(InputError, match="cannot be written as nifti"):
        hand_on(session, tmp_path, ["nifti"])


def of_times(stop_at=None, fail_at=None, pace=None):
    """Events of a false model, image by image."""

    def events(image):
        time = int(image.voxels().min())
        yield Started(2, ())
        for k in range(2):
            if pace is not None and stop_at == time:
                pace[0].set()
                pace[1].wait(60)
            if fail_at == time:
                raise InputError("this image is odd")
            yield Progress(k + 1, 2)
        yield Finished(Instances.from_labels(TIMES[time], image.grid), 0.1, ("a note",))

    return events


def ended(run):
    run.wait(60)
    return list(run.events())


def images():
    return [Image((100 * (labels > 0) + time).astype(np.uint8)[None], GRID) for time, labels in enumerate(TIMES)]


def test_a_run_goes_through_all_times():
    events = ended(Run(images(), "", RunSpec(), of_times()))
    done = [event.done / event.windows for event in events if isinstance(event, Progress)]
    assert done == sorted(done) and done[-1] == 1
    ready = events[-1]
    assert isinstance(ready, Ready) and ready.notes == ("a note",) and ready.session.done() == [0, 1, 2, 3]
    np.testing.assert_array_equal(ready.session.labels, series().labels)


def test_what_is_done_stays_after_a_cancel_or_a_fault():
    pace = threading.Event(), threading.Event()
    run = Run(images(), "", RunSpec(), of_times(stop_at=2, pace=pace))
    assert pace[0].wait(60)
    run.cancel(forget=False)
    pace[1].set()
    ready = ended(run)[-1]
    assert isinstance(ready, Ready) and ready.session.done() == [0, 1] and sorted(ready.session.rows) == [1, 2, 3]
    assert ready.session.times == 4
    ready = ended(Run(images(), "", RunSpec(), of_times(fail_at=1)))[-1]
    assert isinstance(ready, Ready) and ready.session.done() == [0] and ready.problem == "Time 1: this image is odd"
    assert ended(Run(images(), "", RunSpec(), of_times(fail_at=0)))[-1] == Failed("Time 0: this image is odd")
    pace = threading.Event(), threading.Event()
    run = Run(images(), "", RunSpec(), of_times(stop_at=2, pace=pace))
    assert pace[0].wait(60)
    run.cancel()
    pace[1].set()
    assert isinstance(ended(run)[-1], Cancelled)


# --- in the window


@pytest.fixture
def movie(tmp_path):
    """Three times of nuclei, the second empty, 0.5 um; the same nuclei mirrored at the last."""
    frame = io.load(presets.samples() / "fluorescence.tif").voxels()[0][:160, :200]
    voxels = np.stack([frame, np.zeros_like(frame), frame[::-1]])
    path = tmp_path / "movie.ome.tif"
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, voxels, ome=True, metadata={"axes": "TYX", **sizes})
    return path


def test_a_whole_series_in_the_window(window, movie, tmp_path):
    from test_window import show

    from medseg import Model
    from medseg.pipeline import run as pipeline

    window.viewer.open(str(movie), plugin="medseg")
    panel = window.open_panel()
    assert panel.segment.series.isVisibleTo(panel.segment) and not panel.segment.series.isChecked()
    window.push(panel.segment.series)
    panel.segment.series.setChecked(True)
    window.segment()
    window.settle()
    session, layer = panel.bound.session, panel.bound.layer
    image = window.viewer.layers[0]
    assert layer.data.shape == image.data.shape and layer.data is session.labels
    np.testing.assert_allclose(layer.scale, image.scale)
    assert "times" in panel.segment.left.text() and session.done() == [0, 1, 2]
    for time, frame in enumerate(io.frames(movie)):  # each time is what it is alone
        *_, alone = pipeline(frame, Model.load("nuclei2d"))
        np.testing.assert_array_equal(session.labels[time] > 0, alone.instances.labels > 0)
        assert sum(row.time == time for row in session.rows.values()) == len(alone.instances)
    last = [id for id, row in session.rows.items() if row.time == 2]
    assert len(last) > 10 and not [id for id, row in session.rows.items() if row.time == 1]

    # table: a column of the time, and a line goes to it
    rows = panel.instances.rows
    assert rows.columns[:2] == ["id", "time"] and rows.value(last[0], "time") == 2
    assert rows.value(last[0], "area_mm2") > 0
    show(panel, panel.instances)
    line = panel.instances.proxy.mapFromSource(rows.index(rows.ids.index(last[3]), 0))
    panel.instances.view.scrollTo(line)
    window.wait(0.05)
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    where = panel.instances.view.visualRect(line).center()
    QTest.mouseClick(panel.instances.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    window.wait()
    assert window.viewer.dims.point[0] == 2 and panel.chosen() == [last[3]]

    # tools work at the time that is shown; undo goes back to where it was
    count, row = len(session), session.rows[last[3]]
    window.press("Alt+S")
    for shift in (-3, 3):
        window.click(layer, (2, row.centroid[0], row.centroid[1] + shift))
    window.press("Enter")
    assert len(session) == count + 1 and session.rows[max(session.rows)].time == 2
    window.viewer.dims.set_point(0, 0)
    window.click(layer, (0, *session.rows[1].centroid))
    assert panel.chosen() == [1]
    window.press("Delete")
    assert 1 not in session.rows
    window.viewer.dims.set_point(0, 1)
    window.press("Control+Z")
    assert 1 in session.rows and window.viewer.dims.point[0] == 0
    window.press("Control+Z")
    assert len(session) == count and window.viewer.dims.point[0] == 2
    window.press("Control+Shift+Z")
    window.press("Control+Shift+Z")
    assert 1 not in session.rows and len(session) == count
    # an object by clicks where the model found none
    panel.choose([])
    window.viewer.dims.set_point(0, 0)
    row = session.edits[-1].before[1]
    window.press("Alt+C")
    window.click(layer, (0, *row.centroid))
    window.press("Enter")
    new = session.rows[max(session.rows)]
    assert new.time == 0 and session.at((0, *row.centroid)) == new.id and len(session) == count + 1
    window.settle()

    # napari's brush with a number of another time
    layer.selected_label = last[3]
    window.viewer.layers.selection.active = layer
    layer.mode = "paint"
    layer.brush_size = 5
    window.drag(layer, (1, 50, 50), (1, 50, 60))
    layer.mode = "pan_zoom"
    painted = session.rows[max(session.rows)]
    assert painted.time == 1 and session.rows[last[3]].time == 2 and layer.selected_label == painted.id
    window.settle()

    # files
    panel.save.folder.setText(str(tmp_path / "out"))
    show(panel, panel.save)
    assert not panel.save.boxes["report"].isEnabled() and not panel.save.boxes["nifti"].isEnabled()
    window.push(panel.save.save)
    assert "movie_labels.tif" in panel.save.done.text()
    table = pd.read_csv(tmp_path / "out" / "movie_instances.csv")
    assert set(table["time"]) == {0, 1, 2} and table["id"].is_unique and len(table) == len(session)
    saved = tmp_path / "out" / "movie_labels.tif"
    for time, frame in enumerate(io.frames(saved)):
        np.testing.assert_array_equal(frame.voxels()[0], session.labels[time])
    kept = session.labels.copy()

    # and back: the saved labels open with their times and can be worked on
    window.viewer.layers.remove(layer)
    window.wait(0.1)
    window.viewer.open(str(saved), plugin="medseg")
    opened = window.viewer.layers["movie_labels"]
    assert opened.axis_labels == ("t", "y", "x")
    panel.labels.setCurrentText("movie_labels")
    panel.edit.guard(panel.adopt)
    again = panel.bound.session
    assert again is not session and again.times == 3 and len(again) == len(table)
    np.testing.assert_array_equal(again.labels > 0, kept > 0)
    panel.bound.layer.save(str(tmp_path / "by_menu.tif"), plugin="medseg")
    for time, frame in enumerate(io.frames(tmp_path / "by_menu.tif")):
        np.testing.assert_array_equal(frame.voxels()[0], again.labels[time])


def test_a_series_is_cancelled_by_the_button_and_what_is_done_stays(window, movie):
    inside, go = threading.Event(), threading.Event()
    done = []

    def events(image):
        yield Started(1, ())
        if len(done) == 2:
            inside.set()
            go.wait(60)
        yield Progress(1, 1)
        labels = np.zeros(image.grid.shape, np.int32)
        labels[10:20, 10:20] = 1
        done.append(image)
        yield Finished(Instances.from_labels(labels, image.grid), 0.0, ())

    window.viewer.open(str(movie), plugin="medseg")
    panel = window.open_panel()
    panel.segment.series.setChecked(True)
    panel.segment.begin(events)
    window.until(lambda: inside.is_set() and panel.segment.bar.value() == 2)
    assert "time 2 of 0 to 2" in panel.segment.left.text() and "s left" in panel.segment.left.text()
    preview = window.viewer.layers["finding..."]
    assert preview.data[1, 15, 15] == 2 and preview.data[2].max() == 0  # times are drawn as they come
    window.push(panel.segment.stop)
    go.set()
    window.until(lambda: panel.segment.run is None)
    window.wait(0.1)
    assert panel.bound.session.done() == [0, 1] and sorted(panel.bound.session.rows) == [1, 2]
    assert "2 found at 2 of 3 times" in panel.segment.left.text()
    assert [layer.name for layer in window.viewer.layers] == ["movie", "movie instances"]


def test_a_series_is_restored_with_its_times(window, movie):
    import napari
    from hand import Hand

    window.viewer.open(str(movie), plugin="medseg")
    panel = window.open_panel()
    panel.segment.series.setChecked(True)
    panel.segment.models.setCurrentText("a rule, no model")
    panel.segment.rule.setText(">40")
    window.segment()
    session = panel.bound.session
    assert {row.time for row in session.rows.values()} == {0, 2}
    commands.delete(session, [1])
    kept, rows = session.labels.copy(), dict(session.rows)
    session.journal.close()  # the process is killed
    session.journal = None
    viewer = napari.Viewer(show=True)
    other = Hand(viewer)
    other.open_panel()
    assert other.panel.offer.isVisibleTo(other.panel)
    other.push(other.panel.offer.take)
    again = other.panel.bound.session
    np.testing.assert_array_equal(again.labels, kept)
    assert again.rows == rows and again.times == 3 and len(again.images) == 3
    assert viewer.layers[0].data.shape == kept.shape
    other.press("Control+Z")
    assert 1 in again.rows
    viewer.close()
    other.wait(0.1)
    assert not other.panel.background._thread.is_alive()


def test_sliders_read_all_times_again(window, movie):
    window.viewer.open(str(movie), plugin="medseg")
    panel = window.open_panel()
    panel.segment.series.setChecked(True)
    window.segment()
    session, first = panel.bound.session, len(panel.bound.session)
    assert panel.segment.sliders.isVisibleTo(panel.segment)
    panel.segment._values["min_score"].setValue(0.9)
    window.until(lambda: len(session) < first)
    window.settle()
    for time, maps in enumerate(session.every_maps):
        expected = maps.decode(*panel.segment.settings())
        np.testing.assert_array_equal(session.labels[time] > 0, expected.labels > 0)
    window.press("Control+Z")
    assert len(session) == first


def test_volumes_in_time(window, tmp_path):
    shape = (3, 8, 60, 70)
    voxels = np.random.default_rng(0).integers(0, 20, shape).astype(np.uint8)
    for time in range(3):
        voxels[time, 2:6, 10 + time : 22 + time, 20:34] = 200
    voxels[2, 1:4, 40:50, 50:60] = 220
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "deep.ome.tif", voxels, ome=True, metadata={"axes": "TZYX", **sizes})
    window.viewer.open(str(tmp_path / "deep.ome.tif"), plugin="medseg")
    panel = window.open_panel()
    panel.segment.series.setChecked(True)
    panel.segment.models.setCurrentText("a rule, no model")
    panel.segment.rule.setText(">100")
    window.segment()
    session, layer = panel.bound.session, panel.bound.layer
    assert session.labels.shape == shape and [row.time for row in session.rows.values()] == [0, 1, 2, 2]
    np.testing.assert_array_equal(session.labels > 0, voxels > 100)
    np.testing.assert_allclose(layer.scale, (1, 2, 0.5, 0.5))
    window.click(layer, (1, 3, 15, 27))
    assert panel.chosen() == [2]
    window.press("Alt+D")
    window.drag(layer, (1, 3, 8, 27), (1, 3, 27, 27))
    assert sorted(session.rows) == [1, 2, 3, 4, 5] and session.rows[5].time == 1
    window.settle()
    assert panel.measured_of(5)["volume_mm3"] == pytest.approx(session.rows[5].voxels * 0.5e-9, rel=1e-6)
    path = tmp_path / "x.nii.gz"
    with pytest.raises(OutputError, match="time series"):
        from medseg_napari.writer import write_labels

        write_labels(str(path), layer.data, {"metadata": layer.metadata, "axis_labels": layer.axis_labels})
