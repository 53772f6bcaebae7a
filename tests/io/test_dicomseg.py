"""DICOM SEG out and in: voxels, place, what segments say, and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from source_study import (
    DATA,
    FRAME,
    ROOT,
    SECRETS,
    SERIES,
    STUDY,
    blobs,
    errors_of,
    needs_dciodvfy,
    real,
    slices,
    written,
)

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError, MedsegWarning, MissingError
from medseg.instances import Instances
from medseg.spec import FindingSpec

pytestmark = pytest.mark.usefixtures("fixed_time")

DCMQI = os.environ.get("MEDSEG_DCMQI") or shutil.which("segimage2itkimage")
needs_dcmqi = pytest.mark.skipif(not DCMQI, reason="dcmqi is not here; set MEDSEG_DCMQI to its segimage2itkimage")
kinds = pytest.mark.parametrize("kind", ["binary", "labelmap"])


def dense(instances):
    return instances.relabel().labels


def check_round_trip(labels, image, path, kind):
    instances = Instances.from_labels(labels, image.grid)
    io.save_seg(instances, path, image, kind=kind)
    again = io.load_labels(path, like=image)
    assert again.grid == image.grid
    assert np.array_equal(again.labels, dense(instances))
    alone = io.load_labels(path)
    used = np.flatnonzero(labels.any(axis=(1, 2)))
    crop = image.grid.crop((used[0], 0, 0), (used[-1] + 1, *labels.shape[1:]))
    assert np.abs(alone.grid.corners() - crop.corners()).max() < 1e-3
    assert np.array_equal(alone.labels, dense(instances)[used[0] : used[-1] + 1])
    return instances, again


@kinds
@pytest.mark.parametrize("count", [1, 20, pytest.param(200, marks=pytest.mark.slow)])
def test_round_trip_is_exact(tmp_path, source, kind, count):
    check_round_trip(blobs(source.grid.shape, count), source, tmp_path / "out.dcm", kind)


@kinds
@pytest.mark.parametrize("angle", [(0, 90, 0), (90, 0, 0), (10, 20, 30), (180, 0, 0)])
def test_oblique_series(tmp_path, kind, angle):
    image = io.load(written(tmp_path / "ct", shape=(7, 11, 13), angle=angle))
    check_round_trip(blobs(image.grid.shape, 5), image, tmp_path / "out.dcm", kind)


@kinds
def test_jittering_series_stays_on_the_image_grid_and_names_its_slices(tmp_path, kind):
    image = io.load(written(tmp_path / "ct", jitter=0.02))
    check_round_trip(blobs(image.grid.shape, 5), image, tmp_path / "out.dcm", kind)
    told = pydicom.dcmread(tmp_path / "out.dcm")
    for frame in told.PerFrameFunctionalGroupsSequence:
        named = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        z = np.array(frame.PlanePositionSequence[0].ImagePositionPatient)[2]
        where = {pydicom.dcmread(file).SOPInstanceUID: float(pydicom.dcmread(file).ImagePositionPatient[2])
                 for file in image.source.files}  # fmt: skip
        assert abs(where[named] - z) < 0.05


def test_what_the_file_says(tmp_path, source):
    labels = np.zeros(source.grid.shape, np.int32)
    labels[2:4, 5:9, 5:9], labels[3:6, 20:25, 20:25], labels[8, 1, 1] = 3, 7, 9
    instances = Instances.from_labels(
        labels, source.grid, class_ids=[1, 2, 1], classes=("lesion", "node"), provenance={"model": "net", "edited": [7]}
    )
    finding = FindingSpec(
        types={"node": ("59441001", "SCT", "Lymph node")}, site=("39607008", "SCT", "Lung"), colour=(255, 0, 0)
    )
    io.save_seg(instances, tmp_path / "a.dcm", source, finding=finding)
    told = pydicom.dcmread(tmp_path / "a.dcm")
    assert (told.StudyInstanceUID, told.FrameOfReferenceUID) == (STUDY, FRAME)
    assert told.SeriesInstanceUID != SERIES and told.SeriesInstanceUID.startswith("2.25.")
    assert (told.PatientID, told.StudyDate) == (SECRETS["PatientID"], SECRETS["StudyDate"])
    assert "planted" not in told.SeriesDescription and told.Modality == "SEG"
    first, second, third = told.SegmentSequence
    assert [one.SegmentLabel for one in told.SegmentSequence] == ["lesion 3", "node 7", "lesion 9"]
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert [one.SegmentedPropertyTypeCodeSequence[0].CodeValue for one in (first, second)] == ["52988006", "59441001"]
    assert [one.SegmentAlgorithmType for one in (first, second)] == ["AUTOMATIC", "SEMIAUTOMATIC"]
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "net"
    assert first.AnatomicRegionSequence[0].CodeValue == "39607008"
    assert len({one.TrackingUID for one in told.SegmentSequence}) == 3
    named = {one.ReferencedSOPInstanceUID for one in told.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named == {f"{ROOT}4.{i + 1}" for i in range(source.grid.shape[0])}
    frame = told.PerFrameFunctionalGroupsSequence[0]
    assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID in named


def test_colours_differ(tmp_path, source):
    io.save_seg(Instances.from_labels(blobs(source.grid.shape, 20), source.grid), tmp_path / "a.dcm", source)
    told = pydicom.dcmread(tmp_path / "a.dcm")
    assert len({tuple(one.RecommendedDisplayCIELabValue) for one in told.SegmentSequence}) == 20


@kinds
def test_the_same_input_gives_the_same_bytes(tmp_path, source, kind):
    instances = Instances.from_labels(blobs(source.grid.shape, 3), source.grid)
    for name in ("a", "b"):
        io.save_seg(instances, tmp_path / name, source, kind=kind)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    uid = pydicom.dcmread(tmp_path / "a").SOPInstanceUID
    io.save_seg(Instances.from_labels(instances.labels * 2, source.grid), tmp_path / "b", source, kind=kind)
    assert pydicom.dcmread(tmp_path / "b").SOPInstanceUID != uid


def test_tracking_and_terms_are_kept(tmp_path, source):
    instances = Instances.from_labels(blobs(source.grid.shape, 4), source.grid, classes=("lesion",))
    io.save_seg(instances, tmp_path / "a.dcm", source)
    first = io.load_labels(tmp_path / "a.dcm", like=source)
    assert first.classes == ("lesion",) and len(first.provenance["segments"]) == 4
    labels = first.labels.copy()
    labels[0, 0, 0], labels[labels == 2] = 1, 0  # a person edits one and deletes another
    edited = Instances.from_labels(labels, source.grid, provenance={**first.provenance, "edited": [1]})
    io.save_seg(edited.relabel(), tmp_path / "b.dcm", source)
    before = [one["tracking_uid"] for one in first.provenance["segments"]]
    told = pydicom.dcmread(tmp_path / "b.dcm").SegmentSequence
    assert [one.TrackingUID for one in told] == [before[0], before[2], before[3]]
    assert [one.SegmentAlgorithmType for one in told] == ["SEMIAUTOMATIC", "AUTOMATIC", "AUTOMATIC"]
    assert told[0].SegmentLabel == first.provenance["segments"][0]["label"]


def test_another_grid_is_put_on_the_image(tmp_path, source):
    fine = source.grid.resample(0.5)
    labels = np.zeros(fine.shape, np.int32)
    labels[10:30, 10:30, 10:30], labels[0, 0, 0] = 5, 6
    instances = Instances.from_labels(labels, fine)
    with pytest.warns(MedsegWarning, match="1 of 2 instances"):
        io.save_seg(instances, tmp_path / "a.dcm", source)
    again = io.load_labels(tmp_path / "a.dcm", like=source)
    assert np.array_equal(again.labels > 0, instances.on(source.grid).labels > 0)


def test_a_cropped_or_resampled_image_is_written_on_its_own_grid(tmp_path, source):
    from dataclasses import replace

    crop = source.crop((2, 5, 5), (9, 30, 30))
    grid = source.grid.resample(1.5)
    coarse = replace(source, array=np.zeros((1, *grid.shape), np.int16), grid=grid)
    for image in (crop, coarse):
        check_round_trip(blobs(image.grid.shape, 4), image, tmp_path / "a.dcm", "binary")


@kinds
def test_a_regularized_series(tmp_path, kind):
    """A tilted stack with a missing slice, resampled on loading: the SEG lies where the image does."""
    folder = written(tmp_path / "ct", shape=(9, 24, 20))
    for i, file in enumerate(sorted(folder.iterdir())):
        one = pydicom.dcmread(file)
        one.ImagePositionPatient[1] += 0.4 * i
        one.save_as(file)
    sorted(folder.iterdir())[4].unlink()
    image = io.load(folder, regularize=True)
    instances, again = check_round_trip(blobs(image.grid.shape, 4), image, tmp_path / "a.dcm", kind)
    io.save_rtstruct(instances, tmp_path / "b.dcm", image)
    assert np.array_equal(io.load_labels(tmp_path / "b.dcm", like=image).labels, again.labels)


@real
def test_multi_frame_sources(tmp_path):
    hard = DATA / "dicom-hard"
    for name in ("transfer-syntaxes-cornerstone/CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
                 "dicom2nifti/philips_enhanced/anatomical/001/IM-0001-0170-0001.dcm"):  # fmt: skip
        image = io.load(hard / name)
        labels = np.zeros(image.grid.shape, np.int32)
        labels[0, 5:15, 5:15], labels[-1, 20:30, 8:12] = 1, 4
        check_round_trip(labels, image, tmp_path / "a.dcm", "binary")
        frame = pydicom.dcmread(tmp_path / "a.dcm").PerFrameFunctionalGroupsSequence[0]
        assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber >= 1
        io.save_rtstruct(Instances.from_labels(labels, image.grid), tmp_path / "b.dcm", image)
        contour = pydicom.dcmread(tmp_path / "b.dcm").ROIContourSequence[0].ContourSequence[0]
        assert contour.ContourImageSequence[0].ReferencedFrameNumber >= 1
    dose = io.load(hard / "pydicom-test_files" / "rtdose.dcm")
    labels = np.zeros(dose.grid.shape, np.int32)
    labels[0, 0, 0] = 1
    with pytest.raises(InputError, match="functional groups"):
        io.save_seg(Instances.from_labels(labels, dose.grid), tmp_path / "c.dcm", dose)


def test_refusals(tmp_path, source):
    some = Instances.from_labels(blobs(source.grid.shape, 2), source.grid)
    none = Instances.from_labels(np.zeros(source.grid.shape, int), source.grid)
    with pytest.raises(InputError, match="no instances"):
        io.save_seg(none, tmp_path / "a.dcm", source)
    io.save_labels(some, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="DICOM series"):
        io.save_seg(some, tmp_path / "a.dcm", io.load(tmp_path / "a.nii.gz"))
    with pytest.raises(InputError, match="binary or labelmap"):
        io.save_seg(some, tmp_path / "a.dcm", source, kind="surface")
    for file in source.source.files:
        file.unlink()
    with pytest.raises(MissingError, match="not there"):
        io.save_seg(some, tmp_path / "a.dcm", source)
    assert not (tmp_path / "a.dcm").exists()


def test_odd_source_headers(tmp_path):
    folder = written(tmp_path / "ct")
    for file in folder.iterdir():
        one = pydicom.dcmread(file)
        one.PatientSex = "W"
        for keyword in ("StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyTime", "FrameOfReferenceUID"):
            del one[keyword]
        one.save_as(file)
    image = io.load(folder)
    io.save_seg(Instances.from_labels(blobs(image.grid.shape, 2), image.grid), tmp_path / "a.dcm", image)
    told = pydicom.dcmread(tmp_path / "a.dcm")
    assert told.FrameOfReferenceUID.startswith("2.25.") and told.PatientSex in ("", None)


def test_another_frame_of_reference_is_refused(tmp_path, source):
    io.save_seg(Instances.from_labels(blobs(source.grid.shape, 2), source.grid), tmp_path / "a.dcm", source)
    told = pydicom.dcmread(tmp_path / "a.dcm")
    told.FrameOfReferenceUID = "1.2.3"
    told.save_as(tmp_path / "a.dcm")
    with pytest.raises(GeometryError, match="frames of reference"):
        io.load_candidates(tmp_path / "a.dcm", like=source)


def overlapping(path, source, kind="BINARY"):
    """A SEG of two overlapping segments, written by highdicom itself."""
    import highdicom as hd

    masks = np.zeros((*source.grid.shape, 2), np.float32 if kind == "FRACTIONAL" else np.uint8)
    masks[2:5, 4:13, 4:13, 0] = 1
    masks[3:7, 8:20, 8:20, 1] = 0.6 if kind == "FRACTIONAL" else 1
    describe = [
        hd.seg.SegmentDescription(
            i + 1,
            f"thing {i + 1}",
            hd.sr.CodedConcept("49755003", "SCT", "Abnormal"),
            hd.sr.CodedConcept("52988006", "SCT", "Lesion"),
            "MANUAL",
        )  # fmt: skip
        for i in range(2)
    ]
    seg = hd.seg.Segmentation(
        [pydicom.dcmread(file) for file in source.source.files], masks, kind, describe, "1.2.5", 5, "1.2.6", 1, "m",
        "m", "1", "1",
    )  # fmt: skip
    seg.save_as(path)
    return masks > 0.5


def test_overlap_is_kept_by_candidates_and_told_by_labels(tmp_path, source):
    masks = overlapping(tmp_path / "a.dcm", source)
    found, grid, record = io.load_candidates(tmp_path / "a.dcm", like=source)
    assert grid == source.grid and record["classes"] == ("thing",)
    for i in range(2):
        whole = np.zeros(grid.shape, bool)
        box = found.boxes[i]
        whole[tuple(map(slice, box[:3], box[3:]))] = found.masks[i]
        assert np.array_equal(whole, masks[..., i])
    with pytest.warns(MedsegWarning, match="1 of 2 lost 50 voxels"):
        labels = io.load_labels(tmp_path / "a.dcm", like=source)
    assert sum(labels.provenance["voxels_lost"].values()) == 50


def test_fractional_is_cut_at_half(tmp_path, source):
    masks = overlapping(tmp_path / "a.dcm", source, "FRACTIONAL")
    found, _, record = io.load_candidates(tmp_path / "a.dcm", like=source)
    assert [int(mask.sum()) for mask in found.masks] == [int(masks[..., i].sum()) for i in range(2)]
    assert any("half" in note for note in record["notes"])


def test_frames_in_any_order_on_gaps_and_without_spacing(tmp_path, source):
    labels = np.zeros(source.grid.shape, np.int32)
    labels[1:3, 5:9, 5:9], labels[7:10, 20:25, 20:25] = 1, 2
    io.save_seg(Instances.from_labels(labels, source.grid), tmp_path / "a.dcm", source)
    told = pydicom.dcmread(tmp_path / "a.dcm")
    del told.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    frames = told.PerFrameFunctionalGroupsSequence
    pixels = told.pixel_array
    order = np.random.default_rng(1).permutation(len(frames))
    told.PerFrameFunctionalGroupsSequence = [frames[i] for i in order]
    told.PixelData = np.packbits(pixels[order].ravel(), bitorder="little").tobytes()
    told.save_as(tmp_path / "a.dcm")
    got = io.load_labels(tmp_path / "a.dcm")
    assert np.array_equal(got.labels, labels[1:10])
    assert np.abs(got.grid.corners() - source.grid.crop((1, 0, 0), (10, 40, 36)).corners()).max() < 1e-3


def sparse(path, source, every, between, thickness):
    """A SEG of a box on every so many slices (2.5 mm), with other pixel measures; None removes one."""
    labels = np.zeros(source.grid.shape, np.int32)
    labels[1:11:every, 5:9, 5:9] = 1
    io.save_seg(Instances.from_labels(labels, source.grid), path, source)
    told = pydicom.dcmread(path)
    measures = told.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for keyword, value in (("SpacingBetweenSlices", between), ("SliceThickness", thickness)):
        if value is None:
            delattr(measures, keyword)
        else:
            setattr(measures, keyword, value)
    told.save_as(path)


@pytest.mark.parametrize(
    ("every", "between", "thickness", "spacing", "told"),
    [
        (2, None, 2.5, 2.5, "SliceThickness"),  # every second slice has a voxel, or slices lie 5 mm apart
        (2, 2.5, 5.0, 2.5, None),
        (2, 7.0, 2.5, 2.5, "does not fit"),
        (1, None, 2.5, 2.5, None),
        (2, None, None, 5.0, "smallest"),
        (1, None, 6.0, 2.5, "smallest"),
        (2, None, 0.01, 5.0, "smallest"),  # thinner than positions are exact: anything would fit
        (2, 0.01, None, 5.0, "does not fit"),
    ],
)
def test_the_slice_distance_is_stated_or_told_of(tmp_path, source, every, between, thickness, spacing, told):
    sparse(tmp_path / "a.dcm", source, every, between, thickness)
    if told is None:
        found, grid, record = io.load_candidates(tmp_path / "a.dcm")
        assert record["notes"] == []
    else:
        with pytest.warns(MedsegWarning, match=told):
            found, grid, record = io.load_candidates(tmp_path / "a.dcm")
        assert any(told in note for note in record["notes"])
    assert grid.spacing == pytest.approx((spacing, 0.8, 0.7))
    assert int(found.masks[0].sum()) == 16 * len(range(1, 11, every))


def label_map(path, source, values, padding, numbers):
    """A label map in which 0, 1 and 2 of ours stand as `values`, with descriptions of `numbers` only."""
    labels = np.zeros(source.grid.shape, np.int32)
    labels[:, 5:9, 5:9], labels[:, 1:3, 1:3] = 1, 2
    io.save_seg(Instances.from_labels(labels, source.grid), path, source, kind="labelmap")
    told = pydicom.dcmread(path)
    told.decompress()
    told.PixelData = np.array(values, np.uint8)[told.pixel_array].tobytes()
    described = {values[int(one.SegmentNumber)]: one for one in told.SegmentSequence}
    for number, one in described.items():
        one.SegmentNumber = number
    told.SegmentSequence = [described[number] for number in numbers]
    if padding is None:
        del told.PixelPaddingValue
    else:
        told.PixelPaddingValue = padding
    told.save_as(path)


def test_segment_0_of_a_label_map_is_a_segment_where_the_background_is_another_value(tmp_path, source):
    label_map(tmp_path / "a.dcm", source, [255, 1, 0], 255, [0, 1])
    found, grid, record = io.load_candidates(tmp_path / "a.dcm")
    assert [one["number"] for one in record["segments"]] == [0, 1] and record["notes"] == []
    assert [int(mask.sum()) for mask in found.masks] == [12 * 4, 12 * 16]
    assert [one["label"] for one in record["segments"]] == ["object 2", "object 1"]
    # Without a background of its own, 0 is it if it is described as that, or not at all.
    for numbers in ([0, 1, 2], [1, 2]):
        label_map(tmp_path / "a.dcm", source, [0, 1, 2], None, numbers)
        assert [one["number"] for one in io.load_candidates(tmp_path / "a.dcm")[2]["segments"]] == [1, 2]
    label_map(tmp_path / "a.dcm", source, [2, 1, 0], None, [0, 1, 2])
    found, _, record = io.load_candidates(tmp_path / "a.dcm")
    assert [one["number"] for one in record["segments"]] == [0, 1]  # 2 is described as the background
    assert [int(mask.sum()) for mask in found.masks] == [12 * 4, 12 * 16]


def test_a_label_map_whose_zeros_nobody_describes_is_refused(tmp_path, source):
    label_map(tmp_path / "a.dcm", source, [0, 1, 2], 255, [1, 2])
    with pytest.raises(FormatError, match="neither"):
        io.load_candidates(tmp_path / "a.dcm")


def change(path, **values):
    told = pydicom.dcmread(path)
    for key, value in values.items():
        setattr(told, key, value)
    told.save_as(path)


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path, source):
    good = tmp_path / "good.dcm"
    io.save_seg(Instances.from_labels(blobs(source.grid.shape, 2), source.grid), good, source)
    path = tmp_path / "a.dcm"
    told = pydicom.dcmread(good)
    for error, match, values in (
        (FormatError, "truncated", {"PixelData": told.PixelData[:20]}),
        (FormatError, "frames and places", {"NumberOfFrames": 99}),
        (FormatError, "whole-slide", {"TotalPixelMatrixRows": 9}),
        (FormatError, "SegmentationType", {"SegmentationType": "MESH"}),
        (GeometryError, "no ImageOrientationPatient", {"SharedFunctionalGroupsSequence": [Dataset()]}),
        (InputError, "over the limit", {"Rows": 65535, "Columns": 65535}),
    ):
        shutil.copy(good, path)
        change(path, **values)
        with pytest.raises(error, match=match) as caught:
            io.load_candidates(path)
        assert "planted" not in str(caught.value).lower()
    path.write_bytes(good.read_bytes()[:900])
    with pytest.raises((FormatError, GeometryError)):
        io.load_candidates(path)
    with pytest.raises(FormatError, match="no DICOM SEG"):
        io.load_candidates(source.source.files[0])
    with pytest.raises(InputError, match="SEG or RTSTRUCT"):
        io.load_labels(source.source.files[0])
    with pytest.raises(MissingError):
        io.load_candidates(tmp_path / "nothing.dcm")


def test_planes_at_no_common_distance_are_refused(tmp_path, source):
    io.save_seg(Instances.from_labels(blobs(source.grid.shape, 20), source.grid), tmp_path / "a.dcm", source)
    told = pydicom.dcmread(tmp_path / "a.dcm")
    told.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0].ImagePositionPatient[2] += 0.9
    told.save_as(tmp_path / "a.dcm")
    with pytest.raises(GeometryError, match="not on one grid"):
        io.load_candidates(tmp_path / "a.dcm")


def test_rle_and_deflated(tmp_path, source):
    instances = Instances.from_labels(blobs(source.grid.shape, 3), source.grid)
    io.save_seg(instances, tmp_path / "a.dcm", source, kind="labelmap")
    told = pydicom.dcmread(tmp_path / "a.dcm")
    assert told.file_meta.TransferSyntaxUID == RLELossless
    io.save_seg(instances, tmp_path / "b.dcm", source)
    told = pydicom.dcmread(tmp_path / "b.dcm")
    told.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    told.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert np.array_equal(io.load_labels(tmp_path / "b.dcm", like=source).labels, dense(instances))


def deflated(path, source, size):
    """A deflated SEG of one box whose pixels are `size` bytes of zeros."""
    labels = np.zeros(source.grid.shape, np.int32)
    labels[2:5, 3:9, 4:12] = 1
    io.save_seg(Instances.from_labels(labels, source.grid), path, source)
    told = pydicom.dcmread(path)
    told.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    told.PixelData = bytes(size)
    return told


def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path, source, monkeypatch):
    path = tmp_path / "a.dcm"
    monkeypatch.setattr("medseg.io.clinical.deflated._HEADER", 4 << 20)
    deflated(path, source, 60_000_000).save_as(path, enforce_file_format=True)
    with pytest.raises(FormatError, match="inflates to more"):
        io.load_candidates(path)
    # The element states an honest length, and the stream goes on behind it.
    deflated(path, source, 540).save_as(path, enforce_file_format=True)
    check_tail(path, 60_000_000)
    # An object without pixels, in one value that has no end.
    told = deflated(path, source, 540)
    del told.PixelData
    told.TextValue = "0" * 20_000_000
    told.save_as(path, enforce_file_format=True)
    with pytest.raises(FormatError, match="inflates to more"):
        io.load_candidates(path)


def check_tail(path, size):
    """Put zeros behind the data set of a deflated file, inside of its stream; it is refused with little memory."""
    import tracemalloc
    import zlib

    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    path.write_bytes(data[:start] + packer.compress(plain + bytes(size)) + packer.flush())
    tracemalloc.start()
    with pytest.raises(FormatError, match="inflates to more"):
        io.load_candidates(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2


def test_a_deflated_file_with_an_honest_claim_over_the_limit(tmp_path, source, monkeypatch):
    told = deflated(tmp_path / "a.dcm", source, 3 * 2000 * 2000 // 8)
    told.Rows = told.Columns = 2000
    told.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    monkeypatch.setenv("MEDSEG_MAX_GB", "0.001")
    with pytest.raises(InputError, match="MEDSEG_MAX_GB"):
        io.load_candidates(tmp_path / "a.dcm")


def test_a_deflated_file_that_breaks_off(tmp_path, source):
    deflated(tmp_path / "a.dcm", source, 540).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    (tmp_path / "b.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:-300])
    with pytest.raises(FormatError, match="damaged"):
        io.load_candidates(tmp_path / "b.dcm")


def test_dicom_to_nifti_to_seg_to_nifti_stays_in_place(tmp_path, source):
    labels = blobs(source.grid.shape, 6)
    io.save_labels(Instances.from_labels(labels, source.grid), tmp_path / "a.nii.gz")
    io.save_seg(io.load_labels(tmp_path / "a.nii.gz"), tmp_path / "a.dcm", source)
    io.save_labels(io.load_labels(tmp_path / "a.dcm", like=source), tmp_path / "b.nii.gz")
    first, last = io.load_labels(tmp_path / "a.nii.gz"), io.load_labels(tmp_path / "b.nii.gz")
    assert np.abs(first.grid.corners() - last.grid.corners()).max() <= 0.01
    assert np.array_equal(dense(first), last.labels)


@needs_dciodvfy
def test_dciodvfy_finds_no_error(tmp_path, source):
    instances = Instances.from_labels(blobs(source.grid.shape, 4), source.grid, provenance={"edited": True})
    for deidentify in (False, True):
        io.save_seg(instances, tmp_path / "a.dcm", source, deidentify=deidentify)
        assert errors_of(tmp_path / "a.dcm") == []


@needs_dciodvfy
@pytest.mark.filterwarnings("ignore:The value length")  # pydicom's, while the test writes them
def test_numbers_of_the_study_that_are_too_long_are_left_empty(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    for i, one in enumerate(slices()):
        one.StudyID = one.AccessionNumber = "7" * 17
        one.save_as(folder / f"{i}.dcm")
    image = io.load(folder)
    with pytest.warns(MedsegWarning, match="longer than the 16 characters") as told:
        io.save_seg(Instances.from_labels(blobs(image.grid.shape, 2), image.grid), tmp_path / "a.dcm", image)
    assert len(told) == 2 and not any("777" in str(one.message) for one in told)
    assert errors_of(tmp_path / "a.dcm") == []
    assert pydicom.dcmread(tmp_path / "a.dcm").StudyID == ""


@kinds
def test_highdicom_reads_it(tmp_path, source, kind):
    import highdicom as hd

    instances = Instances.from_labels(blobs(source.grid.shape, 5), source.grid)
    io.save_seg(instances, tmp_path / "a.dcm", source, kind=kind)
    volume = hd.seg.segread(tmp_path / "a.dcm").get_volume(combine_segments=True)
    index = np.argwhere(volume.array > 0)
    world = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    mine = np.argwhere(instances.labels > 0)
    mine = source.grid.to_world(mine) * (-1, -1, 1)  # RAS to LPS
    assert len(world) == len(mine)
    assert np.abs(np.sort(world.round(3), axis=0) - np.sort(mine.round(3), axis=0)).max() < 2e-3


@needs_dcmqi
@kinds
@pytest.mark.parametrize(("count", "jitter"), [(20, 0.0), (3, 0.02), pytest.param(200, 0.0, marks=pytest.mark.slow)])
def test_dcmqi_reads_it(tmp_path, kind, count, jitter, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "peers")
    import dcmqi_seg

    image = io.load(written(tmp_path / "ct", angle=(0, 10, 20), jitter=jitter))
    instances = Instances.from_labels(blobs(image.grid.shape, count), image.grid)
    io.save_seg(instances, tmp_path / "a.dcm", image, kind=kind)
    labels, affine = dcmqi_seg.read(DCMQI, tmp_path / "a.dcm")
    wrong, off = dcmqi_seg.differences(labels, affine, dense(instances).transpose(), image.grid.to_nifti())
    assert wrong == 0 and off < 0.01


@real
def test_hard_files():
    hard = DATA / "dicom-hard"
    found, grid, record = io.load_candidates(hard / "mirp/dicom4qi_data_5_bitpacked_SEG/mask_mask.dcm")
    assert [int(mask.sum()) for mask in found.masks] == [322] and grid.shape == (3, 38, 23)
    assert record["segments"][0]["label"] == "Liver"
    found, grid, record = io.load_candidates(hard / "mirp/UCSF-BR-06_fractional_SEG/1-1.dcm")
    raw = pydicom.dcmread(hard / "mirp/UCSF-BR-06_fractional_SEG/1-1.dcm")
    assert int(found.masks[0].sum()) == int((raw.pixel_array >= raw.MaximumFractionalValue / 2).sum()) == 82527
    for name in ("liver_1frame.dcm", "liver_expb_1frame.dcm"):
        with pytest.raises(FormatError, match="1 frames and places 3"):
            io.load_candidates(hard / "pydicom-test_files" / name)


@real
@pytest.mark.parametrize("folder", ["sts_raw_petdicom/STS_001/FDG_PET/image", "lidc_0314/dicom"])
def test_real_series(tmp_path, folder):
    image = io.load(DATA / "lesions" / folder)
    labels = np.zeros(image.grid.shape, np.int32)
    labels[3:6, 40:50, 50:60], labels[-4:-1, 10:20, 5:9] = 1, 2
    check_round_trip(labels, image, tmp_path / "a.dcm", "binary")
