"""Images: nothing copied, nothing read too early, nothing guessed."""

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import FormatError, GeometryError, InputError, MissingError
from medseg.grid import Grid
from medseg.image import Image, LazyArray, Source


class Reader:
    """Counts how often it is asked for its voxels."""

    def __init__(self, values):
        self.values, self.calls = values, 0

    def __call__(self):
        self.calls += 1
        return self.values


@pytest.fixture
def lazy():
    reader = Reader(np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4))
    return reader, LazyArray((2, 3, 4), np.int16, reader)


# --- lazy arrays ------------------------------------------------------------------------------------------------------


def test_lazy_array_reads_once_and_late(lazy):
    reader, array = lazy
    assert (array.shape, array.dtype, array.ndim, array.loaded) == ((2, 3, 4), np.int16, 3, False)
    assert "loaded=False" in repr(array)
    assert reader.calls == 0
    assert array[1, 2, 3] == 23
    np.testing.assert_array_equal(np.asarray(array), reader.values)
    np.testing.assert_array_equal(array[:, ::2], reader.values[:, ::2])
    assert reader.calls == 1


def test_lazy_array_converts_and_copies_on_request(lazy):
    array = lazy[1]
    assert np.asarray(array, dtype=np.float32).dtype == np.float32
    copy = np.array(array)
    copy[0] = 0
    assert array[0, 0, 1] == 1
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(array)[0] = 0


