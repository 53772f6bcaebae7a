"""Surface distances: worked by hand on small shapes, against brute force, and the declared edge cases."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.measure import marching_cubes, mesh_surface_area

from medseg.candidates import Candidates
from medseg.errors import GeometryError, InputError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.metrics import match, overlap, surface
from medseg.metrics.areas import areas
from medseg.metrics.regions import boundary_f
from medseg.metrics.surface import box_of, instance_surfaces, surface_distances

BORDERS = pytest.mark.parametrize("borders", ["area", "voxels"])

# sums of squares of dyadic numbers are exact, so that no figure hangs on the last bit
sizes = st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0])


@st.composite
def masks(draw, both=True):
    """Two masks of one shape, 2-D or 3-D, with a spacing."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=6))
    one, two = (draw(hnp.arrays(np.bool_, shape)) for _ in range(2))
    if both:
        assume(one.any() and two.any())
    return one, two, tuple(draw(sizes) for _ in shape)


def figures(found):
    return [found.hd(100), found.hd(95), found.hd(50), found.assd(), found.masd(), found.nsd(0.5), found.nsd(1.5)]


def block(shape, *spans):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


# --- areas of the elements


def test_contour_lengths_of_all_sixteen_neighbourhoods():
    # voxel k lies at row k % 2, column k // 2; rows are 3 mm apart, columns 4 mm: half a diagonal is 2.5 mm
    expected = [0.0] * 16
    for corner in (0b0001, 0b0010, 0b0100, 0b1000):
        expected[corner] = expected[15 - corner] = 2.5
    expected[0b0011] = expected[0b1100] = 3.0  # one column is inside: the contour runs along the rows
    expected[0b0101] = expected[0b1010] = 4.0
    expected[0b1001] = expected[0b0110] = 5.0  # two diagonal voxels are apart: two corners
    assert areas((3.0, 4.0)).tolist() == expected


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.2)])
def test_areas_are_those_of_a_marching_cubes_mesh(size):
    """Where voxels touch by an edge only, scikit-image parts those inside; the table parts the fewer ones, so it gets these."""
    table = areas(size)
    for code in range(1, 255):
        inside = np.array([code >> k & 1 for k in range(8)], dtype=float).reshape(2, 2, 2).transpose(2, 1, 0)
        few = inside if inside.sum() <= 4 else 1 - inside
        sides = (few,) if few.sum() < 4 else (few, 1 - few)
        meshes = [marching_cubes(side, 0.5, spacing=size, method="lorensen")[:2] for side in sides]
        assert table[code] == pytest.approx(min(mesh_surface_area(*mesh) for mesh in meshes), rel=1e-5)


def test_areas_of_a_cube_of_ten_millimetres():
    cube = block((12, 12, 12), (1, 11), (1, 11), (1, 11))
    found = surface_distances(cube, cube, (1.0, 1.0, 1.0))
    # 6 faces of 9 x 9 whole elements, 12 edges of 9 elements cut at 45 degrees, 8 corners
    assert found.truth_areas.sum() == pytest.approx(6 * 81 + 12 * 9 * math.sqrt(2) / 2 + 8 * math.sqrt(3) / 8)
    assert len(found.truth_areas) == 486 + 108 + 8


def test_length_of_a_contour():
    # 3 x 2 pixels of 2 x 1 mm: straight pieces 2 x (2 rows x 2 mm) and 2 x (1 column x 1 mm), 4 corners of sqrt(5) / 2
    mask = block((5, 4), (1, 4), (1, 3))
    assert surface_distances(mask, mask, (2.0, 1.0)).truth_areas.sum() == pytest.approx(10 + 2 * math.sqrt(5))


# --- distances worked by hand


