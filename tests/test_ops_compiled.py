"""Compiled loops run also where nothing may be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import medseg

PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
import numba.core.caching as caching
caching._CacheLocator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError("read-only"))
import numpy as np
from medseg.ops.flow import flows
print(flows(np.ones((1, 3), np.int32), (1.0, 1.0))[1].tolist())
"""


def test_without_a_folder_for_the_cache(tmp_path):
    copied = tmp_path / "code" / "medseg"
    shutil.copytree(Path(medseg.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(copied.parent)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout == "[[1.0, 0.0, -1.0]]\n", done.stderr
    assert not list(copied.rglob("*.nbi"))
