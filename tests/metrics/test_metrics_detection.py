"""COCO figures: against pycocotools on random cases full of ties, and by hand."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.candidates import Candidates
from medseg.errors import InputError
from medseg.metrics import coco, coco_classes, match, overlap, precision_recall, ranked


def candidates(stack, classes, scores=None):
    """Candidates of whole-field masks (n, y, x); each box is the field."""
    n, *shape = stack.shape
    boxes = np.tile([0, 0, *shape], (n, 1)).reshape(n, 4)
    return Candidates(boxes, np.full(n, np.nan) if scores is None else scores, classes, tuple(stack), tuple(shape))


def pycocotools_says(images, size_range=(0, 1e9)):
    """AP of each class (T,), NaN without truth, by pycocotools with its cap of detections raised."""
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def dataset(side):
        found = []
        for number, image in enumerate(images, 1):
            given = image[side]
            for row, (field, k) in enumerate(zip(given.masks, given.classes.tolist(), strict=True)):
                rle = mask.encode(np.asfortranarray(field, np.uint8))
                crowd = int(side == 0 and image[2][row])
                found.append(
                    {"id": len(found) + 1, "image_id": number, "category_id": k, "segmentation": rle}
                    | {"area": int(field.sum()), "iscrowd": crowd, "score": float(given.scores[row])}
                )
        shape = images[0][0].shape
        out = COCO()
        out.dataset = {
            "images": [{"id": n + 1, "height": shape[0], "width": shape[1]} for n in range(len(images))],
            "categories": [{"id": k, "name": str(k)} for k in (1, 2)],
            "annotations": found,
        }
        out.createIndex()
        return out

    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(dataset(0), dataset(1), "segm")
        judge.params.maxDets = [10**6]
        judge.params.areaRng, judge.params.areaRngLbl = [list(size_range)], ["asked"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][..., 0, 0]  # (T, R, K)
    return {k: precision[..., k - 1].mean(axis=1) for k in (1, 2) if precision[..., k - 1].max() > -1}


def of_image(draw, shape):
    """Overlapping truth and predictions: noise, and predictions that nearly copy a true object."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(0, 4)), draw(st.integers(0, 6))
    truth = rng.random((n, *shape)) < rng.choice([0.1, 0.3, 0.6], (n, 1, 1))
    truth[:, 0, 0] |= ~truth.any(axis=(1, 2))
    prediction = rng.random((m, *shape)) < 0.3
    if n:
        copies = truth[rng.integers(0, n, m)] ^ (rng.random((m, *shape)) < rng.choice([0, 0.05, 0.15], (m, 1, 1)))
        prediction = np.where(rng.random((m, 1, 1)) < 0.8, copies, prediction)
    prediction[:, 0, 0] |= ~prediction.any(axis=(1, 2))
    classes = rng.choice([1, 2], n, p=[0.7, 0.3]), rng.choice([1, 2], m, p=[0.7, 0.3])
    scores = rng.choice([0.1, 0.25, 0.5, 0.75, 0.9], m)
    return candidates(truth, classes[0]), candidates(prediction, classes[1], scores), rng.random(n) < 0.2


@st.composite
def image_sets(draw):
    shape = draw(st.sampled_from([(3, 4), (5, 6), (2, 2)]))
    return [of_image(draw, shape) for _ in range(draw(st.integers(1, 4)))]


def check(images, size_range=None):
    cases = [ranked(overlap(a, b, crowd=crowd), size_range=size_range) for a, b, crowd in images]
    theirs, ours = pycocotools_says(images, size_range or (0, 1e9)), coco_classes(cases)
    assert sorted(ours) == sorted(theirs)
    for k, figures in theirs.items():
        np.testing.assert_allclose(ours[k], figures, rtol=0, atol=1e-9)
    figures = coco(cases)
    if theirs:
        table = np.array(list(theirs.values()))
        assert figures["mAP"] == pytest.approx(table.mean(), abs=1e-9)
        assert figures["AP50"] == pytest.approx(table[:, 0].mean(), abs=1e-9)
        assert figures["AP75"] == pytest.approx(table[:, 5].mean(), abs=1e-9)
    else:
        assert np.isnan(list(figures.values())).all()


