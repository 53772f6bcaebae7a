"""``medseg convert``: between all formats, on the file's own grid or on a reference's."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medseg import io
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.testing.phantoms import blobs

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".ome.tif")


@pytest.fixture
def lesions(ct):
    """Three balls on the grid of the CT."""
    grid = io.load(ct).grid
    return Instances.from_labels(blobs(grid.shape, 3, 3, seed=4, spacing=(2, 1, 1)), grid)


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_series_as_a_volume(medseg, ct, tmp_path, ending):
    target = tmp_path / f"ct{ending}"
    result = medseg("convert", ct, target)
    assert result.code == 0 and result.out == f"{target}: image, 8 x 40 x 40 voxels, 2 x 1 x 1 mm\n"
    before, after = io.load(ct), io.load(target)
    np.testing.assert_array_equal(before.voxels(), after.voxels())
    assert ending == ".ome.tif" or before.grid.why_not(after.grid) is None
    assert after.grid.spacing == pytest.approx(before.grid.spacing)


@pytest.mark.parametrize("form", ["seg", "labelmap", "rtstruct"])
def test_labels_to_dicom_and_back(medseg, ct, lesions, tmp_path, form):
    start, dicom, end = tmp_path / "start.nii.gz", tmp_path / "drawn.dcm", tmp_path / "end.nii.gz"
    io.save_labels(lesions, start)
    assert medseg("convert", start, dicom, "--as", form, "--reference", ct).code == 0
    assert (
        medseg("convert", dicom, end, "--reference", ct).out
        == f"{end}: 3 instances, 8 x 40 x 40 voxels, 2 x 1 x 1 mm\n"
    )
    back = io.load_labels(end)
    assert back.grid.matches(lesions.grid)
    np.testing.assert_array_equal(back.labels, lesions.relabel().labels)


def test_a_segmentation_to_a_report_and_the_report_to_a_table(medseg, ct, lesions, tmp_path):
    start, seg, report, table = (tmp_path / name for name in ("a.nii.gz", "seg.dcm", "sr.dcm", "sr.csv"))
    io.save_labels(lesions, start)
    refused = medseg("convert", start, report, "--labels", "--as", "sr", "--reference", ct)
    assert refused.code == 4 and "convert to a SEG first" in refused.err and not report.exists()
    assert medseg("convert", start, seg, "--reference", ct).code == 0
    assert medseg("convert", seg, report, "--as", "sr", "--reference", ct).code == 0
    assert medseg("convert", report, table).out == f"{table}: 3 measurement groups\n"
    rows = pd.read_csv(table)
    assert rows["volume_mm3"].tolist() == pytest.approx(lesions.table["volume_mm3"].tolist())
    assert rows["tracking_uid"].tolist() == [one["tracking_uid"] for one in io.load_labels(seg).provenance["segments"]]


def test_labels_beyond_the_reference_are_told_of(medseg, ct, lesions, tmp_path):
    grid, moved = lesions.grid, lesions.grid.affine.copy()
    moved[:3, 3] += grid.affine[:3, 0] * 3  # three slices on
    io.save_labels(Instances.from_labels(lesions.labels, replace(grid, affine=moved)), tmp_path / "moved.nii.gz")
    left = int((lesions.labels[5:] > 0).sum())
    assert left
    result = medseg("convert", tmp_path / "moved.nii.gz", tmp_path / "a.dcm", "--reference", ct)
    assert result.code == 0 and f"medseg: {left} of {int((lesions.labels > 0).sum())} labelled voxels" in result.err
    moved[:3, 3] += grid.affine[:3, 0] * 30
    io.save_labels(Instances.from_labels(lesions.labels, replace(grid, affine=moved)), tmp_path / "away.nii.gz")
    result = medseg("convert", tmp_path / "away.nii.gz", tmp_path / "b.dcm", "--reference", ct)
    assert result.code == 4 and "none of its 3 instances lies in the reference" in result.err
    assert not (tmp_path / "b.dcm").exists()


def test_no_input_is_written_over(medseg, ct, lesions, tmp_path):
    start, one = tmp_path / "start.nii.gz", sorted(ct.iterdir())[2]
    io.save_labels(lesions, start)
    before = start.read_bytes(), one.read_bytes()
    assert "is one of the files that are read" in medseg("convert", start, start, "--labels").err
    assert "is one of the files that are read" in medseg("convert", start, one, "--reference", ct).err
    assert (start.read_bytes(), one.read_bytes()) == before


def test_ids_that_dicom_cannot_keep_are_told(medseg, ct, lesions, tmp_path):
    other = np.array([0, 1, 7, 300])[lesions.labels]
    io.save_labels(Instances.from_labels(other, lesions.grid), tmp_path / "start.nii.gz")
    result = medseg("convert", tmp_path / "start.nii.gz", tmp_path / "a.dcm", "--reference", ct)
    assert "1 is 1, 7 is 2, 300 is 3" in result.err
    assert "numbers from 1" not in medseg("convert", tmp_path / "a.dcm", tmp_path / "b.dcm", "--reference", ct).err


def test_notes_of_the_reader_are_shown(medseg, ct, tmp_path):
    (ct / "1.dcm").unlink()  # the sixth slice of eight
    assert medseg("convert", ct, tmp_path / "a.nii.gz").code == 4
    result = medseg("convert", ct, tmp_path / "a.nii.gz", "--regularize")
    assert result.code == 0 and "medseg: note:" in result.err and "interpolated" in result.err


def test_deidentified_dicom_names_no_patient(medseg, ct, lesions, tmp_path):
    io.save_labels(lesions, tmp_path / "start.mha")
    for form in ("seg", "rtstruct"):
        open_, closed = tmp_path / f"{form}.dcm", tmp_path / f"{form}_closed.dcm"
        assert medseg("convert", tmp_path / "start.mha", open_, "--as", form, "--reference", ct).code == 0
        assert (
            medseg("convert", tmp_path / "start.mha", closed, "--as", form, "--reference", ct, "--deidentify").code == 0
        )
        assert b"Surname" in open_.read_bytes()  # it belongs to the patient's study
        assert b"Surname" not in closed.read_bytes() and b"MRN12345" not in closed.read_bytes()


def test_an_image_onto_a_reference(medseg, tmp_path):
    grid = Grid.from_spacing((6, 8, 10), (2.0, 1.0, 1.0))
    ramp = np.broadcast_to(np.arange(10, dtype=np.int16), grid.shape)
    other = grid.resample((1.0, 0.5, 0.5))
    io.save_image(Image(ramp[None], grid), tmp_path / "a.nii.gz")
    io.save_image(Image(np.zeros((1, *other.shape), np.uint8), other), tmp_path / "b.nii.gz")
    assert (
        medseg("convert", tmp_path / "a.nii.gz", tmp_path / "c.nii.gz", "--reference", tmp_path / "b.nii.gz").code == 0
    )
    moved = io.load(tmp_path / "c.nii.gz")
    assert moved.grid.matches(other)
    np.testing.assert_allclose(moved.voxels()[0, 3, 5, 1:-1], np.arange(18) / 2 + 0.25, atol=1e-5)


def test_labels_onto_a_reference_are_never_mixed(medseg, lesions, tmp_path):
    fine = lesions.grid.resample((1.0, 0.6, 0.6))
    io.save_labels(lesions, tmp_path / "labels.nrrd")
    io.save_image(Image(np.zeros((1, *fine.shape), np.uint8), fine), tmp_path / "fine.mha")
    done = medseg(
        "convert", tmp_path / "labels.nrrd", tmp_path / "out.nii", "--labels", "--reference", tmp_path / "fine.mha"
    )
    assert done.code == 0
    after = io.load_labels(tmp_path / "out.nii")
    assert after.grid.matches(fine) and after.table["id"].tolist() == lesions.table["id"].tolist()
    np.testing.assert_allclose(after.table["volume_mm3"], lesions.table["volume_mm3"], rtol=0.1)


WRONG = [
    (["{ct}", "{tmp}/out.jpg"], 4, "out.jpg"),
    (["{labels}", "{tmp}/out.dcm"], 4, "--reference"),
    (["{labels}", "{tmp}/out.dcm", "--reference", "{labels}"], 4, "DICOM"),
    (["{labels}", "{tmp}/out.nii", "--as", "sr"], 2, "--as"),
    (["{labels}", "{tmp}/out.nii", "--unit", "furlong"], 2, "furlong"),
    (["{tmp}/gone.nii", "{tmp}/out.nii"], 4, "gone.nii"),
    (["{labels}", "{tmp}/out.nii", "--reference", "{tmp}/gone.nii"], 4, "gone.nii"),
    (["{ct}", "{tmp}/out.nii", "--series", "nope"], 4, "series"),
    (["{labels}", "{tmp}/out.nii", "--series", "1"], 4, "series"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG)
def test_what_cannot_be(medseg, ct, lesions, tmp_path, arguments, code, said):
    io.save_labels(lesions, tmp_path / "labels.nii.gz")
    result = medseg("convert", *(a.format(ct=ct, tmp=tmp_path, labels=tmp_path / "labels.nii.gz") for a in arguments))
    assert result.code == code and result.out == "" and len(result.err.splitlines()) == 1
    assert said in result.errors[0] and "internal" not in result.errors[0]
    assert not list(tmp_path.glob("out.*"))
