"""De-identification: planted identifiers are searched for in the bytes of what is written."""

import shutil
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from source_study import FRAME, ROOT, SERIES, STUDY, blobs, errors_of, identifiers, slices, written

from medseg import io
from medseg.errors import MedsegWarning
from medseg.instances import Instances
from medseg.io.clinical.codes import standard
from medseg.io.clinical.deidentifier import new_uid, secret
from medseg.io.clinical.profile import ACTIONS, actions
from medseg.spec import FindingSpec


def bytes_of(dataset):
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def check_clean(data, dataset):
    found = [word for word in identifiers(dataset) if word in data]
    assert not found


@pytest.fixture
def source(tmp_path):
    return io.load(written(tmp_path / "ct"))


def test_outputs_hold_no_planted_identifier(tmp_path, source):
    labels = blobs(source.grid.shape, 3)
    segments = [
        {"id": int(id), "label": "planted study", "tracking_id": "planted comment", "tracking_uid": f"{ROOT}9.{id}"}
        for id in np.unique(labels)[1:]
    ]
    lesions = Instances.from_labels(labels, source.grid, provenance={"segments": segments})
    io.save_seg(lesions, tmp_path / "seg.dcm", source, deidentify=True)
    io.save_rtstruct(lesions, tmp_path / "rt.dcm", source, deidentify=True)
    io.save_report(lesions, tmp_path / "sr.dcm", source, segmentation=tmp_path / "seg.dcm", deidentify=True)
    original = slices()[0]
    told = {}
    for name in ("seg", "rt", "sr"):
        data = (tmp_path / f"{name}.dcm").read_bytes()
        check_clean(data, original)
        one = told[name] = pydicom.dcmread(tmp_path / f"{name}.dcm")
        assert one.PatientIdentityRemoved == "YES"
        assert one.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert one.StudyInstanceUID == new_uid(STUDY, secret()) != STUDY
        assert str(one.PatientName) == "" and not one.StudyDate and one.get("ContentDate", "19000101") == "19000101"
    assert told["seg"].FrameOfReferenceUID == new_uid(FRAME, secret())
    assert told["seg"].ReferencedSeriesSequence[0].SeriesInstanceUID == new_uid(SERIES, secret())
    assert len({one.PatientID for one in told.values()}) == 1
    report = io.load_report(tmp_path / "sr.dcm")
    assert report["tracking_uid"].tolist() == [one.TrackingUID for one in told["seg"].SegmentSequence]
    assert report["tracking_uid"].tolist() == [one.TrackingUID for one in told["rt"].StructureSetROISequence]


def test_identified_outputs_do_hold_them(tmp_path, source):
    """The search finds what it looks for where it is."""
    lesions = Instances.from_labels(blobs(source.grid.shape, 1), source.grid)
    io.save_seg(lesions, tmp_path / "a.dcm", source)
    with pytest.raises(AssertionError):
        check_clean((tmp_path / "a.dcm").read_bytes(), slices()[0])


def test_any_data_set():
    scan = slices()[0]
    inner = Dataset()
    inner.PersonName, inner.TextValue, inner.ReferencedSOPInstanceUID = "Zyx^Planted", "planted comment", f"{ROOT}5"
    inner.add_new(0x00131001, "LO", "planted private")
    scan.ContentSequence = [inner]
    scan.RequestAttributesSequence = [inner]
    scan.NameOfPhysiciansReadingStudy = "Refer^Planted"
    scan.file_meta.SourceApplicationEntityTitle = "STATIONPLANTED"
    scan.preamble = b"planted comment".ljust(128, b"\0")
    scan.add_new(0x60004000, "LT", "planted comment")
    scan.add_new(0x50000010, "LT", "planted comment")
    before = bytes_of(scan)
    clean = io.deidentify(scan)
    assert bytes_of(scan) == before  # the original is not touched
    data = bytes_of(clean)
    check_clean(data, scan)
    assert clean.SOPInstanceUID == clean.file_meta.MediaStorageSOPInstanceUID == new_uid(scan.SOPInstanceUID, secret())
    assert clean.SOPClassUID == scan.SOPClassUID and clean.PixelData == scan.PixelData
    assert clean.ImagePositionPatient == scan.ImagePositionPatient and clean.Modality == "CT"
    assert clean.ContentSequence[0].PersonName and "RequestAttributesSequence" not in clean
    assert io.deidentify(clean).PatientIdentityRemoved == "YES"


NAMED = (b"Doe", b"Jane", b"Smith", b"99LOCAL", b"1.2.826.0.1.77", b"v4711", b"Kidney of")
TERMS = {"category": ("49755003", "SCT", "Jane's lump"), "site": ("T-71000", "SRT", "Kidney of Doe")}


