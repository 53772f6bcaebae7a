"""Damaged files of every kind give a value or a typed error: two thousand here, twenty thousand with `make fuzz`."""

import os
import signal
import sys
import time
import warnings

import pytest

from medseg.errors import FormatError, MedsegWarning
from medseg.testing import fuzz
from medseg.testing.fuzzworker import outcome
from medseg.testing.mutations import ANY, OWN
from medseg.testing.seedreaders import READERS
from medseg.testing.seeds import seeds
from medseg.testing.series import NAME

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")


def checked(numbers):
    report = fuzz.run(numbers)
    assert not report.findings, "\n".join(map(str, report.findings))
    return report


@linux
def test_two_thousand_mutants():
    report = checked(range(2000))
    assert report.total == 2000
    for seed in seeds():  # damage is seen in every kind, and not all of it is fatal
        assert report.counts[seed.name, "error"] >= 5
    assert sum(count for (_, what), count in report.counts.items() if what == "value") > 200


@linux
@pytest.mark.slow
def test_twenty_thousand_mutants():
    assert checked(range(2000, 22000)).total == 20000


def test_a_mutant_is_made_of_its_number():
    for number in (3, 40, 77):
        assert fuzz.mutant(number) == fuzz.mutant(number)
    assert len({fuzz.mutant(number)[1] for number in range(200)}) > 190
    unchanged = [number for number in range(400) if fuzz.mutant(number)[1] == fuzz.mutant(number)[0].data]
    assert len(unchanged) < 30


def test_every_kind_is_mutated_in_its_own_way():
    used = {name for number in range(2000) for name in fuzz.mutant(number)[2].split("+")}
    assert used >= {one.__name__ for group in (ANY, *OWN.values()) for one in group}
    assert {one.reader for one in seeds()} == set(READERS)


# --- the watch itself


def outcome_of(monkeypatch, tmp_path, act):
    monkeypatch.setitem(READERS, "image", lambda path, ct: act())
    return outcome("image", tmp_path / "a", tmp_path)[0]


def raising(error, cause=None):
    def act():
        raise error from cause

    return act


class Panic(BaseException):
    """Like those of decoders in Rust."""


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda: None, "value"),
        (raising(FormatError("a is damaged")), "error"),
        (raising(KeyError("x")), "exception"),
        (raising(Panic()), "exception"),
        (raising(FormatError("too large"), MemoryError()), "memory"),
        (raising(FormatError(f"{NAME} is damaged")), "name"),
        (lambda: warnings.warn("numpy says", RuntimeWarning, stacklevel=1), "warning"),
        (lambda: warnings.warn("we say", MedsegWarning, stacklevel=1), "value"),
        (lambda: warnings.warn(f"we say {NAME}", MedsegWarning, stacklevel=1), "name"),
    ],
)
def test_what_comes_out_is_called_by_its_name(monkeypatch, tmp_path, act, what):
    assert outcome_of(monkeypatch, tmp_path, act) == what


def test_a_memory_error_is_seen_below_a_typed_one(monkeypatch, tmp_path):
    def act():
        try:
            raise MemoryError
        except MemoryError:
            raise FormatError("does not fit") from None

    assert outcome_of(monkeypatch, tmp_path, act) == "memory"


def test_hangs_and_deaths_are_seen(tmp_path):
    worker = fuzz._Worker(tmp_path, fuzz.CAP, ())
    assert worker.read("image", tmp_path / "none.nii", 30)[0] == "error"
    os.kill(worker.process.pid, signal.SIGKILL)
    assert worker.read("image", tmp_path / "none.nii", 30)[0] == "death" and not worker.alive
    worker = fuzz._Worker(tmp_path, fuzz.CAP, ())
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "split.yaml")  # who reads it waits for ever
        start = time.monotonic()
        assert worker.read("split", tmp_path / "split.yaml", 0.5)[0] == "hang" and not worker.alive
        assert time.monotonic() - start < 20
    else:
        worker.kill()


def test_one_is_repeated_by_its_number(capsys):
    assert fuzz.main(["--only", "33"]) == 0
    out = capsys.readouterr().out
    assert fuzz.mutant(33)[0].name in out and "1 mutants" in out
