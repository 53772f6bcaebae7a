"""The course of each lesion over the visits: what became of it, under one Tracking UID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from medseg.errors import InputError
from medseg.follow.matching import Body, links
from medseg.follow.register import Alignment, Points, align
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.segments import SAID, of_each, recorded, sites
from medseg.io.clinical.segments import said as spoken
from medseg.io.clinical.study import uid_from
from medseg.measure import measure
from medseg.measure.lesions import masks, plane_of
from medseg.measure.recist import NODE, measured
from medseg.spec import FollowSpec, MeasureSpec

STATES = ("baseline", "new", "stable", "grown", "shrunk", "merged", "split", "resolved", "returned")
_OF_FILE = "file:"  # before the names of columns that hold what a file said
_POINT = 1.0  # mm that points of a lesion are apart at most


@dataclass(frozen=True)
class Visit:
    """One date: an image and the lesions on it.

    Attributes
    ----------
    image : Image
    lesions : Instances
        On the same voxels as the image, or on others in the same world.
    name : str
        What the visit is called in tables; names nobody.
    date : str
        ISO date, or "".
    patient : str
        Key that is the same for the same patient and from which nobody is known, or "".
    said : DataFrame, optional
        What a person said of lesions: id, and any of finding_site, nodal, role.
    """

    image: Image
    lesions: Instances
    name: str = ""
    date: str = ""
    patient: str = ""
    said: pd.DataFrame | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Course:
    """What `follow` found.

    Attributes
    ----------
    visits : tuple of Visit
        In order of date; their instances have the numbers of their lesions, the same at all visits, and carry Tracking UIDs
        (``lesions.provenance["segments"]``).
    ledger : DataFrame
        One row for each lesion at each visit from its first: lesion (1 to N), tracking_uid, visit (0 is the baseline), name, date,
        day (since the baseline), state (`STATES`), into and origin (lesion that it merged into, or split from; 0 if none), id (in
        the labels of the visits here: its number; 0 if it is gone), mask_id (in the labels that were given; 0 if it is gone),
        volume_ml, change_pct (of the volume since the visit before), baseline_pct (since its first; both of all that it was and
        became), counts_mm (diameter that RECIST counts), and all measurements of `medseg.measure.measure`.
    alignments : tuple of Alignment
        How each visit after the first was laid onto the first.
    notes : tuple of str
        What was decided.
    """

    visits: tuple[Visit, ...]
    ledger: pd.DataFrame = field(repr=False)
    alignments: tuple[Alignment, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Lesion:
    """A lesion while it is followed."""

    number: int
    uid: str
    body: Body
    present: bool
    first: float
    volume: float
    origin: int = 0
    into: int = 0  # where it has gone on in another


def follow(
    visits: Sequence[Visit],
    spec: FollowSpec | None = None,
    measures: MeasureSpec | None = None,
    *,
    force: bool = False,
) -> Course:
    """Follow lesions over visits.

    Parameters
    ----------
    visits
        Two or more of one patient. Where all have dates they are put in their order, so the order given does not matter; else the
        first is the baseline.
    spec
        Registration and thresholds.
    measures
        Rules of the measurements.
    force
        Go on although visits are of different patients.

    Raises
    ------
    InputError
        Fewer than two visits, visits of different patients, or of one date.
    GeometryError
        Images without a place or spacing, or that cannot be registered.
    """
    spec = spec or FollowSpec()
    ordered, notes = _ordered(visits, force)
    measures = _one_plane(ordered, measures or MeasureSpec(), notes)
    tables = [_table(visit, measures, notes, number) for number, visit in enumerate(ordered)]
    alignments = [Alignment("none", float("nan"))]
    for visit in ordered[1:]:
        alignments.append(align(visit.image, ordered[0].image, spec.registration, spec.knot))
    bodies = [bodies_of(visit.lesions, alignment) for visit, alignment in zip(ordered, alignments, strict=True)]
    lesions: list[_Lesion] = []
    rows: list[dict[str, Any]] = []
    owners: list[dict[int, _Lesion]] = []
    for number, (visit, table) in enumerate(zip(ordered, tables, strict=True)):
        owners.append(_visit(number, visit, table, bodies[number], lesions, rows, spec))
    ledger = _ledger(rows, ordered, tables).rename(columns={"id": "mask_id"})
    ledger.insert(
        list(ledger).index("mask_id"), "id", ledger["lesion"].where(ledger["mask_id"] > 0, 0).astype(np.int32)
    )
    notes += _doubts(ordered)
    done = [_tracked(visit, owner) for visit, owner in zip(ordered, owners, strict=True)]
    said_of = [ledger.loc[(ledger["visit"] == k) & (ledger["id"] > 0)] for k in range(len(done))]
    codes = [code for visit in done for code in sites(visit.lesions)]  # of one visit for all
    done = [replace(v, lesions=spoken(v.lesions, rows, codes)) for v, rows in zip(done, said_of, strict=True)]
    return Course(tuple(done), ledger, tuple(alignments[1:]), tuple(dict.fromkeys(notes)))


def _doubts(visits: Sequence[Visit]) -> list[str]:
    """What is allowed but mostly a mistake."""
    notes = []
    keys = [v.image.source.content_hash() for v in visits if v.image.source]
    if len(set(keys)) < len(keys):
        notes.append("two visits have the very same image")
    if any(v.image.modality == "PT" for v in visits):
        notes.append(
            "RECIST 1.1 measures on CT or MR: sums and responses from PET are for orientation only, and PET rules find organs too"
        )
    return notes


def _ordered(visits: Sequence[Visit], force: bool) -> tuple[list[Visit], list[str]]:
    if len(visits) < 2:
        raise InputError("To follow lesions takes a baseline and at least one later visit.")
    notes = []
    known = {v.patient for v in visits if v.patient}
    if len(known) > 1:
        if not force:
            raise InputError(
                "The visits are of different patients, by their DICOM headers; give --force (force=True) if that is wrong."
            )
        notes.append("the headers name different patients; followed as one, as asked")
    dates = [v.date for v in visits]
    if all(dates):
        if len(set(dates)) < len(dates):
            raise InputError("Two visits have the same date; give different ones with --dates.")
        ordered = sorted(visits, key=lambda v: v.date)
        if [v.date for v in ordered] != dates:
            notes.append("the visits were put in the order of their dates")
    else:
        ordered = list(visits)
        notes.append("not every visit has a date: taken in the order given, the first as baseline")
    return [replace(v, name=v.name or f"visit {i}") for i, v in enumerate(ordered)], notes


def _one_plane(visits: Sequence[Visit], measures: MeasureSpec, notes: list[str]) -> MeasureSpec:
    """Measure all visits in one plane: in the axial one where each by itself would be measured in another."""
    if measures.plane != "auto" or any(v.lesions.grid.ndim != 3 or not v.lesions.grid.known for v in visits):
        return measures
    normals = set()
    for visit in visits:
        grid, source = visit.lesions.grid, visit.image.source
        sliced = source is not None and source.format == "dicom" and visit.image.grid.matches(grid)
        axis, _ = plane_of(grid, measures, sliced)
        normals.add(int(np.argmax(np.abs(grid.affine[:3, axis]))))
    if len(normals) == 1 or any(v.lesions.grid.space != "patient" for v in visits):
        return measures
    notes.append("the visits were scanned in different planes: axes are measured in the axial plane at all of them")
    return measures.model_copy(update={"plane": "axial"})


def _table(visit: Visit, measures: MeasureSpec | None, notes: list[str], number: int) -> pd.DataFrame:
    """Measure one visit, with what a person said of its lesions."""
    table = measure(visit.lesions, visit.image, measures)
    notes += [f"visit {number}: {note}" for note in table.attrs["notes"]]
    for name, values in recorded(visit.lesions).drop(columns="id").items():
        table[_OF_FILE + str(name)] = values.astype(object).where(values.astype(bool))  # empty cells say nothing
    if visit.said is None:
        return table
    said = visit.said.set_index("id")
    if strange := sorted(set(said.index.tolist()) - set(table["id"].tolist())):
        raise InputError(f"There is no lesion {strange[0]} at {visit.name}, of which the table says something.")
    for name in SAID:
        if name in said:
            table[name] = table["id"].map(said[name])
    return table


def bodies_of(lesions: Instances, alignment: Alignment) -> list[Body]:
    """Return each instance as points in the baseline's world, in the order of the table."""
    grid = lesions.grid
    parts = [max(1, int(np.ceil(s / _POINT))) for s in grid.spacing]
    inner = np.stack(np.meshgrid(*[(np.arange(p) + 0.5) / p - 0.5 for p in parts], indexing="ij"), -1).reshape(-1, 3)
    out = []
    for start, mask in masks(lesions):
        index = (np.argwhere(mask) + start)[:, None] + inner
        points: Points = grid.to_world(index.reshape(-1, 3))
        out.append(Body(alignment(points), float(mask.sum()) * grid.voxel_size))
    return out