def test_two_voxels_along_an_axis():
    """Elements lie half a voxel above and below each voxel: 2 and 3 voxels from those of the other one."""
    truth, prediction = block((9, 3, 3), (2, 3), (1, 2), (1, 2)), block((9, 3, 3), (5, 6), (1, 2), (1, 2))
    found = surface_distances(truth, prediction, (2.5, 1.0, 1.0))
    assert found.to_prediction.tolist() == [5.0] * 4 + [7.5] * 4
    assert found.to_truth.tolist() == [5.0] * 4 + [7.5] * 4
    assert (found.hd(100), found.hd(95), found.hd(50)) == (7.5, 7.5, 5.0)
    assert found.assd() == pytest.approx(6.25) and found.masd() == pytest.approx(6.25)
    assert found.nsd(5.0) == pytest.approx(0.5)
    assert (found.nsd(4.99), found.nsd(7.5)) == (0.0, 1.0)


def test_two_voxels_by_their_centres():
    truth, prediction = block((9, 3, 3), (2, 3), (1, 2), (1, 2)), block((9, 3, 3), (5, 6), (1, 2), (1, 2))
    found = surface_distances(truth, prediction, (2.5, 1.0, 1.0), borders="voxels")
    assert figures(found) == [7.5] * 5 + [0.0] * 2


@BORDERS
def test_parallel_planes(borders):
    """Plates of 2 slices of 3 mm, 4 slices apart: upper surface to upper surface is 12 mm, and 12 mm only."""
    truth, prediction = block((12, 5, 5), (2, 4), (0, 5), (0, 5)), block((12, 5, 5), (2, 8), (0, 5), (0, 5))
    found = surface_distances(truth, prediction, (3.0, 1.0, 1.0), borders)
    assert found.hd(100) == 12.0
    assert found.to_prediction.max() <= 3.0  # the true upper face lies at the predicted plate's side


def test_pooled_and_directed_means_differ_where_the_surfaces_do():
    # one voxel, and the same voxel with another 4 px off: all of the first surface is at 0, half of the second is not
    truth, prediction = np.zeros((2, 3, 9), dtype=bool)
    truth[1, 1] = prediction[1, 1] = prediction[1, 5] = True
    found = surface_distances(truth, prediction)
    assert found.to_truth.tolist() == [0.0] * 4 + [3.0] * 2 + [4.0] * 2
    assert found.assd() == pytest.approx(14 / 12)  # 14 over 4 + 8 elements of equal length
    assert found.masd() == pytest.approx((0 + 14 / 8) / 2)


def test_percentiles_follow_the_area_and_not_the_number_of_elements():
    truth = np.array([[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0]]) > 0
    prediction = np.array([[0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0]]) > 0
    found = surface_distances(truth, prediction)
    # 6 straight elements of 1 and 6 corners of .707 lie on the true contour, the 2 corners of the tip 1 px off it:
    # 87.9 % of the length, 85.7 % of the elements
    assert found.to_truth.tolist() == [0.0] * 12 + [1.0] * 2
    assert (found.hd(87), found.hd(88)) == (0.0, 1.0)


def test_discs_with_one_centre():
    """Radii 20 and 23 mm: every part of either circle is 3 mm from the other, within a pixel's diagonal."""
    rows, columns = np.ogrid[:61, :121]
    squared = (rows - 30) ** 2 + (columns / 2 - 30) ** 2
    found = surface_distances(squared <= 20**2, squared <= 23**2, (1.0, 0.5))
    assert abs(found.hd(100) - 3) < math.hypot(1, 0.5) and abs(found.assd() - 3) < 0.5
    assert found.nsd(1.5) == 0.0 and found.nsd(4.2) == 1.0


def test_an_object_cut_by_the_image_has_a_surface_there():
    full = np.ones((4, 4, 4), dtype=bool)
    assert surface_distances(full, full).truth_areas.sum() == pytest.approx(
        6 * 9 + 12 * 3 * math.sqrt(2) / 2 + math.sqrt(3)
    )
    assert surface_distances(full, full, borders="voxels").truth_areas.sum() == 64 - 8


# --- against brute force


