"""Expected calibration error: by hand, on drawn cases, and absent where scores are no probabilities."""

import numpy as np
import pytest

from medseg.errors import InputError
from medseg.metrics import score
from medseg.metrics.reliability import reliability


def test_by_hand():
    # bin .2: two predictions of .25, none right; bin .8: four of .8, three right
    found = reliability(np.array([0.25, 0.25, 0.8, 0.8, 0.8, 0.8]), np.array([0, 0, 1, 1, 1, 0], bool))
    assert found.predictions[2] == 2 and found.right[8] == 3
    assert found.error == pytest.approx((0.5 + abs(3 - 3.2)) / 6)


def test_scores_of_0_and_1_have_bins():
    found = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert found.error == 0 and found.predictions[0] == found.predictions[-1] == 1
    assert np.isnan(reliability(np.zeros(0), np.zeros(0, bool)).error)


def test_predictions_drawn_from_their_scores_have_a_small_error():
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    right = rng.random(20_000) < scores
    assert reliability(scores, right).error < 0.02
    assert reliability(np.clip(scores + 0.2, 0, 1), right).error > 0.12


def objects(n):
    labels = np.zeros((4, 4 * n), int)
    for i in range(n):
        labels[1:3, 4 * i : 4 * i + 3] = i + 1
    return labels


def test_of_a_case():
    truth = objects(4)
    truth[truth == 4] = 0
    summary = score(objects(4), truth, metrics="coco", scores=[0.9, 0.9, 0.9, 0.4])
    assert summary.value("ECE@.5") == pytest.approx((0.3 + 0.4) / 4)


def test_ignored_predictions_do_not_count():
    truth, ignore = objects(4), np.zeros((4, 16), bool)
    truth[truth == 4] = 0
    ignore[:, 12:] = True
    summary = score(objects(4), truth, metrics="coco", scores=[0.9, 0.9, 0.9, 0.4], ignore=ignore)
    assert summary.value("ECE@.5") == pytest.approx(0.1)


def test_there_is_none_of_scores_that_are_no_probabilities():
    summary = score(objects(2), objects(2), metrics="coco", scores=[7.0, 3.0])
    with pytest.raises(InputError, match="no figure 'ECE"):
        summary.value("ECE@.5")
