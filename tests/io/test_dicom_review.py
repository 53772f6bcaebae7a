"""What a sceptical reader found: series that once opened with slices of another volume, at another place, or missing."""

import gzip

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage, RLELossless
from test_dicom_series import SECRET, dataset, stack, turned, written

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError, MedsegWarning


def item(**tags):
    out = Dataset()
    for key, value in tags.items():
        setattr(out, key, value)
    return Sequence([out])


def level(value, z, rows=6, columns=7, **tags):
    """A slice that holds one value, at (-10, 20, z)."""
    tags = {"RescaleSlope": 1, "RescaleIntercept": 0} | tags
    return dataset(np.full((rows, columns), value, np.int16), (-10, 20, z), number=int(value), **tags)


def opened(folder):
    """Values along the normal of each image that can be loaded."""
    out = []
    for one in io.series(folder):
        if not one.problems:
            image = io.load(folder, series=one.key)
            out.append([int(v) for v in image.voxels()[0, :, 0, 0]])
    return sorted(out)


TWO = [[100, 101, 102, 103, 104, 105], [200, 201, 202, 203, 204, 205]]


def passes(folder, tags, step=2.5, apart=0.0):
    """Two passes over six positions; the second lies `apart` mm further on."""
    slices = [level(100 * (p + 1) + k, step * k + apart * p, **tags(p, k)) for p in range(2) for k in range(6)]
    return written(folder, slices)


# ---------------------------------------------------------------- passes in time


@pytest.mark.parametrize(
    "tags",
    [
        # the trigger delay is noise, the clock tells the passes
        lambda p, k: {"TriggerTime": str(600 + (7 if (p + k) % 2 else -5) + k), "AcquisitionTime": f"10{10 + p}{k:02d}"},
        # midnight without a date, with one that stands still, and with a true one
        lambda p, k: {"AcquisitionTime": f"{235957 + k if k < 3 else k - 3:06d}" if p == 0 else f"0002{k:02d}"},
        lambda p, k: {"AcquisitionTime": f"{235957 + k if k < 3 else k - 3:06d}" if p == 0 else f"0002{k:02d}",
                      "AcquisitionDate": "20200101"},
        lambda p, k: {"AcquisitionTime": f"0901{k:02d}" if p else f"1000{k:02d}", "AcquisitionDate": f"2020010{1 + p}"},
        lambda p, k: {"AcquisitionDateTime": (f"2020010123595{k}" if p == 0 and k < 3 else f"202001020{p}001{k}") + "+0100"},
        # a clock that counts on while each slice has its own time, both marks agree
        lambda p, k: {"AcquisitionTime": f"10{10 + p}{k:02d}", "AcquisitionNumber": p + 1},
        # the images were made in another order than they were taken
        lambda p, k: {"AcquisitionTime": f"10{10 + p}{k:02d}", "ContentTime": f"1100{(p + k) % 2}0"},
        # echoes slice by slice, and b-values in two goes over odd and even slices
        lambda p, k: {"EchoTime": str(2 + 2 * p), "AcquisitionTime": f"1010{k:02d}.{5 * p}"},
        lambda p, k: {"DiffusionBValue": 1000.0 * p, "AcquisitionTime": f"10{10 + 2 * (k % 2) + p}{k:02d}"},
        # 10 seconds for each position, both passes at once: the trigger delay orders them
        lambda p, k: {"TriggerTime": str(600 * p + k), "AcquisitionTime": f"1010{10 * (k % 6):02d}"[:6]},
    ],
    ids=["trigger jitter", "midnight", "date stands still", "dates", "date-times", "agreeing", "made later", "echoes",
         "two goes", "cine"],
)  # fmt: skip
def test_passes_are_not_mixed(tmp_path, tags):
    assert opened(passes(tmp_path / "s", tags)) == TWO


@pytest.mark.parametrize(
    "tags",
    [
        lambda p, k: {"AcquisitionNumber": 1 + (p + k) % 2, "AcquisitionTime": f"10{10 + p}{k:02d}"},
        lambda p, k: {"EchoTime": str(2 + (p + k) % 2), "AcquisitionNumber": p + 1},
    ],
    ids=["number and clock", "echo and number"],
)
def test_marks_that_contradict_each_other(tmp_path, tags):
    folder = passes(tmp_path / "s", tags)
    (one,) = io.series(folder)
    assert "in different ways" in one.problems[0]
    for more in ({}, {"regularize": True}):
        with pytest.raises(GeometryError, match="AcquisitionNumber.* different ways"):
            io.load(folder, **more)


