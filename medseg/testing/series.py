"""Phantoms that write DICOM series, ordinary or awkward, with their truth: the world position and value of every voxel.

A `Plane` is one slice with its data set and its truth; a case changes the one and leaves the other, or changes both.
`save` writes planes under shuffled names and returns the `Truth`, against which `medseg.testing.judge` holds a reader.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds
from scipy.spatial.transform import Rotation

FloatArray = npt.NDArray[np.float64]

NAME = "Doe^Jane"  # in every header; no message may show it
RAMP = np.array([90.0, 110.0, 70.0])  # of a ramp phantom: change of the value for each mm of R, A, S
_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass
class Plane:
    """One slice: what is written, and what is true of it.

    Parameters
    ----------
    dataset : FileDataset
        What is written.
    origin : array (3,)
        Centre of the first pixel, LPS mm.
    axes : array (2, 3)
        Unit vectors along a row and down a column, LPS.
    spacing : two floats
        Distance of rows, of columns, mm.
    values : array (rows, columns) or (channels, rows, columns)
        What the pixels mean, after rescaling.
    """

    dataset: FileDataset
    origin: FloatArray
    axes: FloatArray
    spacing: tuple[float, float]
    values: FloatArray

    def points(self) -> FloatArray:
        """World position of each pixel centre, RAS mm, (rows, columns, 3)."""
        place = np.indices(self.values.shape[-2:]).astype(np.float64)[..., None]  # (2, rows, columns, 1)
        steps = place[0] * self.axes[1] * self.spacing[0] + place[1] * self.axes[0] * self.spacing[1]
        points: FloatArray = (self.origin + steps) * _LPS
        return points

    @property
    def pixels(self) -> npt.NDArray[Any]:
        """Stored numbers (rows, columns) of gray, uncompressed little endian pixels."""
        ds = self.dataset
        dtype = f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
        return np.frombuffer(ds.PixelData, dtype).reshape(ds.Rows, ds.Columns)

    @pixels.setter
    def pixels(self, stored: npt.NDArray[Any]) -> None:
        self.dataset.PixelData = stored.tobytes()


@dataclass(frozen=True)
class Truth:
    """Where every voxel of one volume lies, and what it holds.

    Parameters
    ----------
    points : array (slices, rows, columns, 3)
        RAS mm.
    values : array (channels, slices, rows, columns)
        NaN where any value is right (padding).
    also : tuple of arrays
        Other values that may be called right (MONOCHROME1 as stored).
    ramp : array (4,), optional
        Value = ramp[:3] @ position + ramp[3] everywhere, so that a resampled volume can be judged too.
    off : float
        How far a voxel may lie from its point, mm.
    close : float
        How far a value may be off.
    """

    points: FloatArray
    values: FloatArray
    also: tuple[FloatArray, ...] = ()
    ramp: FloatArray | None = None
    off: float = 0.01
    close: float = 0.0

    @classmethod
    def of(cls, planes: Sequence[Plane], **changes: Any) -> Truth:
        """The truth of planes of one size, in the order given."""
        values = np.stack([plane.values if plane.values.ndim == 3 else plane.values[None] for plane in planes], axis=1)
        points = np.stack([plane.points() for plane in planes])
        return replace(cls(points, values.astype(np.float64)), **changes)


def axes_of(angles: tuple[float, float, float]) -> FloatArray:
    """Row, column and normal (3, 3) in LPS of a slice turned by Euler angles in degrees; zeros: axial."""
    axes: FloatArray = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T
    return axes


def stack(
    count: int = 6,
    step: float = 2.5,
    angles: tuple[float, float, float] = (0, 0, 0),
    *,
    shape: tuple[int, int] = (5, 7),
    distances: Sequence[float] | None = None,
    drift: float = 0.0,
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    spacing: tuple[float, float] = (0.8, 0.7),
    dtype: str = "int16",
    ramp: bool = False,
    seed: int = 0,
    series: str = "1",
    **tags: Any,
) -> list[Plane]:
    """Slices along the normal, in order, with random pixels or a ramp; of a CT unless `tags` say otherwise.

    Parameters
    ----------
    count, step
        How many, and how many mm apart.
    angles
        See `axes_of`.
    shape
        Rows, columns.
    distances
        Of each slice along the normal, mm, instead of `count` and `step`.
    drift
        mm that each mm along the normal shifts a slice down its columns: the tangent of a gantry tilt.
    origin
        LPS mm of the first slice.
    spacing
        Distance of rows, of columns, mm.
    dtype
        Of the stored pixels.
    ramp
        Values change linearly in space by `RAMP`; see `ramp_of`.
    seed
        Of the random pixels.
    series
        Last part of the SeriesInstanceUID.
    tags
        Attributes of every data set; None leaves one out.
    """
    axes = axes_of(angles)
    along = np.arange(count) * step if distances is None else np.asarray(distances, np.float64)
    draw = np.random.default_rng(seed)
    out = []
    for number, distance in enumerate(along, 1):
        place = np.array(origin) + distance * axes[2] + distance * drift * axes[1]
        stored = draw.integers(0, 100 if dtype.endswith("int8") else 1000, shape).astype(dtype)
        dataset = _dataset(stored, place, axes, spacing, series, number, tags)
        slope, intercept = (
            float(dataset.get(f"Rescale{key}", None) or d) for key, d in (("Slope", 1), ("Intercept", 0))
        )
        one = Plane(dataset, place, axes[:2], spacing, np.zeros(shape))
        if ramp:
            level = ramp_of(origin)
            one.pixels = stored = np.rint((one.points() @ level[:3] + level[3] - intercept) / slope).astype(dtype)
        one.values = stored * slope + intercept
        out.append(one)
    return out


def ramp_of(origin: Sequence[float] = (-10.0, 20.0, 30.0)) -> FloatArray:
    """Coefficients (4,) of the ramp that is 0 at an LPS position: three for RAS mm and a constant."""
    return np.append(RAMP, -RAMP @ (np.array(origin) * _LPS))


def _dataset(
    stored: npt.NDArray[Any],
    place: FloatArray,
    axes: FloatArray,
    spacing: tuple[float, float],
    series: str,
    number: int,
    tags: dict[str, Any],
) -> FileDataset:
    meta = FileMetaDataset()
    kind = tags.get("SOPClassUID", CTImageStorage)
    uid = generate_uid(entropy_srcs=[series, str(number), str(place.tolist()), str(sorted(map(str, tags.items())))])
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    out.SOPClassUID, out.SOPInstanceUID = kind, uid
    out.PatientName, out.PatientID, out.SeriesDescription = NAME, NAME, NAME
    out.StudyInstanceUID, out.SeriesInstanceUID, out.FrameOfReferenceUID = "1.2", f"1.2.3.{series}", "1.2.9"
    out.StudyDate, out.StudyTime, out.Modality, out.SeriesNumber = "20200102", "101112", "CT", 1
    out.InstanceNumber = number
    out.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    out.Rows, out.Columns = stored.shape
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.BitsAllocated = out.BitsStored = 8 * stored.dtype.itemsize
    out.HighBit, out.PixelRepresentation = out.BitsStored - 1, int(stored.dtype.kind == "i")
    out.ImageOrientationPatient = numbers(axes[:2].ravel())
    out.ImagePositionPatient = numbers(place)
    out.PixelSpacing, out.SliceThickness = numbers(np.array(spacing)), "2.5"
    out.RescaleSlope, out.RescaleIntercept = "1", "-1024"
    out.PixelData = stored.tobytes()
    for key, value in tags.items():
        if value is None:
            delattr(out, key)
        else:
            setattr(out, key, value)
    return out


def numbers(values: FloatArray) -> list[str]:
    """Decimal strings of at most 16 characters, as the standard has them."""
    return [format_number_as_ds(round(float(value), 11) + 0.0) for value in values]


def put(plane: Plane, keyword: str, text: str) -> None:
    """Write a decimal string as it stands, past every check of pydicom; several values with a backslash between."""
    tag = Tag(keyword)
    value = text.encode("ascii")
    value += b" " * (len(value) % 2)
    raw = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    plane.dataset.__setitem__(tag, raw)


def save(folder: Path, planes: Sequence[Plane], seed: int = 1, name: str = "I{:03d}.dcm", **truth: Any) -> Truth:
    """Write planes under names in an order that is not theirs, and return their truth.

    Parameters
    ----------
    folder
        Made if it is not there.
    planes
        Slices of one volume.
    seed
        Of the order.
    name
        Pattern of the file names.
    truth
        Fields of the `Truth`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(planes))
    for number, i in enumerate(order):
        write(planes[i].dataset, folder / name.format(number))
    return Truth.of(planes, **truth)


def write(dataset: FileDataset, path: Path) -> None:
    """Write a data set, valid or not."""
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    finally:
        config.settings.writing_validation_mode = before
