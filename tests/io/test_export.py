"""The files of a case: every kind written and read back, the page, nothing found, nobody's name in any of them."""

import re

import numpy as np
import pandas as pd
import pytest
from source_study import SECRETS, blobs, errors_of, needs_dciodvfy

from medseg import io
from medseg.errors import InputError, MedsegWarning
from medseg.export import DEFAULT, KINDS, save_case
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.segments import recorded
from medseg.spec import FindingSpec

ALL = tuple(kind for kind in KINDS if kind != "tiff")  # which warns that it cannot hold where the patient lies

pytestmark = pytest.mark.usefixtures("fixed_time")


@pytest.fixture
def lesions(source):
    return Instances.from_labels(blobs(source.grid.shape, 4), source.grid, classes=("lesion",))


def test_every_kind_is_written_and_says_the_same(tmp_path, source, lesions):
    site = FindingSpec(site=("39607008", "SCT", "Lung"), role="target")
    files = save_case(lesions, source, tmp_path, "CT_1", ALL, finding=site)
    assert len({f.name for f in files}) == len(ALL) - 1  # labels of a DICOM series are NIfTI
    table = pd.read_csv(tmp_path / "CT_1_instances.csv")
    same = pd.read_parquet(tmp_path / "CT_1_instances.parquet")
    assert list(table.columns) == list(same.columns)
    assert set(table["finding_site"]) == {"Lung"} and set(table["role"]) == {"target"}
    told = io.load_report(tmp_path / "CT_1_sr.dcm")
    for name in ("volume_ml", "long_axis_mm", "short_axis_mm", "diameter_3d_mm", "hu_mean", "hu_sd", "hu_median"):
        assert told[name].to_numpy() == pytest.approx(same[name].to_numpy(), rel=1e-6), name
    assert set(told["site_meaning"]) == {"Lung"}
    for name in ("CT_1_labels.nii.gz", "CT_1_seg.dcm"):
        back = io.load_labels(tmp_path / name, like=source)
        assert ((back.labels > 0) == (lesions.labels > 0)).all()
    assert len(io.load_candidates(tmp_path / "CT_1_rtstruct.dcm", like=source)[0]) == 4


SAID = pd.DataFrame(
    {
        "finding_site": [np.nan, "Liver", "", "Lymph Node"],
        "nodal": [np.nan, False, True, True],
        "role": ["target", "", "non-target", "new"],
    }
)


@pytest.mark.parametrize("deidentify", [False, True])
def test_what_a_person_said_of_single_lesions_is_in_segmentation_and_report(tmp_path, source, lesions, deidentify):
    lung = FindingSpec(site=("39607008", "SCT", "Lung"), type=("27925004", "SCT", "Nodule"))
    kinds, said = ("csv", "seg", "sr"), SAID.assign(id=lesions.table["id"])
    save_case(lesions, source, tmp_path, "a", kinds, finding=lung, said=said, deidentify=deidentify)
    table = pd.read_csv(tmp_path / "a_instances.csv", keep_default_na=False)
    sites, nodal, roles = ["Lung", "Liver", "", "Lymph Node"], [False, False, True, True], SAID["role"].tolist()
    assert table[["finding_site", "nodal", "role"]].to_numpy().T.tolist() == [sites, nodal, roles]
    like = None if deidentify else source
    segments = io.load_candidates(tmp_path / "a_seg.dcm", like=like)[2]["segments"]
    assert [one["nodal"] for one in segments] == nodal and [one["role"] for one in segments] == roles
    coded = ["39607008", "10200004", "59441001", "59441001"]  # of the node without a site the node is the site
    assert [one["site"][0] for one in segments] == coded
    told = io.load_report(tmp_path / "a_sr.dcm")
    assert told["site"].tolist() == coded and told["role"].fillna("").tolist() == roles
    assert told["nodal"].eq(True).tolist() == nodal and set(told["finding_meaning"]) == {"Nodule"}
    # and goes on from there: the SEG of one day is what the next begins with
    back = io.load_labels(tmp_path / "a_seg.dcm", like=like)
    if not deidentify:
        save_case(back, source, tmp_path, "b", kinds)
        again = pd.read_csv(tmp_path / "b_instances.csv", keep_default_na=False)
        sites[2] = "Lymph Node"
        assert again[["finding_site", "nodal", "role"]].to_numpy().T.tolist() == [sites, nodal, roles]
        assert io.load_report(tmp_path / "b_sr.dcm")["role"].fillna("").tolist() == roles
        save_case(back, source, tmp_path, "c", ("seg", "csv"), said=pd.DataFrame({"id": [1], "role": [""]}))
        assert io.load_candidates(tmp_path / "c_seg.dcm")[2]["segments"][0]["role"] == ""
    assert set(recorded(back).columns) == {"id", "finding_site", "nodal", "role"}
    assert list(recorded(lesions)) == ["id"]


