"""What a session writes: the files of `medseg segment`, with what a person said of each instance in table, SEG and SR."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medseg.errors import InputError, MedsegWarning, OutputError
from medseg.export import save_case, save_series
from medseg.image import Image
from medseg.io import write
from medseg.io.clinical.segments import of_each
from medseg_napari import calipers, notices
from medseg_napari.session import Session

_VOXELS = {"labels", "nifti", "tiff", "seg", "rtstruct", "sr"}  # kinds that hold what was drawn; sr writes the seg too


def hand_on(session: Session, folder: Path, kinds: Sequence[str], *, deidentify: bool = False) -> list[Path]:
    """Write the instances of a session, rejected ones left out.

    Parameters
    ----------
    session
        Which.
    folder
        Made where it is not there.
    kinds
        Of `medseg.export.KINDS`.
    deidentify
        Leave out of DICOM files what the basic profile removes.

    Returns
    -------
    list of Path
        What was written, and a table of the review beside it where a person decided something.

    Raises
    ------
    InputError
        Nothing is asked for, or what cannot be written of such an image.
    OutputError
        A file cannot be written; those before it are whole.
    """
    if not kinds:
        raise InputError("Choose at least one kind of file to save.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder.name}: the folder cannot be made ({error.strerror}); choose another one") from None
    image = session.image or _mask_of(session, None)
    stem = _stem(image)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        if session.times is None:
            files = save_case(
                session.instances(), image, folder, stem, kinds, deidentify=deidentify, said=told(session)
            )
        else:
            images = [one or _mask_of(session, time) for time, one in enumerate(session.images)]
            files = save_series(session.every(), images, folder, stem, kinds, told(session))
    for text in dict.fromkeys(str(w.message) for w in caught):
        notices.note(text)
    said = session.reviewed()
    if (said["status"] != "").any() or said["edited"].any():
        path = folder / f"{stem}_review.csv"
        write.rows(said, path)
        files.append(path)
    if _VOXELS & set(kinds):
        session.mark_saved()
    return files


def _mask_of(session: Session, time: int | None) -> Image:
    """A picture for instances of which there is no image."""
    return Image((session.frame(time).labels > 0).astype(np.uint8)[None], session.grid)


def told(session: Session) -> pd.DataFrame | None:
    """What a person filled in or corrected, for the table: sites, roles, nodes, moved calipers; None where nothing was."""
    rows, had = (
        [],
        set(of_each(session.provenance)),
    )  # of which a file said something, which a person may have taken back
    for id, row in sorted(session.rows.items()):
        values: dict[str, Any] = calipers.corrected(row, session.grid)
        if row.finding_site or row.role or row.nodal or id in had:
            values |= {"finding_site": row.finding_site, "role": row.role, "nodal": row.nodal}
        if values:
            rows.append({"id": id, **values})
    return pd.DataFrame(rows) if rows else None


def _stem(image: Image) -> str:
    """How names begin: the file's own name; of DICOM modality and hash, since paths and headers may hold a patient's name."""
    from medseg import io

    source = image.source
    if source is None:
        return "instances"
    if source.format == "dicom":
        return f"{image.modality}_{source.key}"
    return io.stem(source.files[0])
