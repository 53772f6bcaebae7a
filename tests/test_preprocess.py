"""Preprocessing: channels, levels and grids by hand; region by region is as good as whole."""

from dataclasses import replace

import numpy as np
import pytest

from medseg.errors import GeometryError, InputError, ModelError
from medseg.grid import Grid
from medseg.image import Image, Source
from medseg.instances import Instances
from medseg.ops.resample import onto
from medseg.preprocess import combine, masked, plan, resize
from medseg.spec import PreprocessSpec

RGB = ("red", "green", "blue")


def image_of(array, spacing=None, **more):
    return Image.from_array(np.asarray(array), spacing, **more)


def colour(**levels):
    """Three flat channels with one dark corner each."""
    array = np.stack([np.full((8, 8), levels[c], np.uint8) for c in levels])
    array[:, 0, 0] = 0
    return Image.from_array(array, channel_axis=0, channels=tuple(levels))


def whole(image, spec):
    return plan(image, spec).read(image, (slice(None),) * image.grid.ndim)


# --- channels


def test_channels_are_found_by_name_in_the_models_order():
    spec = PreprocessSpec(channels=RGB, low=0, high=100)
    image = colour(blue=30, extra=90, red=10, green=20)
    assert plan(image, spec).channels == (2, 3, 0)
    np.testing.assert_allclose(whole(image, spec)[:, 4, 4], np.array([10, 20, 30]) / 30, rtol=1e-6)


def test_as_many_channels_of_other_names_are_taken_in_order():
    assert plan(colour(a=1, b=2, c=3), PreprocessSpec(channels=RGB)).channels == (0, 1, 2)


def test_gray_is_repeated_only_where_the_model_allows():
    image = image_of(np.arange(64.0).reshape(8, 8))
    repeated = whole(image, PreprocessSpec(channels=RGB, gray_to_rgb=True))
    assert repeated.shape == (3, 8, 8) and (repeated == repeated[:1]).all()
    with pytest.raises(ModelError, match="red, green, blue, the image has 1"):
        plan(image, PreprocessSpec(channels=RGB))


def test_channels_that_do_not_fit_are_named():
    with pytest.raises(ModelError, match=r"wants the channels gray, the image has 3 \(red, green, blue\); choose with"):
        plan(colour(red=1, green=2, blue=3), PreprocessSpec())


# --- levels


def test_percentiles_become_zero_and_one():
    image = image_of(np.arange(10_001, dtype=np.uint16).reshape(73, 137))
    out = whole(image, PreprocessSpec(low=10, high=90))
    assert out.dtype == np.float32
    flat = out.ravel()
    assert flat[1000] == pytest.approx(0) and flat[9000] == pytest.approx(1) and flat[5000] == pytest.approx(0.5)
    assert flat[0] == pytest.approx(-0.125) and flat[-1] == pytest.approx(1.125)


def test_outliers_are_clipped():
    array = np.linspace(0, 1, 10_000).reshape(100, 100)
    array[0, 0], array[0, 1] = -1e6, 1e6
    out = whole(image_of(array), PreprocessSpec())
    assert (out.min(), out.max()) == (-0.5, 2)


def test_joint_levels_keep_colours_apart():
    image = colour(red=100, green=200, blue=50)
    joint = whole(image, PreprocessSpec(channels=RGB, low=0, high=100))
    each = whole(image, PreprocessSpec(channels=RGB, low=0, high=100, joint=False))
    np.testing.assert_allclose(joint[:, 4, 4], [0.5, 1, 0.25], atol=1e-6)
    np.testing.assert_allclose(each[:, 4, 4], [1, 1, 1], atol=1e-6)


def test_each_channel_keeps_its_own_levels_whatever_the_order():
    spec = PreprocessSpec(channels=RGB, low=0, high=100, joint=False)
    planned = plan(colour(blue=30, extra=90, red=10, green=20), spec)
    assert planned.high.tolist() == [10, 20, 30]


