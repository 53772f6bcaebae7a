"""RECIST 1.1: its own tables and limits, and properties that hold for any sums."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import InputError
from medseg.measure.recist import choose_targets, eligible, measured, overall, target_responses


def table(*rows):
    return pd.DataFrame(rows, columns=["long_axis_mm", "short_axis_mm", "nodal", "finding_site", "role"])


def responses(*sums, nodal=False):
    return [v.response for v in target_responses([[s] for s in sums], [nodal])]


def test_lymph_nodes_count_by_their_short_axis():
    found = table((30.0, 12.0, True, "", ""), (30.0, 12.0, False, "", ""))
    assert measured(found).tolist() == [12.0, 30.0]


@pytest.mark.parametrize(
    ("row", "thickness", "expected"),
    [
        ((10.0, 5.0, False), 1.0, "target"),
        ((9.9, 9.0, False), 1.0, "non-target"),
        ((13.0, 9.0, False), 7.0, "non-target"),
        ((14.0, 9.0, False), 7.0, "target"),
        ((30.0, 15.0, True), 1.0, "target"),
        ((30.0, 14.9, True), 1.0, "non-target"),
        ((30.0, 10.0, True), 1.0, "non-target"),
        ((30.0, 9.9, True), 1.0, "normal"),
    ],
)
def test_what_a_lesion_may_be(row, thickness, expected):
    assert eligible(table((*row, "", "")), thickness).tolist() == [expected]


def test_at_most_five_targets_and_two_of_an_organ_the_largest_first():
    found = table(
        *[(10.0 + i, 8.0, False, "liver", "") for i in range(4)],
        *[(40.0 + i, 8.0, False, f"organ {i}", "") for i in range(4)],
    )
    assert np.flatnonzero(choose_targets(found, 1.0)).tolist() == [3, 4, 5, 6, 7]
    assert np.flatnonzero(choose_targets(found.iloc[:6], 1.0)).tolist() == [2, 3, 4, 5]


def test_a_persons_choice_comes_first_within_the_rules():
    found = table((50.0, 9.0, False, "a", "non-target"), (20.0, 9.0, False, "b", "target"), (30.0, 9.0, False, "c", ""))
    assert choose_targets(found, 1.0).tolist() == [False, True, False]  # where targets are named, those alone
    found.loc[1, "role"] = ""
    assert choose_targets(found, 1.0).tolist() == [False, True, True]
    with pytest.raises(InputError, match="too small"):
        choose_targets(table((8.0, 5.0, False, "a", "target")), 1.0)
    with pytest.raises(InputError, match="2 of an organ"):
        choose_targets(table(*[(20.0, 5.0, False, "a", "target")] * 3), 1.0)


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ((100, 70), ["PR"]),
        ((100, 70.1), ["SD"]),
        ((100, 120), ["PD"]),
        ((100, 119.9), ["SD"]),
        ((20, 24), ["SD"]),  # 20 % but under 5 mm
        ((20, 25), ["PD"]),
        ((100, 60, 72), ["PR", "PD"]),  # from the nadir, though below baseline
        ((100, 60, 71), ["PR", "SD"]),
        ((100, 0), ["CR"]),
        ((100, 0, 5), ["CR", "PD"]),
        ((100, 0, 4), ["CR", "PD"]),  # it came back
        ((100, np.nan, 60), ["NE", "PR"]),
    ],
)
def test_responses_of_sums(sums, expected):
    assert responses(*sums) == expected


def test_nodes_that_became_normal_are_a_complete_response_though_the_sum_is_not_zero():
    first = [[20.0, 30.0], [9.9, 0.0]]
    assert [v.response for v in target_responses(first, [True, False])] == ["CR"]
    assert [v.response for v in target_responses([[20.0, 30.0], [10.0, 0.0]], [True, False])] == ["PR"]


def test_a_lesion_that_was_not_measured_does_not_hide_progression():
    assert [v.response for v in target_responses([[20.0, 20.0], [60.0, np.nan]], [False, False])] == ["PD"]
    assert [v.response for v in target_responses([[20.0, 20.0], [30.0, np.nan]], [False, False])] == ["NE"]


@pytest.mark.parametrize("rows", [[], [[0.0]], [[np.nan]], [[10.0], [5.0, 5.0]], [[10.0], [-1.0]]])
def test_what_cannot_be_compared_is_refused(rows):
    with pytest.raises(InputError):
        target_responses(rows, [False])


@pytest.mark.parametrize(
    ("target", "non_target", "new", "expected"),
    [
        ("CR", "CR", False, "CR"),
        ("CR", "none", False, "CR"),
        ("CR", "non-CR/non-PD", False, "PR"),
        ("CR", "NE", False, "PR"),
        ("PR", "non-CR/non-PD", False, "PR"),
        ("PR", "NE", False, "PR"),
        ("SD", "NE", False, "SD"),
        ("NE", "non-CR/non-PD", False, "NE"),
        ("PD", "CR", False, "PD"),
        ("PR", "PD", False, "PD"),
        ("CR", "CR", True, "PD"),
        ("none", "CR", False, "CR"),
        ("none", "non-CR/non-PD", False, "non-CR/non-PD"),
        ("none", "NE", False, "NE"),
        ("none", "none", True, "PD"),
        ("none", "none", False, "NE"),
    ],
)
def test_overall_response_follows_the_tables(target, non_target, new, expected):
    assert overall(target, non_target, new) == expected


@given(st.lists(st.floats(5, 200), min_size=2, max_size=8))
def test_dates_do_not_look_ahead(sums):
    whole = responses(*sums)
    for n in range(2, len(sums) + 1):
        assert responses(*sums[:n]) == whole[: n - 1]
    visits = target_responses([[s] for s in sums], [False])
    for k, visit in enumerate(visits, 1):
        assert visit.change_baseline == pytest.approx(sums[k] / sums[0] - 1)
        assert visit.change_nadir == pytest.approx(sums[k] / min(sums[:k]) - 1)
