"""Standardised uptake values of PET, from the tags of the files an image was read from.

Definitions follow the QIBA FDG-PET profile (appendix G) and DICOM PS3.3 C.8.9.1: what a tag does not say is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from medseg.errors import InputError
from medseg.image import Image, LazyArray
from medseg.io.common import note, reading
from medseg.io.dicom.bounded import Bounded
from medseg.io.dicom.pixels import quiet

Kind = Literal["bw", "bsa", "lbm"]

_GE_SCAN = (0x0009, 0x100D)  # scan date and time
_PHILIPS_SUV, _PHILIPS_ACTIVITY = (0x7053, 0x1000), (0x7053, 0x1009)
_EACH = (
    "Units", "DecayCorrection", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "TimezoneOffsetFromUTC",
)  # fmt: skip
_FIRST = (
    *_EACH, "CorrectedImage", "SeriesDate", "SeriesTime", "PatientWeight", "PatientSize", "PatientSex", "SUVType",
    "RadiopharmaceuticalInformationSequence",
)  # fmt: skip
_DAY = timedelta(days=1)
_STAMP = re.compile(r"(\d{10}|\d{12}|\d{14})(\.\d{1,6})?([+-]\d{4})?")
# Half-lives in s by code of the nuclide (CID 4020; NuDat 3), to see that a header's number is in seconds.
_HALF_LIVES = {
    "77004003": 1223, "C-107A1": 1223, "21576001": 6586, "C-111A1": 6586, "21613005": 122.2, "C-B1038": 122.2,
    "21572004": 598, "C-107A2": 598, "48982009": 360806, "C-114A5": 360806, "80751004": 4057, "C-131A3": 4057,
    "79197006": 75.5, "C-159A2": 75.5, "67612007": 45721, "C-127A2": 45721, "10967005": 282276,
}  # fmt: skip


@dataclass(frozen=True)
class Factor:
    """What voxels are multiplied by, and how it came about."""

    value: float
    told: str


def suv(image: Image, kind: Kind = "bw") -> Image:
    """Return a PET image in standardised uptake values.

    Parameters
    ----------
    image : Image
        Read from DICOM; its voxels in Bq/mL, counts (Philips) or g/mL, as the files' Units say.
    kind : "bw", "bsa" or "lbm"
        By body weight (g/mL), body surface (cm2/mL, DuBois 1916) or lean body mass (g/mL, James 1976).

    Returns
    -------
    Image
        float32 voxels, read when they are touched.

    Raises
    ------
    InputError
        The image is no PET read from DICOM, or a tag is missing or contradictory; the message names it.
    """
    if kind not in ("bw", "bsa", "lbm"):
        raise InputError(f"There is no SUV {kind!r}; choose bw, bsa or lbm.")
    if image.source is None or image.source.format != "dicom" or image.modality != "PT":
        raise InputError("SUV needs a PET image read from DICOM, whose tags say weight, dose and times.")
    with quiet():
        found = factor(image.source.files, kind)
    array = image.array

    def load() -> Any:
        return np.multiply(np.asarray(array), np.float32(found.value), dtype=np.float32)

    lazy = LazyArray(array.shape, np.float32, load)
    return note(replace(image, array=lazy), f"SUV{kind}: {found.told}")


def _tags(file: Path, tags: list[Any]) -> Dataset:
    with Bounded(file) as stream:
        return pydicom.dcmread(stream, force=True, stop_before_pixels=True, specific_tags=tags)


def factor(files: Sequence[Path], kind: Kind) -> Factor:
    """Return what rescaled voxels of PET files are multiplied by to become SUV.

    Raises
    ------
    InputError
        A tag is missing or contradictory.
    """
    with reading(Path("A PET file"), "DICOM"):
        tags: list[Any] = [*_FIRST, _GE_SCAN, _PHILIPS_SUV, _PHILIPS_ACTIVITY]
        first = _tags(files[0], tags)
        rest = [_tags(file, list(_EACH)) for file in files[1:]]
    for keyword in ("Units", "DecayCorrection"):
        if len({str(one.get(keyword)) for one in (first, *rest)}) > 1:
            raise InputError(f"SUV cannot be computed: {keyword} differs between slices.")
    units = str(first.get("Units") or "")
    corrected = first.get("CorrectedImage")
    for word, what in (("ATTN", "attenuation"), ("DECY", "decay")):
        if units != "GML" and corrected is not None and word not in corrected:
            raise InputError(
                f"SUV cannot be computed: CorrectedImage does not list {word}, so {what} is not corrected."
            )
    if units == "GML":
        return _of_suv(first, kind)
    if units == "CNTS":
        given = _private(first, _PHILIPS_SUV)
        if given:
            size = _body(first, kind) / _body(first, "bw")
            return Factor(given * size, f"counts times {given * size:.6g}, from (7053,1000)")
        activity = _private(first, _PHILIPS_ACTIVITY)
        if not activity:
            raise InputError("SUV cannot be computed: Units is CNTS and (7053,1000) and (7053,1009) are missing.")
        value, told = _of_activity(first, rest, kind)
        return Factor(activity * value, f"counts times {activity * value:.6g}, from (7053,1009); {told}")
    if units != "BQML":
        raise InputError("SUV cannot be computed: Units is missing or none of BQML, CNTS and GML.")
    value, told = _of_activity(first, rest, kind)
    return Factor(value, f"Bq/mL times {value:.6g}; {told}")


def _of_suv(first: Dataset, kind: Kind) -> Factor:
    """Voxels are SUV already, by body weight unless SUVType says otherwise."""
    stated = str(first.get("SUVType") or "BW")
    known: dict[str, Kind] = {"BW": "bw", "BSA": "bsa", "LBM": "lbm", "LBMJAMES128": "lbm"}
    if known.get(stated) == kind:
        return Factor(1.0, "voxels are SUV already (GML)")
    if stated != "BW":
        raise InputError("SUV cannot be computed: SUVType says that voxels are another SUV than the one asked for.")
    value = _body(first, kind) / _body(first, "bw")
    return Factor(value, f"voxels are SUVbw (GML), times {value:.6g}")


def _of_activity(first: Dataset, rest: Sequence[Dataset], kind: Kind) -> tuple[float, str]:
    """Body size over the injected activity at the time that voxels are decay-corrected to, and how it came about."""
    items = first.get("RadiopharmaceuticalInformationSequence")
    if not items:
        raise InputError("SUV cannot be computed: RadiopharmaceuticalInformationSequence is missing.")
    if len(items) > 1:
        raise InputError("SUV cannot be computed: RadiopharmaceuticalInformationSequence names several injections.")
    drug = items[0]
    dose = _number(drug, "RadionuclideTotalDose")
    if dose < 1e5:
        raise InputError("SUV cannot be computed: RadionuclideTotalDose is under 0.1 MBq, so it is not in Bq.")
    correction = str(first.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return _body(first, kind) / dose, "decay corrected to the injection"
    if correction != "START":
        raise InputError("SUV cannot be computed: DecayCorrection is neither START nor ADMIN.")
    half_life = _half_life(drug)
    scan, which = _scan_start(first, rest)
    try:
        seconds = (scan - _injection(drug, scan, _zone(first))).total_seconds()
    except TypeError:  # one of the two has a time zone
        raise InputError(
            "SUV cannot be computed: only one of scan and injection has a time zone, and TimezoneOffsetFromUTC is missing."
        ) from None
    if not 0 <= seconds <= 86400:
        raise InputError(
            "SUV cannot be computed: RadiopharmaceuticalStartTime is not within the 24 hours before the scan."
        )
    if seconds > 12 * half_life:
        raise InputError("SUV cannot be computed: RadionuclideHalfLife is too short for the time since the injection.")
    left = dose * 2 ** (-seconds / half_life)
    return _body(first, kind) / left, f"{seconds:g} s of decay, from injection to {which}"


def _scan_start(first: Dataset, rest: Sequence[Dataset]) -> tuple[datetime, str]:
    """The time that voxels are decay-corrected to: series time if it is not after the first acquisition."""
    acquired = [_when(one, "Acquisition") for one in (first, *rest)]
    times = [time for time in acquired if time]
    series = _when(first, "Series")
    if not times:
        raise InputError("SUV cannot be computed: AcquisitionDate or AcquisitionTime is missing.")
    if len({time.tzinfo is None for time in (*times, series) if time}) > 1:
        raise InputError("SUV cannot be computed: some times have a time zone, and TimezoneOffsetFromUTC is missing.")
    if series and series <= min(times):
        return series, "SeriesTime"
    ge = first.get(_GE_SCAN)
    if ge is not None and (found := _stamp(_text(ge.value), _zone(first))):
        return found, "the scan time in (0009,100D)"
    raise InputError(
        "SUV cannot be computed: SeriesTime is missing or after the first acquisition (the series was made later), and "
        "(0009,100D) is missing."
    )


def _half_life(drug: Dataset) -> float:
    """Seconds, checked against the nuclide where its code is known."""
    found = _number(drug, "RadionuclideHalfLife")
    for code in drug.get("RadionuclideCodeSequence") or ():
        known = _HALF_LIVES.get(str(code.get("CodeValue") or ""))
        if known and abs(found / known - 1) > 0.05:
            raise InputError(
                "SUV cannot be computed: RadionuclideHalfLife, in seconds, is not that of the nuclide named."
            )
    return found


def _injection(drug: Dataset, scan: datetime, zone: timezone | None) -> datetime:
    """When the tracer was given; a bare time is of the day of the scan, or of the day before if it is later."""
    whole = _stamp(str(drug.get("RadiopharmaceuticalStartDateTime") or ""), zone)
    clock = _plain(drug.get("RadiopharmaceuticalStartTime"))
    local = scan.astimezone(zone) if zone else scan
    bare = _stamp(f"{local:%Y%m%d}{clock}", zone) if clock else None
    if whole and bare:
        apart = abs((whole.astimezone(zone) if zone else whole).replace(tzinfo=bare.tzinfo) - bare) % _DAY
        if min(apart, _DAY - apart) > timedelta(minutes=1):
            raise InputError(
                "SUV cannot be computed: RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime differ."
            )
    if whole:
        return whole
    if bare is None:
        raise InputError("SUV cannot be computed: RadiopharmaceuticalStartTime is missing.")
    return bare if bare <= scan else bare - _DAY


def _when(dataset: Dataset, what: str) -> datetime | None:
    zone = _zone(dataset)
    if found := _stamp(str(dataset.get(f"{what}DateTime") or ""), zone):
        return found
    date, time = _plain(dataset.get(f"{what}Date")), _plain(dataset.get(f"{what}Time"))
    return _stamp(date + time, zone) if date and time else None


def _zone(dataset: Dataset) -> timezone | None:
    """The time zone of all times in a file that do not name their own."""
    return _offset(str(dataset.get("TimezoneOffsetFromUTC") or "").strip())


def _offset(text: str) -> timezone | None:
    if not re.fullmatch(r"[+-]\d{4}", text):
        return None
    ahead = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(-ahead if text[0] == "-" else ahead) if ahead < _DAY else None


def _plain(value: Any) -> str:
    """A date or time without the separators of old files."""
    return str(value or "").strip().replace(":", "").replace("-", "")


def _text(value: Any) -> str:
    return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else str(value)


def _stamp(text: str, zone: timezone | None) -> datetime | None:
    """YYYYMMDDHHMMSS.FFFFFF&ZZXX, in its own time zone or in `zone`; None if it is not that."""
    match = _STAMP.fullmatch(text.strip())
    if not match:
        return None
    try:
        found = datetime.strptime(match[1].ljust(14, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    own = _offset(match[3]) if match[3] else zone
    return found.replace(tzinfo=own) + timedelta(seconds=float(match[2] or 0))


def _body(first: Dataset, kind: Kind) -> float:
    """Weight in g, surface in cm2 or lean mass in g."""
    weight = _number(first, "PatientWeight")
    if not 0.2 <= weight <= 700:
        raise InputError("SUV cannot be computed: PatientWeight is no weight of a person in kg.")
    if kind == "bw":
        return weight * 1000
    height = _number(first, "PatientSize") * 100
    if not 20 <= height <= 280:
        raise InputError("SUV cannot be computed: PatientSize is no height of a person in m.")
    if kind == "bsa":
        return float(71.84 * weight**0.425 * height**0.725)
    sex = str(first.get("PatientSex") or "")
    if sex not in ("M", "F"):
        raise InputError("SUV cannot be computed: PatientSex is neither M nor F, which lean body mass depends on.")
    lean = 1.10 * weight - 128 * (weight / height) ** 2 if sex == "M" else 1.07 * weight - 148 * (weight / height) ** 2
    if lean <= 0:
        raise InputError("SUV cannot be computed: PatientWeight and PatientSize give no lean body mass.")
    return float(lean * 1000)


def _number(dataset: Dataset, keyword: str) -> float:
    try:
        found = float(dataset.get(keyword))
    except (TypeError, ValueError):
        found = 0.0
    if not 0 < found < float("inf"):
        raise InputError(f"SUV cannot be computed: {keyword} is missing or not positive.")
    return found


def _private(dataset: Dataset, tag: tuple[int, int]) -> float:
    """A private number, which may be unparsed text; 0 if it is missing."""
    element = dataset.get(tag)
    try:
        found = float(_text(element.value)) if element is not None else 0.0
    except (TypeError, ValueError):
        return 0.0
    return found if 0 < found < float("inf") else 0.0
