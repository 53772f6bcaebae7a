"""The overlay: proportions, which slice, outlines on the borders of instances and nowhere else."""

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.errors import OutputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.overlay import busiest_slice, draw, save_overlay
from medseg.testing.phantoms import blobs


def case(labels, voxels=None, spacing=None, channel_axis=None):
    """An image (dark to the left, bright to the right unless given) and the instances on it."""
    if voxels is None:
        voxels = np.broadcast_to(np.arange(labels.shape[-1], dtype=np.float32), labels.shape).copy()
    image = Image.from_array(voxels, spacing, channel_axis=channel_axis)
    return image, Instances.from_labels(labels, Grid.from_spacing(labels.shape, spacing))


def coloured(picture):
    """Pixels that are not gray."""
    return (picture != picture[..., :1]).any(axis=-1)


def ring(shape, factor, top, bottom, left, right, width):
    """Outline of a rectangle of whole pixels, drawn inside it after enlargement; none along the image's own edge."""
    out = np.zeros([n * factor for n in shape], bool)
    out[top * factor : bottom * factor, left * factor : right * factor] = True
    hole = np.zeros_like(out)
    a, b = (top * factor + width if top else 0), bottom * factor - (width if bottom < shape[0] else 0)
    c, d = (left * factor + width if left else 0), right * factor - (width if right < shape[1] else 0)
    hole[a:b, c:d] = True
    return out & ~hole


def test_outlines_lie_on_the_borders_only():
    labels = np.zeros((30, 45), np.int32)
    labels[5:12, 5:15] = 1
    labels[5:12, 15:20] = 2  # touches 1
    labels[20:30, 0:9] = 3  # in a corner
    image, instances = case(labels)
    picture = draw(image, instances)
    assert picture.shape == (600, 900, 3) and picture.dtype == np.uint8
    want = np.zeros((600, 900), bool)
    for box in [(5, 12, 5, 15), (5, 12, 15, 20), (20, 30, 0, 9)]:
        want |= ring((30, 45), 20, *box, width=2)
    assert (coloured(picture) == want).all()
    gray = picture[0, :, 0].astype(int)  # the image itself stays: a ramp from black to white
    assert gray[0] == 0 and gray[-1] >= 250 and (np.diff(gray) >= 0).all()
    assert (picture[~want] == np.broadcast_to(gray[None, :, None], picture.shape)[~want]).all()


def test_a_colour_for_each():
    labels = blobs((120, 160), 12, 10, seed=0)
    image, instances = case(labels, np.zeros(labels.shape, np.uint8))
    picture = draw(image, instances)
    factor = picture.shape[0] // 120
    large = labels.repeat(factor, 0).repeat(factor, 1)
    assert picture.shape == (*large.shape, 3) and not coloured(picture)[large == 0].any()
    colours = [np.unique(picture[(large == i) & coloured(picture)], axis=0) for i in range(1, 13)]
    assert all(len(one) == 1 for one in colours) and len(np.unique(np.concatenate(colours), axis=0)) == 12
    assert all(one.max() >= 200 for one in colours)  # bright enough to see


def test_thin_outlines_where_nothing_is_enlarged():
    labels = np.zeros((1000, 1000), np.int32)
    labels[100:200, 300:500] = 7
    picture = draw(*case(labels))
    assert picture.shape == (1000, 1000, 3)
    assert (coloured(picture) == ring((1000, 1000), 1, 100, 200, 300, 500, width=1)).all()


@pytest.mark.parametrize(("shape", "spacing", "want"), [
    ((40, 60), None, 60 / 40),
    ((40, 60), (2.0, 1.0), 60 / 80),
    ((8, 40, 60), (5.0, 1.0, 1.0), 60 / 40),
    ((8, 40, 60), (5.0, 0.25, 0.5), 120 / 40),
    ((9000, 50), None, 50 / 9000),
])  # fmt: skip
def test_pixels_are_square(shape, spacing, want):
    picture = draw(*case(np.zeros(shape, np.int32), spacing=spacing))
    height, width, _ = picture.shape
    assert width / height == pytest.approx(want, rel=0.03) and 900 <= max(height, width) <= 4096
    assert not coloured(picture).any()


def test_volume_shows_its_busiest_slice():
    labels = np.zeros((6, 30, 30), np.int32)
    labels[0:3, 2:8, 2:8] = 1
    labels[2:4, 12:18, 12:18] = 2
    labels[3, 20:25, 20:25] = 3
    labels[5, 2:28, 2:28] = 4  # large, but alone
    voxels = np.zeros(labels.shape, np.uint8)
    voxels[np.arange(6), 29, np.arange(6) * 5] = 255  # one bright pixel tells which slice it is
    voxels[:, 0, 0] = 1
    image, instances = case(labels, voxels, spacing=(4.0, 1.0, 1.0))
    assert busiest_slice(instances) == 2  # 1 and 2, as many as 2 and 3 in slice 3, but larger
    picture = draw(image, instances)
    assert picture[-1, 10 * 30 + 15].tolist() == [255, 255, 255] and picture[-1, 15 * 30 + 15].max() < 9
    want = ring((30, 30), 30, 2, 8, 2, 8, 2) | ring((30, 30), 30, 12, 18, 12, 18, 2)
    assert (coloured(picture) == want).all()
    empty = Instances.from_labels(np.zeros_like(labels), instances.grid)
    assert busiest_slice(empty) == 3


def test_rgb_keeps_its_colours():
    rgb = np.zeros((90, 90, 3), np.uint8)
    rgb[:, :30, 0] = rgb[:, 30:60, 1] = rgb[:, 60:, 2] = 200
    labels = np.zeros((90, 90), np.int32)
    labels[30:60, 30:60] = 4
    picture = draw(*case(labels, rgb, channel_axis=2))
    assert picture.shape == (900, 900, 3)
    edge = ring((90, 90), 10, 30, 60, 30, 60, 2)
    plain = rgb.repeat(10, 0).repeat(10, 1)
    assert ((picture > 100) == (plain > 100)).all(axis=-1)[~edge].all()
    assert len(np.unique(picture[edge], axis=0)) == 1
    two = draw(*case(labels, rgb[..., :2], channel_axis=2))  # two channels: the first, in gray
    assert (coloured(two) == edge).all()


def test_values_of_any_kind():
    labels = np.zeros((50, 50), np.int32)
    for voxels in (
        np.full((50, 50), 7, np.uint8),
        np.full((50, 50), -1e9),
        np.arange(2500).reshape(50, 50) * 20 - 9000,
    ):
        assert draw(*case(labels, voxels)).shape == (900, 900, 3)
    ramp = draw(*case(labels, (np.arange(2500).reshape(50, 50) * 20 - 9000).astype(np.int16)))
    assert ramp.min() == 0 and ramp.max() == 255


def test_saved(tmp_path):
    labels = blobs((64, 80), 5, 9, seed=4)
    image, instances = case(labels)
    save_overlay(image, instances, tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and (np.asarray(picture) == draw(image, instances)).all()
    with pytest.raises(OutputError, match="cannot be written"):
        save_overlay(image, instances, tmp_path / "no/folder/a.png")