# --- against pycocotools


@settings(max_examples=150)
@given(image_sets())
def test_average_precision_is_that_of_pycocotools(images):
    check(images)


@given(image_sets(), st.integers(0, 6), st.integers(0, 12))
def test_size_ranges_are_those_of_pycocotools(images, low, more):
    check(images, (low, low + more))


def lines(*rows):
    return np.array([[[c == "#" for c in row]] for row in rows], bool).reshape(len(rows), 1, -1)


def drawn(truth, prediction, scores, crowd=None, classes=None):
    a, b = candidates(lines(*truth), [1] * len(truth)), candidates(lines(*prediction), [1] * len(scores), scores)
    return a, b, [False] * len(truth) if crowd is None else crowd


HAND = {
    "equal IoU goes to the later true object": (["##..", "..##"], [".##.", "##.."], [0.9, 0.8]),
    "equal scores keep their order": (["####"], ["###.", "####", ".###"], [0.5, 0.5, 0.5]),
    "a crowd takes many, by the share of the prediction": (
        ["########", "##......"],
        ["#.......", ".#......", "......##", "##......"],
        [0.9, 0.8, 0.7, 0.6],
        [True, False],
    ),
    "an IoU of exactly 3/5 reaches .6": (["#####"], ["###.."], [0.5]),
    "an IoU of exactly 9/10 reaches .9": (["##########"], ["#########."], [0.5]),
    "one prediction is left without truth": (["##.."], ["..##", "##.."], [0.9, 0.1]),
}


@pytest.mark.parametrize("name", HAND)
def test_drawn_cases_are_those_of_pycocotools(name):
    check([drawn(*HAND[name])])


def test_a_crowd_is_taken_before_an_object_it_covers_better_and_by_many():
    # out of the size range: the first object. Two predictions take the crowd, which leaves that object to the third; the
    # fourth, right, would come after false ones otherwise
    truth = ["######...........", "###..##########..", "...............##"]
    prediction = ["###..............", "###..............", "...###...........", "...............##"]
    image = drawn(truth, prediction, [0.9, 0.8, 0.7, 0.1], [False, True, False])
    check([image], (0, 5))
    case = ranked(overlap(*image[:2], crowd=image[2]), size_range=(0, 5))
    assert case.skipped[0].tolist() == [True, True, True, False]
    assert coco([case])["AP50"] == pytest.approx(1)


def test_equal_scores_in_two_images_keep_the_order_of_the_images():
    right, wrong = drawn(["##.."], ["##.."], [0.5]), drawn(["##.."], ["..##"], [0.5])
    check([right, wrong])
    check([wrong, right])
    one, two = ([ranked(overlap(*image[:2])) for image in images] for images in ([right, wrong], [wrong, right]))
    assert coco(one)["AP50"] == pytest.approx(51 / 101)
    assert coco(two)["AP50"] == pytest.approx(51 / 2 / 101)


# --- by hand


def test_equal_overlaps_go_to_the_later_object():
    # the first prediction takes the second object, so the second prediction has the first one to itself
    table = overlap(*drawn(["##..", "..##"], [".##.", "##.."], [0.9, 0.8])[:2])
    assert ranked(table, thresholds=(0.3,)).hit.tolist() == [[True, True]]
    other = overlap(*drawn(["##..", "..##"], [".##.", "..##"], [0.9, 0.8])[:2])
    assert ranked(other, thresholds=(0.3,)).hit.tolist() == [[True, False]]


