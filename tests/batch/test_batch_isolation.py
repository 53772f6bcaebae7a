"""What is wrong with one case, or with the disk, costs no other case, and the ledger says what it was."""

import multiprocessing
import os
import subprocess
from contextlib import closing

import numpy as np
import pytest
import tifffile

from medseg.batch import Ledger, discover, run
from medseg.batch.values import Done, Failed
from medseg.spec import BatchSpec
from medseg.testing import series

from .conftest import RULE, batch, field, fill, finished, results

SPEC = BatchSpec.model_validate(
    {"case": {"threshold": "otsu", "separate": {"method": "components"}, "save": ["labels"]}}
)


def done(folder, out, **limits):
    """Run here; returns what was done and why the others failed."""
    out.mkdir(exist_ok=True)
    events = list(run(discover(folder), out, SPEC.model_copy(update=limits)))
    return [e for e in events if isinstance(e, Done)], [e for e in events if isinstance(e, Failed)]


@pytest.mark.slow
def test_a_case_over_its_time(study, tmp_path):
    # each pixel of the noise is an object of its own, so that measuring takes minutes
    noise = np.random.default_rng(0).integers(0, 255, (4000, 4000)).astype(np.uint8)
    tifffile.imwrite(study / "noise.tif", noise)
    good, bad = done(study, tmp_path / "out", seconds=5.0)
    assert len(good) == 6 and len(bad) == 1
    assert bad[0].final and bad[0].error.startswith("took longer than 5 s")
    with closing(Ledger(tmp_path / "out")) as ledger:
        assert [row["error_class"] for row in ledger.cases("failed")] == ["TimeLimit"]
        assert {row["attempts"] for row in ledger.cases("failed")} == {1}  # it would take as long again


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux says what memory a process holds")
def test_a_case_over_its_memory(study, tmp_path):
    tifffile.imwrite(study / "big.tif", np.zeros((12000, 12000), np.uint8), compression="zlib")
    good, bad = done(study, tmp_path / "out", memory=0.6)
    assert len(good) == 6 and [one.error.split(";")[0] for one in bad] == ["took more than 0.6 GiB of memory"]


def test_a_worker_that_is_killed_is_replaced(study, tmp_path):
    (tmp_path / "out").mkdir()
    killed, names = [], []
    with closing(run(discover(study), tmp_path / "out", SPEC)) as events:
        for event in events:
            if isinstance(event, Done):
                names.append(event.name)
                if not killed:
                    killed = multiprocessing.active_children()
                    assert len(killed) == 1
                    killed[0].kill()
    assert len(names) == len(set(names)) == 6


def test_a_staging_folder_that_is_taken_away_is_no_fault_of_the_case(study, tmp_path):
    out, taken = tmp_path / "out", []
    out.mkdir()
    with closing(run(discover(study), out, SPEC)) as events:
        for event in events:
            assert not isinstance(event, Failed), event
            if isinstance(event, Done) and not taken:
                taken = list((out / ".staging").iterdir())
                for folder in taken:  # at once: the worker may be writing into it
                    folder.rename(tmp_path / folder.name)
    assert taken
    with closing(Ledger(out)) as ledger:
        assert ledger.counts()["done"] == 6 and ledger.counts()["failed"] == 0


def test_damaged_files_among_good_ones(study, tmp_path):
    out = tmp_path / "out"
    (study / "x1.tif").touch()
    (study / "x2.tif").write_bytes((study / "Doe_Jane_000.tif").read_bytes()[:300])
    (study / "gone.tif").symlink_to(study / "nowhere.tif")
    os.mkfifo(study / "pipe.tif")
    (study / "plate.czi").write_bytes(b"ZISRAWFILE")  # damaged, or of a library that is not there
    first = batch(study, "-o", out, *RULE, code=3)
    assert len(results(out)) == 6 * 4
    status = batch("status", out).stdout
    assert "done     6" in status and "failed   5" in status
    for reason in ("empty (0 bytes)", "truncated", "cannot be read", "CZI file"):
        assert reason in status, reason
    again = batch(study, "-o", out, *RULE, code=3)
    assert "5 cases failed earlier" in again.stderr and finished(again.stdout) == 0
    (study / "gone.tif").unlink()
    tifffile.imwrite(study / "gone.tif", field(77))
    assert finished(batch(study, "-o", out, *RULE, code=3).stdout) == 1
    retried = batch("retry", out, code=3)
    assert finished(retried.stdout) == 0 and "failed   4" in batch("status", out).stdout
    assert finished(first.stdout) == 6


def test_a_file_that_was_not_there_is_done_by_a_retry(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("image\nin/Doe_Jane_000.tif\nin/late.tif\n")
    batch("list.csv", "-o", "out", *RULE, code=3)  # by paths that depend on where it is started
    first = batch("status", "out").stdout
    assert "the input cannot be read (it is not there, or no file)" in first
    batch("retry", "out", code=3)
    assert batch("status", "out").stdout == first  # still the same case
    tifffile.imwrite(study / "late.tif", field(77))
    assert finished(batch("retry", "out").stdout) == 1
    status = batch("status", "out").stdout
    assert "done     2" in status and "failed   0" in status


def test_a_damaged_series_among_good_ones(tmp_path):
    for number in range(3):
        planes = series.stack(6, shape=(24, 24), seed=number, series=f"1.2.{number + 1}")
        series.save(tmp_path / "in" / f"s{number}", planes, seed=number)
    for file in (tmp_path / "in/s1").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    one = next((tmp_path / "in/s2").iterdir())
    one.write_bytes(one.read_bytes()[:400])
    done = batch(tmp_path / "in", "-o", tmp_path / "out", *RULE, code=3)
    assert finished(done.stdout) == 1
    assert done.stderr.count("medseg: error: case-") == 2


def test_two_studies_with_one_series_uid(tmp_path):
    # apart they have other keys than together, since there nothing has to tell them apart
    for number in (1, 2):
        planes = series.stack(4, shape=(32, 32), series="1.2.3", seed=number, StudyInstanceUID=f"1.1.{number}")
        series.save(tmp_path / "in" / str(number), planes)
    good, bad = done(tmp_path / "in", tmp_path / "out")
    assert bad == [] and len({one.name for one in good}) == 2


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.name == "nt" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs a file system of its own, which only root may mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk(small_disk, tmp_path):
    study, out = fill(tmp_path / "in", 20), small_disk / "out"
    full = batch(study, "-o", out, *RULE, code=3)
    assert full.stderr.splitlines()[-1].startswith("medseg: error: there is no space left for the results")
    count = finished(full.stdout)
    assert 0 < count < 20 and len(results(out)) == 4 * count
    status = batch("status", out).stdout
    assert f"done     {count}" in status and "failed   0" in status and "queued: there is no space left" in status
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    batch(study, "-o", out, *RULE)
    assert len(results(out)) == 4 * 20


@pytest.mark.slow
def test_a_folder_that_may_not_be_written(study, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    named = _names(study, tmp_path)[0]
    (out / named).write_text("a file is in the way")
    done = batch(study, "-o", out, *RULE, code=3)
    assert finished(done.stdout) == 5
    assert f"medseg: error: {named}: {named}: cannot be made a folder" in done.stderr


def _names(study, tmp_path):
    return [one.name for one in done(study, tmp_path / "other")[0]]


def test_a_model_that_is_not_there_is_said_at_once(study, tmp_path):
    assert "no model 'nothing'" in batch(study, "-o", tmp_path / "out", "--model", "nothing", code=2).stderr
    assert not (tmp_path / "out").exists()
