"""What a session writes: the files of `medseg segment`, with what a person said of each instance in table, SEG and SR."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.errors import InputError, MedsegWarning, OutputError
from medseg.export import save_case
from medseg.image import Image
from medseg.io import write
from medseg_napari import notices
from medseg_napari.session import Session


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
    instances = session.instances()
    image = session.image or Image((instances.labels > 0).astype(np.uint8)[None], instances.grid)
    stem = _stem(image)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        files = save_case(instances, image, folder, stem, kinds, deidentify=deidentify)
    for text in dict.fromkeys(str(w.message) for w in caught):
        notices.note(text)
    said = session.reviewed()
    if (said["status"] != "").any() or said["edited"].any():
        path = folder / f"{stem}_review.csv"
        write.rows(said, path)
        files.append(path)
    session.mark_saved()
    return files


def _stem(image: Image) -> str:
    """How names begin: the file's own name; of DICOM modality and hash, since paths and headers may hold a patient's name."""
    from medseg import io

    source = image.source
    if source is None:
        return "instances"
    if source.format == "dicom":
        return f"{image.modality}_{source.key}"
    return io.stem(source.files[0])
