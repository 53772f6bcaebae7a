"""NRRD and MetaImage, header and geometry; `medseg.io.raw` unpacks the voxels.

Read here and not by ITK, which is silent about units, absent spacing and broken voxels, and writes to stderr.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from isal import igzip

from medseg.errors import FormatError, GeometryError, InputError, OutputError
from medseg.grid import Grid
from medseg.image import Image, LazyArray, Source
from medseg.io import raw
from medseg.io.common import millimetres, reading
from medseg.io.names import suffix

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Header = dict[str, str]
Placed = tuple[Grid, tuple[str, ...]]

_LIMIT = 1 << 16  # bytes a header may have; real ones have a few hundred
_SPACES = {
    "left-posterior-superior": (1, 1), "lps": (1, 1), "right-anterior-superior": (-1, -1), "ras": (-1, -1),
    "left-anterior-superior": (1, -1), "las": (1, -1),
}  # fmt: skip
_TYPES = {
    "u1": ("uint8", "MET_UCHAR"), "i1": ("int8", "MET_CHAR"), "u2": ("uint16", "MET_USHORT"),
    "i2": ("int16", "MET_SHORT"), "u4": ("uint32", "MET_UINT"), "i4": ("int32", "MET_INT"),
    "f4": ("float", "MET_FLOAT"), "f8": ("double", "MET_DOUBLE"),
}  # fmt: skip
_NAMES = {name.lower(): code for code, names in _TYPES.items() for name in names} | {
    "uchar": "u1", "unsigned char": "u1", "uint8_t": "u1", "signed char": "i1", "int8_t": "i1", "ushort": "u2",
    "unsigned short": "u2", "unsigned short int": "u2", "uint16_t": "u2", "short": "i2", "short int": "i2",
    "signed short": "i2", "signed short int": "i2", "int16_t": "i2", "uint": "u4", "unsigned int": "u4",
    "uint32_t": "u4", "int": "i4", "signed int": "i4", "int32_t": "i4", "ulonglong": "u8", "unsigned long long": "u8",
    "unsigned long long int": "u8", "uint64": "u8", "uint64_t": "u8", "longlong": "i8", "long long": "i8",
    "long long int": "i8", "signed long long": "i8", "signed long long int": "i8", "int64": "i8", "int64_t": "i8",
    "met_ulong": "u4", "met_long": "i4", "met_ulong_long": "u8", "met_long_long": "i8",
}  # fmt: skip


def read(path: Path, channel_axis: int | None = None, labels: bool = False) -> Image:
    """Read a NRRD or MetaImage file: the header now, the voxels when they are touched.

    Parameters
    ----------
    path : Path
        A .nrrd, .nhdr, .mha or .mhd file.
    channel_axis : int, optional
        Must be absent: vector pixels are channels, and nothing else is.
    labels : bool
        Not used; ids are read like any other values.

    Raises
    ------
    FormatError
        Not NRRD or MetaImage, truncated, damaged.
    GeometryError
        The spacing or the directions cannot be used.
    InputError
        More than three axes, or complex voxels.
    """
    if channel_axis is not None:
        raise InputError(f"{path.name} says itself what its channels are; leave channel_axis out.")
    nrrd = suffix(path) in (".nrrd", ".nhdr")
    with reading(path, "NRRD" if nrrd else "MetaImage"):
        header, start = _header(path, nrrd)
        _check_values(header, path)
        kind = header.get("type" if nrrd else "elementtype", "").lower().removesuffix("_array")
        if kind not in _NAMES:
            raise InputError(f"{path.name} holds voxels that are no plain numbers; convert them.")
        shape, axis, spatial = (_nrrd_shape if nrrd else _meta_shape)(header, path)
        stored = (raw.of_nrrd if nrrd else raw.of_meta)(path, header, start, np.dtype(_NAMES[kind]), shape)
        array = stored.array()
        grid, notes = (_nrrd_grid if nrrd else _meta_grid)(header, spatial)
    count = 1 if axis is None else shape[axis]
    channels = ("gray",) if count == 1 else tuple(f"c{i}" for i in range(count))
    source = Source(tuple(dict.fromkeys((path, *stored.files))), "nrrd" if nrrd else "metaimage", notes=notes)
    return Image(_channels_first(array, axis), grid, "other", channels, source)


def _check_values(header: Header, path: Path) -> None:
    """Refuse files that state what their numbers stand for, which is not applied."""
    slope, offset = (header.get(f"elementtointensityfunction{end}") for end in ("slope", "offset"))
    if float(slope or 1) != 1 or float(offset or 0) != 0 or {"old min", "oldmin", "old max", "oldmax"} & set(header):
        raise InputError(f"{path.name} says that its numbers stand for other values; write the values themselves.")


Shape = tuple[tuple[int, ...], int | None, tuple[int, ...]]  # as stored, its channel axis, and without that


def _shape(stored: tuple[int, ...], axis: int | None, path: Path) -> Shape:
    spatial = stored if axis is None else stored[:axis] + stored[axis + 1 :]
    if len(spatial) not in (2, 3):
        raise InputError(f"{path.name} has {len(spatial)} axes; split it into volumes.")
    if min(stored) < 1:
        raise FormatError(f"{path.name} states a size that is not positive; the header is damaged.")
    return stored, axis, spatial


def _meta_shape(header: Header, path: Path) -> Shape:
    sizes, channels = _numbers(header["dimsize"], int), int(header.get("elementnumberofchannels", "1"))
    if len(sizes) != int(header["ndims"]):
        raise FormatError(f"{path.name} states {len(sizes)} sizes for another number of axes; the header is damaged.")
    return _shape((*sizes[::-1], channels), len(sizes), path) if channels > 1 else _shape(sizes[::-1], None, path)


def _nrrd_shape(header: Header, path: Path) -> Shape:
    sizes = _numbers(header["sizes"], int)
    kinds, directions = header.get("kinds", "").lower().split(), _vectors(header)
    if len(sizes) != int(header["dimension"]) or len(directions) not in (0, len(sizes)):
        raise FormatError(f"{path.name} describes another number of axes than it has; the header is damaged.")
    apart = {i for i, kind in enumerate(kinds) if kind not in ("domain", "space", "???", "none")}
    apart |= {i for i, vector in enumerate(directions) if vector is None}
    if len(apart) > 1 or any("time" in kinds[i] or "matrix" in kinds[i] for i in apart if i < len(kinds)):
        raise InputError(f"{path.name} has axes that are neither space nor channels; split it into volumes.")
    if any("complex" in kinds[i] for i in apart if i < len(kinds)):
        raise InputError(f"{path.name} holds complex voxels; convert them to plain numbers.")
    return _shape(sizes[::-1], len(sizes) - 1 - apart.pop() if apart else None, path)


def _numbers(text: str, kind: type[Any] = float) -> tuple[Any, ...]:
    return tuple(kind(word) for word in text.split())


def _vectors(header: Header) -> list[FloatArray | None]:
    """Return the space directions of each axis, fastest first; None for one that does not lie in space."""
    out: list[FloatArray | None] = []
    for text in re.findall(r"none|\([^)]*\)", header.get("space directions", "").lower()):
        vector = None if text == "none" else np.array([float(word) for word in text[1:-1].split(",")])
        out.append(vector if vector is None or np.isfinite(vector).all() else None)
    return out


def _channels_first(array: AnyArray | LazyArray, axis: int | None) -> AnyArray | LazyArray:
    """Return the voxels (C, *spatial) without reading them."""

    def turned(values: AnyArray) -> AnyArray:
        return values[np.newaxis] if axis is None else np.moveaxis(values, axis, 0)

    if not isinstance(array, LazyArray):
        return turned(array)
    shape = (1, *array.shape) if axis is None else (array.shape[axis], *array.shape[:axis], *array.shape[axis + 1 :])
    return LazyArray(shape, array.dtype, lambda: turned(np.asarray(array)))


def _header(path: Path, nrrd: bool) -> tuple[Header, int]:
    """Return the header's fields, keys in lower case, and the position of the first byte after it."""
    fields: Header = {}
    ended = False
    with path.open("rb") as stream:
        if nrrd and stream.readline(_LIMIT)[:7] != b"NRRD000":
            raise FormatError(f"{path.name} is no NRRD file: it does not begin with NRRD000; get it again.")
        for line in _lines(stream):
            if nrrd and not line:
                ended = True
                break
            if nrrd and (line.startswith("#") or ":=" in line[: line.find(":") + 2]):
                continue  # a comment, or a pair of a program's own, which may be named like a field
            key, mark, value = line.partition(":" if nrrd else "=")
            name, value = key.strip().lower(), value.strip()
            if mark:
                fields[name] = value
            last = name in ("data file", "datafile", "elementdatafile")
            if last and value.upper().startswith("LIST"):
                fields[""] = "\n".join(_lines(stream))
            if not nrrd and last:
                break
        end = stream.tell()
    if nrrd and not ended and not {"data file", "datafile"} & set(fields):
        raise FormatError(f"{path.name} is truncated: its header does not end; get it again.")
    if not nrrd and "elementdatafile" not in fields:
        raise FormatError(f"{path.name} is no MetaImage file: it names no ElementDataFile; get it again.")
    return fields, end


