"""Write DICOM Segmentations (SEG), BINARY or LABELMAP, through highdicom. Reading is in `segread`.

Each instance is one segment. The planes are those of the image's own grid; where they are those of the source slices,
each frame names its slice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medseg.errors import InputError, OutputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.codes import ARTIFICIAL_INTELLIGENCE, ROLES, Code
from medseg.io.clinical.deidentifier import mark
from medseg.io.clinical.segments import Segment, describe, need_some, placed
from medseg.io.clinical.study import (
    MAKER,
    SERIES_NUMBER,
    SourceSlice,
    Study,
    building,
    on_slices,
    study_of,
    write,
)
from medseg.io.dicom.pixels import quiet
from medseg.ops import labels as ops
from medseg.spec import FindingSpec

DESCRIPTION = "Segmentation by medseg"


def save(
    instances: Instances,
    path: Path,
    image: Image,
    kind: Literal["binary", "labelmap"],
    finding: FindingSpec | None,
    anonymous: bool,
) -> None:
    """Write instances as DICOM SEG; see `medseg.io.save_seg`."""
    if kind not in ("binary", "labelmap"):
        raise InputError(f"Kind {kind!r} is not known; use binary or labelmap.")
    study = study_of(image, "DICOM SEG", anonymous)
    if int(study.first.get("NumberOfFrames") or 1) > 1 and "PerFrameFunctionalGroupsSequence" not in study.first:
        raise InputError(
            "The source is a multi-frame file without functional groups (such as RT dose), to which DICOM SEG cannot "
            "refer; write an RTSTRUCT or NIfTI."
        )
    found = placed(instances, image.grid)
    segments = describe(found, image, study, finding)
    need_some(segments, "DICOM SEG")
    if len(segments) > np.iinfo(np.uint16).max:
        raise OutputError(f"{path.name}: {len(segments)} instances do not fit DICOM SEG (65,535); write NIfTI or zarr.")
    with building(path), quiet():
        dataset = _build(ops.dense(found.labels)[1].astype(np.uint16), image.grid, study, segments, kind)
        if not dataset.PerFrameFunctionalGroupsSequence[0].get("DerivationImageSequence"):
            _name_sources(dataset, image.grid, study)
    write(dataset, path)


def _build(numbers: npt.NDArray[np.uint16], grid: Grid, study: Study, segments: list[Segment], kind: str) -> Dataset:
    """Return the data set for segment numbers (slices, rows, columns)."""
    import highdicom as hd

    geometry = grid.to_dicom()
    key = (kind, numbers.tobytes(), grid.affine.tobytes(), json.dumps([vars(one) for one in segments]))
    dataset: Dataset = hd.seg.Segmentation(
        source_images=study.slices,
        pixel_array=numbers,
        segmentation_type=kind.upper(),
        segment_descriptions=[_description(one) for one in segments],
        series_instance_uid=study.uid("seg series", *key),
        series_number=SERIES_NUMBER,
        sop_instance_uid=study.uid("seg", *key),
        **MAKER,
        content_label="MEDSEG",
        content_description=DESCRIPTION,
        content_creator_name="medseg^",
        transfer_syntax_uid=RLELossless if kind == "labelmap" else ExplicitVRLittleEndian,
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=geometry["PixelSpacing"],
            slice_thickness=geometry["SpacingBetweenSlices"],
            spacing_between_slices=geometry["SpacingBetweenSlices"],
        ),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", geometry["ImageOrientationPatient"]),
        plane_positions=[hd.PlanePositionSequence("PATIENT", one) for one in geometry["ImagePositionPatient"]],
        series_description=DESCRIPTION,
        content_date=study.day,
        content_time=study.time,
    )
    _settle(dataset, study, key)
    return dataset


def _settle(dataset: Dataset, study: Study, key: tuple[object, ...]) -> None:
    """Take chance out of the data set: time of creation and random UIDs."""
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = study.day, study.time
    dimension = study.uid("dimension", *key)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension
    dataset.ContributingEquipmentSequence[-1].ContributionDateTime = f"{study.day:%Y%m%d}{study.time:%H%M%S}"
    if study.anonymous:
        mark(dataset)


def _description(segment: Segment) -> Any:
    """Return highdicom's description of one segment."""
    import highdicom as hd

    algorithm = None
    if segment.algorithm_type != "MANUAL":
        algorithm = hd.AlgorithmIdentificationSequence(
            name=segment.algorithm, family=concept(ARTIFICIAL_INTELLIGENCE), version=segment.version
        )
    described = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label[:64],
        segmented_property_category=concept(segment.category),
        segmented_property_type=concept(segment.type),
        algorithm_type=segment.algorithm_type,
        algorithm_identification=algorithm,
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        anatomic_regions=[concept(site) for site in segment.sites] or None,
        display_color=hd.color.CIELabColor.from_rgb(*segment.rgb),
    )
    if segment.role:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(ROLES[segment.role])]
    return described


def concept(code: Code) -> Any:
    """Return highdicom's form of a code."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code[0], scheme_designator=code[1], meaning=code[2])


def _name_sources(dataset: Dataset, grid: Grid, study: Study) -> None:
    """Name the source slice of each frame where slices jitter by more than highdicom allows."""
    sources = on_slices(grid, study)
    positions = np.array(grid.to_dicom()["ImagePositionPatient"])
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        where = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        source = sources[int(np.linalg.norm(positions - where, axis=1).argmin())]
        if source is not None:
            frame.DerivationImageSequence = [_derivation(source)]


def _derivation(source: SourceSlice) -> Dataset:
    """Return an item of the Derivation Image Sequence (PS3.3 C.7.6.16.2.6) for one source slice."""
    purpose, image, item = Dataset(), source.named(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    image.PurposeOfReferenceCodeSequence = [purpose]
    image.SpatialLocationsPreserved = "NO"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113076", "DCM", "Segmentation"
    item.DerivationCodeSequence, item.SourceImageSequence = [code], [image]
    return item
