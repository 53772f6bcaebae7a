"""Augmentation keeps image and labels together, whatever is drawn, and never makes a number that is not finite."""

import numpy as np
import pytest

from medseg.data.augment import coordinates, intensities, take, thick
from medseg.spec import AugmentSpec
from medseg.testing import phantoms

STILL = AugmentSpec(scale=(1, 1), stretch=1, rotate=0, p_elastic=0)


# --- augmentation


def taken(image, labels, spec, seed, patch):
    rng = np.random.default_rng(seed)
    middle = (np.array(labels.shape) - 1) / 2
    coords, factor = coordinates(rng, spec, middle, labels.shape, patch, (1.0,) * labels.ndim)
    return (*take(image, labels, coords, factor), coords, factor)


@pytest.mark.parametrize("shape, patch", [((70, 80), (48, 64)), ((20, 40, 44), (12, 32, 40))])
@pytest.mark.parametrize("seed", range(8))
def test_image_and_labels_move_together(shape, patch, seed):
    labels = phantoms.blobs(shape, 5, 7.0, seed, spacing=(2.0, 1.0, 1.0)[-len(shape) :] if len(shape) == 3 else None)
    image = np.stack([labels > 0, labels]).astype(np.float32)
    out, ids, outside, _, _ = taken(image, labels, AugmentSpec(p_elastic=1, elastic=6), seed, patch)
    assert (out.dtype, ids.dtype, out.shape, ids.shape) == (np.float32, np.int32, (2, *patch), patch)
    assert set(np.unique(ids)) <= set(range(6)) and (ids > 0).any()
    assert not ids[outside].any()
    inside = ~outside
    both = ((out[0] > 0.5) & (ids > 0) & inside).sum() / (((out[0] > 0.5) | (ids > 0)) & inside).sum()
    assert both > 0.85
    assert (np.abs(out[1] - ids)[inside] < 0.5).mean() > 0.85


@pytest.mark.parametrize("seed", range(6))
def test_nothing_but_a_mirror_gives_the_voxels_themselves(seed):
    labels = phantoms.blobs((24, 30), 3, 5.0, seed)
    image = phantoms.image_of(labels, seed)[None]
    out, ids, outside, _, factor = taken(image, labels, STILL, seed, (24, 30))
    assert factor == 1 and not outside.any()
    flips = [tuple(a for a in (0, 1) if f >> a & 1) for f in range(4)]
    assert any(
        np.array_equal(ids, np.flip(labels, f)) and np.allclose(out[0], np.flip(image[0], f), atol=1e-6) for f in flips
    )


def test_all_mirrors_are_drawn():
    labels = np.arange(16, dtype=np.int32).reshape(4, 4)
    corners = {int(taken(labels[None].astype(np.float32), labels, STILL, s, (4, 4))[1][0, 0]) for s in range(40)}
    assert corners == {0, 3, 12, 15}


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_zoom_above_one_makes_objects_larger(zoom):
    labels = np.zeros((80, 80), np.int32)
    labels[34:46, 34:46] = 1
    spec = STILL.model_copy(update={"scale": (zoom, zoom)})
    _, ids, _, _, factor = taken(labels[None].astype(np.float32), labels, spec, 0, (40, 40))
    assert factor == pytest.approx(zoom)
    assert (ids > 0).sum() == pytest.approx(144 * zoom**2, rel=0.1)


def test_anisotropic_stacks_turn_about_z_only():
    spec = AugmentSpec(p_elastic=0)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        coords, _ = coordinates(rng, spec, np.array([9.0, 20, 20]), (20, 40, 40), (8, 16, 16), (3.0, 1, 1))
        assert np.ptp(coords[0], axis=(1, 2)).max() < 1e-9
        assert np.ptp(coords[1], axis=0).max() < 1e-9
    rng = np.random.default_rng(0)
    coords, _ = coordinates(rng, spec, np.array([9.0, 20, 20]), (20, 40, 40), (8, 16, 16), (1.0, 1, 1))
    assert np.ptp(coords[0], axis=(1, 2)).max() > 1


@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_the_coarse_axis_never_turns_into_another(coarse):
    spacing = tuple(3.0 if axis == coarse else 1.0 for axis in range(3))
    others = tuple(axis for axis in range(3) if axis != coarse)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        coords, _ = coordinates(rng, AugmentSpec(p_elastic=0), np.full(3, 10.0), (20,) * 3, (8,) * 3, spacing)
        assert np.ptp(coords[coarse], axis=others).max() < 1e-9


