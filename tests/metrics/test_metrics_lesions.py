"""Lesion figures: hit rules, BraTS 2023 and autoPET, worked by hand and against plain loops over components."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medseg.errors import GeometryError, InputError
from medseg.metrics import overlap
from medseg.metrics.lesions import BRATS, PENALTY, RULES, autopet, brats, lesionwise
from medseg.metrics.surface import surface_distances
from medseg.ops import components

ONE = (1.0, 1.0, 1.0)
rules = pytest.mark.parametrize("rule", list(RULES))


@st.composite
def volumes(draw):
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    fill = draw(st.sampled_from([0.05, 0.15, 0.4]))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    return (
        rng.random(shape) < fill,
        rng.random(shape) < fill,
        tuple(draw(st.sampled_from([0.5, 1.0, 3.0])) for _ in shape),
    )


def cubes(shape, *boxes):
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        mask[tuple(slice(*span) for span in box)] = True
    return mask


# --- by hit rule


def three_rules():
    """Truths of 20, 4 and 3 voxels; one hit by any rule but the centre, one by any overlap only, one missed."""
    truth = np.repeat([1, 0, 2, 0, 3, 0], [20, 6, 4, 40, 3, 7])[None]
    prediction = np.zeros_like(truth)
    prediction[0, 16:26] = 1  # 4 of 20, IoU 4 / 26, centre voxel 21: outside
    prediction[0, 29:69] = 2  # 1 of 4, IoU 1 / 43
    prediction[0, 76:80] = 3  # hits nothing
    return overlap(truth, prediction)


@pytest.mark.parametrize("rule, tp, fp, fn", [("any", 2, 1, 1), ("iou", 1, 2, 2), ("centre", 0, 3, 3)])
def test_lesions_by_hit_rule(rule, tp, fp, fn):
    found = lesionwise(three_rules(), rule)
    assert (found.rule, found.tp, found.fp, found.fn) == (RULES[rule], tp, fp, fn)
    assert found.sensitivity == tp / 3 and found.fp_per_scan == fp
    assert found.f1 == 2 * tp / (2 * tp + fp + fn)


def test_the_threshold_is_part_of_the_name():
    assert lesionwise(three_rules(), "iou", 0.25).rule == "IoU >= .25"
    assert lesionwise(three_rules(), "iou", 0.25).tp == 0


def test_lesions_pool_over_scans():
    one, two = lesionwise(three_rules()), lesionwise(three_rules())
    both = one + two + lesionwise(overlap(np.zeros((2, 2), int), np.eye(2, dtype=int)))
    assert (both.tp, both.fp, both.fn, both.scans) == (4, 3, 2, 3)
    assert both.fp_per_scan == 1.0 and both.sensitivity == 4 / 6
    with pytest.raises(InputError, match="one hit rule for all"):
        one + lesionwise(three_rules(), "centre")


@rules
def test_scans_without_lesions(rule):
    none, some = np.zeros((3, 3), dtype=int), np.eye(3, dtype=int)
    perfect, spurious, missed = (
        lesionwise(overlap(*pair), rule) for pair in ((none, none), (none, some), (some, none))
    )
    assert (perfect.sensitivity, perfect.f1, perfect.fp_per_scan) == (1.0, 1.0, 0.0)
    assert (spurious.sensitivity, spurious.f1, spurious.fp_per_scan) == (0.0, 0.0, 1.0)
    assert (missed.sensitivity, missed.f1, missed.fp_per_scan) == (0.0, 0.0, 0.0)


@rules
def test_labels_are_lesions_though_they_touch(rule):
    truth = np.repeat([1, 2], 3)[None]
    assert lesionwise(overlap(truth, truth), rule).tp == 2
    mask = components.label(truth > 0)  # by masks the two are one
    assert lesionwise(overlap(mask, mask), rule).tp == 1


# --- BraTS 2023


def test_the_settings_of_the_challenge():
    assert {name: tuple(setting) for name, setting in BRATS.items()} == {
        "GLI": (3, 50.0),
        "SSA": (3, 50.0),
        "PED": (3, 50.0),
        "MEN": (1, 50.0),
        "MET": (1, 2.0),
    }
    assert PENALTY == 374.0


def test_brats_worked_by_hand():
    shape = (20, 20, 60)
    truth = cubes(shape, [(4, 8), (4, 8), (4, 8)], [(4, 8), (4, 8), (24, 28)])
    prediction = cubes(shape, [(4, 8), (4, 8), (4, 6)], [(4, 8), (4, 8), (44, 48)])
    found = brats(truth, prediction, ONE)
    # lesion 1: 32 of 64 voxels, Dice 64 / 96, its far side 2 mm off; lesion 2 missed; one prediction false
    assert (found.tp, found.fp, found.fn) == (1, 1, 1)
    assert found.dices.tolist() == pytest.approx([2 / 3, 0.0]) and found.hd95s.tolist() == [2.0, 374.0]
    assert found.volumes.tolist() == [64.0, 64.0]
    assert found.dice == pytest.approx((2 / 3) / 3) and found.hd95 == pytest.approx((2 + 374 + 374) / 3)


def test_true_lesions_a_few_voxels_apart_are_one():
    """Dilated 3 times, a gap of 6 voxels is filled; of a gap of 7 one voxel is left."""
    shape = (10, 10, 40)
    for gap, lesions in ((6, 1), (7, 2)):
        truth = cubes(shape, [(3, 7), (3, 7), (4, 8)], [(3, 7), (3, 7), (8 + gap, 12 + gap)])
        found = brats(truth, truth, ONE)
        assert len(found.dices) == lesions and found.dice == 1.0 and found.hd95 == 0.0
        assert found.volumes.sum() == 128.0
    assert len(brats(truth, truth, ONE, dilation=0).dices) == 2


def test_dilation_is_by_faces_and_edges_but_not_by_corners():
    """Two voxels 3 apart along two axes are joined by one step; 3 apart along all three axes the steps do not meet."""
    truth = np.zeros((20, 20, 20), dtype=bool)
    truth[4, 4, 4] = truth[7, 7, 7] = True
    assert len(brats(truth, truth, ONE, dilation=1, min_volume=0).dices) == 2
    flat = np.zeros((20, 20, 20), dtype=bool)
    flat[4, 4, 4] = flat[4, 7, 7] = True
    assert len(brats(flat, flat, ONE, dilation=1, min_volume=0).dices) == 1


def test_a_prediction_beside_a_lesion_belongs_to_it():
    """It touches the dilated lesion and no voxel of it: found, with Dice 0, and neither false nor 374 mm."""
    shape = (10, 10, 30)
    truth, prediction = cubes(shape, [(3, 7), (3, 7), (4, 8)]), cubes(shape, [(3, 7), (3, 7), (10, 14)])
    found = brats(truth, prediction, ONE)
    assert (found.tp, found.fp, found.fn, found.dice) == (1, 0, 0, 0.0)
    assert found.hd95 == 6.0
    assert brats(truth, prediction, ONE, dilation=1).fp == 1


def test_a_prediction_over_two_lesions_counts_for_both():
    shape = (8, 8, 40)
    truth = cubes(shape, [(2, 6), (2, 6), (2, 6)], [(2, 6), (2, 6), (30, 34)])
    prediction = cubes(shape, [(2, 6), (2, 6), (2, 34)])
    found = brats(truth, prediction, ONE)
    assert found.dices.tolist() == pytest.approx([2 * 64 / (64 + 512)] * 2) and found.fp == 0


def test_small_lesions_are_left_out():
    """Those of 50 mm3 and less, found or not; a prediction of one is not false, and false ones count at any volume."""
    shape = (12, 12, 60)
    small, large = [(2, 7), (2, 7), (2, 4)], [(2, 7), (2, 7), (30, 33)]  # 50 and 75 mm3
    truth = cubes(shape, small, large)
    found = brats(truth, truth, ONE)
    assert found.volumes.tolist() == [75.0] and (found.tp, found.fp, found.fn) == (1, 0, 0)
    assert brats(truth, cubes(shape, large), ONE).dice == 1.0
    assert brats(truth, truth, ONE, min_volume=49.9).volumes.tolist() == [50.0, 75.0]
    assert brats(truth, truth, (1.01, 1.0, 1.0)).volumes.tolist() == pytest.approx([50.5, 75.75])
    speck = cubes(shape, large, [(6, 7), (6, 7), (50, 51)])
    assert brats(truth, speck, ONE).fp == 1


def test_brats_edge_cases():
    empty, some = np.zeros((9, 9, 9), dtype=bool), cubes((9, 9, 9), [(2, 7), (2, 7), (2, 7)])
    both, spurious, missed = (brats(*pair, ONE) for pair in ((empty, empty), (empty, some), (some, empty)))
    assert (both.dice, both.hd95, both.tp, both.fp, both.fn) == (1.0, 0.0, 0, 0, 0)
    assert (spurious.dice, spurious.hd95, spurious.fp) == (0.0, 374.0, 1)
    assert (missed.dice, missed.hd95, missed.fn) == (0.0, 374.0, 1)
    tiny = cubes((9, 9, 9), [(2, 3), (2, 3), (2, 3)])
    assert brats(tiny, empty, ONE).dice == 1.0  # nothing that counts on either side


@given(volumes(), st.sampled_from([(0, 0.0), (1, 2.0), (2, 0.5)]))
def test_brats_by_whole_masks(drawn, setting):
    """The challenge's procedure with a whole mask for each component."""
    truth, prediction, size = drawn
    dilation, smallest = setting
    joining, full = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3))
    grown, count = ndimage.label(ndimage.binary_dilation(truth, joining, dilation) if dilation else truth, full)
    pieces, parts = ndimage.label(prediction, full)
    dices, far, used = [], [], set()
    for k in range(1, count + 1):
        lesion = truth & (grown == k)
        mine = set(pieces[grown == k].tolist()) - {0}
        used |= mine
        if lesion.sum() * np.prod(size) > smallest:
            over = np.isin(pieces, list(mine))
            dices.append(2 * (over & lesion).sum() / (over.sum() + lesion.sum()))
            far.append(surface_distances(lesion, over, size).hd(95) if mine else 374.0)
    found = brats(truth, prediction, size, dilation, smallest)
    assert found.fp == parts - len(used)
    np.testing.assert_allclose(np.sort(found.dices), np.sort(dices))
    np.testing.assert_allclose(np.sort(found.hd95s), np.sort(far))