def test_an_organ_and_that_it_is_a_node_are_two_sites(tmp_path, source, lesions):
    own = FindingSpec(site=("T1", "99HOUSE", "Station 4R"), nodal=True, role="non-target")
    save_case(lesions, source, tmp_path, "a", ("seg", "sr"), finding=own)
    for one in io.load_candidates(tmp_path / "a_seg.dcm")[2]["segments"]:
        assert (one["site"], one["nodal"], one["role"]) == (own.site, True, "non-target")
    told = io.load_report(tmp_path / "a_sr.dcm")
    assert set(told["site_meaning"]) == {"Station 4R"} and told["nodal"].all() and set(told["role"]) == {"non-target"}
    # the words of no standard may name somebody: they are not in tables of what was read
    assert set(recorded(io.load_labels(tmp_path / "a_seg.dcm"))["finding_site"]) == {""}


def test_a_node_by_its_words_alone_comes_back_as_a_node(tmp_path, source, lesions):
    own = FindingSpec(site=("T1", "99HOUSE", "Lymph node station 4R"), nodal=True)
    save_case(lesions, source, tmp_path, "a", ("seg",), finding=own)
    assert recorded(io.load_labels(tmp_path / "a_seg.dcm"))["nodal"].all()


def test_a_site_of_no_standard_is_not_of_whom_a_person_said_another(tmp_path, source, lesions):
    own = FindingSpec(site=("T1", "99HOUSE", "Station 4R"))
    said = pd.DataFrame({"id": lesions.table["id"].to_numpy()[:2], "finding_site": ["", "Liver"]})
    save_case(lesions, source, tmp_path, "a", ("seg", "csv"), finding=own, said=said)
    sites = pd.read_csv(tmp_path / "a_instances.csv", keep_default_na=False)["finding_site"].tolist()
    written = [one["site"] and one["site"][2] for one in io.load_candidates(tmp_path / "a_seg.dcm")[2]["segments"]]
    assert sites == ["", "Liver", "Station 4R", "Station 4R"] and written == [None, *sites[1:]]


def test_what_is_said_to_be_no_node_is_measured_as_none(tmp_path):
    grid = Grid.from_spacing((24, 24, 24), 1.0)
    inside = (np.stack(np.mgrid[:24, :24, :24]) - 12.0) ** 2
    one, image = (
        Instances.from_labels((inside.sum(0) <= 36).astype(np.int32), grid),
        Image(np.zeros((1, 24, 24, 24)), grid),
    )
    said, node = pd.DataFrame({"id": [1], "nodal": [False]}), FindingSpec(nodal=True)
    for name, more, measurable in (
        ("a", {}, True),
        ("b", {"finding": node}, False),
        ("c", {"finding": node, "said": said}, True),
    ):
        save_case(one, image, tmp_path, name, ("csv",), **more)
        assert pd.read_csv(tmp_path / f"{name}_instances.csv")["measurable"].tolist() == [measurable]


@needs_dciodvfy
def test_dicom_files_are_valid(tmp_path, source, lesions):
    save_case(lesions, source, tmp_path, "CT_1", ("seg", "sr", "rtstruct"))
    lung = FindingSpec(site=("39607008", "SCT", "Lung"))
    save_case(
        lesions,
        source,
        tmp_path,
        "CT_2",
        ("seg", "sr", "rtstruct"),
        finding=lung,
        said=SAID.assign(id=lesions.table["id"]),
    )
    for name in ("seg", "sr", "rtstruct"):
        assert not errors_of(tmp_path / f"CT_1_{name}.dcm") and not errors_of(tmp_path / f"CT_2_{name}.dcm")