def segments_of(ids):
    """What a foreign SEG may say of its segments: names in all free text."""
    return [
        {
            "id": int(id), "number": int(id), "label": f"Doe Jane tumour {id}", "tracking_id": "Doe Jane",
            "tracking_uid": f"{ROOT}9.{id}", "type": ("X1", "99LOCAL", "Doe Jane's tumour"), **TERMS,
            "algorithm": "SEMIAUTOMATIC", "algorithm_name": "Smith^John by hand", "algorithm_version": "v4711",
        }
        for id in ids
    ]  # fmt: skip


@pytest.fixture
def foreign(tmp_path, source):
    """Instances read from a SEG that names the patient in labels, terms and authorship."""
    labels = blobs(source.grid.shape, 3)
    some = Instances.from_labels(
        labels, source.grid, provenance={"segments": segments_of(np.unique(labels)[1:].tolist())}
    )
    io.save_seg(some, tmp_path / "foreign.dcm", source)
    data = (tmp_path / "foreign.dcm").read_bytes()
    assert all(word in data for word in NAMED)
    found = io.load_labels(tmp_path / "foreign.dcm", like=source)
    assert found.classes == ("Doe Jane tumour",)
    return found


def check_unnamed(tmp_path, foreign, source, finding=None):
    """Write all objects de-identified, search their bytes, and return them by name."""
    told = {}
    options = {"finding": finding, "deidentify": True}
    for kind in ("binary", "labelmap"):
        io.save_seg(foreign, tmp_path / f"{kind}.dcm", source, kind=kind, **options)
    io.save_rtstruct(foreign, tmp_path / "rt.dcm", source, **options)
    io.save_report(foreign, tmp_path / "sr.dcm", source, segmentation=tmp_path / "binary.dcm", **options)
    for name in ("binary", "labelmap", "rt", "sr"):
        data = (tmp_path / f"{name}.dcm").read_bytes()
        assert [word for word in NAMED if word in data] == [], name
        if shutil.which("dciodvfy") and name != "labelmap":  # which it does not know yet
            assert errors_of(tmp_path / f"{name}.dcm") == []
        told[name] = pydicom.dcmread(tmp_path / f"{name}.dcm")
    return told


@pytest.mark.filterwarnings("ignore:Codes of 3 segments:medseg.errors.MedsegWarning")
def test_no_word_of_a_file_that_was_read_is_in_an_output(tmp_path, source, foreign):
    told = check_unnamed(tmp_path, foreign, source)
    segments = told["binary"].SegmentSequence
    assert [one.SegmentLabel for one in segments] == ["object 1", "object 2", "object 3"]
    assert [one.TrackingID for one in segments] == [one.SegmentLabel for one in segments]
    assert [one.ROIName for one in told["rt"].StructureSetROISequence] == ["object 1", "object 2", "object 3"]
    first = segments[0]
    category, kind = first.SegmentedPropertyCategoryCodeSequence[0], first.SegmentedPropertyTypeCodeSequence[0]
    assert category.CodeMeaning == "Morphologically Abnormal Structure" and kind.CodeMeaning == "Lesion"
    site = first.AnatomicRegionSequence[0]
    assert (site.CodeValue, site.CodingSchemeDesignator, site.CodeMeaning) == ("T-71000", "SRT", "Kidney")
    assert first.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "REMOVED"
    before = [one["tracking_uid"] for one in foreign.provenance["segments"]]
    assert [one.TrackingUID for one in segments] == [new_uid(uid, secret()) for uid in before]


@pytest.mark.filterwarnings("ignore:Invalid value")  # pydicom's, while the test plants them
def test_no_text_of_the_source_is_in_an_output(tmp_path):
    """Each attribute that may hold words says one, also where the profile leaves it as it is."""
    folder = tmp_path / "named"
    folder.mkdir()
    words = {
        "PN": "Doe^Jane",
        "CS": "DOE JANE",
        **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "AE"), "Doe Jane"),
    }
    needed = ("SpecificCharacterSet", "ImageType", "SegmentationType", "RescaleType", "PixelPresentation", "FrameType",
              "Modality", "PhotometricInterpretation")  # fmt: skip
    for i, one in enumerate(slices()):
        for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
            if tag >> 16 > 4 and kind in words and keyword and keyword not in needed:
                one.add_new(tag, kind, words[kind])
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "Doe", "99LOCAL", "Jane"
        one.ProcedureCodeSequence = one.AnatomicRegionSequence = one.PatientSpeciesCodeSequence = [code]
        one.save_as(folder / f"{i}.dcm", enforce_file_format=True)
    image = io.load(folder)
    told = check_unnamed(tmp_path, Instances.from_labels(blobs(image.grid.shape, 2), image.grid), image)
    assert all(b"DOE" not in (tmp_path / f"{name}.dcm").read_bytes() for name in told)


