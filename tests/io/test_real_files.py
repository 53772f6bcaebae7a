"""Real data, where MEDSEG_DATA or ../shared/data beside the checkout has it."""

import json
import os
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medseg import io
from medseg.errors import FormatError, GeometryError, MedsegError
from medseg.grid import Grid

DATA = Path(os.environ.get("MEDSEG_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
HARD = DATA / "dicom-hard"

pytestmark = pytest.mark.skipif(not HARD.is_dir(), reason="real data not here; set MEDSEG_DATA to its folder")


def by_hand(folder):
    """Slices along the normal by an independent few lines: values (z, y, x), first position, step."""
    slices = []
    for path in sorted(folder.iterdir()):
        one = pydicom.dcmread(path)
        if "PixelData" in one and one.Modality != "SEG":
            cosines = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
            where = np.array(one.ImagePositionPatient, float)
            values = one.pixel_array * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0))
            slices.append((float(where @ np.cross(*cosines)), where, values))
    slices.sort(key=lambda item: item[0])
    return np.stack([values for *_, values in slices]), slices[0][1], slices[-1][1]


def test_every_hard_file_is_read_or_refused():
    counts = {"read": 0, "refused": 0}
    for entry in json.loads((HARD / "manifest.json").read_text())["files"]:
        path = HARD / entry["file"]
        try:
            image = io.load(path)
            assert np.isfinite(image.voxels()).all()
            counts["read"] += 1
        except MedsegError as error:
            assert "\n" not in str(error)
            counts["refused"] += 1
    assert sum(counts.values()) == 437 and counts["read"] >= 240


def test_every_hard_folder_is_read_or_refused():
    folders = {(HARD / entry["file"]).parent for entry in json.loads((HARD / "manifest.json").read_text())["files"]}
    for folder in sorted(folders):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = io.load(folder)
            voxels = image.voxels()[0]
        except MedsegError:
            continue
        if "junk" in folder.name or folder.parent.name == "compressed_jpeg" or image.grid.ndim == 2:
            continue  # the few lines above do not pass over junk, and pydicom alone decodes no lossless JPEG
        if folder.parent.name == "anatomical" and len(image.source.files) == 1:
            continue  # enhanced
        want, first, _ = by_hand(folder)
        assert np.allclose(voxels, want, rtol=1e-6)
        assert np.allclose(image.grid.origin, first * (-1, -1, 1), atol=0.05)


@pytest.mark.parametrize(
    ("folder", "error", "words"),
    [
        ("dcm_qa_ct-GE-variable-tilt-and-gaps", GeometryError, "missing|equally|sheared"),
        ("derived/duplicate_files", GeometryError, "repeat the position"),
        ("derived/missing_slices_6_7_of_16", GeometryError, "missing: 9.81 mm lie between slices 6 and 7"),
        ("derived/mixed_two_series_one_folder", FormatError, "2 DICOM series"),
        ("derived/one_truncated_file", FormatError, "truncated"),
        ("derived/same_position_different_uid", GeometryError, "repeat the position"),
        ("dicom2nifti/failing/gantrytilting/001", GeometryError, "gantry tilt"),
        ("dicom2nifti/failing/sliceorientation/001", FormatError, "2 DICOM series.* MR 2 x 288 x 288; .* MR 2 x 288"),
        ("mirp/UCSF-BR-06_sagittal_3phases_one_series", FormatError, "3 DICOM series.* MR 10 x 256 x 256; .* MR 10 x"),
    ],
)
def test_hard_folders_refused(folder, error, words):
    with pytest.raises(error, match=words):
        io.load(HARD / folder)


def test_transfer_syntaxes_agree():
    folder = HARD / "dicom2nifti" / "generic"
    want = io.load(folder / "compressed_rle" / "001").voxels()
    for lossless in ("compressed", "compressed_j2k", "compressed_jpegls", "compressed_jpeg"):
        assert (io.load(folder / lossless / "001").voxels() == want).all()


@pytest.mark.parametrize(
    "folder",
    ["lidc_0314/dicom", "sts_raw_petdicom/STS_001/FDG_PET/image", "sts_sarcoma/dicom/STS_002/MR_T1/image"],
)
def test_series_against_an_independent_reading(folder):
    image = io.load(DATA / "lesions" / folder)
    want, first, last = by_hand(DATA / "lesions" / folder)
    assert np.allclose(image.voxels()[0], want, rtol=1e-6)
    ends = image.grid.to_world([[0, 0, 0], [len(want) - 1, 0, 0]]) * (-1, -1, 1)
    assert np.abs(ends - [first, last]).max() < 0.05


def test_pet_jitter_is_noted():
    image = io.load(DATA / "lesions/sts_raw_petdicom/STS_001/FDG_PET/image")
    assert image.modality == "PT" and image.grid.shape[0] == 267 and image.array.dtype == np.float32
    assert any("0.0" in note and "regular stack" in note for note in image.source.notes)


@pytest.mark.parametrize(
    "pattern", ["ms_ljubljana_mni/patient19/*", "sts_sarcoma/nifti/STS_001/*/*", "msd_hippocampus/*/*_00*"]
)
def test_nifti_against_nibabel(pattern):
    paths = [path for path in sorted((DATA / "lesions").glob(pattern)) if path.name.endswith((".nii", ".nii.gz"))]
    assert paths
    for path in paths[:6]:
        truth = nibabel.load(path)
        image = io.load(path)
        assert np.allclose(image.grid.to_nifti(), truth.affine, atol=1e-5)
        assert np.allclose(image.voxels()[0], np.asarray(truth.dataobj).T)


def test_float_labels_of_hippocampus_003():
    labels = io.load_labels(DATA / "lesions/msd_hippocampus/labelsTr/hippocampus_003.nii.gz")
    assert labels.table["id"].tolist() == [1, 2]


def test_nrrd_against_simpleitk():
    paths = sorted((DATA / "lesions/pyradiomics").rglob("*.nrrd"))
    assert paths
    for path in paths:
        truth, image = sitk.ReadImage(path), io.load(path)
        grid = Grid.from_itk(truth.GetSize(), truth.GetSpacing(), truth.GetOrigin(), truth.GetDirection())
        assert image.grid.matches(grid) and (image.voxels()[0] == sitk.GetArrayFromImage(truth)).all()


def test_cells():
    for folder in sorted((DATA / "cells").iterdir()):
        image = sorted(folder.rglob("images/*.tif"))[0]
        labels = io.load_labels(image.parents[1] / "labels" / image.name)
        assert labels.grid.matches(io.load(image).grid) and len(labels)
