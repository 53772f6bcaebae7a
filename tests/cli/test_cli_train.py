"""``medseg train`` with what the command line replaces, ``medseg split`` with folds, and ``medseg combine``."""

import hashlib
import json

import numpy as np
import pytest
import yaml

from medseg.model import read_header, weights_of


@pytest.fixture
def config(tiny_training, tmp_path):
    """Path of a config of two sources, which share the four images of `tiny_training`."""
    spec = tiny_training(steps=3).model_dump(mode="json")
    source = spec["data"]["sources"][0]
    spec["data"]["sources"] = [source, source | {"name": "others"}]
    split = json.loads((tmp_path / "split.json").read_text())["splits"]["cells"]
    (tmp_path / "split.json").write_text(json.dumps({"splits": {"cells": split, "others": split}}))
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def test_the_command_line_replaces_settings(medseg, config, tmp_path):
    out = tmp_path / "run"
    options = [
        "--head",
        "watershed",
        "--without",
        "others",
        "--steps",
        2,
        "--seed",
        5,
        "--workers",
        0,
        "--device",
        "cpu",
    ]
    result = medseg("train", config, "-o", out, *options)
    assert result.code == 0, result.err
    header = read_header(out / "tiny.safetensors")
    assert header.heads[0].kind == "watershed" and header.training["seed"] == 5 and header.training["steps"] == 2
    assert header.training["sources"] == ["cells"] and {s.source for s in header.scores} == {"cells"}
    # what was left out can still be scored
    result = medseg("evaluate", "--model", out / "tiny.safetensors", "--config", config, "--source", "others", "--json")
    assert result.code == 0 and {r["source"] for r in json.loads(result.out)} == {"others"}


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--head", "star", "offset, watershed"), ("--without", "nothing", "cells, others"), ("--fold", 1, "no folds")],
)
def test_what_is_not_there_cannot_be_chosen(medseg, config, tmp_path, option, value, told):
    result = medseg("train", config, "-o", tmp_path / "run", option, value)
    assert result.code == 2 and told in result.err and not (tmp_path / "run").exists()


def test_a_training_goes_on_from_a_finished_model(medseg, config, tmp_path):
    options = ["--head", "offset", "--workers", 0, "--device", "cpu", "--without", "others"]
    base = tmp_path / "base" / "tiny.safetensors"
    assert medseg("train", config, "-o", base.parent, "--steps", 2, *options).code == 0
    assert (
        medseg("combine", base, base, "--config", config, "-o", tmp_path / "two.safetensors", "--device", "cpu").code
        == 0
    )
    found = []
    for number, start in enumerate((base, f"{tmp_path / 'two.safetensors'}:2", None)):
        given = [] if start is None else ["--start", start]
        out = tmp_path / f"run{number}"
        result = medseg("train", config, "-o", out, "--steps", 1, "--seed", 9, *given, *options)
        assert result.code == 0, result.err
        found.append(
            (read_header(out / "tiny.safetensors").training.get("start"), weights_of(out / "tiny.safetensors"))
        )
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    assert found[0][0] == f"{digest}:1" and found[1][0].endswith(":2") and found[2][0] is None
    one, two, fresh = (w for _, w in found)
    begun = weights_of(base)
    names = [k for k in begun if k.endswith("weight") and begun[k].ndim > 1]
    assert all((one[k] - two[k]).abs().max() < 1e-3 for k in names)  # the same network in both files
    assert all((one[k] - begun[k]).abs().mean() < 0.1 * (fresh[k] - begun[k]).abs().mean() for k in names)


def test_what_a_training_cannot_begin_with(medseg, config, tmp_path):
    options = ["--workers", 0, "--device", "cpu", "--without", "others", "--steps", 1]
    base = tmp_path / "base" / "tiny.safetensors"
    assert medseg("train", config, "-o", base.parent, "--head", "offset", *options).code == 0
    for start, head, told in (
        (f"{base}:2", "offset", "holds 1 networks"),
        (base, "watershed", "has the heads offset, the config watershed"),
        ("nuclei2d", "offset", "another network"),
        (tmp_path / "none.safetensors", "offset", "none.safetensors"),
    ):
        result = medseg("train", config, "-o", tmp_path / "run", "--start", start, "--head", head, *options)
        assert result.code != 0 and len(result.errors) == 1 and told in result.err
        assert not (tmp_path / "run").exists()


def test_faults_of_the_data_are_told_at_once(medseg, config, tmp_path):
    for stem in ("p0", "p2"):
        (tmp_path / "data" / "labels" / f"{stem}.tif").unlink()
    result = medseg("train", config, "-o", tmp_path / "run", "--without", "others")
    assert result.code == 4 and "p0" in result.err and "p2" in result.err and not (tmp_path / "run").exists()