def test_lazy_array_reads_once_from_many_threads():
    gate = threading.Barrier(8)
    calls = []

    def read():
        calls.append(threading.get_ident())
        threading.Event().wait(0.02)
        return np.ones((2, 2), np.uint8)

    array = LazyArray((2, 2), np.uint8, read)

    def touch():
        gate.wait()
        assert array[0, 0] == 1

    threads = [threading.Thread(target=touch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


@pytest.mark.parametrize(
    "values", [np.ones((2, 4), np.int16), np.ones((3, 2), np.int16), np.ones((2, 3)), np.ones((2, 3), np.uint16)]
)
def test_lazy_array_refuses_voxels_other_than_promised(values):
    with pytest.raises(FormatError, match="promises"):
        LazyArray((2, 3), np.int16, lambda: values)[0]


def test_lazy_array_accepts_another_byte_order():
    array = LazyArray((2,), np.int16, lambda: np.array([1, 300], ">i2"))
    assert np.asarray(array).dtype == np.int16
    assert array[1] == 300


def test_lazy_array_keeps_a_narrower_type_of_the_same_kind():
    array = LazyArray((2,), np.int32, lambda: np.array([1, 300], np.int16))
    assert array.dtype == np.int32
    assert array[1] == 300
    assert array.dtype == array[:].dtype == np.int16
    assert LazyArray((1,), np.int32, lambda: np.array([7], np.uint8))[:].dtype == np.int32


def test_lazy_array_tries_again_after_a_failed_read():
    answers = iter([np.ones(3, np.int16), np.ones(2, np.int16)])
    array = LazyArray((2,), np.int16, lambda: next(answers))
    with pytest.raises(FormatError):
        array[0]
    assert array[0] == 1


# --- sources ----------------------------------------------------------------------------------------------------------


def test_source_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"one" * 500_000)
    (tmp_path / "b").write_bytes(b"two")
    source = Source((tmp_path / "a", tmp_path / "b"), "test")
    expected = hashlib.sha256(b"one" * 500_000 + b"two").hexdigest()
    assert source.content_hash() == expected
    assert source.key == expected[:12]
    assert Source((tmp_path / "b", tmp_path / "a"), "test").key != source.key
    moved = (tmp_path / "a").rename(tmp_path / "c")
    assert Source((moved, tmp_path / "b"), "test").key == source.key


def test_source_hashes_folders_in_order_of_name(tmp_path):
    for name in ("2", "1"):
        (tmp_path / "x.zarr" / name).mkdir(parents=True)
        (tmp_path / "x.zarr" / name / "c").write_bytes(name.encode())
    assert Source((tmp_path / "x.zarr",), "zarr").content_hash() == hashlib.sha256(b"12").hexdigest()


def test_source_without_its_file(tmp_path):
    with pytest.raises(MissingError, match=r"gone\.nii"):
        Source((tmp_path / "gone.nii",), "nifti").content_hash()


def test_source_defaults():
    source = Source((Path("a"),), "png")
    assert (dict(source.uids), source.notes) == ({}, ())
    assert isinstance(hash(source), int)


# --- from_array -------------------------------------------------------------------------------------------------------


def test_array_is_not_copied_and_read_only():
    values = np.zeros((4, 5), np.float32)
    image = Image.from_array(values, (2.0, 1.0))
    assert np.shares_memory(image.array, values)
    assert image.array.shape == (1, 4, 5)
    with pytest.raises(ValueError, match="read-only"):
        image.array[0, 0, 0] = 1
    values[0, 0] = 3  # the caller's own array stays writable
    assert image.grid == Grid.from_spacing((4, 5), (2.0, 1.0))


@pytest.mark.parametrize(
    "shape, channel_axis, expected, grid",
    [
        ((4, 5), None, (1, 4, 5), (4, 5)),
        ((3, 4, 5), None, (1, 3, 4, 5), (3, 4, 5)),
        ((4, 5, 3), -1, (3, 4, 5), (4, 5)),
        ((3, 4, 5), 0, (3, 4, 5), (4, 5)),
        ((6, 2, 4, 5), 1, (2, 6, 4, 5), (6, 4, 5)),
    ],
)
def test_shapes_and_channel_axes(shape, channel_axis, expected, grid):
    values = np.arange(np.prod(shape)).reshape(shape)
    image = Image.from_array(values, channel_axis=channel_axis)
    assert (image.array.shape, image.grid.shape) == (expected, grid)
    if channel_axis is not None:
        np.testing.assert_array_equal(image.array[1], np.take(values, 1, channel_axis))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float16", "float32", "float64"])
def test_number_types_are_kept(dtype):
    assert Image.from_array(np.zeros((2, 2), dtype)).array.dtype == dtype


def test_bool_becomes_uint8():
    image = Image.from_array(np.array([[True, False]]))
    assert image.array.dtype == np.uint8
    assert image.array.tolist() == [[[1, 0]]]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Image.from_array(np.zeros(5)), "spatial axes"),
        (lambda: Image.from_array(np.zeros((2, 2, 2, 2))), "channel_axis"),
        (lambda: Image.from_array(np.zeros((1, 1, 1, 1, 2))), "spatial axes"),
        (lambda: Image.from_array(np.zeros((4, 4)), channel_axis=0), "spatial axes"),
        (lambda: Image.from_array(np.zeros((4, 4, 3)), channel_axis=3), "not an axis"),
        (lambda: Image.from_array(np.zeros((0, 4))), "no voxels"),
        (lambda: Image.from_array(np.zeros((4, 4), complex)), "complex"),
        (lambda: Image.from_array(np.array([["a", "b"]], dtype=object)), "object"),
        (lambda: Image.from_array(np.zeros((4, 4)), modality="ct"), "Modality"),
        (lambda: Image.from_array(np.zeros((4, 4)), channels=("a", "b")), "Channel names"),
        (lambda: Image.from_array(np.zeros((2, 4, 4)), channels=("a", "a"), channel_axis=0), "different"),
        (lambda: Image(np.zeros((4, 4)), Grid.from_spacing((4, 4))), "do not fit"),
        (lambda: Image(np.zeros((1, 4, 5)), Grid.from_spacing((4, 4))), "do not fit"),
        (lambda: Image(LazyArray((1, 4, 4), "bool", lambda: None), Grid.from_spacing((4, 4))), "bool"),
    ],
)
def test_unusable_arrays_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_spacing_must_fit_the_spatial_axes():
    with pytest.raises(GeometryError, match="spacing"):
        Image.from_array(np.zeros((3, 4, 5)), (1, 1, 1), channel_axis=0)


@pytest.mark.parametrize(
    "spacing, modality, unit",
    [(None, "microscopy", "px"), (1.0, "microscopy", "um"), (1.0, "CT", "mm"), (None, "CT", "px")],
)
def test_length_unit(spacing, modality, unit):
    assert Image.from_array(np.zeros((3, 3)), spacing, modality=modality).length_unit == unit


# --- regions, crops, channels -----------------------------------------------------------------------------------------


@pytest.fixture
def volume():
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    return Image.from_array(values, (3, 2, 1), channel_axis=0, modality="MR", channels=("t1", "t2"))


def test_voxels_of_a_region(volume):
    region = (slice(0, 2), slice(1, 4, 2), slice(None))
    np.testing.assert_array_equal(volume.voxels(region), np.asarray(volume.array)[:, 0:2, 1:4:2])
    assert volume.voxels().shape == (2, 3, 4, 5)
    for bad in ((slice(None),), (0, slice(None), slice(None))):
        with pytest.raises(InputError, match="slices"):
            volume.voxels(bad)


