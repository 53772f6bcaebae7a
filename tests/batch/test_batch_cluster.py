"""A batch on a dask cluster: a scheduler and workers as they are started by hand, on loopback."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress

import numpy as np
import pytest
import tifffile

from medseg.batch import Case, Input, Ledger
from medseg.batch.placing import BEGUN, STAGING
from medseg.batch.remote import Order, do
from medseg.batch.steps import DIED, Task
from medseg.errors import InputError, MissingError, SpecError
from medseg.spec import BatchSpec, parse

from .conftest import RULE, batch, environment, fill, finished, results, start

pytest.importorskip("distributed")


class Dask:
    """A scheduler and its workers, each in a process group of its own."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.folder, self.started = folder, []
        self.scheduler = self._start("scheduler", "--host", self.address, "--no-dashboard")

    def _start(self, *words):
        log = os.open(self.folder / f"{words[0]}{len(self.started)}.log", os.O_WRONLY | os.O_CREAT)
        own = [sys.executable, "-m", "dask", *words]
        process = subprocess.Popen(
            own, env=environment(), cwd=self.folder, stdout=log, stderr=log, start_new_session=True
        )
        os.close(log)
        self.started.append(process)
        return process

    def worker(self, *more):
        return self._start("worker", self.address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", *more)

    def logs(self):
        return "".join(file.read_text() for file in self.folder.glob("*.log"))


@pytest.fixture
def dask(tmp_path):
    (tmp_path / "dask").mkdir()
    one = Dask(tmp_path / "dask")
    yield one
    for process in one.started:
        _end(process)


def _end(process):
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def counted(out):
    with closing(Ledger(out, new=False)) as ledger:
        yield ledger


def until(condition, seconds=60):
    for _ in range(int(seconds / 0.02)):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("did not come about in time")


def begun(out):
    """Address of a worker that is in the middle of a case."""
    for file in out.glob(f"{STAGING}/*/{BEGUN}"):
        with suppress(OSError):
            return file.read_text()
    return ""


def test_results_are_those_of_this_machine(study, tmp_path, dask):
    dask.worker()
    batch(study, "-o", tmp_path / "here", *RULE)
    there = tmp_path / "there"
    done = batch(study, "-o", there, *RULE, "--scheduler", dask.address)
    assert finished(done.stdout) == 6
    assert done.stderr.count(f"medseg: cluster at {dask.address}") == 1
    assert results(there) == results(tmp_path / "here")
    assert not (there / STAGING).exists()
    assert "Doe" not in dask.logs() + done.stdout + done.stderr
    assert batch("status", there).stdout.count("done     6") == 1


def test_a_worker_that_is_killed_loses_nothing(tmp_path, dask):
    study, out = fill(tmp_path / "in", 12), tmp_path / "out"
    workers = [dask.worker(), dask.worker()]
    process = start(study, "-o", out, *RULE, "--scheduler", dask.address)
    first = process.stdout.readline()
    assert first.startswith("case-")
    until(lambda: begun(out))
    _end(workers[0])  # its nanny as well, as when a machine goes
    rest, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in err, err
    names = [line.split(":")[0] for line in (first + rest).splitlines() if line.startswith("case-")]
    assert len(names) == len(set(names)) == 12
    batch(study, "-o", tmp_path / "here", *RULE)
    assert results(out) == results(tmp_path / "here")


@pytest.mark.slow
def test_workers_killed_at_ten_points(tmp_path, dask):
    study, out, draw = fill(tmp_path / "in", 40), tmp_path / "out", random.Random(3)
    batch(study, "-o", tmp_path / "here", *RULE)
    whole, workers = results(tmp_path / "here"), [dask.worker(), dask.worker()]
    process = start(study, "-o", out, *RULE, "--scheduler", dask.address)
    killed = 0
    while killed < 10 and process.poll() is None:
        if begun(out):  # in the middle of a case
            time.sleep(draw.uniform(0, 0.3))
            _end(workers.pop(0))
            workers.append(dask.worker())
            killed += 1
            assert results(out).items() <= whole.items()
        time.sleep(draw.uniform(0, 2))
    assert killed > 3
    text, err = process.communicate(timeout=300)
    assert process.returncode in (0, 3) and "Traceback" not in err, err
    names = [line.split(":")[0] for line in text.splitlines() if line.startswith("case-")]
    assert len(names) == len(set(names))
    with counted(out) as ledger:  # a case whose workers were killed twice counts as the one that kills them
        states, failed = ledger.counts(), ledger.cases("failed")
    assert states["done"] == len(names) and states["done"] + states["failed"] == 40
    assert {row["error_class"] for row in failed} <= {"WorkerDied"}
    batch("retry", out)
    assert results(out) == whole


ADAPTS = """
import time, distributed
if __name__ == "__main__":
    made = distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None)
    made.adapt(maximum=2, interval="200ms")
    print(made.scheduler_address, flush=True)
    time.sleep(600)
"""


def test_a_cluster_that_starts_workers_for_what_waits_gets_something_to_start_them_for(study, tmp_path):
    (tmp_path / "adapts.py").write_text(ADAPTS)
    own = [sys.executable, tmp_path / "adapts.py"]
    made = subprocess.Popen(own, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        done = batch(study, "-o", tmp_path / "out", *RULE, "--scheduler", made.stdout.readline().strip())
    finally:
        _end(made)
        made.stdout.close()
    assert done.returncode == 0 and "no worker now" in done.stderr


def test_a_cluster_that_goes_away_is_said_and_the_rest_is_done_here(tmp_path, dask):
    study, out = fill(tmp_path / "in", 12), tmp_path / "out"
    dask.worker()
    process = start(study, "-o", out, *RULE, "--scheduler", dask.address)
    assert process.stdout.readline().startswith("case-")
    for one in dask.started:
        _end(one)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3 and "Traceback" not in err, err
    errors = [line for line in err.splitlines() if line.startswith("medseg: error")]
    assert errors == [
        f"medseg: error: the cluster at {dask.address} is gone; start it and run the batch again, or without --scheduler"
    ]
    with counted(out) as ledger:
        states = ledger.counts()
    assert states["running"] == states["failed"] == 0 and states["queued"] + states["done"] == 12
    assert states["queued"] and not (out / STAGING).exists()
    batch(study, "-o", out, *RULE)
    with counted(out) as ledger:
        assert ledger.counts()["done"] == 12


def test_ctrl_c_cancels(tmp_path, dask):
    study, out = fill(tmp_path / "in", 12), tmp_path / "out"
    dask.worker()
    process = start(study, "-o", out, *RULE, "--scheduler", dask.address)
    assert process.stdout.readline().startswith("case-")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    with counted(out) as ledger:
        states = ledger.counts()
    assert states["running"] == states["failed"] == 0 and states["queued"] + states["done"] == 12


@pytest.mark.slow
def test_a_case_over_its_time_ends_and_its_worker_goes_on(study, tmp_path, dask):
    # each pixel of the noise is an object of its own, so that measuring takes minutes
    noise = np.random.default_rng(0).integers(0, 255, (4000, 4000)).astype(np.uint8)
    tifffile.imwrite(study / "A.tif", noise)
    dask.worker()
    done = batch(study, "-o", tmp_path / "out", *RULE, "--scheduler", dask.address, "--seconds", "15", code=3)
    assert finished(done.stdout) == 6 and done.stderr.count("took longer than 15 s") == 1


@pytest.mark.slow
def test_a_case_that_kills_its_workers_fails_alone(study, tmp_path, dask):
    tifffile.imwrite(study / "A.tif", np.zeros((12000, 12000), np.uint8), compression="zlib")
    dask.worker("--memory-limit", "600MiB")
    done = batch(study, "-o", tmp_path / "out", *RULE, "--scheduler", dask.address, code=3)
    assert finished(done.stdout) == 6
    with counted(tmp_path / "out") as ledger:
        (failed,) = ledger.cases("failed")
        assert (failed["error_class"], failed["attempts"], failed["strikes"]) == ("WorkerDied", 2, 2)


def order(folder, options="x"):
    case = Case("file", (Input((folder / "a.tif",)),))
    return Order(Task("t", "case-1", case, (), folder), BatchSpec(), options)


def test_a_case_that_another_worker_began_is_not_done_again(tmp_path):
    (tmp_path / BEGUN).touch()
    assert do(order(tmp_path)) == DIED
    assert [path.name for path in tmp_path.iterdir()] == [BEGUN]


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    error = do(order(tmp_path / "elsewhere"))
    assert isinstance(error, InputError) and "a file system that all share" in str(error)


def test_a_worker_with_another_model_or_program_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.batch.remote._begin", lambda folder: True)
    error = do(order(tmp_path))
    assert isinstance(error, InputError) and "another medseg or another model" in str(error)


def test_what_dask_shows_of_a_case_names_nobody(tmp_path):
    assert "a.tif" not in repr(order(tmp_path)) and str(tmp_path) not in repr(order(tmp_path))


def test_nobody_answers(study, tmp_path):
    done = batch(study, "-o", tmp_path / "out", *RULE, "--scheduler", "tcp://127.0.0.1:9", code=4)
    assert done.stderr == (
        "medseg: error: no dask scheduler answers at tcp://127.0.0.1:9; start one, or check host and port\n"
    )


@pytest.mark.parametrize("text", ["threads", "tcp://host", "http://host:1", "tcp://a b:1", ""])
def test_what_is_no_address(text):
    with pytest.raises(SpecError, match="is local, processes, or the address of a dask scheduler"):
        parse(BatchSpec, {"scheduler": text}, "options")


def test_processes_is_what_local_means():
    assert parse(BatchSpec, {"scheduler": "processes"}, "options") == BatchSpec()


def test_without_the_library_the_extra_is_named(monkeypatch):
    from medseg.batch.cluster import Cluster

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingError, match=r'pip install "medseg\[cluster\]"'):
        Cluster(BatchSpec(scheduler="tcp://127.0.0.1:8786"))
