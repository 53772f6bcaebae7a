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
from medseg.io.clinical.exchange import deidentify, load_candidates, load_report, save_report, save_rtstruct, save_seg
from medseg.io.coco import load_coco, save_coco
from medseg.io.find import format_of, inputs
from medseg.io.names import SCOPES, SUFFIXES, is_image, stem

if TYPE_CHECKING:
    from medseg.image import Image
    from medseg.instances import Instances
    from medseg.io.dicom.series import Series

__all__ = [
    "SUFFIXES",
    "deidentify",
    "frames",
    "inputs",
    "is_image",
    "load",
    "load_candidates",
    "load_coco",
    "load_labels",
    "load_report",
    "save_coco",
    "save_image",
    "save_labels",
    "save_report",
    "save_rtstruct",
    "save_seg",
    "save_table",
    "series",
    "stem",
    "suv",
]


def load(
    path: str | Path | Sequence[str | Path],
    *,
    spacing: float | Sequence[float] | None = None,
    unit: Literal["mm", "um"] = "mm",
    channel_axis: int | None = None,
    series: str | int | None = None,
    regularize: bool = False,
) -> Image:
    """Read an image: its header now, its voxels when they are touched.

    Parameters
    ----------
    path : str, Path or sequence of these
        A NIfTI, NRRD, MetaImage, TIFF (plain, ImageJ, OME), PNG, JPEG or DICOM file, or, with ``medseg[microscopes]``,
        CZI, ND2 or LIF. DICOM may also be a folder with anything in it and below, a DICOMDIR, or a list of files.
    spacing : float or sequence of float, optional
        Distance of voxel centres in ARRAY axis order, (z, y, x) or (y, x). Fills in what the file does not state; where
        the file states another (by more than 1 %), this one is used, with a `MedsegWarning` and a note in the source.
    unit : "mm" or "um"
        Unit of `spacing`.
    channel_axis : int, optional
        Which stored axis counts channels, where the file does not say (TIFF stacks, 4-D NIfTI).
    series : str or int, optional
        Which DICOM image, where there are several: a key, SeriesInstanceUID or number (from 1) that `series` lists. Of
        CZI, ND2 and LIF which scene: a number (from 1), or the name of an image in LIF.
    regularize : bool
        Resample an irregular stack of DICOM slices (tilt, gaps, duplicates) to a regular upright grid at the true
        positions, with a note, instead of refusing it.

    Returns
    -------
    Image
        Voxels (C, z, y, x) or (C, y, x). What the reader decided is in ``image.source.notes``.

    Raises
    ------
    MissingError
        Nothing is there, or a folder holds no image.
    FormatError
        The file is empty, truncated, damaged, or not of the kind its name says; or there are several DICOM images or
        scenes and none was chosen. Damage to voxels shows on first touch.
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

    several = not isinstance(path, (str, Path))
    files = [Path(one) for one in path] if several else [Path(path)]  # type: ignore[arg-type,union-attr]
    if not files:
        raise InputError("The list of files is empty.")
    name = "dicom" if several else format_of(files[0])
    if name in SCOPES and not regularize:
        scene: Image = import_module(f"medseg.io.{name}").read(files[0], channel_axis, series=series)
        return respace(scene, spacing, unit)
    if name != "dicom":
        if series is not None or regularize:
            raise InputError(f"{files[0].name} is not DICOM; leave series and regularize out.")
        image: Image = import_module(f"medseg.io.{name}").read(files[0], channel_axis)
        return respace(image, spacing, unit)
    from medseg.io.dicom.series import read

    image = read(files if several else files[0], channel_axis, series=series, regularize=regularize)
    return respace(image, spacing, unit)


def frames(path: str | Path) -> tuple[Image, ...]:
    """Read a time series of images of one grid, an image for each time point; of a file without time its one image.

    Only TIFF (OME, ImageJ) holds time series that are read so far; errors are those of `load`.

    Examples
    --------
    >>> len(frames("movie.ome.tif"))  # doctest: +SKIP
    40
    """
    if format_of(Path(path)) != "tiff":
        return (load(path),)
    from medseg.io.tiff import frames as read

    return read(Path(path))


def series(path: str | Path | Sequence[str | Path]) -> list[Series]:
    """List the DICOM images in a file, a folder and all below it, a DICOMDIR, or a list of files.

    A SeriesInstanceUID is split where its slices differ in size, orientation or frame of reference, and where positions
    repeat by what tells the repeats apart (time, echo, b-value, energy, ...). The order is fixed, and `load` takes key,
    UID or number (from 1) of one as its `series`.

    Raises
    ------
    MissingError
        Nothing is there, or no DICOM image.
    FormatError, InputError
        The file is damaged, or DICOM without an image.

    Examples
    --------
    >>> [(one.key, one.modality, one.shape) for one in series("study/")]  # doctest: +SKIP
    [('0c1f2f4aa17e', 'CT', (120, 512, 512)), ('8d02b1c6e0f3', 'PT', (267, 128, 128))]
    """
    from medseg.io.dicom.series import listed

    if isinstance(path, (str, Path)):
        return listed(Path(path))
    files = [Path(one) for one in path]
    if not files:
        raise InputError("The list of files is empty.")
    return listed(files)


def suv(image: Image, kind: Literal["bw", "bsa", "lbm"] = "bw") -> Image:
    """Return a PET image in standardised uptake values, computed from the tags of the DICOM files it was read from.

    Parameters
    ----------
    image : Image
        PET read from DICOM.
    kind : "bw", "bsa" or "lbm"
        By body weight (g/mL), body surface (cm2/mL) or lean body mass (g/mL).

    Raises
    ------
    InputError
        The image is no PET read from DICOM, or a tag is missing or contradictory; the message names it.

    Examples
    --------
    >>> suv(load("pet/")).voxels().max()  # doctest: +SKIP
    17.3
    """
    from medseg.io.dicom import pet

    return pet.suv(image, kind)


def load_labels(
    path: str | Path,
    *,
    spacing: float | Sequence[float] | None = None,
    unit: Literal["mm", "um"] = "mm",
    like: Image | None = None,
) -> Instances:
    """Read a label image: whole numbers, 0 for background, one number for each instance.

    Parameters
    ----------
    path : str or Path
        A file of any image format, or a DICOM SEG or RTSTRUCT. Floats with whole values are fine; a palette is not
        applied.
    spacing, unit
        As for `load`; not for DICOM.
    like : Image, optional
        The image a DICOM SEG or RTSTRUCT was drawn on: see `load_candidates`. Not for other formats.

    Returns
    -------
    Instances
        Ids as in the file; scores are NaN. For SEG and RTSTRUCT ids count from 1, provenance["segments"] says what is
        known of each, and voxels lost where segments overlap are told of.

    Raises
    ------
    InputError
        Several channels, negative or fractional values, or ids over 2^31-1; or a DICOM series, which is no labels.
    MissingError, FormatError, GeometryError
        As for `load`.
    """
    path = Path(path)
    name = format_of(path)
    if name == "dicom":
        from medseg.io.clinical.exchange import painted
        from medseg.io.clinical.objects import RTSTRUCT, SEG, is_kind

        if spacing is not None or not is_kind(path, SEG + RTSTRUCT):
            raise InputError(
                f"{path.name} is DICOM, where labels are a SEG or RTSTRUCT with a spacing of their own; give one of "
                "these and no spacing, or a NIfTI or TIFF."
            )
        return painted(path, like)
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