def _visit(
    number: int,
    visit: Visit,
    table: pd.DataFrame,
    bodies: list[Body],
    lesions: list[_Lesion],
    rows: list[dict[str, Any]],
    spec: FollowSpec,
) -> dict[int, _Lesion]:
    """Match one visit's lesions with those known so far, and write a row for each; return the lesion of each id."""
    known = [one for one in lesions if not one.into]
    found = links([one.body for one in known], bodies, spec.overlap, spec.tolerance)
    ids, owner = table["id"].to_numpy(), dict[int, _Lesion]()
    origins = {b: [known[a] for a, other in found if other == b] for b in {b for _, b in found}}
    children = {a: [b for one, b in found if one == a] for a in {a for a, _ in found}}
    for a, kin in children.items():
        if len(kin) > 1:  # it split: the largest piece goes on under its name
            largest = max(kin, key=lambda b: bodies[b].volume)
            for b in kin:
                origins[b] = [known[a]] if b == largest else []
                if b != largest:
                    new = _begin(number, visit, b, bodies, lesions, known[a].number)
                    owner[int(ids[b])] = new
                    rows.append(_row(new, number, "split", int(ids[b]), None))
            rows.append(
                _go_on(
                    known[a],
                    number,
                    int(ids[largest]),
                    bodies[largest],
                    spec,
                    "split",
                    sum(bodies[b].volume for b in kin),
                )
            )
            owner[int(ids[largest])] = known[a]
    for b, parents in origins.items():
        if int(ids[b]) in owner:
            continue
        main = max(parents, key=lambda one: (one.present, one.volume))
        gone = [one for one in parents if one is not main and one.present]
        for one in gone:
            one.into, one.present = main.number, False
            rows.append(_row(one, number, "merged", 0, -100.0))
        total = sum(one.volume for one in (main, *gone))
        rows.append(
            _go_on(main, number, int(ids[b]), bodies[b], spec, "merged" if gone else "", bodies[b].volume, total)
        )
        owner[int(ids[b])] = main
    for b in range(len(bodies)):
        if int(ids[b]) not in owner:
            new = _begin(number, visit, b, bodies, lesions, 0)
            owner[int(ids[b])] = new
            rows.append(_row(new, number, "new" if number else "baseline", int(ids[b]), None))
    seen = {one.number for one in owner.values()}
    for one in lesions:
        if one.number not in seen and not one.into:
            change = -100.0 if one.present else None
            one.present, one.volume = False, 0.0
            rows.append(_row(one, number, "resolved", 0, change))
    return owner


