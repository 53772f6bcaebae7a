"""Files are written whole or not at all, and what the disk says comes as a typed error."""

import errno
import os

import pytest

from medseg.errors import OutputError
from medseg.ops.files import sweep, write_whole


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


def test_what_a_killed_process_left_is_swept(tmp_path):
    gone = tmp_path / f".a.csv.{2**22 - 1}-0a1b2c3d.part"
    kept = [tmp_path / f".a.csv.{os.getpid()}-0a1b2c3d.part", tmp_path / ".a.part", tmp_path / "a.1-2.part"]
    for file in (gone, *kept):
        file.touch()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_file_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        write_whole(tmp_path / "key", b"x", mode=0o600)
        write_whole(tmp_path / "open", b"x")
    finally:
        os.umask(before)
    if os.name != "nt":
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("key", "open")] == [0o600, 0o666]


def test_the_error_says_what_the_system_said(tmp_path):
    with pytest.raises(OutputError) as error:
        write_whole(tmp_path / "nowhere" / "x", b"")
    assert error.value.errno == errno.ENOENT