# --- autoPET


def test_autopet_worked_by_hand():
    shape = (10, 10, 40)
    truth = cubes(shape, [(2, 6), (2, 6), (2, 6)], [(2, 4), (2, 4), (20, 25)])
    prediction = cubes(shape, [(5, 9), (5, 9), (5, 9)], [(2, 5), (2, 5), (30, 40)])
    found = autopet(truth, prediction, (2.0, 5.0, 5.0))
    # one shared voxel saves both first lesions; 90 and 20 voxels of 50 mm3 are left
    assert found == pytest.approx((4.5, 1.0, 1, 1))


def test_eighteen_neighbours():
    """Voxels that share an edge are one component, voxels that share a corner are two."""
    truth = np.zeros((4, 4, 4), dtype=bool)
    truth[0, 0, 0] = True
    for other, fpv in (((0, 1, 1), 0.0), ((1, 1, 1), 0.001)):
        prediction = truth.copy()
        prediction[other] = True
        assert autopet(truth, prediction, ONE).fpv == pytest.approx(fpv)


def test_autopet_edge_cases():
    empty, some = np.zeros((4, 4, 4), dtype=bool), cubes((4, 4, 4), [(0, 2), (0, 2), (0, 2)])
    assert autopet(empty, empty, ONE) == (0.0, 0.0, 0, 0)
    assert autopet(empty, some, ONE) == pytest.approx((0.008, 0.0, 1, 0))
    assert autopet(some, empty, ONE) == pytest.approx((0.0, 0.008, 0, 1))


