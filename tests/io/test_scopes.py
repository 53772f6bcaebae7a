"""Files of microscopes. CZI are written by Zeiss's own library, LIF by hand after their layout; nothing writes ND2."""

import sys

import numpy as np
import pytest

from medseg import io
from medseg.errors import FormatError, InputError, MissingError
from medseg.io import scopes
from medseg.testing.microscopes import lif, volume

RNG = np.random.default_rng(0)


@pytest.fixture
def czi():
    return pytest.importorskip("pylibCZIrw.czi")


def test_czi_volume_with_channels_and_spacing(czi, tmp_path):
    values = volume(tmp_path / "a.czi")
    image = io.load(tmp_path / "a.czi")
    assert not image.array.loaded
    assert np.allclose(image.grid.spacing, (0.001, 0.00025, 0.0002)) and image.grid.axes == ("z", "y", "x")
    assert image.channels == ("DAPI", "GFP") and image.modality == "microscopy"
    np.testing.assert_array_equal(image.voxels(), values)


def test_czi_scenes_are_never_chosen_silently(czi, tmp_path):
    path, values = tmp_path / "b.czi", RNG.integers(0, 255, (3, 20, 30)).astype(np.uint8)
    with czi.create_czi(str(path)) as file:
        for scene in range(3):
            file.write(data=values[scene][..., np.newaxis], location=(100 * scene, 7), scene=scene)
    assert scopes.count(path) == 3
    with pytest.raises(FormatError, match="b.czi holds 3 scenes; choose one with series, a number from 1 to 3"):
        io.load(path)
    for scene in range(3):
        image = io.load(path, series=scene + 1)
        np.testing.assert_array_equal(image.voxels()[0], values[scene])
        assert not image.grid.known and image.channels == ("gray",)
    for wrong in (0, 4, "other"):
        with pytest.raises(InputError, match="no such scene"):
            io.load(path, series=wrong)


def test_czi_mosaic_is_one_image(czi, tmp_path):
    path, values = tmp_path / "m.czi", RNG.integers(0, 255, (40, 60)).astype(np.uint8)
    with czi.create_czi(str(path)) as file:
        file.write(data=values[:, :30, np.newaxis], location=(0, 0), scene=0)
        file.write(data=values[:, 30:, np.newaxis], location=(30, 0), scene=0)
    np.testing.assert_array_equal(io.load(path).voxels()[0], values)


def test_czi_colours(czi, tmp_path):
    bgr = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    with czi.create_czi(str(tmp_path / "c.czi")) as file:
        file.write(data=bgr)
    image = io.load(tmp_path / "c.czi")
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.voxels(), bgr[..., ::-1].transpose(2, 0, 1))


def test_czi_time_and_types_are_refused(czi, tmp_path):
    plane = np.ones((8, 8, 1), np.uint8)
    with czi.create_czi(str(tmp_path / "t.czi")) as file:
        for t in range(3):
            file.write(data=plane, plane={"T": t})
    with pytest.raises(InputError, match="t.czi holds 3 time points; split it"):
        io.load(tmp_path / "t.czi")
    with czi.create_czi(str(tmp_path / "p.czi")) as file:
        file.write(data=plane, plane={"C": 0})
        file.write(data=plane.astype(np.uint16), plane={"C": 1})
    with pytest.raises(InputError, match="voxels of type Gray16, Gray8"):
        io.load(tmp_path / "p.czi")


def test_damaged_czi(czi, tmp_path):
    volume(tmp_path / "a.czi")
    path = tmp_path / "e.czi"
    data = (tmp_path / "a.czi").read_bytes()
    # the directory says of each tile where it begins: C becomes 16 million in one of them
    place = data.rindex(b"C\0\0\0", 0, data.rindex(b"C\0\0\0"))
    path.write_bytes(data[: place + 4] + b"\0\0\0\1" + data[place + 8 :])
    with pytest.raises(FormatError, match="cannot hold the 16777217 planes it states|damaged or truncated"):
        io.load(path)
    for length in (1, 40, len(data) // 3, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(FormatError, match=r"e.czi is a damaged or truncated CZI file"):
            io.load(path).voxels()


@pytest.mark.parametrize(
    "does", ["import os; os.kill(os.getpid(), 11)", "pass", "print('{')", "print('{\"box\": 3}')", "print('[1')"]
)
def test_what_ends_the_process_that_reads_a_czi_is_a_damaged_file(does, czi, tmp_path, monkeypatch):
    volume(tmp_path / "a.czi")
    header = io.load(tmp_path / "a.czi")
    (tmp_path / "child.py").write_text(does)
    monkeypatch.setattr("medseg.io.czi._CHILD", tmp_path / "child.py")
    for read in (lambda: io.load(tmp_path / "a.czi"), header.voxels):
        with pytest.raises(FormatError, match=r"a.czi is a damaged or truncated CZI file"):
            read()


def test_other_options(czi, tmp_path):
    volume(tmp_path / "a.czi")
    with pytest.raises(InputError, match="leave channel_axis out"):
        io.load(tmp_path / "a.czi", channel_axis=0)
    with pytest.raises(InputError, match="not DICOM"):
        io.load(tmp_path / "a.czi", regularize=True)
    with pytest.raises(FormatError, match="named like a LIF file but holds CZI"):
        io.load((tmp_path / "a.czi").rename(tmp_path / "a.lif"))
    (tmp_path / "b.nd2").write_bytes(b"ZISRAWFILE" + bytes(200))
    with pytest.raises(FormatError, match="named like a ND2 file but holds CZI"):
        io.load(tmp_path / "b.nd2")


@pytest.mark.parametrize("name", ["czi", "nd2", "lif"])
def test_without_the_extra(name, tmp_path, monkeypatch):
    path = tmp_path / f"a.{name}"
    path.write_bytes(b"\x70\0\0\0" + bytes(400))
    for module in ("pylibCZIrw", "pylibCZIrw.czi", "nd2", "liffile"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingError, match=r'pip install "medseg\[microscopes\]"'):
        io.load(path)


@pytest.mark.parametrize(("name", "module"), [("nd2", "nd2"), ("lif", "liffile")])
def test_garbage(name, module, tmp_path):
    pytest.importorskip(module)
    path = tmp_path / f"a.{name}"
    for data in (bytes(10), bytes(4000), b"\xda\xce\xbe\x0a" + bytes(4000), b"\x70\0\0\0" + RNG.bytes(4000)):
        if name == "lif" and data.startswith(b"\xda"):
            continue
        path.write_bytes(data)
        with pytest.raises(FormatError, match=f"a damaged or truncated {name.upper()} file"):
            io.load(path)


def test_lif(tmp_path):
    pytest.importorskip("liffile")
    path = tmp_path / "a.lif"
    stack = RNG.integers(0, 255, (2, 3, 20, 30)).astype(np.uint8)
    flat = RNG.integers(0, 255, (1, 16, 24)).astype(np.uint8)
    steps = {"Z": 0.001, "Y": 0.0003, "X": 0.0002}
    lif(path, [("Doe Jane", stack, steps, ["Green", "Red"]), ("other", flat, steps, ["Gray"])])
    assert scopes.count(path) == 2
    with pytest.raises(FormatError, match="holds 2 scenes") as caught:
        io.load(path)
    assert "Jane" not in str(caught.value)  # a name that a person gave
    image = io.load(path, series=1)
    np.testing.assert_array_equal(image.voxels(), stack)
    assert image.channels == ("green", "red") and np.allclose(image.grid.spacing, (0.001, 0.0003, 0.0002))
    np.testing.assert_array_equal(io.load(path, series="other").voxels(), flat)
