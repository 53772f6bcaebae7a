"""Model files made to do harm: nothing in them runs, and each is refused in one line or is harmless. Canaries would show it."""

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import tifffile
import torch

from medseg import presets
from medseg.cli import main
from medseg.errors import MedsegError, ModelError
from medseg.model import Model, read_header
from medseg.testing.seeds import seeds

CANARY = "MEDSEG_CANARY"


class Payload:
    """Unpickled, it makes a file and sets a variable."""

    def __init__(self, path):
        self.code = f"import os; open({str(path)!r}, 'w').close(); os.environ[{CANARY!r}] = 'dead'"

    def __reduce__(self):
        return exec, (self.code,)


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    """Alive at the end of each test, or the test fails."""
    monkeypatch.setenv(CANARY, "alive")
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path / "models"))
    path = tmp_path / "canary"
    before = set(sys.modules)
    yield path
    assert not path.exists() and os.environ[CANARY] == "alive"
    assert "antigravity" not in set(sys.modules) - before


def parts():
    data = next(one.data for one in seeds() if one.kind == "model")
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header, body, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def changed(**changes):
    """The small model, whose header says other things of itself."""
    header, body = parts()
    about = json.loads(header["__metadata__"]["medseg"]) | changes
    header["__metadata__"]["medseg"] = json.dumps(about)
    return packed(header, body)


def offsets(*found):
    """The small model, one of whose tensors lies elsewhere."""
    header, body = parts()
    name = sorted(n for n in header if n != "__metadata__")[1]
    header[name]["data_offsets"] = list(found)
    return packed(header, body)


def of_net(**changes):
    about = json.loads(parts()[0]["__metadata__"]["medseg"])
    return changed(net=about["net"] | changes)


def torch_zip(path):
    stream = io.BytesIO()
    torch.save({"weights": Payload(path)}, stream)
    return stream.getvalue()