def test_times_that_say_nothing(tmp_path):
    """At each position two times, but slices of different positions lie neither in passes nor one position after the other."""
    times = [[0, 20, 40], [24, 44, 64], [100, 110, 120]]
    slices = [
        level(100 * (p + 1) + k, 2.5 * k, ContentTime=f"10{times[k][p] // 60:02d}{times[k][p] % 60:02d}")
        for p in range(3)
        for k in range(3)
    ]
    assert "repeat the position" in io.series(written(tmp_path / "s", slices))[0].problems[0]


def test_more_parts_than_passes(tmp_path):
    """Two slabs, each taken twice with an agent of its own: the clock alone would join parts with different agents."""
    agents = [["a", "b"], ["c", "d"]]
    slices = [
        level(100 * (p + 1) + k, 2.5 * k, ContrastBolusAgent=agents[k // 4][p], AcquisitionTime=f"10{10 + p}{k:02d}")
        for p in range(2)
        for k in range(8)
    ]
    want = [[100, 101, 102, 103], [104, 105, 106, 107], [200, 201, 202, 203], [204, 205, 206, 207]]
    assert opened(written(tmp_path / "s", slices)) == want


def test_interleaved_acquisition_is_one_volume(tmp_path):
    """Odd slices first, then even ones, as most MR is acquired: times alternate, the volume is whole."""
    slices, pixels = stack(8, Modality="MR")
    for k, one in enumerate(slices):
        one.AcquisitionTime = f"10{10 + k % 2}{k:02d}"
        one.ContentTime, one.AcquisitionNumber = f"1015{k % 2}0", 1
    image = io.load(written(tmp_path / "s", slices))
    assert (image.voxels()[0] == pixels).all()


# ---------------------------------------------------------------- slices of something else


@pytest.mark.parametrize(
    "tags",
    [
        lambda p: {"StudyInstanceUID": f"1.2.88.{p}", "PatientID": f"P{p}"},
        lambda p: {"Modality": "PT" if p else "CT"},
        lambda p: {"SOPClassUID": PositronEmissionTomographyImageStorage if p else CTImageStorage},
        lambda p: {"Modality": "PT", "Units": "CNTS" if p else "BQML"},
    ],
    ids=["study", "modality", "class", "units"],
)
def test_slices_that_abut_but_do_not_belong_together(tmp_path, tags):
    folder = passes(tmp_path / "s", lambda p, _: tags(p), apart=15.0)
    assert opened(folder) == TWO
    with pytest.raises(FormatError, match="2 DICOM series"):
        io.load(folder)


@pytest.mark.parametrize("apart", [1.25, 0.2, 1.0])
@pytest.mark.parametrize("tag", [("KVP", "80", "140"), ("EchoTime", "4.6", "9.2"), ("StackID", "1", "2")])
def test_two_stacks_that_lie_between_each_other(tmp_path, tag, apart):
    name, *values = tag
    folder = passes(tmp_path / "s", lambda p, _: {name: values[p]}, apart=apart)
    assert opened(folder) == TWO
    with pytest.raises(FormatError, match="2 DICOM series"):
        io.load(folder, regularize=True)


def test_two_phases_a_little_apart(tmp_path):
    """The table came back 0.2 mm off: by number or by the clock the phases are told apart, not blended."""
    for number, tags in enumerate(
        (lambda p, _: {"AcquisitionNumber": p + 1}, lambda p, k: {"AcquisitionTime": f"10{p}{k}00"})
    ):
        assert opened(passes(tmp_path / f"s{number}", tags, apart=0.2)) == TWO


def test_acquisitions_that_alternate_are_told(tmp_path):
    folder = passes(tmp_path / "s", lambda p, _: {"AcquisitionNumber": p + 1}, apart=1.25)
    with pytest.warns(MedsegWarning, match="2 kinds by AcquisitionNumber alternate"):
        image = io.load(folder)
    assert image.grid.shape[0] == 12 and "alternate" in image.source.notes[-1]


def test_echo_times_that_are_written_differently_are_one(tmp_path):
    slices, pixels = stack(6)
    for k, one in enumerate(slices):
        one.EchoTime = "4.601" if k % 2 else "4.602"
    assert (io.load(written(tmp_path / "s", slices)).voxels()[0] == pixels).all()


# ---------------------------------------------------------------- nuclear medicine and dose


def nuclear(folder, kind, count=6, **tags):
    pixels = np.random.default_rng(0).integers(0, 1000, (count, 6, 7)).astype(np.uint16)
    one = dataset(pixels[0], (0, 0, 0), Modality="NM", SOPClassUID="1.2.840.10008.5.1.4.1.1.20",
                  ImagePositionPatient=None, ImageOrientationPatient=None, NumberOfFrames=count,
                  ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"], SpacingBetweenSlices="4", **tags)  # fmt: skip
    one.PixelData = pixels.tobytes()
    one.DetectorInformationSequence = item(ImagePositionPatient=[1, 2, 3], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    one.save_as(folder / "a.dcm", enforce_file_format=True)
    return folder / "a.dcm", pixels


@pytest.mark.parametrize(
    "tags", [{}, {"NumberOfSlices": 6}, {"SliceVector": [1, 2, 3, 4, 5, 6], "DetectorVector": [2] * 6}]
)
def test_reconstructed_slices(tmp_path, tags):
    path, pixels = nuclear(tmp_path, "RECON TOMO", **tags)
    image = io.load(path)
    assert (image.voxels()[0] == pixels).all() and image.grid.spacing[0] == pytest.approx(4)
    assert image.grid.to_world(np.array([[5, 0, 0]])) == pytest.approx(np.array([[-1, -2, 23]]))


def test_slices_in_the_order_of_slice_vector(tmp_path):
    order = [1, 3, 5, 6, 4, 2]
    path, pixels = nuclear(tmp_path, "RECON TOMO", SliceVector=order)
    assert (io.load(path).voxels()[0] == pixels[np.argsort(order)]).all()


@pytest.mark.parametrize(
    ("kind", "tags", "error", "word"),
    [
        ("TOMO", {}, GeometryError, "projections"),
        ("GATED TOMO", {}, GeometryError, "projections"),
        ("RECON GATED TOMO", {}, InputError, "volumes in time"),
        ("STATIC", {}, GeometryError, "frames"),
        ("RECON TOMO", {"EnergyWindowVector": [1, 1, 1, 2, 2, 2]}, InputError, "EnergyWindowVector"),
        ("RECON TOMO", {"TimeSlotVector": [1, 2] * 3}, InputError, "TimeSlotVector"),
        ("RECON TOMO", {"SliceVector": [6, 5, 4, 3, 2, 1]}, GeometryError, "SliceVector"),
        ("RECON TOMO", {"SliceVector": [1, 2, 3, 1, 2, 3]}, GeometryError, "SliceVector"),
        ("RECON TOMO", {"SliceVector": [1, 2, 3]}, FormatError, "SliceVector"),
    ],
)
def test_frames_of_nuclear_medicine_that_are_no_volume(tmp_path, kind, tags, error, word):
    with pytest.raises(error, match=word):
        io.load(nuclear(tmp_path, kind, **tags)[0])


@pytest.mark.parametrize(("first", "right"), [(0, True), (3, True), (3.001, True), (2.5, False), (-3, False)])
def test_where_dose_planes_begin(tmp_path, first, right):
    pixels = np.arange(3 * 42, dtype=np.uint16).reshape(3, 6, 7)
    one = dataset(pixels[0], (1, 2, 3), Modality="RTDOSE", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2", NumberOfFrames=3,
                  GridFrameOffsetVector=[first, first + 2.5, first + 5], DoseGridScaling="0.5", DoseUnits="GY")  # fmt: skip
    one.PixelData = pixels.tobytes()
    one.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    if right:
        assert io.load(tmp_path / "a.dcm").grid.to_world(np.array([[2, 0, 0]])) == pytest.approx(
            np.array([[-1, -2, 8]]), abs=2e-3
        )
    else:
        with pytest.raises(GeometryError, match="GridFrameOffsetVector starts neither"):
            io.load(tmp_path / "a.dcm")


# ---------------------------------------------------------------- resampling loses nothing


def test_dense_and_sparse_parts(tmp_path):
    places = [0, 1, 2, 3, 4, 9, 14, 19, 24, 29, 34]
    slices = [level(10 * z, z) for z in places]
    image = io.load(written(tmp_path / "s", slices), regularize=True)
    assert [int(v) for v in image.voxels()[0, :, 0, 0]] == [10 * z for z in range(35)]


def test_slices_that_are_lost_are_named(tmp_path):
    """One extra slice 0.3 mm after another would take 80 slices to keep: it is left out, aloud."""
    slices = [level(k, 2.5 * k) for k in range(8)] + [level(99, 7.8)]
    folder = written(tmp_path / "s", slices)
    with pytest.warns(MedsegWarning, match=r"1 of 9 slices lie too close.*5 \(InstanceNumber 99\)"):
        image = io.load(folder, regularize=True)
    assert [int(v) for v in image.voxels()[0, :, 0, 0]] == list(range(8)) and "too close" in " ".join(
        image.source.notes
    )


# ---------------------------------------------------------------- orientation that wobbles


def wobbling(by, columns, count=6):
    angle = np.degrees(np.arcsin(by))
    return [
        dataset(np.zeros((6, columns), np.int16), (0, 0, 2.5 * k), turned((0, 0, angle if k == 2 else 0)), k + 1)
        for k in range(count)
    ]


def test_orientation_is_compared_at_the_far_corner(tmp_path):
    still = io.load(written(tmp_path / "s", wobbling(0.9e-4, 6)))
    assert not [note for note in still.source.notes if "far corner" in note]
    image = io.load(written(tmp_path / "s", wobbling(0.9e-4, 601)))
    (note,) = [note for note in image.source.notes if "far corner" in note]
    told = float(note.partition("up to ")[2].split()[0])
    assert told == pytest.approx(600 * 0.7 * 0.9e-4, rel=0.02)
    corner = image.grid.to_world(np.array([[0, 0, 600]]))  # five of six slices are straight: they set the grid
    assert corner == pytest.approx(np.array([[-420, 0, 0]]), abs=1e-6)
    with pytest.raises(GeometryError, match="orientation of 1 of 6 slices differs .* 0.0[67].* mm at the far corner"):
        io.load(written(tmp_path / "s", wobbling(0.9e-4, 1024)))


# ---------------------------------------------------------------- part of the series is missing


def halves(folder):
    slices, pixels = stack(8)
    written(folder / "a", slices[:4])
    return slices[4:], pixels


@pytest.mark.parametrize("loop", [False, True])
def test_a_linked_folder_is_followed_once(tmp_path, loop):
    root, away = tmp_path / "root", tmp_path / "away"
    root.mkdir()
    rest, pixels = halves(root)
    written(away, rest)
    (root / "b").symlink_to(away, target_is_directory=True)
    if loop:
        (root / "c").symlink_to(root, target_is_directory=True)
        (root / "a" / "d").symlink_to(root / "b", target_is_directory=True)
    image = io.load(root)
    assert (image.voxels()[0] == pixels).all() and not image.source.notes[:-1]


def test_links_that_lead_nowhere_or_above_are_told(tmp_path):
    root = tmp_path / "root"
    written(root, stack(5)[0])
    (root / "gone.dcm").symlink_to(tmp_path / "not there")
    with pytest.warns(MedsegWarning, match="1 links lead to files that are not there"):
        io.load(root)
    (root / "gone.dcm").unlink()
    (root / "up").symlink_to(tmp_path, target_is_directory=True)
    with pytest.warns(MedsegWarning, match="above"):
        io.load(root)


def in_order(folder, slices):
    folder.mkdir()
    for k, one in enumerate(slices):
        one.save_as(folder / f"I{k:03d}", enforce_file_format=True)
    return folder


def test_a_disc_that_lost_a_file(tmp_path):
    folder = in_order(tmp_path / "disc", stack(6)[0])
    index = dataset(np.zeros((1, 1), np.uint8), (0, 0, 0))
    index.file_meta.MediaStorageSOPClassUID = index.SOPClassUID = "1.2.840.10008.1.3.10"
    for key in ("Rows", "Columns", "PixelData"):
        delattr(index, key)
    names = [f"I{k:03d}" for k in range(6)] + ["I006", "I007"]
    index.DirectoryRecordSequence = Sequence(
        [item(ReferencedFileID=[name], RecordInUseFlag=0xFFFF)[0] for name in names]
    )
    index.DirectoryRecordSequence[7].RecordInUseFlag = 0
    index.save_as(folder / "DICOMDIR", enforce_file_format=True)
    with pytest.warns(MedsegWarning, match="DICOMDIR lists 1 files that are not there"):
        image = io.load(folder)
    assert image.grid.shape[0] == 6
    index.DirectoryRecordSequence[6].RecordInUseFlag = index.DirectoryRecordSequence[5].RecordInUseFlag = 0
    index.save_as(folder / "DICOMDIR", enforce_file_format=True)
    assert io.load(folder / "DICOMDIR").grid.shape[0] == 5  # one that was taken off the list is not read


@pytest.mark.parametrize("name", ["I005", "I005.dcm", "I005.dcm.gz", "I005.gz"])
def test_empty_and_packed_slices_are_told(tmp_path, name):
    folder = in_order(tmp_path / "s", stack(6)[0])
    whole = (folder / "I005").read_bytes()
    (folder / "I005").unlink()
    (folder / name).write_bytes(gzip.compress(whole) if name.endswith(".gz") else b"")
    (tmp_path / "s" / "mask.nii.gz").write_bytes(gzip.compress(b"x" * 400))
    with pytest.warns(MedsegWarning, match="packed with gzip" if name.endswith(".gz") else "1 empty files") as caught:
        io.load(folder)
    assert len(caught) == 1 and "I005" not in str(caught[0].message)


def test_two_frames_that_say_they_are_one(tmp_path):
    slices, pixels = stack(1)
    one = slices[0]
    one.NumberOfFrames = 2
    both = np.stack([pixels[0], pixels[0] + 1])
    one.PixelData = both.tobytes()
    one.compress(RLELossless, both, encoding_plugin="pydicom", generate_instance_uid=False)
    del one.NumberOfFrames
    one.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(FormatError, match="one frame, but there are more"):
        io.load(tmp_path / "a.dcm")


# ---------------------------------------------------------------- pixel spacing of flat images


def flat(folder, rows=6, columns=7, **tags):
    tags = {"ImagePositionPatient": None, "ImageOrientationPatient": None} | tags
    one = dataset(np.zeros((rows, columns), np.uint8), (0, 0, 0), **tags)
    one.save_as(folder / "a.dcm", enforce_file_format=True)
    return folder / "a.dcm"


CR, US = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.6.1"


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"ImagerPixelSpacing": [0.8, 0.7]}, "at the detector"),
        ({"ImagerPixelSpacing": [0.8, 0.7], "PixelSpacingCalibrationType": "GEOMETRY"}, ""),
        ({"ImagerPixelSpacing": [1.2, 1.05]}, ""),
        ({}, "is not said"),
    ],
)
def test_spacing_of_a_radiograph(tmp_path, tags, word):
    image = io.load(flat(tmp_path, SOPClassUID=CR, Modality="CR", **tags))
    notes = [note for note in image.source.notes if "pixel spacing" in note]
    assert image.grid.spacing == (0.8, 0.7) and (word in notes[0] if word else not notes)


