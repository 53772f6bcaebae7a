"""The small commands: help, models, info, evaluate, split, bench, demo."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from medseg import io, presets
from medseg.bench import timing


def test_help(medseg):
    result = medseg("--help")
    assert result.code == 0 and result.err == ""
    for command in ("segment", "demo", "models", "info", "evaluate", "train", "split", "bench"):
        assert f"  {command} " in result.out
        one = medseg(command, "--help")
        assert one.code == 0 and one.err == "" and one.out.startswith(f"Usage: medseg {command}")
    bare = medseg()
    assert bare.code == 2 and bare.out == result.out


def test_models(medseg):
    lines = medseg("models").out.splitlines()
    assert any("nuclei2d" in line and "2-D" in line for line in lines)
    assert any("nuclei3d" in line and "3-D" in line for line in lines)
    headers = json.loads(medseg("models", "--json").out)
    assert set(headers) == set(presets.weights()) and headers["nuclei3d"]["net"]["ndim"] == 3


def test_info_of_a_model(medseg):
    result = medseg("info", "nuclei2d")
    assert result.code == 0 and result.out.startswith("# nuclei2d: ") and "Licence: " in result.out
    assert "Nothing" not in result.out and "None" not in result.out
    assert medseg("info", presets.weights()["nuclei2d"]).out == result.out
    assert json.loads(medseg("info", "nuclei2d", "--json").out)["name"] == "nuclei2d"


def test_info_of_images(medseg, field, stack, ct):
    result = medseg("info", field)
    about = dict(line.split(maxsplit=1) for line in result.out.splitlines() if " " in line)
    assert about["grid"] == "80 x 112 pixels, spacing unknown" and about["axes"] == "y x" and about["type"] == "uint8"
    about = json.loads(medseg("info", stack, "--json").out)
    assert about["grid"] == "12 x 48 x 48 voxels, 1 x 0.5 x 0.5 um" and about["modality"] == "microscopy"
    result = medseg("info", ct, "--json")
    about = json.loads(result.out)
    assert (
        about["modality"] == "CT" and about["format"] == "dicom" and about["grid"] == "8 x 40 x 40 voxels, 2 x 1 x 1 mm"
    )
    assert "Surname" not in result.out and "MRN12345" not in result.out


@pytest.fixture
def pairs(tmp_path):
    """Three squares as truth; found are one of them whole, .7 of the second, and not the third."""
    truth = np.zeros((40, 40), np.uint16)
    truth[2:12, 2:12], truth[20:30, 20:30], truth[2:12, 20:30] = 1, 2, 3
    found = np.where(truth == 3, 0, truth).astype(np.uint16)
    found[20:30, 20:23] = 0
    for folder, name, labels in [("p", "a_labels", found), ("t", "a_truth", truth), ("t", "a", truth + 1)]:
        (tmp_path / folder).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / folder / f"{name}.tif", labels)
    (tmp_path / "p/a_overlay.png").write_bytes(b"not a label image")
    return tmp_path / "p", tmp_path / "t"


def figures(result) -> dict[str, float]:
    return {s["figure"]: s["value"] for s in json.loads(result.out) if s["averaging"] == "pooled"}


def test_evaluate(medseg, pairs):
    result = medseg("evaluate", *pairs, "--json")
    assert result.code == 0 and result.err == ""
    want = {"AP@.5": 2 / 3, "AP@.75": 1 / 4, "AP@.50:.95": (5 * 2 / 3 + 5 * 1 / 4) / 10, "F1@.5": 0.8, "PQ": 1.7 / 2.5}
    assert figures(result) == pytest.approx(want, abs=6e-5)
    one = medseg("evaluate", pairs[0] / "a_labels.tif", pairs[1] / "a_truth.tif", "--json")
    assert one.code == 0 and one.out == result.out
    assert figures(medseg("evaluate", pairs[1] / "a_truth.tif", pairs[1] / "a_truth.tif", "--json"))["AP@.5"] == 1
    row = next(line.split() for line in medseg("evaluate", *pairs).out.splitlines() if "AP@.5 " in line)
    assert row == ["files", "AP@.5", "1", "0.6667", "0.6667"]


def test_evaluate_tells_what_has_no_partner(medseg, pairs):
    found, truth = pairs
    whole = medseg("evaluate", *pairs, "--json").out
    (found / "b_labels.tif").write_bytes((found / "a_labels.tif").read_bytes())
    (truth / "c.tif").write_bytes((truth / "a_truth.tif").read_bytes())
    result = medseg("evaluate", *pairs, "--json")
    assert result.code == 3 and result.out == whole and len(result.errors) == 2
    assert "b_labels.tif: has no truth" in result.errors[0] and "no labels for c of" in result.errors[1]


def test_evaluate_what_cannot_be_compared(medseg, pairs, tmp_path):
    found, truth = pairs
    tifffile.imwrite(tmp_path / "small.tif", np.ones((5, 5), np.uint8))
    result = medseg("evaluate", tmp_path / "small.tif", truth / "a.tif")
    assert result.code == 4 and "small.tif: has shape (5, 5)" in result.errors[0] and len(result.errors) == 1
    (truth / "b.tif").write_bytes(b"II*\0 cut")
    (found / "b.tif").write_bytes((found / "a_labels.tif").read_bytes())
    result = medseg("evaluate", *pairs)
    assert result.code == 3 and f"{truth / 'b.tif'} " in result.errors[0] and "AP@.5" in result.out
    result = medseg("evaluate", found, truth / "a.tif")
    assert result.code == 4 and "one is a file and one a folder" in result.errors[0]
    (tmp_path / "none").mkdir()
    result = medseg("evaluate", tmp_path / "none", truth)
    assert result.code == 4 and "no label images" in result.errors[0]


def test_split(medseg, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_DATA", str(tmp_path))
    (tmp_path / "images").mkdir()
    stems = [f"{group}{i}" for group in "abcdefghij" for i in range(4)]
    for stem in stems:
        tifffile.imwrite(tmp_path / f"images/{stem}.tif", np.zeros((4, 4), np.uint8))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sources:\n  - {name: drawn, images: images, group: '^[a-z]', val: 0.2}\ntune: 0.1\n")
    result = medseg("split", recipe, "-o", tmp_path / "split.json")
    assert result.code == 0 and "drawn" in result.out
    text = (tmp_path / "split.json").read_bytes()
    parts = json.loads(text)["splits"]["drawn"]
    assert sorted(s for part in parts.values() for s in part) == sorted(stems)
    assert all(parts.values()) and len({(k, s[0]) for k, part in parts.items() for s in part}) == 10  # whole groups
    assert medseg("split", recipe, "-o", tmp_path / "split.json").code == 0
    assert (tmp_path / "split.json").read_bytes() == text
    assert medseg("split", recipe, "-o", tmp_path / "no/folder/s.json").code == 4
    recipe.write_text("sources: []\nnope: 1\n")
    result = medseg("split", recipe, "-o", tmp_path / "other.json")
    assert result.code == 2 and "recipe.yaml" in result.errors[0] and not (tmp_path / "other.json").exists()


def test_bench(medseg, monkeypatch):
    monkeypatch.setitem(timing.BENCHES, "score", lambda n: [timing.Row("floor", 0.5, 1), timing.Row("ours", 1, 2 * n)])
    lines = medseg("bench", "score", "--repeat", "3").out.splitlines()
    assert lines[0] == "score" and lines[2].split() == ["floor", "0.500", "1.00"]
    assert lines[3].split() == ["ours", "1.000", "6.00"]


def test_demo(medseg, tmp_path):
    result = medseg("demo", "-o", tmp_path / "demo", "--device", "cpu")
    assert result.code == 0 and "Traceback" not in result.err
    stems = sorted(io.stem(p) for p in presets.samples().glob("*.tif") if "_truth" not in p.name)
    rows = [line.split() for line in result.out.splitlines()[1 : 1 + len(stems)]]
    assert [row[0] for row in rows] == stems and len(stems) == 3
    for stem, model, found, truth, ap, f1, seconds in rows:
        labels = io.load_labels(tmp_path / f"demo/{stem}_labels.tif")
        assert len(labels) == int(found) == len(pd.read_csv(tmp_path / f"demo/{stem}_instances.csv"))
        assert model == f"nuclei{labels.grid.ndim}d" and int(truth) > 10
        assert 0 <= float(ap) <= float(f1) <= 1 and float(seconds) > 0
        assert (tmp_path / f"demo/{stem}_overlay.png").stat().st_size > 10_000
    assert "Try next:" in result.out and "research use only" in result.out
