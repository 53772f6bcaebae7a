"""RTSTRUCT out and in: the same voxels again, rules for contours, what is refused."""

import shutil

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from source_study import DATA, FRAME, SECRETS, blobs, errors_of, needs_dciodvfy, real, written

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError, MedsegWarning, MissingError
from medseg.instances import Instances
from medseg.ops.contours import fill, outlines
from medseg.spec import FindingSpec


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_give_the_mask_again(mask):
    polygons = outlines(mask)
    assert np.array_equal(fill(polygons, mask.shape), mask)
    # Each pixel lies in exactly one polygon, so readers that fill each for itself agree: holes are keyholes.
    assert np.array_equal(sum((fill([one], mask.shape).astype(int) for one in polygons), np.zeros(mask.shape)), mask)


def test_hole_and_island():
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    polygons = outlines(mask)
    assert sorted(len(one) for one in polygons) == [4, 10]
    assert np.array_equal(fill(polygons, (7, 7)), mask)


def test_fill_rule():
    triangle = np.array([[0.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
    # Centres on the left and upper edge count, those on the slanted lower right one do not.
    assert fill([triangle], (5, 5)).astype(int).tolist() == [
        [1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0],
    ]  # fmt: skip
    far = np.array([[-9.0, -9.0], [-9.0, 9.0], [9.0, 9.0], [9.0, -9.0]])
    assert fill([far], (2, 3)).all() and not fill([far, far], (2, 3)).any() and not fill([far + 50], (2, 3)).any()


@pytest.mark.parametrize("angle", [(0, 0, 0), (0, 90, 0), (10, 20, 30)])
def test_round_trip_is_exact(tmp_path, angle):
    image = io.load(written(tmp_path / "ct", angle=angle))
    instances = Instances.from_labels(blobs(image.grid.shape, 20), image.grid)
    io.save_rtstruct(instances, tmp_path / "a.dcm", image)
    again = io.load_labels(tmp_path / "a.dcm", like=image)
    assert np.array_equal(again.labels, instances.relabel().labels) and again.grid == image.grid


def test_what_the_file_says(tmp_path, source, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    instances = Instances.from_labels(blobs(source.grid.shape, 3), source.grid, classes=("lesion",))
    finding = FindingSpec(roi_type="GTV", algorithm_type="MANUAL")
    for name in ("a.dcm", "b.dcm"):
        io.save_rtstruct(instances, tmp_path / name, source, finding=finding)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    told = pydicom.dcmread(tmp_path / "a.dcm")
    assert told.PatientID == SECRETS["PatientID"] and "planted" not in told.SeriesDescription
    ids = instances.table["id"].tolist()
    assert [one.ROIName for one in told.StructureSetROISequence] == [f"lesion {id}" for id in ids]
    assert {one.ROIGenerationAlgorithm for one in told.StructureSetROISequence} == {"MANUAL"}
    assert {one.RTROIInterpretedType for one in told.RTROIObservationsSequence} == {"GTV"}
    assert len({tuple(one.ROIDisplayColor) for one in told.ROIContourSequence}) == 3
    frame = told.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == FRAME and len(series.ContourImageSequence) == source.grid.shape[0]
    positions = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file).ImagePositionPatient[2]
                 for file in source.source.files}  # fmt: skip
    for roi in told.ROIContourSequence:
        for contour in roi.ContourSequence:
            named = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            assert abs(positions[named] - contour.ContourData[2]) < 1e-3
            assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints >= 12
    assert io.load_candidates(tmp_path / "a.dcm", like=source)[2]["segments"][0]["tracking_uid"].startswith("2.25.")


def test_tracking_is_that_of_the_segmentation(tmp_path, source):
    instances = Instances.from_labels(blobs(source.grid.shape, 3), source.grid)
    io.save_seg(instances, tmp_path / "a.dcm", source)
    io.save_rtstruct(instances, tmp_path / "b.dcm", source)
    one, two = (io.load_labels(tmp_path / name, like=source).provenance["segments"] for name in ("a.dcm", "b.dcm"))
    assert [s["tracking_uid"] for s in one] == [s["tracking_uid"] for s in two]


def drawn(tmp_path, source, edit):
    """An RTSTRUCT of one box, changed by `edit(dataset, contours)`."""
    labels = np.zeros(source.grid.shape, np.int32)
    labels[4:7, 10:20, 10:20] = 1
    io.save_rtstruct(Instances.from_labels(labels, source.grid), tmp_path / "a.dcm", source)
    told = pydicom.dcmread(tmp_path / "a.dcm")
    edit(told, told.ROIContourSequence[0].ContourSequence)
    told.save_as(tmp_path / "a.dcm")
    return tmp_path / "a.dcm"


def box(source, z, low, high):
    """Contour data of a square from pixel `low` to `high` (both included) in slice z."""
    from medseg.io.clinical.rtread import contour_text, to_lps

    square = np.array([[low, low], [low, high + 1], [high + 1, high + 1], [high + 1, low]]) - 0.5
    return contour_text(square, z, to_lps(source.grid))


def test_contours_combine_by_exclusive_or(tmp_path, source):
    def edit(told, contours):
        inner = pydicom.dataset.Dataset()
        inner.ContourGeometricType, inner.NumberOfContourPoints = "CLOSED_PLANAR", 4
        inner.ContourData = box(source, 5, 13, 15)
        contours.append(inner)

    got = io.load_labels(drawn(tmp_path, source, edit), like=source)
    assert np.array_equal(np.bincount(got.labels.ravel())[1:], [300 - 9]) and not got.labels[5, 14, 14]


def test_short_open_and_outside_contours_are_told_of(tmp_path, source):
    def edit(told, contours):
        contours[0].ContourData = contours[0].ContourData[:6]
        contours[1].ContourGeometricType = "POINT"

    with pytest.warns(MedsegWarning) as caught:
        found, _, record = io.load_candidates(drawn(tmp_path, source, edit), like=source)
    assert {"1 contours of fewer than 3 points were dropped",
            "1 points and open contours were left out, as they enclose nothing"} == set(record["notes"])  # fmt: skip
    assert len(caught) == 2 and int(found.masks[0].sum()) == 100
    short = source.crop((6, 0, 0), (12, 40, 36))
    with pytest.warns(MedsegWarning, match="2 contours lie outside"):
        found, grid, _ = io.load_candidates(tmp_path_of(tmp_path, source), like=short)
    assert grid == short.grid and int(found.masks[0].sum()) == 100


def test_a_contour_partly_outside_is_cut_and_told_of(tmp_path, source):
    def edit(told, contours):
        contours[0].ContourData = box(source, 4, 30, 45)  # of 40 rows and 36 columns
        contours[1].ContourData = box(source, 5, 50, 55)
        contours[2].ContourData = box(source, 6, 30, 35)  # up to the very edge

    with pytest.warns(MedsegWarning) as caught:
        found, _, record = io.load_candidates(drawn(tmp_path, source, edit), like=source)
    assert record["notes"] == [
        "1 contours lie outside the image and were left out",
        "1 contours lie partly outside the image; what is outside was cut off",
    ]
    assert len(caught) == 2 and int(found.masks[0].sum()) == 10 * 6 + 6 * 6


def test_a_contour_with_an_offset_is_refused(tmp_path, source):
    """Whether the offset is to be added was never clear, and the attribute is retired."""

    def edit(vector):
        def change(told, contours):
            contours[1].ContourOffsetVector = vector

        return change

    assert len(io.load_labels(drawn(tmp_path, source, edit([0, 0, 0])), like=source)) == 1
    for vector in ([0, 0, 2.5], [1]):
        with pytest.raises(FormatError, match="ContourOffsetVector"):
            io.load_candidates(drawn(tmp_path, source, edit(vector)), like=source)


def tmp_path_of(tmp_path, source):
    return drawn(tmp_path, source, lambda told, contours: None)


def test_refusals(tmp_path, source):
    path = tmp_path_of(tmp_path, source)
    with pytest.raises(InputError, match="drawn on too"):
        io.load_candidates(path)
    from dataclasses import replace

    other = replace(source, grid=replace(source.grid, frame="1.2.3"))
    with pytest.raises(GeometryError, match="frame of reference"):
        io.load_candidates(path, like=other)
    moved = source.grid.resample((1.9, *source.grid.spacing[1:]))
    wrong = replace(source, array=np.zeros((1, *moved.shape), np.int16), grid=moved)
    with pytest.raises(GeometryError, match="do not lie in the slices"):
        io.load_candidates(path, like=wrong)

    def edit(told, contours):
        contours[0].ContourData = contours[0].ContourData[:7]

    with pytest.raises(FormatError, match="list of points"):
        io.load_candidates(drawn(tmp_path, source, edit), like=source)
    with pytest.raises(MissingError):
        io.load_candidates(tmp_path / "nothing.dcm", like=source)
    none = Instances.from_labels(np.zeros(source.grid.shape, int), source.grid)
    with pytest.raises(InputError, match="no instances"):
        io.save_rtstruct(none, tmp_path / "b.dcm", source)


def test_like_may_be_the_folder(tmp_path, source):
    path = tmp_path_of(tmp_path, source)
    found, grid, _ = io.load_candidates(path, like=tmp_path / "ct")
    assert grid == source.grid and len(found) == 1


@needs_dciodvfy
@pytest.mark.parametrize("deidentify", [False, True])
def test_dciodvfy_finds_no_error(tmp_path, source, deidentify):
    instances = Instances.from_labels(blobs(source.grid.shape, 5), source.grid)
    io.save_rtstruct(instances, tmp_path / "a.dcm", source, deidentify=deidentify)
    assert errors_of(tmp_path / "a.dcm") == []


@real
@pytest.mark.filterwarnings("ignore:StudyID of the source")
@pytest.mark.parametrize("modality", ["CT", "PET", "MR_T1"])
def test_sarcoma(tmp_path, modality):
    root = DATA / "lesions" / "sts_sarcoma"
    image = io.load(root / "dicom" / "STS_002" / modality / "image")
    got = io.load_labels(root / "dicom" / "STS_002" / modality / "mask", like=image)
    truth = io.load_labels(root / "nifti" / "STS_002" / modality / "mask.nii.gz").on(image.grid)
    assert np.array_equal(got.labels > 0, truth.labels > 0)  # Dice 1.0000
    io.save_rtstruct(got, tmp_path / "a.dcm", image)
    assert np.array_equal(io.load_labels(tmp_path / "a.dcm", like=image).labels, got.labels)
    if shutil.which("dciodvfy"):
        assert errors_of(tmp_path / "a.dcm") == []


@real
def test_raw_pet():
    root = DATA / "lesions" / "sts_raw_petdicom" / "STS_001" / "FDG_PET"
    found, grid, record = io.load_candidates(root / "mask", like=root / "image")
    assert [one["label"] for one in record["segments"]] == ["GTV_Mass", "GTV_Edema"]
    assert [int(mask.sum()) for mask in found.masks] == [5095, 8058]
    with pytest.warns(MedsegWarning, match="overlap"):
        assert len(io.load_labels(root / "mask", like=io.load(root / "image"))) == 2
