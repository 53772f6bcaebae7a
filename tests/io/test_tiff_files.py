"""TIFF: axes, spacing, colours, against files that tifffile writes."""

import numpy as np
import pytest
import tifffile

from medseg import io
from medseg.errors import FormatError, InputError, MedsegWarning


def ramp(*shape, dtype=np.uint16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_plain_values(tmp_path, dtype, big_endian):
    want = ramp(7, 9, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", want, byteorder=">" if big_endian else "<")
    image = io.load(tmp_path / "a.tif")
    assert not image.array.loaded
    assert image.modality == "microscopy" and image.channels == ("gray",) and not image.grid.known
    assert image.voxels().dtype == np.dtype(dtype) and (image.voxels()[0] == want).all()


def test_large_plain_file_is_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.io.tiff.MAP_FROM", 0)
    want = ramp(3, 8, 9)
    tifffile.imwrite(tmp_path / "a.tif", want, photometric="minisblack")
    image = io.load(tmp_path / "a.tif")
    assert isinstance(image.array.base, np.memmap) or isinstance(image.array, np.memmap)
    assert (image.voxels()[0] == want).all()


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_rgb_and_alpha(tmp_path, compression):
    want = ramp(8, 16, 4, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", want, photometric="rgb", extrasamples=["unassalpha"], compression=compression)
    image = io.load(tmp_path / "a.tif")
    assert image.channels == ("red", "green", "blue") and image.grid.shape == (8, 16)
    assert (image.voxels() == np.moveaxis(want, 2, 0)[:3]).all()
    assert any("alpha" in note for note in image.source.notes)


def test_planar_rgb(tmp_path):
    want = ramp(3, 8, 16, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", want, photometric="rgb", planarconfig="separate")
    assert (io.load(tmp_path / "a.tif").voxels() == want).all()


def test_palette_is_colour_for_images_and_ids_for_labels(tmp_path):
    colours = np.zeros((3, 256), np.uint16)
    colours[0, 5] = 65535
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), 5, np.uint8), photometric="palette", colormap=colours)
    image = io.load(tmp_path / "a.tif")
    assert image.voxels()[:, 0, 0].tolist() == [255, 0, 0]
    assert io.load_labels(tmp_path / "a.tif").table["id"].tolist() == [5]


def test_bool_is_uint8(tmp_path):
    want = np.eye(9, dtype=bool)
    tifffile.imwrite(tmp_path / "a.tif", want)
    assert io.load(tmp_path / "a.tif").voxels().dtype == np.uint8
    assert (io.load_labels(tmp_path / "a.tif").labels == want).all()


def test_stack_of_unknown_planes_is_z_and_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp(4, 6, 7), photometric="minisblack", metadata=None)
    image = io.load(tmp_path / "a.tif", spacing=(2, 0.5, 0.5), unit="um")
    assert image.grid.describe() == "4 x 6 x 7 voxels, 2 x 0.5 x 0.5 um"
    assert any("z slices" in note for note in image.source.notes)
    channels = io.load(tmp_path / "a.tif", channel_axis=0)
    assert channels.channels == ("c0", "c1", "c2", "c3") and channels.grid.shape == (6, 7)


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
def test_ome_axes_spacing_and_names(tmp_path, axes):
    want = ramp(*(5, 2, 6, 7) if axes == "ZCYX" else (2, 5, 6, 7))
    metadata = {
        "axes": axes, "PhysicalSizeX": 0.3, "PhysicalSizeY": 400, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 0.002,
        "PhysicalSizeZUnit": "mm", "Channel": {"Name": ["DAPI", "GFP"]},
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", want, photometric="minisblack", metadata=metadata)
    image = io.load(tmp_path / "a.ome.tif")
    assert image.channels == ("DAPI", "GFP")
    assert np.allclose(image.grid.spacing, (2e-3, 4e-4, 3e-4))
    assert (image.voxels() == (want.transpose(1, 0, 2, 3) if axes == "ZCYX" else want)).all()


def test_ome_pixels_unit_and_missing_z_are_unknown(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3}
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp(3, 6, 7), photometric="minisblack", metadata=metadata)
    image = io.load(tmp_path / "a.ome.tif")
    assert not image.grid.known and any("some axes" in note for note in image.source.notes)


