"""Size of the objects: resampling by it, and the estimate that a model makes of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import sizing
from medseg.image import Image
from medseg.model import Model
from medseg.pipeline import segment
from medseg.preprocess import plan, zoom_for
from medseg.spec import PreprocessSpec, RunSpec
from medseg.testing import models

KNOWS = PreprocessSpec(diameter=(10.0, 40.0))


@given(st.floats(1, 500))
def test_after_the_zoom_objects_have_a_size_that_the_model_knows(diameter):
    zoom = zoom_for(diameter, KNOWS)
    assert 10 <= diameter * zoom <= 40
    assert (zoom == 1.0) == (10 <= diameter <= 40)


def test_without_a_known_size_nothing_is_resampled():
    assert zoom_for(300.0, PreprocessSpec()) == 1.0
    assert zoom_for(0.0, KNOWS) == 1.0  # nothing found, nothing known


def test_a_plan_resamples_all_axes_and_smooths_before_it_drops_pixels():
    stripes = np.tile(np.array([0.0, 1.0]), (64, 32))
    prepared = plan(Image.from_array(stripes), PreprocessSpec(low=0, high=100), 0.25)
    assert prepared.factor == (0.25, 0.25)
    array = prepared.read(Image.from_array(stripes), (slice(0, 64), slice(0, 64)))
    assert array.shape == (1, 16, 16) and np.abs(array[0, 2:-2, 2:-2] - 0.5).max() < 0.05  # gray, not stripes


def test_a_given_diameter_brings_labels_back_to_the_image(monkeypatch):
    labels = np.zeros((128, 128), np.int32)
    labels[16:56, 16:56], labels[64:112, 64:112] = 1, 2
    model, _ = models.flat(labels)
    seen = []

    def maps(self, array):
        seen.append(array.shape)
        return [np.where(array > 0.5, 8.0, -8.0).astype(np.float32)]

    monkeypatch.setattr(Model, "maps", maps)
    spec = model.spec.model_copy(update={"preprocess": PreprocessSpec(low=0, high=100, diameter=(10.0, 16.0))})
    known = Model(spec, model.path, model.digest, model.device, model._nets)
    found = segment((labels > 0).astype(np.float32), model=known, options=RunSpec(diameter=45))
    assert seen[-1] == (1, 36, 36)
    assert len(found) == 2 and found.labels.shape == (128, 128)
    assert np.mean((found.labels > 0) == (labels > 0)) > 0.97
    assert any("resampled by 0.28: objects of about 45 voxels across (given)" in n for n in found.provenance["notes"])


class Sees:
    """A model of discs that sees objects of 6 to 60 of its own voxels and knows 10 to 40."""

    def __init__(self, true):
        self.true, self.looks = true, []

    def __call__(self, image, model, zoom):
        self.looks.append(zoom)
        return self.true if 6 <= self.true * zoom <= 60 else 0.0


@pytest.mark.parametrize(
    "true, found", [(2, 0), (3, 3), (4, 4), (8, 8), (20, 20), (38, 38), (100, 100), (150, 150), (400, 400)]
)
def test_an_image_is_looked_at_until_its_objects_fit(monkeypatch, true, found):
    sees = Sees(true)
    monkeypatch.setattr(sizing, "_diameter", sees)
    model, image = models.flat(np.ones((32, 32), np.int32))
    spec = model.spec.model_copy(update={"preprocess": KNOWS})
    known = Model(spec, model.path, model.digest, model.device, model._nets)
    assert sizing.estimate(image, known) == found
    if 10 <= true <= 36:
        assert sees.looks == [1.0]
