"""What only a process of its own shows: which modules are loaded, signals, closed pipes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medseg import io

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

LOADED = """
import sys
from medseg.cli import main

def loaded(*arguments):
    try:
        main(list(arguments))
    except SystemExit as left:
        assert not left.code, left.code
    heavy = {"torch", "monai", "napari", "SimpleITK", "scipy", "pandas", "pydicom", "tifffile", "nibabel", "numpy"}
    print("LOADED", arguments[0], *sorted(heavy & set(sys.modules)))

loaded("--help")
loaded("models")
loaded("info", "nuclei2d")
loaded("info", sys.argv[1])
"""


def test_help_and_info_need_no_torch(field):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(field)], env=ENV, capture_output=True, text=True, check=True
    )
    loaded = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert [one[0] for one in loaded] == ["--help", "models", "info", "info"]
    assert loaded[0][1:] == []  # help loads nothing at all
    for one in loaded:
        assert not {"torch", "monai", "napari", "SimpleITK"} & set(one)
    assert "tifffile" in loaded[3]  # or the check itself would see nothing


def test_python_m_and_exit_code():
    done = subprocess.run(
        [sys.executable, "-m", "medseg", "segment", "--nope"], env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("medseg: error: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # found when it ends, or at the first line
def test_nobody_reads_the_output(unbuffered):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "medseg", "models"],
            env=ENV | {"PYTHONUNBUFFERED": unbuffered},
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupted(field, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(400):
        (folder / f"{i:03d}.tif").symlink_to(field)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "medseg", "segment", str(folder), "-o", str(out)]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            first = [process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            rest, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and err == "medseg: interrupted; files already written are whole\n"
    told = [line.split(":")[0] for line in (*first, *rest.splitlines())]
    assert told == [f"{i:03d}" for i in range(len(told))] and 2 <= len(told) < 400
    for stem in told:
        assert len(list(out.glob(f"{stem}_*"))) == 3
    assert not list(out.glob(".*")) and len(list(out.iterdir())) < 3 * (len(told) + 2)
    for path in out.glob("*_labels.tif"):
        assert io.load_labels(path).labels.shape == (80, 112)
