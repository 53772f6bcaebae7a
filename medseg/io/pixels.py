"""From stored DICOM pixels to values: decoding, inversion, rescaling."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from medseg.errors import FormatError
from medseg.io.common import reading

AnyArray = npt.NDArray[Any]

THREADS = min(4, os.cpu_count() or 1)
_OURS = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)  # no permissive pydicom plugin decodes these


@dataclass(frozen=True)
class Stored:
    """How the pixels of one slice are stored and scaled."""

    dtype: np.dtype[Any]
    bits: int  # BitsStored
    inverted: int | None  # MONOCHROME1: stored value v stands for inverted - v
    slope: float
    intercept: float

    @classmethod
    def from_dataset(cls, dataset: Dataset, slice_number: int) -> Stored:
        """Read the fields of a pydicom data set.

        Raises
        ------
        FormatError
            A field is malformed, or pixels have other than 8, 16 or 32 bits.
        """
        bits, used = (int(header_number(dataset, key, 0)) for key in ("BitsAllocated", "BitsStored"))
        if bits not in (8, 16, 32) or not 0 < used <= bits:
            raise FormatError(f"Slice {slice_number} has {used} of {bits} bits for each pixel; medseg reads 8, 16, 32.")
        signed = header_number(dataset, "PixelRepresentation", 0) == 1
        inverted = None
        if str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
            inverted = -1 if signed else (1 << used) - 1
        slope, intercept = header_number(dataset, "RescaleSlope", 1), header_number(dataset, "RescaleIntercept", 0)
        if slope == 0:
            raise FormatError(f"Slice {slice_number} has a RescaleSlope of 0; the header is damaged.")
        return cls(np.dtype(f"{'i' if signed else 'u'}{bits // 8}"), used, inverted, slope, intercept)

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept."""
        return self.slope, self.intercept


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings and log lines quote header values."""
    log = logging.getLogger("pydicom")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def header_number(dataset: Dataset, key: str, default: float) -> float:
    """Return a header number, or `default` if it is absent or empty.

    Raises
    ------
    FormatError
        It is not one finite number; the message does not quote it.
    """
    value = dataset.get(key)
    if value is None or value == "":
        return default
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise FormatError(f"{key} is not a number; the header is damaged.") from None
    if not np.isfinite(found):
        raise FormatError(f"{key} is not finite; the header is damaged.")
    return found


def check_size(path: Path, dataset: Dataset, slice_number: int) -> None:
    """Raise FormatError if uncompressed pixels cannot be whole: found before anyone waits for the voxels."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None or not syntax.is_transfer_syntax or syntax.is_compressed:
        return
    pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    if pixels > path.stat().st_size:
        raise FormatError(f"Slice {slice_number} is truncated: its file cannot hold {pixels} bytes of pixels.")


def result(stored: Sequence[Stored]) -> np.dtype[Any]:
    """Return the type of the values of all slices: as stored, int32 with one whole rescale for all, else float32."""
    scales = {one.scale for one in stored}
    if scales == {(1.0, 0.0)}:
        kinds = {one.dtype for one in stored}
        return kinds.pop() if len(kinds) == 1 else np.result_type(*kinds)
    slope, intercept = stored[0].scale
    # 16 bits times a slope of up to 2^14 fit into 32 bits.
    small = all(one.dtype.itemsize <= 2 for one in stored) and abs(slope) <= 1 << 14 and abs(intercept) < 1e9
    whole = len(scales) == 1 and slope.is_integer() and intercept.is_integer()
    return np.dtype(np.int32 if whole and small else np.float32)


def reader(files: Sequence[Path], stored: Sequence[Stored], shape: tuple[int, ...]) -> Callable[[], AnyArray]:
    """Return the function that decodes all slices into an array (1, slices, rows, columns)."""

    def load() -> AnyArray:
        out = np.empty((1, *shape), result(stored))

        def decode(i: int) -> None:
            out[0, i] = _values(files[i], i + 1, stored[i], shape[1:], out.dtype)

        with quiet(), ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(decode, range(len(files))))
        return out

    return load


def _values(path: Path, slice_number: int, stored: Stored, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
    """Return the values (rows, columns) of one slice."""
    try:
        with reading(path, "DICOM"):
            pixels = _pixels(pydicom.dcmread(path, force=True), stored)
    except FormatError:
        raise FormatError(
            f"The pixels of slice {slice_number} cannot be decoded: they are missing, damaged, or compressed in a way "
            "that is not supported."
        ) from None
    if pixels.shape != shape or not np.can_cast(pixels.dtype, stored.dtype, "safe"):
        raise FormatError(f"Slice {slice_number} holds pixels of another size or type than its header says.")
    if stored.inverted is not None:
        pixels = (stored.inverted - pixels.astype(np.int64)).astype(stored.dtype)
    if stored.scale == (1.0, 0.0):
        return pixels
    if dtype.kind == "i":
        return pixels.astype(np.int32) * np.int32(stored.slope) + np.int32(stored.intercept)
    return (pixels.astype(np.float64) * stored.slope + stored.intercept).astype(np.float32)


def _pixels(dataset: Dataset, stored: Stored) -> AnyArray:
    """Return the stored pixels (rows, columns)."""
    if dataset.file_meta.get("TransferSyntaxUID") not in _OURS:
        return dataset.pixel_array
    import imagecodecs

    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    pixels: AnyArray = np.asarray(imagecodecs.jpeg_decode(frame))
    if stored.dtype.kind == "i":
        spare = 8 * stored.dtype.itemsize - stored.bits  # JPEG knows no sign: the top stored bit becomes it
        return (pixels.astype(stored.dtype) << spare) >> spare
    return pixels.astype(stored.dtype, casting="safe")
