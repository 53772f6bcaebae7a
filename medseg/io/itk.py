"""NRRD and MetaImage, read by SimpleITK; what that keeps to itself (unit, absent spacing) is read from the header."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import SimpleITK
from isal import igzip, isal_zlib

from medseg.errors import FormatError, GeometryError, InputError, OutputError
from medseg.grid import Grid
from medseg.image import Image, LazyArray, Source
from medseg.io.common import millimetres, reading
from medseg.io.names import suffix

AnyArray = npt.NDArray[Any]
Header = dict[str, str]
Packed = tuple[Path, int, int]  # file, first byte of a zlib or gzip stream, bytes of voxels

_CHUNK = 1 << 20
_LIMIT = 1 << 16  # bytes a header may have; real ones have a few hundred
_PATIENT = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las")
_TYPES = {
    "u1": ("uint8", "MET_UCHAR"), "i1": ("int8", "MET_CHAR"), "u2": ("uint16", "MET_USHORT"),
    "i2": ("int16", "MET_SHORT"), "u4": ("uint32", "MET_UINT"), "i4": ("int32", "MET_INT"),
    "f4": ("float", "MET_FLOAT"), "f8": ("double", "MET_DOUBLE"),
}  # fmt: skip

sitk: Any = SimpleITK  # it has no complete types
# ITK writes warnings, with header text, to stderr; what matters becomes a typed error here.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


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
        information = _information(path, nrrd)
        ndim, components = information.GetDimension(), information.GetNumberOfComponents()
        if ndim not in (2, 3):
            raise InputError(f"{path.name} has {ndim} axes; split it into volumes.")
        dtype = _dtype(information, path)
        size = tuple(int(length) for length in information.GetSize())
        nbytes = int(np.prod(size, dtype=object)) * components * dtype.itemsize
        packed = _whole(path, header, start, nbytes, nrrd)
        grid, notes = _grid(information, header, nrrd)
    array = LazyArray((components, *size[::-1]), dtype, _reader(path, nrrd, components, packed))
    channels = ("gray",) if components == 1 else tuple(f"c{i}" for i in range(components))
    return Image(array, grid, "other", channels, Source((path,), "nrrd" if nrrd else "metaimage", notes=notes))


def _information(path: Path, nrrd: bool) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")  # else ITK goes through every format it knows
    reader.ReadImageInformation()
    return reader


def _header(path: Path, nrrd: bool) -> tuple[Header, int]:
    """Return the header's fields, keys in lower case, and the position of the first byte after it."""
    fields: Header = {}
    with path.open("rb") as stream:
        if nrrd and stream.read(8)[:7] != b"NRRD000":
            raise FormatError(f"{path.name} is no NRRD file: it does not begin with NRRD000; get it again.")
        for line in _lines(stream):
            if nrrd and not line:
                break
            key, mark, value = line.partition(":" if nrrd else "=")
            if mark:
                fields[key.strip().lower()] = value.strip()
            if not nrrd and key.strip() == "ElementDataFile":
                break
        end = stream.tell()
    if not nrrd and "elementdatafile" not in fields:
        raise FormatError(f"{path.name} is no MetaImage file: it names no ElementDataFile; get it again.")
    return fields, end


def _lines(stream: BinaryIO) -> Any:
    stream.readline(_LIMIT) if stream.tell() else None
    while stream.tell() < _LIMIT and (line := stream.readline(_LIMIT)):
        yield line.decode("latin-1").strip()


def _dtype(information: Any, path: Path) -> np.dtype[Any]:
    name = sitk.GetPixelIDValueAsString(information.GetPixelID()).lower().removeprefix("vector of ")
    for text, dtype in (("signed integer", "int"), ("unsigned integer", "uint"), ("float", "float")):
        bits = name.split("-bit ")[0]
        if name.endswith(f"-bit {text}") and bits.isdigit():
            return np.dtype(f"{dtype}{bits}")
    raise InputError(f"{path.name} holds voxels of type {name}; convert them to plain numbers.")


