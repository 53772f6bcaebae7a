"""Which cases lie under a path, by layout."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import tifffile

from medseg.batch import Case, Input, discover, scenes
from medseg.batch.cases import chosen
from medseg.batch.placing import write_bids_description
from medseg.errors import FormatError, InputError, MissingError
from medseg.testing import series

from .conftest import RULE, batch, field, fill, finished


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def brief(cases):
    return [[(one.role, *(file.name for file in one.files)) for one in case.inputs] for case in cases]


def test_a_folder_of_images(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.tif", "notes.txt", ".hidden.tif", "below/c.tif")
    cases = discover(tmp_path)
    assert brief(cases) == [[("", "a.tif")], [("", "b.nii.gz")]]
    assert [(c.kind, c.facts["suffix"], c.fault) for c in cases] == [("file", "tif", ""), ("file", "nii.gz", "")]


def test_one_image_and_nothing(tmp_path):
    touch(tmp_path, "a.tif", "below/c.tif")
    assert brief(discover(tmp_path / "a.tif")) == [[("", "a.tif")]]
    with pytest.raises(MissingError, match="is not there"):
        discover(tmp_path / "b")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(MissingError, match="--pattern"):
        discover(tmp_path)


def test_scenes_of_a_microscope_are_cases(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(tmp_path / "three.czi")) as file:
        for scene in range(3):
            file.write(data=np.full((20, 30, 1), scene, np.uint8), location=(100 * scene, 0), scene=scene)
    with czi.create_czi(str(tmp_path / "one.czi")) as file:
        file.write(data=np.zeros((20, 30, 1), np.uint8))
    touch(tmp_path, "broken.czi", "z.tif")
    cases = discover(tmp_path)
    assert [(c.files[0].name, c.inputs[0].series) for c in cases] == [
        ("broken.czi", ""), ("one.czi", ""), ("three.czi", "1"), ("three.czi", "2"), ("three.czi", "3"), ("z.tif", ""),
    ]  # fmt: skip
    assert len(discover(tmp_path / "three.czi")) == 3
    kept, _ = chosen(cases, {"scene": "2"})
    assert [c.inputs[0].series for c in kept] == ["2"]


def test_what_ends_or_holds_up_the_counting_of_scenes_is_one_case(tmp_path, monkeypatch):
    files = [tmp_path / f"{name}.czi" for name in ("a", "dies", "b", "hangs", "c")]
    touch(tmp_path, *(file.name for file in files))
    program = tmp_path / "count.py"
    program.write_text(
        "import sys, os, time\n"
        "for name in sys.stdin.buffer.read().split(b'\\0'):\n"
        "    os._exit(1) if b'dies' in name else time.sleep(60 if b'hangs' in name else 0)\n"
        "    print(2, flush=True)\n"
    )
    real = scenes.subprocess.Popen
    monkeypatch.setattr(scenes.subprocess, "Popen", lambda command, **more: real([command[0], str(program)], **more))
    monkeypatch.setattr(scenes, "_PATIENCE", 2.0)
    found = scenes.counts(files)
    assert [found[file] for file in files] == [2, 1, 2, 1, 2]
    monkeypatch.setattr(scenes.subprocess, "Popen", None)
    assert scenes.counts(files) == found  # known by now


def test_folders_that_are_links_are_told_of(tmp_path):
    touch(tmp_path, "elsewhere/scan/a.tif", "study/notes.txt")
    (tmp_path / "study/scan").symlink_to(tmp_path / "elsewhere/scan")
    with pytest.raises(MissingError, match="folders that are links are not followed"):
        discover(tmp_path / "study")


def test_dicom_by_series(tmp_path):
    for number, modality in enumerate(("CT", "MR", "CT")):
        planes = series.stack(4, series=f"1.2.{number + 1}", seed=number, Modality=modality)
        series.save(tmp_path / f"p{number % 2}/s{number}", planes, seed=number)
    touch(tmp_path, "p0/report.txt", "slide.tif")
    cases = discover(tmp_path)
    assert sorted((c.kind, c.facts.get("modality", ""), len(c.files)) for c in cases) == [
        ("dicom", "CT", 4), ("dicom", "CT", 4), ("dicom", "MR", 4), ("file", "", 1),
    ]  # fmt: skip
    kept, left_out = chosen(cases, {"modality": "ct"})
    assert [len(c.files) for c in kept] == [4, 4] and left_out == 2
    with pytest.raises(InputError, match="no case says 'colour'"):
        chosen(cases, {"colour": "red"})


def bids(root: Path) -> Path:
    return touch(
        root, "dataset_description.json", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz",
        "sub-01/anat/sub-01_FLAIR_dseg.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_run-1_FLAIR.nii.gz",
        "sub-02/ses-a/anat/Jane Doe.nii.gz", "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz",
    )  # fmt: skip


def test_bids(tmp_path):
    cases = discover(bids(tmp_path))
    assert sorted((c.kind, c.label, c.place) for c in cases) == [
        ("bids", "sub-01_FLAIR", "sub-01/anat"),
        ("bids", "sub-01_T1w", "sub-01/anat"),
        ("bids", "sub-02_ses-a_run-1_FLAIR", "sub-02/ses-a/anat"),
        ("file", "", ""),
    ]
    kept, _ = chosen(cases, {"suffix": "flair", "ses": "a"})
    assert [c.label for c in kept] == ["sub-02_ses-a_run-1_FLAIR"]


def test_bids_by_the_inputs_of_a_model(tmp_path):
    cases = discover(bids(tmp_path), roles=("flair", "T1"))
    assert brief(cases)[0] == [("flair", "sub-01_FLAIR.nii.gz"), ("T1", "sub-01_T1w.nii.gz")]
    assert [c.fault for c in cases] == ["", "the model's inputs T1 are not there; add them"]
    assert [c.label for c in cases] == ["sub-01_multi", "sub-02_ses-a_run-1_multi"]


def test_nnunet(tmp_path):
    root = touch(
        tmp_path, *(f"imagesTs/case{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)), "imagesTs/case3_0000.nii.gz"
    )
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "FLAIR", "1": "T1"}}))
    cases = discover(root)
    assert brief(cases)[1] == [("FLAIR", "case2_0000.nii.gz"), ("T1", "case2_0001.nii.gz")]
    assert [c.fault for c in cases] == ["", "", "channels 0001 of other cases are not there; add them"]
    assert brief(discover(root / "imagesTs")) == brief(cases)


def test_decathlon(tmp_path):
    touch(
        tmp_path,
        "imagesTr/hippo_003.nii.gz",
        "imagesTr/hippo_004.nii.gz",
        "labelsTr/hippo_003.nii.gz",
        "imagesTs/x_0000.nii.gz",
    )
    assert brief(discover(tmp_path)) == [[("", f"{name}.nii.gz")] for name in ("hippo_003", "hippo_004", "x_0000")]


def test_numbered_images_are_no_channels(tmp_path):
    touch(tmp_path, "field_0001.tif", "field_0002.tif")
    assert len(discover(tmp_path)) == 2


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list(tmp_path, suffix):
    table = pd.DataFrame({"Image": ["a.tif", "sub/b.tif"], "Group": ["x", "y"]})
    path = tmp_path / f"list{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    cases = discover(path)
    assert [c.inputs[0].files[0] for c in cases] == [tmp_path / "a.tif", tmp_path / "sub/b.tif"]
    assert [c.facts["group"] for c in cases] == ["x", "y"]
    with pytest.raises(FormatError, match="has no column image, or flair, t1"):
        pd.DataFrame({"x": ["a"]}).to_csv(tmp_path / "bad.csv")
        discover(tmp_path / "bad.csv", roles=("flair", "t1"))


def test_a_list_with_the_inputs_of_a_model(tmp_path):
    pd.DataFrame({"FLAIR": ["f1", "f2"], "T1": ["t1", ""]}).to_csv(tmp_path / "list.csv", index=False)
    cases = discover(tmp_path / "list.csv", roles=("flair", "t1"))
    assert brief(cases) == [[("flair", "f1"), ("t1", "t1")], [("flair", "f2")]]
    assert [bool(c.fault) for c in cases] == [False, True]


def test_plates(tmp_path):
    touch(tmp_path, *(f"{w}_s{s}_w{c}.tif" for w in ("A01", "B12") for s in (1, 2) for c in (1, 2)), "A01_thumb.tif")
    (tmp_path / "B12_s2_w2.tif").unlink()
    cases = discover(tmp_path, "{well}_s{site}_w{channel}.tif")
    assert brief(cases)[0] == [("1", "A01_s1_w1.tif"), ("2", "A01_s1_w2.tif")]
    assert [(c.facts["well"], c.facts["site"], bool(c.fault)) for c in cases] == [
        ("A01", "1", False), ("A01", "2", False), ("B12", "1", False), ("B12", "2", True),
    ]  # fmt: skip
    for pattern, error in (("image.tif", InputError), ("{a}_{a}.tif", InputError), ("{a}.png", MissingError)):
        with pytest.raises(error):
            discover(tmp_path, pattern)


def test_a_pattern_with_folders(tmp_path):
    touch(tmp_path, "p1/scan.nii.gz", "p2/scan.nii.gz", "p2/other.nii.gz")
    assert brief(discover(tmp_path, "{case}/scan.nii.gz")) == [[("", "scan.nii.gz")], [("", "scan.nii.gz")]]


# ------------------------------------------------------------------ and what comes of them


def test_a_plate_is_segmented(tmp_path):
    home = fill(tmp_path / "in", 0)
    for site in (1, 2):
        tifffile.imwrite(home / f"A01_s{site}_w1.tif", np.zeros((64, 80), np.uint8))
        tifffile.imwrite(home / f"A01_s{site}_w2.tif", field(site))
    plate = ("--pattern", "{well}_s{site}_w{channel}.tif")
    batch(tmp_path / "in", "-o", tmp_path / "out", *RULE, *plate, "--channels", "2")
    table = pd.read_parquet(tmp_path / "out/instances.parquet")
    assert table["case"].nunique() == 2 and len(table) >= 10
    shown = batch(tmp_path / "in", "-o", "unused", *RULE, *plate, "--dry-run", "--json")
    rows = json.loads(shown.stdout)
    assert [(r["kind"], r["inputs"], r["roles"]) for r in rows] == [("plate", 2, ["1", "2"])] * 2


def test_bids_derivatives(tmp_path):
    root = tmp_path / "raw"
    for subject in ("01", "02"):
        home = root / f"sub-{subject}/ses-1/anat"
        home.mkdir(parents=True)
        volume = np.stack([field(int(subject))] * 4).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume.T, np.diag([1, 1, 2, 1])), home / f"sub-{subject}_ses-1_T1w.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    out = tmp_path / "out"
    batch(root, "-o", out, *RULE)
    told = json.loads((out / "dataset_description.json").read_text())
    assert told["DatasetType"] == "derivative" and told["GeneratedBy"][0]["Name"] == "medseg"
    assert "DatasetLinks" not in told  # its path could name somebody
    home = out / "sub-02/ses-1/anat"
    assert sorted(path.name for path in home.iterdir()) == [
        f"sub-02_ses-1_desc-T1w_{end}"
        for end in ("dseg.json", "dseg.nii.gz", "dseg.tsv", "instances.parquet", "overlay.png", "provenance.json")
    ]
    labels = nibabel.load(home / "sub-02_ses-1_desc-T1w_dseg.nii.gz")
    table = pd.read_csv(home / "sub-02_ses-1_desc-T1w_dseg.tsv", sep="\t")
    assert list(table.columns[:2]) == ["index", "name"]
    assert sorted(table["index"]) == [i for i in np.unique(np.asarray(labels.dataobj)) if i]
    sidecar = json.loads((home / "sub-02_ses-1_desc-T1w_dseg.json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz"]
    assert set(pd.read_parquet(out / "instances.parquet")["case"]) == {"sub-01_ses-1_T1w", "sub-02_ses-1_T1w"}


def test_derivatives_inside_a_data_set_say_where_it_is(tmp_path):
    raw = tmp_path / "Doe"
    (raw / "sub-01/anat").mkdir(parents=True)
    case = Case("bids", (Input((raw / "sub-01/anat/sub-01_T1w.nii.gz",)),), place="sub-01/anat")
    out = raw / "derivatives/medseg"
    out.mkdir(parents=True)
    write_bids_description(out, case.root)
    told = (out / "dataset_description.json").read_text()
    assert json.loads(told)["DatasetLinks"] == {"raw": "../.."} and "Doe" not in told


def test_scenes_are_done_each_and_name_nobody(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    study, out = tmp_path / "in", tmp_path / "out"
    study.mkdir()
    with czi.create_czi(str(study / "Doe_Jane.czi")) as file:
        for scene in range(2):
            file.write(data=field(scene)[..., np.newaxis], location=(200 * scene, 0), scene=scene)
        file.write_metadata("DoeJane", channel_names={0: "DoeJane"}, scale_x=0.2e-6, scale_y=0.2e-6)
    batch(study, "-o", out, *RULE)
    table = pd.read_parquet(out / "instances.parquet")
    assert table["case"].nunique() == 2 and "area_um2" in table.columns or "area_mm2" in table.columns
    assert len(list(out.glob("case-*/*_labels.tif"))) == 2  # as of every microscope image
    for path in out.rglob("*"):
        if path.is_file() and path.name != "key.csv":
            assert b"Jane" not in path.read_bytes(), path
    assert finished(batch(study, "-o", out, *RULE).stdout) == 0
