"""Time series in TIFF: an image for each time point."""

import numpy as np
import pytest
import tifffile

from medseg import io
from medseg.errors import InputError, MedsegError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("TYX", (4, 20, 30)),
        ("TZYX", (3, 5, 20, 30)),
        ("TCYX", (4, 2, 20, 30)),
        ("TZCYX", (3, 5, 2, 20, 30)),
        ("TCYX", (2, 1, 20, 30)),
    ],
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_each_time_point_is_an_image(tmp_path, axes, shape, kind):
    voxels = RNG.integers(0, 60000, shape).astype(np.uint16)
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    more = (
        {"ome": True, "metadata": {"axes": axes, **sizes}}
        if kind == "ome"
        else {"imagej": True, "metadata": {"axes": axes}}
    )
    tifffile.imwrite(path, voxels, **more)
    found = io.frames(path)
    assert len(found) == shape[0]
    for number, frame in enumerate(found):
        wanted = voxels[number]
        if "C" not in axes:
            wanted = wanted[None]
        elif axes == "TZCYX":
            wanted = np.moveaxis(wanted, 1, 0)
        np.testing.assert_array_equal(frame.voxels(), wanted)
        assert frame.grid == found[0].grid and frame.source.files == (path,)
        if kind == "ome":
            assert frame.grid.spacing[-2:] == pytest.approx((0.0005, 0.0005))
    with pytest.raises(InputError, match="time points"):
        io.load(path)


def test_a_file_without_time_is_one_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 9, (20, 30)).astype(np.uint8))
    (one,) = io.frames(tmp_path / "a.tif")
    np.testing.assert_array_equal(one.voxels(), io.load(tmp_path / "a.tif").voxels())


def test_a_series_that_cannot_be_read_is_refused_in_words(tmp_path, monkeypatch):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((4, 50, 60), np.uint16), ome=True, metadata={"axes": "TYX"})
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(MedsegError, match=r"a\.ome\.tif"):
        io.frames(path)
