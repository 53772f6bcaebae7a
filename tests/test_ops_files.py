"""Files are written whole or not at all, and what the disk says comes as a typed error."""

import os

import pytest

from medseg.errors import OutputError
from medseg.ops.files import write_whole


def test_the_new_file_replaces_the_old(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old and longer")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    write_whole(str(path), b"")
    assert path.read_bytes() == b""


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def fail(*_):
        assert path.read_bytes() == b"old"  # nothing was touched so far
        raise error

    monkeypatch.setattr(os, step, fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_whole(path, b"new")
    if expected is OutputError:
        assert "out.bin" in str(caught.value) and "No space left" in str(caught.value)
        assert isinstance(caught.value, OSError)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        write_whole(tmp_path / "nowhere" / "out.bin", b"new")


def test_a_folder_in_the_way_is_an_output_error(tmp_path):
    (tmp_path / "out.bin").mkdir()
    with pytest.raises(OutputError, match=r"out\.bin"):
        write_whole(tmp_path / "out.bin", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["out.bin"]
