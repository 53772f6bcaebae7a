"""medseg separate, medseg measure, and rules in medseg segment."""

import numpy as np
import pandas as pd
import pytest

from medseg import io
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances


@pytest.fixture
def mask(tmp_path):
    """A NIfTI mask of two touching balls and one apart, all with one id, and an image of it."""
    z, y, x = np.mgrid[:24, :40, :60]
    labels = np.zeros((24, 40, 60), np.int32)
    for cz, cy, cx, r in ((12, 14, 14, 8), (12, 14, 28, 8), (12, 30, 50, 6)):
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= r * r] = 1
    grid = Grid.from_nifti((60, 40, 24), np.diag([1.0, 1.0, 1.0, 1.0]))
    io.save_labels(Instances.from_labels(labels, grid), tmp_path / "mask.nii.gz")
    io.save_image(Image((100 * labels[None]).astype(np.int16), grid), tmp_path / "image.nii.gz")
    return tmp_path / "mask.nii.gz"


def test_a_mask_comes_apart(medseg, mask, tmp_path):
    code, out, err = medseg("separate", mask, "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out == "1 ids in the mask, 3 objects -> mask_labels.nii.gz, mask_instances.csv, mask_overlay.png\n"
    table = pd.read_csv(tmp_path / "out/mask_instances.csv")
    assert len(table) == 3 and table["long_axis_mm"].between(12, 18).all()
    assert not [name for name in table if name.startswith("intensity")]  # of the mask itself they would say nothing
    assert len(io.load_labels(tmp_path / "out/mask_labels.nii.gz")) == 3


def test_pieces_only_and_small_ones_left_out(medseg, mask, tmp_path):
    assert medseg("separate", mask, "-o", tmp_path / "a", "--method", "components").out.startswith(
        "1 ids in the mask, 2 "
    )
    out = medseg("separate", mask, "-o", tmp_path / "b", "--min-volume", "1500").out
    assert out.startswith("1 ids in the mask, 2 ")


def test_a_method_that_needs_the_image_says_so(medseg, mask, tmp_path):
    found = medseg("separate", mask, "-o", tmp_path / "out", "--method", "intensity")
    assert found.code == 4 and "--image" in found.errors[0]
    assert not (tmp_path / "out").exists()
    image = mask.with_name("image.nii.gz")
    found = medseg(
        "separate", mask, "-o", tmp_path / "out", "--method", "intensity", "--image", image, "--values", "HU"
    )
    assert found.code == 0
    assert "hu_mean" in pd.read_csv(tmp_path / "out/mask_instances.csv")


def test_an_image_on_a_coarser_grid_is_measured_and_drawn(medseg, mask, tmp_path):
    """A mask of a CT beside its PET: the grids differ, the picture must still fit the labels."""
    fine = io.load(mask.with_name("image.nii.gz"))
    coarse = Grid.from_nifti((15, 10, 12), np.array([[4, 0, 0, 1.5], [0, 4, 0, 1.5], [0, 0, 2, 0.5], [0, 0, 0, 1.0]]))
    io.save_image(fine.on(coarse), tmp_path / "coarse.nii.gz")
    found = medseg(
        "separate", mask, "-o", tmp_path / "out", "--image", tmp_path / "coarse.nii.gz", "--save", "labels,overlay,report"
    )  # fmt: skip
    assert found.code == 0 and "interpolated" in found.err
    assert (tmp_path / "out/mask_report.html").exists()
    assert medseg("separate", mask, "-o", tmp_path / "same").code == 0
    assert _size(tmp_path / "out/mask_overlay.png") == _size(tmp_path / "same/mask_overlay.png")


def _size(path):
    from PIL import Image as Picture

    with Picture.open(path) as picture:
        return picture.size


def test_a_map_of_chances_is_told_how_to_become_a_mask(medseg, mask, tmp_path):
    image = io.load(mask.with_name("image.nii.gz"))
    io.save_image(Image(image.voxels() / np.float32(130), image.grid), tmp_path / "map.nii.gz")
    found = medseg("separate", tmp_path / "map.nii.gz", "-o", tmp_path / "out")
    assert found.code == 4 and "--threshold" in found.errors[0]


def test_a_method_that_is_none(medseg, mask, tmp_path):
    found = medseg("separate", mask, "-o", tmp_path / "out", "--method", "magic")
    assert found.code == 2 and "method" in found.errors[0]


def test_labels_are_measured(medseg, mask, tmp_path):
    medseg("separate", mask, "-o", tmp_path / "out")
    labels = tmp_path / "out/mask_labels.nii.gz"
    code, out, _ = medseg("measure", labels, "-o", tmp_path / "t.csv", "--nodal", "--finding-site", "lymph node")
    assert code == 0 and out.startswith("t.csv: count 3, total_volume_ml ")
    table = pd.read_csv(tmp_path / "t.csv")
    assert set(table["finding_site"]) == {"Lymph Node"} and table["nodal"].all()
    assert medseg("measure", labels, "-o", tmp_path / "u.parquet", "--unit", "um", "--kind", "cell").code == 0
    small = pd.read_parquet(tmp_path / "u.parquet")
    assert small["feret_max_um"].max() == pytest.approx(17000, rel=0.1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--finding-site", "the big one"), "--finding-site"),
        (("--plane", "oblique"), "plane"),
        (("--unit", "furlong"), "--unit"),
        (("--role", "hero"), "role"),
    ],
)
def test_wrong_options_are_told(medseg, mask, tmp_path, options, told):
    found = medseg("measure", mask, "-o", tmp_path / "t.csv", *options)
    assert found.code == 2 and told in found.errors[0]
    assert not (tmp_path / "t.csv").exists()


