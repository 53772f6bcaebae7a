"""Whatever kills a batch, it goes on: nothing lost, nothing twice, nothing truncated under a final name."""

import os
import random
import shutil
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pandas as pd
import pytest

from medseg.batch import Ledger
from medseg.batch.ledger import STALE
from medseg.batch.placing import broken

from .conftest import RULE, batch, end, fill, finished, results, start


def check(out, whole):
    """The folder is that of an uninterrupted run."""
    assert results(out) == whole
    with closing(Ledger(out, new=False)) as ledger:
        rows = ledger.cases()
        assert len({row["name"] for row in rows}) == len(rows)
        assert {row["state"] for row in rows} == {"done"}
        for row in rows:
            assert not broken(out, ledger.outputs(row["id"]))
    assert not list(out.rglob("*.part")) and not (out / ".staging").exists()


def nothing_is_truncated(out, whole):
    """What has a final name is whole, while the rest is not there."""
    for path, digest in results(out).items():
        assert whole[path] == digest, path


def unfinished(out):
    """Whether work was going on: a case claimed, or written beside its final name."""
    if not (out / "ledger.sqlite").exists():
        return False
    with closing(Ledger(out, new=False)) as ledger:
        return bool(ledger.counts()["running"] or list(out.rglob("*.part")) or list(out.glob(".staging/*")))


def kill_and_resume(study, tmp_path, points, seed):
    """Kill after a case drawn by chance, and up to a case's time later; how many of the points fell into work.

    A share of the whole time would do for one machine alone: starting takes most of it, and how long that is hangs on what
    the disk still holds.
    """
    clean = tmp_path / "clean"
    cases, draw, inside = len(list(study.iterdir())), random.Random(seed), 0
    process = start(study, "-o", clean, *RULE)
    process.stdout.readline()
    began = time.monotonic()
    for _ in range(cases - 1):
        process.stdout.readline()
    each = (time.monotonic() - began) / max(cases - 1, 1)
    process.communicate()
    assert process.returncode == 0
    whole = results(clean)
    assert whole
    for point in range(points):
        out = tmp_path / f"out{point}"
        process = start(study, "-o", out, *RULE, "--jobs", str(1 + point % 2))
        for _ in range(draw.randrange(cases)):
            assert process.stdout.readline().startswith("case-")
        time.sleep(draw.uniform(0, 1.5) * each)
        end(process)
        inside += unfinished(out)
        nothing_is_truncated(out, whole)
        batch(study, "-o", out, *RULE, "--resume")
        check(out, whole)
        shutil.rmtree(out)
    return inside


def test_kill_9_and_resume(study, tmp_path):
    kill_and_resume(study, tmp_path, 1, seed=1)


@pytest.mark.slow
def test_kill_9_at_50_points_of_20_cases(tmp_path):
    inside = kill_and_resume(fill(tmp_path / "in", 20), tmp_path, 50, seed=2)
    assert inside >= 25, f"{inside} of 50 kills fell into work on a case"


@pytest.mark.slow
def test_four_processes_on_one_folder_do_each_of_100_cases_once(tmp_path):
    study, out = fill(tmp_path / "in", 100), tmp_path / "out"
    running = [start(study, "-o", out, *RULE) for _ in range(4)]
    with ThreadPoolExecutor(len(running)) as readers:  # or a full pipe would hold up one of them
        told = list(readers.map(lambda process: process.communicate(timeout=1200), running))
    done = [[line.split(":")[0] for line in text.splitlines() if line.startswith("case-")] for text, _ in told]
    for process, (_, err) in zip(running, told, strict=True):
        assert process.returncode == 0 and "error" not in err and "Traceback" not in err, err
    every = [name for one in done for name in one]
    assert len(every) == len(set(every)) == 100
    assert all(done), [len(one) for one in done]  # each had its share
    with closing(Ledger(out, new=False)) as ledger:
        assert [row["attempts"] for row in ledger.cases("done")] == [1] * 100
    table = pd.read_parquet(out / "instances.parquet")
    assert table["case"].nunique() == 100 and not table.duplicated(["case", "id"]).any()


@pytest.mark.slow
def test_the_cases_of_a_killed_process_are_taken_over(tmp_path):
    study, out = fill(tmp_path / "in", 30), tmp_path / "out"
    first = start(study, "-o", out, *RULE)
    second = start(study, "-o", out, *RULE)
    assert first.stdout.readline().startswith("case-")
    end(first)
    killed = time.time()
    with closing(Ledger(out, new=False)) as ledger:
        orphans = {row["name"]: row["token"] for row in ledger.cases("running") if f"|{first.pid}|" in row["worker"]}
        assert orphans
        while any(row["token"] == orphans.get(row["name"]) for row in ledger.cases("running")):
            assert time.time() - killed < 10
            time.sleep(0.05)
    _, err = second.communicate(timeout=600)
    assert second.returncode == 0 and "Traceback" not in err, err
    with closing(Ledger(out, new=False)) as ledger:
        assert ledger.counts()["done"] == 30


@pytest.mark.slow
def test_the_claim_of_a_dead_worker_is_taken_over(study, tmp_path):
    out = tmp_path / "out"
    batch(study, "-o", out, *RULE)
    base = sqlite3.connect(out / "ledger.sqlite")
    # a worker on another machine, of which nothing but its heartbeat tells
    base.execute(
        "UPDATE cases SET state = 'running', worker = 'elsewhere|1|1', token = 'x', beat = ? WHERE id = 1",
        (time.time(),),
    )
    base.commit()
    base.close()
    started = time.monotonic()
    done = batch(study, "-o", out, *RULE)
    assert finished(done.stdout) == 1
    assert STALE - 1 < time.monotonic() - started < STALE + 25  # of which some seconds start two processes


def test_ctrl_c_leaves_a_clean_ledger(tmp_path):
    study, out = fill(tmp_path / "in", 14), tmp_path / "out"
    process = start(study, "-o", out, *RULE)
    assert process.stdout.readline().startswith("case-")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, err = process.communicate(timeout=30)  # two seconds at most on a machine with nothing else to do
    assert process.returncode == 130 and err == "medseg: interrupted; files already written are whole\n"
    with closing(Ledger(out, new=False)) as ledger:
        states = ledger.counts()
    assert states["running"] == states["failed"] == 0 and states["queued"] and states["done"]
    assert not (out / ".staging").exists()
    batch(study, "-o", out, *RULE)
    with closing(Ledger(out, new=False)) as ledger:
        assert ledger.counts()["done"] == 14


def test_what_was_changed_or_removed_is_made_again(study, tmp_path):
    out = tmp_path / "out"
    batch(study, "-o", out, *RULE)
    whole = results(out)
    first, second = sorted(out.glob("case-*/*_labels.tif"))[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    done = batch(study, "-o", out, *RULE)
    assert finished(done.stdout) == 2 and "2 results are gone or were changed" in done.stderr
    check(out, whole)


@pytest.mark.slow
def test_other_options_are_another_result(study, tmp_path):
    out = tmp_path / "out"
    batch(study, "-o", out, *RULE)
    done = batch(study, "-o", out, *RULE, "--save", "labels")
    assert finished(done.stdout) == 6
    assert not list(out.glob("case-*/*_overlay.png"))  # of the other options; they would not fit what is there now
    with closing(Ledger(out, new=False)) as ledger:
        assert len(ledger.cases()) == 6
