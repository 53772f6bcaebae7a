"""Encode labels, images and tables, and write each file whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from warnings import warn

import numpy as np
import numpy.typing as npt

from medseg.errors import MedsegWarning, OutputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.names import suffix
from medseg.ops.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

AnyArray = npt.NDArray[Any]

VOLUMES = (".nii", ".nii.gz", ".tif", ".tiff", ".ome.tif", ".ome.tiff", ".nrrd", ".mha")
TABLES = (".csv", ".parquet")
_BIG = 3_500_000_000  # bytes from which classic TIFF offsets may not suffice


def labels(instances: Instances, path: Path, like: Image | None) -> None:
    """Write the label array; see `medseg.io.save_labels`."""
    placed = instances if like is None else instances.on(like.grid)
    # Two types only: every reader has them, and a file of 8-bit ids would change type when a 256th cell is drawn.
    dtype = np.uint16 if placed.labels.max() <= np.iinfo(np.uint16).max else np.int32
    _volume(placed.labels.astype(dtype), placed.grid, ("labels",), path)


def series(found: Sequence[Instances | None], path: Path) -> None:
    """Write the labels of a time series, None where a time holds none, as OME-TIFF with an axis of time.

    Raises
    ------
    OutputError
        The suffix is not that of TIFF, or the file cannot be written.
    """
    if suffix(path) not in (".tif", ".tiff", ".ome.tif", ".ome.tiff"):
        raise OutputError(f"{path.name}: a time series of labels is written as TIFF; end the name in .tif.")
    grid = next(one.grid for one in found if one is not None)
    highest = max(int(one.labels.max()) for one in found if one is not None)
    array = np.zeros((len(found), *grid.shape), np.uint16 if highest <= np.iinfo(np.uint16).max else np.int32)
    for time, one in enumerate(found):
        if one is not None:
            array[time] = one.labels
    write_whole(path, _ome(array, grid, ("labels",), path, "T"))


def image(picture: Image, path: Path) -> None:
    """Write an image; see `medseg.io.save_image`."""
    voxels = picture.voxels()
    if voxels.dtype == np.float16:
        voxels = voxels.astype(np.float32)  # no format here but TIFF has half floats
    _volume(voxels[0] if len(voxels) == 1 else voxels, picture.grid, picture.channels, path)


def table(instances: Instances, path: Path, unit: Literal["um", "mm", "px"] | None) -> None:
    """Write the table; see `medseg.io.save_table`."""
    rows(instances.table_in(unit or ("mm" if instances.grid.known else "px")), path)


def rows(rows: pd.DataFrame, path: Path) -> None:
    """Write any table as CSV or Parquet.

    Raises
    ------
    OutputError
        The suffix is neither, or the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in TABLES:
        raise OutputError(f"{path.name}: a table cannot be written as {ending or 'this'}; use {' or '.join(TABLES)}.")
    buffer = BytesIO()
    if ending == ".csv":
        rows.to_csv(buffer, index=False, float_format="%.6g", lineterminator="\r\n", encoding="utf-8")
    else:
        rows.to_parquet(buffer, engine="pyarrow", index=False)
    write_whole(path, buffer.getvalue())


def _volume(array: AnyArray, grid: Grid, channels: tuple[str, ...], path: Path) -> None:
    """Encode an array (*grid.shape) or (C, *grid.shape) by the suffix of `path` and write it."""
    ending = suffix(path)
    many = array.ndim > grid.ndim
    if ending not in VOLUMES:
        raise OutputError(f"{path.name}: cannot be written as {ending or 'this'}; use one of {', '.join(VOLUMES)}.")
    if many and (ending in (".nrrd", ".mha") or (ending in (".nii", ".nii.gz") and grid.ndim == 2)):
        raise OutputError(f"{path.name}: {ending} cannot hold {len(array)} channels here; write .ome.tif.")
    try:
        if ending in (".nii", ".nii.gz"):
            from medseg.io import nifti

            data = nifti.encode(array, grid, compress=ending == ".nii.gz")
        elif ending in (".nrrd", ".mha"):
            from medseg.io import itk

            data = itk.encode(array, grid, nrrd=ending == ".nrrd")
        else:
            data = _ome(array, grid, channels, path)
    except MemoryError:
        raise OutputError(f"{path.name}: too little memory to write it; write a smaller region.") from None
    write_whole(path, data)


def _ome(array: AnyArray, grid: Grid, channels: tuple[str, ...], path: Path, lead: str = "C") -> bytes:
    """Return an OME-TIFF, zlib compressed; the same input always gives the same bytes. ``lead``: an axis before those of space."""
    import tifffile

    if array.dtype.itemsize > 4 and array.dtype.kind in "iu":
        raise OutputError(f"{path.name}: OME-TIFF has no {array.dtype}; convert the voxels to 32 bits.")
    upright = np.array_equal(grid.affine[:-1, :-1], np.diag(grid.spacing)[::-1]) and not any(grid.origin)
    if not upright:
        warn(f"{path.name}: TIFF holds the spacing but no position or direction; write .nii.gz to keep them.",
             MedsegWarning, stacklevel=4)  # fmt: skip
    axes = (lead if array.ndim > grid.ndim else "") + "ZYX"[-grid.ndim :]
    metadata: dict[str, Any] = {"axes": axes, "Creator": "medseg"}
    if grid.known:
        for axis, step in zip("ZYX"[-grid.ndim :], grid.spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": step * 1e3, f"PhysicalSize{axis}Unit": "\u00b5m"}
    if len(channels) == (array.shape[0] if axes[0] == "C" else 1):
        metadata["Channel"] = {"Name": list(channels)} if axes[0] == "C" else {"Name": channels[0]}
    metadata["UUID"] = str(uuid.uuid5(uuid.NAMESPACE_OID, repr((metadata, array.shape, str(array.dtype)))))
    buffer = BytesIO()
    tifffile.imwrite(
        buffer, array, ome=True, photometric="minisblack", planarconfig=None, compression="zlib", metadata=metadata,
        bigtiff=array.nbytes > _BIG, software="medseg", maxworkers=1,
    )  # fmt: skip
    return buffer.getvalue()
