"""A small DICOM CT series with planted identifiers, for tests of what is derived from it, and who judges that."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds
from scipy.spatial.transform import Rotation

DATA = Path(os.environ.get("MEDSEG_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
real = pytest.mark.skipif(not (DATA / "lesions").is_dir(), reason="real data not here; set MEDSEG_DATA to its folder")
needs_dciodvfy = pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian's dicom3tools) is not here")

# Each is searched for in outputs, byte by byte.
SECRETS = {
    "PatientName": "Zyx^Planted", "PatientID": "PLANTED-77", "OtherPatientIDs": "OTHER-PLANTED", "PatientAge": "043Y",
    "PatientBirthDate": "19711231", "PatientComments": "planted comment", "AccessionNumber": "ACC-PLANTED",
    "StudyID": "STUDY-PLANTED", "StudyDate": "20210304", "StudyTime": "070809", "SeriesDate": "20210305",
    "ReferringPhysicianName": "Refer^Planted", "PhysiciansOfRecord": "Record^Planted",
    "OperatorsName": "Operator^Planted", "InstitutionName": "Hospital Planted", "StudyDescription": "planted study",
    "SeriesDescription": "planted series", "StationName": "STATIONPLANTED", "ProtocolName": "planted protocol",
    "AdmittingDiagnosesDescription": "planted diagnosis", "EthnicGroup": "PLANTEDGROUP",
}  # fmt: skip
STUDY, SERIES, FRAME, ROOT = "1.2.826.0.1.77.1", "1.2.826.0.1.77.2", "1.2.826.0.1.77.3", "1.2.826.0.1.77."


def slices(shape=(12, 40, 36), spacing=(2.5, 0.8, 0.7), angle=(0, 0, 0), origin=(-30.0, 20.0, 55.0), jitter=0.0):
    """The slices of a CT, oblique if angles (degrees) are given; `jitter` (mm) along the normal."""
    row, column, normal = Rotation.from_euler("xyz", angle, degrees=True).as_matrix().T
    random = np.random.default_rng(0)
    pixels = random.integers(-100, 200, shape).astype(np.int16)
    out = []
    for i in range(shape[0]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"{ROOT}4.{i + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        for keyword, value in SECRETS.items():
            setattr(one, keyword, value)
        one.add_new(0x00111001, "LO", "planted private")
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = STUDY, SERIES, FRAME
        one.Modality, one.PatientSex, one.InstanceNumber, one.SeriesNumber = "CT", "F", shape[0] - i, 3
        one.Rows, one.Columns = shape[1:]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        where = np.array(origin) + (i * spacing[0] + jitter * random.uniform(-1, 1)) * normal
        one.ImageOrientationPatient = [format_number_as_ds(float(v) + 0.0) for v in (*row, *column)]
        one.ImagePositionPatient = [format_number_as_ds(float(v) + 0.0) for v in where]
        one.PixelSpacing, one.SliceThickness = list(spacing[1:]), spacing[0]
        one.PixelData = pixels[i].tobytes()
        out.append(one)
    return out


def written(folder, **options):
    """Write a series and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, one in enumerate(slices(**options)):
        one.save_as(folder / f"{i:03d}.dcm", enforce_file_format=True)
    return folder


def blobs(shape, count, seed=0):
    """Labels of `count` small ellipsoids, some with a hole, some touching; ids are not contiguous."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    ids = np.sort(random.choice(np.arange(1, 10 * count + 1), count, replace=False))
    for id in ids:
        centre = random.uniform(0, shape)
        radius = random.uniform((1, 2, 2), (3, 6, 6))
        away = (((grid - centre) / radius) ** 2).sum(-1)
        labels[(away < 1) & (away > 0.1 * (id % 2))] = id
        labels[tuple(random.integers(0, shape))] = id  # each has a voxel, and some have several pieces
    return labels


def identifiers(dataset):
    """Values of the planted identifiers that a written file must not hold."""
    assert isinstance(dataset, Dataset)
    return [str(value).encode() for value in (*SECRETS.values(), "planted private", ROOT)]


def errors_of(path):
    """Lines of dciodvfy that name an error."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")]
