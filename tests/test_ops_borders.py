"""Thresholds from the image: however sure a network is, the same is found; what stands out little goes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medseg.ops import borders

SHAPE = (24, 40, 40)
BALLS = (
    ((12, 12, 12), 6, 1.0),
    ((12, 28, 28), 4, 1.0),
    ((12, 30, 10), 3, 0.15),
)  # centre, radius, brightness; the last is faint


def ball(centre, radius):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))
    return ((index - np.array(centre).reshape(3, 1, 1, 1)) ** 2).sum(0) <= radius**2


@pytest.fixture
def drawn():
    """Image and logits of a network that is sure of all three balls alike, and masks of the balls."""
    rng = np.random.default_rng(0)
    masks = [ball(c, r) for c, r, _ in BALLS]
    values = sum(m * b for m, (_, _, b) in zip(masks, BALLS, strict=True)) + rng.normal(0, 0.03, SHAPE)
    soft = gaussian_filter(np.any(masks, axis=0).astype(float), 1.5)  # wider and narrower than the truth, by threshold
    return values.astype(np.float32), (8 * soft - 4).astype(np.float32), masks


@pytest.mark.parametrize("mood", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_same_is_found_whatever_the_networks_mood(drawn, mood, sign):
    values, logits, (one, two, faint) = drawn
    moved, at = borders.fitted(logits + np.float32(mood), sign * values, 0.5, 0.5)
    found = moved > 0
    expected = one | two
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
    assert not (found & faint).any()
    assert (at < 0.5) == (mood < 0) or mood == 0


def test_what_stands_out_little_is_kept_if_asked(drawn):
    values, logits, (_, _, faint) = drawn
    assert ((borders.fitted(logits, values, 0.5, 0.01)[0] > 0) & faint).any()
    moved, _ = borders.fitted(logits, values, 0.5, 0.5)
    assert not ((moved > -10) & faint).any()  # nor at a lower threshold


def test_changes_are_those_of_the_image():
    values = np.zeros((10, 10), np.float32)
    labels = np.zeros((10, 10), np.int32)
    labels[1:4, 1:4], labels[6:9, 6:9], labels[6:9, 5] = 1, 2, 3
    values[labels == 1], values[labels == 2], values[labels == 3] = 2.0, -1.0, 50.0
    assert borders.changes(values, labels).tolist() == [
        0,
        2,
        -1,
        50,
    ]  # the third does not count as outside of the second


@pytest.mark.parametrize("values", [np.zeros((8, 8), np.float32), np.random.default_rng(0).random((8, 8), np.float32)])
def test_nothing_found_changes_nothing(values):
    logits = np.full((8, 8), -9.0, np.float32)
    moved, at = borders.fitted(logits, values, 0.5, 0.5)
    assert np.isnan(at) and (moved == logits).all()
    logits[:] = 9.0  # everything is foreground: no border to go by
    moved, at = borders.fitted(logits, values, 0.5, 0.5)
    assert np.isnan(at) and (moved == logits).all()


def test_an_image_without_an_object_shows_none():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.03, SHAPE).astype(np.float32)
    values[:, :, 20:] += 0.2  # two tissues, and a network that doubts along their border
    logits = (rng.normal(-3, 1, SHAPE) + 2 * (np.abs(np.arange(SHAPE[2]) - 20) < 2)).astype(np.float32)
    without, _ = borders.fitted(logits, values, 0.5, 0.5)
    assert (without > 0).any()
    moved, at = borders.fitted(logits, values, 0.5, 0.5, least=0.5)
    assert at == borders.THRESHOLDS[-1]
    assert not (moved > 0).any()


def test_objects_with_sharp_borders_are_found_as_without_a_least_one(drawn):
    values, logits, _ = drawn
    with_least, at = borders.fitted(logits, values, 0.5, 0.5, least=0.2)
    expected, same = borders.fitted(logits, values, 0.5, 0.5)
    assert at == same
    np.testing.assert_array_equal(with_least, expected)
