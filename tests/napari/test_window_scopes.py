"""Files of microscopes in the window: channels as layers, scenes from a list, a message where the library is missing."""

import sys

import numpy as np
import pytest
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDialog

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture
def czi():
    return pytest.importorskip("pylibCZIrw.czi")


def written(czi, path, scenes=1):
    values = np.random.default_rng(0).integers(0, 255, (scenes, 2, 20, 30)).astype(np.uint8)
    with czi.create_czi(str(path)) as file:
        for scene in range(scenes):
            for c in range(2):
                where = {"location": (100 * scene, 7), "scene": scene} if scenes > 1 else {}
                file.write(data=values[scene, c][..., np.newaxis], plane={"C": c}, **where)
        file.write_metadata("doc", channel_names={0: "DAPI", 1: "GFP"}, scale_x=0.5e-6, scale_y=0.5e-6)
    return values


def test_a_czi_opens_with_a_layer_for_each_channel(window, czi, tmp_path):
    values = written(czi, tmp_path / "a.czi")
    window.viewer.open(str(tmp_path / "a.czi"), plugin="medseg")
    layers = window.viewer.layers
    assert [layer.name for layer in layers] == ["a DAPI", "a GFP"]
    for layer, expected in zip(layers, values[0], strict=True):
        np.testing.assert_array_equal(layer.data, expected)
        np.testing.assert_allclose(layer.scale, (0.5, 0.5))


@pytest.mark.parametrize("take", [True, False])
def test_of_several_scenes_a_person_chooses(window, czi, tmp_path, take):
    values = written(czi, tmp_path / "b.czi", 3)
    seen = []

    def answer():
        (dialog,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, QDialog) and w.isVisible()]
        seen.extend(dialog.list.item(k).text() for k in range(dialog.list.count()))
        dialog.list.setCurrentRow(1)
        dialog.accept() if take else dialog.reject()

    QTimer.singleShot(500, answer)
    window.viewer.open(str(tmp_path / "b.czi"), plugin="medseg")
    assert len(seen) == 3 and "20 x 30" in seen[1] and "DAPI, GFP" in seen[1]
    names = [layer.name for layer in window.viewer.layers]
    assert names == (["b scene 2 DAPI", "b scene 2 GFP"] if take else [])
    if take:
        np.testing.assert_array_equal(window.viewer.layers[1].data, values[1, 1])


@pytest.mark.parametrize("kind", ["czi", "nd2", "lif"])
def test_without_the_extra_a_message_says_what_to_install(tmp_path, monkeypatch, kind):
    from medseg_napari import notices
    from medseg_napari.reader import get_reader

    told = []
    monkeypatch.setattr(notices, "problem", lambda error: told.append(str(error)))
    for name in ("pylibCZIrw", "pylibCZIrw.czi", "nd2", "liffile"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"x")
    assert get_reader(str(path))(str(path)) == [(None,)]
    assert 'pip install "medseg[microscopes]"' in told[0]