def test_crop_moves_the_grid_with_the_voxels(volume):
    part = volume.crop((1, 0, 2), (3, 3, 5))
    assert np.shares_memory(part.array, volume.array)
    np.testing.assert_array_equal(part.array, volume.array[:, 1:3, 0:3, 2:5])
    assert part.grid.to_world([0, 0, 0]).tolist() == volume.grid.to_world([1, 0, 2]).tolist()
    assert (part.modality, part.channels) == ("MR", ("t1", "t2"))
    with pytest.raises(GeometryError, match="leaves"):
        volume.crop((0, 0, 0), (9, 1, 1))


def test_select_by_name_and_number(volume):
    assert volume.select("t2").channels == ("t2",)
    assert volume.select("1").channels == ("t2",)
    plate = replace(volume, channels=("1", "2"))
    assert plate.select("1").channels == ("1",) and plate.select(1).channels == ("2",)
    both = volume.select([1, "t1"])
    assert both.channels == ("t2", "t1")
    np.testing.assert_array_equal(both.array, np.asarray(volume.array)[[1, 0]])
    for bad in ("flair", 2, -1, []):
        with pytest.raises(InputError, match="channel"):
            volume.select(bad)


def test_crop_and_select_leave_lazy_voxels_unread(lazy):
    reader, array = lazy
    image = Image(array, Grid.from_spacing((3, 4), 1.0), channels=("a", "b"))
    part = image.crop((1, 1), (3, 3)).select("b")
    assert reader.calls == 0
    assert part.array.shape == (1, 2, 2)
    np.testing.assert_array_equal(part.voxels(), reader.values[1:, 1:3, 1:3])
    image.voxels()
    assert reader.calls == 1


def test_check_finite_counts_and_keeps_to_the_region():
    values = np.zeros((4, 4), np.float32)
    values[0, 0], values[0, 1], values[3, 3] = np.nan, np.inf, -np.inf
    image = Image.from_array(values)
    with pytest.raises(InputError, match=r"3 of 16 .*1 NaN, 2 infinite"):
        image.check_finite()
    image.check_finite((slice(1, 3), slice(None)))
    Image.from_array(np.zeros((2, 2), np.int16)).check_finite()


def test_repr_shows_no_voxels(volume):
    assert "array=" not in repr(volume)


# --- onto another grid


def test_a_ramp_on_another_grid_has_the_value_of_the_place():
    grid = Grid.from_spacing((6, 8, 9), (2.0, 1.0, 0.5))
    z, y, x = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
    place = grid.to_world(np.stack([z, y, x], axis=-1))
    image = Image((place @ [3.0, 5.0, 7.0])[None].astype(np.int32), grid, "CT")
    target = grid.crop((1, 1, 1), (5, 7, 8)).resample((1.0, 0.8, 0.9))
    moved = image.on(target)
    assert isinstance(moved.array, LazyArray) and not moved.array.loaded and moved.grid == target
    inside = target.to_world(np.argwhere(np.ones(target.shape)))
    whole = Image((place @ [3.0, 5.0, 7.0])[None], grid, "CT").on(target).voxels().ravel()
    np.testing.assert_allclose(whole, inside @ [3.0, 5.0, 7.0], atol=1e-4)
    assert moved.voxels().dtype == np.float32 and np.abs(moved.voxels().ravel() - whole).max() < 1


def test_beyond_an_image_lies_its_lowest_value():
    image = Image(np.array([[[-1000, 50], [60, 70]], [[5, 6], [7, 8]]]), Grid.from_spacing((2, 2), 1.0))
    moved = image.on(image.grid.pad((1, 0), (0, 0))).voxels()
    assert moved[:, 0].tolist() == [[-1000, -1000], [5, 5]] and moved[0, 1:].tolist() == [[-1000, 50], [60, 70]]


def test_an_image_on_its_own_grid_is_itself():
    image = Image(np.zeros((1, 4, 5), np.uint8), Grid.from_spacing((4, 5), 1.0))
    assert image.on(Grid.from_spacing((4, 5), 1.0)) is image
    with pytest.raises(GeometryError, match="no common world"):
        image.on(Grid.from_spacing((4, 5)))
    with pytest.raises(GeometryError, match="frames of reference"):
        one, two = (replace(image, grid=replace(image.grid, frame=f)) for f in "ab")
        one.on(two.grid)
