"""De-identification: planted identifiers are searched for in the bytes of what is written."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from source_study import FRAME, ROOT, SERIES, STUDY, blobs, identifiers, slices, written

from medseg import io
from medseg.errors import MedsegWarning
from medseg.instances import Instances
from medseg.io.clinical.deidentifier import new_uid, secret
from medseg.io.clinical.profile import ACTIONS, actions


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
