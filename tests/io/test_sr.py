"""Measurement reports: what they say, what they refer to, and reading them back."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from source_study import DATA, FRAME, SECRETS, SERIES, STUDY, blobs, errors_of, needs_dciodvfy, real, slices

from medseg import io
from medseg.errors import FormatError, InputError, MedsegWarning, MissingError
from medseg.instances import Instances
from medseg.io.clinical.codes import MEASURES
from medseg.spec import FindingSpec

pytestmark = pytest.mark.usefixtures("fixed_time")


@pytest.fixture
def lesions(source):
    return Instances.from_labels(blobs(source.grid.shape, 4), source.grid, classes=("lesion",))


def items(dataset):
    """All content items, in order."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_round_trip(tmp_path, source, lesions, kind):
    finding = FindingSpec(site=("39607008", "SCT", "Lung"), type=("27925004", "SCT", "Nodule"))
    measures = pd.DataFrame({"id": lesions.table["id"], "hu_mean": [-1.5, np.nan, 3e-7, 12.25], "long_axis_mm": 7.0})
    io.save_seg(lesions, tmp_path / "seg.dcm", source, kind=kind, finding=finding)
    io.save_report(
        lesions, tmp_path / "sr.dcm", source, segmentation=tmp_path / "seg.dcm", finding=finding, measures=measures
    )
    table = io.load_report(tmp_path / "sr.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    segments = {int(one.SegmentNumber): one for one in seg.SegmentSequence}
    assert table["segment"].tolist() == [1, 2, 3, 4]
    assert table["tracking_uid"].tolist() == [segments[i].TrackingUID for i in table["segment"]]
    assert table["tracking_id"].tolist() == [segments[i].TrackingID for i in table["segment"]]
    assert set(table["segmentation_uid"]) == {seg.SOPInstanceUID} and set(table["source_series_uid"]) == {SERIES}
    assert set(table["finding"]) == {"27925004"} and set(table["site_meaning"]) == {"Lung"}
    assert np.allclose(table["volume_mm3"], lesions.table["volume_mm3"], rtol=1e-8)
    assert np.allclose(table["hu_mean"], measures["hu_mean"], equal_nan=True)
    assert (table["long_axis_mm"] == 7).all()


def test_what_the_file_says(tmp_path, source, lesions):
    io.save_seg(lesions, tmp_path / "seg.dcm", source)
    for name in ("a.dcm", "b.dcm"):
        io.save_report(lesions, tmp_path / name, source, segmentation=tmp_path / "seg.dcm")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    told = pydicom.dcmread(tmp_path / "a.dcm")
    assert (told.StudyInstanceUID, told.PatientID) == (STUDY, SECRETS["PatientID"])
    assert told.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = [one for one in items(told) if "ContentTemplateSequence" in one]
    assert [one.ContentTemplateSequence[0].TemplateIdentifier for one in groups] == ["1411"] * 4
    named = {
        one.ReferencedSOPInstanceUID
        for study in told.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    } | {
        one.ReferencedSOPInstanceUID
        for study in told.get("PertinentOtherEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert named == {pydicom.dcmread(file).SOPInstanceUID for file in (*source.source.files, tmp_path / "seg.dcm")}
    assert told.VerificationFlag == "UNVERIFIED"
    assert FRAME not in str(told.get("SeriesDescription")) and "planted" not in told.SeriesDescription


def test_nothing_found_is_a_report_too(tmp_path, source):
    none = Instances.from_labels(np.zeros(source.grid.shape, int), source.grid)
    io.save_report(none, tmp_path / "sr.dcm", source)
    assert len(io.load_report(tmp_path / "sr.dcm")) == 0
    told = pydicom.dcmread(tmp_path / "sr.dcm")
    assert "Absent" in [one.ConceptCodeSequence[0].CodeMeaning for one in items(told) if one.ValueType == "CODE"]


def edited(tmp_path, source, lesions, edit):
    """A report of which `edit(groups)` changed the measurement groups, as a table."""
    io.save_seg(lesions, tmp_path / "seg.dcm", source)
    io.save_report(lesions, tmp_path / "a.dcm", source, segmentation=tmp_path / "seg.dcm")
    told = pydicom.dcmread(tmp_path / "a.dcm")
    groups = [one for one in items(told) if "ContentTemplateSequence" in one]
    edit(groups)
    told.save_as(tmp_path / "a.dcm")
    return io.load_report(tmp_path / "a.dcm")


def coded(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def evaluation(name, value):
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "CODE"
    item.ConceptNameCodeSequence, item.ConceptCodeSequence = [coded(*name)], [coded(*value)]
    return item


NECROSIS, ABSENT = ("6574001", "SCT", "Necrosis"), ("2667000", "SCT", "Absent")


def test_a_group_that_measures_is_read_whatever_it_says_is_absent(tmp_path, source, lesions):
    def edit(groups):
        groups[0].ContentSequence.append(evaluation(NECROSIS, ABSENT))

    table = edited(tmp_path, source, lesions, edit)
    assert table["segment"].tolist() == [1, 2, 3, 4] and table["volume_mm3"].notna().all()
    assert table["Necrosis"].fillna("").tolist() == ["Absent", "", "", ""]


def number_of(group):
    return next(one for one in group.ContentSequence if one.ValueType == "NUM")


def test_a_second_value_of_a_kind_is_kept_and_told_of(tmp_path, source, lesions):
    def edit(groups):
        second = deepcopy(number_of(groups[1]))
        second.MeasuredValueSequence[0].NumericValue = "99999"
        groups[1].ContentSequence.append(second)
        groups[1].ContentSequence.append(evaluation(("363698007", "SCT", "Finding Site"), ("1", "99LOCAL", "here")))
        groups[1].ContentSequence.append(evaluation(("363698007", "SCT", "Finding Site"), ("2", "99LOCAL", "there")))

    with pytest.warns(MedsegWarning, match="several values"):
        table = edited(tmp_path, source, lesions, edit)
    assert np.allclose(table["volume_mm3"], lesions.table["volume_mm3"])
    assert table["volume_mm3_2"].tolist()[1] == 99999 and table["volume_mm3_2"].isna().sum() == 3
    assert (table["site_meaning"][1], table["site_meaning_2"][1]) == ("here", "there")


def test_a_code_counts_with_its_scheme(tmp_path, source, lesions):
    def edit(groups):
        local = deepcopy(number_of(groups[1]))
        local.MeasuredValueSequence[0].NumericValue = "99999"
        local.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99LOCAL"
        local.ConceptNameCodeSequence[0].CodeMeaning = "Something else"
        groups[1].ContentSequence.append(local)
        groups[1].ContentSequence.append(evaluation(("121071", "99LOCAL", "Local"), ("5", "99LOCAL", "five")))
        local = deepcopy(number_of(groups[2]))
        local.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodingSchemeDesignator = "99LOCAL"
        groups[2].ContentSequence.append(local)

    table = edited(tmp_path, source, lesions, edit)
    assert np.allclose(table["volume_mm3"], lesions.table["volume_mm3"])
    assert table["Something else_mm3"][1] == 99999 and table["Local"][1] == "five"
    assert set(table["finding"]) == {"52988006"} and table["Volume_mm3"].notna().sum() == 1


def test_refusals(tmp_path, source, lesions):
    with pytest.raises(InputError, match="write the SEG first"):
        io.save_report(lesions, tmp_path / "a.dcm", source)
    with pytest.raises(MissingError):
        io.save_report(lesions, tmp_path / "a.dcm", source, segmentation=tmp_path / "seg.dcm")
    io.save_seg(lesions, tmp_path / "seg.dcm", source)
    other = Instances.from_labels(blobs(source.grid.shape, 4, seed=5), source.grid)
    with pytest.raises(InputError, match="other segments"):
        io.save_report(other, tmp_path / "a.dcm", source, segmentation=tmp_path / "seg.dcm")
    with pytest.raises(InputError, match="de-identified"):
        io.save_report(lesions, tmp_path / "a.dcm", source, segmentation=tmp_path / "seg.dcm", deidentify=True)
    for table, match in (
        (pd.DataFrame({"hu_mean": [1]}), "column id"),
        (pd.DataFrame({"id": [1], "wobble": [1]}), "wobble have no code"),
    ):
        with pytest.raises(InputError, match=match):
            io.save_report(lesions, tmp_path / "a.dcm", source, segmentation=tmp_path / "seg.dcm", measures=table)
    with pytest.raises(FormatError, match="structured report"):
        io.load_report(tmp_path / "seg.dcm")


def test_codes_are_those_of_the_standard():
    """Each code is in pydicom's dictionary, but for units and those the dictionary lacks, which are named here."""
    from pydicom.sr._concepts_dict import concepts

    known = {(scheme, value) for scheme, names in concepts.items() for found in names.values() for value in found}
    used = {measure.name for measure in MEASURES.values()} | {m.derivation for m in MEASURES.values() if m.derivation}
    assert {code[:2] for code in used if (code[1], code[0]) not in known} <= {("L0JK", "IBSI")}
    assert codes.SCT.Lesion.value == FindingSpec().type[0]
    assert codes.SCT.MorphologicallyAbnormalStructure.value == FindingSpec().category[0]


@needs_dciodvfy
@pytest.mark.parametrize("deidentify", [False, True])
def test_dciodvfy_finds_no_error(tmp_path, source, lesions, deidentify):
    measures = pd.DataFrame({"id": lesions.table["id"], **{name: 1.5 for name in MEASURES if name != "volume_mm3"}})
    io.save_seg(lesions, tmp_path / "seg.dcm", source, deidentify=deidentify)
    io.save_report(
        lesions, tmp_path / "a.dcm", source, segmentation=tmp_path / "seg.dcm", measures=measures, deidentify=deidentify
    )
    none = Instances.from_labels(np.zeros(source.grid.shape, int), source.grid)
    io.save_report(none, tmp_path / "b.dcm", source, deidentify=deidentify)
    for name in ("a.dcm", "b.dcm"):
        assert errors_of(tmp_path / name) == []


@real
def test_foreign_reports_are_read_or_refused():
    hard = DATA / "dicom-hard"
    for name in ("transfer-syntaxes-cornerstone/no-pixel-data.dcm", "pydicom-test_files/reportsi.dcm",
                 "pydicom-test_files/test-SR.dcm", "pydicom-test_files/reportsi_with_empty_number_tags.dcm"):  # fmt: skip
        try:
            assert "tracking_uid" in io.load_report(hard / name).columns
        except FormatError as error:
            assert "\n" not in str(error)


def test_a_segmentation_of_another_series_is_refused(tmp_path, source, lesions):
    io.save_seg(lesions, tmp_path / "seg.dcm", source)
    for one in slices():
        one.SeriesInstanceUID = SERIES + "9"
        (tmp_path / "other").mkdir(exist_ok=True)
        one.save_as(tmp_path / "other" / f"{one.InstanceNumber}.dcm")
    other = io.load(tmp_path / "other")
    with pytest.raises(InputError, match="another series"):
        io.save_report(lesions, tmp_path / "a.dcm", other, segmentation=tmp_path / "seg.dcm")


def test_axes_are_drawn_on_their_slice(real_data, tmp_path):
    from medseg.export import save_case
    from medseg.measure import measure

    case = real_data / "lesions/lidc_0314"
    image = io.load(case / "dicom")
    nodule = io.load_labels(case / "consensus50_mask.nii.gz", like=image)
    save_case(nodule, image, tmp_path, "case", ["seg", "sr"])
    report = pydicom.dcmread(tmp_path / "case_sr.dcm")

    def below(item):
        for inner in item.get("ContentSequence") or ():
            yield inner
            yield from below(inner)

    lines = [item for item in below(report) if item.get("ValueType") == "SCOORD"]
    row = measure(nodule, image).iloc[0]
    slices = {pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID: f for f in image.source.files}
    assert [item.GraphicType for item in lines] == ["POLYLINE"] * 2
    for item, axis in zip(lines, ("long_axis", "short_axis"), strict=True):
        named = item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        header = pydicom.dcmread(slices[named], stop_before_pixels=True)
        ends = np.array(item.GraphicData, float).reshape(2, 2)
        down, across = header.PixelSpacing
        length = np.hypot(*((ends[1] - ends[0]) * [across, down]))
        assert length == pytest.approx(row[f"{axis}_mm"], abs=1e-3)
        # (column, row) to the patient by PS3.3 C.7.6.2.1.1, whose first pixel has its centre at .5, .5 here
        turn = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        places = np.array(header.ImagePositionPatient, float) + (ends - 0.5) * [across, down] @ turn
        told = [[-row[f"{axis}_{e}_x_mm"], -row[f"{axis}_{e}_y_mm"], row[f"{axis}_{e}_z_mm"]] for e in "ab"]
        assert places == pytest.approx(np.array(told), abs=1e-3)
    table = io.load_report(tmp_path / "case_sr.dcm")
    assert len(table) == 1 and table["long_axis_mm"].iloc[0] == pytest.approx(row["long_axis_mm"], rel=1e-6)
