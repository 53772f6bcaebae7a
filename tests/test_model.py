"""Model files: they come back as they were written, and anything else is refused in one line."""

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import medseg
from medseg import presets
from medseg.errors import DeviceError, MissingError, ModelError, SpecError
from medseg.model import Model, choose_device, find, read_header, save_model
from medseg.nets.net import Net
from medseg.spec import SPEC_VERSION, ModelSpec, NetSpec, OffsetSpec, PreprocessSpec, SemanticSpec

GOLDEN = Path(__file__).parent / "golden"


def spec_of(**changes):
    settings = {
        "name": "tiny",
        "title": "Tiny",
        "licence": "CC0",
        "modality": ("microscopy",),
        "target": "cell",
        "net": NetSpec(filters=(4, 8, 8)),
        "preprocess": PreprocessSpec(),
        "heads": (OffsetSpec(threshold=0.4),),
    }
    return ModelSpec.model_validate(settings | changes)


def weights_of(spec, seed=0):
    torch.manual_seed(seed)
    net = Net(spec.net, spec.heads)
    return {k: v for k, v in net.state_dict().items() if v.is_floating_point()}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_model(path, spec_of(), weights_of(spec_of()))
    return path


def with_header(path, about, tensors=None):
    """Write a safetensors file whose ``medseg`` key holds anything."""
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors or {"a": torch.zeros(1)}, path, {"medseg": text})
    return path


# --- round trip


def test_what_was_saved_comes_back(saved):
    assert read_header(saved) == spec_of()
    model = Model.load(saved, "cpu")
    assert model.spec == spec_of()
    assert model.device == torch.device("cpu")
    assert model.digest == hashlib.sha256(saved.read_bytes()).hexdigest()
    loaded = model._nets[0].state_dict()
    for name, value in weights_of(spec_of()).items():
        exact = value.ndim <= 1
        torch.testing.assert_close(loaded[name], value, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-4)
        assert loaded[name].dtype == torch.float32
    assert not model._nets[0].training


def test_convolutions_are_stored_as_float16(saved):
    kinds = {name: value.dtype for name, value in load_file(saved).items()}
    assert {kind for name, kind in kinds.items() if name.endswith("conv.weight")} == {torch.float16}
    assert {kind for name, kind in kinds.items() if "running_" in name or name.endswith("bias")} == {torch.float32}


def test_saving_twice_gives_the_same_bytes(saved):
    before = saved.read_bytes()
    save_model(saved, spec_of(), weights_of(spec_of()))
    assert saved.read_bytes() == before


def test_the_header_needs_no_torch(saved):
    code = (
        "import sys; from medseg.model import read_header, find; print(read_header(find(sys.argv[1])).name);"
        "assert not {'torch', 'monai', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    root = Path(medseg.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, cwd=root)
    assert (done.stdout.strip(), done.returncode) == ("tiny", 0), done.stderr


def test_shipped_models_have_readable_headers():
    for name, path in presets.weights().items():
        spec = read_header(path)
        assert spec.name == name and spec.heads and spec.licence


# --- refusals


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "short": b"\x01\x02",
        "random": np.random.default_rng(0).bytes(4000),
        "a huge header": struct.pack("<Q", 2**60) + b"{}",
        "a header beyond the end": struct.pack("<Q", 3_000_000) + b"{}",
        "no JSON": struct.pack("<Q", 4) + b"abcd",
        "deep JSON": struct.pack("<Q", 100_000) + b"[" * 100_000,
        "no offsets": struct.pack("<Q", 62) + b'{"__metadata__": {"medseg": "{}"}, "a": {"data_offsets": [0]}}',
        "a list": struct.pack("<Q", 2) + b"[]",
        "no metadata": struct.pack("<Q", 2) + b"{}",
        "no text": struct.pack("<Q", 33) + b'{"__metadata__": {"medseg": 3.5}}',
        "bad text": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    }.items(),
    ids=lambda item: item[0],
)
def test_other_files_are_refused(tmp_path, data):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(data[1])
    for read in (read_header, Model.load):
        with pytest.raises(ModelError, match=r"odd\.safetensors: is no model file of medseg or is damaged"):
            read(path)


@pytest.mark.parametrize("about", ["{", "[]", "3", {}, {"spec_version": "1"}])
def test_metadata_that_is_not_ours_is_refused(tmp_path, about):
    with pytest.raises(ModelError, match=r"odd\.safetensors"):
        read_header(with_header(tmp_path / "odd.safetensors", about))


