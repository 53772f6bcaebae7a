"""PNG and JPEG."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pillow

from medseg import io
from medseg.errors import FormatError, InputError

COLOUR = np.random.default_rng(0).integers(0, 255, (9, 8, 3)).astype(np.uint8)


def test_gray(tmp_path):
    for dtype in (np.uint8, np.uint16):
        want = (np.arange(72).reshape(9, 8) * 3).astype(dtype)
        Pillow.fromarray(want).save(tmp_path / "a.png")
        image = io.load(tmp_path / "a.png", spacing=0.5, unit="um")
        assert image.channels == ("gray",) and image.modality == "microscopy" and image.length_unit == "um"
        assert image.voxels().dtype == dtype and (image.voxels()[0] == want).all()
        assert (io.load_labels(tmp_path / "a.png").labels == want).all()
    Pillow.fromarray(np.eye(9, dtype=bool)).save(tmp_path / "b.png")
    assert (io.load(tmp_path / "b.png").voxels()[0] == np.eye(9)).all()


def test_colour(tmp_path):
    Pillow.fromarray(COLOUR).save(tmp_path / "a.png")
    image = io.load(tmp_path / "a.png")
    assert image.channels == ("red", "green", "blue") and not image.grid.known
    assert (image.voxels() == np.moveaxis(COLOUR, 2, 0)).all()
    Pillow.fromarray(np.dstack([COLOUR, COLOUR[..., :1]])).save(tmp_path / "b.png")
    assert (io.load(tmp_path / "b.png").voxels() == np.moveaxis(COLOUR, 2, 0)).all()
    Pillow.fromarray(np.repeat(COLOUR[..., :1], 3, axis=2)).save(tmp_path / "c.png")
    gray = io.load(tmp_path / "c.png")
    assert gray.channels == ("gray",) and (gray.voxels()[0] == COLOUR[..., 0]).all() and gray.source.notes
    with pytest.raises(InputError, match="3 channels"):
        io.load_labels(tmp_path / "a.png")
    with pytest.raises(InputError, match="channel_axis"):
        io.load(tmp_path / "a.png", channel_axis=2)


def test_deep_colour_keeps_16_bits(tmp_path):
    want = COLOUR.astype(np.uint16) * 251
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(want))
    assert (io.load(tmp_path / "a.png").voxels() == np.moveaxis(want, 2, 0)).all()


def test_palette(tmp_path):
    picture = Pillow.fromarray((np.arange(72).reshape(9, 8) % 3).astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    assert io.load(tmp_path / "a.png").voxels()[:, 0, 1].tolist() == [255, 0, 0]
    assert io.load_labels(tmp_path / "a.png").table["id"].tolist() == [1, 2]


def test_jpeg(tmp_path):
    Pillow.fromarray(COLOUR).save(tmp_path / "a.jpg")
    assert io.load(tmp_path / "a.jpg").grid.shape == (9, 8)
    Pillow.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.jpg")
    with pytest.raises(InputError, match="CMYK"):
        io.load(tmp_path / "c.jpg")


def test_too_many_pixels(tmp_path, monkeypatch):
    Pillow.fromarray(COLOUR).save(tmp_path / "a.png")
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(InputError, match="more pixels than are safe"):
        io.load(tmp_path / "a.png")
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 50)
    assert io.load(tmp_path / "a.png").grid.shape == (9, 8)


@pytest.mark.parametrize("kind", ["png", "jpg", "deep"])
def test_truncated(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / ("a.jpg" if kind == "jpg" else "a.png")
    if kind == "deep":
        path.write_bytes(imagecodecs.png_encode(noise.astype(np.uint16) * 251))
    else:
        Pillow.fromarray(noise).save(path)
    whole = path.read_bytes()
    for size in (10, 40, len(whole) // 2, len(whole) - 500):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            io.load(path)
