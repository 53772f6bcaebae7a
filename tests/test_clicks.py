"""Masks from clicks: what was clicked holds, space is physical, real tumours, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter

from medseg import io
from medseg.clicks import Clicks, region
from medseg.errors import InputError
from medseg.image import Image
from medseg.ops import components, surface
from medseg.ops.cut import coarse, cut, fine, odds
from medseg.spec import ClickSpec


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def ellipsoid(shape, spacing, centre, radii):
    """Mask of an ellipsoid; all in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * np.array(spacing)
    return (((index - centre) / radii) ** 2).sum(-1) <= 1


def phantom(spacing=(1.0, 1.0, 1.0), noise=0.5, seed=0, size=40):
    """An ellipsoid in noise, its contrast 1, and its truth."""
    shape = tuple(round(size / s) for s in spacing)
    truth = ellipsoid(shape, spacing, (19, 20, 18), (8, 10, 7))
    values = truth + np.random.default_rng(seed).normal(0, noise, shape)
    return Image.from_array(values.astype(np.float32), spacing), truth


def whole(image, found):
    mask, place = found
    out = np.zeros(image.grid.shape, bool)
    out[place] = mask
    return out


@pytest.fixture(scope="module")
def scene():
    return phantom()


def test_one_click_finds_a_noisy_ellipsoid(scene):
    image, truth = scene
    assert dice(whole(image, region(image, [(19, 20, 18)])), truth) > 0.9


def test_a_dark_object_is_one_as_well(scene):
    image, truth = scene
    dark = Image.from_array(-image.voxels()[0], 1.0)
    assert dice(whole(dark, region(dark, [(19, 20, 18)])), truth) > 0.9


points = st.tuples(*[st.integers(0, 39)] * 3)


@settings(max_examples=15, deadline=None)
@given(points, st.lists(st.tuples(points, st.booleans()), max_size=4, unique_by=lambda one: one[0]))
def test_what_was_clicked_inside_is_in_the_mask_and_what_outside_is_not(scene, first, others):
    image, _ = scene
    session = Clicks(image)
    session.add(first)
    clicks = [(first, True)]
    for point, inside in others:
        if point == first:
            continue
        session.add(point, inside)
        clicks.append((point, inside))
        found = session.full()
        assert [bool(found[p]) for p, _ in clicks] == [i for _, i in clicks]
    assert session.points == tuple(clicks)


@pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (1.0, 2.0, 1.0), (2.0, 2.0, 2.0)])
def test_the_result_is_the_same_in_space_whatever_the_voxels(spacing):
    fine_image, _ = phantom(noise=0.2)
    image, truth = phantom(spacing, noise=0.2)
    click = tuple(round(c / s) for c, s in zip((19, 20, 18), spacing, strict=True))
    found, reference = whole(image, region(image, [click])), whole(fine_image, region(fine_image, [(19, 20, 18)]))
    there = [np.round(np.arange(n) * s).astype(int).clip(0, 39) for n, s in zip(truth.shape, spacing, strict=True)]
    assert dice(found, reference[np.ix_(*there)]) > 0.93
    assert found.sum() * np.prod(spacing) == pytest.approx(reference.sum(), rel=0.1)
    assert dice(found, truth) > 0.95 and dice(reference, phantom()[1]) > 0.95


def test_units_and_intensities_may_be_scaled():
    image, _ = phantom()
    other = Image.from_array(image.voxels()[0] * 1000 - 1e4, 1e-3)
    clicks = {"inside": [(19, 20, 18)], "outside": [(19, 20, 30)]}
    assert dice(whole(image, region(image, **clicks)), whole(other, region(other, **clicks))) > 0.99


def test_a_box_alone(scene):
    image, truth = scene
    box = ((11, 10, 11), (28, 31, 26))
    found = whole(image, region(image, box=box))
    assert dice(found, truth) > 0.9
    found[11:28, 10:31, 11:26] = False
    assert not found.any()


def test_clicks_in_a_box_hold(scene):
    image, _ = scene
    found = whole(image, region(image, [(12, 11, 12)], [(19, 20, 18)], box=((11, 10, 11), (28, 31, 26))))
    assert found[12, 11, 12] and not found[19, 20, 18]