def test_the_jitter_is_in_voxels_of_the_patch():
    still = AugmentSpec(scale=(4, 4), stretch=1, rotate=0, p_elastic=0)
    middle = np.array([50.0, 50.0])
    args = (still, middle, (100, 100), (16, 16), (1.0, 1.0))
    plain, _ = coordinates(np.random.default_rng(0), *args)
    moved, _ = coordinates(np.random.default_rng(0), *args, jitter=np.array([4.0, -4.0]))
    np.testing.assert_allclose((moved - plain)[:, 0, 0], [1.0, -1.0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(24, 24), (6, 16, 16)])
@pytest.mark.parametrize("kind", ["drawn", "constant", "negative", "bright"])
def test_any_intensities_stay_finite(channels, shape, kind):
    every = {name: 1.0 for name in AugmentSpec.model_fields if name.startswith("p_")}
    value = {"constant": 0.3, "negative": -0.5, "bright": 2.0}.get(kind)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image = rng.uniform(-0.5, 2, (channels, *shape)) if value is None else np.full((channels, *shape), value)
        before = image.astype(np.float32)
        spec = AugmentSpec(**every) if seed < 6 else AugmentSpec()
        out = intensities(np.random.default_rng(seed), spec, before)
        assert out.dtype == np.float32 and out.shape == before.shape
        assert np.isfinite(out).all() and out.min() >= -0.5 and out.max() <= 2
        np.testing.assert_array_equal(before, image.astype(np.float32))  # the case in memory is left alone
        np.testing.assert_array_equal(out, intensities(np.random.default_rng(seed), spec, before))


def test_without_any_chance_nothing_changes():
    never = AugmentSpec(**{name: 0.0 for name in AugmentSpec.model_fields if name.startswith("p_")})
    image = np.random.default_rng(0).uniform(0, 1, (3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(intensities(np.random.default_rng(0), never, image), image)


def test_a_gray_image_keeps_equal_channels_unless_it_is_tinted():
    gray = np.repeat(phantoms.image_of(phantoms.blobs((32, 32), 3, 5.0, 0), 0)[None], 3, axis=0)
    for seed in range(12):
        out = intensities(np.random.default_rng(seed), AugmentSpec(p_channels=0), gray)
        assert (out == out[:1]).all()
    tinted = [intensities(np.random.default_rng(s), AugmentSpec(p_channels=1, p_noise=0), gray) for s in range(4)]
    assert all((out != out[:1]).any() for out in tinted)


def test_a_patch_larger_than_the_image_in_one_axis_is_fine():
    labels = phantoms.blobs((30, 90), 4, 6.0, 0)
    for one in (labels, labels[14:15]):  # also a single row
        for seed in range(5):
            out, ids, outside, _, _ = taken(phantoms.image_of(one, 0)[None], one, AugmentSpec(), seed, (64, 64))
            assert np.isfinite(out).all() and outside.any() and not ids[outside].any()


@pytest.mark.parametrize("shape", [(33, 41), (21, 25, 29)])
def test_a_turn_is_no_larger_than_asked_and_nothing_is_mirrored(shape):
    spec = STILL.model_copy(update={"rotate": 20.0, "flip": False})
    angles = []
    for seed in range(30):
        coords, _ = coordinates(
            np.random.default_rng(seed), spec, (np.array(shape) - 1) / 2, shape, shape, (1.0,) * len(shape)
        )
        middle = tuple(n // 2 for n in shape)
        matrix = np.stack([np.diff(coords, axis=1 + a)[(slice(None), *middle)] for a in range(len(shape))], axis=1)
        assert np.allclose(matrix @ matrix.T, np.eye(len(shape)), atol=1e-6) and np.linalg.det(matrix) > 0
        trace = np.trace(matrix)
        angles.append(np.degrees(np.arccos(np.clip((trace - len(shape) + 2) / 2, -1, 1))))
    assert max(angles) < 20.01 and max(angles) > 10


def test_thick_slices_average_along_one_axis_and_keep_a_ramp():
    rng = np.random.default_rng(0)
    flat = np.full((2, 12, 16, 20), 0.7, np.float32)
    assert thick(rng, (3.0, 3.0), flat) == pytest.approx(flat)
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32), (1, 24, 24, 24)).copy()
    for seed in range(4):
        out = thick(np.random.default_rng(seed), (3.0, 3.0), ramp)
        assert out[0, :, :, 4:-4] == pytest.approx(ramp[0, :, :, 4:-4], abs=0.01)
    noise = rng.normal(size=(1, 24, 24, 24)).astype(np.float32)
    assert thick(rng, (4.0, 4.0), noise).std() < 0.6 * noise.std()
