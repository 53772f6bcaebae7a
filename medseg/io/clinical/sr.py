"""Measurement reports: DICOM SR by TID 1500, with one TID 1411 group for each instance. Written by highdicom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset

from medseg.errors import FormatError, InputError, MedsegWarning
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.codes import (
    ABSENT,
    BASELINE,
    IMAGING,
    LYMPH_NODE,
    MEASURES,
    PROCEDURES,
    ROLES,
    Measure,
    role_of,
)
from medseg.io.clinical.deidentifier import mark
from medseg.io.clinical.objects import SEG, SR, opened
from medseg.io.clinical.segments import Segment, describe, placed
from medseg.io.clinical.segread import code_of
from medseg.io.clinical.segwrite import concept
from medseg.io.clinical.study import MAKER, SERIES_NUMBER, Study, building, on_slices, study_of, write
from medseg.io.common import reading
from medseg.io.dicom.pixels import quiet
from medseg.spec import FindingSpec

# Concepts of a report: code and scheme, as a code of another scheme is another thing.
_GROUP, _TRACKING, _TRACKING_UID = ("125007", "DCM"), ("112039", "DCM"), ("112040", "DCM")
_FINDING, _SITE, _CATEGORY = ("121071", "DCM"), ("363698007", "SCT"), ("276214006", "SCT")
_SERIES, _DERIVATION = ("121232", "DCM"), ("121401", "DCM")
_FIXED = ("tracking_id", "tracking_uid", "finding", "finding_meaning", "site", "site_meaning", "segmentation_uid",
          "segment", "source_series_uid")  # fmt: skip


AXES = ("long_axis_mm", "short_axis_mm")
ENDS = tuple(f"{axis[:-3]}_{end}_{x}_mm" for axis in AXES for end in "ab" for x in "xyz")  # columns of `medseg.measure`


def save(
    instances: Instances,
    path: Path,
    image: Image,
    segmentation: Path | None,
    finding: FindingSpec | None,
    measures: pd.DataFrame | None,
    anonymous: bool,
) -> None:
    """Write a report; see `medseg.io.save_report`."""
    study = study_of(image, "DICOM SR", anonymous)
    found = placed(instances, image.grid)
    segments = describe(found, image, study, finding)
    if segments and segmentation is None:
        raise InputError("A report refers to its segments: write the SEG first (save_seg) and give its path.")
    seg = _segmentation(segmentation, segments, study) if segments and segmentation else None
    drawn = [] if measures is None else [name for name in measures.columns if str(name) in ENDS]
    values = _values(found, None if measures is None else measures.drop(columns=drawn))
    with building(path), quiet():
        axes = _axes(found, study, measures) if len(drawn) == len(ENDS) else [{} for _ in segments]
        dataset = _build(study, segments, seg, values, axes, finding or FindingSpec())
    write(dataset, path)


def _segmentation(path: Path, segments: list[Segment], study: Study) -> Dataset:
    """Return the SEG of a report, after checking that it holds these instances of this series."""
    dataset = opened(path, SEG, "DICOM SEG")
    with reading(path, "DICOM SEG"), quiet():
        told = {
            int(one.SegmentNumber): str(one.get("TrackingUID") or "")
            for one in dataset.SegmentSequence
            if int(one.SegmentNumber) > 0  # 0 is the background of a label map
        }
        study_uid = str(dataset.StudyInstanceUID)
        series = {str(one.SeriesInstanceUID) for one in dataset.get("ReferencedSeriesSequence") or ()}
        del dataset.PixelData
    if study_uid != str(study.first.StudyInstanceUID):
        raise InputError(
            f"{path.name} is of another study than the image, or only one of the two is de-identified; write both with "
            "the same deidentify option."
        )
    if series and str(study.first.SeriesInstanceUID) not in series:
        raise InputError(f"{path.name} was drawn on another series than the image; give the one it refers to.")
    if told != {one.number: one.tracking_uid for one in segments}:
        raise InputError(f"{path.name} holds other segments than these instances; write it again from them.")
    return dataset


def _values(instances: Instances, measures: pd.DataFrame | None) -> list[dict[str, float]]:
    """Return the measurements of each instance, by column name: volume, then those given that are finite."""
    ids = instances.table["id"].tolist()
    rows: list[dict[str, float]] = [{"volume_mm3": float(value)} for value in instances.table["volume_mm3"]]
    if measures is None:
        return rows
    if "id" not in measures or not measures["id"].is_unique:
        raise InputError("The table of measures needs a column id that names each instance once.")
    columns = [str(name) for name in measures.columns if name != "id"]
    if unknown := [name for name in columns if name not in MEASURES]:
        raise InputError(f"Columns {', '.join(unknown)} have no code; give those of {', '.join(MEASURES)}.")
    given = measures.set_index("id")
    for row, id in zip(rows, ids, strict=True):
        if id in given.index:
            found = {name: float(given[name][id]) for name in columns}
            row |= {name: value for name, value in found.items() if np.isfinite(value)}
    return rows


def _axes(instances: Instances, study: Study, measures: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return, for each instance, the line of each axis on the slice of the source that it lies on; none where it lies on no slice.

    Points of an image are (column, row) from the outer corner of its first pixel (PS3.3 C.10.5.1.2).
    """
    import highdicom as hd

    given = {} if measures is None else measures.set_index("id").to_dict("index")
    slices = on_slices(instances.grid, study)
    out: list[dict[str, Any]] = []
    for id in instances.table["id"].tolist():
        found: dict[str, Any] = {}
        for axis in AXES:
            row = given.get(id, {})
            ends = np.array(
                [[row.get(f"{axis[:-3]}_{end}_{x}_mm", np.nan) for x in "xyz"] for end in "ab"], dtype=np.float64
            )
            if not np.isfinite(ends).all():
                continue
            index = instances.grid.to_index(ends)
            number = round(float(index[:, 0].mean()))
            if np.abs(index[:, 0] - number).max() > 0.05 or not 0 <= number < len(slices):
                continue
            source = slices[number]
            if source is not None:
                named = source.named()
                found[axis] = hd.sr.CoordinatesForMeasurement(
                    graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
                    graphic_data=index[:, [2, 1]] + 0.5,
                    source_image=hd.sr.SourceImageForRegion(
                        named.ReferencedSOPClassUID,
                        named.ReferencedSOPInstanceUID,
                        [source.frame] if source.frame is not None else None,
                    ),
                )
        out.append(found)
    return out


