"""Reading a CT of 300 slices: medseg beside SimpleITK and MONAI, and beside nothing but the bytes of the files."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medseg.bench.rows import Row, rows

SLICES, SIZE = 300, 512

# Each job reads the folder named in sys.argv[1] into an array, in a process of its own: peak memory is then its own.
_JOBS = {
    "medseg.io.load": (
        "import numpy, pydicom, medseg.io.dicom.series",
        "from medseg import io; voxels = io.load(folder).voxels()",
    ),
    "SimpleITK ImageSeriesReader": (
        "import SimpleITK as sitk",
        "r = sitk.ImageSeriesReader(); r.SetFileNames(r.GetGDCMSeriesFileNames(folder)); "
        "voxels = sitk.GetArrayViewFromImage(image := r.Execute())",
    ),
    "MONAI LoadImage, PydicomReader": (
        "from monai.transforms import LoadImage",
        "voxels = LoadImage(reader='PydicomReader', image_only=True)(folder)",
    ),
}
_PROGRAM = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
folder = sys.argv[1]
{setup}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before, started = peak(), time.perf_counter()
{job}
print(json.dumps([time.perf_counter() - started, peak() - before]))
"""


def reading(repeat: int) -> list[Row]:
    """Seconds to read a CT folder into memory, and peak memory over the size of its volume.

    The peak counts from after the imports; a reader that keeps int16 voxels cannot be below 1, one that makes int32 or
    float32 of them not below 2.
    """
    volume = SLICES * SIZE * SIZE * 2
    with tempfile.TemporaryDirectory() as folder:
        write_ct(Path(folder))
        jobs = {
            "bytes of the files": (
                "import pathlib",
                "voxels = [p.read_bytes() for p in pathlib.Path(folder).iterdir()]",
            )
        }
        found = {name: [_measured(*job, folder) for _ in range(repeat + 1)][1:] for name, job in (jobs | _JOBS).items()}
    times = {name: [seconds for seconds, _ in runs] for name, runs in found.items()}
    peaks = {name: max(size for _, size in runs) / volume for name, runs in found.items()}
    return rows(times, peaks)


def _measured(setup: str, job: str, folder: str) -> tuple[float, float]:
    program = _PROGRAM.format(setup=setup, job=job)
    done = subprocess.run([sys.executable, "-c", program, folder], check=True, stdout=subprocess.PIPE)
    seconds, size = json.loads(done.stdout)
    return float(seconds), float(size)


def write_ct(folder: Path) -> None:
    """Write an axial CT of 300 slices of 512 x 512, 16 bits, uncompressed, as a scanner would."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 20, (SIZE, SIZE))
    study, series, frame = (generate_uid(entropy_srcs=[word]) for word in ("study", "series", "frame"))
    for number in range(SLICES):
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{series}.{number + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.Modality, dataset.PatientID, dataset.InstanceNumber = "CT", "bench", number + 1
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = (
            [1, 0, 0, 0, 1, 0],
            [-200.0, -200.0, 2.0 * number],
        )
        dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.8], 2.0
        dataset.Rows = dataset.Columns = SIZE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = np.roll(noise, number, axis=0).astype(np.int16).tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