def elements(mask):
    """Places of the elements in voxels: neighbourhoods that are not all alike."""
    padded = np.pad(mask, 1)
    low, high = ndimage.minimum_filter(padded, 2, origin=0), ndimage.maximum_filter(padded, 2, origin=0)
    return np.argwhere(low != high) - 0.5


@given(masks())
def test_distances_are_those_of_all_pairs(drawn):
    truth, prediction, size = drawn
    found = surface_distances(truth, prediction, size)
    every = cdist(elements(truth) * size, elements(prediction) * size)
    np.testing.assert_allclose(found.to_prediction, np.sort(every.min(axis=1)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.to_truth, np.sort(every.min(axis=0)), rtol=0, atol=1e-12)


@given(masks())
def test_voxel_borders_are_those_of_an_erosion_and_a_distance_transform(drawn):
    truth, prediction, size = drawn
    found = surface_distances(truth, prediction, size, borders="voxels")
    a, b = (mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction))
    expected = np.sort(ndimage.distance_transform_edt(~b, sampling=size)[a])
    np.testing.assert_allclose(found.to_prediction, expected, rtol=0, atol=1e-12)
    assert len(found.to_truth) == b.sum() and (found.truth_areas == 1).all()


def test_the_tree_and_the_distance_transform_agree(monkeypatch):
    rng = np.random.default_rng(0)
    truth, prediction = ndimage.gaussian_filter(rng.random((2, 40, 60, 60)), (0, 2, 2, 2)) > 0.51
    results = []
    for dear in (False, True):
        monkeypatch.setattr(surface, "_SMALL", 0)
        monkeypatch.setattr(surface, "_dear", lambda *_, dear=dear: dear)
        results.append(surface_distances(truth, prediction, (2.0, 0.5, 1.5)))
    tree, transform = results
    np.testing.assert_array_equal(tree.to_truth, transform.to_truth)
    np.testing.assert_array_equal(tree.to_prediction, transform.to_prediction)


def test_equally_far_surfaces_are_left_to_the_distance_transform(monkeypatch):
    """A search in a tree would visit nearly all of the outer sphere from each place on the inner one."""
    z, y, x = np.ogrid[:64, :64, :64]
    squared = (z - 32) ** 2 + (y - 32) ** 2 + (x - 32) ** 2
    calls = []
    real = surface.distance_transform_edt
    monkeypatch.setattr(surface, "distance_transform_edt", lambda *a, **k: calls.append(1) or real(*a, **k))
    assert surface_distances(squared < 30**2, squared < 31**2).hd(100) <= 2
    assert not calls
    assert abs(surface_distances(squared < 12**2, squared < 30**2).hd(100) - 18) < 1
    assert calls


# --- properties


@BORDERS
@given(drawn=masks())
def test_figures_are_symmetric(drawn, borders):
    truth, prediction, size = drawn
    there, back = (
        figures(surface_distances(*pair, size, borders)) for pair in ((truth, prediction), (prediction, truth))
    )
    np.testing.assert_allclose(there, back, rtol=1e-12)


@BORDERS
@given(drawn=masks(), data=st.data())
def test_figures_do_not_depend_on_how_the_array_lies(drawn, borders, data):
    """Flips, a permutation of the axes with their spacing, and a margin change nothing."""
    truth, prediction, size = drawn
    before = figures(surface_distances(truth, prediction, size, borders))
    order = data.draw(st.permutations(range(truth.ndim)))
    flips = [axis for axis in range(truth.ndim) if data.draw(st.booleans())]
    margin = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=3))[: truth.ndim]
    turned = [np.pad(np.flip(mask.transpose(order), flips), margin) for mask in (truth, prediction)]
    after = figures(surface_distances(*turned, tuple(size[axis] for axis in order), borders))
    np.testing.assert_allclose(after, before, rtol=1e-12)


