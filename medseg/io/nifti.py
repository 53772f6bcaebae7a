"""NIfTI-1 and NIfTI-2, plain and gzipped. Arrays are the transpose of what NIfTI indexes: (k, j, i) for (i, j, k)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip

from medseg.errors import FormatError, InputError
from medseg.grid import SKEW, Grid
from medseg.image import Image, LazyArray, Source
from medseg.io.common import reading
from medseg.io.forms import grid_of
from medseg.io.limits import DEFLATE, SLACK, check_claim

AnyArray = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

_HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}


@dataclass(frozen=True)
class _Layout:
    """Where the voxels lie in the file, and what turns them into values."""

    offset: int
    stored: np.dtype[Any]
    shape: tuple[int, ...]  # (C, *spatial), array order
    slope: float
    inter: float

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.stored.itemsize

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values: as stored; where a scale applies float32, or float64 for more than 24 bits."""
        if not self.scaled:
            return self.stored.newbyteorder("=")
        exact = self.stored.itemsize > 4 or (self.stored.itemsize == 4 and self.stored.kind != "f")
        return np.dtype(np.float64 if exact else np.float32)

    def values(self, stored: AnyArray) -> AnyArray:
        """Turn stored numbers into values."""
        if not self.scaled:
            return stored.astype(self.dtype, copy=False)
        wide = np.dtype(np.float64 if stored.dtype.itemsize > 2 else np.float32)
        with np.errstate(over="raise"):
            values: AnyArray = np.multiply(stored, self.slope, dtype=wide)
            values += self.inter
            return values.astype(self.dtype, copy=False)


def read(path: Path, channel_axis: int | None = None, labels: bool = False) -> Image:
    """Read a NIfTI file: the header now, the voxels when they are touched.

    Parameters
    ----------
    path : Path
        A .nii or .nii.gz file.
    channel_axis : int, optional
        Says that the fourth NIfTI axis counts channels: 3 or -1 as stored, 0 as in the array.
    labels : bool
        Not used; values of NIfTI labels are read like any others.

    Raises
    ------
    FormatError
        Not NIfTI, truncated, damaged.
    GeometryError
        The orientation or the spacing cannot be used.
    InputError
        Time series, five axes, colour or complex voxels, or more voxels than `medseg.io.limits` allows.
    """
    with reading(path, "NIfTI"):
        header = _header(path)
        sizes, channels = _sizes(header, path, channel_axis)
        layout = _layout(header, path, (channels or 1, *sizes[::-1]))
        grid, notes = grid_of(header, sizes, path)
        array = _voxels(path, layout)
    shape = (layout.shape[0], *grid.shape)  # a 2-D image oblique in space became a stack of one slice
    if array.shape != shape:
        array = LazyArray(shape, array.dtype, lambda lazy=array: np.asarray(lazy).reshape(shape))  # type: ignore[misc]
    names = tuple(f"c{i}" for i in range(channels)) if channels else ("gray",)
    return Image(array, grid, "other", names, Source((path,), "nifti", notes=tuple(notes)))


