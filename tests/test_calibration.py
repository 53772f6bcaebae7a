"""Calibration: the logistic by hand, fitted chances that hold on other images, and where there is nothing to fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from medseg.calibration import calibrated, features, fit
from medseg.spec import CalibrationSpec

TRUE = np.array([1.2, 0.8, 0.9, -1.6])


def images(seed, count):
    """Rows and outcomes of drawn images whose chances follow `TRUE`."""
    rng = np.random.default_rng(seed)
    rows, right = [], []
    for _ in range(count):
        n = rng.integers(20, 60)
        scores = expit(rng.normal(rng.normal(1, 1), 1.5, n))
        voxels = rng.lognormal(np.log(rng.uniform(50, 3000)), 0.7, n)
        one = features(scores, voxels)
        rows.append(one)
        right.append(rng.random(n) < expit(one @ TRUE))
    return np.concatenate(rows), np.concatenate(right)


def test_features_by_hand():
    rows = features(np.array([0.5, 0.9, 0.8]), np.array([25, 100, 100]))
    np.testing.assert_allclose(
        rows,
        [
            [0, np.log(0.25), logit(0.8), 1],
            [logit(0.9), 0, logit(0.8), 1],
            [logit(0.8), 0, logit(0.8), 1],
        ],
        atol=1e-12,
    )


def test_an_image_seen_larger_is_as_sure():
    scores, voxels = np.array([0.3, 0.9, 0.7]), np.array([20, 90, 400])
    np.testing.assert_allclose(features(scores, voxels * 16), features(scores, voxels))


def test_nothing_found_is_nothing_to_say():
    assert calibrated(np.zeros(0), np.zeros(0), CalibrationSpec(score=1)).shape == (0,)


def test_without_a_calibration_scores_stay_raw():
    assert calibrated(np.array([0.25, 1.0]), np.array([5, 5]), None).tolist() == [0.25, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 1000))
def test_chances_are_finite_and_keep_the_order_of_equally_large_instances(scores, seed):
    spec = CalibrationSpec(score=1.5, size=2, image=1, offset=-4)
    given_, size = np.array(scores), np.full(len(scores), 1 + seed)
    chances = calibrated(given_, size, spec)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.diff(chances[np.argsort(given_)]) >= 0).all()


def test_fitted_chances_hold_on_other_images():
    rows, right = images(0, 300)
    spec = fit(rows, right, np.ones(len(right)))
    found = np.array(list(spec.model_dump().values()))
    np.testing.assert_allclose(found, TRUE, atol=0.3)
    rows, right = images(1, 300)
    chance = expit(rows @ found)
    for low in np.arange(0, 1, 0.2):
        some = (chance >= low) & (chance < low + 0.2)
        assert some.sum() > 100
        assert abs(chance[some].mean() - right[some].mean()) < 0.05
    raw = expit(rows[:, 0])
    assert abs(raw[raw > 0.8].mean() - right[raw > 0.8].mean()) > 0.05  # and raw scores do not


def test_what_counts_more_decides():
    rows, right = images(2, 60)
    twice = np.concatenate([rows, rows]), np.concatenate([right, ~right])
    spec = fit(*twice, np.repeat([1.0, 1e-6], len(right)))
    alone = fit(rows, right, np.ones(len(right)))
    np.testing.assert_allclose(list(spec.model_dump().values()), list(alone.model_dump().values()), atol=1e-3)


@pytest.mark.parametrize("why", ["few", "all right", "none right", "the wrong way round"])
def test_nothing_to_fit(why):
    rows, right = images(3, 20)
    if why == "few":
        rows, right = rows[:19], right[:19]
    elif why == "all right":
        right = np.ones_like(right)
    elif why == "none right":
        right = np.zeros_like(right)
    else:
        right = rows[:, 0] < np.median(rows[:, 0])
    assert fit(rows, right, np.ones(len(right))) is None
