"""De-identification by the Basic Application Level Confidentiality Profile (PS3.15 annex E).

All of Table E.1-1 is acted on, with curves, overlays, private attributes and, beyond the table, person names and the
free text of structured reports. Not done: text burned into pixels is not searched for, and attributes that the table
leaves out are kept as they are. No option of the profile is applied.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from copy import deepcopy
from importlib.metadata import version
from warnings import warn

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from medseg.errors import MedsegWarning
from medseg.io.clinical.codes import BASIC_PROFILE
from medseg.io.clinical.profile import actions

VARIABLE = "MEDSEG_UID_KEY"
VERSION = version("medseg")  # importing it from medseg would import everything
_STANDARD = "1.2.840.10008."  # UIDs of the standard itself: classes, transfer syntaxes, well-known frames
_DUMMY = {
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "AS": "000Y",
    "PN": "Removed^",
    "IS": "0",
    "DS": "0",
}
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_TEXT_VALUE, _CURVES, _OVERLAYS = 0x0040A160, 0x5000, 0x6000


def secret(key: str | None = None) -> bytes:
    """Return the key of UID replacement: the one given, else MEDSEG_UID_KEY of the environment, else a public one."""
    return (key or os.environ.get(VARIABLE) or "medseg").encode()


def new_uid(uid: str, key: bytes) -> str:
    """Return the UID that stands for `uid`: always the same with the same key; UIDs of the standard stay."""
    if not uid or uid.startswith(_STANDARD):
        return uid
    return uid_of(hmac.new(key, uid.encode(), hashlib.sha256).digest())


def uid_of(digest: bytes) -> str:
    """Return a UUID-derived UID (PS3.5 B.2) made of the first 16 bytes of a digest (as a version 8 UUID, RFC 9562)."""
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    return f"2.25.{number & ~(0x3 << 62) | 0x2 << 62}"


def deidentify(dataset: Dataset, key: str | None = None) -> Dataset:
    """Return a copy of a data set without what the basic profile removes.

    Parameters
    ----------
    dataset : Dataset
        Any DICOM object; not changed.
    key : str, optional
        Key of the UID replacement; `medseg.io.clinical.deidentifier.secret` says which one counts if absent. Data sets treated
        with one key still refer to one another. Without a key of one's own, who has an original UID can tell what
        replaced it.

    Returns
    -------
    Dataset
        PatientName is empty and PatientID a pseudonym: made from the patient's ID if there is a key, else from the
        study.

    Warns
    -----
    MedsegWarning
        The header says that identifying text is burned into the pixels, which stay as they are.

    Notes
    -----
    DICOM PS3.15 Table E.1-1 and section E.1.1.

    Examples
    --------
    >>> scan = Dataset()
    >>> scan.PatientName, scan.PatientWeight, scan.Rows = "Doe^Jane", 60, 512
    >>> clean = deidentify(scan)
    >>> str(clean.PatientName), "PatientWeight" in clean, clean.Rows
    ('', False, 512)
    """
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        warn("The header says that text is burned into the pixels; the pixels were not changed, look at them.",
             MedsegWarning, stacklevel=2)  # fmt: skip
    chosen = key or os.environ.get(VARIABLE)
    out = deepcopy(dataset)
    who, study = str(out.get("PatientID") or ""), str(out.get("StudyInstanceUID") or "")
    _clean(out, secret(key))
    # An empty ID would make one patient of all; a hash of the ID without a secret could be undone by trying all IDs.
    basis = f"patient {who}" if chosen and who else f"study {study}"
    out.PatientID = "ANON" + hmac.new(secret(key), basis.encode(), hashlib.sha256).hexdigest()[:12].upper()
    out.PatientName = ""
    mark(out)
    meta = getattr(out, "file_meta", None)
    if meta is not None:
        _clean_meta(meta, out)
        out.preamble = bytes(128)
    return out


def mark(dataset: Dataset) -> None:
    """State in a data set, in place, that it was de-identified, how, and that its dates are gone."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = BASIC_PROFILE
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"medseg {VERSION}: PS3.15 basic profile"
    dataset.DeidentificationMethodCodeSequence = [code]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _clean(dataset: Dataset, key: bytes) -> None:
    """Apply the profile in place, to sequences too."""
    table = actions()
    for tag in list(dataset.keys()):
        action = table.get(int(tag))
        if _always_removed(tag):
            action = "X"
        elif int(tag) == _TEXT_VALUE:
            action = "D"
        if action == "X":
            del dataset[tag]
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            _clean_items(dataset, element, action, key)
        elif action is None:
            if element.VR == "PN":
                element.value = ""
        elif "U" in action:
            _replace(element, key)
        elif "D" in action:
            _dummy(dataset, element)
        else:  # Z or X/Z
            element.value = None if element.VR not in _TEXTS | {"PN"} else ""


def _always_removed(tag: BaseTag) -> bool:
    """Whether the tag is private or in one of the ranges of the table."""
    group, element = tag.group, tag.element
    curve = _CURVES <= group < _CURVES + 0x100
    overlay = _OVERLAYS <= group < _OVERLAYS + 0x100 and element in (0x3000, 0x4000)
    return bool(tag.is_private) or curve or overlay


def _clean_items(dataset: Dataset, element: DataElement, action: str | None, key: bytes) -> None:
    """Clean the items of a sequence; those of one to be emptied go, unless the object may need them."""
    if action in ("Z", "X/Z"):
        dataset[element.tag].value = Sequence()
        return
    for item in element.value:
        _clean(item, key)


def _replace(element: DataElement, key: bytes) -> None:
    if element.is_empty:
        return
    many = element.VM > 1
    element.value = [new_uid(str(one), key) for one in element.value] if many else new_uid(str(element.value), key)


def _dummy(dataset: Dataset, element: DataElement) -> None:
    """Put a value of the right type in the place of an attribute that must not be empty."""
    if element.VR in _TEXTS:
        element.value = "REMOVED"
    elif element.VR in _DUMMY:
        element.value = _DUMMY[element.VR]
    elif element.VR == "UI":
        element.value = uid_of(hashlib.sha256(b"removed").digest())
    else:  # bytes and numbers
        del dataset[element.tag]


def _clean_meta(meta: Dataset, dataset: Dataset) -> None:
    """Keep of the file meta information what reading needs; its titles and private parts name places."""
    kept = {"FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID",
            "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID"}  # fmt: skip
    for element in list(meta):
        if element.keyword not in kept:
            del meta[element.tag]
    if "SOPInstanceUID" in dataset:
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