def _lines(stream: BinaryIO) -> Iterator[str]:
    while stream.tell() < _LIMIT and (line := stream.readline(_LIMIT)):
        yield line.decode("latin-1").strip()


def _meta_grid(header: Header, spatial: tuple[int, ...]) -> Placed:
    """Return the grid in mm, or in pixels where the file states no spacing. MetaImage is always LPS."""
    n = len(spatial)
    spacing = header.get("elementspacing") or header.get("elementsize")
    if spacing is None or "nan" in spacing.lower():
        return Grid.from_spacing(spatial, None), ("the file states no spacing",)
    matrix = _first(header, ("transformmatrix", "rotation", "orientation"), " ".join(map(str, np.eye(n).ravel())))
    origin = _first(header, ("offset", "position", "origin"), "0 " * n)
    turned = np.array(_numbers(matrix)).reshape(n, n).T.ravel()  # one axis after the other
    return _in_mm(Grid.from_itk(spatial[::-1], _numbers(spacing), _numbers(origin), turned.tolist()), header, False)


def _nrrd_grid(header: Header, spatial: tuple[int, ...]) -> Placed:
    """Return the grid in mm, or in pixels where the file states no spacing."""
    n = len(spatial)
    if any(word in header for word in ("axis mins", "axismins", "axis maxs", "axismaxs")):
        raise GeometryError("The file places its axes by minima and maxima; write it again with space directions.")
    vectors = [vector for vector in _vectors(header) if vector is not None]
    if not vectors:
        steps = [step for step in _numbers(header.get("spacings", "")) if np.isfinite(step)]  # NaN: a channel axis
        if len(steps) != n:
            return Grid.from_spacing(spatial, None), ("the file states no spacing",)
        return _in_mm(Grid.from_itk(spatial[::-1], steps, [0.0] * n, np.eye(n).ravel().tolist(), False), header, True)
    if len(vectors) != n or any(len(vector) != n for vector in vectors):
        raise GeometryError("The file places its axes in a space of other dimensions; reshape it to a volume.")
    linear = np.column_stack(vectors)
    steps = [float(np.linalg.norm(vector)) for vector in vectors]
    if not all(steps):
        raise GeometryError("A space direction of the file has no length; correct the header.")
    origin = [float(word) for word in header.get("space origin", "").strip("() ").split(",") if word.strip()]
    stated = len(origin) == n and bool(np.isfinite(origin).all())
    start = np.array(origin if stated else [0.0] * n)
    signs = _SPACES.get(header.get("space", "").lower().removesuffix("-time"))
    turn = np.array([*(signs or (1, 1)), 1])[:n] if n == 3 else np.ones(n)
    direction = (turn[:, None] * linear / steps).ravel().tolist()
    placed = Grid.from_itk(spatial[::-1], steps, turn * start, direction, signs is not None)
    grid, notes = _in_mm(placed, header, True)
    return grid, notes if stated else (*notes, "the file states no origin; the first voxel is put at 0")