def test_a_file_of_the_first_version_reads_as_one_of_today(tmp_path):
    old = json.loads((GOLDEN / "model-v1.json").read_text(encoding="utf-8"))
    spec = read_header(with_header(tmp_path / "old.safetensors", old))
    slope, intercept = old["heads"][0]["calibration"]
    assert (spec.calibration.score, spec.calibration.offset) == (slope, intercept)
    assert (spec.calibration.size, spec.calibration.image) == (0, 0)
    assert spec.spec_version == SPEC_VERSION
    assert spec.heads[0].threshold == old["heads"][0]["threshold"]
    assert read_header(with_header(tmp_path / "new.safetensors", json.loads(spec.model_dump_json()))) == spec


def test_a_newer_file_says_so(tmp_path):
    about = json.loads(spec_of().model_dump_json()) | {"spec_version": 99, "news": True}
    with pytest.raises(ModelError, match=r"newer medseg \(spec 99\); upgrade"):
        read_header(with_header(tmp_path / "new.safetensors", about))


@pytest.mark.parametrize(
    "change, found",
    [
        ({"surprise": 1}, "surprise"),
        ({"net": {"ndim": 4}}, "net.ndim"),
        ({"heads": [{"kind": "mystery"}]}, "unknown head kind 'mystery'"),
        ({"name": None}, "name"),
    ],
)
def test_a_header_that_does_not_fit_names_the_key(tmp_path, change, found):
    about = json.loads(spec_of().model_dump_json()) | change
    with pytest.raises(ModelError, match=found):
        read_header(with_header(tmp_path / "odd.safetensors", about))


@pytest.mark.parametrize("keep", [-1, -100, 100])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    for read in (read_header, Model.load):
        with pytest.raises(ModelError, match="is damaged; get it again"):
            read(saved)


def test_a_file_with_something_behind_it_is_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(ModelError, match="is damaged; get it again"):
        read_header(saved)


def damaged_weights(path, kind):
    weights = weights_of(spec_of())
    first = next(iter(weights))
    if kind == "other net":
        save_model(path, spec_of(net=NetSpec(filters=(4, 8, 12))), weights)
    elif kind == "other head":
        save_model(path, spec_of(heads=(SemanticSpec(),)), weights)
    elif kind == "missing":
        save_model(path, spec_of(), {k: v for k, v in weights.items() if k != first})
    elif kind == "surplus":
        save_model(path, spec_of(), weights | {"more": torch.zeros(2)})


@pytest.mark.parametrize("kind", ["other net", "other head", "missing", "surplus"])
def test_weights_that_do_not_fit_are_refused(saved, kind):
    damaged_weights(saved, kind)
    with pytest.raises(ModelError, match=r"tiny\.safetensors: the weights"):
        Model.load(saved, "cpu")


def test_a_head_without_a_network_half_is_named(saved, monkeypatch):
    def make(spec, ndim, channels):
        raise SpecError("no network half for head 'offset'")

    monkeypatch.setattr("medseg.nets.heads.make", make)
    with pytest.raises(ModelError, match=r"tiny\.safetensors: no network half for head 'offset'"):
        Model.load(saved, "cpu")


def test_unknown_models_are_named_with_the_known(tmp_path):
    with pytest.raises(ModelError, match="no model 'nucleus7d'; give a .safetensors file or one of: ") as caught:
        find("nucleus7d")
    assert all(name in str(caught.value) for name in presets.weights())
    with pytest.raises(ModelError, match="no model"):
        Model.load(tmp_path)  # a folder is none
    with pytest.raises(MissingError, match="no such file"):
        read_header(tmp_path / "none.safetensors")


def test_a_shipped_name_goes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "weights", lambda: {"tiny": tmp_path / "shipped.safetensors"})
    monkeypatch.chdir(tmp_path)
    Path("tiny").touch()
    assert find("tiny") == tmp_path / "shipped.safetensors"
    assert find(tmp_path / "tiny") == tmp_path / "tiny"


# --- devices


def test_devices_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "mps", "tpu", ""):
        with pytest.raises(DeviceError, match="available: auto, cpu"):
            choose_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def test_maps_agree_on_every_device(saved, device):
    array = np.random.default_rng(0).uniform(0, 1, (1, 30, 41)).astype(np.float32)
    (expected,), (found,) = (Model.load(saved, d).maps(array) for d in ("cpu", device))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05)  # bf16 where it pays


