"""`medseg follow`: files of a course, from NIfTI and from DICOM, and what is refused."""

import numpy as np
import pandas as pd
import pydicom
import pytest

from medseg import io
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances


@pytest.fixture
def visits(tmp_path):
    """Two visits as IMAGE=MASK: a ball that grew, one that went, one that came."""
    grid = Grid.from_spacing((30, 50, 50), (2.0, 1.0, 1.0))
    world = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1) * np.array(grid.spacing)
    balls = [[((30, 15, 15), 8), ((30, 38, 38), 5)], [((30, 15, 15), 10), ((40, 15, 38), 5)]]
    given = []
    for k, places in enumerate(balls):
        labels = np.zeros(grid.shape, np.int32)
        for number, (centre, radius) in enumerate(places, 1):
            labels[((world - centre) ** 2).sum(-1) <= radius**2] = number
        voxels = np.random.default_rng(1).normal(0, 1, grid.shape) + 10 * (labels > 0) + 0.02 * world[..., 1]
        image, mask = tmp_path / f"day{k}.nii.gz", tmp_path / f"mask{k}.nii.gz"
        io.save_image(Image(voxels.astype(np.float32)[np.newaxis], grid, modality="CT"), image)
        io.save_labels(Instances.from_labels(labels, grid), mask)
        given.append(f"{image}={mask}")
    return given


def test_a_course_is_written(medseg, visits, tmp_path):
    out = tmp_path / "course"
    code, said, told = medseg(
        "follow", *visits, "-o", out, "--dates", "2024-01-01,2024-04-01", "--registration", "none"
    )
    assert code == 0, told
    assert said.splitlines()[:2] == ["visit 0: 2 baseline", "visit 1: 1 grown, 1 resolved, 1 new; RECIST PD"]
    ledger = pd.read_csv(out / "ledger.csv", keep_default_na=False)
    assert ledger["state"].tolist() == ["baseline", "grown", "baseline", "resolved", "new"]
    assert pd.read_parquet(out / "ledger.parquet")["lesion"].tolist() == [1, 1, 2, 2, 3]
    assert set(ledger["day"].astype(str)) == {"0", "91"}
    response = pd.read_csv(out / "response.csv", keep_default_na=False)
    assert response["overall"].tolist() == ["", "PD"] and response["sum_mm"].astype(float).iloc[0] > 20
    page = (out / "timeline.html").read_text()
    assert "2024-04-01" in page and page.count("data:image/png") == 6 and "research use only" in page
    assert (out / "visit0_labels.nii.gz").exists() and (out / "visit1_labels.nii.gz").exists()


def test_a_rule_finds_the_lesions_of_images_alone(medseg, visits, tmp_path):
    images = [v.split("=")[0] for v in visits]
    out = tmp_path / "course"
    code, said, told = medseg(
        "follow", *images, "-o", out, "--threshold", ">6", "--min-volume", "100", "--registration", "none"
    )
    assert code == 0, told
    assert "1 grown, 1 resolved, 1 new" in said and "taken in the order given" in told


def test_the_table_names_targets_and_dates_can_be_left_out(medseg, visits, tmp_path):
    table = tmp_path / "known.csv"
    table.write_text("id,role,finding_site,nodal\n2,non-target,liver,no\n")
    out = tmp_path / "course"
    given = ["follow", *visits, "-o", out, "--dates", "2024-01-01,2024-04-01", "--registration", "none"]
    code, _, told = medseg(*given, "--table", table, "--deidentify")
    assert code == 0, told
    assert "2024" not in (out / "timeline.html").read_text() + (out / "ledger.csv").read_text()
    response = pd.read_csv(out / "response.csv")
    assert response["targets"].tolist() == [1, 1] and response["non_target"].iloc[1] == "CR"
    table.write_text("id,finding_site\n2,lymph node\n")  # a node by its site, and too small for one
    assert medseg(*given, "--table", table, "--save", "csv,report").code == 0
    ledger = pd.read_csv(out / "ledger.csv")
    first = pd.read_csv(out / "visit0_instances.csv").set_index("id")  # says of each visit what the ledger says
    assert first.loc[2, ["finding_site", "nodal", "measurable"]].tolist() == ["Lymph Node", True, False]
    small = ledger[(ledger["lesion"] == 2) & (ledger["id"] > 0)]
    assert small["nodal"].all() and (small["counts_mm"] == small["short_axis_mm"]).all()
    assert small["long_axis_mm"].min() > 10 and not small["measurable"].astype(bool).any()
    table.write_text("id;role\n1;target\n")
    assert medseg(*given, "--table", table).code == 0
    assert pd.read_csv(out / "ledger.csv")["role"].tolist() == ["target", "target", "non-target", "non-target", "new"]
    for text, error in [
        ("id,role\n2,chief\n", "is no role"), ("id,role\n7,target\n", "there is no lesion 7"), ("a,b\n1,2\n", "needs a column id"),
        ("id,nodal\n1,perhaps\n", "yes or no"), ("id,finding_site\n1,left of middle\n", "is no site of the standard"),
    ]:  # fmt: skip
        table.write_text(text)
        code, _, told = medseg(*given, "--table", table)
        assert code in (2, 4) and error in told