@pytest.mark.parametrize("value", [0, -5, 1e-9, 255, 65535, 2.0**25, 3e9])
def test_a_constant_image_becomes_zeros(value):
    assert (whole(image_of(np.full((16, 16), value, np.float64)), PreprocessSpec()) == 0).all()


def test_a_few_specks_on_black_are_stretched_over_their_own_range():
    array = np.zeros((200, 200), np.uint8)
    array[5, 5], array[9, 9] = 100, 200  # far fewer than the 0.2 % above the upper percentile
    out = whole(image_of(array), PreprocessSpec())
    assert (out[0, 0, 0], out[0, 5, 5], out[0, 9, 9]) == (0, 0.5, 1)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.uint32, np.float16, np.float64])
def test_voxels_of_any_type_are_read(dtype):
    array = np.zeros((20, 20))
    array[5:15, 5:15] = 1
    np.testing.assert_array_equal(whole(image_of(array.astype(dtype)), PreprocessSpec(low=0, high=100))[0], array)


def test_voxels_that_are_not_finite_are_refused_wherever_they_lie():
    for bad in (np.nan, np.inf):
        array = np.zeros((30, 30), np.float32)
        array[7, 7] = bad
        with pytest.raises(InputError, match="1 of 900 voxels are not finite"):
            plan(image_of(array), PreprocessSpec())
    large = np.zeros((1500, 1500), np.float32)
    large[701, 701] = np.nan  # between the voxels that the levels are taken from
    image = image_of(large)
    planned = plan(image, PreprocessSpec())
    planned.read(image, (slice(0, 500), slice(0, 500)))
    with pytest.raises(InputError, match="not finite"):
        planned.read(image, (slice(600, 800), slice(600, 800)))


def test_a_region_is_the_same_as_in_the_whole():
    image = image_of(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8))
    planned = plan(image, PreprocessSpec())
    region = (slice(7, 31), slice(20, 50))
    full = planned.read(image, (slice(None), slice(None)))
    np.testing.assert_array_equal(planned.read(image, region), full[(slice(None), *region)])


# --- grids


@pytest.mark.parametrize(
    "spacing, factor, shape",
    [
        ((2.2, 1, 1), 1.0, (10, 12, 14)),
        ((2.8, 1, 1), 1.0, (10, 12, 14)),  # near enough
        ((1, 1, 1), 1 / 2.2, (5, 12, 14)),
        ((4.4, 1, 1), 2.0, (20, 12, 14)),
    ],
)
def test_z_is_resampled_where_the_anisotropy_is_another(spacing, factor, shape):
    image = image_of(np.random.default_rng(0).random((10, 12, 14)), spacing)
    planned = plan(image, PreprocessSpec(anisotropy=2.2))
    assert planned.factor == pytest.approx((factor, 1, 1))
    assert planned.grid.shape == shape == planned.shape((10, 12, 14))
    assert planned.read(image, (slice(None),) * 3).shape == (1, *shape)
    assert planned.spacing == pytest.approx(spacing)
    assert planned.model_spacing == pytest.approx((spacing[0] / factor, 1, 1))
    assert [n.startswith("z resampled by") for n in planned.notes] == [True] * (factor != 1)
    np.testing.assert_allclose(planned.grid.corners(), image.grid.corners(), atol=3)  # the same extent


def test_an_unknown_spacing_is_taken_to_be_the_models():
    planned = plan(image_of(np.random.default_rng(0).random((10, 12, 14))), PreprocessSpec(anisotropy=2.2))
    assert planned.spacing == planned.model_spacing == (2.2, 1.0, 1.0)
    assert planned.notes == ("spacing unknown: z is taken to be 2.2 times coarser than in plane",)
    flat = plan(image_of(np.random.default_rng(0).random((12, 14))), PreprocessSpec(anisotropy=2.2))
    assert (flat.spacing, flat.factor, flat.notes) == ((1, 1), (1, 1), ())


