"""Star head: the contract, and drawn objects whose rays are known."""

import numpy as np
import pytest
import torch
from skimage.draw import disk, polygon

from medseg import heads
from medseg.heads.star import peaks
from medseg.metrics import match, overlap
from medseg.nets import heads as modules
from medseg.ops.rays import directions, draw, mean_lengths, measure, paint
from medseg.spec import StarSpec
from medseg.testing.heads import HeadContract
from medseg.testing.phantoms import blobs

FOUR = directions(2, 4)  # right, down, left, up


class TestStar(HeadContract):
    spec = StarSpec()


def disc(shape, centre, radius):
    labels = np.zeros(shape, np.int32)
    labels[disk(centre, radius, shape=shape)] = 1
    return labels


def ball(spacing, radius=12.0):
    size = [2 * int(radius / s) + 5 for s in spacing]
    away = (np.indices(size).T - np.array(size) // 2) * spacing
    return ((away**2).sum(axis=-1) <= radius**2).T.astype(np.int32), tuple(n // 2 for n in size)


def found_in(labels, spacing=None, **settings):
    spacing = spacing or (1.0,) * labels.ndim
    head = heads.make(StarSpec(**settings))
    return head.decode(head.perfect(head.targets(labels, None, spacing)), spacing)


def iou(one, two):
    return (one & two).sum() / (one | two).sum()


# --- directions


@pytest.mark.parametrize(("ndim", "count"), [(2, 8), (2, 32), (3, 12), (3, 64), (3, 96)])
def test_faces_tile_all_directions_once(ndim, count):
    rays = directions(ndim, count)
    np.testing.assert_allclose(np.linalg.norm(rays.vectors, axis=1), 1)
    drawn = np.random.default_rng(0).normal(size=(500, 3)) * (1 if ndim == 3 else [0, 1, 1])
    shares = np.einsum("fij,nj->nfi", rays.inverse, drawn)
    inside = (shares > -1e-12).all(axis=2)
    assert (inside.sum(axis=1) == 1).all()
    corners = rays.vectors if ndim == 3 else np.concatenate([np.pad(rays.vectors, ((0, 0), (1, 0))), [[1, 0, 0]]])
    again = (shares[inside][:, :, None] * corners[rays.faces[np.nonzero(inside)[1]]]).sum(axis=1)
    np.testing.assert_allclose(again, drawn, atol=1e-9)


def test_directions_of_a_sphere_are_even():
    vectors = directions(3, 64).vectors
    near = np.sort(np.arccos(np.clip(vectors @ vectors.T, -1, 1)), axis=1)[:, 1]
    assert near.min() > 0.6 * near.max()
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.02


# --- measuring


def test_rays_end_where_the_label_does():
    labels = np.array([[0, 0, 0, 0, 0], [0, 7, 7, 7, 3], [0, 7, 7, 7, 3], [0, 0, 0, 0, 0]], np.int32)
    got = measure(labels, FOUR, (1.0, 1.0), None)
    assert got[:, 1, 1].tolist() == [2.5, 1.5, 0.5, 0.5]
    assert got[:, 2, 3].tolist() == [0.5, 0.5, 2.5, 1.5]
    assert not got[:, labels == 0].any()


def test_rays_that_leave_the_array_are_negative():
    got = measure(np.ones((3, 4), np.int32), FOUR, (1.0, 1.0), None)
    assert got[:, 1, 1].tolist() == [-2.5, -1.5, -1.5, -1.5]


def test_rays_that_end_in_ignored_voxels_are_negative():
    labels = np.array([[0, 4, 4, 4, 0]], np.int32)
    ignore = np.array([[False, False, True, False, True]])
    assert measure(labels, FOUR, (1.0, 1.0), ignore)[:, 0, 1].tolist() == [-2.5, -0.5, 0.5, -0.5]


def test_a_diagonal_ray_passes_corners():
    labels = np.eye(5, dtype=np.int32)
    got = measure(np.pad(labels, 1), directions(2, 8), (1.0, 1.0), None)[:, 3, 3]
    np.testing.assert_allclose(got[[1, 5]], 2.5 * np.sqrt(2))
    np.testing.assert_allclose(got[[0, 2, 4, 6]], 0.5)


def test_rays_of_a_disc_are_its_radius():
    got = measure(disc((41, 41), (20, 20), 15.0), directions(2, 32), (1.0, 1.0), None)
    assert np.abs(got[:, 20, 20] - 15).max() < 1
    assert abs(got[:, 20, 20].mean() - 15) < 0.3
    across = got[:16, 20, 25] + got[16:, 20, 25]  # opposite rays from off the middle make chords
    assert across[0] == pytest.approx(29, abs=1) and across[8] == pytest.approx(2 * np.sqrt(200), abs=1)


def test_rays_of_an_ellipse():
    y, x = np.indices((41, 61)) - np.array([20, 30])[:, None, None]
    labels = ((y / 10) ** 2 + (x / 25) ** 2 <= 1).astype(np.int32)
    rays = directions(2, 32)
    exact = 1 / np.linalg.norm(rays.vectors / [10, 25], axis=1)
    assert np.abs(measure(labels, rays, (1.0, 1.0), None)[:, 20, 30] - exact).max() < 1.3
    assert iou(found_in(labels).paint()[0] > 0, labels > 0) > 0.95


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 2.0, 1.0)])
def test_rays_of_a_ball_are_its_radius_whatever_the_voxels(spacing):
    labels, centre = ball(spacing)
    got = measure(labels, directions(3, 64), spacing, None)[(slice(None), *centre)]
    assert abs(got.mean() - 12) < 0.35
    assert np.abs(got - 12).max() < 0.75 * max(spacing) + 0.3
    assert iou(found_in(labels, spacing).paint()[0] > 0, labels > 0) > 0.93


