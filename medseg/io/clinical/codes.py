"""Coded terms that outputs carry, checked against the dictionary of pydicom 3.0 (PS3.16).

A code is (value, coding scheme, meaning), as in `FindingSpec`. Units are UCUM.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

Code = tuple[str, str, str]

# What a segment is (CID 7159).
PROPERTY_TYPES: dict[str, Code] = {
    "lesion": ("52988006", "SCT", "Lesion"),
    "neoplasm": ("108369006", "SCT", "Neoplasm"),
    "primary": ("372087000", "SCT", "Primary malignant neoplasm"),
    "secondary": ("14799000", "SCT", "Neoplasm, Secondary"),
    "nodule": ("27925004", "SCT", "Nodule"),
    "mass": ("4147007", "SCT", "Mass"),
    "necrosis": ("6574001", "SCT", "Necrosis"),
    "cyst": ("367643001", "SCT", "Cyst"),
}
ARTIFICIAL_INTELLIGENCE: Code = ("123110", "DCM", "Artificial Intelligence")
BACKGROUND: Code = ("125040", "DCM", "Background")
ABSENT: Code = ("2667000", "SCT", "Absent")
BASIC_PROFILE: Code = ("113100", "DCM", "Basic Application Confidentiality Profile")

# What RECIST has a lesion for, as an answer to the baseline category (CID 6145; a new lesion has no code there).
BASELINE: Code = ("112016", "DCM", "Baseline Category")
ROLES: dict[str, Code] = {
    "target": ("112074", "DCM", "Target Lesion at Baseline"),
    "non-target": ("112075", "DCM", "Non-Target Lesion at Baseline"),
    "new": ("129721008", "SCT", "New finding"),
}
LYMPH_NODE: Code = ("59441001", "SCT", "Lymph Node")

# What was done to the patient (procedure reported), by DICOM modality (CID 100).
PROCEDURES: dict[str, Code] = {
    "CT": ("25045-6", "LN", "CT unspecified body region"),
    "MR": ("25056-3", "LN", "MRI unspecified body region"),
    "PT": ("44136-0", "LN", "PET unspecified body region"),
}
IMAGING: Code = ("363679005", "SCT", "Imaging procedure")

# Units (UCUM).
MM: Code = ("mm", "UCUM", "mm")
MM3: Code = ("mm3", "UCUM", "mm3")
ML: Code = ("mL", "UCUM", "mL")
HU: Code = ("[hnsf'U]", "UCUM", "Hounsfield unit")
SUV_BW: Code = ("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight")
SUV_LBM: Code = ("g/ml{SUVlbm}", "UCUM", "Standardized Uptake Value lean body mass")
SUV_BSA: Code = ("cm2/ml{SUVbsa}", "UCUM", "Standardized Uptake Value body surface area")
GRAM: Code = ("g", "UCUM", "g")
ONE: Code = ("1", "UCUM", "no units")

# How a value was condensed from many voxels.
MEAN: Code = ("373098007", "SCT", "Mean")
MAXIMUM: Code = ("56851009", "SCT", "Maximum")
MINIMUM: Code = ("255605001", "SCT", "Minimum")
MEDIAN: Code = ("373099004", "SCT", "Median")
SD: Code = ("386136009", "SCT", "Standard Deviation")
PEAK: Code = ("126031", "DCM", "Peak Value Within ROI")

_ATTENUATION: Code = ("112031", "DCM", "Attenuation Coefficient")
_SUV_BW: Code = ("126401", "DCM", "SUVbw")
_SUV_LBM: Code = ("126402", "DCM", "SUVlbm")
_SUV_BSA: Code = ("126403", "DCM", "SUVbsa")


@dataclass(frozen=True)
class Measure:
    """A measurement a report can hold: what it is, its unit, and how it was condensed, if it was."""

    name: Code
    unit: Code
    derivation: Code | None = None


# Columns of tables, to what they are in a report.
MEASURES: dict[str, Measure] = {
    "volume_mm3": Measure(("118565006", "SCT", "Volume"), MM3),
    "volume_ml": Measure(("118565006", "SCT", "Volume"), ML),
    "long_axis_mm": Measure(("103339001", "SCT", "Long Axis"), MM),
    "short_axis_mm": Measure(("103340004", "SCT", "Short Axis"), MM),
    "diameter_3d_mm": Measure(("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh"), MM),
    "hu_mean": Measure(_ATTENUATION, HU, MEAN),
    "hu_sd": Measure(_ATTENUATION, HU, SD),
    "hu_min": Measure(_ATTENUATION, HU, MINIMUM),
    "hu_max": Measure(_ATTENUATION, HU, MAXIMUM),
    "hu_median": Measure(_ATTENUATION, HU, MEDIAN),
    "suv_max": Measure(_SUV_BW, SUV_BW, MAXIMUM),
    "suv_mean": Measure(_SUV_BW, SUV_BW, MEAN),
    "suv_peak": Measure(_SUV_BW, SUV_BW, PEAK),
    "suvlbm_max": Measure(_SUV_LBM, SUV_LBM, MAXIMUM),
    "suvlbm_mean": Measure(_SUV_LBM, SUV_LBM, MEAN),
    "suvlbm_peak": Measure(_SUV_LBM, SUV_LBM, PEAK),
    "suvbsa_max": Measure(_SUV_BSA, SUV_BSA, MAXIMUM),
    "suvbsa_mean": Measure(_SUV_BSA, SUV_BSA, MEAN),
    "suvbsa_peak": Measure(_SUV_BSA, SUV_BSA, PEAK),
    "mtv_ml": Measure(("126032", "DCM", "Metabolic Volume"), ML),
    "tlg_g": Measure(("126033", "DCM", "Total Lesion Glycolysis"), GRAM),
}

_SITES = (4031, 4028, 6300, 6301, 6302, 7151)  # context groups of anatomic sites
SCHEMES = ("DCM", "SCT", "SRT", "UCUM", "FMA", "LN", "IBSI")  # of the standard, so that their meanings are known


def standard(code: Code) -> Code | None:
    """Return a code with the meaning that its scheme gives it; None if it is of another scheme, or not known.

    What a file says that a code means is free text.

    Examples
    --------
    >>> standard(("64033007", "SCT", "left kidney of Doe"))
    ('64033007', 'SCT', 'Kidney')
    """
    meaning = _meanings().get(code[:2])
    return (*code[:2], meaning) if meaning else None


def anatomy(name: str) -> Code | None:
    """Return the SNOMED CT code of an anatomic site by its name in the standard (CID 4031 and others); None if there is none.

    Examples
    --------
    >>> anatomy("Lung")
    ('39607008', 'SCT', 'Lung')
    """
    return _by_meaning().get(name.strip().lower())


def is_node(site: str) -> bool:
    """Whether a site, by its meaning, is lymph nodes, which RECIST measures in another way than all else."""
    return "lymph node" in site.lower()


def role_of(code: Code | None) -> str:
    """Return the role by RECIST that a code stands for, "" if it is none."""
    return next((role for role, known in ROLES.items() if code and known[:2] == code[:2]), "")


@cache
def _by_meaning() -> dict[str, Code]:
    """Return codes of anatomic sites by their meaning in small letters."""
    from pydicom.sr._cid_dict import cid_concepts
    from pydicom.sr._concepts_dict import concepts

    names = {name for cid in _SITES for name in cid_concepts.get(cid, {}).get("SCT", ())}
    found: dict[str, Code] = {}
    for name in sorted(names):
        for value, (meaning, _) in dict(concepts["SCT"].get(name, {})).items():  # type: ignore[call-overload]
            found.setdefault(meaning.lower(), (value, "SCT", meaning))
    return found


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """Return meanings by code and scheme: those of pydicom's dictionary, and our own."""
    from pydicom.sr._snomed_dict import mapping  # codes of SRT are old names of those of SCT
    from pydicom.sr.codedict import codes

    known = [one for name in codes.schemes() if name in SCHEMES for one in getattr(codes, name).concepts.values()]
    known.sort(key=lambda one: (-len(one.meaning), one.meaning))  # of several names of one code the shortest stays
    found = {(one.value, one.scheme_designator): one.meaning for one in known}
    found |= {(old, "SRT"): found[new, "SCT"] for old, new in mapping["SRT"].items() if (new, "SCT") in found}
    ours = [*PROPERTY_TYPES.values(), *PROCEDURES.values(), BACKGROUND, IMAGING, LYMPH_NODE]
    for measure in MEASURES.values():
        ours += [measure.name, measure.unit, *([measure.derivation] if measure.derivation else [])]
    return {code[:2]: code[2] for code in ours} | found