def slip(path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in ("../canary", str(path), "..\\canary", "medseg/data.pkl"):
            file.writestr(name, pickle.dumps(Payload(path)))
    return stream.getvalue()


def tar(path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        link = tarfile.TarInfo("../canary")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    return stream.getvalue()


def twice():
    header, body = parts()
    text = json.dumps(header).encode()
    return packed(text[:-1] + b', "__metadata__": {"medseg": "{}"}}', body)


def pickled_tensor(path):
    """A weight whose bytes are a pickle."""
    header, _ = parts()
    data = pickle.dumps(Payload(path))
    about = header["__metadata__"]
    return packed(
        {"__metadata__": about, "data.pkl": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}, data
    )


def code(path):
    return f"$import os; open({str(path)!r}, 'w').close()"


def bundle(path):
    """A MONAI bundle, which runs when MONAI parses it."""
    about = {
        "imports": [code(path)],
        "network_def": {"_target_": "os.system", "command": f"touch {path}"},
        "run": [f"$exec({code(path)!r})"],
    }
    return json.dumps(about).encode()


# Files that are refused whatever is asked of them.
REFUSED = {
    "pickle": lambda p: pickle.dumps(Payload(p)),
    "pickle behind a length": lambda p: struct.pack("<Q", 200) + pickle.dumps(Payload(p)).ljust(400),
    "torch zip": torch_zip,
    "zip that slips": slip,
    "tar with a link": tar,
    "bundle": bundle,
    "bundle as header": lambda p: packed(bundle(p), b""),
    "bundle as spec": lambda p: packed({"__metadata__": {"medseg": bundle(p).decode()}}, b""),
    "a target in the spec": lambda p: changed(_target_="os.system", command=f"touch {p}"),
    "a target as network": lambda p: of_net(_target_="os.system"),
    "another network": lambda p: of_net(kind=code(p)),
    "a head of another package": lambda p: changed(heads=[{"kind": "os:system"}]),
    "a head by path": lambda p: changed(heads=[{"kind": "antigravity"}]),
    "a head without end": lambda p: changed(heads=[{"kind": "offset", "scale": float("inf")}]),
    "NaN as calibration": lambda p: changed(calibration={"score": float("nan")}),
    "a length of 2^63": lambda p: packed(b"{}", b"", 2**63),
    "a length beyond the end": lambda p: packed(b"{}", b"", 3_999_999),
    "a header of 5 MB": lambda p: packed(b'{"a": "' + b"x" * 5_000_000 + b'"}', b""),
    "deep JSON": lambda p: packed(b'{"__metadata__": ' * 50_000, b""),
    "a deep spec": lambda p: changed(training={"a": json.loads("[" * 400 + "]" * 400)}),
    "a key twice": lambda p: twice(),
    "offsets before the data": lambda p: offsets(-64, 0),
    "offsets of terabytes": lambda p: offsets(0, 10**13),
    "offsets backwards": lambda p: offsets(64, 0),
    "offsets that overlap": lambda p: offsets(0, 16),
    "no members": lambda p: changed(members=0),
    "NUL in a name": lambda p: changed(name="tiny\0.safetensors"),
    "a name that turns around": lambda p: changed(name="tiny\u202esrotcefas"),
    "a title that a terminal obeys": lambda p: changed(title="\x1b]0;owned\x07\x1b[2J"),
    "a spec of the future": lambda p: changed(spec_version=10**9),
}  # fmt: skip

# Files with a sound header, which is shown; running them is refused before memory is taken.
UNFIT = {
    "10^12 weights": lambda p: of_net(filters=[65536, 65536, 65536]),
    "10^12 channels": lambda p: of_net(in_channels=65536),
    "a thousand levels": lambda p: of_net(filters=[4] * 1000, strides=[[1, 1], *[[2, 2]] * 999]),
    "a billion members": lambda p: changed(members=10**9),
    "a pickle as tensor": pickled_tensor,
}

# Files that run: text stays text.
HARMLESS = {
    "code in every text": lambda p: changed(
        title=code(p), description=f"{{{{ ''.__class__ }}}} {code(p)}", licence=code(p), target=code(p), revision=code(p),
        limits=[code(p), "@import", "%(os)s", "`id`"], training={"$run": code(p), "_target_": "os.system", "steps": code(p)},
    ),
}  # fmt: skip
NAMES = (
    "../../canary",
    "/canary",
    "..",
    "a/b",
    "a\\b",
    "-rf",
    ".hidden",
    "",
    "a" * 300,
    "nuclei2d",
    "$(touch canary)",
    "con:",
)


def run(capsys, *arguments):
    """The command in this process: exit code and lines of error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(one) for one in arguments])
    told = capsys.readouterr()
    assert "Traceback" not in told.err and "internal fault" not in told.err, told.err
    return int(left.value.code or 0), told


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8))
    return path


@pytest.fixture
def file(tmp_path, canary):
    def write(make):
        path = tmp_path / "evil.safetensors"
        path.write_bytes(make(canary))
        return path

    return write


def test_there_are_enough_of_them():
    assert len(REFUSED) + len(UNFIT) + len(HARMLESS) + len(NAMES) >= 25


def test_the_payload_would_be_seen(tmp_path, monkeypatch):
    """The canaries can die."""
    monkeypatch.setenv(CANARY, "alive")
    pickle.loads(pickle.dumps(Payload(tmp_path / "other")))
    assert (tmp_path / "other").exists() and os.environ[CANARY] == "dead"
    os.environ[CANARY] = "alive"


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_everywhere(make, file, picture, tmp_path, capsys):
    path = file(make)
    for read in (read_header, Model.load):
        with pytest.raises(ModelError):
            read(path)
    for arguments in (
        ["info", path],
        ["segment", picture, "-o", tmp_path / "out", "--model", path],
        ["models", "add", path],
    ):
        code, told = run(capsys, *arguments)
        assert code in (1, 2, 3, 4) and "medseg: error: " in told.err, (arguments[0], told)
    assert not list((tmp_path / "models").glob("**/*"))


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_what_claims_more_than_it_holds_is_not_run(make, file, picture, tmp_path, capsys):
    path = file(make)
    with pytest.raises(MedsegError):
        Model.load(path, "cpu")
    code, told = run(capsys, "segment", picture, "-o", tmp_path / "out", "--model", path)
    assert code and "medseg: error: " in told.err
    assert run(capsys, "info", path)[0] in (0, 1, 2, 3, 4)


@pytest.mark.parametrize("make", HARMLESS.values(), ids=HARMLESS)
def test_text_is_never_run(make, file, picture, tmp_path, capsys):
    path = file(make)
    assert run(capsys, "info", path)[0] == 0
    assert run(capsys, "info", path, "--json")[0] == 0
    assert run(capsys, "segment", picture, "-o", tmp_path / "out", "--model", path)[0] == 0
    assert run(capsys, "models", "add", path)[0] == 0
    assert [one.name for one in (tmp_path / "models").iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_never_leads_out_of_the_folder(name, file, tmp_path, capsys):
    path = file(lambda _: changed(name=name))
    before = {one for one in tmp_path.rglob("*") if one.is_file()}
    code, told = run(capsys, "models", "add", path)
    assert code and "medseg: error: " in told.err
    assert {one for one in tmp_path.rglob("*") if one.is_file()} == before


@pytest.mark.parametrize(
    "training",
    [
        {"images": []},
        {"images": {"train": [1]}, "tune_ap_by_head": {"a": "x"}},
        {"sources": 5},
        {"tune_ap_by_head": [1]},
    ],
)
def test_a_record_of_training_may_be_anything(training, file, capsys):
    code, told = run(capsys, "info", file(lambda _: changed(training=training)))
    assert code == 0 or "medseg: error: " in told.err


def test_a_wrong_hash_is_not_let_in(file, tmp_path, capsys):
    path = file(lambda _: changed())
    code, told = run(capsys, "models", "add", path, "--sha256", "0" * 64)
    assert code and "SHA-256" in told.err
    assert not list((tmp_path / "models").glob("*"))


def test_a_link_brings_what_it_leads_to_and_a_pipe_nothing(file, tmp_path, capsys):
    path = file(lambda _: changed())
    for name, target in (("good", path), ("passwd", "/etc/passwd"), ("loop", tmp_path / "loop"), ("folder", tmp_path)):
        (tmp_path / name).symlink_to(target)
        code, told = run(capsys, "models", "add", tmp_path / name)
        assert (code == 0) is (name == "good"), told
    (kept,) = (tmp_path / "models").iterdir()
    assert kept.name == "tiny.safetensors" and not kept.is_symlink() and kept.read_bytes() == path.read_bytes()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert run(capsys, "models", "add", tmp_path / "pipe")[0]


def test_a_link_in_the_folder_is_replaced_and_not_followed(file, tmp_path, capsys):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny.safetensors").symlink_to(victim)
    run(capsys, "models", "add", file(lambda _: changed()))
    assert victim.read_bytes() == b"precious"


def test_voxels_a_million_times_finer_are_refused(file, picture, tmp_path, capsys):
    about = json.loads(parts()[0]["__metadata__"]["medseg"])
    path = file(lambda _: changed(preprocess=about["preprocess"] | {"spacing": [1e-9, 1e-9]}))
    code, told = run(capsys, "segment", picture, "-o", tmp_path / "out", "--spacing", "0.5", "--model", path)
    assert code and "times as many" in told.err


def test_shipped_models_are_sound():
    for path in presets.weights().values():
        assert Model.load(path, "cpu").digest
