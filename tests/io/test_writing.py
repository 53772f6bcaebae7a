"""Labels and tables: round trips, whole files or none."""

import csv
import os

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.errors import GeometryError, InputError, MedsegWarning, OutputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances

ALL = [".nii", ".nii.gz", ".tif", ".ome.tif", ".nrrd", ".mha"]


def oblique(shape, angle=(10, 20, 30)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angle, degrees=True).as_matrix() * (0.7, 0.8, 3.0)
    affine[:3, 3] = (-90, 40, 7)
    return Grid.from_nifti(shape[::-1], affine)


def instances(shape=(3, 4, 5), top=7, grid=None):
    labels = np.zeros(shape, np.int32)
    labels.flat[1], labels.flat[-1] = 3, top
    return Instances.from_labels(labels, grid or Grid.from_spacing(shape, 0.5, unit="um"))


@pytest.mark.parametrize("suffix", ALL)
@pytest.mark.parametrize("top", [0, 7, 65535, 65536, 2**31 - 1])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_labels_round_trip(tmp_path, suffix, top, shape):
    path = tmp_path / f"a{suffix}"
    for grid in (Grid.from_spacing(shape, 0.5, unit="um"), Grid.from_spacing(shape)):
        want = instances(shape, top, grid)
        io.save_labels(want, path)
        got = io.load_labels(path)
        assert (got.labels == want.labels).all() and got.grid.why_not(grid) is None
        assert got.table["id"].tolist() == want.table["id"].tolist()
    stored = io.load(path).array.dtype
    assert stored == (np.uint16 if top <= 65535 else np.int32)
    first = path.read_bytes()
    io.save_labels(want, path)
    assert path.read_bytes() == first and os.listdir(tmp_path) == [path.name]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]))
def test_oblique_labels_against_simpleitk(tmp_path, angle, suffix):
    want = instances(grid=oblique((3, 4, 5), angle))
    io.save_labels(want, tmp_path / f"a{suffix}")
    back = sitk.ReadImage(tmp_path / f"a{suffix}")
    grid = Grid.from_itk(back.GetSize(), back.GetSpacing(), back.GetOrigin(), back.GetDirection())
    assert np.allclose(grid.affine, want.grid.affine, atol=1e-3)
    assert (sitk.GetArrayFromImage(back) == want.labels).all()
    assert io.load_labels(tmp_path / f"a{suffix}").grid.matches(want.grid)