def test_a_rule_takes_the_place_of_a_model(medseg, mask, tmp_path):
    image = mask.with_name("image.nii.gz")
    code, out, _ = medseg("segment", image, "-o", tmp_path / "out", "--threshold", ">50", "--save", "csv,report")
    assert code == 0 and out.startswith("image: 3 instances in ")
    assert len(pd.read_csv(tmp_path / "out/image_instances.csv")) == 3
    page = (tmp_path / "out/image_report.html").read_text()
    assert "&gt;50, separated by shape" in page
    assert "slice z 12 (S 12.0 mm); the patient&#39;s right is at the left" in page


def test_a_rule_that_finds_nothing_is_a_normal_result(medseg, mask, tmp_path):
    image = mask.with_name("image.nii.gz")
    found = medseg(
        "segment", image, "-o", tmp_path / "out", "--threshold", ">5000", "--save", "labels,nifti,csv,overlay,report"
    )
    assert found.code == 0 and not found.errors
    assert found.out.count("image_labels.nii.gz") == 1  # of a volume, labels and nifti are one file
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--threshold", "SUV>4"), 4, "--values SUVbw"),
        (("--threshold", "HU>4"), 4, "--values HU"),
        (("--threshold", "lots"), 2, "no rule"),
        (("--threshold", ">5", "--model", "nuclei3d"), 2, "one of the two"),
        (("--method", "components"), 2, "--threshold"),
        (("--threshold", ">5", "--save", "csv,pdf"), 2, "pdf"),
        (("--threshold", ">5", "--save", "seg"), 4, "DICOM"),
    ],
)
def test_rules_that_cannot_be_followed_are_told(medseg, mask, tmp_path, options, code, told):
    found = medseg("segment", mask.with_name("image.nii.gz"), "-o", tmp_path / "out", *options)
    assert found.code == code
    assert told in found.errors[0]
    assert not list((tmp_path / "out").glob("*"))  # told before the work is done


def test_what_a_person_knows_of_single_objects_goes_into_the_table(medseg, mask, tmp_path):
    medseg("separate", mask, "-o", tmp_path / "out", "--save", "labels")
    (tmp_path / "known.csv").write_text("id,finding_site,role\n2,liver,target\n")
    labels, known = tmp_path / "out/mask_labels.nii.gz", tmp_path / "known.csv"
    code, _, err = medseg("measure", labels, "-o", tmp_path / "t.csv", "--table", known, "--role", "non-target")
    assert code == 0, err
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert table["role"].tolist() == ["non-target", "target", "non-target"]
    assert table["finding_site"].tolist() == ["", "Liver", ""]


def test_what_a_segmentation_says_is_in_the_table_that_is_measured_of_it(medseg, real_data, tmp_path):
    case = real_data / "lesions" / "lidc_0314"
    image, mask = case / "dicom", case / "consensus50_mask.nii.gz"
    given = ("--image", image, "--save", "seg", "--finding-site", "lung", "--role", "target")
    assert medseg("separate", mask, "-o", tmp_path / "out", *given).code == 0
    (seg,) = (tmp_path / "out").glob("*_seg.dcm")
    for options, site, nodal in (((), "Lung", False), (("--finding-site", "liver", "--nodal"), "Liver", True)):
        assert medseg("measure", seg, "-o", tmp_path / "t.csv", *options).code == 0
        table = pd.read_csv(tmp_path / "t.csv")
        assert set(table["finding_site"]) == {site} and set(table["role"]) == {"target"}
        assert table["nodal"].tolist() == [nodal] * len(table)


def test_lymph_nodes_of_a_table_are_measured_as_nodes(medseg, mask, tmp_path):
    """Balls of about 16 and 12 mm: as lesions all are measurable, as nodes the last is not."""
    medseg("separate", mask, "-o", tmp_path / "out", "--save", "labels")
    labels, known = tmp_path / "out/mask_labels.nii.gz", tmp_path / "known.csv"
    found = {}
    for text in ("id,nodal\n1,no\n", "id,nodal\n1,yes\n2,yes\n3,yes\n", "id,finding_site\n3,lymph node\n"):
        known.write_text(text)
        assert medseg("measure", labels, "-o", tmp_path / "t.csv", "--table", known).code == 0
        table = pd.read_csv(tmp_path / "t.csv")
        found[text] = table["nodal"].tolist(), table["measurable"].tolist()
    assert list(found.values()) == [
        ([False] * 3, [True] * 3),
        ([True] * 3, [True, True, False]),
        ([False, False, True], [True, True, False]),
    ]
    assert medseg("measure", labels, "-o", tmp_path / "t.csv", "--finding-site", "lymph node").code == 0
    assert pd.read_csv(tmp_path / "t.csv")["nodal"].all()


def test_what_lies_beyond_the_image_has_no_intensities_and_is_told(medseg, mask, tmp_path):
    """It would count as the darkest value of the image, and the mean of what is seen would be wrong."""
    medseg("separate", mask, "-o", tmp_path / "out", "--save", "labels")
    image = io.load(mask.with_name("image.nii.gz"))
    io.save_image(image.crop((0, 0, 0), (24, 14, 60)), tmp_path / "part.nii.gz")
    found = medseg(
        "measure", tmp_path / "out/mask_labels.nii.gz", "-o", tmp_path / "t.csv", "--image", tmp_path / "part.nii.gz"
    )
    assert found.code == 0 and "lie outside of the image" in found.err
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 3 and (table["voxels"] > 0).all()
    assert table["intensity_min"].tolist()[:2] == [100.0, 100.0] and np.isnan(table["intensity_mean"].iloc[2])