def test_a_report_in_dicom_brings_its_segmentation(tmp_path, source, lesions):
    files = save_case(lesions, source, tmp_path, "CT_1", ("sr",))
    assert [f.name for f in files] == ["CT_1_seg.dcm", "CT_1_sr.dcm"]


def test_nothing_found_is_a_result_in_every_kind_that_can_say_so(tmp_path, source):
    none = Instances.from_labels(np.zeros(source.grid.shape, np.int32), source.grid)
    with pytest.warns(MedsegWarning, match="nothing was found.*seg or rtstruct"):
        files = save_case(none, source, tmp_path, "CT_1", ALL)
    assert {"CT_1_sr.dcm", "CT_1_report.html", "CT_1_instances.csv", "CT_1_labels.nii.gz"} <= {f.name for f in files}
    assert len(pd.read_csv(tmp_path / "CT_1_instances.csv")) == 0
    assert len(io.load_report(tmp_path / "CT_1_sr.dcm")) == 0
    assert "Nothing was found" in (tmp_path / "CT_1_report.html").read_text()


def test_the_page_needs_nothing_else_and_names_nobody(tmp_path, source, lesions):
    out = tmp_path / "out"
    out.mkdir()
    save_case(lesions, source, out, "CT_1", ("report", "csv"))
    page = (out / "CT_1_report.html").read_text()
    assert "research use only" in page
    assert not re.search(r"<script|href=|src=\"(?!data:)|url\(", page)
    assert page.count("<tr>") == 1 + len(lesions) and page.count("<figure") == 1 + len(lesions)
    for path in out.iterdir():
        for secret in SECRETS.values():
            assert str(secret) not in path.read_text()


def test_text_of_a_file_stays_text_on_the_page(tmp_path, source, lesions):
    evil = "<script>alert(1)</script>"
    named = Instances.from_labels(
        lesions.labels, lesions.grid, class_ids=[1, 2, 1, 2], classes=(evil, "other"), provenance={"method": evil}
    )
    save_case(named, source, tmp_path, "CT_1", ("report",), finding=FindingSpec(site=("1", "99X", evil)))
    page = (tmp_path / "CT_1_report.html").read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") >= 2


def test_lymph_nodes_are_measurable_by_their_short_axis(tmp_path):
    labels = np.zeros((4, 60, 60), np.int32)
    labels[1, 5:17, 5:40], labels[2, 30:50, 30:52] = 1, 2
    grid = Grid.from_spacing(labels.shape, (3.0, 1.0, 1.0))
    nodes = Instances.from_labels(labels, grid)
    save_case(nodes, Image(labels[None], grid), tmp_path, "x", ("csv",), finding=FindingSpec(nodal=True))
    assert pd.read_csv(tmp_path / "x_instances.csv")["measurable"].tolist() == [False, True]


def test_cells_are_measured_in_micrometres(tmp_path):
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15], labels[20:30, 20:34] = 3, 8
    grid = Grid.from_spacing((40, 40), 0.5, unit="um")
    image = Image(labels[None].astype(np.uint16), grid, "microscopy")
    files = save_case(Instances.from_labels(labels, grid), image, tmp_path, "well", (*DEFAULT, "report"))
    table = pd.read_csv(tmp_path / "well_instances.csv")
    assert table["area_um2"].tolist() == [25.0, 35.0]
    assert table["intensity_mean"].tolist() == [3.0, 8.0]
    assert {"perimeter_um", "touching", "density_per_um2"} <= set(table.columns)
    assert [f.suffix for f in files] == [".csv", ".png", ".html"] or files[0].name == "well_labels.tif"


def test_what_is_no_kind_is_refused_before_anything_is_written(tmp_path, source, lesions):
    with pytest.raises(InputError, match="dicom"):
        save_case(lesions, source, tmp_path, "x", ("csv", "dicom"))
    assert not list(tmp_path.glob("x_*"))


def test_dicom_of_what_is_no_dicom_is_refused(tmp_path):
    grid = Grid.from_spacing((4, 8, 8), 1.0)
    labels = np.ones(grid.shape, np.int32)
    with pytest.raises(InputError, match="DICOM"):
        save_case(Instances.from_labels(labels, grid), Image(labels[None], grid), tmp_path, "x", ("seg",))
