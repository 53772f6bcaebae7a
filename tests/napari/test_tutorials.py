"""The two walks of docs/tutorials/viewer.md, by real events. With MEDSEG_PICTURES=docs/images the pictures of the page are made."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from test_window import show

from medseg import io, presets

pytest.importorskip("napari")
pytestmark = pytest.mark.usefixtures("display")


def picture(window, name):
    """Save a picture for the page, where it was asked for."""
    if folder := os.environ.get("MEDSEG_PICTURES"):
        from PIL import Image

        path = Path(folder) / f"viewer-{name}.png"
        window.picture(path)
        shown = Image.open(path).convert("RGB").quantize(256)
        shown.save(path, optimize=True)


def test_nuclei_from_first_open_to_a_saved_table(window, tmp_path):
    window.viewer.open_sample("medseg", "fluorescence")
    panel = window.open_panel()
    picture(window, "open")
    window.segment()
    window.settle()
    picture(window, "segmented")
    session, layer = panel.bound.session, panel.bound.layer
    show(panel, panel.instances)
    window.viewer.scene.camera.zoom *= 2.5
    panel.instances.colour.setCurrentText("score")
    panel.instances.colour.textActivated.emit("score")
    picture(window, "table")
    panel.bound.colour_by(None)
    show(panel, panel.review)
    window.press("Alt+Right")
    picture(window, "review")
    first = panel.review.current
    show(panel, panel.edit)
    row = session.rows[first]
    low, high = np.array(row.box[:2]), np.array(row.box[2:]) - 1
    long = int(np.argmax(high - low))
    ends = [np.array(row.centroid), np.array(row.centroid)]
    ends[0][long], ends[1][long] = low[long], high[long]
    count = len(session)
    window.press("Alt+S")
    for end in ends:
        window.click(layer, end)
    picture(window, "split")
    window.press("Enter")
    assert len(session) == count + 1
    window.press("Control+Z")
    assert len(session) == count
    panel.save.folder.setText("results")
    show(panel, panel.save)
    picture(window, "save")
    panel.save.folder.setText(str(tmp_path))
    window.push(panel.save.save)
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} >= {
        "fluorescence_labels.tif",
        "fluorescence_instances.csv",
        "fluorescence_report.html",
    }


def test_a_nodule_in_ct_from_a_folder_to_seg(window, tmp_path):
    window.viewer.open(str(presets.samples() / "nodule"), plugin="medseg")
    panel = window.open_panel()
    panel.segment.windows.setCurrentText("lung")
    panel.segment.windows.textActivated.emit("lung")
    layer = window.viewer.layers[0]
    middle = (10, 62, 64)
    window.pixel(layer, middle)
    picture(window, "nodule")
    show(panel, panel.edit)
    window.press("Alt+C")
    window.click(layer, middle)
    assert "preview" in window.viewer.layers
    picture(window, "clicks")
    window.press("Enter")
    session = panel.bound.session
    assert len(session) == 1 and "preview" not in window.viewer.layers
    window.settle()
    (id,) = session.rows
    show(panel, panel.instances)
    panel.choose([id])
    window.push(panel.instances.calipers)
    picture(window, "calipers")
    panel.calipers.hide()
    rows = panel.instances.rows
    rows.setData(rows.index(0, rows.columns.index("finding_site")), "lung")
    panel.save.folder.setText(str(tmp_path))
    panel.save.boxes["seg"].setChecked(True)
    show(panel, panel.save)
    window.push(panel.save.save)
    (seg,) = tmp_path.glob("*_seg.dcm")
    written = pydicom.dcmread(seg)
    assert [one.SegmentAlgorithmType for one in written.SegmentSequence] == ["SEMIAUTOMATIC"]
    image = io.load(presets.samples() / "nodule")
    back = io.load_labels(seg, like=image)
    np.testing.assert_array_equal(back.labels > 0, session.labels > 0)
    # about as large as the four readers drew it (shared consensus: 2,665 mm3, readers from 2,300 to 3,100)
    assert 1500 < back.table["volume_mm3"][0] < 4500