@given(volumes())
def test_autopet_by_whole_masks(drawn):
    truth, prediction, size = drawn

    def alone(mask, other):
        labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
        lost = [(labels == k).sum() for k in range(1, count + 1) if not (other & (labels == k)).any()]
        return float(sum(lost) * np.prod(size) / 1000), len(lost)

    (fpv, fp), (fnv, fn) = alone(prediction, truth), alone(truth, prediction)
    assert autopet(truth, prediction, size) == pytest.approx((fpv, fnv, fp, fn))


# --- both


@given(volumes(), st.data())
def test_figures_do_not_depend_on_how_the_array_lies(drawn, data):
    truth, prediction, size = drawn
    order = data.draw(st.permutations(range(3)))
    flips = [axis for axis in range(3) if data.draw(st.booleans())]
    turned = [np.pad(np.flip(mask.transpose(order), flips), 2) for mask in (truth, prediction)]
    other = tuple(size[axis] for axis in order)
    one, two = brats(truth, prediction, size, 1, 0.0), brats(*turned, other, 1, 0.0)
    assert (one.tp, one.fp, one.fn) == (two.tp, two.fp, two.fn)
    assert (one.dice, one.hd95) == pytest.approx((two.dice, two.hd95))
    assert autopet(truth, prediction, size) == pytest.approx(autopet(*turned, other))


@pytest.mark.parametrize("figure", [brats, autopet])
def test_a_plane_is_one_slice_of_a_millimetre(figure):
    rng = np.random.default_rng(1)
    truth, prediction = rng.random((2, 16, 16)) < 0.2
    flat, slab = figure(truth, prediction, (0.5, 2.0)), figure(truth[None], prediction[None], (1.0, 0.5, 2.0))
    if figure is autopet:
        assert flat == slab and flat.fpv > 0
    else:
        assert (flat.dice, flat.hd95, flat.tp, flat.fp) == (slab.dice, slab.hd95, slab.tp, slab.fp)


@pytest.mark.parametrize("figure", [brats, autopet])
def test_what_cannot_be_compared(figure):
    mask = np.ones((3, 3, 3), dtype=bool)
    with pytest.raises(InputError, match="spacing is unknown"):
        figure(mask, mask, None)
    with pytest.raises(GeometryError, match="spacing"):
        figure(mask, mask, (1.0, 1.0))
    with pytest.raises(InputError, match="truth is uint8"):
        figure(mask.astype(np.uint8), mask, ONE)
    with pytest.raises(InputError, match="both must be the same"):
        figure(mask, mask[1:], ONE)


def test_settings_of_brats_have_limits():
    mask = np.ones((3, 3, 3), dtype=bool)
    for setting in ((-1, 50.0), (3, -1.0), (3, np.nan)):
        with pytest.raises(InputError, match="0 or more"):
            brats(mask, mask, ONE, *setting)


def test_read_only_masks_are_read():
    mask = cubes((9, 9, 9), [(2, 7), (2, 7), (2, 7)])
    mask.flags.writeable = False
    assert brats(mask, mask, ONE).dice == 1.0 and autopet(mask, mask, ONE).fpv == 0.0
