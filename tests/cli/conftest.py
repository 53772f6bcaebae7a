"""Drawn images as files, and the command line called in this process: exit code, standard output, standard error."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medseg.cli import main
from medseg.testing.phantoms import blobs


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """All of standard error must be said by medseg; these are the lines about errors."""
        lines = self.err.splitlines()
        assert all(line.startswith("medseg: ") for line in lines), self.err
        return [line for line in lines if line.startswith("medseg: error: ")]


@pytest.fixture
def medseg(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(int(left.value.code or 0), out, err)

    return call


def bright(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Bright objects on a dark, noisy ground, as a fluorescence microscope sees nuclei."""
    noise = np.random.default_rng(seed).normal(0, 6, labels.shape)
    return np.clip(20 + 150 * (labels > 0) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """A 2-D TIFF, 80 x 112, six discs."""
    path = tmp_path / "field.tif"
    tifffile.imwrite(path, bright(blobs((80, 112), 6, 9, seed=1, touching=False)))
    return path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A 3-D OME-TIFF with spacing, four balls."""
    path = tmp_path / "stack.ome.tif"
    labels = blobs((12, 48, 48), 4, 6, seed=2, touching=False, spacing=(2, 1, 1))
    size = {"PhysicalSizeZ": 1.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.5}
    tifffile.imwrite(path, bright(labels), ome=True, metadata={"axes": "ZYX", **size})
    return path


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """A folder with the DICOM series of a CT; names and numbers of the slices are out of order."""
    folder = tmp_path / "PATIENT_NAME"
    folder.mkdir()
    volume = bright(blobs((8, 40, 40), 2, 3, seed=3, touching=False, spacing=(2, 1, 1)))
    for z, plane in enumerate(volume):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = CTImageStorage
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = f"1.2.3.{z + 1}"
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
        slice_.Modality, slice_.PatientName, slice_.PatientID = "CT", "Surname^Given", "MRN12345"
        slice_.InstanceNumber, slice_.SamplesPerPixel = str((z * 3) % 8), 1
        slice_.PhotometricInterpretation = "MONOCHROME2"
        slice_.Rows, slice_.Columns = plane.shape
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = "1", "-100"
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, 2.0 * z], [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = [1, 1], "2"
        slice_.PixelData = plane.astype("<i2").tobytes()
        pydicom.dcmwrite(folder / f"{(z * 5) % 8}.dcm", slice_, enforce_file_format=True)
    return folder