def _begin(number: int, visit: Visit, b: int, bodies: list[Body], lesions: list[_Lesion], origin: int) -> _Lesion:
    """Begin the course of a lesion: its UID is the one it has, else made of what does not depend on the order of files."""
    id = int(visit.lesions.table["id"].iloc[b])
    had = str(of_each(visit.lesions.provenance).get(id, {}).get("tracking_uid") or "")
    source = visit.image.source.content_hash() if visit.image.source else ""
    place = np.round(bodies[b].points.mean(0), 3).tolist()
    uid = had or uid_from("followed", source, visit.date, place)
    taken = {one.uid for one in lesions}
    one = _Lesion(
        len(lesions) + 1, uid if uid not in taken else uid_from(uid, id, number), bodies[b], True,
        bodies[b].volume, bodies[b].volume, origin,
    )  # fmt: skip
    lesions.append(one)
    return one


def _go_on(
    one: _Lesion,
    number: int,
    id: int,
    body: Body,
    spec: FollowSpec,
    how: str,
    volume: float,
    before: float | None = None,
) -> dict[str, Any]:
    """Write the row of a lesion that is seen again. `volume` is all that became of it, `before` all that went into it."""
    was = one.volume if before is None else before
    change = (volume / was - 1) * 100 if one.present and was > 0 else None
    state = how or ("returned" if change is None else _change(change, spec))
    one.body, one.volume, one.present = body, body.volume, True
    return _row(one, number, state, id, change)


def _change(percent: float, spec: FollowSpec) -> str:
    """Grown, shrunk or stable; what is a rise of 20 % one way is a fall of 16.7 % the other way."""
    factor = 1 + spec.change / 100
    return "grown" if 1 + percent / 100 >= factor else "shrunk" if 1 + percent / 100 <= 1 / factor else "stable"


def _row(one: _Lesion, number: int, state: str, id: int, change: float | None) -> dict[str, Any]:
    return {
        "lesion": one.number,
        "tracking_uid": one.uid,
        "visit": number,
        "state": state,
        "into": one.into,
        "origin": one.origin,
        "id": id,
        "change_pct": np.nan if change is None else change,
    }


