"""Which file is what, and what an INPUT argument means."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg import io
from medseg.errors import FormatError, InputError, MedsegError, MedsegWarning, MissingError

PIXELS = np.arange(72).reshape(9, 8).astype(np.uint8)


def test_stem_and_suffix():
    for name, want in (
        ("scan.nii.gz", "scan"), ("a.b.OME.TIF", "a.b"), ("x.tif", "x"), ("series.1", "series.1"), (".nii.gz", ".nii.gz"),
        ("/a/b/c.ome.tiff", "c"), ("a.gz", "a.gz"),
    ):  # fmt: skip
        assert io.stem(name) == want
    assert io.is_image("a.NII.GZ") and io.is_image(Path("x/a.dcm"))
    assert not io.is_image("a.txt") and not io.is_image(".a.tif") and not io.is_image("a.gz")
    assert ".ome.tif" in io.SUFFIXES


def test_missing_and_empty(tmp_path):
    with pytest.raises(MissingError):
        io.load(tmp_path / "no.tif")
    with pytest.raises(FileNotFoundError):
        io.load(str(tmp_path / "no.tif"))
    with pytest.raises(MissingError, match="folder without an image"):
        io.load(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(MissingError):
        io.load(tmp_path)
    with pytest.raises(FormatError, match="does not read|kind medseg"):
        io.load(tmp_path / "notes.txt")
    for suffix in io.SUFFIXES:
        (tmp_path / f"zero{suffix}").write_bytes(b"")
        with pytest.raises(FormatError, match="empty"):
            io.load(tmp_path / f"zero{suffix}")


def test_name_against_content(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(FormatError, match="named like a PNG or JPEG file but holds TIFF"):
        io.load(tmp_path / "a.png")
    (tmp_path / "a").write_bytes(content)
    assert io.load(tmp_path / "a").grid.shape == (9, 8)
    for suffix in io.SUFFIXES:
        (tmp_path / f"text{suffix}").write_bytes(b"this is only a text " * 40)
        with pytest.raises(FormatError):
            io.load(tmp_path / f"text{suffix}").voxels()


def test_folder_of_images_is_not_an_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS)
    with pytest.raises(InputError, match="folder of 1 images"):
        io.load(tmp_path)


def test_inputs(tmp_path):
    for name in ("b.tif", "a.tif", ".hidden.tif", "c.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "inner").mkdir()
    series = tmp_path / "series"
    series.mkdir()
    (series / "I001").write_bytes(bytes(128) + b"DICM")
    names = [path.name for path in io.inputs([tmp_path])]
    assert names == ["a.tif", "b.tif", "c.png"]
    assert io.inputs(str(tmp_path / "*.tif")) == [tmp_path / "a.tif", tmp_path / "b.tif"]
    assert io.inputs([series, tmp_path / "notes.txt", series]) == [series, tmp_path / "notes.txt"]
    assert io.inputs(tmp_path / "s*") == [series]
    for bad in (tmp_path / "inner", tmp_path / "no.tif", tmp_path / "*.nii"):
        with pytest.raises(MissingError):
            io.inputs([bad])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".nii", ".nii.gz", ".tif", ".nrrd", ".mha", ".png"]), st.data())
def test_damage_gives_an_image_or_a_typed_error(tmp_path, suffix, data):
    """Flip bytes, mostly in the header: anything but a typed error or an image is a fault of the reader."""
    from PIL import Image as Pillow

    from medseg.grid import Grid
    from medseg.image import Image

    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        Pillow.fromarray(PIXELS).save(path)
    else:
        io.save_image(Image(PIXELS.reshape(1, 2, 4, 9), Grid.from_spacing((2, 4, 9), 1.0)), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        image = io.load(path)
        if np.prod(image.array.shape, dtype=float) < 1e7:
            image.voxels()
    except (MedsegError, MedsegWarning) as error:
        assert "Traceback" not in str(error)


def test_import_is_light():
    code = (
        "import sys, time; start = time.perf_counter(); import medseg.io; took = time.perf_counter() - start;"
        "heavy = {'torch', 'nibabel', 'SimpleITK', 'pydicom', 'tifffile', 'pandas', 'PIL'} & set(sys.modules);"
        "print(took, *heavy)"
    )
    start = time.perf_counter()
    took, *heavy = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not heavy and float(took) < 2 and time.perf_counter() - start < 20
