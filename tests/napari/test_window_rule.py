"""A rule in place of a model, in the window."""

import numpy as np
import pytest
from test_window import show

from medseg import case, io, presets
from medseg.grid import Grid
from medseg.image import Image
from medseg.spec import SeparateSpec
from medseg.testing import series

pytest.importorskip("napari")
pytestmark = pytest.mark.usefixtures("display")


def by_rule(window, rule, values="auto"):
    """Choose the rule and press Segment, as a person does."""
    panel = window.panel
    show(panel, panel.segment)
    panel.segment.models.setCurrentText("a rule, no model")
    panel.segment.rule.setFocus()
    panel.segment.rule.clear()
    from qtpy.QtTest import QTest

    QTest.keyClicks(panel.segment.rule, rule)
    panel.segment.values.setCurrentText(values)
    window.segment()
    return panel.segment.note.text()


def test_a_rule_finds_in_a_ct_what_the_command_finds(window):
    window.viewer.open_sample("medseg", "nodule")
    panel = window.open_panel()
    assert panel.segment.models.currentText() == "a rule, no model"  # no model of cells for a patient
    assert not by_rule(window, "HU>200")
    assert panel.segment.rule.isVisible() and "41%" in panel.segment.card.text()
    image = window.viewer.layers[0].metadata["medseg"]["image"]
    wanted = case.Rules("HU>200", SeparateSpec(), "auto").apply(image)
    session = panel.bound.session
    assert len(wanted) > 3 and len(session) == len(wanted)
    np.testing.assert_array_equal(session.labels, wanted.labels)
    assert "HU>200" in session.provenance["method"] and session.maps is None
    assert not panel.segment.sliders.isVisible()
    id = max(session.rows.values(), key=lambda row: row.voxels).id
    panel.choose([id])
    window.press("Delete")
    assert id not in session.rows


def test_a_rule_that_is_none_or_speaks_of_what_is_not_there_is_told(window):
    rng = np.random.default_rng(0)
    voxels = rng.normal(100, 10, (1, 12, 40, 40)).astype(np.float32)
    voxels[0, 4:8, 10:20, 10:20] = 900
    image = Image(voxels, Grid.from_spacing((12, 40, 40), 2.0), "PT")
    from medseg_napari.layers import of_image

    for data, more, _ in of_image(image, "pet"):
        window.viewer.add_image(data, **more)
    panel = window.open_panel()
    before = len(window.viewer.layers)
    assert "is no rule" in by_rule(window, "SUV is 4")
    assert "needs DICOM tags" in (told := by_rule(window, "SUV>4"))
    assert "'values are'" in told and "--" not in told
    assert "HU are of CT" in by_rule(window, "HU>200")
    assert len(window.viewer.layers) == before and panel.bound is None
    assert not by_rule(window, "SUV>400", "SUVbw")
    assert len(panel.bound.session) == 1 and (panel.bound.session.labels > 0).sum() == 400
    assert not by_rule(window, ">41%")
    assert (panel.bound.session.labels > 0).sum() == 400


def test_suv_of_a_pet_series_and_the_message_where_its_tags_are_absent(window, tmp_path):
    planes = series.stack(8, 4.0, shape=(30, 30), series="31", Modality="PT", SOPClassUID="1.2.840.10008.5.1.4.1.1.128")
    for number, plane in enumerate(planes):
        stored = np.full((30, 30), 100, np.int16)
        if 2 <= number < 6:
            stored[10:16, 10:16] = 3000
        plane.dataset.PixelData = stored.tobytes()
        plane.dataset.Units = "BQML"
    series.save(tmp_path / "pet", planes)
    window.viewer.open(str(tmp_path / "pet"), plugin="medseg")
    panel = window.open_panel()
    told = by_rule(window, "SUV>4")
    assert panel.bound is None and "SUV" in told and "Traceback" not in told and len(told) > 30
    assert io.load(tmp_path / "pet").modality == "PT"


def test_a_rule_in_a_box_looks_at_the_box_alone(window):
    window.viewer.open(str(presets.samples() / "fluorescence.tif"), plugin="medseg")
    layer = window.viewer.layers[0]
    panel = window.open_panel()
    box = np.array([[20, 20], [20, 120], [120, 120], [120, 20]])
    corners = np.array([layer.data_to_world(corner) for corner in box])
    window.viewer.add_shapes([corners], shape_type="rectangle", units=layer.units)
    panel.segment.region.setChecked(True)
    panel.images.setCurrentText(layer.name)
    assert not by_rule(window, "otsu")
    assert panel.bound.session.labels.shape == (101, 101) and len(panel.bound.session) > 3
