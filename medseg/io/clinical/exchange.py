"""Hand instances to hospital systems and take them back: DICOM SEG, RTSTRUCT, SR, and de-identification.

The functions are public as `medseg.io.save_seg` and so on. pydicom and highdicom are loaded on first use.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from warnings import warn

import numpy as np

from medseg.errors import FormatError, MedsegWarning

if TYPE_CHECKING:
    import pandas as pd
    from pydicom.dataset import Dataset

    from medseg.candidates import Candidates
    from medseg.grid import Grid
    from medseg.image import Image
    from medseg.instances import Instances
    from medseg.spec import FindingSpec

_NUMBERED = re.compile(r"(.*\S)\s+\d+")


def save_seg(
    instances: Instances,
    path: str | Path,
    image: Image,
    *,
    kind: Literal["binary", "labelmap"] = "binary",
    finding: FindingSpec | None = None,
    deidentify: bool = False,
) -> None:
    """Write instances as a DICOM Segmentation in the study of the series they were found on, whole or not at all.

    Each instance is one segment, in the order of the table, named by class and id. Patient, study and frame of reference
    are the source's. Tracking UIDs come from the source series, the id and the voxels, or from
    ``provenance["segments"]``, so that they stay the same. The algorithm type is AUTOMATIC, or SEMIAUTOMATIC for
    instances in ``provenance["edited"]`` (True: all; or ids), unless `finding` states it.

    Parameters
    ----------
    instances : Instances
        What to write; put on the grid of `image` first.
    path : str or Path
        File to write.
    image : Image
        Read from the DICOM series. Planes are those of its grid, also where it was resampled or cropped.
    kind : "binary" or "labelmap"
        "binary" is read by most systems; "labelmap" (Label Map Segmentation, RLE) is smaller where there are many.
    finding : FindingSpec, optional
        Coded terms, authorship, colours.
    deidentify : bool
        Leave out what the basic profile removes (see `medseg.io.deidentify`) and all other text of the source; dates
        become dummies, UIDs are made with MEDSEG_UID_KEY. Where the provenance says that instances were read from a
        file ("read_as" or "segments"), names and labels are the words of its writer: they become "object 1", or the
        meaning of the standard code of `finding` or of the file, and codes of other schemes those of `finding`. Class
        names without such a provenance are the caller's own or a model's and stay, as does all that `finding` says.

    Raises
    ------
    InputError
        The image is not from DICOM, or there are no instances.
    GeometryError
        Instances and image share no world.
    OutputError
        The file cannot be written, or the source's headers fit no valid object.

    Warns
    -----
    MedsegWarning
        Instances have no voxel on the grid of the image; or de-identification replaced codes.

    Notes
    -----
    DICOM PS3.3 A.51 (Segmentation IOD). The same input gives the same bytes at the same time (second);
    SOURCE_DATE_EPOCH of the environment sets the time.

    Examples
    --------
    >>> save_seg(lesions, "lesions.seg.dcm", load("ct/"))  # doctest: +SKIP
    """
    from medseg.io.clinical import segwrite

    segwrite.save(instances, Path(path), image, kind, finding, deidentify)


def save_rtstruct(
    instances: Instances,
    path: str | Path,
    image: Image,
    *,
    finding: FindingSpec | None = None,
    deidentify: bool = False,
) -> None:
    """Write instances as closed contours in an RT Structure Set, whole or not at all.

    Contours run along pixel edges: who fills them by pixel centres gets the same voxels. Holes are joined to their
    outline by keyholes.

    Parameters
    ----------
    instances, path, image, finding, deidentify
        As for `save_seg`.

    Raises
    ------
    InputError, GeometryError, OutputError
        As for `save_seg`.

    Notes
    -----
    DICOM PS3.3 A.19 (RT Structure Set IOD), C.8.8.6 (ROI contours).
    """
    from medseg.io.clinical import rtwrite

    rtwrite.save(instances, Path(path), image, finding, deidentify)


def save_report(
    instances: Instances,
    path: str | Path,
    image: Image,
    *,
    segmentation: str | Path | None = None,
    finding: FindingSpec | None = None,
    measures: pd.DataFrame | None = None,
    deidentify: bool = False,
) -> None:
    """Write a measurement report (Comprehensive SR, TID 1500), whole or not at all.

    Each instance is one group (TID 1411) with tracking, finding, site, role by RECIST (as its baseline category), its segment,
    the source series, its volume (mm3) and further measures. Lymph nodes have a site that says so. Without instances the report
    says that none was found.

    Parameters
    ----------
    instances, path, image, finding, deidentify
        As for `save_seg`; the same as for the segmentation.
    segmentation : str or Path, optional
        The SEG that `save_seg` wrote of these instances; needed if there are any.
    measures : DataFrame, optional
        Column id and columns of `medseg.io.clinical.codes.MEASURES` (for example hu_mean); values that are not finite are left
        out. With the end points of the long and short axis (`medseg.measure`) each axis is drawn as a line on its slice
        (SCOORD), if it lies on one.

    Raises
    ------
    InputError
        The segmentation is missing or of other instances, or a column has no code.
    GeometryError, OutputError
        As for `save_seg`.

    Notes
    -----
    DICOM PS3.16 TID 1500 and TID 1411.
    """
    from medseg.io.clinical import sr

    seg = None if segmentation is None else Path(segmentation)
    sr.save(instances, Path(path), image, seg, finding, measures, deidentify)


def load_candidates(
    path: str | Path, *, like: Image | str | Path | None = None
) -> tuple[Candidates, Grid, dict[str, Any]]:
    """Read the objects of a DICOM SEG or RTSTRUCT, which may overlap.

    Parameters
    ----------
    path : str or Path
        The file, or a folder with one.
    like : Image, str or Path, optional
        The image (or its path) the objects were drawn on; needed for RTSTRUCT. The objects of a SEG whose planes are
        those of the image are put on its grid. Contours count by the pixel-centre rule, XOR within a slice.

    Returns
    -------
    candidates : Candidates
        One for each segment or structure that has voxels, in the order of their numbers in a SEG, as stored in an
        RTSTRUCT. Scores are NaN.
    grid : Grid
        Where they lie: the image's, or the smallest that holds all frames of the SEG.
    record : dict
        "segments": what is known of each candidate (number, label, category, type, site, nodal, role, tracking_id, tracking_uid,
        algorithm, algorithm_name, algorithm_version); "classes": class names, the labels without a number at their end;
        "notes": decisions; "kind": what was read.

    Raises
    ------
    MissingError, FormatError
        Nothing is there; or it is damaged, or of a kind that is not read.
    GeometryError
        Frames lie on no regular grid, contours not in the slices of `like`, or the frames of reference differ.
    InputError
        `like` is needed, or the file claims more memory than allowed.

    Warns
    -----
    MedsegWarning
        Something was left out, such as contours of fewer than 3 points, or the slice distance had to be assumed.

    Notes
    -----
    FRACTIONAL segments are cut at half of MaximumFractionalValue, which is in the notes.
    """
    from medseg.io import load
    from medseg.io.clinical import objects, rtread, segread

    path = Path(path)
    image = load(like) if isinstance(like, (str, Path)) else like
    if objects.is_kind(path, objects.RTSTRUCT):
        found, grid, record = rtread.read(path, image)
    elif objects.is_kind(path, objects.SEG) or not path.exists():
        found, grid, record = segread.read(path, image)
    else:
        raise FormatError(f"{path.name} is no DICOM SEG or RTSTRUCT; read images with io.load.")
    names = [_class(str(one["label"])) for one in record["segments"]]
    record["classes"] = tuple(dict.fromkeys(names)) or ("object",)
    numbers = [record["classes"].index(name) + 1 for name in names]
    return replace(found, classes=np.array(numbers, np.int32)), grid, record


def _class(label: str) -> str:
    """Return the label without a number at its end."""
    match = _NUMBERED.fullmatch(label)
    return match.group(1) if match else label


def painted(path: Path, like: Image | None) -> Instances:
    """Read a DICOM SEG or RTSTRUCT as instances; see `medseg.io.load_labels`.

    Raises
    ------
    As `load_candidates`.
    """
    from medseg.instances import Instances

    found, grid, record = load_candidates(path, like=like)
    segments = [{"id": number, **one} for number, one in enumerate(record["segments"], 1)]
    provenance = {"labels": path.name, "read_as": record["kind"], "segments": segments}
    if record["notes"]:
        provenance["notes"] = record["notes"]
    instances = Instances.from_candidates(found, grid, classes=record["classes"], provenance=provenance)
    lost = instances.provenance.get("voxels_lost")
    if isinstance(lost, dict):
        warn(f"Segments overlap: {len(lost)} of {len(found)} lost {sum(lost.values())} voxels to others, as labels cannot "
             "overlap; load_candidates keeps them.", MedsegWarning, stacklevel=3)  # fmt: skip
    return instances


def load_report(path: str | Path) -> pd.DataFrame:
    """Read a measurement report (SR by TID 1500): one row for each measurement group.

    Parameters
    ----------
    path : str or Path
        The file, or a folder with one.

    Returns
    -------
    DataFrame
        tracking_id, tracking_uid, finding, finding_meaning, site, site_meaning, segmentation_uid, segment,
        source_series_uid, then what the groups say: nodal and role; one column for each kind of measurement, named as in
        `medseg.io.clinical.codes.MEASURES`, others by meaning, derivation and unit; qualitative evaluations by their meaning.
        A second value of one kind in a group is in a column of its own, with _2 at its end, with a warning. A report that says
        that nothing was found has no rows.

    Raises
    ------
    MissingError, FormatError
        Nothing is there, or it is no structured report or damaged.
    """
    from medseg.io.clinical import sr

    return sr.read(Path(path))


def deidentify(dataset: Dataset, key: str | None = None) -> Dataset:
    """Return a copy of a DICOM data set without what the basic profile removes (PS3.15 Table E.1-1).

    Names, dates, IDs, descriptions, private and unknown attributes go; UIDs are replaced, always the same by the same.
    Values that are not of their kind, such as text in place of a number, are emptied, with a warning. What is not done:
    text burned into pixels stays, with a warning where the header tells of it.

    Parameters
    ----------
    dataset : Dataset
        Any DICOM object, of pydicom; not changed.
    key : str, optional
        Secret of the project that UIDs and the pseudonym in PatientID are made with; MEDSEG_UID_KEY of the environment
        if absent. Without either, who knows an original UID can tell what replaced it.
    """
    from medseg.io.clinical import deidentifier

    return deidentifier.deidentify(dataset, key)