def test_a_plane():
    y, x = np.indices((90, 70))
    truth = np.hypot((y - 40) / 1.5, x - 30) < 12
    values = truth * 50.0 + np.random.default_rng(0).normal(0, 10, truth.shape)
    image = Image.from_array(values)
    mask, place = region(image, [(40, 30)])
    assert mask.ndim == 2 and len(place) == 2
    assert dice(whole(image, (mask, place)), truth) > 0.95
    colour = Image.from_array(np.stack([values, values, values]), channel_axis=0)
    assert (whole(colour, region(colour, [(40, 30)])) == whole(image, (mask, place))).all()


def test_a_hole_is_filled_unless_it_was_clicked_as_outside():
    y, x = np.indices((80, 80))
    far = np.hypot(y - 40, x - 40)
    values = 100.0 * ((far < 20) & (far > 5)) + np.random.default_rng(0).normal(0, 5, far.shape)
    image = Image.from_array(values)
    box = ((20, 20), (61, 61))
    assert whole(image, region(image, box=box))[40, 40]
    opened = whole(image, region(image, [(40, 28)], [(40, 40)], box=box))
    assert opened[40, 28] and not opened[38:43, 38:43].any() and opened.sum() > 100


def test_a_leak_is_taken_back_and_a_missed_part_is_added():
    values = np.zeros((30, 60, 60), np.float32)
    values[10:20, 20:40, 10:30] = values[10:20, 20:40, 30:50] = 100  # one block, of which the left half is meant
    image = Image.from_array(gaussian_filter(values, 1), 1.0)
    session = Clicks(image)
    session.add((15, 30, 20))
    session.add((15, 30, 40), inside=False)
    left = session.full()
    assert left[10:20, 22:38, 12:26].mean() > 0.9 and left[10:20, 20:40, 36:50].mean() < 0.1
    session.undo()
    session.add((15, 30, 45))
    assert session.full()[12:18, 24:36, 14:46].mean() > 0.9


def test_undo_goes_back_click_by_click(scene):
    image, _ = scene
    session = Clicks(image)
    assert not session.started and session.mask.size == 0 and not session.full().any()
    session.add((19, 20, 18))
    before = session.full()
    session.add((19, 20, 5))
    session.undo()
    assert (session.full() == before).all() and len(session.points) == 1
    session.undo()
    session.undo()
    assert not session.started
    session.add((5, 35, 35))  # another first click is not seen from the place of the one taken back
    other = Clicks(image)
    other.add((5, 35, 35))
    assert (session.full() == other.full()).all()


def test_an_object_larger_than_the_first_look_is_found_whole():
    image, truth = phantom(size=60)
    assert dice(whole(image, region(image, [(19, 20, 18)], spec=ClickSpec(reach=8))), truth) > 0.9


def test_only_what_lies_around_clicks_must_be_finite():
    image, truth = phantom()
    values = np.full((40, 40, 400), np.nan, np.float32)
    values[:, :, :200] = np.pad(image.voxels()[0], [(0, 0), (0, 0), (0, 160)], mode="reflect")
    spotted = Image.from_array(values, 1.0)
    assert whole(spotted, region(spotted, [(19, 20, 18)]))[19, 20, 18]
    with pytest.raises(InputError, match="not finite"):
        region(spotted, [(19, 20, 300)])


