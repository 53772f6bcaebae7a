"""medseg segment: what goes in, what comes out."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image as Picture

from medseg import io
from medseg.cli import common

KINDS = ("labels", "instances", "overlay")


def cases(out: str) -> list[dict]:
    """Every line of standard output must be a JSON object."""
    return [json.loads(line) for line in out.splitlines()]


def test_one_file(medseg, field, tmp_path):
    code, out, err = medseg("segment", field, "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"field: (\d+) instances in \d+\.\d s -> field_labels\.tif, field_instances\.csv, field_overlay\.png\n", out
    )
    made = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert made == ["field_instances.csv", "field_labels.tif", "field_overlay.png"]
    labels = io.load_labels(tmp_path / "out/field_labels.tif")
    table = pd.read_csv(tmp_path / "out/field_instances.csv")
    assert labels.labels.shape == (80, 112) and 1 <= len(labels) <= 30
    assert list(table["id"]) == list(labels.table["id"]) and list(table["voxels"]) == list(labels.table["voxels"])
    assert "area_px" in table and re.search(r"\d+", out).group() == str(len(labels))
    with Picture.open(tmp_path / "out/field_overlay.png") as picture:
        assert picture.mode == "RGB" and picture.width * 80 == picture.height * 112


def test_json_one_object_for_each_case(medseg, field, stack, tmp_path):
    code, out, err = medseg("segment", stack, field, "-o", tmp_path / "out", "--json")
    assert code == 0
    found = cases(out)
    assert [c["case"] for c in found] == ["stack", "field"]
    assert [c["model"] for c in found] == ["nuclei3d", "nuclei2d"]
    assert [c["unit"] for c in found] == ["um", "px"]
    for case in found:
        assert {"case", "files", "count", "seconds", "warnings"} <= set(case)
        assert [Path(f).stem.removeprefix(f"{case['case']}_") for f in case["files"]] == list(KINDS)
        assert all(Path(f).stat().st_size for f in case["files"])
        assert case["count"] == len(io.load_labels(case["files"][0])) and case["seconds"] > 0
    assert io.load_labels(found[0]["files"][0]).grid.spacing == pytest.approx((1e-3, 5e-4, 5e-4))
    said = [[*c["warnings"], *(f"note: {n}" for n in c["notes"])] for c in found]
    assert err.splitlines() == [
        f"medseg: {c['case']}: {w}" for c, lines in zip(found, said, strict=True) for w in lines
    ]


def test_no_instance_is_a_normal_result(medseg, tmp_path):
    tifffile.imwrite(tmp_path / "blank.tif", np.zeros((64, 64), np.uint8))
    result = medseg("segment", tmp_path / "blank.tif", "-o", tmp_path / "out", "--json", "--min-score", "1")
    (case,) = cases(result.out)
    assert result.code == 0 and case["count"] == 0 and not result.errors
    assert io.load_labels(case["files"][0]).labels.max() == 0
    assert pd.read_csv(case["files"][1]).empty


def test_folder_and_glob(medseg, field, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("b.tif", "a.tif"):
        (folder / name).write_bytes(field.read_bytes())
    (folder / "notes.txt").write_text("not an image")
    result = medseg("segment", folder, "-o", tmp_path / "out", "--json")
    assert result.code == 0 and [c["case"] for c in cases(result.out)] == ["a", "b"]
    result = medseg("segment", folder / "*.tif", folder / "a.tif", "-o", tmp_path / "out2", "--json")
    assert result.code == 0 and [c["case"] for c in cases(result.out)] == ["a", "b"]  # each once
    result = medseg("segment", folder, "-o", folder)
    assert result.code == 2 and "is also an input" in result.errors[0] and not list(folder.glob("*labels*"))


def test_two_inputs_with_the_same_stem(medseg, field, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Picture.fromarray(tifffile.imread(field)).save(other / "FIELD.png")  # no file system may mix them up
    code, out, _ = medseg("segment", field, other / "FIELD.png", "-o", tmp_path / "out", "--json")
    found = cases(out)
    assert code == 0 and all(re.fullmatch(r"field_[0-9a-f]{12}", c["case"].lower()) for c in found)
    assert len({f.lower() for c in found for f in c["files"]}) == 6
    assert [c["input"] for c in found] == [str(field), str(other / "FIELD.png")]


def test_ct_needs_a_model_and_force(medseg, ct, tmp_path):
    result = medseg("segment", ct, "-o", tmp_path / "out")
    assert result.code == 4 and result.out == "" and not (tmp_path / "out").exists()
    assert len(result.errors) == 1 and "CT" in result.errors[0] and "--model" in result.errors[0]
    result = medseg("segment", ct, "-o", tmp_path / "out", "--model", "nuclei3d")
    assert result.code == 4 and len(result.errors) == 1 and "--force" in result.errors[0]
    result = medseg("segment", ct, "-o", tmp_path / "out", "--model", "nuclei3d", "--force", "--json")
    (case,) = cases(result.out)
    assert result.code == 0 and re.fullmatch(r"CT_[0-9a-f]{12}", case["case"])
    assert sorted(Path(f).name for f in case["files"]) == sorted(
        f"{case['case']}_{kind}" for kind in ("labels.nii.gz", "instances.csv", "overlay.png")
    )
    assert any("trained on microscopy" in w for w in case["warnings"]) and case["unit"] == "mm"
    assert io.load(ct).grid.matches(io.load_labels(case["files"][0]).grid)
    for patient in ("Surname", "MRN12345"):
        assert patient not in result.out.replace(str(ct), "") + result.err


def test_spacing_of_one_number_and_of_several(medseg, field, tmp_path):
    areas = []
    for given in ("0.5", "0.5,0.5", "0.5x0.5"):
        result = medseg("segment", field, "-o", tmp_path / "out", "--spacing", given, "--unit", "um")
        assert result.code == 0
        table = pd.read_csv(tmp_path / "out/field_instances.csv")
        areas.append((table["area_um2"] / table["voxels"]).tolist())
    assert areas[0] == areas[1] == areas[2] == pytest.approx([0.25] * len(areas[0]))


def test_channels_and_scores(medseg, tmp_path):
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[20:40, 20:40, 1] = 200
    Picture.fromarray(rgb).save(tmp_path / "rgb.png")
    assert medseg("segment", tmp_path / "rgb.png", "-o", tmp_path / "out", "--channels", "green").code == 0
    assert medseg("segment", tmp_path / "rgb.png", "-o", tmp_path / "out", "--channels", "1").code == 0
    result = medseg("segment", tmp_path / "rgb.png", "-o", tmp_path / "out", "--channels", "dapi")
    assert result.code == 4 and "dapi" in result.errors[0] and "red, green, blue" in result.errors[0]


def test_results_that_go_into_a_file_do_not_end_on_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setattr(common, "is_terminal", lambda: True)
    with common.progress() as bar:
        bar.add_task("images", total=1, note="img [/bold] [x].tif")
        print('{"case": "a"}')  # noqa: T201
    out, err = capsys.readouterr()
    assert out == '{"case": "a"}\n' and "images" in err and "[/bold] [x]" in err