def _ledger(rows: list[dict[str, Any]], visits: Sequence[Visit], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    columns = ["lesion", "tracking_uid", "visit", "name", "date", "day", "state", "into", "origin", "id", "change_pct"]
    out = pd.DataFrame(rows, columns=[c for c in columns if c not in ("name", "date", "day")])
    out = out.astype(dict.fromkeys(("lesion", "visit", "into", "origin", "id"), np.int32) | {"change_pct": np.float64})
    every = pd.concat([table.assign(visit=k) for k, table in enumerate(tables)], ignore_index=True)
    out = out.merge(every.drop(columns=["class"], errors="ignore"), on=["visit", "id"], how="left")
    out = out.sort_values(["lesion", "visit"], kind="stable", ignore_index=True)
    gone = out["id"].to_numpy() == 0
    for name in ("volume_ml", "volume_mm3", "voxels", "long_axis_mm", "short_axis_mm"):
        if name in out:
            out.loc[gone, name] = 0
    for name in SAID:  # what was said first stays with the lesion; a person's word counts more than a file's
        told = [out.groupby("lesion")[column].transform("first") for column in (name, _OF_FILE + name) if column in out]
        if told:
            out[name] = told[0].where(told[0].notna(), told[-1])
    out = out.drop(columns=[_OF_FILE + name for name in SAID], errors="ignore")
    out["baseline_pct"] = _since_first(out)
    if "nodal" in out:
        out["nodal"] = out["nodal"].map(lambda v: bool(v) if pd.notna(v) else False)
        if "measurable" in out:
            nodes = out["nodal"].to_numpy(bool) & out["measurable"].notna().to_numpy()
            out.loc[nodes, "measurable"] = out.loc[nodes, "short_axis_mm"] >= NODE
    out["counts_mm"] = measured(out)
    dates = pd.to_datetime(pd.Series([v.date or None for v in visits]))
    days = (dates - dates.iloc[0]).dt.days if dates.notna().all() else pd.Series([np.nan] * len(visits))
    out["name"], out["date"] = out["visit"].map(lambda k: visits[k].name), out["visit"].map(lambda k: visits[k].date)
    out["day"] = out["visit"].map(days).astype("Int64")
    return out[
        [
            *columns,
            "baseline_pct",
            "counts_mm",
            *[c for c in out if c not in columns and c not in ("baseline_pct", "counts_mm")],
        ]
    ]


def _since_first(ledger: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Change of volume since the first visit in %: of what merged or split, of all of it, on the row of the lesion that goes on."""
    head = {int(n): int(n) for n in ledger["lesion"]}
    for name in ("origin", "into"):
        for n, other in ledger.loc[ledger[name] > 0, ["lesion", name]].itertuples(index=False):
            head[int(n)] = int(other)

    def root(n: int) -> int:
        while head[n] != n:
            n = head[n]
        return n

    family = np.array([root(int(n)) for n in ledger["lesion"]], dtype=int)
    volume = pd.Series(ledger["volume_mm3"].to_numpy(np.float64))
    total = volume.groupby([family, ledger["visit"].to_numpy()]).transform("sum").to_numpy()
    began = (ledger.groupby("lesion").cumcount() == 0) & (ledger["origin"] == 0)
    first = volume.where(began.to_numpy(), 0.0).groupby(family).transform("sum").to_numpy()
    shown = (family == ledger["lesion"].to_numpy()) & (ledger.groupby("lesion").cumcount() > 0).to_numpy()
    return np.where(shown & (first > 0), (total / np.maximum(first, 1e-9) - 1) * 100, np.nan)


def _tracked(visit: Visit, owner: dict[int, _Lesion]) -> Visit:
    """Number the instances as their lesions are, and put Tracking UIDs where SEG, RTSTRUCT and SR look for them."""
    lesions = visit.lesions
    had = of_each(lesions.provenance)
    ids = lesions.table["id"].tolist()
    table = np.zeros(max(ids, default=0) + 1, np.int32)
    table[ids] = [owner[id].number for id in ids]
    order = sorted(range(len(ids)), key=lambda k: owner[ids[k]].number)
    segments: list[dict[str, object]] = []
    for k in order:
        one = owner[ids[k]]
        told = {"id": one.number, "label": f"lesion {one.number}", "tracking_id": f"lesion {one.number}"}
        segments.append({**had.get(ids[k], {}), **told, "tracking_uid": one.uid})
    number = {name: i for i, name in enumerate(lesions.classes, 1)}
    record = {key: value for key, value in lesions.provenance.items() if key != "relabelled_from"}
    numbered = Instances.from_labels(
        table[lesions.labels],
        lesions.grid,
        scores=lesions.table["score"].to_numpy()[order],
        class_ids=[number[name] for name in lesions.table["class"].iloc[order]],
        classes=lesions.classes,
        provenance={**record, "segments": segments},
    )
    return replace(visit, lesions=numbered)