def test_a_better_score_takes_what_a_better_overlap_would_need():
    # greedy by score: the one-to-one matching of `match` would find both
    truth, prediction = ["######...", ".....####"], ["..#######", "...######"]
    table = overlap(*drawn(truth, prediction, [0.9, 0.8])[:2])
    result = ranked(table, thresholds=(0.4,))
    assert result.hit.tolist() == [[True, False]]
    assert result.rows.tolist() == [0, 1]
    assert match(table, 0.4)[0].tp == 2


def test_five_hundred_perfect_objects_score_one():
    labels = np.arange(1, 501).reshape(20, 25)
    figures = coco([ranked(overlap(labels, labels, scores=np.linspace(0, 1, 500)))])
    assert figures == pytest.approx({"mAP": 1.0, "AP50": 1.0, "AP75": 1.0})  # .208 with a cap of 100


def test_the_interpolated_area_of_a_drawn_curve():
    truth = np.array([1, 2, 3, 4])
    prediction = np.array([1, 0, 3, 0, 5, 6])
    truth = np.append(truth, [0, 0])
    table = overlap(truth, prediction, scores=[0.9, 0.7, 0.8, 0.6])  # right, wrong (5), right, wrong
    # recall .25 at precision 1, recall .5 at 2/3: 26 recalls of 0 to .25, 25 of .26 to .5, then nothing
    assert coco([ranked(table)])["mAP"] == pytest.approx((26 + 25 * 2 / 3) / 101)


def test_the_mean_is_over_classes_that_have_true_objects():
    truth, prediction = np.array([[1, 2, 3, 0]]), np.array([[1, 2, 0, 4]])
    table = overlap(truth, prediction, truth_classes=[1, 2, 2], classes=[1, 2, 3], scores=[0.5, 0.5, 0.9])
    case = ranked(table)
    assert case.truths == {1: 1, 2: 2}
    assert case.n_truth == 3
    of = coco_classes([case])
    assert list(of) == [1, 2]
    assert of[1][0] == pytest.approx(1)
    assert of[2][0] == pytest.approx(51 / 101)
    assert coco([case])["mAP"] == pytest.approx((1 + 51 / 101) / 2)


def test_ignored_objects_are_neither_right_nor_wrong():
    truth = np.array([1, 1, 0, 2, 2, 2, 0, 0])
    prediction = np.array([1, 1, 0, 2, 2, 2, 0, 3])
    ignore = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)  # 2 is mostly ignored on both sides, 3 wholly
    case = ranked(overlap(truth, prediction, scores=[0.1, 0.9, 0.8], ignore=ignore))
    assert case.n_truth == 1
    assert case.skipped[0].tolist() == [True, True, False]
    assert case.hit[0].tolist() == [False, False, True]
    assert coco([case])["mAP"] == pytest.approx(1)


def test_sizes_in_millimetres():
    labels = np.array([[1, 2, 2, 0, 3, 3, 3]])
    table = overlap(labels, labels * (labels != 2), scores=[0.5, 0.4], spacing=(2.0, 0.5))  # 1, 2 and 3 mm2
    assert ranked(table, size_range=(1, 2), unit="mm").truths == {1: 2}
    assert ranked(table, size_range=(1, 2)).truths == {1: 2}
    assert ranked(table, size_range=(2.5, 9), unit="mm").truths == {1: 1}
    assert ranked(table, size_range=(0.5, 0.9), unit="mm").truths == {}
    assert ranked(table, size_range=(2.5, 9), unit="mm").skipped[0].tolist() == [True, False]


def test_without_true_objects_there_is_no_average_precision():
    nothing, some = np.zeros((2, 2), int), np.eye(2, dtype=int)
    for prediction in (nothing, some):
        scores = np.ones(prediction.max())
        assert np.isnan(coco([ranked(overlap(nothing, prediction, scores=scores))])["mAP"])
    assert coco([ranked(overlap(some, nothing))])["mAP"] == 0.0
    pooled = [ranked(overlap(some, some, scores=[0.5])), ranked(overlap(nothing, nothing))]
    assert coco(pooled)["mAP"] == pytest.approx(1)
    pooled.append(ranked(overlap(nothing, some, scores=[0.9])))  # false predictions in an empty image count
    assert coco(pooled)["mAP"] == pytest.approx(0.5)


