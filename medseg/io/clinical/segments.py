"""What outputs say of each instance: label, coded terms, tracking, who drew it, colour. One table for SEG, RTSTRUCT, SR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from colorsys import hsv_to_rgb
from dataclasses import dataclass, replace
from typing import Any
from warnings import warn

import numpy as np
import pandas as pd

from medseg.errors import InputError, MedsegWarning
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.codes import LYMPH_NODE, ROLES, Code, anatomy, is_node, standard
from medseg.io.clinical.deidentifier import VERSION, new_uid, secret
from medseg.io.clinical.study import Study, uid_from
from medseg.spec import FindingSpec

SAID = ("finding_site", "nodal", "role")  # columns that a person fills in
_GOLDEN = 0.6180339887  # of a turn: neighbours in the order are far apart in hue


@dataclass(frozen=True)
class Segment:
    """One instance as an output describes it.

    Parameters
    ----------
    number : int
        1, 2, ... in the order of the table.
    id : int
        Instance id.
    label, tracking_id, tracking_uid : str
        Name; text and UID that stay with the object in later outputs.
    category, type : Code
        What it is.
    sites : tuple of Code
        Where: the site, and lymph node where it is one and the site does not say so.
    role : str
        target, non-target or new by RECIST; empty where none is given.
    algorithm_type : str
        AUTOMATIC, SEMIAUTOMATIC or MANUAL.
    algorithm, version : str
        What drew it; empty if it is MANUAL.
    rgb : three int
        Colour, 0 to 255.
    """

    number: int
    id: int
    label: str
    tracking_id: str
    tracking_uid: str
    category: Code
    type: Code
    sites: tuple[Code, ...]
    role: str
    algorithm_type: str
    algorithm: str
    version: str
    rgb: tuple[int, int, int]


def placed(instances: Instances, grid: Grid) -> Instances:
    """Return the instances on `grid`, with a warning if some have no voxel there.

    Raises
    ------
    GeometryError
        The two share no world.
    """
    found = instances.on(grid)
    if lost := len(instances) - len(found):
        warn(f"{lost} of {len(instances)} instances have no voxel on the grid of the image and are left out.",
             MedsegWarning, stacklevel=4)  # fmt: skip
    return found


def describe(instances: Instances, image: Image, study: Study, finding: FindingSpec | None) -> list[Segment]:
    """Describe each instance, in the order of the table.

    What `instances.provenance["segments"]` says (see `medseg.io.load_candidates`; each with its "id") is kept: tracking
    always, label and coded terms unless `finding` is given, authorship as long as no person edited the instance since.
    In an anonymous study nothing of it is left but codes of the standard; see `medseg.io.save_seg`.

    Parameters
    ----------
    instances : Instances
        On the grid of `image`.
    image, study : Image, Study
        Source.
    finding : FindingSpec, optional
        Coded terms and authorship.

    Warns
    -----
    MedsegWarning
        Codes were replaced, as their meaning is not known to name nobody.
    """
    record = instances.provenance
    known = of_each(record)
    spec = finding or FindingSpec()
    segments, replaced = [], 0
    for number, (id, kind) in enumerate(zip(instances.table["id"], instances.table["class"], strict=True), 1):
        old = known.get(int(id), {})
        uid = old.get("tracking_uid") or uid_from(study.series, "tracking", int(id), _content(instances, number - 1))
        name = str(kind)
        if study.anonymous:
            old, lost = _neutral(old)
            replaced += lost and finding is None
            uid = new_uid(str(uid), secret())
            if read_from_file(record):
                name = _name(old, spec.types.get(name, spec.type) if finding else None)
        keep = old if finding is None else {}
        segments.append(
            Segment(
                number,
                int(id),
                str(keep.get("label") or f"{name} {id}"),
                str(old.get("tracking_id") or f"{name} {id}")[:64],
                str(uid),
                _code(keep.get("category")) or spec.category,
                _code(keep.get("type")) or spec.types.get(kind, spec.type),
                _sites(
                    _code(keep.get("site")) or spec.site or _code(old.get("site")), spec.nodal or bool(old.get("nodal"))
                ),
                spec.role or _role(old),
                *_authorship(spec, record, old, int(id)),
                spec.colour or colour(number),
            )  # fmt: skip
        )
    if replaced:
        warn(f"Codes of {replaced} segments are of no standard scheme and may name somebody: those of `finding` took "
             "their place; give it to say what the segments are.", MedsegWarning, stacklevel=4)  # fmt: skip
    return segments


def said(instances: Instances, table: pd.DataFrame, codes: Iterable[Code] = ()) -> Instances:
    """Return the instances with what a table says of site, lymph nodes and role where SEG and SR look for it.

    Parameters
    ----------
    instances : Instances
        Any.
    table : DataFrame
        Column id, and any of finding_site (a name of the standard, or the meaning of one of `codes`), nodal and role. NaN says
        nothing.
    codes
        Sites that the names may be of too.
    """
    columns = [name for name in SAID if name in table]
    if not columns:
        return instances
    known, rows = of_each(instances.provenance), table.set_index("id")[columns].to_dict("index")
    segments = []
    for id in instances.table["id"].tolist():
        one = {**known.get(id, {}), "id": id}
        told = {name: value for name, value in rows.get(id, {}).items() if not pd.isna(value)}
        if "finding_site" in told:
            name = str(told["finding_site"])
            old = _code(one.get("site"))
            other = [*codes, old] if old else [*codes]
            if name or _meant(old):  # tables are silent of a site of no standard
                one["site"] = next((code for code in other if name and name in (code[2], _meant(code))), anatomy(name))
        if "nodal" in told:
            one["nodal"] = bool(told["nodal"])
        if "role" in told:
            one["role"] = str(told["role"])
        segments.append(one)
    record = {key: value for key, value in instances.provenance.items() if key != "relabelled_from"}
    return replace(instances, provenance={**record, "segments": segments})


def sites(instances: Instances) -> list[Code]:
    """Return the sites that a provenance has for its instances, each once."""
    found = [_code(one.get("site")) for one in of_each(instances.provenance).values()]
    return list(dict.fromkeys(code for code in found if code))


def recorded(instances: Instances) -> pd.DataFrame:
    """Return id, and finding_site, nodal and role of each as the file said that it was read from; id alone where it said none.

    Sites are in the words of the standard; those of other schemes may name anybody and are left out.
    """
    known, ids = of_each(instances.provenance), instances.table["id"].tolist()
    rows = [known.get(id, {}) for id in ids]
    sites = [_meant(_code(one.get("site"))) for one in rows]
    told: dict[str, list[Any]] = {
        "finding_site": sites,
        "nodal": [bool(one.get("nodal")) or is_node(site) for one, site in zip(rows, sites, strict=True)],
        "role": [_role(one) for one in rows],
    }
    return pd.DataFrame({"id": ids} | (told if any(any(column) for column in told.values()) else {}))


def read_from_file(record: Mapping[str, object]) -> bool:
    """Whether a provenance says that class names were read from a file, where anybody may have written them."""
    ours = {"id", "site", "nodal", "role"}  # what `said` writes where nothing else is known
    return "read_as" in record or any(set(one) - ours for one in _entries(record))


def _sites(site: Code | None, nodal: bool) -> tuple[Code, ...]:
    """Return where an instance is, and that it is a lymph node where that does not say so."""
    named = (site,) if site else ()
    return named if not nodal or is_node(_meant(site)) else (*named, LYMPH_NODE)  # words of no standard nobody can read


def _meant(code: Code | None) -> str:
    """Return what a code means by its scheme, "" where that is not known."""
    return ((standard(code) if code else None) or ("", "", ""))[2]


def _role(old: Mapping[str, Any]) -> str:
    """Return the recorded role, if it is one."""
    return str(old["role"]) if old.get("role") in ROLES else ""


def _neutral(old: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return of what was recorded of a segment that which names nobody, and whether a code was lost."""
    terms = {key: _code(old.get(key)) for key in ("category", "type", "site")}
    kept = {key: standard(code) for key, code in terms.items() if code}
    out: dict[str, Any] = {
        **kept,
        "algorithm": old.get("algorithm"),
        "nodal": bool(old.get("nodal")),
        "role": _role(old),
    }
    out |= {key: "REMOVED" for key in ("algorithm_name", "algorithm_version") if old.get(key)}
    return out, None in kept.values()