def test_out_of_memory_says_what_to_do(saved):
    def burst(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = replace(Model.load(saved, "cpu"), _nets=(burst,))
    with pytest.raises(DeviceError, match="smaller --tile"):
        model.maps(np.zeros((1, 8, 8), np.float32))


# --- maps


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (8, 8), (17, 33), (40, 12)])
def test_maps_have_the_arrays_shape(saved, shape):
    (maps,) = Model.load(saved, "cpu").maps(np.ones((1, *shape), np.float32))
    assert maps.shape == (3, *shape) and maps.dtype == np.float32 and np.isfinite(maps).all()


def test_maps_have_the_volumes_shape(tmp_path):
    spec = spec_of(
        net=NetSpec(ndim=3, filters=(4, 4, 4), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2))),
        heads=(OffsetSpec(), SemanticSpec()),
    )
    save_model(tmp_path / "m.safetensors", spec, weights_of(spec))
    for shape in ((1, 1, 1), (5, 9, 10), (2, 4, 8)):
        maps = Model.load(tmp_path / "m.safetensors", "cpu").maps(np.ones((1, *shape), np.float32))
        assert [m.shape for m in maps] == [(4, *shape), (1, *shape)]


def test_padding_is_by_reflection_at_the_far_end(saved):
    model = Model.load(saved, "cpu")
    array = np.random.default_rng(1).uniform(0, 1, (1, 10, 15)).astype(np.float32)
    array.flags.writeable = False
    padded = np.pad(array, ((0, 0), (0, 2), (0, 1)), mode="symmetric")
    (found,), (whole,) = model.maps(array), model.maps(padded)
    np.testing.assert_allclose(found, whole[:, :10, :15], atol=1e-6)


# --- ensembles and mirror images


def test_the_maps_of_members_are_averaged(tmp_path):
    spec = spec_of(members=2)
    parts = [weights_of(spec, seed) for seed in (0, 1)]
    save_model(tmp_path / "two.safetensors", spec, {f"{i}.{k}": v for i, p in enumerate(parts) for k, v in p.items()})
    x = np.random.default_rng(0).random((1, 24, 32), dtype=np.float32)
    one = []
    for i, part in enumerate(parts):
        save_model(tmp_path / f"{i}.safetensors", spec_of(), part)
        one.append(Model.load(tmp_path / f"{i}.safetensors", "cpu").maps(x)[0])
    (both,) = Model.load(tmp_path / "two.safetensors", "cpu").maps(x)
    np.testing.assert_allclose(both, np.mean(one, axis=0), atol=1e-5)
    assert not np.allclose(one[0], one[1], atol=1e-2)
    with pytest.raises(ModelError, match="do not fit"):  # a header that promises more networks than there are
        save_model(tmp_path / "bad.safetensors", spec_of(members=3), load_file(tmp_path / "two.safetensors"))
        Model.load(tmp_path / "bad.safetensors", "cpu")


@pytest.mark.parametrize("ndim", [2, 3])
def test_with_mirrors_the_maps_of_a_mirrored_image_are_the_mirrored_maps(tmp_path, ndim):
    spec = spec_of(net=NetSpec(ndim=ndim, filters=(4, 8, 8)), mirrors=True)
    save_model(tmp_path / "m.safetensors", spec, weights_of(spec))
    model = Model.load(tmp_path / "m.safetensors", "cpu")
    x = np.random.default_rng(0).random((1, *(16, 24, 32)[-ndim:]), dtype=np.float32)
    head = medseg.heads.make(spec.heads[0])
    (straight,) = model.maps(x)
    for axis in (ndim - 1, ndim - 2):
        (other,) = model.maps(np.ascontiguousarray(np.flip(x, axis + 1)))
        np.testing.assert_allclose(
            head.mirror(other, axis), straight, atol=2e-2 if torch.cpu._is_avx512_bf16_supported() else 1e-4
        )
    plain = spec_of(net=spec.net)
    save_model(tmp_path / "p.safetensors", plain, weights_of(plain))
    assert not np.allclose(Model.load(tmp_path / "p.safetensors", "cpu").maps(x)[0], straight, atol=5e-2)
