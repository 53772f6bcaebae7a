"""The phantoms and the knowing model keep their word, since all other tests lean on them."""

import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import InputError
from medseg.spec import SemanticSpec
from medseg.testing.decoding import same_partition
from medseg.testing.models import knowing, numbered, perfect
from medseg.testing.phantoms import blobs, chain, image_of

KINDS = [((70, 80), 7, 7.0, None), ((40, 44, 40), 5, 7.0, None), ((18, 60, 60), 5, 9.0, (3.0, 1.0, 1.0))]


def gap(labels, i):
    """Voxels between object i and the nearest other one, diagonals counting as one step."""
    others = (labels > 0) & (labels != i)
    return ndimage.distance_transform_cdt(~others, "chessboard")[labels == i].min() - 1


@pytest.mark.parametrize("shape, n, radius, spacing", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_blobs_touch_or_keep_their_distance(shape, n, radius, spacing, seed):
    touching = blobs(shape, n, radius, seed, True, spacing)
    apart = blobs(shape, 3, radius, seed, False, spacing)
    assert all(gap(touching, i) == 0 for i in range(1, n + 1))
    assert all(gap(apart, i) >= 2 for i in range(1, 4))
    for labels, count in ((touching, n), (apart, 3)):
        assert labels.dtype == np.int32 and np.unique(labels).tolist() == list(range(count + 1))
        inner = labels[tuple(slice(1, -1) for _ in shape)]
        for i in range(1, count + 1):
            assert ndimage.label(labels == i)[1] == 1
            sides = np.array(labels == i).nonzero()
            extent = [(s.max() - s.min() + 1) * d for s, d in zip(sides, spacing or (1.0,) * len(shape), strict=True)]
            assert max(extent) <= 2.4 * radius + 3 and min(extent) >= 1.6 * radius - 3
        assert inner.any()


def test_the_same_seed_draws_the_same():
    assert np.array_equal(blobs((40, 40), 4, 5.0, 1), blobs((40, 40), 4, 5.0, 1))
    assert not np.array_equal(blobs((40, 40), 4, 5.0, 1), blobs((40, 40), 4, 5.0, 2))
    labels = blobs((40, 40), 4, 5.0, 1)
    assert np.array_equal(image_of(labels, 3), image_of(labels, 3))
    assert not np.array_equal(image_of(labels, 3), image_of(labels, 4))


@pytest.mark.parametrize("shape, n", [((30, 30), 99), ((9, 9), 1), ((5, 80, 80), 1)])
def test_too_many_or_too_large_is_an_error(shape, n):
    with pytest.raises(InputError, match="do not fit"):
        blobs(shape, n, 5.0, 0, touching=False)


def test_a_bar_and_a_ring_of_one_piece():
    bar, ring = chain((9, 14), 3), chain((9, 40, 50), 4, closed=True)
    assert np.array_equal(np.argwhere(bar.any(axis=1)).ravel(), [3, 4, 5]) and bar[3:6].all()
    assert ndimage.label(ring)[1] == 1 and ring[4, 20, 25] == 0
    assert np.argwhere(ring.any(axis=(1, 2))).ravel().tolist() == [2, 3, 4, 5]
    assert (ring.any(axis=(0, 1)).sum(), ring.any(axis=(0, 2)).sum()) == (38, 38)


def test_an_image_is_brighter_where_objects_are():
    labels = blobs((60, 60), 6, 7.0, 0)
    image = image_of(labels, 0)
    assert image.dtype == np.float32 and image.shape == labels.shape and np.isfinite(image).all()
    core = ndimage.binary_erosion(labels > 0, iterations=2)
    far = ~ndimage.binary_dilation(labels > 0, iterations=3)
    assert image[core].mean() > 0.5 > 0.2 > image[far].mean()
    assert image_of(labels, 0, noise=0.0)[far].std() < 0.05 < image_of(labels, 0, noise=0.2)[far].std()
    assert np.isfinite(image_of(np.zeros((8, 8), np.int32), 0)).all()


def test_the_knowing_model_answers_every_window_alike():
    labels = blobs((48, 64), 4, 6.0, 0, touching=False)
    maps = perfect(labels, SemanticSpec(), (1.0, 1.0))
    model = knowing(maps)
    array = numbered((48, 64)).voxels() / (48 * 64 - 1)
    np.testing.assert_array_equal(model.maps(array.astype(np.float32))[0], maps)
    np.testing.assert_array_equal(model.maps(array[:, 5:30, 9:20].astype(np.float32))[0], maps[:, 5:30, 9:20])
    assert model._nets[0].calls == [(48, 64), (28, 12)]


def test_same_partition():
    one = np.array([0, 1, 1, 2, 2, 0])
    assert same_partition(one, np.array([0, 7, 7, 3, 3, 0]))
    for other in ([0, 1, 1, 1, 1, 0], [0, 1, 1, 2, 3, 0], [0, 1, 1, 2, 2, 3], [1, 0, 0, 2, 2, 1]):
        assert not same_partition(one, np.array(other))
