"""Texture is what pyradiomics says of the same voxels, and its absence is said in one line."""

import importlib.util
import sys

import numpy as np
import pytest

from medseg import io
from medseg.errors import InputError, MissingError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.measure import measure
from medseg.spec import MeasureSpec

installed = pytest.mark.skipif(importlib.util.find_spec("radiomics") is None, reason="pyradiomics is not here")


@installed
def test_a_tumour_has_the_texture_that_pyradiomics_gives_it(real_data):
    import SimpleITK as sitk
    from radiomics import featureextractor

    folder = real_data / "lesions" / "pyradiomics"
    image, label = (folder / f"brain1_{k}.nrrd" for k in ("image", "label"))
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=25)
    extractor.disableAllFeatures()
    for name in ("glcm", "glrlm", "glszm", "gldm", "ngtdm"):
        extractor.enableFeatureClassByName(name)
    theirs = extractor.execute(sitk.ReadImage(str(image)), sitk.ReadImage(str(label)))
    ours = measure(io.load_labels(label), io.load(image), MeasureSpec(values="HU", texture=True))
    assert sum(c.startswith("texture_") for c in ours) == 75
    for key, value in theirs.items():
        if key.startswith("original_"):
            assert ours[key.replace("original", "texture")].item() == pytest.approx(float(value), rel=1e-6)
    assert any("25 HU" in note for note in ours.attrs["notes"])


@installed
def test_what_has_no_texture_is_left_empty():
    grid = Grid.from_spacing((8, 20, 20), 1.0)
    labels = np.zeros(grid.shape, np.int32)
    labels[2:6, 2:8, 2:8], labels[1, 15, 15], labels[2:6, 12:18, 2:8] = 1, 2, 3
    voxels = np.random.default_rng(0).normal(size=(1, *grid.shape)).astype(np.float32)
    voxels[0][labels == 3] = 1
    found = measure(Instances.from_labels(labels, grid), Image(voxels, grid, modality="MR"), MeasureSpec(texture=True))
    assert found["texture_glcm_Contrast"].isna().tolist() == [False, True, True]
    assert any("2 instances are too small" in note for note in found.attrs["notes"])


def test_texture_without_an_image_or_without_pyradiomics_is_refused(monkeypatch):
    grid = Grid.from_spacing((4, 8, 8), 1.0)
    some = Instances.from_labels(np.ones(grid.shape, np.int32), grid)
    with pytest.raises(InputError, match="of an image"):
        measure(some, None, MeasureSpec(texture=True))
    monkeypatch.setitem(sys.modules, "radiomics.featureextractor", None)
    with pytest.raises(MissingError, match=r"medseg\[texture\]"):
        measure(some, Image(np.ones((1, *grid.shape), np.float32), grid), MeasureSpec(texture=True))
