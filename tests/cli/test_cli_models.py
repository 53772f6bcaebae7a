"""medseg models: what is there, and what is let in."""

import hashlib
import json
import shutil
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from medseg import presets
from medseg.cli import models


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where added models go, and no proxy between here and here."""
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "models"


@pytest.fixture
def file(tmp_path):
    """A model file under a name of its own."""
    return renamed(presets.weights()["nuclei2d"], tmp_path / "download.bin", "mine")


def renamed(source, target, name):
    data = source.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["medseg"]) | {"name": name}
    header["__metadata__"]["medseg"] = json.dumps(about)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return target


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def server():
    """A function that serves bytes, or sends elsewhere, and gives the address."""
    running = []

    def serve(data=b"", location=""):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(302 if location else 200)
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        one = HTTPServer(("127.0.0.1", 0), Answer)
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        running.append((one, thread))
        return f"http://127.0.0.1:{one.server_port}/model"

    yield serve
    for one, thread in running:
        one.shutdown()
        thread.join()
        one.server_close()


def test_a_file_is_added_and_found_by_name(medseg, folder, file, field, tmp_path):
    code, out, err = medseg("models", "add", file, "--sha256", sha(file).upper())
    assert (code, err) == (0, "") and out.startswith("mine (sha256 ")
    assert [path.name for path in folder.iterdir()] == ["mine.safetensors"]
    assert "mine" in medseg("models").out and "nuclei2d" in medseg("models").out
    assert medseg("info", "mine").code == 0
    assert medseg("segment", field, "-o", tmp_path / "out", "--model", "mine").code == 0
    assert medseg("models", "add", file).code == 0  # the same again


def test_a_url(medseg, folder, file, server):
    code, out, err = medseg("models", "add", server(file.read_bytes()), "--sha256", sha(file))
    assert (code, err) == (0, "") and (folder / "mine.safetensors").read_bytes() == file.read_bytes()


def test_what_is_not_let_in(medseg, folder, file, server, tmp_path, monkeypatch):
    bad = tmp_path / "bad.bin"
    bad.write_bytes(b"\x80\x04\x95 pickle")
    escaping = renamed(file, tmp_path / "escaping.bin", "../../evil")
    shipped = presets.weights()["nuclei2d"]
    elsewhere = server(location="file:///etc/passwd")
    for source, digest, code, words in (
        (file, "0" * 64, 2, "not the one given"),
        (bad, sha(bad), 2, "bad.bin: is no model file of medseg"),
        (escaping, sha(escaping), 2, "no plain name"),
        (shipped, sha(shipped), 2, "name of a shipped model"),
        (tmp_path / "nothing", "0" * 64, 4, "is not there"),
        (file, "12", 2, "64 hex digits"),
        (server(file.read_bytes()), None, 2, "is needed for a URL"),
        (server(file.read_bytes()[:-1]), sha(file), 2, "not the one given"),
        (elsewhere, "0" * 64, 4, "answers 302"),
        ("ftp://127.0.0.1/x", "0" * 64, 2, "not ftp"),
        ("file:///etc/passwd", "0" * 64, 2, "not file"),
        ("http://127.0.0.1:9/x", "0" * 64, 4, "cannot be reached"),
    ):
        given = ["models", "add", source, *(["--sha256", digest] if digest else [])]
        result = medseg(*given)
        assert result.code == code and words in result.errors[0] and len(result.errors) == 1, (source, result)
    monkeypatch.setattr(models, "MOST", 1000)
    assert "larger than" in medseg("models", "add", file).errors[0]
    assert not folder.exists() or not list(folder.iterdir())


def test_another_model_of_the_same_name_is_refused(medseg, folder, file, tmp_path):
    assert medseg("models", "add", file).code == 0
    before = sha(folder / "mine.safetensors")
    other = renamed(presets.weights()["nuclei3d"], tmp_path / "other.bin", "mine")
    assert "there already" in medseg("models", "add", other).errors[0]
    assert sha(folder / "mine.safetensors") == before
    shutil.rmtree(folder)
    assert medseg("models", "add", other).code == 0
