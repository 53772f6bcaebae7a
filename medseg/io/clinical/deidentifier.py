"""De-identification by the Basic Application Level Confidentiality Profile (PS3.15 annex E).

All of Table E.1-1 is acted on, with curves, overlays, private attributes and, beyond the table, person names and the
free text of structured reports. Attributes that no dictionary knows go too, and values that are not of the kind their
attribute has, such as a name in place of a number. Not done: text burned into pixels is not searched for, and other
attributes that the table leaves out are kept as they are. No option of the profile is applied.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from copy import deepcopy
from importlib.metadata import version
from warnings import warn

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from medseg.errors import MedsegWarning
from medseg.io.clinical.codes import BASIC_PROFILE
from medseg.io.clinical.profile import actions
from medseg.io.dicom.pixels import quiet

VARIABLE = "MEDSEG_UID_KEY"
VERSION = version("medseg")  # importing it from medseg would import everything
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
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
# What values of a kind look like. Texts may be anything, and binary numbers can be nothing else.
_FORMS = {
    "AS": r"\d{3}[DWMY]",
    "CS": r"[A-Z0-9 _]*",
    "DA": r"\d{8}|\d{4}\.\d\d\.\d\d",
    "DS": r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?",
    "DT": r"\d[\d.]*([+-]\d{4})?",
    "IS": r"[+-]?\d+",
    "TM": r"\d\d[\d.:]*",
    "UI": r"[\d.]*",
}
_TEXT_VALUE, _CURVES, _OVERLAYS = 0x0040A160, 0x5000, 0x6000


def secret(key: str | None = None) -> bytes:
    """Return the key of UID replacement: the one given, else MEDSEG_UID_KEY of the environment, else a public one."""
    return (key or os.environ.get(VARIABLE) or "medseg").encode()


def new_uid(uid: str, key: bytes) -> str:
    """Return the UID that stands for `uid`: always the same with the same key; UIDs of the standard stay."""
    if not uid or uid in UID_dictionary:  # classes, transfer syntaxes, well-known frames of reference
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
        The header says that identifying text is burned into the pixels, which stay as they are; or values were not of
        the kind that their attribute has, and were emptied.

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
    with quiet():  # pydicom quotes what it complains of
        emptied = _clean(out, secret(key))
    if emptied:
        warn(f"Values of {emptied} attributes were not of their kind, such as text where a number belongs, and were emptied.",
             MedsegWarning, stacklevel=2)  # fmt: skip
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


def _clean(dataset: Dataset, key: bytes) -> int:
    """Apply the profile in place, to sequences too; return how many attributes had values that are not of their kind."""
    table, emptied = actions(), 0
    for tag in list(dataset.keys()):
        action = table.get(int(tag))
        if _always_removed(tag):
            action = "X"
        elif int(tag) == _TEXT_VALUE:
            action = "D"
        if action == "X":
            del dataset[tag]
            continue
        element, sound = _sound(dataset, tag)
        emptied += not sound
        if element.VR == "SQ":
            emptied += _clean_items(dataset, element, action, key)
        elif action is None:
            if "PN" in (element.VR, *_kinds(tag)):
                element.value = ""
        elif "U" in action:
            _replace(element, key)
        elif "D" in action:
            _dummy(dataset, element)
        else:  # Z or X/Z
            element.value = None if element.VR not in _TEXTS | {"PN"} else ""
    return emptied


def _sound(dataset: Dataset, tag: BaseTag) -> tuple[DataElement, bool]:
    """Return an element, without values that are not of the kind the attribute has, and whether it had none of them."""
    kinds = _kinds(tag)
    try:
        element = dataset[tag]
        # A text may be stored as one of another kind, and a number as another number or as a text.
        fits = element.VR in kinds or _group(element.VR) in {"number", *(_group(kind) for kind in kinds)} - {"items"}
    except Exception:  # pydicom raises anything from struct.error to ValueError over malformed values
        fits = False
    if not fits:
        element = DataElement(tag, kinds[0], Sequence() if kinds[0] == "SQ" else None)
        dataset[tag] = element
        return element, False
    values = element.value if element.VM > 1 else [element.value]
    replaced = actions().get(int(tag)) == "U"  # whatever it is
    if replaced or element.VR not in _FORMS or all(_formed(one, element.VR) for one in values):
        return element, True
    kept = [one if _formed(one, element.VR) else "" for one in values]
    element.value = kept if len(kept) > 1 else kept[0]
    return element, False


def _formed(value: object, kind: str) -> bool:
    """Whether a value is empty or looks like one of its kind."""
    if value is None or isinstance(value, (int, float)):  # what pydicom made a number of is one
        return True
    text = str(value).strip(" \0")
    return not text or re.fullmatch(_FORMS[kind], text) is not None


def _kinds(tag: BaseTag) -> list[str]:
    """Return the value representations that an attribute may have."""
    return dictionary_VR(tag).split(" or ")


def _group(kind: str) -> str:
    """Return what values of a kind are: words, bytes, items, or numbers, to which dates and codes of the standard count."""
    if kind in _TEXTS | {"PN"}:
        return "words"
    return "bytes" if kind in _BYTES else "items" if kind == "SQ" else "number"


def _always_removed(tag: BaseTag) -> bool:
    """Whether the tag is private, in one of the ranges of the table, or one that no dictionary knows."""
    group, element = tag.group, tag.element
    curve = _CURVES <= group < _CURVES + 0x100
    overlay = _OVERLAYS <= group < _OVERLAYS + 0x100 and element in (0x3000, 0x4000)
    known = dictionary_has_tag(tag) or repeater_has_tag(tag)
    return bool(tag.is_private) or curve or overlay or not known


def _clean_items(dataset: Dataset, element: DataElement, action: str | None, key: bytes) -> int:
    """Clean the items of a sequence; those of one to be emptied go, unless the object may need them."""
    if action in ("Z", "X/Z"):
        dataset[element.tag].value = Sequence()
        return 0
    return sum(_clean(item, key) for item in element.value)


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
