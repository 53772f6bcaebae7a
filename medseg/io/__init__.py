"""Read images and instance labels, write results. One file for each format; its library is loaded on first use.

>>> from medseg import io
>>> image = io.load("cells.ome.tif")  # doctest: +SKIP
>>> io.save_labels(instances, "cells_labels.ome.tif")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medseg.errors import InputError
from medseg.io.find import format_of, inputs
from medseg.io.names import SUFFIXES, is_image, stem

if TYPE_CHECKING:
    from medseg.image import Image
    from medseg.instances import Instances

__all__ = ["SUFFIXES", "inputs", "is_image", "load", "load_labels", "save_image", "save_labels", "save_table", "stem"]


def load(
    path: str | Path,
    *,
    spacing: float | Sequence[float] | None = None,
    unit: Literal["mm", "um"] = "mm",
    channel_axis: int | None = None,
) -> Image:
    """Read an image: its header now, its voxels when they are touched.

    Parameters
    ----------
    path : str or Path
        A NIfTI, NRRD, MetaImage, TIFF (plain, ImageJ, OME), PNG, JPEG or DICOM file, or the folder of one DICOM series.
    spacing : float or sequence of float, optional
        Distance of voxel centres in ARRAY axis order, (z, y, x) or (y, x). Fills in what the file does not state; where
        the file states another (by more than 1 %), this one is used, with a `MedsegWarning` and a note in the source.
    unit : "mm" or "um"
        Unit of `spacing`.
    channel_axis : int, optional
        Which stored axis counts channels, where the file does not say (TIFF stacks, 4-D NIfTI).

    Returns
    -------
    Image
        Voxels (C, z, y, x) or (C, y, x). What the reader decided is in ``image.source.notes``.

    Raises
    ------
    MissingError
        Nothing is there, or a folder holds no image.
    FormatError
        The file is empty, truncated, damaged, or not of the kind its name says. Damage to voxels shows on first touch.
    GeometryError
        Positions, directions or spacing are missing, contradictory or irregular.
    InputError
        A kind of image medseg does not read: time series, more than three spatial axes, complex values.

    Examples
    --------
    >>> load("ct/").grid.describe()  # doctest: +SKIP
    '267 x 512 x 512 voxels, 3.27 x 0.977 x 0.977 mm'
    """
    from medseg.io.common import respace

    path = Path(path)
    reader = import_module(f"medseg.io.{format_of(path)}")
    image: Image = reader.read(path, channel_axis)
    return respace(image, spacing, unit)


def load_labels(
    path: str | Path, *, spacing: float | Sequence[float] | None = None, unit: Literal["mm", "um"] = "mm"
) -> Instances:
    """Read a label image: whole numbers, 0 for background, one number for each instance.

    Parameters
    ----------
    path : str or Path
        A file of any image format but DICOM. Floats with whole values are fine; a palette is not applied.
    spacing, unit
        As for `load`.

    Returns
    -------
    Instances
        Ids as in the file; scores are NaN.

    Raises
    ------
    InputError
        Several channels, negative or fractional values, or ids over 2^31-1.
    MissingError, FormatError, GeometryError
        As for `load`.
    """
    path = Path(path)
    name = format_of(path)
    if name == "dicom":
        raise InputError(f"{path.name} is DICOM, which is read as an image only; give labels as NIfTI or TIFF.")
    from medseg.io.common import respace

    image = respace(import_module(f"medseg.io.{name}").read(path, None, labels=True), spacing, unit)
    if len(image.channels) > 1:
        raise InputError(f"{path.name} has {len(image.channels)} channels; labels have one, a number per instance.")
    from medseg.instances import Instances

    notes = {"notes": list(image.source.notes)} if image.source and image.source.notes else {}
    return Instances.from_labels(image.voxels()[0], image.grid, provenance={"labels": path.name, **notes})


def save_labels(instances: Instances, path: str | Path, *, like: Image | None = None) -> None:
    """Write the label array, whole or not at all: uint16 where the ids fit, else int32.

    Parameters
    ----------
    instances : Instances
        What to write.
    path : str or Path
        .nii, .nii.gz, .tif or .ome.tif (both OME-TIFF, zlib), .nrrd or .mha. The same labels give the same bytes.
    like : Image, optional
        Put the labels on this image's grid first (each voxel takes the nearest id).

    Raises
    ------
    OutputError
        The suffix is not one of these, or the file cannot be written.
    GeometryError
        The grid is sheared and the format cannot hold that, or `like` lies in another world.
    """
    from medseg.io import write

    write.labels(instances, Path(path), like)


def save_table(instances: Instances, path: str | Path, unit: Literal["um", "mm", "px"] | None = None) -> None:
    """Write the table of instances as .csv (RFC 4180, six significant digits) or .parquet, whole or not at all.

    Parameters
    ----------
    instances : Instances
        What to write; without instances the header stays.
    path : str or Path
        Ends in .csv or .parquet.
    unit : "um", "mm" or "px", optional
        Unit of the physical columns; mm if absent, px where the spacing is unknown.

    Raises
    ------
    OutputError
        The suffix is neither, or the file cannot be written.
    GeometryError
        A physical unit is asked for and the spacing is unknown.
    """
    from medseg.io import write

    write.table(instances, Path(path), unit)


def save_image(image: Image, path: str | Path) -> None:
    """Write an image in the formats of `save_labels`, whole or not at all.

    NIfTI holds channels as a fourth axis (3-D only; read it back with ``channel_axis=3``), NRRD and MetaImage none.

    Raises
    ------
    OutputError
        The suffix or the channels do not fit the format, or the file cannot be written.
    """
    from medseg.io import write

    write.image(image, Path(path))