def test_codes_that_are_replaced_are_told_of(tmp_path, source, foreign):
    with pytest.warns(MedsegWarning, match="Codes of 3 segments") as caught:
        io.save_seg(foreign, tmp_path / "a.dcm", source, deidentify=True)
    assert not any("Doe" in str(one.message) for one in caught)


def test_a_finding_names_what_was_read(tmp_path, source, foreign):
    finding = FindingSpec(types={"Doe Jane tumour": ("27925004", "SCT", "Nodule")})
    told = check_unnamed(tmp_path, foreign, source, finding)
    assert [one.SegmentLabel for one in told["binary"].SegmentSequence] == ["Nodule 1", "Nodule 2", "Nodule 3"]


def test_class_names_of_the_user_or_a_model_stay(tmp_path, source):
    labels = (blobs(source.grid.shape, 1) > 0).astype(np.int32)
    own = Instances.from_labels(labels, source.grid, classes=("node",), provenance={"model": "net"})
    io.save_seg(own, tmp_path / "a.dcm", source, deidentify=True)
    one = pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence[0]
    assert (one.SegmentLabel, one.TrackingID) == ("node 1", "node 1")
    assert one.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "net"


def test_standard_codes_have_the_meaning_of_the_standard():
    assert standard(("52988006", "SCT", "Jane's lump")) == ("52988006", "SCT", "Lesion")
    assert standard(("T-71000", "SRT", "x")) == ("T-71000", "SRT", "Kidney")
    assert standard(("mm", "UCUM", "x")) is not None and standard(("L0JK", "IBSI", "x")) is not None
    for code in (
        ("52988006", "99LOCAL", "Lesion"),
        ("Doe", "SCT", "Doe"),
        ("123", "FMA", "Doe"),
        ("D-Doe", "SRT", "x"),
    ):
        assert standard(code) is None


