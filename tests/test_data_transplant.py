"""Composed brains: lesions lie where they are said to, are bright in FLAIR and dark in T1, and what is filled is gone."""

import numpy as np
import pytest

from medseg.data import transplant
from medseg.ops import components


@pytest.fixture
def brain(real_data):
    found, place = transplant.read_brain(real_data / "lesions/ms_ljubljana_mni/patient26")
    donor = transplant.read_mask(real_data / "lesions/ms_ljubljana_mni/patient14")[place]
    return found, donor


def test_a_composed_brain_shows_the_lesions_it_is_said_to_have(brain):
    found, donor = brain
    image, labels = transplant.compose(found, [donor], np.random.default_rng(3))
    assert image.shape == (2, *labels.shape) and image.dtype == np.float32
    assert not image[:, ~found.inside].any() and not labels[~found.inside].any()
    drawn = (labels > 0) & (found.labels == 0)
    assert drawn.sum() > 1000
    ring = found.inside & (found.white > 0.8) & (labels == 0) & (found.labels == 0)
    assert np.median(image[0][drawn]) > 1.08 * np.median(image[0][ring])
    assert np.median(image[1][drawn]) < 0.97 * np.median(image[1][ring])
    ids = np.unique(labels[labels > 0])
    assert (ids == np.arange(1, len(ids) + 1)).all()
    assert components.pieces(labels).max() == len(ids)  # each is one piece


def test_filled_lesions_look_like_white_matter(brain):
    found, _ = brain
    flair, t1 = transplant.heal(found, found.labels > 0, np.random.default_rng(0))
    where = found.labels > 0
    white = float(np.median(found.flair[(found.white > 0.8) & ~where]))
    assert np.median(found.flair[where]) > 1.25 * white
    assert np.median(flair[where]) == pytest.approx(white, rel=0.06)
    far = ~transplant.binary_dilation(where, iterations=12)
    assert (flair[far] == found.flair[far]).all() and (t1[far] == found.t1[far]).all()


def test_the_same_seed_composes_the_same_brain(brain):
    one, two = (transplant.compose(*[brain[0], [brain[1]]], np.random.default_rng(5)) for _ in range(2))
    assert (one[0] == two[0]).all() and (one[1] == two[1]).all()