def _gzipped(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _open(path: Path) -> BinaryIO:
    if not _gzipped(path):
        return path.open("rb")
    with path.open("rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            raise FormatError(f"{path.name} is not a gzip file, although it is named so; rename it or get it again.")
    return cast(BinaryIO, igzip.open(path, "rb"))  # type: ignore[no-untyped-call]


def _header(path: Path) -> Any:
    """Return the nibabel header, unchecked."""
    with _open(path) as stream:
        block = stream.read(540)
    for size, kind in _HEADERS.items():
        number = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
        if size in number and len(block) >= size:
            header = kind.from_fileobj(BytesIO(block[:size]), check=False)  # type: ignore[no-untyped-call]
            if bytes(header["magic"].item())[:3] not in (b"n+1", b"n+2"):
                raise FormatError(f"{path.name} is Analyze or a NIfTI pair; convert it to one .nii file.")
            return header
    raise FormatError(f"{path.name} is no NIfTI file: it does not begin with a NIfTI header; get it again.")


def _sizes(header: Any, path: Path, channel_axis: int | None) -> tuple[tuple[int, ...], int]:
    """Return the spatial sizes (i, j[, k]) and the number of channels, 0 if there is no channel axis."""
    sizes = [int(size) for size in header["dim"][1 : 1 + min(7, max(0, int(header["dim"][0])))]]
    if len(sizes) < 2 or min(sizes) < 1:
        raise FormatError(f"{path.name} states the sizes {sizes}; the header is damaged, get the file again.")
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) > 4:
        raise InputError(f"{path.name} has {len(sizes)} axes of sizes {sizes}; split it into volumes.")
    if len(sizes) < 4:
        if channel_axis is not None:
            raise InputError(f"{path.name} has {len(sizes)} axes and no channel axis; leave channel_axis out.")
        return tuple(sizes), 0
    if channel_axis is None:
        raise InputError(
            f"{path.name} holds {sizes[3]} volumes, a time series or channels; split it into one file for each volume, "
            "or pass channel_axis=3 if they are channels."
        )
    if channel_axis not in (0, 3, -1):
        raise InputError(f"channel_axis {channel_axis} is not the fourth axis of {path.name}; pass 3.")
    return tuple(sizes[:3]), sizes[3]


def _layout(header: Any, path: Path, shape: tuple[int, ...]) -> _Layout:
    stored = header.get_data_dtype()
    if stored.kind not in "iuf" or stored.itemsize > 8:
        raise InputError(f"{path.name} holds colour, complex or 128-bit voxels; convert them to plain numbers.")
    slope, inter = (float(header[key]) for key in ("scl_slope", "scl_inter"))
    if not np.isfinite(slope) or slope == 0:  # the standard's way to say that there is no scale
        slope, inter = 1.0, 0.0
    if not np.isfinite(inter):
        raise FormatError(f"{path.name}: scl_inter is not finite; the header is damaged.")
    layout = _Layout(max(int(header["vox_offset"]), header.sizeof_hdr), stored, shape, slope, inter)
    size = path.stat().st_size
    if layout.offset + layout.nbytes > (size * DEFLATE if _gzipped(path) else size):
        raise FormatError(f"{path.name} is truncated: {size} bytes cannot hold the voxels it states; get it again.")
    if not _mapped(path, layout):
        check_claim(layout.offset + layout.nbytes, path)
    return layout


def _mapped(path: Path, layout: _Layout) -> bool:
    """Whether voxels can stay in the file until they are touched, so that they claim no memory."""
    return not _gzipped(path) and not layout.scaled and layout.stored.isnative


def _voxels(path: Path, layout: _Layout) -> AnyArray | LazyArray:
    if _mapped(path, layout):
        return np.memmap(path, layout.stored, "r", layout.offset, layout.shape)
    return LazyArray(layout.shape, layout.dtype, _reader(path, layout))


def _reader(path: Path, layout: _Layout) -> Callable[[], AnyArray]:
    """Return the function that reads exactly the voxels the header promises, and no more."""

    def load() -> AnyArray:
        with reading(path, "NIfTI"), _open(path) as stream:
            stream.seek(layout.offset)
            stored = np.empty(layout.shape, layout.stored)
            buffer = stored.reshape(-1).view(np.uint8).data
            done = 0
            while count := stream.readinto(buffer[done:]):  # type: ignore[attr-defined]
                done += count
            if done < layout.nbytes:
                raise FormatError(f"{path.name} is truncated: it ends within its voxels; get it again.")
            # Reading to the end checks the sum of gzip; a bomb is stopped after SLACK bytes.
            if _gzipped(path) and len(stream.read(SLACK + 1)) > SLACK:
                raise FormatError(f"{path.name} holds more voxels than its header states; get it again.")
        try:
            return layout.values(stored)
        except FloatingPointError:
            raise FormatError(f"{path.name}: scl_slope makes numbers too large to hold; correct the header.") from None

    return load


def encode(array: AnyArray, grid: Grid, compress: bool) -> bytes:
    """Return a NIfTI file as bytes; the same input always gives the same bytes.

    Parameters
    ----------
    array : array of grid.shape, or (C, *grid.shape) for a 3-D grid
        Integers or floats, written as they are.
    grid : Grid
        Where the voxels lie. A sheared grid gets no qform, an unknown spacing no orientation and no unit.
    compress : bool
        Whether to gzip.
    """
    header = _new_header(nibabel.Nifti1Header, array, grid)
    stored = header.get_sform().astype(np.float64)
    if max(array.shape) > 32767 or (grid.known and not grid.matches(_same_kind(grid, stored))):
        header = _new_header(nibabel.Nifti2Header, array, grid)  # longer axes, and doubles for the affine
    data = header.binaryblock.ljust(int(header["vox_offset"]), b"\0") + np.ascontiguousarray(array).tobytes()
    return bytes(igzip.compress(data, compresslevel=1, mtime=0)) if compress else data


def _new_header(kind: Any, array: AnyArray, grid: Grid) -> Any:
    header = kind()
    header.set_data_dtype(array.dtype)
    header["dim"] = 1
    largest = np.iinfo(header["dim"].dtype).max
    header["dim"][: array.ndim + 1] = [array.ndim, *(min(size, largest) for size in array.shape[::-1])]
    header["vox_offset"] = header.sizeof_hdr + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    if not grid.known:
        return header
    affine = grid.to_nifti()
    code = 1 if grid.space == "patient" else 2
    linear = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    header["pixdim"][1 : grid.ndim + 1] = grid.spacing[::-1]
    if np.abs(linear.T @ linear - np.eye(3)).max() <= SKEW:
        header.set_qform(affine, code, strip_shears=True)
        if not grid.matches(_same_kind(grid, header.get_qform().astype(np.float64))):
            header["qform_code"] = 0  # single precision turns it too far; no qform is better than a wrong one
    header.set_sform(affine, code)
    header.set_xyzt_units("mm")
    return header


def _same_kind(grid: Grid, affine: Matrix) -> Grid:
    return replace(Grid.from_nifti(grid.shape[::-1], affine), space=grid.space, axes=grid.axes, frame=grid.frame)