def _build(
    study: Study,
    segments: list[Segment],
    seg: Dataset | None,
    values: list[dict[str, float]],
    axes: list[dict[str, Any]],
    spec: FindingSpec,
) -> Dataset:
    """Return the report."""
    import highdicom as hd

    key = (json.dumps([vars(one) for one in segments]), json.dumps(values), str(seg.SOPInstanceUID) if seg else "")
    groups: list[Any] = [_none_found(study, spec)] if seg is None else []
    if seg is not None:
        groups += [_group(one, row, seg, study) for one, row in zip(segments, values, strict=True)]
        lines = zip(segments, values, axes, strict=True)
        groups += [_drawn(one, row, ends) for one, row, ends in lines if ends]
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=study.uid("observer"), name="medseg", manufacturer_name="medseg", model_name="medseg"
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(
                observer_type=concept(("121007", "DCM", "Device")), observer_identifying_attributes=device
            )
        ),
        procedure_reported=concept(PROCEDURES.get(str(study.first.get("Modality")), IMAGING)),
        imaging_measurements=groups,
    )
    dataset: Dataset = hd.sr.ComprehensiveSR(
        evidence=[*([seg] if seg else []), *study.slices],
        content=report[0],
        series_instance_uid=study.uid("sr series", *key),
        series_number=SERIES_NUMBER + 2,
        sop_instance_uid=study.uid("sr", *key),
        **MAKER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="Measurements by medseg",
        content_date=study.day,
        content_time=study.time,
    )
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = study.day, study.time
    for item in dataset.get("ContributingEquipmentSequence") or ():
        if "ContributionDateTime" in item:
            item.ContributionDateTime = f"{study.day:%Y%m%d}{study.time:%H%M%S}"
    if study.anonymous:
        mark(dataset)
    return dataset


