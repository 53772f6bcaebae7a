"""What turns stored numbers into quantities: a rescale, the scaling of RT dose, a Real World Value Mapping; or nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from medseg.errors import FormatError, InputError
from medseg.io.common import reading
from medseg.io.dicom.headers import Header

_MAPPING = "RealWorldValueMappingSequence"
_SHARED = "SharedFunctionalGroupsSequence"
_FRAMES = "PerFrameFunctionalGroupsSequence"
_HOUNSFIELD = ("", "HU", "HU_MOD")  # without a RescaleType, a rescale of CT gives these (PS3.3 C.8.2.1)
# Codes of UCUM that may be shown: any other text of a header might be about the patient.
_COUNTS = ("1", "%", "{counts}", "{propcounts}", "{ratio}", "Hz", "/s", "/ms", "/min", "ms", "s", "mm", "cm", "deg")
_AMOUNTS = ("[hnsf'U]", "Gy", "Bq/ml", "g/ml", "g/ml{SUVbw}", "g/ml{SUVlbm}", "g/ml{SUVibw}", "cm2/ml{SUVbsa}", "mg/ml",
            "mg/cm3", "umol/ml", "mmol/l", "mm2/s", "um2/s", "ml/min/g", "ml/(100.g)", "ml/(100.g)/min", "kPa")  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Value = slope * stored + intercept.

    Parameters
    ----------
    slope, intercept : float
        1 and 0 where values are as stored.
    quantity : bool
        Whether values are a quantity, which MONOCHROME1 (a wish about display) must not turn round.
    notes : tuple of str
        What was decided.
    """

    slope: float = 1.0
    intercept: float = 0.0
    quantity: bool = False
    notes: tuple[str, ...] = ()


def header_number(header: Any, key: str, default: float) -> float:
    """Return a header number, or `default` if it is absent or empty.

    Raises
    ------
    FormatError
        It is not one finite number; the message does not quote it.
    """
    value = header.get(key)
    if value is None or value == "":
        return float(default)
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise FormatError(f"{key} is not a number; the header is damaged.") from None
    if not math.isfinite(found):
        raise FormatError(f"{key} is not finite; the header is damaged.")
    return found


def scale_of(header: Header, own: tuple[float, float] | None, integers: bool) -> Scale:
    """Read how stored numbers become values.

    Parameters
    ----------
    header : Header
        Of a file of gray pixels without a Modality LUT.
    own : tuple of float, optional
        Slope and intercept of one frame, where the frame has its own.
    integers : bool
        Whether stored numbers are integers.

    Raises
    ------
    FormatError
        A number is malformed, or a slope is 0.
    InputError
        RT dose without a scaling, or frames with different Real World Value Mappings.
    """
    modality, kind = header.get("Modality"), header.text("RescaleType")
    if modality == "RTDOSE":
        return _dose(header, integers)
    stated = any(header.get(f"Rescale{key}") not in (None, "") for key in ("Slope", "Intercept"))
    if own is None and not stated:
        return _mapped(header)
    slope, intercept = own or (header_number(header, "RescaleSlope", 1), header_number(header, "RescaleIntercept", 0))
    if slope == 0:
        raise FormatError("A slice has a RescaleSlope of 0; the header is damaged.")
    notes = []
    if modality == "CT" and kind not in _HOUNSFIELD:
        notes.append("the RescaleType is another than HU: values are not Hounsfield units")
    if _has_mapping(header):
        notes.append("values are rescaled; a Real World Value Mapping, which the file has too, was not applied")
    # "US" is the standard's word for unspecified: 1 and 0 of that kind say nothing.
    named = kind in _HOUNSFIELD if modality == "CT" else kind not in ("", "US")
    quantity = named or (slope, intercept) != (1.0, 0.0) or modality in ("PT", "NM")
    return Scale(slope, intercept, quantity, tuple(notes))


