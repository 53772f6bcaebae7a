"""Compute what the peers say of every case and write it down, with their versions.

pip install --no-deps -r tests/peers/requirements-scorers.txt      (in an environment of its own)
python tests/peers/scorers/freeze.py tests/metrics/fixtures            writes oracles2d.npz and oracles3d.npz
python tests/peers/scorers/freeze.py --check tests/metrics/fixtures    computes all again and tells what differs
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import cases
import formulas
import numpy as np
import peers

PACKAGES = ("stardist", "cellpose", "pycocotools", "panoptica", "surface-distance", "scipy", "numpy")


def figures(ndim: int, first: int = 0) -> dict[str, np.ndarray]:
    """Every figure of every case, by "peer/figure", one row a case (or a group of cases)."""
    rows: dict[str, list] = {"cases/checksum": []}
    drawn = list(cases.every(ndim, first))
    for number, case in enumerate(drawn):
        rows["cases/checksum"].append(cases.checksum(case))
        for name, values in of_case(case).items():
            rows.setdefault(name, []).append(values)
        if number % 100 == 99:
            sys.stderr.write(f"{ndim}-D: {number + 1} of {len(drawn)}\n")
    for name, full in (("plain", False), ("full", True)):
        pooled = [[drawn[k] for k in group] for group in cases.groups()]
        rows[f"coco/pooled {name}"] = [peers.coco(group, full=full) for group in pooled]
    rows["surface/table"] = [peers.surface_table(spacing) for spacing in cases.SPACINGS[ndim]]
    return {name: np.asarray(values) for name, values in rows.items()}


def of_case(case: cases.Case) -> dict[str, object]:
    """All peers on one case."""
    found: dict[str, object] = {}
    for peer in (peers.stardist, peers.cellpose, peers.panoptica, peers.surface, formulas.brats, formulas.autopet):
        try:
            found |= {f"{peer.__name__}/{name}": values for name, values in peer(case).items()}
        except (ValueError, IndexError, ZeroDivisionError, NotImplementedError):
            if case.truth.any() and case.prediction.any():
                raise
            found |= {f"{peer.__name__}/{name}": values for name, values in _nothing(peer).items()}
    for sizes in peers.SIZES:
        found[f"coco/{sizes}"] = peers.coco([case], sizes)
    found["coco/full"] = peers.coco([case], full=True)
    found["formula/aji"], found["formula/seg"] = formulas.aji(case), formulas.seg(case)
    return found


def _nothing(peer) -> dict[str, object]:
    """NaN in the shapes that a peer fills for a usual case."""
    usual = peer(next(case for case in cases.every(2) if case.name == "usual"))
    return {name: np.full(np.shape(values), np.nan) for name, values in usual.items()}


def main() -> int:
    """Write the fixtures, or compare with those that are there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="compare with what is there")
    parser.add_argument("--first", type=int, default=0, help="number of the first case: 600 gives further ones")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    wrong = 0
    for ndim in (2, 3):
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools and panoptica talk
            found = figures(ndim, asked.first)
        file = asked.folder / f"oracles{ndim}d.npz"
        if asked.check:
            wrong += compared(file, found)
        else:
            versions = json.dumps({name: version(name) for name in PACKAGES})
            np.savez_compressed(file, versions=np.array(versions), **found)
            sys.stdout.write(f"{file}: {len(found)} figures, {file.stat().st_size // 1000} kB\n")
    return 1 if wrong else 0


def compared(file: Path, found: dict[str, np.ndarray]) -> int:
    """Number of figures that differ from the frozen ones, each told."""
    with np.load(file) as frozen:
        names = set(frozen.files) - {"versions"}
        wrong = sorted(names ^ set(found))
        for name in sorted(names & set(found)):
            if frozen[name].shape != found[name].shape or not np.allclose(
                frozen[name], found[name], rtol=0, atol=1e-12, equal_nan=True
            ):
                wrong.append(name)
    for name in wrong:
        sys.stdout.write(f"{file.name}: {name} differs from what was frozen\n")
    if not wrong:
        sys.stdout.write(f"{file.name}: {len(found)} figures as frozen\n")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