def test_imagej(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", ramp(4, 2, 6, 7), imagej=True, resolution=(1 / 0.2, 1 / 0.4),
        metadata={"axes": "ZCYX", "unit": "um", "spacing": 1.5},
    )  # fmt: skip
    image = io.load(tmp_path / "a.tif")
    assert np.allclose(image.grid.spacing, (1.5e-3, 4e-4, 2e-4)) and image.channels == ("c0", "c1")
    assert (image.voxels() == ramp(4, 2, 6, 7).transpose(1, 0, 2, 3)).all()


@pytest.mark.parametrize(
    ("unit", "dots", "spacing"),
    [("INCH", 72, None), ("INCH", 96, None), ("INCH", 300, None), ("NONE", 5000, None), ("CENTIMETER", 10, None),
     ("CENTIMETER", 20000, 5e-4), ("INCH", 50800, 5e-4), ("CENTIMETER", 1, None)],
)  # fmt: skip
def test_plain_resolution_tags(tmp_path, unit, dots, spacing):
    tifffile.imwrite(tmp_path / "a.tif", ramp(6, 7), resolution=(dots, dots), resolutionunit=unit)
    image = io.load(tmp_path / "a.tif")
    assert image.grid.known == (spacing is not None)
    if spacing:
        assert np.allclose(image.grid.spacing, spacing) and image.source.notes


def test_given_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ramp(6, 7), resolution=(20000, 20000), resolutionunit="CENTIMETER")
    assert io.load(tmp_path / "a.tif", spacing=0.501, unit="um").grid.spacing == pytest.approx((5e-4, 5e-4))
    with pytest.warns(MedsegWarning, match="was given and used"):
        image = io.load(tmp_path / "a.tif", spacing=(1, 2), unit="um")
    assert image.grid.spacing == pytest.approx((1e-3, 2e-3)) and "the file states" in image.source.notes[-1]
    with pytest.raises(InputError):
        io.load(tmp_path / "a.tif", spacing=(1, 1, 1))
    with pytest.raises(InputError):
        io.load(tmp_path / "a.tif", spacing=-1)


def test_refused(tmp_path):
    tifffile.imwrite(tmp_path / "t.tif", ramp(4, 6, 7), imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(InputError, match="4 time points; split"):
        io.load(tmp_path / "t.tif")
    tifffile.imwrite(tmp_path / "c.tif", np.ones((6, 7), np.complex64))
    with pytest.raises(InputError, match="complex64"):
        io.load(tmp_path / "c.tif")
    tifffile.imwrite(tmp_path / "q.tif", ramp(2, 3, 6, 7), photometric="minisblack")
    with pytest.raises(InputError, match="axes QQYX"):
        io.load(tmp_path / "q.tif")
    tifffile.imwrite(tmp_path / "k.tif", ramp(6, 7, 4, dtype=np.uint8), photometric="separated")
    with pytest.raises(InputError, match="CMYK"):
        io.load(tmp_path / "k.tif")
    tifffile.imwrite(tmp_path / "rgb.tif", ramp(6, 7, 3, dtype=np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="3 channels; labels have one"):
        io.load_labels(tmp_path / "rgb.tif")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("kind", ["plain", "pages", "zlib", "tiled", "pillow"])
def test_truncated(tmp_path, kind, share):
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 60000, (6, 64, 64)).astype(np.uint16)
    if kind == "pillow":  # libtiff's order: header after the pixels of each page
        from PIL import Image as Pillow

        pages = [Pillow.fromarray(page) for page in noise]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    elif kind == "pages":
        with tifffile.TiffWriter(path) as tif:
            for page in noise:
                tif.write(page, contiguous=False, compression="zlib", metadata=None)
    else:
        options = {"plain": {}, "zlib": {"compression": "zlib"}, "tiled": {"tile": (32, 32)}}[kind]
        tifffile.imwrite(path, noise, photometric="minisblack", **options)
    assert (io.load(path).voxels()[0] == noise).all()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError):
        io.load(path)