def _dose(header: Header, integers: bool) -> Scale:
    """The scaling of RT dose, without which integers mean nothing but shares of some dose (PS3.3 C.8.8.3)."""
    unit = header.text("DoseUnits").upper()
    scaled = header.get("DoseGridScaling") not in (None, "")
    if not scaled and integers and unit != "RELATIVE":
        raise InputError("The RT dose has no DoseGridScaling, so its pixels are no dose; export it again.")
    slope = header_number(header, "DoseGridScaling", 1)
    if slope == 0:
        raise FormatError("DoseGridScaling is 0; the header is damaged.")
    what = {"GY": "RT dose in Gy", "RELATIVE": "RT dose relative to a reference that the file does not hold, not Gy"}
    how = "scaled by DoseGridScaling" if scaled else "as stored: there is no DoseGridScaling"
    named = what.get(unit, "RT dose in a unit that DoseUnits does not state")
    return Scale(slope, 0.0, True, (f"values are {named}, {how}",))


def _has_mapping(header: Header) -> bool:
    """Whether the file has a Real World Value Mapping: at its top, for all frames, or for the first."""
    if _MAPPING in header:
        return True
    if _FRAMES not in header and _SHARED not in header:
        return False
    with reading(Path("The functional groups"), "DICOM"):
        return any(_MAPPING in group for key in (_SHARED, _FRAMES) for group in (header.dataset.get(key) or [])[:1])


def _mapped(header: Header) -> Scale:
    """What a file without a rescale says: a single linear Real World Value Mapping, or nothing."""
    modality = header.get("Modality")
    quantity = modality in ("PT", "NM")
    notes: tuple[str, ...] = ()
    items = _mappings(header)
    if len(items) == 1 and "RealWorldValueSlope" in items[0] and "RealWorldValueLUTData" not in items[0]:
        slope, intercept = (header_number(items[0], f"RealWorldValue{key}", 0) for key in ("Slope", "Intercept"))
        if slope == 0:
            raise FormatError("A RealWorldValueSlope is 0; the header is damaged.")
        told = (
            f"values are those of the Real World Value Mapping, in {_unit(items[0])}, also outside the range it is for"
        )
        return Scale(slope, intercept, True, (told,))
    if items:
        why = f"there are {len(items)}" if len(items) > 1 else "it is a table"
        notes = (f"values are as stored: a Real World Value Mapping was not applied, since {why}",)
    elif modality == "CT":
        notes = ("there is no rescale: values are as stored, which need not be Hounsfield units",)
    return Scale(quantity=quantity, notes=notes)


def _mappings(header: Header) -> list[Dataset]:
    """The Real World Value Mappings that hold for each frame.

    Raises
    ------
    InputError
        Frames have different ones.
    """
    if _MAPPING not in header and _FRAMES not in header and _SHARED not in header:
        return []
    with reading(Path("The Real World Value Mapping"), "DICOM"):
        dataset = header.dataset
        shared = next(iter(dataset.get(_SHARED) or []), Dataset())
        common = shared.get(_MAPPING) or dataset.get(_MAPPING) or []
        found = [list(group.get(_MAPPING) or common) for group in dataset.get(_FRAMES) or []] or [list(common)]
        kinds = {tuple(_kind(item) for item in items) for items in found}
    if len(kinds) > 1:
        raise InputError(
            "The frames have different Real World Value Mappings, which is not read; export one quantity to a file."
        )
    return found[0]


def _kind(item: Dataset) -> tuple[str, ...]:
    """What has to be the same for two mappings to be the same."""
    names = ("RealWorldValueSlope", "RealWorldValueIntercept", "RealWorldValueLUTData", "LUTLabel")
    return *(str(item.get(name)) for name in names), _code(item)


def _code(item: Dataset) -> str:
    unit = next(iter(item.get("MeasurementUnitsCodeSequence") or []), Dataset())
    return f"{unit.get('CodingSchemeDesignator')} {unit.get('CodeValue')}"


def _unit(item: Dataset) -> str:
    """The unit of a mapping, if it is one of the usual."""
    scheme, _, code = _code(item).partition(" ")
    return code if scheme == "UCUM" and code in (*_COUNTS, *_AMOUNTS) else "a unit that the header names"