def _first(header: Header, keys: tuple[str, ...], default: str) -> str:
    return next((header[key] for key in keys if key in header), default)


def _in_mm(grid: Grid, header: Header, nrrd: bool) -> Placed:
    factor, notes = _unit(header, nrrd)
    if factor != 1:
        grid = replace(grid, affine=np.diag([*[factor] * grid.ndim, 1.0]) @ grid.affine)
    return grid, notes


def _unit(header: Header, nrrd: bool) -> tuple[float, tuple[str, ...]]:
    """Return what turns the file's lengths into mm."""
    text = (header.get("space units") or header.get("units", "")) if nrrd else header.get("distanceunits", "")
    names = {name for name in text.replace('"', " ").split() if name not in ("", "???", "none")}
    if not names or names == {"mm"}:
        return 1.0, ()
    factors = {millimetres(name) for name in names}
    factor = factors.pop() if len(factors) == 1 else None
    if factor is None:
        raise GeometryError("The file states lengths in a unit that is not known; write it again in mm.")
    return factor, (f"lengths of the file were multiplied by {factor:g} to give mm",)


def encode(array: AnyArray, grid: Grid, nrrd: bool) -> bytes:
    """Return a compressed NRRD or MetaImage file as bytes, written here because SimpleITK is silent on a full disk.

    Parameters
    ----------
    array : array of grid.shape
        Integers or floats of up to 8 bytes.
    grid : Grid
        Where the voxels lie; an unknown spacing is left out.
    nrrd : bool
        NRRD rather than MetaImage.

    Raises
    ------
    GeometryError
        The grid is sheared.
    OutputError
        The format has no such voxel type.
    """
    kinds = _TYPES.get(array.dtype.str[1:])
    if kinds is None or not array.dtype.isnative:
        raise OutputError(f"Voxels of type {array.dtype} do not fit this format; convert them or write NIfTI.")
    # MetaImage is always read as LPS: written so, a stage grid keeps its numbers.
    turned = replace(grid, space="patient") if not nrrd and grid.known and grid.ndim == 3 else grid
    data = np.ascontiguousarray(array).tobytes()
    fields = _nrrd_fields(turned, kinds[0]) if nrrd else _meta_fields(turned, kinds[1])
    if nrrd:
        text = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n"
        return text.encode("ascii") + bytes(igzip.compress(data, compresslevel=1, mtime=0))
    packed = zlib.compress(data, 1)
    fields = {"ObjectType": "Image", "NDims": str(grid.ndim), "CompressedDataSize": str(len(packed)), **fields}
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode("ascii") + packed


