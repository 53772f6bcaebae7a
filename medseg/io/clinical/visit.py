"""When an image was taken and of whom, from its DICOM headers: for what is followed over time."""

from __future__ import annotations

import hashlib
import re

import pydicom

from medseg.image import Image
from medseg.io.common import reading
from medseg.io.dicom.bounded import Bounded
from medseg.io.dicom.pixels import quiet

_WHEN = ("AcquisitionDate", "SeriesDate", "StudyDate", "ContentDate")
_WHO = ("PatientID", "PatientBirthDate", "PatientName")


def visit_of(image: Image) -> tuple[str, str]:
    """Return the date of an image (ISO, or "") and a key of its patient ("" if nothing is known).

    The key is a hash of the patient's ID, or without one of name and birth date: it tells two patients apart and names nobody.
    """
    source = image.source
    if source is None or source.format != "dicom" or not source.files:
        return "", ""
    with reading(source.files[0], "DICOM"), quiet():
        with Bounded(source.files[0]) as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=[*_WHEN, *_WHO])
        dates = [str(header.get(name) or "") for name in _WHEN]
        who = [str(header.get(name) or "").strip().upper() for name in _WHO]
    date = next((d for d in dates if re.fullmatch(r"(19|20)\d{6}", d)), "")
    known = who[0] or "".join(who[1:])
    key = hashlib.sha256(f"medseg patient {known}".encode()).hexdigest()[:16] if known else ""
    return (f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else ""), key