def outputs(tmp_path, lesions, source, monkeypatch, key):
    """All UIDs of de-identified outputs made with a key."""
    if key:
        monkeypatch.setenv("MEDSEG_UID_KEY", key)
    else:
        monkeypatch.delenv("MEDSEG_UID_KEY", raising=False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    io.save_seg(lesions, tmp_path / "seg.dcm", source, deidentify=True)
    io.save_rtstruct(lesions, tmp_path / "rt.dcm", source, deidentify=True)
    io.save_report(lesions, tmp_path / "sr.dcm", source, segmentation=tmp_path / "seg.dcm", deidentify=True)
    found = set()

    def collect(dataset):
        for element in dataset.iterall():
            if element.VR == "UI" and element.keyword != "ImplementationClassUID":
                found.update(str(one) for one in (element.value if element.VM > 1 else [element.value]))

    for name in ("seg", "rt", "sr"):
        collect(pydicom.dcmread(tmp_path / f"{name}.dcm"))
    return {uid for uid in found if not uid.startswith("1.2.840.10008.")}


def test_every_uid_of_a_deidentified_output_needs_the_key(tmp_path, source, monkeypatch):
    """Who has the original but not the key can compute none of them."""
    lesions = Instances.from_labels(blobs(source.grid.shape, 3), source.grid)
    public, one, two = (outputs(tmp_path, lesions, source, monkeypatch, key) for key in ("", "first", "second"))
    assert len(public) == len(one) == len(two) > 20
    assert not public & one and not one & two
    assert outputs(tmp_path, lesions, source, monkeypatch, "first") == one


def test_what_no_dictionary_knows_goes_and_what_does_not_parse_is_emptied():
    scan = slices()[0]
    scan.add_new(0x0010EEEE, "UN", b"Doe even unknown")
    for keyword, vr, value in (
        ("ScanOptions", "CS", b"DOE^JANE"), ("ImageType", "CS", b"DERIVED\\Doe^Jane"),
        ("InstanceNumber", "IS", b"Doe^Jane"), ("SliceThickness", "DS", b"Doe^Jane"), ("Rows", "LO", b"Doe^Jane"),
        ("SOPClassUID", "UI", b"Doe^Jane"), ("NumberOfFrames", "UN", b"Doe^Jane"), ("KVP", "DS", b"1\\Doe^Jane "),
        ("PatientAge", "AS", b"Doe^Jane"), ("FrameOfReferenceUID", "UI", b"Doe^Jane"),
        ("Columns", "OB", b"Doe^Jane"), ("ManufacturerModelName", "OB", b"Doe^Jane"), ("EchoTime", "SQ", b"Doe^Jane"),
        ("NameOfPhysiciansReadingStudy", "LO", b"Doe^Jane"),
        ("PatientSpeciesCodeSequence", "LO", b"Doe^Jane"), ("EventTimerNames", "PN", b"Doe^Jane"),
    ):  # fmt: skip
        scan[keyword] = RawDataElement(Tag(keyword), vr, len(value), value, 0, False, True)
    inner = Dataset()
    inner.add_new(0x0008EEEE, "LO", "Doe even unknown")
    scan.ReferencedImageEvidenceSequence = [inner]
    with pytest.warns(MedsegWarning, match="not of their kind") as caught:
        clean = io.deidentify(scan)
    assert not any("Doe" in str(one.message) for one in caught)
    data = bytes_of_any(clean)
    assert b"Doe" not in data and b"DOE" not in data
    assert (
        clean.ImageType == ["DERIVED", ""]
        and not clean.InstanceNumber
        and clean.SeriesNumber == 3
        and clean.BitsStored == 16
    )
    assert clean.ImagePositionPatient == scan.ImagePositionPatient


def bytes_of_any(dataset):
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def test_only_uids_that_the_standard_lists_stay():
    assert new_uid("1.2.840.10008.1.4.1.1", b"key") == "1.2.840.10008.1.4.1.1"  # a well-known frame of reference
    assert new_uid("1.2.840.10008.4711", b"key").startswith("2.25.")


def test_the_key_counts(monkeypatch):
    one, two = slices()[:2]
    plain, keyed = io.deidentify(one), io.deidentify(one, "a secret")
    assert plain.StudyInstanceUID == io.deidentify(two).StudyInstanceUID
    assert plain.StudyInstanceUID != keyed.StudyInstanceUID
    monkeypatch.setenv("MEDSEG_UID_KEY", "a secret")
    assert io.deidentify(two).StudyInstanceUID == keyed.StudyInstanceUID
    # With a key the pseudonym follows the patient, without one the study, as a public hash of an ID can be undone.
    two.StudyInstanceUID = f"{ROOT}99"
    assert io.deidentify(two).PatientID == keyed.PatientID
    monkeypatch.delenv("MEDSEG_UID_KEY")
    assert io.deidentify(two).PatientID != plain.PatientID


def test_uids_are_valid():
    for i in range(200):
        uid = new_uid(f"{ROOT}{i}", b"key")
        assert pydicom.uid.UID(uid).is_valid and uid.startswith("2.25.") and len(uid) <= 64
    assert new_uid("1.2.840.10008.1.2", b"key") == "1.2.840.10008.1.2" and new_uid("", b"key") == ""


def test_burned_in_text_is_told_of():
    scan = slices()[0]
    scan.BurnedInAnnotation = "YES"
    with pytest.warns(MedsegWarning, match="burned into"):
        io.deidentify(scan)


# The rows of PS3.15 Table E.1-1 by hand, to check the table in the code against: keyword, action.
BY_HAND = {
    "AccessionNumber": "Z", "AcquisitionComments": "X", "AcquisitionDate": "X/Z", "AcquisitionDateTime": "X/Z/D",
    "AcquisitionDeviceProcessingDescription": "X/D", "AcquisitionFieldOfViewLabel": "D", "AcquisitionTime": "X/Z",
    "AdditionalPatientHistory": "X", "AdmissionID": "X", "AffectedSOPInstanceUID": "X", "Allergies": "X",
    "AuthorObserverSequence": "X", "BarcodeValue": "X/Z", "ClinicalTrialProtocolID": "D", "ClinicalTrialSiteID": "Z",
    "ConcatenationUID": "U", "ContainerIdentifier": "D", "ContentCreatorName": "Z/D", "ContentDate": "Z/D",
    "ContentSequence": "D", "ContentTime": "Z/D", "ContrastBolusAgent": "Z/D", "CountryOfResidence": "X",
    "DerivationDescription": "X", "DetectorID": "X/D", "DeviceSerialNumber": "X/Z/D", "DeviceUID": "U",
    "DimensionOrganizationUID": "U", "DigitalSignaturesSequence": "X", "ConceptualVolumeUID": "U",
}  # fmt: skip


def test_the_table():
    table = actions()
    # Edition 2024 made X/Z of the acquisition date and time what later editions may word otherwise: compare the letters.
    for keyword, action in BY_HAND.items():
        assert table[tag_for_keyword(keyword)] == action, keyword
    assert len(table) == sum(len(names.split()) for names in ACTIONS.values()) == 652
    replaced = [tag for tag, action in table.items() if action == "U"]
    assert all(dictionary_VR(tag) in ("UI", "SQ") for tag in replaced)


def test_every_row_acts():
    """A data set with a value in each row of the table that is a text: none is left."""
    scan = Dataset()
    for tag in actions():
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            continue
        if vr in ("LO", "LT", "SH", "ST", "UT", "UC", "PN", "AE"):
            scan.add_new(tag, vr, "PLANTED")
    assert len(scan) > 250
    clean = io.deidentify(scan)
    assert not [element for element in clean if "PLANTED" in str(element.value)]
