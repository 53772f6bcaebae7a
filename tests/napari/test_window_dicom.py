"""DICOM in the window: which series, lesions, and back to the hospital as SEG and SR."""

import numpy as np
import pydicom
import pytest
from test_window import show

from medseg import io
from medseg.instances import Instances
from medseg.testing import series

pytest.importorskip("napari")
pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture
def study(tmp_path):
    """A folder with a CT that holds two bright blocks, and an MR of other size."""
    folder = tmp_path / "study"
    planes = series.stack(16, 2.5, shape=(40, 48), series="11", PatientName="Seen^Nowhere", PatientID="X77")
    for number, plane in enumerate(planes):
        stored = np.full((40, 48), 1044, np.int16)  # minus 1024
        if 4 <= number < 11:
            stored[8:20, 10:22] = 1924
            stored[22:34, 28:40] = 1724
        plane.dataset.PixelData = stored.tobytes()
    series.save(folder, planes, name="a{:03d}.dcm")
    other = series.stack(5, 5.0, shape=(20, 20), series="12", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    series.save(folder, other, name="b{:03d}.dcm")
    return folder


def answer(window, row, accept=True):
    """Wait for the list of series, choose a line with the keyboard, and press Enter or Escape."""
    from qtpy.QtCore import Qt, QTimer
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    seen = []

    def act():
        dialog = QApplication.activeModalWidget()
        if dialog is None:
            QTimer.singleShot(50, act)
            return
        seen.extend(dialog.list.item(k).text() for k in range(dialog.list.count()))
        dialog.list.setCurrentRow(row)
        seen.append(dialog.list.item(row).icon().isNull())
        QTest.keyClick(dialog, Qt.Key.Key_Return if accept else Qt.Key.Key_Escape)

    QTimer.singleShot(50, act)
    return seen


def test_a_series_is_chosen_by_picture_and_its_lesions_go_back_as_seg_and_sr(window, study, tmp_path):
    found = io.series(study)
    row = next(k for k, one in enumerate(found) if one.modality == "CT")
    seen = answer(window, row)
    window.viewer.open(str(study), plugin="medseg")
    assert len(seen) == 3 and "CT" in seen[row] and "16 x 40 x 48" in seen[row] and seen[-1] is False
    (layer,) = window.viewer.layers
    assert "Seen" not in layer.name and layer.data.shape == (16, 40, 48)
    assert tuple(layer.contrast_limits) == (-160.0, 240.0)
    panel = window.open_panel()
    panel.segment.windows.textActivated.emit("lung")
    assert tuple(layer.contrast_limits) == (-1350.0, 150.0)
    image = layer.metadata["medseg"]["image"]
    from medseg.ops import components

    lesions = Instances.from_labels(components.label(image.voxels()[0] > 300), image.grid)
    panel.opened(lesions, image, None)
    window.viewer.reset_view()
    window.settle()
    window.click(panel.bound.layer, (7, 14, 16))
    (id,) = panel.chosen()
    panel.edit.length.setValue(1.0)
    window.push(panel.edit.buttons["grow"])
    rows = panel.instances.rows
    rows.setData(rows.index(rows.ids.index(id), rows.columns.index("finding_site")), "liver")
    out = tmp_path / "out"
    panel.save.folder.setText(str(out))
    for kind in ("seg", "sr", "rtstruct"):
        assert panel.save.boxes[kind].isEnabled()
        panel.save.boxes[kind].setChecked(True)
    show(panel, panel.save)
    window.push(panel.save.save)
    assert "Seen" not in "".join(path.name for path in out.iterdir())
    (seg,) = out.glob("*_seg.dcm")
    written = pydicom.dcmread(seg)
    kinds = {int(one.SegmentNumber): one.SegmentAlgorithmType for one in written.SegmentSequence}
    ids = sorted(panel.bound.session.rows)
    assert kinds == {k: "SEMIAUTOMATIC" if i == id else "AUTOMATIC" for k, i in enumerate(ids, 1)}
    regions = [one.get("AnatomicRegionSequence") for one in written.SegmentSequence]
    assert [bool(r) for r in regions] == [i == id for i in ids] and regions[ids.index(id)][0].CodeMeaning == "Liver"
    back = io.load_labels(seg, like=image)
    np.testing.assert_array_equal(back.labels > 0, panel.bound.session.labels > 0)
    assert list(out.glob("*_sr.dcm")) and list(out.glob("*_rtstruct.dcm")) and list(out.glob("*_report.html"))


def test_a_cancelled_choice_opens_nothing(window, study):
    answer(window, 0, accept=False)
    window.viewer.open(str(study), plugin="medseg")
    assert not window.viewer.layers


def test_a_segmentation_opens_as_labels_and_can_be_worked_on(window, study, tmp_path):
    found = io.series(study)
    image = io.load(study, series=next(one.key for one in found if one.modality == "CT"))
    from medseg.ops import components

    lesions = Instances.from_labels(components.label(image.voxels()[0] > 300), image.grid)
    io.save_seg(lesions, tmp_path / "x.dcm", image)
    answer(window, next(k for k, one in enumerate(found) if one.modality == "CT"))
    window.viewer.open(str(study), plugin="medseg")
    window.viewer.open(str(tmp_path / "x.dcm"), plugin="medseg")
    assert [layer._type_string for layer in window.viewer.layers] == ["image", "labels"]
    panel = window.open_panel()
    from qtpy.QtWidgets import QPushButton

    window.push(next(b for b in panel.findChildren(QPushButton) if b.text() == "Work on it"))
    session = panel.bound.session
    assert len(session) == 2 and session.grid.matches(image.grid)
    np.testing.assert_array_equal(session.labels > 0, lesions.labels > 0)
    window.settle()
    assert panel.instances.rows.value(session.rows and min(session.rows), "hu_mean") > 500


def test_a_broken_folder_is_told_in_words(window, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 40)
    from napari.utils.notifications import notification_manager

    before = len(notification_manager.records)
    window.viewer.open(str(tmp_path / "x"), plugin="medseg")
    told = [str(one.message) for one in notification_manager.records[before:]]
    assert not window.viewer.layers and told and "Traceback" not in told[0]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_foreign_path_is_told_in_words(window, tmp_path, kind):
    from napari.utils.notifications import notification_manager

    path = tmp_path / "notes.xyz"
    if kind == "file":
        path.write_text("no image")
    else:
        path.mkdir()
    before = len(notification_manager.records)
    window.viewer.open(str(path), plugin="medseg")
    (told,) = [str(one.message) for one in notification_manager.records[before:]]
    assert not window.viewer.layers and told.startswith(f"notes.xyz: this {kind} holds no image that medseg reads.")


def test_what_was_said_comes_back_into_the_table_with_the_segmentation(window, study, tmp_path):
    """Saved by one session, opened as a file by the next: sites, roles and nodes are in the table again."""
    found = io.series(study)
    row = next(k for k, one in enumerate(found) if one.modality == "CT")
    answer(window, row)
    window.viewer.open(str(study), plugin="medseg")
    panel = window.open_panel()
    panel.segment.models.setCurrentText("rule")
    panel.segment.rule.setText("HU>300")
    window.segment()
    window.settle()
    rows = panel.instances.rows
    assert rows.columns[:7] == ["id", "class", "score", "status", "finding_site", "role", "nodal"]
    assert rows.columns[-3:] == ["doubt", "voxels", "edited"]
    first, second = rows.ids
    for id, column, text in ((first, "finding_site", "Liver"), (first, "role", "target"), (second, "nodal", "yes")):
        assert rows.setData(rows.index(rows.ids.index(id), rows.columns.index(column)), text)
    panel.save.folder.setText(str(tmp_path / "out"))
    panel.save.boxes["seg"].setChecked(True)
    show(panel, panel.save)
    window.push(panel.save.save)
    before = {id: [rows.value(id, c) for c in ("voxels", "finding_site", "role", "nodal")] for id in rows.ids}
    (seg,) = (tmp_path / "out").glob("*_seg.dcm")
    window.viewer.open(str(seg), plugin="medseg")
    panel.labels.setCurrentText("segmentation")
    from qtpy.QtWidgets import QPushButton

    window.push(next(b for b in panel.findChildren(QPushButton) if b.text() == "Work on it"))
    window.settle()
    after = [[rows.value(id, c) for c in ("voxels", "finding_site", "role", "nodal")] for id in rows.ids]
    before[second][1] = "Lymph Node"  # the region that a SEG has for a node of which no site was said
    assert after == list(before.values()) and after[0][1:] == ["Liver", "target", False] and after[1][3] is True