def _group(segment: Segment, values: Mapping[str, float], seg: Dataset, study: Study) -> Any:
    """Return the measurement group of one instance."""
    import highdicom as hd

    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=segment.number,
            source_series=hd.sr.SourceSeriesForSegmentation(study.first.SeriesInstanceUID),
        ),
        finding_type=concept(segment.type),
        finding_category=concept(segment.category),
        finding_sites=[hd.sr.FindingSite(concept(site)) for site in segment.sites] or None,
        qualitative_evaluations=_role(segment),
        algorithm_id=_algorithm(segment),
        measurements=[_measurement(MEASURES[name], value) for name, value in values.items()],
    )


def _role(segment: Segment) -> list[Any] | None:
    """Return what RECIST has the lesion for, as an answer to the baseline category."""
    import highdicom as hd

    if not segment.role:
        return None
    return [hd.sr.QualitativeEvaluation(name=concept(BASELINE), value=concept(ROLES[segment.role]))]


def _drawn(segment: Segment, values: Mapping[str, float], axes: Mapping[str, Any]) -> Any:
    """Return a second group of an instance that shows its axes: TID 1411 has no place for lines, TID 1501 has."""
    import highdicom as hd

    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id),
        finding_type=concept(segment.type),
        finding_category=concept(segment.category),
        finding_sites=[hd.sr.FindingSite(concept(site)) for site in segment.sites] or None,
        measurements=[
            _measurement(MEASURES[name], values[name], line) for name, line in axes.items() if name in values
        ],
    )


def _none_found(study: Study, spec: FindingSpec) -> Any:
    """Return the group that says that the findings looked for are absent."""
    import highdicom as hd

    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=study.uid("none found"), identifier="none found"),
        finding_category=concept(spec.category),
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=concept(spec.type), value=concept(ABSENT))],
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(study.first)],
    )


def _algorithm(segment: Segment) -> Any:
    """Return what drew the segment, or None for a person."""
    import highdicom as hd

    if not segment.algorithm:
        return None
    return hd.sr.AlgorithmIdentification(name=segment.algorithm, version=segment.version)


def _measurement(measure: Measure, value: float, line: Any = None) -> Any:
    import highdicom as hd

    return hd.sr.Measurement(
        name=concept(measure.name),
        value=float(f"{value:.9g}"),  # a decimal string holds 16 characters
        unit=concept(measure.unit),
        derivation=concept(measure.derivation) if measure.derivation else None,
        referenced_coordinates=[line] if line is not None else None,
    )


def read(path: Path) -> pd.DataFrame:
    """Read the measurement groups of a report; see `medseg.io.load_report`."""
    dataset = opened(path, SR, "structured report")
    with reading(path, "DICOM SR"), quiet():
        if not dataset.get("ContentSequence"):
            raise FormatError(f"{path.name} is a report without content.")
        groups = [_entries(group) for group in _groups(dataset.ContentSequence) if not _says_absent(group)]
        groups = [one for i, one in enumerate(groups) if not any(_repeats(one, other) for other in groups[:i])]
    rows = [_row(entries) for entries in groups]
    if several := sum(len(row) > len(dict(entries)) for row, entries in zip(rows, groups, strict=True)):
        warn(f"{several} measurement groups hold several values of one kind: those after the first are in columns of "
             "their own, whose names end in _2 and so on.", MedsegWarning, stacklevel=3)  # fmt: skip
    found = list(dict.fromkeys(name for row in rows for name in row if name not in _FIXED))
    return pd.DataFrame(rows, columns=[*_FIXED, *found])


def _groups(items: Any) -> Iterator[Dataset]:
    """Give the measurement groups below some content items, in order."""
    for item in items:
        inner = item.get("ContentSequence") or ()
        if item.get("ValueType") == "CONTAINER" and _name(item)[:2] == _GROUP:
            yield item
        elif inner:
            yield from _groups(inner)


