"""The reader contract, for every reader of medseg; files are written by libraries that are not its own."""

import gzip
import struct
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from medseg.errors import FormatError
from medseg.testing import series
from medseg.testing.readers import ReaderContract

ALL = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")


def saved_nifti(path, values, grid, secret, kind=nibabel.Nifti1Image):
    image = kind(values.T, grid.to_nifti(), dtype=values.dtype)
    image.header["descrip"] = secret
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


class TestNifti(ReaderContract):
    dtypes = ALL

    def write(self, folder, values, grid, secret=""):
        return saved_nifti(folder / "a.nii", values, grid, secret)

    def claim(self, folder):
        path = saved_nifti(folder / "big.nii", np.zeros((2, 2, 2), np.uint8), self.grid(), "")
        blob = bytearray(path.read_bytes())
        blob[40:48] = struct.pack("<4h", 3, 10_000, 10_000, 10_000)
        path.write_bytes(bytes(blob))
        return path


class TestNiftiGz(TestNifti):
    def write(self, folder, values, grid, secret=""):
        return saved_nifti(folder / "a.nii.gz", values, grid, secret)

    def claim(self, folder):
        plain = super().claim(folder)
        path = folder / "big.nii.gz"
        with path.open("wb") as out:  # sparse, and long enough to hold a terabyte: only the limit can refuse it
            out.write(gzip.compress(plain.read_bytes()))
            out.truncate(1 << 30)
        return path


class TestNifti2(TestNifti):
    def write(self, folder, values, grid, secret=""):
        return saved_nifti(folder / "a.nii.gz", values, grid, secret, nibabel.Nifti2Image)

    def claim(self, folder):
        return None


class TestNiftiScaled(TestNifti):
    """A scale of 0.5 and -3, which float32 holds exactly for 16 bits."""

    dtypes = ("float32",)

    def values(self, dtype=None):
        return (np.random.default_rng(0).integers(-3000, 3000, self.shape) * 0.5 - 3).astype(np.float32)

    def write(self, folder, values, grid, secret=""):
        image = nibabel.Nifti1Image(((values + 3) * 2).astype(np.int16).T, grid.to_nifti())
        image.header["descrip"] = secret
        image.header.set_xyzt_units("mm")
        image.header.set_slope_inter(0.5, -3)
        nibabel.save(image, folder / "a.nii")
        blob = bytearray((folder / "a.nii").read_bytes())
        blob[112:120] = struct.pack("<2f", 0.5, -3)  # nibabel resets a slope it is given
        blob[352:] = ((values + 3) * 2).astype("<i2").tobytes()
        (folder / "a.nii").write_bytes(bytes(blob))
        return folder / "a.nii"

    def claim(self, folder):
        return None


def saved_itk(path, values, grid, secret, packed):
    image = sitk.GetImageFromArray(values)
    spacing, origin, direction = grid.to_itk()
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    image.SetMetaData("PatientName", secret or "none")
    sitk.WriteImage(image, path, packed)
    return path


class TestNrrd(ReaderContract):
    dtypes = ALL

    def write(self, folder, values, grid, secret=""):
        return saved_itk(folder / "a.nrrd", values, grid, secret, True)

    def claim(self, folder):
        text = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 10000 10000 10000\nencoding: gzip\nendian: little\n\n"
        (folder / "big.nrrd").write_bytes(text.encode() + gzip.compress(bytes(1 << 20)))
        return folder / "big.nrrd"


class TestNrrdRaw(TestNrrd):
    def write(self, folder, values, grid, secret=""):
        return saved_itk(folder / "a.nrrd", values, grid, secret, False)

    def claim(self, folder):
        text = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 10000 10000 10000\nencoding: ascii\n\n1 2 3\n"
        (folder / "big.nrrd").write_text(text)
        return folder / "big.nrrd"


class TestMetaImage(ReaderContract):
    dtypes = ALL

    def write(self, folder, values, grid, secret=""):
        return saved_itk(folder / "a.mha", values, grid, secret, True)

    def claim(self, folder):
        packed = zlib.compress(bytes(1 << 20))
        text = f"NDims = 3\nCompressedData = True\nCompressedDataSize = {len(packed)}\nDimSize = 10000 10000 10000\n"
        (folder / "big.mha").write_bytes(
            (text + "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n").encode() + packed
        )
        return folder / "big.mha"


class TestMetaImageRaw(TestMetaImage):
    def write(self, folder, values, grid, secret=""):
        return saved_itk(folder / "a.mha", values, grid, secret, False)