def test_empty_labels(tmp_path):
    empty = Instances.from_labels(np.zeros((4, 5), int), Grid.from_spacing((4, 5)))
    for suffix in ALL:
        io.save_labels(empty, tmp_path / f"a{suffix}")
        assert len(io.load_labels(tmp_path / f"a{suffix}")) == 0
    io.save_table(empty, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().startswith(b"id,class,score,voxels,area_px,")
    assert (tmp_path / "a.csv").read_bytes().count(b"\r\n") == 1
    io.save_table(empty, tmp_path / "a.parquet")
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 0


def test_ome_tiff_says_its_size(tmp_path):
    io.save_labels(instances(grid=Grid.from_spacing((3, 4, 5), (2, 0.5, 0.25), unit="um")), tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
        assert tif.series[0].axes == "ZYX" and tif.pages[0].compression.name == "ADOBE_DEFLATE"
    assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == pytest.approx([2, 0.5, 0.25])
    assert pixels["PhysicalSizeXUnit"] == "\u00b5m" and pixels["Channel"]["Name"] == "labels"


def test_ome_tiff_warns_of_lost_orientation(tmp_path):
    with pytest.warns(MedsegWarning, match="no position or direction"):
        io.save_labels(instances(grid=oblique((3, 4, 5))), tmp_path / "a.tif")


def test_ome_image_with_channels(tmp_path):
    grid = Grid.from_spacing((3, 4, 5), 0.5, unit="um")
    for dtype in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
        image = Image(np.arange(120).reshape(2, 3, 4, 5).astype(dtype), grid, "microscopy", ("DAPI", "GFP"))
        io.save_image(image, tmp_path / "a.ome.tif")
        back = io.load(tmp_path / "a.ome.tif")
        assert back.channels == ("DAPI", "GFP") and back.grid.matches(grid)
        assert (back.voxels() == image.voxels()).all()
    with pytest.raises(OutputError, match="no int64"):
        io.save_image(Image(np.ones((1, 3, 4, 5), np.int64), grid), tmp_path / "b.tif")


def test_like_puts_labels_on_another_grid(tmp_path):
    grid = Grid.from_spacing((4, 4, 4), 1.0)
    fine = Image(np.zeros((1, 8, 8, 8), np.uint8), grid.resample_to((8, 8, 8)))
    labels = np.zeros((4, 4, 4), int)
    labels[1, 1, 1] = 5
    io.save_labels(Instances.from_labels(labels, grid), tmp_path / "a.nii.gz", like=fine)
    got = io.load_labels(tmp_path / "a.nii.gz")
    assert got.table["voxels"].tolist() == [8] and got.grid.matches(fine.grid)
    with pytest.raises(GeometryError):
        io.save_labels(instances(), tmp_path / "b.nii.gz", like=Image(np.zeros((1, 4, 5)), Grid.from_spacing((4, 5))))


@pytest.mark.parametrize("name", ["a.png", "a.mhd", "a.dcm", "a", "a.zarr"])
def test_suffixes_refused(tmp_path, name):
    with pytest.raises(OutputError, match="cannot be written as"):
        io.save_labels(instances(), tmp_path / name)
    with pytest.raises(OutputError, match="table cannot be written"):
        io.save_table(instances(), tmp_path / name)


def test_table(tmp_path):
    want = instances(grid=Grid.from_spacing((3, 4, 5), 1 / 3, unit="um"))
    io.save_table(want, tmp_path / "a.csv", "um")
    raw = (tmp_path / "a.csv").read_bytes()
    assert raw.count(b"\r\n") == 3 and raw.count(b"\n") == 3
    rows = list(csv.DictReader(raw.decode("utf-8").splitlines()))
    assert rows[0]["volume_um3"] == "0.037037" and rows[0]["score"] == "" and rows[0]["class"] == "object"
    io.save_table(want, tmp_path / "a.parquet", "mm")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), want.table, check_dtype=False)
    with pytest.raises(GeometryError):
        io.save_table(instances(grid=Grid.from_spacing((3, 4, 5))), tmp_path / "b.csv", "mm")
    assert not (tmp_path / "b.csv").exists()


@pytest.mark.parametrize("suffix", [*ALL, ".csv", ".parquet"])
def test_failure_leaves_the_old_file_whole(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"

    def save(value):
        (io.save_table if suffix in (".csv", ".parquet") else io.save_labels)(value, path)

    save(instances())
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OutputError, match="No space left"):
                save(instances(top=9))
        assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    with pytest.raises(OutputError):
        path = tmp_path / "missing" / f"a{suffix}"
        save(instances())


def test_labels_from_floats_and_what_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.eye(4, dtype=np.float32)[..., None] * 3, np.eye(4)), tmp_path / "a.nii.gz")
    assert io.load_labels(tmp_path / "a.nii.gz").table["id"].tolist() == [3]
    for bad in (0.5, -1, np.nan, 2.0**31):
        nibabel.save(nibabel.Nifti1Image(np.full((3, 3, 3), bad, np.float64), np.eye(4)), tmp_path / "b.nii.gz")
        with pytest.raises(InputError):
            io.load_labels(tmp_path / "b.nii.gz")
    tifffile.imwrite(tmp_path / "c.tif", np.full((3, 3), 2**31, np.uint32))
    with pytest.raises(InputError):
        io.load_labels(tmp_path / "c.tif")
    tifffile.imwrite(tmp_path / "d.tif", np.full((3, 3), 2**31 - 1, np.uint32))
    assert io.load_labels(tmp_path / "d.tif").table["id"].tolist() == [2**31 - 1]