@BORDERS
@given(drawn=masks(), scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_distances_scale_with_the_spacing(drawn, borders, scale):
    truth, prediction, size = drawn
    one = surface_distances(truth, prediction, size, borders)
    two = surface_distances(truth, prediction, tuple(s * scale for s in size), borders)
    np.testing.assert_allclose(
        [two.hd(95), two.assd(), two.masd()], scale * np.array([one.hd(95), one.assd(), one.masd()])
    )
    assert two.nsd(0.75 * scale) == pytest.approx(one.nsd(0.75))
    power = truth.ndim - 1 if borders == "area" else 0
    assert two.truth_areas.sum() == pytest.approx(scale**power * one.truth_areas.sum())


@BORDERS
@given(drawn=masks(), steps=st.lists(st.floats(0, 10), min_size=2, max_size=5))
def test_figures_grow_with_tolerance_and_percentile(drawn, borders, steps):
    found = surface_distances(*drawn, borders)
    shares = [found.nsd(tau) for tau in sorted(steps)]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1 + 1e-12
    far = [found.hd(percent) for percent in (1, 25, 50, 75, 95, 100)]
    assert far == sorted(far) and found.nsd(far[-1]) == pytest.approx(1)
    assert found.assd() <= far[-1] and found.hd(100) <= found.diagonal


@BORDERS
@given(drawn=masks(both=False))
def test_a_mask_is_at_no_distance_from_itself(drawn, borders):
    truth, _, size = drawn
    assert figures(surface_distances(truth, truth, size, borders)) == [0.0] * 5 + [1.0] * 2


# --- declared edge cases


@BORDERS
def test_both_empty_is_perfect(borders):
    empty = np.zeros((4, 5), dtype=bool)
    found = surface_distances(empty, empty, (1.0, 2.0), borders)
    assert (found.hd(), found.hd(100), found.assd(), found.masd(), found.nsd(1.0)) == (0.0, 0.0, 0.0, 0.0, 1.0)


@BORDERS
@pytest.mark.parametrize("truth_empty", [True, False])
def test_one_empty_is_the_diagonal_of_the_image(borders, truth_empty):
    # 2 x 6, 4 x 2, 6 x 1.5 mm: sqrt(12^2 + 8^2 + 9^2) = 17
    one, none = block((2, 4, 6), (0, 1), (1, 2), (2, 3)), np.zeros((2, 4, 6), dtype=bool)
    pair = (none, one) if truth_empty else (one, none)
    found = surface_distances(*pair, (6.0, 2.0, 1.5), borders)
    assert (found.hd(), found.hd(100), found.assd(), found.masd(), found.nsd(100.0)) == (17.0, 17.0, 17.0, 17.0, 0.0)
    assert np.isinf(np.append(found.to_truth, found.to_prediction)).all()


def test_without_spacing_distances_are_in_voxels():
    truth, prediction = block((3, 9), (1, 2), (1, 2)), block((3, 9), (1, 2), (4, 5))
    assert surface_distances(truth, prediction).hd(100) == 3.0


def test_one_voxel_arrays():
    one = np.ones((1, 1, 1), dtype=bool)
    assert surface_distances(one, one, (1.0, 1.0, 2.0)).hd() == 0.0


def test_read_only_and_strided_masks():
    base = np.zeros((6, 6, 6), dtype=bool)
    base[1:5, 1:5, 1:5] = True
    view = base[::2, ::-1].transpose(2, 0, 1)
    view.flags.writeable = False
    assert surface_distances(view, view.copy(), (1.0, 2.0, 3.0)).nsd(0.0) == 1.0


@pytest.mark.parametrize(
    "change, said",
    [
        ({"truth": np.zeros((3, 3))}, "truth is float64"),
        ({"prediction": np.zeros((3, 3), dtype=np.int32)}, "prediction is int32"),
        ({"truth": np.zeros(3, dtype=bool), "prediction": np.zeros(3, dtype=bool)}, "shape \\(3,\\)"),
        ({"prediction": np.zeros((3, 4), dtype=bool)}, "both must be the same"),
        ({"borders": "pixels"}, "borders 'pixels'"),
    ],
)
def test_what_cannot_be_compared(change, said):
    given = {"truth": np.zeros((3, 3), dtype=bool), "prediction": np.zeros((3, 3), dtype=bool)}
    with pytest.raises(InputError, match=said):
        surface_distances(**{**given, **change})


@pytest.mark.parametrize("size", [(1.0,), (1.0, 0.0), (1.0, np.nan), (np.inf, 1.0), (-1.0, 1.0)])
def test_spacing_that_is_none(size):
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(GeometryError, match="spacing"):
        surface_distances(mask, mask, size)


@pytest.mark.parametrize("size", [0.1, 0.0001, 0.7, 1.0, 1.1])
def test_so_many_voxels_are_within_so_many_voxel_sizes(size):
    truth, prediction = np.zeros((2, 20, 30), bool)
    truth[5:12, 5:12] = prediction[5:12, 8:15] = True  # 3 voxels on
    found = surface_distances(truth, prediction, (size, size))
    assert found.nsd(float(f"{3 * size:.6g}")) == 1 and found.nsd(2.99 * size) < 1
    assert boundary_f(truth, prediction, float(f"{3 * size:.6g}"), (size, size)) == 1


def test_percentiles_and_tolerances_have_limits():
    mask = np.ones((3, 3), dtype=bool)
    found = surface_distances(mask, mask)
    for percent in (0, -5, 100.1, np.nan):
        with pytest.raises(InputError, match="percentile"):
            found.hd(percent)
    for tau in (-0.1, np.nan):
        with pytest.raises(InputError, match="tolerance"):
            found.nsd(tau)


def test_box_of_several_masks():
    one, two = block((5, 6), (1, 2), (4, 5)), block((5, 6), (3, 4), (2, 3))
    assert box_of(one, two) == (slice(1, 4), slice(2, 5))
    assert box_of(np.zeros((3, 3), dtype=bool)) is None


# --- matched objects


def two_sides():
    truth, prediction = np.zeros((2, 20, 24), dtype=np.int32)
    truth[2:8, 2:8], truth[10:18, 3:9], truth[4:9, 14:22] = 3, 8, 5
    prediction[3:9, 2:8], prediction[10:18, 3:9], prediction[15:19, 18:22] = 9, 2, 4
    return truth, prediction


@BORDERS
def test_matched_objects_are_measured_one_by_one(borders):
    truth, prediction = two_sides()
    size = (1.0, 0.5)
    table = overlap(truth, prediction, spacing=size)
    found = dict(instance_surfaces(truth, prediction, table, match(table)[1], borders))
    assert list(found) == [0, 2]  # object 5 has no partner
    for row, (i, j) in {0: (3, 9), 2: (8, 2)}.items():
        whole = surface_distances(truth == i, prediction == j, size, borders)
        assert figures(found[row]) == figures(whole) and found[row].diagonal == whole.diagonal
    assert found[0].hd(100) == 1.0 and found[2].hd(100) == 0.0


def test_matched_instances_and_candidates():
    truth, prediction = two_sides()
    expected = {0: 1.0, 2: 0.0}
    grid = Grid.from_spacing(truth.shape, (1.0, 0.5))
    sides = [Instances.from_labels(labels, grid) for labels in (truth, prediction)]
    candidates = Candidates.from_labels(prediction)
    for other in (sides[1], candidates):
        table = overlap(sides[0], other)
        found = instance_surfaces(sides[0], other, table, match(table)[1])
        assert {row: one.hd(100) for row, one in found} == expected


def test_partners_must_fit_the_table():
    truth, prediction = two_sides()
    table = overlap(truth, prediction)
    with pytest.raises(InputError, match="partners"):
        list(instance_surfaces(truth, prediction, table, np.zeros(2, dtype=np.intp)))