def test_a_fixed_spacing_is_resampled_to():
    image = image_of(np.random.default_rng(0).random((20, 30)), (0.5, 2.0))
    planned = plan(image, PreprocessSpec(spacing=(1.0, 1.0)))
    assert planned.grid.shape == (10, 60)
    assert planned.grid.spacing == pytest.approx((1, 1)) == planned.model_spacing
    with pytest.raises(InputError, match="--spacing"):
        plan(image_of(np.ones((20, 30))), PreprocessSpec(spacing=(1.0, 1.0)))
    with pytest.raises(ModelError, match="works in 3-D, the image is 2-D"):
        plan(image, PreprocessSpec(spacing=(1.0, 1.0, 1.0)))


def test_labels_go_onto_the_models_grid_unmixed():
    labels = np.zeros((4, 6), np.int32)
    labels[:, :3], labels[:, 3:] = 1, 2**31 - 1
    planned = plan(image_of(labels, (1.0, 1.0)), PreprocessSpec(spacing=(0.5, 2.0)))
    out = planned.to_model_labels(labels)
    assert out.shape == (8, 3) and out.dtype == np.int32
    assert set(out.ravel().tolist()) == {1, 2**31 - 1}


def test_resize_aligns_edges():
    np.testing.assert_allclose(resize(np.array([0.0, 1.0]), (4,), 1), [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(resize(np.array([0.0, 1, 2, 3]), (2,), 1), [0.5, 2.5])
    assert resize(np.array([[1, 2], [3, 4]], np.int32), (4, 2), 0).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    same = np.ones((3, 3))
    assert resize(same, (3, 3), 1) is same


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 2), (11, 4, 9)])
def test_resize_gives_the_shape_and_keeps_a_constant(shape):
    out = resize(np.full((5, 6, 7), 3.5, np.float32), shape, 1)
    assert out.shape == shape and out.dtype == np.float32 and (out == 3.5).all()


# --- several images


def test_images_on_one_grid_are_stacked_in_the_order_named():
    one, two = (image_of(np.full((4, 5), v, np.uint8), 1.0, modality="MR") for v in (1, 2))
    both = combine({"t1": one, "flair": two})
    assert both.channels == ("t1", "flair") and both.modality == "MR"
    assert both.grid == one.grid
    assert both.voxels()[:, 0, 0].tolist() == [1, 2]