def _nrrd_fields(grid: Grid, kind: str) -> Header:
    n = grid.ndim
    fields = {"type": kind, "dimension": str(n)}
    if grid.known:
        spacing, origin, direction = grid.to_itk()
        columns = (np.array(direction).reshape(n, n) * spacing).T.tolist()
        space = {"space": "left-posterior-superior"} if grid.space == "patient" else {"space dimension": str(n)}
        vectors = " ".join(f"({','.join(map(repr, column))})" for column in columns)
        units = " ".join(['"mm"'] * n)
        fields |= {**space, "space directions": vectors, "space units": units}
        fields["space origin"] = f"({','.join(map(repr, origin))})"
    sizes = " ".join(map(str, grid.shape[::-1]))
    return {**fields, "sizes": sizes, "kinds": " ".join(["domain"] * n), "endian": "little", "encoding": "gzip"}


def _meta_fields(grid: Grid, kind: str) -> Header:
    n = grid.ndim
    fields = {"BinaryData": "True", "BinaryDataByteOrderMSB": "False", "CompressedData": "True"}
    if grid.known:
        spacing, origin, direction = grid.to_itk()
        matrix = np.array(direction).reshape(n, n).T.ravel().tolist()  # MetaImage lists one axis after the other
        fields |= {"TransformMatrix": " ".join(map(repr, matrix)), "Offset": " ".join(map(repr, origin))}
        fields["ElementSpacing"] = " ".join(map(repr, spacing))
    sizes = " ".join(map(str, grid.shape[::-1]))
    return {**fields, "DimSize": sizes, "ElementType": kind, "ElementDataFile": "LOCAL"}