# --- drawing


@pytest.mark.parametrize("seed", range(10))
def test_a_star_is_the_polygon_of_its_ray_ends(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(8, 64))
    rays, lengths = directions(2, count), rng.uniform(3, 25, count)
    ends = np.array([30, 30]) + rays.vectors * lengths[:, None]
    exact = np.zeros((60, 60), bool)
    exact[polygon(*ends.T, shape=exact.shape)] = True
    assert (draw(exact.shape, (30, 30), lengths, rays, (1.0, 1.0)) != exact).sum() <= 2  # voxels on an edge


def test_a_polygon_of_long_pixels():
    rays, lengths = directions(2, 32), np.random.default_rng(3).uniform(5, 25, 32)
    ends = np.array([10, 30]) + rays.vectors * lengths[:, None] / [3, 1]
    exact = np.zeros((20, 60), bool)
    exact[polygon(*ends.T, shape=exact.shape)] = True
    assert (draw(exact.shape, (10, 30), lengths, rays, (3.0, 1.0)) != exact).sum() <= 2


def test_a_flat_star_is_the_polyhedron_and_a_rounded_one_the_ball():
    rays, labels = directions(3, 64), ball((1.0, 1.0, 1.0))[0]
    normals = rays.inverse.sum(axis=1)  # a point lies in the hull of the unit rays where all of these are at most 1
    points = (np.indices(labels.shape).T - np.array(labels.shape) // 2) / 12
    exact = ((points @ normals.T).max(axis=-1) <= 1).T
    centre = tuple(n // 2 for n in labels.shape)
    lengths = np.full(64, 12.0)
    np.testing.assert_array_equal(draw(labels.shape, centre, lengths, rays, (1.0, 1.0, 1.0)), exact)
    round_one = draw(labels.shape, centre, lengths + 1e-9, rays, (1.0, 1.0, 1.0), rounded=True)
    np.testing.assert_array_equal(round_one, labels > 0)
    assert exact.sum() < 0.93 * labels.sum()


def test_what_lies_outside_the_field_is_cut_off():
    got = draw((10, 10), (0, 0), np.full(32, 6.5), directions(2, 32), (1.0, 1.0))
    whole = draw((30, 30), (15, 15), np.full(32, 6.5), directions(2, 32), (1.0, 1.0))
    np.testing.assert_array_equal(got, whole[15:25, 15:25])


def test_a_star_that_lies_in_an_earlier_one_is_left_out():
    lengths = np.stack([np.full(32, r) for r in (10.0, 4.0, 10.0, 30.0)])
    centres = np.array(
        [[30, 30], [30, 36], [30, 45], [30, 30]]
    )  # first; in the first; overlaps a little; contains both
    labels, kept = paint((60, 80), centres, lengths, directions(2, 32), (1.0, 1.0), overlap=0.4)
    assert kept.tolist() == [0, 2]
    assert labels[30, 39] == 1  # in both stars, of the earlier one
    assert paint((60, 80), centres[:0], lengths[:0], directions(2, 32), (1.0, 1.0), overlap=0.4)[1].size == 0


# --- decoding


def test_neighbours_of_a_ball_agree_on_its_rays():
    rays, shape, middle = directions(2, 32), (41, 41), np.array([[20, 20]])
    away = np.indices(shape).T - middle[0]
    along = away @ rays.vectors.T
    exact = -along + np.sqrt(np.maximum(15.0**2 - (away**2).sum(axis=-1)[..., None] + along**2, 0.25))
    logs = np.log(np.maximum(exact, 0.5) / 16).T.astype(np.float32)
    trust = np.ones(shape, np.float32)
    for radius in (0.0, 1.0, 3.0):
        got = mean_lengths(logs, trust, middle, rays, (1.0, 1.0), 16.0, radius, (0.5, 99.0))
        np.testing.assert_allclose(got, 15, rtol=0.003)
    noisy = logs + np.random.default_rng(0).normal(0, 0.2, logs.shape).astype(np.float32)
    error = [
        np.abs(mean_lengths(noisy, trust, middle, rays, (1.0, 1.0), 16.0, radius, (0.5, 99.0)) - 15).mean()
        for radius in (0.0, 1.0, 3.0)
    ]
    assert error[1] < 0.6 * error[0] and error[2] < 0.3 * error[0]


def test_a_plateau_proposes_one_object_and_two_plateaus_two():
    p = np.zeros((9, 20), np.float32)
    p[2:7, 2:7] = p[2:7, 12:19] = 0.9
    assert peaks(p, p, 0.5).tolist() == [[4, 4], [4, 15]]
    assert peaks(p, p, 0.95).shape == (0, 2)


def test_two_touching_discs():
    labels = disc((50, 60), (25, 20), 10.0)
    labels[(disc((50, 60), (25, 39), 10.0) > 0) & (labels == 0)] = 2
    counts, _ = match(overlap(labels, found_in(labels).paint()[0]), 0.93)
    assert (counts.tp, counts.fp, counts.fn) == (2, 0, 0)


def test_of_a_c_only_what_one_point_sees_is_one_object():
    y, x = np.indices((80, 80)) - 40
    away = np.hypot(y, x)
    labels = ((away < 30) & (away > 18) & (x < 12)).astype(np.int32)  # not star-convex from any point
    got = found_in(labels).paint()[0]
    assert got.max() > 1  # it falls into pieces
    assert (got > 0)[labels > 0].mean() > 0.8 and labels[got > 0].mean() > 0.8  # which lie on it
    assert max(iou(got == i, labels > 0) for i in range(1, got.max() + 1)) < 0.6


def test_an_object_cut_by_the_crop_is_completed_beyond_it():
    whole = disc((60, 60), (30, 30), 20.0)
    head = heads.make(StarSpec())
    cut = whole[:, 30:].copy()  # the widest place is at the border of the crop
    got = head.decode(head.perfect(head.targets(cut, None, (1.0, 1.0))), (1.0, 1.0)).paint()[0]
    assert got.max() == 1
    assert iou(got > 0, cut > 0) > 0.95


@pytest.mark.parametrize("shape", [(96, 96), (36, 40, 40)])
def test_noise_in_the_rays_is_averaged(shape):
    ndim = len(shape)
    labels = blobs(shape, {2: 10, 3: 5}[ndim], {2: 8.0, 3: 7.0}[ndim], 0)
    head = heads.make(StarSpec())
    maps = head.perfect(head.targets(labels, None, (1.0,) * ndim))
    maps += np.random.default_rng(0).normal(0, 0.2, maps.shape).astype(np.float32)  # a fifth of each ray
    maps[0] += np.random.default_rng(1).normal(0, 1, shape)
    counts, _ = match(overlap(labels, head.decode(maps, (1.0,) * ndim).paint()[0]), 0.8)
    assert (counts.tp, counts.fp, counts.fn) == (labels.max(), 0, 0)


def test_a_probability_of_nothing_at_a_peak_is_no_error():
    head = heads.make(StarSpec(blur=1.5, threshold=0.3))
    maps = np.full((33, 40, 40), -300, np.float32)
    maps[0, 18:23, 18:23] = 300
    maps[0, 20, 20] = -300  # within the peak of the smoothed probability
    assert len(head.decode(maps, (1.0, 1.0))) <= 1


# --- learning


@pytest.mark.parametrize(("factor", "costs"), [(2.0, False), (0.5, True)])
def test_a_ray_that_leaves_the_crop_costs_only_where_it_is_too_short(factor, costs):
    spec = StarSpec()
    labels = np.ones((16, 16), np.int32)
    head = heads.make(spec)
    truth = {k: torch.from_numpy(v)[None] for k, v in head.targets(labels, None, (1.0, 1.0)).items()}
    maps = torch.from_numpy(head.perfect(head.targets(labels, None, (1.0, 1.0))))[None]
    maps[:, 1:] += float(np.log(factor))
    assert (modules.make(spec, 2, (8,)).loss(maps, truth)["rays"] > 0.01) == costs


def test_settings_change_the_number_of_rays():
    for ndim, settings in ((2, {"rays": 16}), (3, {"rays_3d": 32})):
        labels = blobs((48,) * ndim, 2, 9.0, 0)
        assert heads.make(StarSpec(**settings)).channels(ndim) == 1 + next(iter(settings.values()))
        assert match(overlap(labels, found_in(labels, **settings).paint()[0]), 0.8)[0].tp == 2
