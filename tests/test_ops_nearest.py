"""The nearest point, and smoothing: the same as SciPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree

from medseg.ops.blur import gaussian, peaks
from medseg.ops.nearest import nearest


@given(
    st.integers(1, 3),
    st.integers(1, 60),
    st.sampled_from(["around points", "anywhere", "on a line", "one far away", "in one place"]),
    st.integers(0, 1000),
)
def test_the_nearest_is_that_of_a_tree(ndim, count, kind, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 100, (count, ndim))
    if kind == "on a line":
        points[:, 1:] = 7
    elif kind == "one far away":
        points[0] = 1e5
    elif kind == "in one place":
        points[:] = points[0]
    places = points[np.sort(rng.integers(0, count, 200))] + rng.normal(0, 5, (200, ndim))
    if kind == "anywhere":
        places = rng.uniform(-80, 180, (200, ndim))
    found = nearest(places, points)
    away = np.linalg.norm(places - points[found], axis=1)
    np.testing.assert_allclose(away, cKDTree(points).query(places)[0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(40, 1100), (1, 50), (60, 1), (12, 17, 9), (5,)])
@pytest.mark.parametrize("sigma", [0.0, 0.4, 3.0, 6.5])
def test_smoothing_and_peaks_are_those_of_scipy(shape, sigma):
    rng = np.random.default_rng(0)
    values = (rng.random(shape) * (rng.random(shape) < 0.1)).astype(np.float32)
    each = np.array([sigma, 1.0, 2.0][: len(shape)])
    smooth = gaussian(values, each)
    np.testing.assert_array_equal(smooth, gaussian_filter(values, each, mode="constant"))
    least = float(np.quantile(smooth, 0.6))
    highest = maximum_filter(smooth, size=3, mode="constant")
    np.testing.assert_array_equal(peaks(smooth, least), np.argwhere((smooth == highest) & (smooth >= least)))
