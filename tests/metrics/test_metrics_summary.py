"""Figures over cases: both averagings, classes, sizes, intervals, ranked figures, order and records."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import InputError
from medseg.metrics import GROUPS, coco, froc, overlap, score, score_case, summarise
from medseg.metrics.ranking import coco_estimates, froc_estimates
from medseg.metrics.strata import strata
from medseg.metrics.sums import Resampling, classes_mean, rate, ratio, single, total


def row(*sizes, hit=None):
    """A line of squares of given widths, and the same without those not in `hit`."""
    truth = np.zeros((4, sum(sizes) + 2 * len(sizes)), int)
    at = 0
    for number, size in enumerate(sizes, 1):
        truth[:, at : at + size] = number
        at += size + 2
    return truth, np.where(np.isin(truth, hit if hit is not None else [0]), truth, 0)


def test_pooled_and_image_mean_side_by_side():
    many, few = row(*[2] * 10, hit=range(1, 10)), row(2, 2, hit=[])
    summary = score([many[1], few[1]], [many[0], few[0]], metrics=("detection",), names=["many", "few"])
    assert summary.value("AP@.5") == 9 / 12 and summary.value("AP@.5", "image mean") == 0.45
    assert summary.value("precision@.5") == 1 and summary.value("precision@.5", "image mean") == 0.5
    assert summary.value("TP@.5") == 9 and summary.value("TP@.5", "image mean") == 4.5
    assert [case.name for case in summary.cases] == ["few", "many"]  # worst first
    assert summary.case_table()["FN"].tolist() == [2, 1]


def test_worst_first_by_figure_then_by_number_of_errors():
    lost = {n: row(*[2] * n, hit=[]) for n in (1, 5, 3)}
    truth, same = row(2, 2, hit=[1, 2])
    cases = [score_case(t, f, name=str(n)) for n, (t, f) in lost.items()] + [score_case(truth, same, name="good")]
    assert [c.name for c in summarise(cases).cases] == ["5", "3", "1", "good"]


def test_sources_are_kept_apart():
    (t, f), (u, g) = row(2, 2, hit=[1]), row(2, hit=[1])
    cases = [score_case(t, f, name="a", source="one"), score_case(u, g, name="a", source="two")]
    summary = summarise(cases, split="val")
    assert summary.value("AP@.5", source="one") == 0.5 and summary.value("AP@.5", source="two") == 1
    assert set(summary.curves) == {"one", "two"}
    specs = summary.specs()
    assert len(specs) == 20 and specs[0].model_dump() == {
        "source": "one", "split": "val", "figure": "AP@.5", "averaging": "pooled", "value": 0.5, "images": 1,
    }  # fmt: skip


def test_sizes_of_cells_are_quartiles_of_all_true_areas():
    truth, found = row(1, 2, 3, 4, hit=[1, 4])
    found[:, -2:] = 9  # 8 px that are not there
    summary = score(found, truth, metrics=("detection",), by_size=True)
    assert summary.strata is not None and summary.strata.unit == "px"
    assert summary.strata.edges == (7.0, 10.0, 13.0)  # of 4, 8, 12, 16
    assert summary.strata.names == ("up to 7 px", "7 to 10 px", "10 to 13 px", "over 13 px")
    told = [
        tuple(int(summary.value(f"{n}@.5", size=size)) for n in ("TP", "FP", "FN")) for size in summary.strata.names
    ]
    assert told == [(1, 0, 0), (0, 1, 1), (0, 0, 1), (1, 0, 0)]
    for name in ("TP", "FP", "FN"):
        whole = summary.value(f"{name}@.5")
        assert whole == sum(summary.value(f"{name}@.5", size=size) for size in summary.strata.names)


def test_sizes_of_lesions_are_diameters_in_mm():
    truth = np.zeros((12, 40, 40), int)
    truth[1, 1, 1], truth[3:6, 3:7, 3:7], truth[0:12, 15:27, 15:27] = 1, 2, 3  # 1, 48 and 1728 mm3
    summary = score(np.where(truth == 2, 0, truth), truth, by_size=True, metrics=("detection",), spacing=(1, 1, 1))
    assert summary.strata is not None and summary.strata.names == ("< 3 mm", "3 to 10 mm", "> 10 mm")
    assert [summary.value("FN@.5", size=s) for s in summary.strata.names] == [0, 1, 0]
    assert [summary.value("TP@.5", size=s) for s in summary.strata.names] == [1, 0, 1]
    assert np.cbrt(48 * 6 / math.pi) < 10 < np.cbrt(1728 * 6 / math.pi)
    mixed = strata([overlap(truth, truth, spacing=(1, 1, 1)), overlap(truth, truth)])
    assert mixed.unit == "voxels"  # quartiles where a spacing is unknown
    flat = strata([overlap(truth[4], truth[4], spacing=(2, 2))])
    assert flat.unit == "mm2" and flat.edges == (192.0, 320.0, 448.0)  # of 64 and 576
    cells = strata([overlap(truth, truth, spacing=(0.001, 0.002, 0.002))], "um")  # no lesions: quartiles
    assert cells.metric and cells.names[0].startswith("up to ") and cells.names[0].endswith(" um3")
    assert float(cells.names[0].split()[2]) == pytest.approx(cells.edges[0] * 1e9, rel=1e-3)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30), st.booleans())
def test_every_object_has_one_size(sizes, known):
    labels = np.repeat(np.arange(1, len(sizes) + 1), sizes).reshape(1, 1, -1)
    table = overlap(labels, labels, spacing=(0.7, 0.9, 1.1) if known else None)
    found = strata([table])
    numbers = found.of(table.truth, table)
    assert ((numbers >= 0) & (numbers < len(found.names))).all()
    measure = table.truth.sizes * (0.7 * 0.9 * 1.1 if known else 1)
    order = np.argsort(measure, kind="stable")
    assert (np.diff(numbers[order]) >= 0).all()
    if known:
        diameter = np.cbrt(measure * 6 / math.pi)
        clear = (abs(diameter - 3) > 1e-9) & (abs(diameter - 10) > 1e-9)
        assert np.array_equal(numbers[clear], np.digitize(diameter, [3, 10])[clear])


def test_classes_one_by_one_and_their_mean():
    truth, found = row(2, 2, 2, 2, hit=[1, 2, 4])
    kinds = {"truth_classes": [1, 1, 1, 2], "classes": [1, 1, 2]}
    summary = score(found, truth, class_names=("a", "b", "never"), metrics=("regions", "detection"), **kinds)
    assert summary.value("AP@.5", class_name="a") == 2 / 3 and summary.value("AP@.5", class_name="b") == 1
    assert summary.value("AP@.5") == 3 / 4 and summary.value("AP@.5", class_name="mean of classes") == pytest.approx(
        5 / 6
    )
    assert {r.class_name for r in summary.rows} == {"", "a", "b", "mean of classes"}  # none of what never occurs
    assert summary.value("mIoU") == pytest.approx(5 / 6)
    # an image without objects of a class does not count for that class, but for all
    nothing = np.zeros_like(truth)
    pair = [score_case(truth, found, name="1", class_names=("a", "b"), **kinds), score_case(nothing, nothing, name="2")]
    both = summarise(pair)
    assert both.value("AP@.5", "image mean", class_name="a") == 2 / 3
    assert both.value("AP@.5", "image mean") == pytest.approx(7 / 8)


def test_classes_must_be_the_same_in_all_cases():
    truth, found = row(2, 2, hit=[1])
    cases = [
        score_case(truth, found, name=str(n), class_names=names, truth_classes=[1, 2], classes=[1])
        for n, names in enumerate([("a", "b"), ("b", "a")])
    ]
    with pytest.raises(InputError, match="classes a, b and b, a"):
        summarise(cases)


# ------------------------------------------------------------------ intervals


def test_intervals_are_seeded_and_hold_the_figure():
    rng = np.random.default_rng(3)
    pairs = [row(*[2] * 8, hit=np.flatnonzero(rng.random(8) < 0.7) + 1) for _ in range(12)]
    cases = [score_case(t, f, name=str(n)) for n, (t, f) in enumerate(pairs)]
    first, again, other = (summarise(cases, seed=seed) for seed in (0, 0, 1))
    ap = first.rows[0].estimate
    assert ap.pooled_interval is not None and ap.mean_interval is not None and ap.pooled is not None
    assert ap.pooled_interval[0] < ap.pooled < ap.pooled_interval[1]
    assert again.rows[0].estimate == ap != other.rows[0].estimate


def test_the_interval_is_that_of_resampled_cases():
    rng = np.random.default_rng(1)
    tp, fn = rng.integers(0, 9, 15), rng.integers(1, 9, 15)
    drawn = Resampling(15, seed=7, resamples=400)
    found = drawn.estimate([ratio(float(a), float(a + b)) for a, b in zip(tp, fn, strict=True)])
    draws = [np.repeat(np.arange(15), w.astype(int)) for w in drawn.weights]
    assert {len(d) for d in draws} == {15}
    pooled = [tp[d].sum() / (tp[d] + fn[d]).sum() for d in draws]
    means = [(tp[d] / (tp[d] + fn[d])).mean() for d in draws]
    assert found.pooled_interval == pytest.approx(tuple(np.quantile(pooled, [0.025, 0.975])))
    assert found.mean_interval == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_no_interval_from_one_case_and_no_spread_without_any():
    truth, found = row(2, 2, hit=[1])
    alone = score(found, truth).rows[0].estimate
    assert (alone.pooled_interval, alone.mean_interval) == (None, None)
    alike = score([found] * 3, [truth] * 3).rows[0].estimate
    assert alike.pooled_interval == alike.mean_interval == (0.5, 0.5)


def test_kinds_of_pooling():
    drawn = Resampling(2)
    ratios = drawn.estimate([ratio(1, 2), ratio(3, 3)])
    assert (ratios.pooled, ratios.mean) == (4 / 5, 3 / 4)
    assert (drawn.estimate([total(3), total(5)]).pooled, drawn.estimate([total(3), total(5)]).mean) == (8, 4)
    assert (drawn.estimate([rate(3), rate(5)]).pooled, drawn.estimate([rate(3), rate(5)]).mean) == (4, 4)
    assert (drawn.estimate([single(3), single(5)]).pooled, drawn.estimate([single(3), None]).mean) == (None, 3)
    assert drawn.estimate([None, None]).cases == 0
    assert ratio(0, 0).value == 1 and ratio(0, 0, 2).value == 0 and ratio([1, 0], [2, 0]).value == 0.75
    assert classes_mean([ratio(1, 2), ratio(0, 0), ratio(0, 0, 1)]).value == 0.25
    assert classes_mean([ratio(0, 0)]).value == 1


# ------------------------------------------------------------------ ranked figures


def scored_cases(seed, n=4):
    rng = np.random.default_rng(seed)
    out = []
    for number in range(n):
        truth, _ = row(*[3] * 6)
        found = np.roll(truth, int(rng.integers(0, 3)), axis=1) * np.isin(truth, rng.choice(6, 4) + 1)
        count = len(np.unique(found[found > 0]))
        settings = {"scores": rng.random(count), "classes": rng.integers(1, 3, count)}
        kinds = rng.integers(1, 3, 6)
        out.append(
            score_case(truth, found, metrics=("coco", "lesions"), name=str(number), truth_classes=kinds, **settings)
        )
    return out


@pytest.mark.parametrize("seed", range(5))
def test_weights_give_what_repeated_cases_give(seed):
    cases = scored_cases(seed)
    weights = np.random.default_rng(seed).multinomial(4, [0.25] * 4, size=1).astype(float)
    again = [c for c, w in zip(cases, weights[0], strict=True) for _ in range(int(w))]
    estimate = coco_estimates([c.ranked for c in cases], weights)["COCO mAP"]
    whole = coco([c.ranked for c in again])["mAP"]
    assert estimate.pooled_interval == pytest.approx((whole, whole), abs=1e-12)
    found = froc_estimates([c.hits["any"] for c in cases], weights, "any overlap")
    whole = froc([c.hits["any"] for c in again]).mean
    assert found["FROC mean sensitivity (any overlap)"].pooled_interval == pytest.approx((whole, whole), abs=1e-12)


def test_ranked_figures_of_all_of_classes_and_of_sizes():
    summary = summarise(scored_cases(0), by_size=True)
    ranked = [c.ranked for c in sorted(summary.cases, key=lambda c: c.name)]
    assert summary.value("COCO mAP") == coco(ranked)["mAP"]
    by_class = [summary.value("COCO mAP", class_name=f"class {k}") for k in (1, 2)]
    assert np.mean(by_class) == pytest.approx(summary.value("COCO mAP"))
    assert summary.value("COCO AP50", size=summary.strata.names[0]) >= 0
    assert summary.curves[""].precision_recall is not None and set(summary.curves[""].froc) == {"any", "iou", "centre"}
    assert summary.value("sensitivity at 8 FP per scan (any overlap)") >= summary.value(
        "sensitivity at 0.125 FP per scan (any overlap)"
    )


def test_ranked_figures_are_absent_without_scores():
    truth, found = row(2, 2, hit=[1])
    sure = score_case(truth, found, name="1", metrics=("coco", "lesions"), scores=[0.5])
    bare = score_case(truth, found, name="2", metrics=("coco", "lesions"))
    for cases in ([bare], [sure, bare]):
        summary = summarise(cases)
        assert not any("COCO" in n or "FROC" in n for n in summary.names())
        assert summary.absent["coco"] == summary.absent["FROC"]
        assert summary.absent["coco"].startswith("the predictions have no scores")
        assert summary.curves[""].precision_recall is None and summary.curves[""].froc == {}
    empty = score_case(truth, found * 0, name="3", metrics=("coco",))  # nothing predicted lacks no score
    assert summarise([sure, empty]).value("COCO AP50") == pytest.approx(26 / 101)


def test_curves():
    truth, found = row(4, 4, hit=[1, 2])
    found[:2] = np.where(found[:2] == 2, 0, found[:2])  # half of the second
    curves = score(found, truth).curves[""]
    assert curves.thresholds.tolist()[:2] == [0.5, 0.55] and curves.ap_pooled.tolist() == [1.0] + [1 / 3] * 9
    assert curves.ap_mean.tolist() == curves.ap_pooled.tolist()


# ------------------------------------------------------------------ records


def test_records_are_flat_and_json():
    (t, f), (u, g) = row(2, 2, hit=[1]), row(2, hit=[1])
    summary = score([f, g], [t, u], metrics=GROUPS, by_size=True, names=["a", "b"])
    records = json.loads(summary.to_json())
    keys = {"source", "split", "figure", "class", "size", "averaging", "value", "low", "high", "images"}
    assert all(set(r) - {"case"} == keys for r in records)
    assert {r["averaging"] for r in records} == {"pooled", "image mean", "case"}
    ap = [r for r in records if r["figure"] == "AP@.5" and not r["size"]]
    assert [(r["averaging"], r.get("case"), r["value"]) for r in ap] == [
        ("pooled", None, 2 / 3), ("image mean", None, 0.75), ("case", "a", 0.5), ("case", "b", 1.0),
    ]  # fmt: skip
    assert not any(r["averaging"] == "pooled" and r["figure"].startswith("HD") for r in records)
    table = summary.table()
    assert "case" not in table and len(table) == sum(r["averaging"] != "case" for r in records)
    cases = summary.case_table()
    assert cases["case"].tolist() == ["a", "b"] and cases["AP@.5"].tolist() == [0.5, 1.0] and "HD95 (px)" in cases


def test_what_cannot_be_summed_up():
    truth, found = row(2, 2, hit=[1])
    with pytest.raises(InputError, match="no cases"):
        summarise([])
    with pytest.raises(InputError, match="same name"):
        summarise([score_case(truth, found)] * 2)
    with pytest.raises(InputError, match="2 predictions and 1 truths"):
        score([found, found], [truth])
    with pytest.raises(InputError, match="1 names for 2 cases"):
        score([found, found], [truth, truth], names=["a"])
    with pytest.raises(InputError, match="no figure 'speed'"):
        score(found, truth).value("speed")


def test_one_call_for_lists_hands_each_case_its_own():
    truth, found = row(2, 2, hit=[1])
    settings = {"scores": [[0.3], [0.7]], "ignore": [truth == 2, None], "spacing": (1.0, 2.0)}
    summary = score([found, found], [truth, truth], metrics=("coco",), **settings)
    first, second = sorted(summary.cases, key=lambda c: c.name)
    assert first.counts().fn == 0 and second.counts().fn == 1
    assert first.table.prediction.scores.tolist() == [0.3] and second.table.spacing == (1.0, 2.0)


def test_a_name_of_bytes_that_are_no_text_can_be_shown():
    truth, found = row(2, 2, hit=[1])
    summary = score([found], [truth], names=["a\udcff"])
    assert summary.case_table()["case"].tolist() == ["a\\udcff"]
    assert "a\\udcff" in summary.case_table().to_csv()


def test_asking_for_what_is_not_there():
    truth, found = row(2, 2, hit=[1])
    summary = score([found], [truth], metrics="all")
    with pytest.raises(InputError, match="no averaging 'Pooled'"):
        summary.value("F1@.5", "Pooled")
    with pytest.raises(InputError, match="has no pooled value, only image mean"):
        summary.value("HD95 (px)")
    with pytest.raises(InputError, match="no coco: the predictions have no scores"):
        summary.value("COCO mAP")
    with pytest.raises(InputError, match="1 scores for 2 cases"):
        score([found, found], [truth, truth], scores=[[0.5]])


def test_cases_without_scores_are_named():
    truth, found = row(2, 2, hit=[1])
    summary = score([found, found], [truth, truth], metrics="coco", names=["a", "b"], scores=[[0.5], None])
    assert summary.absent["coco"] == "the predictions have no scores (of 1 of 2 cases, b first)"