def _name(neutral: dict[str, Any], stated: Code | None) -> str:
    """Return the meaning of what a segment is, by the finding or else as recorded, if its code is a standard one."""
    code = stated or _code(neutral.get("type"))
    known = standard(code) if code else None
    return known[2] if known else "object"


def of_each(record: Mapping[str, object]) -> dict[int, dict[str, Any]]:
    """Return what a provenance says of each id; ids are followed through `Instances.relabel`."""
    known = {int(one["id"]): one for one in _entries(record) if "id" in one}
    before = record.get("relabelled_from")
    if isinstance(before, (list, tuple)):
        return {new: known[int(old)] for new, old in enumerate(before, 1) if int(old) in known}
    return known


def _entries(record: Mapping[str, object]) -> list[dict[str, Any]]:
    segments = record.get("segments")
    return [one for one in segments if isinstance(one, dict)] if isinstance(segments, (list, tuple)) else []


def _content(instances: Instances, row: int) -> bytes:
    """Return bytes that tell the voxels of one instance apart from any other's."""
    axes = instances.grid.axes
    one = instances.table.iloc[row]
    box = [(int(one[f"box_{axis}_start"]), int(one[f"box_{axis}_stop"])) for axis in axes]
    mask = instances.labels[tuple(slice(*ends) for ends in box)] == one["id"]
    return repr(box).encode() + np.packbits(mask).tobytes()