def _says_absent(group: Dataset) -> bool:
    """Whether a group says that nothing was found: it measures nothing, refers to no segment, and what it asks is absent.

    A group that measures may say that something about its finding is absent, such as necrosis.
    """
    entries = _entries(group)
    answers = [
        code_of(item.get("ConceptCodeSequence")) or ("", "")
        for item in group.get("ContentSequence") or ()
        if item.get("ValueType") == "CODE" and _name(item)[:2] not in (_FINDING, _SITE, _CATEGORY)
    ]
    measured = any(item.get("ValueType") == "NUM" for item in group.get("ContentSequence") or ())
    absent = bool(answers) and all(answer[:2] == ABSENT[:2] for answer in answers)
    return absent and not measured and "segment" not in dict(entries)


def _repeats(entries: list[tuple[str, Any]], before: list[tuple[str, Any]]) -> bool:
    """Whether a group says nothing of an object that an earlier group of the same one, which has a segment, does not say too."""
    one, two = dict(entries), dict(before)
    same = bool(one.get("tracking_uid")) and one["tracking_uid"] == two.get("tracking_uid")
    return same and "segment" not in one and "segment" in two and all(entry in before for entry in entries)


def _row(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return one group as a row of the table; a second value for a column has one of its own."""
    row: dict[str, Any] = {}
    for column, value in entries:
        name, count = column, 1
        while name in row:
            count += 1
            name = f"{column}_{count}"
        row[name] = value
    return row


def _entries(group: Dataset) -> list[tuple[str, Any]]:
    """Return what one group says, by column name, in order."""
    found: list[tuple[str, Any]] = []
    for item in group.get("ContentSequence") or ():
        kind, name = str(item.get("ValueType")), _name(item)
        if name[:2] == _TRACKING:
            found.append(("tracking_id", str(item.get("TextValue") or "")))
        elif name[:2] == _TRACKING_UID:
            found.append(("tracking_uid", str(item.get("UID") or "")))
        elif name[:2] in (_FINDING, _SITE) and kind == "CODE":
            what = "finding" if name[:2] == _FINDING else "site"
            code = code_of(item.get("ConceptCodeSequence")) or ("", "", "")
            if what == "site" and code[:2] == LYMPH_NODE[:2]:
                found.append(("nodal", True))
                if "site" in dict(found):  # that of an organ came before
                    continue
            found += [(what, code[0]), (f"{what}_meaning", code[2])]
        elif kind == "CODE" and name[:2] != _CATEGORY:  # a qualitative evaluation, or how something was measured
            answer = code_of(item.get("ConceptCodeSequence")) or ("", "", "")
            if name[:2] == BASELINE[:2] and role_of(answer):
                found.append(("role", role_of(answer)))
                continue
            found.append((name[2] or name[0], answer[2] or answer[0]))
        elif kind == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]:
            target = item.ReferencedSOPSequence[0]
            found.append(("segmentation_uid", str(target.ReferencedSOPInstanceUID)))
            found.append(("segment", int(np.atleast_1d(target.ReferencedSegmentNumber)[0])))
        elif kind == "UIDREF" and name[:2] == _SERIES:
            found.append(("source_series_uid", str(item.get("UID") or "")))
        elif kind == "NUM" and item.get("MeasuredValueSequence"):
            found.append(_measured(item))
    return found


def _measured(item: Dataset) -> tuple[str, float]:
    """Return column name and value of a NUM item: a name of `codes.MEASURES`, else meaning, derivation and unit."""
    measured = item.MeasuredValueSequence[0]
    unit = code_of(measured.get("MeasurementUnitsCodeSequence")) or ("", "", "")
    value = float(measured.NumericValue)
    name, derivation = _name(item), None
    for inner in item.get("ContentSequence") or ():
        if _name(inner)[:2] == _DERIVATION:
            derivation = code_of(inner.get("ConceptCodeSequence"))
    for column, known in MEASURES.items():
        how = known.derivation[:2] if known.derivation else None
        if (known.name[:2], known.unit[:2], how) == (name[:2], unit[:2], derivation[:2] if derivation else None):
            return column, value
    return "_".join(part.strip() for part in (name[2], derivation[2] if derivation else "", unit[0]) if part), value


def _name(item: Dataset) -> tuple[str, str, str]:
    return code_of(item.get("ConceptNameCodeSequence")) or ("", "", "")
