"""Following lesions over time: matching in closed forms, states on generated visits of a real brain, RECIST, wrong input."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import io
from medseg.errors import GeometryError, InputError
from medseg.follow import Visit, align, follow, respond
from medseg.follow.matching import Body, links
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.segments import said as said_of
from medseg.spec import FollowSpec
from medseg.testing.visits import pair

STILL = FollowSpec(registration="none")


def ball(centre, radius):
    index = np.argwhere(np.ones((int(2 * radius) + 3,) * 3)) - int(radius) - 1
    inside = index[(index**2).sum(1) <= radius**2] + np.asarray(centre, float)
    return Body(inside, float(len(inside)))


def visit(places, *, shape=(40, 60, 60), spacing=1.0, date="", **more):
    """A visit with balls of (centre, radius) in mm."""
    grid = Grid.from_spacing(shape, spacing)
    world = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) * np.array(grid.spacing)
    labels = np.zeros(shape, np.int32)
    for number, (centre, radius) in enumerate(places, 1):
        labels[((world - centre) ** 2).sum(-1) <= radius**2] = number
    voxels = np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)[np.newaxis]
    return Visit(Image(voxels, grid, modality="CT"), Instances.from_labels(labels, grid), date=date, **more)


def states(course, number=1):
    rows = course.ledger[course.ledger["visit"] == number]
    return dict(zip(rows["lesion"].tolist(), rows["state"].tolist(), strict=True))


# ---------------------------------------------------------------- matching


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_lesions_that_lie_apart_are_found_again_whatever_their_order(seed):
    rng = np.random.default_rng(seed)
    places = np.array([(x, y, 0) for x in range(0, 120, 30) for y in range(0, 90, 30)], float)
    before = [ball(p, rng.uniform(2.5, 7)) for p in places]
    order = rng.permutation(len(places))
    shift = rng.normal(size=3)
    shift *= rng.uniform(0, 2) / np.linalg.norm(shift)
    after = [before[i].moved(shift) for i in order]
    assert sorted(links(before, after, 0.4, 3.0)) == sorted((int(i), k) for k, i in enumerate(order))


def test_a_neighbour_that_a_misregistration_brushes_is_no_split():
    before = [ball((0, 0, 0), 8), ball((14, 0, 0), 4)]
    after = [b.moved(np.array([3.0, 0, 0])) for b in before]
    assert links(before, after, 0.4, 3.0) == [(0, 0), (1, 1)]


def test_links_never_make_a_tangle():
    rng = np.random.default_rng(1)
    for _ in range(20):
        before = [ball(rng.uniform(0, 25, 3), rng.uniform(3, 8)) for _ in range(6)]
        after = [ball(rng.uniform(0, 25, 3), rng.uniform(3, 8)) for _ in range(6)]
        found = links(before, after, 0.2, 3.0)
        one, two = np.bincount([a for a, _ in found], minlength=6), np.bincount([b for _, b in found], minlength=6)
        assert all(one[a] == 1 or two[b] == 1 for a, b in found)


# ---------------------------------------------------------------- states


def test_each_state_by_hand():
    first = visit([((20, 10, 10), 5), ((20, 10, 40), 5), ((20, 40, 10), 6), ((20, 30, 50), 4), ((20, 50, 50), 4)])
    second = visit([((20, 10, 10), 5), ((20, 10, 40), 5.6), ((20, 40, 10), 5), ((10, 50, 30), 4), ((20, 50, 50), 4)])
    found = follow([first, second], STILL)
    assert states(found) == {1: "stable", 2: "grown", 3: "shrunk", 4: "resolved", 5: "stable", 6: "new"}
    gone = found.ledger.query("lesion == 4 and visit == 1").iloc[0]
    assert (gone["id"], gone["volume_ml"], gone["change_pct"]) == (0, 0, -100)


def test_merged_and_split_name_the_lesions_they_concern():
    two = [((20, 30, 20), 7), ((20, 30, 36), 5)]
    one = visit([((20, 30, 22), 9)])
    bridge = one.lesions.labels.copy()
    for part in visit(two).lesions.labels == 1, visit(two).lesions.labels == 2:
        bridge[part] = 1
    joined = Visit(one.image, Instances.from_labels(bridge, one.lesions.grid))
    merged = follow([visit(two), joined], STILL)
    assert states(merged) == {1: "merged", 2: "merged"}
    assert merged.ledger.query("lesion == 2 and visit == 1")["into"].item() == 1
    split = follow([joined, visit(two)], STILL)
    assert states(split) == {1: "split", 2: "split"}
    assert split.ledger.query("lesion == 2")["origin"].item() == 1
    kept = split.ledger.query("lesion == 1")
    assert kept["tracking_uid"].nunique() == 1 and kept["id"].tolist() == [1, 1]


def test_what_went_and_came_back_keeps_its_uid():
    first, none = [((20, 20, 20), 5), ((20, 45, 45), 5)], [((20, 45, 45), 5)]
    found = follow([visit(first), visit(none), visit(first)], STILL)
    assert [states(found, k)[1] for k in range(3)] == ["baseline", "resolved", "returned"]
    assert found.ledger.query("lesion == 1")["tracking_uid"].nunique() == 1
    assert respond(found).table["overall"].tolist()[2] == "PD"


def test_no_lesions_at_all_is_a_result():
    found = follow([visit([]), visit([])], STILL)
    assert len(found.ledger) == 0
    assert respond(found).table["overall"].tolist() == ["", "NE"]
    came = follow([visit([]), visit([((20, 20, 20), 6)])], STILL)
    assert states(came) == {1: "new"}
    assert respond(came).table["overall"].tolist() == ["", "PD"]


def test_uids_and_states_do_not_depend_on_the_order_of_files():
    first = visit([((20, 10, 10), 5), ((20, 40, 40), 5)], date="2024-01-01")
    second = visit([((20, 10, 10), 7), ((30, 20, 50), 4)], date="2024-05-01")
    a, b = follow([first, second], STILL), follow([second, first], STILL)
    pd.testing.assert_frame_equal(a.ledger, b.ledger)
    assert a.ledger["day"].max() == 121
    assert any("order of their dates" in note for note in b.notes)


def test_tracking_uids_go_with_the_instances_and_those_there_are_kept():
    first = visit([((20, 10, 10), 5)])
    had = [{"id": 1, "tracking_uid": "1.2.3.4", "tracking_id": "old"}]
    first = Visit(
        first.image, Instances.from_labels(first.lesions.labels, first.lesions.grid, provenance={"segments": had})
    )
    found = follow([first, visit([((20, 10, 10), 5)])], STILL)
    assert [v.lesions.provenance["segments"][0]["tracking_uid"] for v in found.visits] == ["1.2.3.4"] * 2


# ---------------------------------------------------------------- response


def test_response_over_dates_with_pieces_and_new_lesions():
    long = [((20, 15, 15), 9), ((20, 45, 45), 7)]
    found = respond(follow([visit(long), visit([((20, 15, 15), 5), ((20, 45, 45), 4)])], STILL))
    assert found.targets == (1, 2)
    assert found.table["overall"].tolist() == ["", "PR"]
    assert found.table["sum_mm"].tolist() == pytest.approx([33.1, 19.0], abs=1.5)
    new = respond(follow([visit(long), visit([*long, ((8, 30, 30), 4)])], STILL))
    assert (new.table["target"].iloc[1], new.table["overall"].iloc[1]) == ("SD", "PD")
    assert new.roles[3] == "new"


def test_a_person_says_which_lesions_are_targets():
    said = pd.DataFrame({"id": [1], "role": ["non-target"], "finding_site": ["Lung"], "nodal": [False]})
    places = [((20, 15, 15), 9), ((20, 45, 45), 7)]
    found = follow([visit(places, said=said), visit([((20, 45, 45), 7)])], STILL)
    answer = respond(found)
    assert answer.targets == (2,)
    assert answer.table[["target", "non_target", "overall"]].iloc[1].tolist() == ["SD", "CR", "SD"]
    assert found.ledger.query("lesion == 1")["finding_site"].tolist() == ["Lung", "Lung"]
    assert found.visits[0].lesions.provenance["segments"][0]["site"] == ("39607008", "SCT", "Lung")
    # what a SEG said of the baseline counts too, unless a person says otherwise now
    recorded = Visit(found.visits[0].image, found.visits[0].lesions, "")
    again = follow([recorded, visit([((20, 45, 45), 7)])], STILL)
    assert respond(again).targets == (2,) and again.ledger.query("lesion == 1")["role"].tolist() == ["non-target"] * 2
    now = follow([replace(recorded, said=pd.DataFrame({"id": [1], "role": ["target"]})), visit(places)], STILL)
    assert respond(now).targets == (1,) and now.ledger.query("lesion == 1")["finding_site"].tolist() == ["Lung", "Lung"]
    with pytest.raises(InputError, match="no lesion 9"):
        follow([visit(places, said=said.assign(id=9)), visit(places)], STILL)


def test_a_node_is_one_at_every_visit_whichever_visit_says_so():
    places = [((20, 15, 15), 9), ((20, 45, 45), 9)]
    segments = [{"id": 2, "nodal": True, "role": "non-target", "site": ("10200004", "SCT", "Liver")}]

    def told(segments, **more):
        one = visit(places, **more)
        return replace(one, lesions=replace(one.lesions, provenance={"segments": segments}))

    lung = pd.DataFrame({"id": [1, 2], "finding_site": "Lung"})
    word = {"said": pd.DataFrame({"id": [2], "nodal": [False], "finding_site": ["Lung"]})}
    for visits, nodal, site in (
        ([told(segments), visit(places)], True, "Liver"),
        ([visit(places), told(segments)], True, "Liver"),
        ([told(segments, said=lung), visit(places, said=lung)], True, "Lung"),  # options say it of every visit
        ([visit(places, **word), told(segments)], False, "Lung"),  # a person counts more than a later file
    ):
        rows = follow(visits, STILL).ledger.query("lesion == 2")
        assert rows["nodal"].tolist() == [nodal] * 2 and rows["finding_site"].tolist() == [site] * 2
        assert rows["role"].tolist() == ["non-target"] * 2 and not [name for name in rows if ":" in name]


def test_a_site_by_code_goes_with_its_lesion_to_every_visit():
    places, code = [((20, 15, 15), 9)], ("C34.1", "ICD10", "upper lobe")
    one = visit(places, said=pd.DataFrame({"id": [1], "finding_site": ["upper lobe"]}))
    one = replace(one, lesions=said_of(one.lesions, one.said, [code]))
    found = follow([one, visit(places)], STILL)
    assert [v.lesions.provenance["segments"][0]["site"] for v in found.visits] == [code] * 2
    assert found.ledger["finding_site"].tolist() == ["upper lobe"] * 2


def test_a_target_of_an_earlier_course_that_shrank_is_none_of_a_new_one():
    """A SEG that an earlier course wrote as baseline of the next: what it calls a target is taken back with a note."""
    segments = [{"id": 1, "role": "target"}]
    small, large = ((20, 15, 15), 4), ((20, 45, 45), 9)
    first = visit([small, large])
    first = replace(first, lesions=replace(first.lesions, provenance={"segments": segments}))
    found = respond(follow([first, visit([small, large])], STILL))
    assert found.targets == (2,) and found.roles == {1: "non-target", 2: "target"}
    assert "lesions 1 are targets by the file of the baseline, but too small" in found.notes[0]
    with pytest.raises(
        InputError, match="too small to be measured"
    ):  # a person who says so now is asked to think again
        word = pd.DataFrame({"id": [1], "role": ["target"]})
        respond(follow([replace(first, said=word), visit([small, large])], STILL))


# ---------------------------------------------------------------- wrong input


def test_other_patients_dates_and_frames_are_refused():
    here = [((20, 20, 20), 5)]
    with pytest.raises(InputError, match="at least one later"):
        follow([visit(here)])
    with pytest.raises(InputError, match="different patients"):
        follow([visit(here, patient="a"), visit(here, patient="b")], STILL)
    assert any(
        "different patients" in n
        for n in follow([visit(here, patient="a"), visit(here, patient="b")], STILL, force=True).notes
    )
    with pytest.raises(InputError, match="same date"):
        follow([visit(here, date="2024-01-01"), visit(here, date="2024-01-01")], STILL)
    with pytest.raises(GeometryError, match="voxel spacing"):
        align(Image.from_array(np.zeros((5, 5, 5), np.float32)), visit(here).image, "affine")


# ---------------------------------------------------------------- a real brain, generated changes


@pytest.fixture
def brain(real_data):
    image = io.load(next((real_data / "lesions/ms_ljubljana_mni/patient26").glob("FLAIR*")))
    return image, image.voxels()[0] != 0


def told(course):
    first = course.ledger.query("visit == 0")
    before = dict(zip(first["lesion"], first["mask_id"], strict=True))
    rows = course.ledger.query("visit == 1")
    return {(int(before.get(r.lesion, 0)), int(r.mask_id)): r.state for r in rows.itertuples()}


@pytest.mark.parametrize("seed", [1000, 1001])
def test_changes_of_a_real_brain_are_told_through_another_scan(brain, seed):
    made = pair(*brain, seed)
    found = follow([Visit(*made.baseline), Visit(*made.later)], FollowSpec(registration="affine"))
    assert told(found) == made.truth
    assert found.alignments[0].likeness > 0.9


@pytest.mark.slow
def test_ninety_five_of_a_hundred_pairs_are_told_right(brain):
    right = 0
    for seed in range(100):
        made = pair(*brain, seed)
        found = follow([Visit(*made.baseline), Visit(*made.later)], FollowSpec(registration="affine"))
        right += told(found) == made.truth
    assert right >= 95


@pytest.mark.slow
def test_changes_are_told_where_the_body_is_bent(brain):
    """Five pairs bent by 4 to 6 mm, which no affine map undoes."""
    right, all_ = 0, 0
    for seed in range(2000, 2005):
        made = pair(*brain, seed, bend=(4.0, 6.0))
        found = told(follow([Visit(*made.baseline), Visit(*made.later)], FollowSpec(registration="deformable")))
        right += sum(found.get(key) == state for key, state in made.truth.items())
        all_ += len(made.truth | found)
    assert right >= 0.95 * all_


@pytest.mark.parametrize("kind", ["rigid", "deformable"])
def test_registration_finds_a_known_map_back(brain, kind):
    image, inside = brain
    made = pair(image, inside, 7)
    found = align(made.later[0], made.baseline[0], kind)
    assert found.likeness > (0.9 if kind == "rigid" else 0.95)
    points = made.later[0].grid.to_world(np.array(made.later[0].grid.shape) / 2 + np.array([[0, 0, 0], [5, -8, 10.0]]))
    assert found.back(found(points)) == pytest.approx(points, abs=0.3)