def _authorship(spec: FindingSpec, record: Mapping[str, object], old: dict[str, Any], id: int) -> tuple[str, str, str]:
    """Return algorithm type, name and version of one instance."""
    edited = record.get("edited", False)
    by_hand = id in edited if isinstance(edited, (list, tuple, set, frozenset)) else bool(edited)
    kind = spec.algorithm_type or str(old.get("algorithm") or "AUTOMATIC")
    if by_hand and kind == "AUTOMATIC" and spec.algorithm_type is None:
        kind = "SEMIAUTOMATIC"
    if kind not in ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"):
        kind = "SEMIAUTOMATIC"  # an unknown term of another writer: the middle claims least
    if kind == "MANUAL":
        return kind, "", ""
    name = spec.algorithm or str(old.get("algorithm_name") or record.get("model") or "medseg")
    version = spec.algorithm_version or str(old.get("algorithm_version") or VERSION)
    return kind, name[:64], version[:64]


def _code(value: object) -> Code | None:
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(value):
        return str(value[0]), str(value[1]), str(value[2])
    return None


def colour(number: int) -> tuple[int, int, int]:
    """Return red, green, blue (0 to 255) of a segment, far from those of its neighbours in number."""
    hue, brightness = number * _GOLDEN % 1.0, (1.0, 0.8, 0.65)[number // 16 % 3]
    red, green, blue = (round(255 * part) for part in hsv_to_rgb(hue, 0.75, brightness))
    return red, green, blue


def need_some(segments: list[Segment], what: str) -> None:
    """Raise unless there is something to write.

    Raises
    ------
    InputError
        There are no instances: the format cannot say so.
    """
    if not segments:
        raise InputError(
            f"There are no instances, and {what} cannot hold none; write a report (save_report), which can say so, "
            "or an empty label file as NIfTI."
        )