def test_an_image_of_one_value_gives_a_mask_that_holds_the_click():
    for shape in ((9, 9, 9), (20, 30), (1, 12, 12)):
        image = Image.from_array(np.zeros(shape, np.int16))
        point = tuple(n // 2 for n in shape)
        assert whole(image, region(image, [point]))[point]


@pytest.mark.parametrize(
    ("clicks", "message"),
    [
        ({}, "no click inside and no box"),
        ({"outside": [(1, 1, 1)]}, "first click must be inside"),
        ({"inside": [(40, 1, 1)]}, "outside of the image"),
        ({"inside": [(-1, 1, 1)]}, "outside of the image"),
        ({"inside": [(1, 1)]}, "3 whole numbers"),
        ({"inside": [(1.5, 1, 1)]}, "whole numbers"),
        ({"inside": [(5, 5, 5)], "outside": [(5, 5, 5)]}, "as inside and as outside"),
        ({"box": ((5, 5, 5), (5, 9, 9))}, "empty or not in the image"),
        ({"box": ((5, 5, 5), (9, 9, 41))}, "empty or not in the image"),
        ({"box": ((5, 5), (9, 9))}, "two corners of 3"),
        ({"inside": [(1, 1, 1)], "box": ((5, 5, 5), (9, 9, 9))}, "outside of the box"),
    ],
)
def test_what_cannot_be_meant_is_refused(scene, clicks, message):
    with pytest.raises(InputError, match=message):
        region(scene[0], **clicks)


def in_the_middle(mask, spacing):
    depth = distance_transform_edt(np.pad(mask, 1), spacing)[1:-1, 1:-1, 1:-1]
    return tuple(int(i) for i in np.unravel_index(depth.argmax(), mask.shape))


@pytest.mark.parametrize(("name", "least"), [("CT", (0.65, 0.8)), ("MR_T1", (0.5, 0.7))])
def test_a_real_tumour_after_one_click_and_after_three(real_data, name, least):
    folder = real_data / "lesions" / "sts_sarcoma" / "nifti" / "STS_002" / name
    image = io.load(folder / "image.nii.gz")
    truth = io.load_labels(folder / "mask.nii.gz").labels > 0
    session, point, inside, scores = Clicks(image), in_the_middle(truth, image.grid.spacing), True, []
    for _ in range(3):
        session.add(point, inside)
        found = session.full()
        scores.append(dice(found, truth))
        missed, extra = components.largest_of(truth & ~found), components.largest_of(found & ~truth)
        inside = bool(missed.sum() > extra.sum())
        point = in_the_middle(missed if inside else extra, image.grid.spacing)
    assert scores[0] > least[0] and scores[2] > least[1]


def test_odds_know_the_likelier_side_whatever_the_scale():
    values = np.array([1.0, 2, 3, 4, 100, 200, 300, 400])
    inside, outside = (values >= 100).astype(float), (values < 100).astype(float)
    found = odds(values, inside, outside, limit=2.0)
    assert (np.sign(found) == np.where(inside > 0, 1, -1)).all()
    assert np.allclose(found, odds(values * 5 - 1000, inside, outside, limit=2.0))


def test_a_cut_is_smooth_where_nothing_speaks_against_it():
    cost = np.full((1, 9, 9), 0.4, np.float32)
    cost[0, 2:7, 2:7] = -1.0
    cost[0, 4, 4] = 0.5  # a voxel that would rather not
    found = cut(cost, np.zeros_like(cost), np.ones(3), 0.3, 200) > 0.5
    assert found[0, 3:6, 3:6].all() and not found[0, 0].any()
    assert not (cut(cost, np.zeros_like(cost), np.ones(3), 0.0, 200) > 0.5)[0, 4, 4]


def test_coarse_and_fine_are_means_and_lines_between():
    values = np.arange(10, dtype=np.float32)[None, None]
    blocks = coarse(values, np.array([1, 1, 4]))
    assert blocks.ravel().tolist() == [1.5, 5.5, 8.75]  # 8, 9, and 9 twice again
    assert np.allclose(fine(blocks, np.array([1, 1, 4]), values.shape).ravel()[2:6], [2, 3, 4, 5])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 0.5, 0.5)])
def test_depth_is_the_logarithm_of_radii(spacing):
    around = surface.rays(False, 200)
    found = surface.depth((9, 33, 33), np.array(spacing), np.array([4.0, 16, 16]), around, np.full(200, 5.0))
    index = (np.stack(np.indices((9, 33, 33)), -1) - [4, 16, 16]) * np.array(spacing)
    away = np.linalg.norm(index, axis=-1)
    assert np.allclose(found[away > 0], np.log(5 / away[away > 0]), atol=1e-4)
