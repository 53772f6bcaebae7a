"""Write RT Structure Sets (PS3.3 A.19) with pydicom: one structure for each instance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ImplicitVRLittleEndian

from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.codes import Code
from medseg.io.clinical.deidentifier import VERSION, mark
from medseg.io.clinical.objects import RTSTRUCT
from medseg.io.clinical.rtread import contour_text, to_lps
from medseg.io.clinical.segments import Segment, describe, need_some, placed
from medseg.io.clinical.study import SERIES_NUMBER, SourceSlice, Study, building, on_slices, study_of, write
from medseg.io.dicom.pixels import quiet
from medseg.ops.contours import outlines
from medseg.spec import FindingSpec

_LABEL = "medseg"
_DATA = BaseTag(0x30060050)  # ContourData
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, which the reference to a study still names
# The patient, study and patient study modules (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2) as far as sources fill them.
_COPIED = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate",
    "PatientSex", "OtherPatientIDsSequence", "PatientBirthTime", "EthnicGroup", "PatientComments",
    "PatientSpeciesDescription", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "IssuerOfAccessionNumberSequence", "StudyDescription", "PatientAge", "PatientSize",
    "PatientWeight", "LongitudinalTemporalInformationModified",
)  # fmt: skip


def save(instances: Instances, path: Path, image: Image, finding: FindingSpec | None, anonymous: bool) -> None:
    """Write instances as RTSTRUCT; see `medseg.io.save_rtstruct`."""
    study = study_of(image, "RTSTRUCT", anonymous)
    found = placed(instances, image.grid)
    segments = describe(found, image, study, finding)
    need_some(segments, "RTSTRUCT")
    with building(path), quiet():
        dataset = _build(found, study, segments, finding or FindingSpec())
    write(dataset, path)


def _build(instances: Instances, study: Study, segments: list[Segment], finding: FindingSpec) -> FileDataset:
    key = (instances.labels.tobytes(), instances.grid.affine.tobytes(), json.dumps([vars(one) for one in segments]),
           finding.roi_type)  # fmt: skip
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian  # with explicit types a contour may not be longer than 64 KB
    meta.MediaStorageSOPClassUID = UID(RTSTRUCT[0])
    meta.MediaStorageSOPInstanceUID = UID(study.uid("rtstruct", *key))
    out = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    for keyword in _COPIED:
        if keyword in study.first:
            out[keyword] = study.first[keyword]
    out.SOPClassUID, out.SOPInstanceUID = RTSTRUCT[0], meta.MediaStorageSOPInstanceUID
    out.InstanceCreationDate, out.InstanceCreationTime = study.day, study.time
    out.Modality, out.SeriesNumber, out.InstanceNumber = "RTSTRUCT", SERIES_NUMBER + 1, 1
    out.SeriesInstanceUID = study.uid("rtstruct series", *key)
    out.SeriesDescription, out.OperatorsName = "Structures by medseg", ""
    out.Manufacturer = out.ManufacturerModelName = "medseg"
    out.SoftwareVersions = VERSION
    out.FrameOfReferenceUID, out.PositionReferenceIndicator = study.frame, ""
    out.StructureSetLabel, out.StructureSetDate, out.StructureSetTime = _LABEL, study.day, study.time
    out.ApprovalStatus = "UNAPPROVED"
    out.ReferencedFrameOfReferenceSequence = [_reference(study)]
    sources = on_slices(instances.grid, study)
    contours = [_contours(instances, one, sources) for one in segments]
    out.StructureSetROISequence = [_structure(one, study, instances) for one in segments]
    out.ROIContourSequence = contours
    out.RTROIObservationsSequence = [_observation(one, finding) for one in segments]
    if study.anonymous:
        mark(out)
    return out


def _reference(study: Study) -> Dataset:
    """Return the reference to the frame of reference, study, series and every slice."""
    series, whole, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = study.first.SeriesInstanceUID
    series.ContourImageSequence = [SourceSlice(one).named() for one in study.slices]
    whole.ReferencedSOPClassUID, whole.ReferencedSOPInstanceUID = _STUDY_CLASS, study.first.StudyInstanceUID
    whole.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = study.frame, [whole]
    return frame


def _structure(segment: Segment, study: Study, instances: Instances) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ReferencedFrameOfReferenceUID = segment.number, study.frame
    item.ROIName = segment.label[:64]
    item.ROIGenerationAlgorithm = segment.algorithm_type
    item.ROIVolume = f"{instances.table['volume_mm3'].iloc[segment.number - 1] / 1000:.6g}"  # cm3
    if segment.algorithm:
        item.ROIGenerationDescription = f"{segment.algorithm} {segment.version}"[:64]
    # Not part of the module, which PS3.2 allows (Standard Extended SOP Class): nothing in it follows an object in time.
    item.TrackingID, item.TrackingUID = segment.tracking_id, segment.tracking_uid
    return item


def _contours(instances: Instances, segment: Segment, sources: list[SourceSlice | None]) -> Dataset:
    """Return the contours of one instance, slice by slice."""
    matrix = to_lps(instances.grid)
    row = instances.table.iloc[segment.number - 1]
    box = [slice(int(row[f"box_{axis}_start"]), int(row[f"box_{axis}_stop"])) for axis in instances.grid.axes]
    mask = instances.labels[tuple(box)] == segment.id
    corner = np.array([box[1].start, box[2].start])
    contours: list[Dataset] = []
    for depth in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        z = depth + box[0].start
        source = sources[z]
        for polygon in outlines(mask[depth]):
            item = Dataset()
            if source is not None:
                item.ContourImageSequence = [source.named()]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(polygon)
            item.ContourNumber = len(contours) + 1
            item[_DATA] = _raw(contour_text(polygon + corner, z, matrix))
            contours.append(item)
    out = Dataset()
    out.ROIDisplayColor = list(segment.rgb)
    out.ReferencedROINumber, out.ContourSequence = segment.number, contours
    return out


def _raw(texts: list[str]) -> RawDataElement:
    """Return contour data as they will stand in the file: pydicom would make an object of each number."""
    data = "\\".join(texts).encode()
    data += b" " * (len(data) % 2)
    return RawDataElement(_DATA, "DS", len(data), data, 0, True, True)


def _observation(segment: Segment, finding: FindingSpec) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = segment.number
    item.RTROIIdentificationCodeSequence = [_coded(segment.type)]
    item.RTROIInterpretedType, item.ROIInterpreter = finding.roi_type, ""
    return item


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item