def test_folds_are_split_and_trained(medseg, config, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sources:\n- {name: cells, images: images}\ntune: 0.3\nfolds: 2\n")
    result = medseg("split", recipe, "-o", tmp_path / "folds.json")
    assert result.code == 0 and "fold 0" in result.out and "fold 1" in result.out
    spec = yaml.safe_load(config.read_text())
    spec["data"] |= {"split": str(tmp_path / "folds.json"), "sources": spec["data"]["sources"][:1]}
    config.write_text(yaml.safe_dump(spec))
    result = medseg("train", config, "-o", tmp_path / "run1", "--fold", 1, "--workers", 0, "--device", "cpu")
    assert result.code == 0, result.err
    model = tmp_path / "run1" / "tiny.safetensors"
    assert read_header(model).training["fold"] == 1
    result = medseg("evaluate", "--model", model, "--config", config, "--fold", 0)
    assert result.code == 2 and "trained on fold 1" in result.err
    result = medseg("evaluate", "--model", model, "--config", config, "--json", "--device", "cpu")
    cases = {r["case"] for r in json.loads(result.out) if "case" in r}
    assert result.code == 0 and cases == set(
        json.loads((tmp_path / "folds.json").read_text())["folds"][1]["cells"]["val"]
    )
    other = medseg("train", config, "-o", tmp_path / "run0", "--fold", 0, "--workers", 0, "--device", "cpu")
    assert other.code == 0
    both = [model, tmp_path / "run0" / "tiny.safetensors"]
    result = medseg("combine", *both, "--config", config, "-o", tmp_path / "both.safetensors")
    assert result.code == 2 and "scored on what another has learned" in result.err
    named = [word for path in both for word in ("--model", path)]
    result = medseg("evaluate", *named, "--config", config, "--json", "--device", "cpu")
    cases = [r["case"] for r in json.loads(result.out) if "case" in r]
    assert result.code == 0 and {*cases} == {"p0", "p1", "p2", "p3"}
    per_case = len([r for r in json.loads(result.out) if r.get("case") == "p0"])
    assert len(cases) == 4 * per_case  # each once, by the model that has not seen it
    result = medseg("evaluate", "--model", model, "--model", model, "--config", config)
    assert result.code == 2 and "different folds" in result.err
    result = medseg("evaluate", *named, "--config", config, "--fold", 1)
    assert result.code == 2 and "--fold" in result.err


def test_an_instance_without_a_class_ends_no_training(medseg, config, tmp_path):
    import tifffile

    (tmp_path / "data" / "kinds").mkdir()
    for stem in ("p0", "p1", "p2", "p3"):
        ids = np.unique(tifffile.imread(tmp_path / "data" / "labels" / f"{stem}.tif"))[1:-1]  # the last has no row
        rows = "".join(f"{i},{'x' if i % 2 else 'y'}\n" for i in ids)
        (tmp_path / "data" / "kinds" / f"{stem}.csv").write_text("id,class\n" + rows)
    spec = yaml.safe_load(config.read_text())
    spec["data"]["sources"][0]["classes"] = "kinds"
    spec |= {"classes": ["x", "y"]}
    config.write_text(yaml.safe_dump(spec))
    result = medseg("train", config, "-o", tmp_path / "run", "--workers", 0, "--device", "cpu", "--head", "offset")
    assert result.code == 0, result.err
    assert "others: has no folder of classes" in result.err
    model = tmp_path / "run" / "tiny.safetensors"
    assert read_header(model).classes == ("x", "y")
    assert medseg("evaluate", "--model", model, "--config", config, "--device", "cpu").code == 0


def test_networks_are_combined(medseg, config, tmp_path):
    for seed in (1, 2):
        options = ["--head", "offset", "--steps", 2, "--seed", seed, "--workers", 0, "--device", "cpu"]
        assert medseg("train", config, "-o", tmp_path / f"run{seed}", *options).code == 0
    parts = [tmp_path / f"run{seed}" / "tiny.safetensors" for seed in (1, 2)]
    out = tmp_path / "both.safetensors"
    result = medseg("combine", *parts, "--config", config, "-o", out, "--mirrors", "--device", "cpu")
    assert result.code == 0, result.err
    header = read_header(out)
    assert (header.members, header.mirrors, len(header.heads)) == (2, True, 1)
    assert {s.split for s in header.scores} == {"tune", "val"}
    image = tmp_path / "data" / "images" / "p3.tif"
    result = medseg("segment", image, "-o", tmp_path / "found", "--model", out, "--device", "cpu", "--force")
    assert result.code == 0, result.err
    again = medseg("combine", out, parts[0], "--config", config, "-o", tmp_path / "x.safetensors")
    assert again.code != 0 and "no single network" in again.err
    nowhere = medseg("combine", *parts, "--config", config, "-o", tmp_path / "none" / "x.safetensors")
    assert nowhere.code == 4 and "cannot be written" in nowhere.err
    assert np.all([p.exists() for p in parts])


def test_networks_of_different_data_sets_are_combined_and_keep_their_own_scores(medseg, config, tmp_path):
    parts = []
    for left_out in ("cells", "others"):
        options = ["--head", "offset", "--steps", 2, "--without", left_out, "--workers", 0, "--device", "cpu"]
        assert medseg("train", config, "-o", tmp_path / left_out, *options).code == 0
        parts.append(tmp_path / left_out / "tiny.safetensors")
    out = tmp_path / "both.safetensors"
    result = medseg("combine", *parts, "--config", config, "-o", out, "--device", "cpu")
    assert result.code == 0, result.err
    header = read_header(out)
    assert header.members == 2 and header.training["sources"] == ["cells", "others"]
    told = [s for s in header.scores if s.split == "val"]
    assert told == [s for p in parts for s in read_header(p).scores if s.split == "val"]
    assert {s.source for s in told} == {"cells", "others"}