def region(**tags):
    known = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3, "PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.03,
             "RegionSpatialFormat": 1, "RegionDataType": 1}  # fmt: skip
    return item(**(known | tags))


def ultrasound(folder, **tags):
    return flat(folder, SOPClassUID=US, Modality="US", **({"PixelSpacing": None} | tags))


def test_spacing_of_ultrasound(tmp_path):
    whole = {"RegionLocationMinX0": 0, "RegionLocationMinY0": 0, "RegionLocationMaxX1": 6, "RegionLocationMaxY1": 5}
    image = io.load(ultrasound(tmp_path, SequenceOfUltrasoundRegions=region(**whole)))
    assert image.grid.spacing == pytest.approx((0.3, 0.2)) and "alone" not in image.source.notes[0]
    image = io.load(ultrasound(tmp_path, SequenceOfUltrasoundRegions=region(**(whole | {"RegionLocationMinX0": 2}))))
    assert image.grid.spacing == pytest.approx((0.3, 0.2)) and "columns 2 to 6" in image.source.notes[0]
    image = io.load(ultrasound(tmp_path, SequenceOfUltrasoundRegions=region(RegionSpatialFormat=2)))
    assert not image.grid.known and "two dimensions" in image.source.notes[0]
    agreeing = ultrasound(tmp_path, PixelSpacing=[0.3, 0.2], SequenceOfUltrasoundRegions=region(**whole))
    assert io.load(agreeing).grid.spacing == pytest.approx((0.3, 0.2))
    with pytest.warns(MedsegWarning, match="PixelSpacing contradicts"):
        image = io.load(ultrasound(tmp_path, PixelSpacing=[1, 1], SequenceOfUltrasoundRegions=region(**whole)))
    assert not image.grid.known


def test_pixels_that_are_not_square(tmp_path):
    with pytest.warns(MedsegWarning, match="not square: 2 high to 1 wide"):
        image = io.load(flat(tmp_path, PixelSpacing=None, PixelAspectRatio=[2, 1], SOPClassUID=US, Modality="OT"))
    assert not image.grid.known and SECRET not in " ".join(image.source.notes)