class TestMetaImageDetached(TestMetaImage):
    def write(self, folder, values, grid, secret=""):
        return saved_itk(folder / "a.mhd", values, grid, secret, True)

    def test_truncation_is_noticed(self, tmp_path):
        path = self.written(tmp_path)
        data = path.with_suffix(".zraw")
        whole = data.read_bytes()
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            data.write_bytes(whole[:size])
            with pytest.raises(FormatError):
                self.load(path).voxels()


class TestTiff(ReaderContract):
    dtypes = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
    placed = spaced = False
    sealed = False

    def write(self, folder, values, grid, secret=""):
        tifffile.imwrite(
            folder / "a.tif", values, photometric="minisblack", metadata=None, description=secret or "none"
        )
        return folder / "a.tif"

    def claim(self, folder):
        tifffile.imwrite(folder / "big.tif", np.zeros((16, 16), np.uint8), compression="zlib", metadata=None)
        blob = bytearray((folder / "big.tif").read_bytes())
        with tifffile.TiffFile(folder / "big.tif") as tif:
            tags = [tif.pages[0].tags[name] for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
            places = [tag.valueoffset for tag in tags]
            kinds = [int(tag.dtype) for tag in tags]
        for place, kind in zip(places, kinds, strict=True):
            blob[place : place + (2 if kind == 3 else 4)] = struct.pack(
                "<H" if kind == 3 else "<I", 1 << 15 if kind == 3 else 1 << 20
            )
        (folder / "big.tif").write_bytes(bytes(blob))
        return folder / "big.tif"


class TestTiffPacked(TestTiff):
    def write(self, folder, values, grid, secret=""):
        tifffile.imwrite(
            folder / "a.tif", values, photometric="minisblack", metadata=None, description=secret or "none",
            compression="zlib", tile=(16, 16),
        )  # fmt: skip
        return folder / "a.tif"


class TestOmeTiff(TestTiff):
    spaced = True

    def write(self, folder, values, grid, secret=""):
        metadata = {"axes": "ZYX", "Description": secret}
        for axis, step in zip("ZYX", grid.spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "mm"}
        tifffile.imwrite(folder / "a.ome.tif", values, photometric="minisblack", metadata=metadata, compression="zlib")
        return folder / "a.ome.tif"

    def claim(self, folder):
        claimed = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="900000000" SizeC="1" '
            'SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1"/></Pixels>'
            "</Image></OME>"
        )
        tifffile.imwrite(folder / "big.ome.tif", np.zeros((8, 8), np.uint8), description=claimed, metadata=None)
        return folder / "big.ome.tif"


class TestPng(ReaderContract):
    shape = (9, 8)
    dtypes = ("uint8", "uint16")
    lazy = placed = spaced = False
    other_suffix = ".tif"

    def write(self, folder, values, grid, secret=""):
        text = PngInfo()
        text.add_text("Patient", secret or "none")
        Pillow.fromarray(values).save(folder / "a.png", pnginfo=text)
        return folder / "a.png"

    def claim(self, folder):
        path = self.write(folder, self.values(), self.grid())
        blob = bytearray(path.read_bytes())
        blob[16:24] = struct.pack(">2I", 1_000_000, 1_000_000)
        blob[29:33] = struct.pack(">I", zlib.crc32(bytes(blob[12:29])))
        path.with_name("big.png").write_bytes(bytes(blob))
        return path.with_name("big.png")


class TestDicom(ReaderContract):
    """A folder of slices."""

    dtypes = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
    other_suffix = ""

    def write(self, folder, values, grid, secret=""):
        told = grid.to_dicom()
        slices = folder / "slices"
        slices.mkdir()
        for i, (plane, place) in enumerate(zip(values, told["ImagePositionPatient"], strict=True)):
            one = series.stack(
                1, shape=plane.shape, dtype=str(values.dtype), spacing=told["PixelSpacing"], RescaleSlope=None,
                RescaleIntercept=None, PatientName=secret or "none", InstanceNumber=i + 1,
                ImagePositionPatient=series.numbers(np.array(place)),
                ImageOrientationPatient=series.numbers(np.array(told["ImageOrientationPatient"])),
            )[0]  # fmt: skip
            one.pixels = plane
            series.write(one.dataset, slices / f"{i}.dcm")
        return slices

    def claim(self, folder):
        one = series.stack(1, Rows=65_000, Columns=65_000, NumberOfFrames=200)[0].dataset
        one.file_meta.TransferSyntaxUID = RLELossless
        one.PixelData = encapsulate([bytes(200)])
        one["PixelData"].is_undefined_length = True
        series.write(one, folder / "big.dcm")
        return folder / "big.dcm"