def test_images_stacked_have_the_hash_of_all_their_files(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    images = [image_of(np.zeros((4, 5), np.uint8), 1.0) for _ in range(3)]
    a, b, c = (
        replace(image, source=Source((tmp_path / name,), "tiff", {}, ("mm is assumed",)))
        for image, name in zip(images, "abc", strict=True)
    )
    both, other = combine({"x": a, "y": b}).source, combine({"x": a, "y": c}).source
    assert both.content_hash() != other.content_hash() and both.notes == ("mm is assumed",)
    assert combine({"x": a, "y": images[0]}).source is None  # half a source would vouch for the whole


def test_the_others_are_resampled_onto_the_first():
    rng = np.random.default_rng(0)
    first = image_of(rng.random((6, 8, 9)), (2.0, 1.0, 1.0))
    second = image_of(rng.integers(0, 99, (12, 9, 9)).astype(np.int16), (1.0, 0.9, 1.1))
    both = combine({"a": first, "b": second})
    assert both.grid == first.grid
    expected = onto(second.voxels()[0].astype(np.float32), second.grid, first.grid, order=1)
    np.testing.assert_array_equal(both.voxels()[1], expected)
    assert (expected != np.rint(expected)).any()  # integers are not cut off between voxels


def framed(frame, shape=(4, 4, 4), spacing=1.0):
    return Image(np.zeros((1, *shape)), replace(Grid.from_spacing(shape, spacing), frame=frame))


def test_images_that_do_not_lie_in_one_space_are_refused():
    with pytest.raises(GeometryError, match="b: does not lie in the space of a: .* register"):
        combine({"a": framed("1.2"), "b": framed("1.3")})
    assert combine({"a": framed("1.2"), "b": framed(None), "c": framed("1.2", (5, 5, 5), 0.8)}).channels == (
        "a",
        "b",
        "c",
    )
    unknown = image_of(np.zeros((4, 4, 5)))
    for other in (unknown, image_of(np.zeros((4, 4)), 1.0)):
        with pytest.raises(GeometryError, match="b: (the shapes differ|does not lie in the space of a)"):
            combine({"a": framed(None), "b": other})
    same = image_of(np.zeros((4, 4, 5)))  # without any spacing, equal shapes are all there is to go by
    assert combine({"a": unknown, "b": same}).channels == ("a", "b")


def test_a_named_input_has_one_channel():
    with pytest.raises(InputError, match="b: has 3 channels"):
        combine({"a": image_of(np.zeros((8, 8))), "b": colour(red=1, green=2, blue=3)})


def test_a_channel_that_may_be_absent_is_seen_as_zeros():
    spec = PreprocessSpec(channels=("FLAIR", "T1"), optional=("T1",), joint=False, low=0, high=100)
    rng = np.random.default_rng(0)
    both = rng.uniform(1, 2, (2, 6, 6, 6)).astype(np.float32)
    grid = Grid.from_spacing((6, 6, 6), 1.0)
    whole = (slice(None),) * 3
    one = Image(both[:1], grid, modality="MR", channels=("flair",))
    two = Image(both[::-1], grid, modality="MR", channels=("t1", "flair"))
    alone, paired = (plan(i, spec) for i in (one, two))
    assert alone.channels == (0, -1) and paired.channels == (1, 0)
    assert "without T1" in alone.notes
    assert not alone.read(one, whole)[1].any()
    assert alone.read(one, whole)[0] == pytest.approx(paired.read(two, whole)[0])
    nameless = Image(both[:1], grid, modality="MR", channels=("gray",))
    assert plan(nameless, spec).channels == (0, -1)
    with pytest.raises(ModelError, match="wants the channels"):
        plan(Image(np.ones((3, 6, 6, 6), np.float32), grid, channels=("a", "b", "c")), spec)


def test_levels_of_what_was_cut_out_do_not_depend_on_how_much_air_is_around():
    spec = PreprocessSpec(inside=True, low=5, high=75)
    brain = np.random.default_rng(0).uniform(50, 100, (8, 8, 8)).astype(np.float32)
    small = Image(np.pad(brain, 2)[np.newaxis], Grid.from_spacing((12, 12, 12), 1.0))
    large = Image(np.pad(brain, 10)[np.newaxis], Grid.from_spacing((28, 28, 28), 1.0))
    one, two = (plan(i, spec) for i in (small, large))
    assert (one.low, one.high) == (two.low, two.high)
    assert 50 < one.low < 60 and 80 < one.high < 95


def test_a_whole_head_is_refused_where_a_brain_is_wanted_and_a_mask_helps():
    spec = PreprocessSpec(inside=True)
    rng = np.random.default_rng(0)
    grid = Grid.from_spacing((40, 50, 50), 4.0)
    index = np.stack(np.meshgrid(*[np.arange(n) - n / 2 for n in grid.shape], indexing="ij"), -1)
    far = np.linalg.norm(index / (18, 23, 23), axis=-1)
    noisy = Image(rng.uniform(1, 2, (1, *grid.shape)).astype(np.float32), grid, modality="MR")
    masked_air = Image(np.where(far < 1, noisy.voxels(), 0), grid, modality="MR")  # a head of 2.5 litres
    brain = Instances.from_labels((far < 0.8).astype(np.int32), grid)
    for head in (noisy, masked_air):
        with pytest.raises(InputError, match="whole head"):
            plan(head, spec)
        cut = masked(head, brain)
        assert not cut.voxels()[0][far >= 0.8].any()
        assert plan(cut, spec).low > 0.9
    with pytest.raises(InputError, match="no voxel"):
        masked(noisy, Instances.from_labels(np.zeros(grid.shape, np.int32), grid))
