"""Specs: every shipped config is valid, defaults live in one place, faults are one clear line."""

import json
from pathlib import Path

import pytest
import yaml

from medseg import presets
from medseg.data.cases import read_split
from medseg.errors import SpecError
from medseg.spec import (
    HEAD_SPECS,
    ModelSpec,
    NetSpec,
    OffsetSpec,
    RunSpec,
    SplitSpec,
    TrainSpec,
    load_yaml,
    parse,
)

CONFIGS = sorted((presets.folder() / "train").glob("*.yaml"))
RECIPES = sorted((presets.folder() / "splits").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_training_configs_are_valid_and_their_splits_exist(path: Path) -> None:
    spec = load_yaml(TrainSpec, path)
    assert spec.name == path.stem
    split = read_split(spec.data.split, spec.data.fold)
    for source in spec.data.sources:
        parts = split[source.name]
        assert (
            parts["train"]
            and set(parts["train"]).isdisjoint(parts["val"])
            and set(parts["tune"]).isdisjoint(parts["val"])
        )


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_split_recipes_are_valid(path: Path) -> None:
    assert load_yaml(SplitSpec, path).sources


@pytest.mark.parametrize("name", sorted(presets.weights()))
def test_shipped_models_came_from_the_committed_config(name: str) -> None:
    from medseg.model import read_header
    from medseg.train.loop import fingerprint

    header = read_header(presets.weights()[name])
    spec = load_yaml(TrainSpec, presets.find_config(name))
    expected = fingerprint(spec, header.training["recipe"])
    assert header.training["config_sha256"] == expected, "the config changed after the weights were trained"
    assert {s.split for s in header.scores} == {"tune", "val"}
    assert header.limits and len(header.heads) == 1


@pytest.mark.parametrize("kind", sorted(HEAD_SPECS))
def test_head_specs_survive_json_through_a_model_header(kind: str) -> None:
    head = HEAD_SPECS[kind](min_voxels=7)
    spec = _model(heads=(head,))
    again = ModelSpec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec and type(again.heads[0]) is HEAD_SPECS[kind]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"stepps": 5}, "stepps"),
        ({"patch": [100, 100]}, "multiples"),
        ({"heads": [{"kind": "offsets"}]}, "unknown head kind 'offsets'"),
        ({"heads": [{"threshold": 0.5}]}, "kind"),
        ({"heads": [{"kind": "offset", "treshold": 0.5}]}, "treshold"),
        ({"heads": []}, "heads"),
        ({"net": {"ndim": 2, "in_channels": 2}}, "in_channels"),
        ({"net": {"ndim": 2, "in_channels": 3, "filters": [8]}}, "three levels"),
        ({"net": {"ndim": 2, "in_channels": 3, "filters": [8, 16, 32], "strides": [[2, 2], [2, 2], [2, 2]]}}, "finest"),
        ({"name": "../evil"}, "name"),
    ],
)
def test_a_faulty_config_is_one_line_that_names_the_key(change: dict, said: str, tmp_path: Path) -> None:
    data = yaml.safe_load((presets.folder() / "train" / "nuclei2d.yaml").read_text())
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(data | change))
    with pytest.raises(SpecError) as error:
        load_yaml(TrainSpec, path)
    assert said in str(error.value) and "\n" not in str(error.value) and "faulty.yaml" in str(error.value)


def test_yaml_that_is_no_config() -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_yaml(TrainSpec, "nowhere.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "seed: 2001-99-99",
        "seed: !!bool x",
        "seed: !!int ''",
        "seed: !!float x",
        "seed: " + "9" * 6000,
        "[" * 3000,
        "- " * 3000,
    ],
)
def test_values_that_break_the_yaml_library(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match="not valid YAML"):
        load_yaml(TrainSpec, path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data = yaml.safe_load((presets.folder() / "train" / "nuclei2d.yaml").read_text())
    path = tmp_path / "odd.yaml"
    path.write_text(yaml.safe_dump(data | {"rate": float("inf")}))
    with pytest.raises(SpecError, match="rate"):
        load_yaml(TrainSpec, path)


def test_yaml_tags_run_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("!!python/object/apply:os.system ['touch hacked']")
    with pytest.raises(SpecError, match="not valid YAML"):
        load_yaml(TrainSpec, path)


def test_specs_are_frozen_and_refuse_unknown_keys() -> None:
    spec = RunSpec()
    with pytest.raises(ValueError, match="frozen"):
        spec.device = "cpu"  # type: ignore[misc]
    with pytest.raises(SpecError, match="device"):
        parse(RunSpec, {"device": "gpu"}, "options")


def test_strides_default_to_halving_and_give_the_divisor() -> None:
    assert NetSpec(ndim=3, filters=(4, 8, 16)).strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    anisotropic = NetSpec(ndim=3, filters=(4, 8, 16), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)))
    assert anisotropic.divisor == (2, 4, 4)


def test_configs_are_found_by_name_and_unknown_names_list_what_there_is(tmp_path, monkeypatch) -> None:
    assert presets.find_config("nuclei2d").is_file()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nuclei2d").mkdir()  # a folder of that name, such as an earlier run's, is no config
    assert presets.find_config("nuclei2d").name == "nuclei2d.yaml"
    with pytest.raises(SpecError, match="nuclei2d, nuclei3d"):
        presets.find_config("nuclei4d")


def test_data_paths_of_shipped_configs_are_relative() -> None:
    for path in CONFIGS:
        for source in load_yaml(TrainSpec, path).data.sources:
            assert not Path(source.images).is_absolute() and not Path(source.labels).is_absolute()


def _model(**change: object) -> ModelSpec:
    base = {
        "name": "m",
        "title": "t",
        "licence": "l",
        "modality": ("microscopy",),
        "target": "cell",
        "net": NetSpec(),
        "preprocess": {},
        "heads": (OffsetSpec(),),
    }
    return ModelSpec.model_validate(base | change)