def _whole(path: Path, header: Header, start: int, nbytes: int, nrrd: bool) -> Packed | None:
    """Raise FormatError if raw voxels are not there whole; return where packed ones are, to be checked when read."""
    if nrrd:
        name = header.get("data file") or header.get("datafile") or "LOCAL"
        encoding = header.get("encoding", "").lower()
        raw, packed = encoding == "raw", encoding in ("gzip", "gz")
    else:
        name = header["elementdatafile"]
        packed = header.get("compresseddata", "").lower() == "true"
        raw = not packed and header.get("binarydata", "").lower() == "true"
    if name.upper().startswith("LIST") or "%" in name or "line skip" in header or "byte skip" in header:
        return None  # several files, or a start that only ITK works out
    data, first = (path, start) if name.upper() == "LOCAL" else (path.parent / name, 0)
    if not data.is_file():
        raise FormatError(f"{path.name} names a data file that is not there; keep the two together.")
    if data.stat().st_size < first + (nbytes if raw else 1):
        raise FormatError(f"{path.name} is truncated: its data have fewer bytes than it states; get it again.")
    return (data, first, nbytes) if packed else None


def _check_packed(path: Path, start: int, nbytes: int) -> None:
    """Decompress to nowhere: of a stream that breaks off, ITK takes the rest for 0 or complains on stderr."""
    stream = isal_zlib.decompressobj(wbits=47)  # zlib or gzip, by the header
    size, block = 0, b""
    with path.open("rb") as file:
        file.seek(start)
        while not stream.eof and (block := stream.unconsumed_tail or file.read(_CHUNK)):
            size += len(stream.decompress(block, _CHUNK))
    if not stream.eof or size < nbytes:
        raise FormatError(f"{path.name} is truncated or damaged: its voxels end early; get it again.")


def _grid(information: Any, header: Header, nrrd: bool) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid in mm, or in pixels where the file states no spacing."""
    size = information.GetSize()
    stated = ("space directions", "spacings") if nrrd else ("elementspacing", "elementsize")
    if not any(key in header for key in stated):
        return Grid.from_spacing(size[::-1], None), ("the file states no spacing",)
    patient = not nrrd or header.get("space", "").lower().removesuffix("-time") in _PATIENT
    spacing, origin, direction = information.GetSpacing(), information.GetOrigin(), information.GetDirection()
    grid = Grid.from_itk(size, spacing, origin, direction, patient)
    factor, notes = _unit(header, nrrd)
    if factor != 1:
        scale = np.diag([*[factor] * grid.ndim, 1.0])
        grid = replace(grid, affine=scale @ grid.affine)
    return grid, notes


def _unit(header: Header, nrrd: bool) -> tuple[float, tuple[str, ...]]:
    """Return what turns the file's lengths into mm. SimpleITK takes every number for mm."""
    text = (header.get("space units") or header.get("units", "")) if nrrd else header.get("distanceunits", "")
    names = {name for name in text.replace('"', " ").split() if name not in ("", "???", "none")}
    if not names or names == {"mm"}:
        return 1.0, ()
    factors = {millimetres(name) for name in names}
    factor = factors.pop() if len(factors) == 1 else None
    if factor is None:
        raise GeometryError("The file states lengths in a unit that is not known; write it again in mm.")
    return factor, (f"lengths of the file were multiplied by {factor:g} to give mm",)


def _reader(path: Path, nrrd: bool, components: int, packed: Packed | None) -> Callable[[], AnyArray]:
    """Return the function that reads the voxels (C, *spatial); `packed` is a stream ITK would not check."""

    def load() -> AnyArray:
        with reading(path, "NRRD" if nrrd else "MetaImage"):
            if packed is not None:
                _check_packed(*packed)
            reader = _information(path, nrrd)
            values = sitk.GetArrayFromImage(reader.Execute())
            return np.moveaxis(values, -1, 0) if components > 1 else values[np.newaxis]

    return load


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
