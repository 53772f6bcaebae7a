"""The geometry corpus: every awkward series opens rightly or is refused by name, never silently wrong."""

import hashlib
import re
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.errors import GeometryError
from medseg.testing import series
from medseg.testing.corpus import CASES
from medseg.testing.judge import Outcome, outcome, why_wrong
from medseg.testing.series import Truth

BY_NAME = {case.name: case for case in CASES}


@cache
def ran(name: str) -> Outcome:
    """Write a case, open it, judge it; once."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = Path(folder) / "case"
        inner.mkdir()
        return outcome(*BY_NAME[name].written(inner))


@pytest.mark.parametrize("name", BY_NAME)
def test_case(name):
    case, found = BY_NAME[name], ran(name)
    assert found.verdict not in ("WRONG", "crashed"), found
    if found.verdict == "right":
        assert found.route in case.routes, found
    else:
        assert "refused" in case.routes, found
    if found.told:
        assert case.word and re.search(case.word, found.told, re.IGNORECASE), found


def test_nine_in_ten_open_rightly():
    assert len(CASES) == len(BY_NAME) >= 60
    found = {name: ran(name).verdict for name, case in BY_NAME.items() if case.answerable}
    assert sum(verdict == "right" for verdict in found.values()) >= 0.9 * len(found)
    assert not {name for name in BY_NAME if ran(name).verdict in ("WRONG", "crashed")}


def digest(image) -> str:
    return hashlib.sha256(image.grid.affine.tobytes() + np.ascontiguousarray(image.voxels()).tobytes()).hexdigest()


def test_200_orders_of_files_and_names_give_one_volume(tmp_path):
    planes = series.stack(9, angles=(10, 20, 30))
    # each slice under each InstanceNumber, written once
    content = []
    for plane in planes:
        row = []
        for number in range(9):
            plane.dataset.InstanceNumber = number + 1
            series.write(plane.dataset, tmp_path / "one")
            row.append((tmp_path / "one").read_bytes())
        content.append(row)
    folder, draw, found = tmp_path / "s", np.random.default_rng(0), set()
    folder.mkdir()
    for turn in range(200):
        for old in folder.iterdir():
            old.unlink()
        for i, name, number in zip(range(9), draw.permutation(99), draw.permutation(9), strict=False):
            (folder / f"{name:02d}.dcm").write_bytes(content[i][number])
        files = list(folder.iterdir())
        found.add(digest(io.load(folder if turn % 2 else [files[i] for i in draw.permutation(9)])))
    assert len(found) == 1
    image = io.load(folder)
    assert why_wrong(image.voxels(), image.grid.affine, Truth.of(planes)) is None


def test_regularizing_is_recorded_and_spares_regular_stacks(tmp_path):
    planes = series.stack(8, ramp=True)
    series.save(tmp_path / "gap", planes[:3] + planes[4:])
    with pytest.raises(GeometryError, match="(?s)missing.*regularize"):
        io.load(tmp_path / "gap")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = io.load(tmp_path / "gap", regularize=True)
    assert image.grid.shape == (8, 5, 7) and any("resampled" in note for note in image.source.notes)
    series.save(tmp_path / "whole", planes)
    plain, asked = io.load(tmp_path / "whole"), io.load(tmp_path / "whole", regularize=True)
    assert plain.grid == asked.grid and (plain.voxels() == asked.voxels()).all()


# --- the judge itself: what it would let pass is what the corpus would let pass


def judged(change):
    planes = series.stack(ramp=True, angles=(10, 20, 30))
    truth = Truth.of(planes, ramp=series.ramp_of())
    step, row, column = planes[1].origin - planes[0].origin, planes[0].axes[1] * 0.8, planes[0].axes[0] * 0.7
    affine = np.eye(4)
    affine[:3] = np.diag([-1, -1, 1]) @ np.column_stack([step, row, column, planes[0].origin])
    values = truth.values.copy()
    return why_wrong(*change(values, affine), truth)


def test_the_judge_takes_any_order_of_axes():
    assert judged(lambda values, affine: (values, affine)) is None
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 5
    assert judged(lambda values, affine: (values[:, ::-1], affine @ flipped)) is None
    assert judged(lambda values, affine: (values.transpose(0, 3, 2, 1), affine[:, [2, 1, 0, 3]])) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda values, affine: (values[:, ::-1], affine),
        lambda values, affine: (values[:, :-1], affine),
        lambda values, affine: (values, affine + np.eye(4)[:, [3, 0, 1, 2]] * 0.02),
        lambda values, affine: (values, np.eye(4)),
        lambda values, affine: (values + 3, affine),
        lambda values, affine: (values, affine @ np.diag([1.01, 1, 1, 1])),
        lambda values, affine: (values * np.nan, affine),
        lambda values, affine: (np.zeros((1, 0, 5, 7)), affine),
    ],
)
def test_the_judge_refuses_what_is_wrong(change):
    assert judged(change)
