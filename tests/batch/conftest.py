"""Small studies on disk, and the batch command in a process of its own, which is what can be killed."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg.testing.phantoms import blobs

ROOT = Path(__file__).resolve().parents[2]
RULE = ("--threshold", "otsu", "--method", "components")


def field(seed: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    """A 2-D image with five bright discs."""
    labels = blobs(shape, 5, 6, seed=seed, touching=False)
    noise = np.random.default_rng(seed).normal(0, 6, shape)
    return np.clip(20 + 150 * (labels > 0) + noise, 0, 255).astype(np.uint8)


def fill(folder: Path, count: int) -> Path:
    """A folder of images."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        tifffile.imwrite(folder / f"Doe_Jane_{seed:03d}.tif", field(seed))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six images."""
    return fill(tmp_path / "in", 6)


def command(*arguments: str | Path, name: str = "batch") -> list[str]:
    return [sys.executable, "-m", "medseg", name, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def start(*arguments: str | Path, name: str = "batch", **more: str) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        command(*arguments, name=name), env=environment(**more), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def batch(*arguments: str | Path, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    done = subprocess.run(command(*arguments), env=environment(**more), capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def finished(printed: str) -> int:
    """How many cases a batch says that it did: one line each, like "case-1: 5 instances in 0.6 s"."""
    return len(re.findall(r"\d instances? in ", printed))


def end(process: subprocess.Popen[str]) -> None:
    """Kill -9 the whole group, and wait until it is gone."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def results(out: Path) -> dict[str, str]:
    """SHA-256 of every result by its path; provenance is left out, as it says how long things took."""
    found = {}
    for path in sorted(out.rglob("*")):
        own = path.relative_to(out)
        if (
            path.is_file()
            and len(own.parts) > 1
            and not own.parts[0].startswith(".")
            and path.name != "provenance.json"
        ):
            found[str(own)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