# --- precision-recall


def test_a_drawn_precision_recall_curve():
    truth = np.array([1, 2, 3, 4, 0, 0])
    prediction = np.array([1, 0, 3, 0, 5, 6])
    curve = precision_recall([ranked(overlap(truth, prediction, scores=[0.9, 0.7, 0.8, 0.7]))])
    assert curve.score.tolist() == [0.9, 0.8, 0.7]  # two predictions of score .7 come in together
    assert curve.recall.tolist() == [0.25, 0.25, 0.5]
    assert curve.precision.tolist() == [1, 1 / 2, 2 / 4]


def test_the_curve_of_one_class_and_of_none():
    labels = np.array([[1, 2]])
    case = ranked(overlap(labels, labels, truth_classes=[1, 2], classes=[1, 1], scores=[0.9, 0.8]))
    assert precision_recall([case], class_id=1).precision.tolist() == [1, 0.5]
    assert precision_recall([case]).recall.tolist() == [0.5, 0.5]
    assert precision_recall([case], class_id=2).recall.tolist() == []
    assert np.isnan(precision_recall([ranked(overlap(labels * 0, labels, scores=[1, 1]))]).recall).all()
    assert precision_recall([ranked(overlap(labels, labels * 0))]).score.tolist() == []


@given(image_sets())
def test_the_curve_ends_at_the_counts(images):
    cases = [ranked(overlap(a, b, crowd=crowd)) for a, b, crowd in images]
    curve = precision_recall(cases)
    hit, wrong = (
        sum(int(part[0].sum()) for part in parts)
        for parts in zip(*[(c.hit, ~c.hit & ~c.skipped) for c in cases], strict=True)
    )
    n_truth = sum(case.n_truth for case in cases)
    if len(curve.score):
        assert curve.precision[-1] == hit / (hit + wrong)
        assert (np.diff(curve.score) < 0).all()
        assert n_truth == 0 or curve.recall[-1] == hit / n_truth
    else:
        assert hit + wrong == 0


# --- wrong input


def test_wrong_input_is_named():
    labels = np.array([[1, 2]])
    table = overlap(labels, labels, scores=[0.1, 0.2])
    with pytest.raises(InputError, match="have no scores"):
        ranked(overlap(labels, labels))
    with pytest.raises(InputError, match="above 0"):
        ranked(table, thresholds=(0.0, 0.5))
    with pytest.raises(InputError, match="above 0"):
        ranked(table, thresholds=())
    with pytest.raises(InputError, match="spacing is unknown"):
        ranked(table, size_range=(0, 1), unit="mm")
    with pytest.raises(InputError, match="unit 'px'"):
        ranked(table, unit="px")
    for figure in (coco, coco_classes, precision_recall):
        with pytest.raises(InputError, match="no cases"):
            figure([])
        with pytest.raises(InputError, match="different IoU thresholds"):
            figure([ranked(table), ranked(table, thresholds=(0.5,))])
    with pytest.raises(InputError, match=r"not at 0\.3"):
        precision_recall([ranked(table)], 0.3)
    assert list(coco([ranked(table, thresholds=(0.3,))])) == ["mAP"]


def test_sixteen_thousand_objects_are_ranked():
    index = np.indices((2048, 2048)) // 16
    truth = (index[0] * 128 + index[1] + 1).astype(np.int32)
    prediction = np.roll(truth, 2, axis=1)  # IoU 14/18: right at .5 to .75
    case = ranked(overlap(truth, prediction, scores=np.random.default_rng(0).random(16384)))
    assert coco([case]) == pytest.approx({"mAP": 0.6, "AP50": 1.0, "AP75": 1.0})