def test_what_cannot_be_followed_is_said_in_one_line(medseg, visits, tmp_path):
    out = tmp_path / "course"
    image = visits[0].split("=")[0]
    for given, error in [
        ([visits[0]], "at least one later visit"),
        ([image, image], "has no mask"),
        ([*visits, "--dates", "2024-01-01"], "1 dates for 2 visits"),
        ([*visits, "--dates", "yesterday,today"], "is no date"),
        ([*visits, "--registration", "magic"], "registration"),
        ([*visits, "--save", "seg"], "was not read from DICOM"),
        ([*visits, "--model", "nuclei3d", "--threshold", ">1"], "one of the two"),
        ([visits[0], f"{image}={tmp_path / 'none.nii.gz'}"], "none.nii.gz"),
    ]:
        code, _, told = medseg("follow", *given, "-o", out)
        assert code in (2, 4) and error in told and "Traceback" not in told
        assert not out.exists()


def test_a_mask_of_one_id_in_pieces_is_told_of_and_can_be_cut(medseg, visits, tmp_path):
    mask = tmp_path / "mask0.nii.gz"
    drawn = io.load_labels(mask)
    io.save_labels(Instances.from_labels((drawn.labels > 0).astype(np.int32), drawn.grid), mask)
    out = tmp_path / "course"
    _, said, told = medseg("follow", *visits, "-o", out, "--registration", "none")
    assert "has one id in 2 pieces" in told and "visit 0: 1 baseline" in said
    _, said, told = medseg("follow", *visits, "-o", out, "--registration", "none", "--separate")
    assert "pieces" not in told and "visit 0: 2 baseline" in said


def test_tracking_uids_go_into_dicom(medseg, real_data, tmp_path):
    case = real_data / "lesions/lidc_0314"
    one = f"{case / 'dicom'}={case / 'consensus50_mask.nii.gz'}"
    out = tmp_path / "course"
    code, _, told = medseg(
        "follow",
        one,
        one,
        "-o",
        out,
        "--dates",
        "2020-01-01,2020-06-01",
        "--save",
        "seg,sr,rtstruct",
        "--finding",
        "nodule",
    )
    assert code == 0, told
    uids = {pydicom.dcmread(out / f"visit{k}_seg.dcm").SegmentSequence[0].TrackingUID for k in range(2)}
    uids |= {io.load_report(out / f"visit{k}_sr.dcm")["tracking_uid"].iloc[0] for k in range(2)}
    uids |= set(pd.read_csv(out / "ledger.csv")["tracking_uid"])
    assert len(uids) == 1
    assert [io.load_report(out / f"visit{k}_sr.dcm")["role"].tolist() for k in range(2)] == [["target"]] * 2
    table = tmp_path / "known.csv"
    table.write_text("id,finding_site,role\n1,C34.1:I10:upper lobe,\n")  # the empty cell says nothing
    given = ["follow", one, one, "-o", tmp_path / "coded", "--dates", "2020-01-01,2020-06-01", "--save", "seg,sr"]
    code, _, told = medseg(*given, "--table", table)
    assert code == 0, told
    for k in range(2):
        (region,) = pydicom.dcmread(tmp_path / "coded" / f"visit{k}_seg.dcm").SegmentSequence[0].AnatomicRegionSequence
        assert (region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning) == ("C34.1", "I10", "upper lobe")
    last = f"{case / 'dicom'}={out / 'visit0_seg.dcm'}"  # the baseline as it was written goes on as the same lesion
    given = [
        "follow",
        last,
        one,
        "-o",
        tmp_path / "later",
        "--dates",
        "2020-01-01,2021-01-01",
        "--registration",
        "none",
    ]
    assert medseg(*given).code == 0
    ledger = pd.read_csv(tmp_path / "later" / "ledger.csv")
    assert set(ledger["tracking_uid"]) == uids and set(ledger["role"]) == {"target"}
    code, _, told = medseg("follow", one, one, "-o", out)
    assert code == 4 and "same date" in told
