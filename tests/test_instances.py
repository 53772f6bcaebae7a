"""Candidates and instances: drawn arrays with the answer beside them, and properties against plain loops."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medseg.candidates import Candidates
from medseg.errors import GeometryError, InputError, MedsegWarning
from medseg.grid import Grid
from medseg.instances import Instances

settings.register_profile("medseg", deadline=None, max_examples=60)
settings.load_profile("medseg")

DRAWN = np.array(
    [
        [5, 5, 0, 0, 0, 0],
        [5, 0, 0, 2, 2, 0],
        [0, 0, 0, 2, 2, 0],
        [0, 0, 0, 0, 0, 5],
        [0, 0, 0, 0, 0, 0],
    ]
)
label_arrays = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
    elements=st.sampled_from([0, 0, 1, 3, 4, 70_000, 2**31 - 1]),
)


# --- candidates -------------------------------------------------------------------------------------------------------


def test_candidates_from_a_drawn_array():
    found = Candidates.from_labels(DRAWN, scores=[0.25, 0.5], classes=[2, 1])
    assert found.boxes.tolist() == [[1, 3, 3, 5], [0, 0, 4, 6]]
    assert (found.scores.tolist(), found.classes.tolist(), len(found)) == ([0.25, 0.5], [2, 1], 2)
    assert (found.scores.dtype, found.classes.dtype) == (np.float32, np.int32)
    assert found.masks[0].all() and found.masks[1].sum() == 4


@given(label_arrays)
def test_candidates_round_trip(labels):
    found = Candidates.from_labels(labels)
    painted, lost = found.paint()
    ids = [0, *sorted(set(labels.ravel().tolist()) - {0})]
    np.testing.assert_array_equal(np.array(ids)[painted], labels)
    assert not lost.any() and len(lost) == len(ids) - 1
    for mask in found.masks:  # boxes are tight
        assert all(mask.any(axis=tuple(set(range(mask.ndim)) - {a}))[[0, -1]].all() for a in range(mask.ndim))


def bars(scores):
    """Three bars of 3 voxels on a row of 5: 0-2, 1-3, 2-4."""
    boxes = [[0, 0, 1, 3], [0, 1, 1, 4], [0, 2, 1, 5]]
    return Candidates(np.array(boxes), scores, [1, 1, 1], (np.ones((1, 3), bool),) * 3, (1, 5))


@pytest.mark.parametrize(
    "scores, order, expected, lost",
    [
        ([0.1, 0.2, 0.3], "score", [1, 2, 3, 3, 3], [2, 2, 0]),
        ([0.3, 0.2, 0.1], "score", [1, 1, 1, 2, 3], [0, 2, 2]),
        ([0.5, 0.5, 0.5], "score", [1, 1, 1, 2, 3], [0, 2, 2]),
        ([np.nan, 0.2, 0.1], "score", [1, 2, 2, 2, 3], [2, 0, 2]),
        ([0.1, 0.2, 0.3], "index", [1, 1, 1, 2, 3], [0, 2, 2]),
    ],
)
def test_paint_lets_one_win_and_counts_the_losses(scores, order, expected, lost):
    labels, gone = bars(scores).paint(order)
    assert labels.dtype == np.int32
    assert labels.tolist() == [expected]
    assert gone.tolist() == lost


def test_take_and_empty():
    found = bars([0.1, 0.2, 0.3])
    assert found.take([2, 0]).boxes[:, 1].tolist() == [2, 0]
    assert found.take(np.array([False, True, False])).scores.tolist() == pytest.approx([0.2])
    assert len(found.take([])) == 0
    empty = Candidates.empty((4, 5))
    assert (len(empty), empty.paint()[0].sum(), empty.paint()[1].shape) == (0, 0, (0,))
    for bad in ([3], [-1], [0.5], np.array([True])):
        with pytest.raises(InputError):
            found.take(bad)


def test_shift_moves_clips_and_drops():
    found = bars([0.1, 0.2, 0.3])
    same = found.shift((1, 2), (4, 9))
    assert same.boxes.tolist() == [[1, 2, 2, 5], [1, 3, 2, 6], [1, 4, 2, 7]]
    left = found.shift((0, -3), (1, 5))  # the first falls off, the second keeps 1 voxel, the third 2
    assert left.boxes.tolist() == [[0, 0, 1, 1], [0, 0, 1, 2]]
    assert left.scores.tolist() == pytest.approx([0.2, 0.3])
    assert left.shape == (1, 5)
    with pytest.raises(InputError):
        found.shift((1,), (4, 9))


@given(label_arrays, st.data())
def test_shift_is_paste(labels, data):
    offset = [data.draw(st.integers(-4, 4)) for _ in labels.shape]
    shape = [data.draw(st.integers(1, 8)) for _ in labels.shape]
    expected = np.zeros(shape, bool)
    for index in np.argwhere(labels):
        moved = index + offset
        if (moved >= 0).all() and (moved < shape).all():
            expected[tuple(moved)] = True
    painted, _ = Candidates.from_labels(labels).shift(offset, shape).paint()
    np.testing.assert_array_equal(painted > 0, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": np.array([[0, 0, 1, 6]])},
        {"boxes": np.array([[-1, 0, 0, 3]])},
        {"boxes": np.array([[0, 0, 1, 2]])},
        {"boxes": np.array([[0, 3, 1, 3]])},
        {"boxes": np.array([[0, 1]])},
        {"scores": [0.1, 0.2]},
        {"scores": [np.inf]},
        {"classes": [0]},
        {"masks": (np.ones((1, 3), np.uint8),)},
        {"masks": (np.zeros((1, 3), bool),)},
        {"masks": ()},
    ],
)
def test_candidates_that_do_not_fit_are_refused(change):
    one = bars([0.1, 0.2, 0.3]).take([0])
    with pytest.raises(InputError):
        replace(one, **change)


def test_three_thousand_objects_are_quick():
    labels = np.kron(np.arange(1, 3137, dtype=np.int32).reshape(56, 56), np.ones((36, 36), np.int32))
    labels = np.pad(labels, ((0, 32), (0, 32)))
    labels[::36], labels[:, ::36] = 0, 0
    start = time.process_time()
    found = Candidates.from_labels(labels)
    assert time.process_time() - start < 1.0  # 0.05 s on an idle core; wide, so that a busy machine does not fail it
    assert len(found) == 3136
    assert all(mask.shape == (35, 35) for mask in found.masks)


# --- the table --------------------------------------------------------------------------------------------------------


def test_table_of_a_drawn_array():
    grid = Grid.from_spacing((5, 6), (2.0, 0.5), origin=(10, 20))
    cells = Instances.from_labels(DRAWN, grid, scores=[0.25, 0.5], class_ids=[2, 1], classes=("a", "b"))
    expected = pd.DataFrame(
        {
            "id": np.array([2, 5], np.int32),
            "class": pd.Series(["b", "a"], dtype="str"),
            "score": [0.25, 0.5],
            "voxels": [4, 4],
            "area_mm2": [4.0, 4.0],
            "centroid_y": [1.5, 1.0],
            "centroid_x": [3.5, 1.5],
            "centroid_x_mm": [11.75, 10.75],
            "centroid_y_mm": [23.0, 22.0],
            "box_y_start": [1, 0],
            "box_y_stop": [3, 4],
            "box_x_start": [3, 0],
            "box_x_stop": [5, 6],
            "touches_border": [False, True],
            "pieces": [1, 2],
        }
    )
    pd.testing.assert_frame_equal(cells.table, expected)
    assert len(cells) == 2
    assert cells.mask(5).sum() == 4
    with pytest.raises(InputError, match="no instance 3"):
        cells.mask(3)


@given(label_arrays)
def test_table_agrees_with_plain_loops(labels):
    grid = Grid.from_spacing(labels.shape, (3.0, 2.0, 0.5)[: labels.ndim])
    table = Instances.from_labels(labels, grid).table
    assert table["id"].tolist() == sorted(set(labels.ravel().tolist()) - {0})
    assert table["score"].isna().all()
    measure = "volume_mm3" if labels.ndim == 3 else "area_mm2"
    for row in table.to_dict("records"):
        where = np.argwhere(labels == row["id"])
        assert row["voxels"] == len(where)
        assert row[measure] == pytest.approx(len(where) * grid.voxel_size)
        world = grid.to_world(where.mean(axis=0))
        for i, axis in enumerate(grid.axes):
            assert row[f"centroid_{axis}"] == pytest.approx(where[:, i].mean())
            assert row[f"centroid_{axis}_mm"] == pytest.approx(world["xyz".index(axis)])
            assert (row[f"box_{axis}_start"], row[f"box_{axis}_stop"]) == (where[:, i].min(), where[:, i].max() + 1)
        edge = [(w == 0) | (w == size - 1) for w, size in zip(where.T, labels.shape, strict=True) if size > 1]
        assert row["touches_border"] == bool(np.any(edge))
        assert row["pieces"] == ndimage.label(labels == row["id"], np.ones((3,) * labels.ndim))[1]


@pytest.mark.parametrize("shape, spacing", [((3, 4), 1.0), ((2, 3, 4), 1.0), ((3, 4), None)])
def test_no_instances_is_a_normal_value(shape, spacing):
    grid = Grid.from_spacing(shape, spacing)
    none = Instances.from_labels(np.zeros(shape, np.uint8), grid)
    one = Instances.from_labels(np.ones(shape, np.uint8), grid)
    assert len(none) == 0 and len(one) == 1
    assert none.table.columns.tolist() == one.table.columns.tolist()
    pd.testing.assert_series_equal(none.table.dtypes, one.table.dtypes)
    assert len(none.relabel()) == len(none.on(grid)) == len(none.table_in("px")) == 0
    assert len(Instances.from_candidates(Candidates.empty(shape), grid)) == 0


def test_unknown_spacing_is_measured_in_pixels():
    cells = Instances.from_labels(DRAWN, Grid.from_spacing((5, 6)))
    assert cells.table["area_px"].tolist() == [4, 4]
    assert not [name for name in cells.table if "mm" in name]
    pd.testing.assert_frame_equal(cells.table_in("px"), cells.table)
    with pytest.raises(GeometryError, match="unknown"):
        cells.table_in("um")


@pytest.mark.parametrize("ndim, measure", [(2, "area"), (3, "volume")])
def test_table_in_other_units(ndim, measure):
    labels = np.ones((2, 3, 4)[:ndim], int)
    cells = Instances.from_labels(labels, Grid.from_spacing(labels.shape, 0.5, unit="um", origin=(1, 2, 3)[:ndim]))
    um = cells.table_in("um")
    assert um[f"{measure}_um{ndim}"].tolist() == pytest.approx([labels.size * 0.5**ndim])
    world = cells.table["centroid_x"][0] * 0.5 + 1
    assert um["centroid_x_um"].tolist() == pytest.approx([world])
    assert not [name for name in um if "_mm" in name]
    assert um["centroid_x"].tolist() == cells.table["centroid_x"].tolist()
    px = cells.table_in("px")
    assert px[f"{measure}_px"].tolist() == [labels.size]
    assert not [name for name in px if "_mm" in name]
    pd.testing.assert_frame_equal(cells.table_in("mm"), cells.table)
    assert f"{measure}_mm{ndim}" in cells.table  # the original is untouched
    with pytest.raises(InputError):
        cells.table_in("cm")


# --- what comes in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "uint64", "float32", "float64", ">i4"])
def test_whole_labels_of_any_type(dtype):
    cells = Instances.from_labels(DRAWN.astype(dtype), Grid.from_spacing((5, 6)))
    assert cells.labels.dtype == np.int32
    np.testing.assert_array_equal(cells.labels, DRAWN)


def test_labels_are_owned_and_read_only():
    labels = DRAWN.astype(np.int32)
    cells = Instances.from_labels(labels, Grid.from_spacing((5, 6)))
    labels[:] = 0
    assert cells.labels.any()
    with pytest.raises(ValueError, match="read-only"):
        cells.labels[0] = 1
    again = Instances.from_labels(cells.relabel().labels, cells.grid)  # contiguous ids in a read-only array
    assert again.table["pieces"].tolist() == [1, 2]
    transposed = Instances.from_labels(DRAWN.T, Grid.from_spacing((6, 5)))
    np.testing.assert_array_equal(transposed.labels, DRAWN.T)


GRID = Grid.from_spacing((1, 2))


@pytest.mark.parametrize(
    "labels, keywords, words",
    [
        ([[0.5, 1]], {}, "fractional"),
        ([[np.nan, 1]], {}, "NaN"),
        ([[np.inf, 1]], {}, "infinite"),
        ([[-1, 1]], {}, "negative"),
        ([[-1.0, 1.0]], {}, "negative"),
        ([[2**31, 1]], {}, "2147483648"),
        (np.array([[2**64 - 1, 1]], np.uint64), {}, "largest id"),
        ([[1j, 1]], {}, "complex"),
        ([[1, 1, 1]], {}, "grid"),
        ([1, 1], {}, "must be"),
        ([[1, 2]], {"scores": [0.5]}, "Scores"),
        ([[1, 2]], {"class_ids": [1]}, "Class ids"),
        ([[1, 2]], {"class_ids": [1, 2]}, "Class ids"),
        ([[1, 2]], {"class_ids": [0, 1]}, "Class ids"),
        ([[1, 2]], {"classes": ()}, "Class names"),
        ([[1, 2]], {"classes": ("a", "a")}, "Class names"),
    ],
)
def test_labels_that_cannot_be_ids_are_refused(labels, keywords, words):
    with pytest.raises(InputError, match=words):
        Instances.from_labels(labels, GRID, **keywords)


def test_the_largest_id_is_kept():
    assert Instances.from_labels([[2**31 - 1, 0]], GRID).table["id"].tolist() == [2**31 - 1]


def test_from_candidates_records_what_overlap_cost():
    boxes = np.array([[0, 0, 1, 4], [0, 0, 1, 2], [0, 3, 1, 5]])
    masks = tuple(np.ones((1, n), bool) for n in (4, 2, 2))
    found = Candidates(boxes, [0.9, 0.1, 0.5], [1, 1, 2], masks, (1, 5))
    cells = Instances.from_candidates(found, Grid.from_spacing((1, 5)), classes=("a", "b"), provenance={"model": "m"})
    assert cells.labels.tolist() == [[1, 1, 1, 1, 3]]
    assert cells.table["class"].tolist() == ["a", "b"]
    assert cells.table["score"].tolist() == pytest.approx([0.9, 0.5])
    assert cells.provenance == {"model": "m", "voxels_lost": {2: 2, 3: 1}, "vanished": [2]}


# --- relabel and on ---------------------------------------------------------------------------------------------------


def test_relabel_closes_gaps_in_order():
    cells = Instances.from_labels(DRAWN, Grid.from_spacing((5, 6)), scores=[0.25, 0.5])
    new = cells.relabel()
    np.testing.assert_array_equal(new.labels, np.array([0, 0, 1, 0, 0, 2])[DRAWN])
    expected = Instances.from_labels(new.labels, cells.grid, scores=[0.25, 0.5])
    pd.testing.assert_frame_equal(new.table, expected.table)
    assert new.provenance["relabelled_from"] == [2, 5]
    assert new.relabel() is new
    # a second time, after one went and another came: what is known of the first ids is still found
    labels = np.where(new.labels == 1, 7, new.labels)
    twice = Instances.from_labels(labels, new.grid, provenance=new.provenance).relabel()
    assert twice.provenance["relabelled_from"] == [5, 0]


@given(label_arrays, st.data())
def test_on_a_turned_grid_is_the_turned_array(labels, data):
    linear = np.diag([0.8, 1.7, 3.0][: labels.ndim]) + 0.1 * np.eye(labels.ndim, k=1)
    affine = np.eye(labels.ndim + 1)
    affine[:-1, :-1], affine[:-1, -1] = linear, 7
    grid = Grid(labels.shape, affine)
    order = data.draw(st.permutations(range(labels.ndim)))
    flips = data.draw(st.sets(st.integers(0, labels.ndim - 1)))
    moved = Instances.from_labels(labels, grid).on(grid.permute(order).flip(*flips))
    np.testing.assert_array_equal(moved.labels, np.flip(labels.transpose(order), sorted(flips)))
    assert "vanished" not in moved.provenance


@given(label_arrays)
def test_on_a_finer_grid_repeats_and_comes_back(labels):
    cells = Instances.from_labels(labels, Grid.from_spacing(labels.shape, 2.0))
    finer = cells.on(cells.grid.resample(1.0))
    expected = labels
    for axis in range(labels.ndim):
        expected = np.repeat(expected, 2, axis)
    np.testing.assert_array_equal(finer.labels, expected)
    measure = "volume_mm3" if labels.ndim == 3 else "area_mm2"
    np.testing.assert_allclose(finer.table[measure], cells.table[measure])
    np.testing.assert_allclose(finer.table["centroid_x_mm"], cells.table["centroid_x_mm"])
    np.testing.assert_array_equal(finer.on(cells.grid.resample(2 / 3)).on(cells.grid).labels, labels)


def test_on_crops_pads_and_records_what_vanished():
    cells = Instances.from_labels(
        DRAWN, Grid.from_spacing((5, 6), 1.0), scores=[0.25, 0.5], class_ids=[2, 1], classes=("a", "b")
    )
    wide = cells.on(cells.grid.pad((1, 2), (3, 0)))
    np.testing.assert_array_equal(wide.labels, np.pad(DRAWN, ((1, 3), (2, 0))))
    with pytest.warns(MedsegWarning, match="5 of 8 labelled voxels, of 2 instances"):
        corner = cells.on(cells.grid.crop((0, 0), (2, 3)))
    np.testing.assert_array_equal(corner.labels, DRAWN[:2, :3])
    assert (corner.table["class"].tolist(), corner.table["score"].tolist()) == (["a"], [0.5])
    gone = {id: int((id == DRAWN).sum() - (DRAWN[:2, :3] == id).sum()) for id in (2, 5)}
    assert corner.provenance == {"vanished": [2], "outside": gone}
    with pytest.warns(MedsegWarning, match="3 of 3"):
        nothing = corner.on(cells.grid.crop((4, 0), (5, 2)))
    assert len(nothing) == 0
    assert nothing.provenance == {"vanished": [2, 5], "outside": {5: 3}}


def test_on_refuses_another_world():
    cells = Instances.from_labels([[1, 0]], replace(Grid.from_spacing((1, 2), 1.0), frame="1.2"))
    for other in (GRID, Grid.from_spacing((1, 1, 2), 1.0), replace(cells.grid, frame="1.3")):
        with pytest.raises(GeometryError):
            cells.on(other)
    assert len(cells.on(replace(cells.grid, frame=None))) == 1
