"""All figures of one case: values beside drawn arrays, classes, ignore regions, what is absent."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg.candidates import Candidates
from medseg.errors import GeometryError, InputError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.metrics import GROUPS, THRESHOLDS, match, overlap, score_case
from medseg.metrics.regions import split_merge
from medseg.metrics.summary import case_figures

# found whole, found in two halves, missed; and one that is not there
TRUTH = np.array([[1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 0, 0]] * 4)
FOUND = np.array([[7, 7, 0, 5, 5, 9, 9, 0, 0, 0, 0, 4]] * 4)


def test_main_figures_and_their_counts():
    case = score_case(TRUTH, FOUND)
    # 2 with either half has IoU exactly .5: one pair; so 2 hits, 2 false (half and invented), 1 missed
    assert case.counts(0.5) == match(overlap(TRUTH, FOUND), 0.5)[0]
    assert (case.counts().tp, case.counts().fp, case.counts().fn) == (2, 2, 1)
    assert (case.counts(0.75).tp, case.counts(strict=True).tp) == (1, 1)  # IoU .5 is no match for PQ
    figures = case_figures(case)
    assert list(figures) == ["AP@.5", "AP@.75", "AP@.50:.95", "F1@.5", "PQ"]
    want = {
        "AP@.5": 2 / 5,
        "AP@.75": 1 / 6,
        "AP@.50:.95": (2 / 5 + 9 / 6) / 10,
        "F1@.5": 4 / 7,
        "PQ": 1 / (1 + 5 / 2),
    }
    assert figures == pytest.approx(want, abs=1e-12)


def test_more_figures():
    case = score_case(TRUTH, FOUND, metrics=("detection",))
    figures = case_figures(case)
    want = {
        "precision@.5": 2 / 4, "recall@.5": 2 / 3, "SQ": 1.0, "RQ": 1 / 3.5, "mean IoU of pairs@.5": 0.75,
        "TP@.5": 2, "FP@.5": 2, "FN@.5": 1, "splits": 1, "merges": 0, "AP@.55": 1 / 6, "AP@.95": 1 / 6,
    }  # fmt: skip
    assert {k: figures[k] for k in want} == pytest.approx(want, abs=1e-12)
    assert [f"AP@{t:g}".replace("0.", ".") in figures for t in THRESHOLDS] == [True] * 10


def test_errors_name_the_objects_and_their_boxes():
    errors = score_case(TRUTH, FOUND).errors()
    assert errors["missed"].ids.tolist() == [3] and errors["missed"].boxes.tolist() == [[0, 8, 4, 10]]
    assert errors["split"].ids.tolist() == [2] and len(errors["merged"]) == 0
    assert 4 in errors["spurious"].ids and len(errors["spurious"]) == 2
    back = score_case(FOUND, TRUTH).errors()
    assert back["merged"].ids.tolist() == [2] and back["merged"].boxes.tolist() == [[0, 3, 4, 7]]


labels = hnp.arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@given(labels, labels, st.booleans())
def test_marks_add_up_to_the_counts_of_match(truth, found, hidden):
    rng = np.random.default_rng(0)
    ignore = rng.random(truth.shape) < 0.3 if hidden else None
    crowd = rng.random(len(np.unique(truth[truth > 0]))) < 0.3 if hidden else None
    table = overlap(truth, found, ignore=ignore, crowd=crowd)
    case = score_case(truth, found, metrics=("detection",), ignore=ignore, crowd=crowd)
    for t in THRESHOLDS:
        assert case.counts(t) == pytest.approx(match(table, t)[0])
    assert case.counts(strict=True) == pytest.approx(match(table, 0.5, strict=True)[0])
    splits = split_merge(table)
    assert (case.marks.split.sum(), case.marks.merged.sum()) == (splits.splits, splits.merges)


def test_the_unit_of_distances_leaves_what_challenges_define_in_mm():
    truth, found = np.zeros((2, 4, 8, 8), int)
    truth[1:3, 2:6, 2:6], found[1:3, 2:6, 3:7] = 1, 1
    cells = {"metrics": GROUPS, "spacing": (0.002, 0.001, 0.001), "tolerance": 1}
    figures = case_figures(score_case(truth, found, unit="um", **cells))
    assert figures["HD (um)"] == pytest.approx(1) and figures["NSD@1 um"] == 1
    assert "lesion-wise HD95 (BraTS 2023, mm)" in figures and "FPV (autoPET, mL)" in figures
    assert "HD (voxels)" in case_figures(score_case(truth, found, unit="um", metrics=GROUPS))
    with pytest.raises(InputError, match="no unit 'cm'"):
        score_case(truth, found, unit="cm")


@pytest.mark.parametrize("shape", [(6, 8), (3, 6, 8)])
def test_empty_sides(shape):
    none, some = np.zeros(shape, int), np.zeros(shape, int)
    some[..., 1:5, 1:6] = 1  # 60 mm3: BraTS leaves out what is smaller than 50
    sure = {"metrics": GROUPS, "spacing": (1.0,) * len(shape)}
    both = case_figures(score_case(none, none, **sure))
    zero = ("HD", "ASSD", "FP", "FN", "TP", "splits", "merges", "FPV", "FNV", "lesion-wise HD95")
    assert both == {name: float(not name.startswith(zero)) for name in both}
    diagonal = np.sqrt(np.sum(np.square(shape)))
    for one in (score_case(some, none, **sure), score_case(none, some, **sure)):
        figures = case_figures(one)
        assert figures["HD95 (mm)"] == figures["ASSD (mm)"] == pytest.approx(diagonal)
        ratios = [v for k, v in figures.items() if not k.startswith(zero)]
        assert len(ratios) > 20 and set(ratios) == {0.0}


def test_all_groups_of_a_volume_and_what_is_absent():
    truth = np.zeros((6, 20, 20), int)
    truth[1:4, 2:8, 2:8], truth[1:4, 12:16, 12:16] = 1, 2
    found = np.roll(truth, 1, axis=2)
    case = score_case(truth, found, metrics=GROUPS, spacing=(3, 2, 2), scores=[0.9, 0.4], tolerance=2.0)
    assert case.absent == {} and case.ranked is not None and set(case.hits) == {"any", "iou", "centre"}
    figures = case_figures(case)
    dice = 2 * (30 + 12) / (2 * (36 + 16))
    want = {
        "Dice": dice, "IoU": dice / (2 - dice), "HD95 (mm)": 2.0, "HD (mm)": 2.0, "NSD@2 mm": 1.0, "boundary F@2 mm": 1.0,
        "lesion sensitivity (centre inside)": 1.0, "FP per scan (any overlap)": 0.0, "FPV (autoPET, mL)": 0.0,
    }  # fmt: skip
    assert {k: figures[k] for k in want} == pytest.approx(want)
    bare = score_case(truth, found, metrics=GROUPS)
    assert bare.ranked is None and set(bare.absent) == {"coco", "FROC", "BraTS", "autoPET"}
    assert bare.absent["coco"] == "the predictions have no scores"
    assert {"HD95 (voxels)", "NSD@1 voxel"} <= set(case_figures(bare)) and "FPV (autoPET, mL)" not in case_figures(bare)
    assert "NSD@1 px" in case_figures(score_case(TRUTH, FOUND, metrics=("surface",)))


def test_ignored_voxels_and_crowds_belong_to_neither_mask():
    ignore = FOUND == 4
    case = score_case(TRUTH, FOUND, metrics=("regions",), ignore=ignore, crowd=[False, False, True])
    assert case.counts().fp == 1 and case.counts().fn == 0
    assert case_figures(case)["IoU"] == 1.0


def test_classes_are_scored_by_themselves():
    kinds = {"truth_classes": [1, 2, 2], "classes": [2, 2, 2, 1]}  # found: 4, 5, 7, 9
    case = score_case(TRUTH, FOUND, metrics=("regions",), class_names=("a", "b"), **kinds)
    assert case.classes == ("a", "b") and case.counts().tp == 1  # 1 is found, but as the wrong class
    a, b = (case.figures["IoU", k].value for k in (1, 2))
    assert (a, b) == (0.0, 8 / 36) and case.figures["mIoU", 0].value == 4 / 36
    assert case.figures["IoU", 0].value == 24 / 36  # foreground knows no classes
    named = score_case(TRUTH, FOUND, truth_classes=[1, 2, 4])
    assert named.classes == ("class 1", "class 2", "class 3", "class 4")
    with pytest.raises(InputError, match="1 class names and an object of class 2"):
        score_case(TRUTH, FOUND, class_names=("a",), **kinds)


def test_candidates_may_overlap_and_instances_bring_names_and_spacing():
    grid = Grid.from_spacing(TRUTH.shape, 0.5)
    truth = Instances.from_labels(TRUTH, grid, class_ids=[1, 1, 2], classes=("a", "b"))
    halves = Candidates.from_labels(FOUND, scores=[0.1, 0.2, 0.3, 0.4], classes=[1, 1, 1, 1])
    case = score_case(truth, halves, metrics=GROUPS)
    assert case.classes == ("a", "b") and case.table.spacing == (0.5, 0.5) and case.counts().tp == 2
    twice = halves.take([1, 1, 2])
    assert score_case(TRUTH, twice, metrics=("regions",)).figures["IoU", 0].value == 16 / 32


def test_what_comes_back_is_small_and_travels(drawn):
    large = np.kron(drawn, np.ones((20, 20), int))
    case = score_case(large, large, metrics=GROUPS, scores=np.ones(5))
    data = pickle.dumps(case)
    assert len(data) < 40_000 < large.nbytes
    assert case_figures(pickle.loads(data)) == case_figures(case)


def test_what_cannot_be_scored():
    for settings, error, said in [
        ({"metrics": ("speed",)}, InputError, "no group of figures 'speed'"),
        ({"tolerance": -1.0}, InputError, "tolerance of -1"),
        ({"scores": [0.1, np.nan, 0.2, 0.3]}, InputError, "NaN"),
        ({"scores": [0.1]}, InputError, "do not fit"),
        ({"spacing": (1, 0)}, GeometryError, "positive"),
    ]:
        with pytest.raises(error, match=said):
            score_case(TRUTH, FOUND, **settings)
    for truth, found, said in [
        (TRUTH, FOUND[:, 1:], "shape"),
        (TRUTH, FOUND / 2, "float64"),
        (TRUTH - 1, FOUND, "negative id -1"),
    ]:
        with pytest.raises(InputError, match=said):
            score_case(truth, found)
