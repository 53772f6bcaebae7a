"""Hit rules and FROC: against plain counting after the LUNA16 evaluation, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg.errors import InputError
from medseg.metrics import froc, hits, overlap
from medseg.metrics.response import RATES

RULES = ("any", "iou", "centre")
SCORES = np.array([0.1, 0.25, 0.5, 0.75, 0.9])


@st.composite
def scans(draw):
    """Labels of both sides, scores, and which true objects are irrelevant, for some scans."""
    out = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=5))
        truth, prediction = (
            draw(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, 0, *range(1, last)]))) for last in (4, 6)
        )
        n, m = (len(set(side.ravel().tolist()) - {0}) for side in (truth, prediction))
        scores = SCORES[draw(st.lists(st.integers(0, 4), min_size=m, max_size=m))]
        out.append((truth, prediction, scores, draw(st.lists(st.booleans(), min_size=n, max_size=n))))
    return out


def luna(cases, rule, rates=RATES):
    """Sensitivities by lists as the LUNA16 evaluation keeps them: one entry a lesion, then one for each false mark."""
    lesions, marks = [], []  # best score of each lesion, None if missed; scores of false marks
    for truth, prediction, scores, irrelevant in cases:
        numbers = sorted(set(prediction.ravel().tolist()) - {0})
        left = set(numbers)
        for aside, k in zip(irrelevant, sorted(set(truth.ravel().tolist()) - {0}), strict=True):
            found = []
            for score, number in zip(scores, numbers, strict=True):
                one, two = truth == k, prediction == number
                at = tuple(int(np.floor(x.mean() + 0.5)) for x in np.nonzero(two))
                union = two if aside else one | two  # all of the irrelevant ones are crowds here
                if {
                    "any": (one & two).any(),
                    "iou": (one & two).sum() / union.sum() >= 0.1,
                    "centre": one[at] or (aside and (one & two).sum() / two.sum() >= 0.5),
                }[rule]:
                    found.append(score)
                    left.discard(number)
            if not aside:
                lesions.append(max(found, default=None))
        marks += [score for score, number in zip(scores, numbers, strict=True) if number in left]
    if not lesions:
        return None
    points = [(0.0, 0.0)]
    for t in sorted({*marks, *lesions} - {None}, reverse=True):
        false = sum(score >= t for score in marks) / len(cases)
        points.append((false, sum(score is not None and score >= t for score in lesions) / len(lesions)))
    out = []
    for rate in rates:
        below = [p for p in points if p[0] <= rate][-1]
        above = next((p for p in points if p[0] > rate), None)
        step = 0.0 if above is None else (rate - below[0]) / (above[0] - below[0]) * (above[1] - below[1])
        out.append(below[1] + step)
    return out


@given(scans(), st.sampled_from(RULES))
def test_sensitivities_are_those_of_lists_kept_as_in_luna16(cases, rule):
    counted = [hits(overlap(t, p, scores=s, crowd=aside), rule) for t, p, s, aside in cases]
    expected, curve = luna(cases, rule), froc(counted)
    if expected is None:
        assert np.isnan(curve.mean)
    else:
        np.testing.assert_allclose(curve.sensitivity, expected, rtol=0, atol=1e-12)
        assert curve.mean == pytest.approx(np.mean(expected))
        assert curve.rates.tolist() == list(RATES)
        assert (np.diff(curve.curve_rate) >= 0).all()
        assert (np.diff(curve.curve_sensitivity) >= 0).all()
        assert (np.diff(curve.curve_score) < 0).all()
        assert curve.curve_sensitivity[-1] == sum(c.tp for c in counted) / sum(c.counts.sum() for c in counted)
        assert curve.curve_rate[-1] == sum(c.fp for c in counted) / len(counted)


# --- hit rules by hand


def scan(truth, prediction, scores=None, **more):
    return overlap(np.array([truth]), np.array([prediction]), scores=scores, **more)


def test_each_rule_asks_for_another_kind_of_hit():
    #              1 is grazed by 1, 2 is covered a third by 2 whose centre is outside, 3 holds the centre of 3
    truth = [1] * 11 + [0] * 3 + [2] * 3 + [0] * 3 + [3] * 3
    prediction = [0] * 10 + [1] * 2 + [0] * 4 + [2] * 4 + [0] * 1 + [3] * 1 + [0]
    table = scan(truth, prediction)
    assert table.iou.tolist() == [1 / 12, 1 / 6, 1 / 3]
    found = {rule: hits(table, rule).found.tolist() for rule in RULES}
    assert found == {"any": [True] * 3, "iou": [False, True, True], "centre": [False, False, True]}
    assert [hits(table, rule).fp for rule in RULES] == [0, 1, 2]
    assert [hits(table, rule).fn for rule in RULES] == [0, 1, 2]
    assert hits(table, "iou", threshold=0.2).tp == 1


def test_an_iou_of_exactly_a_tenth_is_a_hit():
    assert hits(scan([1] * 10, [1] + [0] * 9), "iou").tp == 1


def test_several_predictions_on_one_lesion_find_it_once_and_none_is_false():
    result = hits(scan([1, 1, 1, 0, 0], [4, 5, 6, 0, 7], [0.2, 0.9, 0.5, 0.3]))
    assert (result.tp, result.fp, result.fn) == (1, 1, 0)
    assert result.best.tolist() == [0.9]
    assert result.false.tolist() == [False, False, False, True]


def test_one_prediction_over_several_lesions_finds_them_all():
    result = hits(scan([1, 0, 2, 0], [3, 3, 3, 0], [0.5]))
    assert (result.tp, result.fp, result.fn) == (2, 0, 0)
    assert result.best.tolist() == [0.5, 0.5]


def test_a_prediction_that_hits_only_an_ignored_lesion_is_neither_right_nor_wrong():
    truth, ignore = [1, 1, 0, 2, 2, 2], np.array([[False] * 4 + [True] * 2])
    for prediction in ([0, 0, 3, 3, 0, 0], [0, 0, 0, 0, 3, 3]):  # on 2; wholly in the ignore region
        result = hits(scan(truth, prediction, [0.5], ignore=ignore))
        assert (result.tp, result.fp, result.fn) == (0, 0, 1)
        assert result.counts.tolist() == [True, False]


def test_a_hit_on_another_class_is_none():
    for rule in RULES:
        result = hits(scan([1, 1], [1, 1], truth_classes=[1], classes=[2]), rule)
        assert (result.tp, result.fp, result.fn) == (0, 1, 1)


def test_hits_need_no_scores_and_no_objects():
    assert np.isnan(hits(scan([1, 1], [1, 1])).best).all()
    empty = hits(scan([0, 0], [0, 0]))
    assert (empty.tp, empty.fp, empty.fn) == (0, 0, 0)


# --- FROC by hand


def of(truth, prediction, scores, rule="any"):
    return hits(scan(truth, prediction, scores), rule)


@pytest.mark.parametrize("rule", RULES)
def test_a_perfect_detector_scores_one(rule):
    one = of([1, 0, 2, 2], [1, 0, 2, 2], [0.9, 0.3], rule)
    assert froc([one, one, of([0] * 4, [0] * 4, [], rule)]).mean == 1.0


@pytest.mark.parametrize("rule", RULES)
def test_a_single_perfect_detection_per_scan_scores_one(rule):
    assert froc([of([1, 1, 0], [1, 1, 0], [0.7], rule)]).mean == 1.0
    assert froc([of([1, 1, 0], [1, 1, 0], [s], rule) for s in (0.7, 0.1)]).mean == 1.0


def test_the_lowest_threshold_counts():
    # the lesion found last, at the lowest score, counts at every rate: no false prediction comes before it
    curve = froc([of([1, 0, 2, 0], [1, 0, 2, 4], [0.9, 0.1, 0.1 / 2])])
    assert curve.curve_score.tolist() == [np.inf, 0.9, 0.1, 0.05]
    assert curve.curve_rate.tolist() == [0, 0, 0, 1]
    assert curve.curve_sensitivity.tolist() == [0, 0.5, 1, 1]
    assert curve.mean == 1.0


def test_the_curve_is_linear_between_its_points():
    # at one score come two false predictions and the second lesion: from (0, 1/2) to (2, 1)
    curve = froc([of([1, 0, 2, 0, 0, 0], [1, 0, 2, 4, 0, 5], [0.9, 0.4, 0.4, 0.4])], rates=(0.5, 1, 2, 8))
    assert curve.sensitivity.tolist() == [0.625, 0.75, 1, 1]


def test_rates_are_per_scan():
    noisy, empty = of([1, 0], [0, 2], [0.9]), of([0, 0], [0, 0], [])
    found = of([1, 0], [1, 0], [0.5])
    curve = froc([noisy, found, empty, empty])
    assert curve.curve_rate.tolist() == [0, 0.25, 0.25]
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_nothing_found_scores_zero_and_nothing_to_find_is_nan():
    assert froc([of([1, 0], [0, 0], [])]).mean == 0.0
    assert froc([of([1, 0], [0, 2], [0.5])]).mean == 0.0
    assert np.isnan(froc([of([0, 0], [0, 2], [0.5])]).sensitivity).all()


def test_wrong_input_is_named():
    table = scan([1, 1], [1, 1])
    with pytest.raises(InputError, match="hit rule 'near'.*any, iou, centre"):
        hits(table, "near")
    with pytest.raises(InputError, match="have no scores"):
        froc([hits(table)])
    with pytest.raises(InputError, match="no cases"):
        froc([])
    with pytest.raises(InputError, match="different hit rules"):
        froc([of([1], [1], [0.5], rule) for rule in ("any", "iou")])
