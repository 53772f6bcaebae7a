"""The ledger by itself: who has a case, what counts as done, what is said about what failed."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from medseg.batch import Case, Input, Ledger, ledger
from medseg.batch.cases import Named
from medseg.batch.key import read_key, write_key
from medseg.batch.placing import broken, outputs, place
from medseg.batch.values import Result
from medseg.batch.workers import dead, identity, living
from medseg.errors import MissingError, OutputError


def some(count: int, digest: str = "d") -> list[Named]:
    return [Named(f"case-{n}", f"{digest}{n}", (), Case("file", (Input((Path(f"{n}.tif"),)),))) for n in range(count)]


def opened(folder: Path, count: int = 2, options: str = "options") -> Ledger:
    one = Ledger(folder)
    with one.locked():
        one.enroll(some(count), options)
    return one


def result(folder: Path, name: str, text: str = "x") -> tuple[Result, Path]:
    """A result in a staging folder."""
    staged = folder / ".staging" / name
    (staged / name).mkdir(parents=True)
    (staged / name / "labels.txt").write_text(text)
    return Result(outputs(staged), 1.0, 3), staged


def publish(base: Ledger, claim, text: str = "x") -> bool:
    told, staged = result(base.folder, claim.name, text)
    return base.publish(claim, told, lambda: place(staged, base.folder, told.outputs))


def test_each_case_is_claimed_once(tmp_path):
    with closing(opened(tmp_path, 3)) as one, closing(opened(tmp_path, 3)) as two:
        taken = [one.claim("a"), two.claim("b"), one.claim("a")]
        assert sorted(claim.name for claim in taken) == ["case-0", "case-1", "case-2"]
        assert one.claim("a") is None and two.claim("b") is None
        assert one.counts()["running"] == 3


def test_only_ones_own_cases_are_claimed(tmp_path):
    with closing(opened(tmp_path, 3)) as _, closing(Ledger(tmp_path)) as other:
        assert other.claim("b") is None  # it knows no files for them
        with other.locked():
            other.enroll(some(1), "options")
        assert other.claim("b").name == "case-0" and other.claim("b") is None


def test_a_claim_lasts_as_long_as_its_heart_beats(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(ledger.time, "time", lambda: now[0])
    with closing(opened(tmp_path, 1)) as one, closing(opened(tmp_path, 1)) as two:
        first = one.claim("a")
        now[0] += ledger.STALE - 1
        one.beat([first.token])
        now[0] += ledger.STALE - 1
        assert two.claim("b") is None
        now[0] += 2
        second = two.claim("b")
        assert second.name == first.name and ledger.STALE < 10
        assert not publish(one, first, "late") and not (tmp_path / "case-0").exists()  # it was taken for dead
        one.beat([first.token])
        one.fail(first, "Error", "late", 1.0)
        assert two.counts()["running"] == 1
        (tmp_path / ".staging/case-0/case-0/labels.txt").unlink()
        (tmp_path / ".staging/case-0/case-0").rmdir()
        assert publish(two, second, "mine") and (tmp_path / "case-0/labels.txt").read_text() == "mine"
        assert two.cases("done")[0]["attempts"] == 2


def test_who_is_dead():
    me = identity()
    host, pid, born, _ = me.split("|")
    assert me != identity() and not dead(me) and not dead("elsewhere|1|1") and not dead("")
    assert dead(f"{host}|{2**22 - 1}|1") and dead(f"{host}|{pid}|0|x") and not dead(f"{host}|{pid}|{born}|x")


def test_what_failed_is_queued_until_it_is_final(tmp_path):
    with closing(opened(tmp_path, 1)) as one:
        one.fail(one.claim("a"), "OSError", "why", 1.0, final=False)
        again = one.claim("a")
        assert again.strikes == 1
        one.fail(again, "OSError", "why", 1.0)
        (row,) = one.cases("failed")
        assert (row["error_class"], row["error"], row["attempts"]) == ("OSError", "why", 2)
        assert one.claim("a") is None
        assert one.requeue(lambda files: False) == (0, 0) and one.requeue(lambda files: False, failed=True) == (0, 1)
        assert one.claim("a").strikes == 0


def test_done_counts_as_long_as_the_files_are_there(tmp_path):
    def check(files):
        return broken(tmp_path, files)

    with closing(opened(tmp_path, 2)) as one:
        assert publish(one, one.claim("a")) and publish(one, one.claim("a"))
        assert one.requeue(check) == (0, 0)
        (tmp_path / "case-1/labels.txt").write_text("y")  # the same size
        assert one.requeue(check) == (1, 0) and one.counts()["queued"] == 1


def test_other_options_or_content_supersede(tmp_path):
    with closing(opened(tmp_path, 1)) as one:
        publish(one, one.claim("a"))
        with one.locked():
            one.enroll(some(1), "other")
        assert one.counts() == {"queued": 1, "running": 0, "done": 0, "failed": 0, "skipped": 1}
        with one.locked():
            one.enroll(some(1), "options")  # back again: the files are still those
        assert one.counts()["done"] == 1 and one.counts()["skipped"] == 1
        with one.locked():
            one.enroll(some(1, "new"), "options", gone=["case-9"])
        assert [row["error"] for row in one.cases("skipped")] == ["input, model or options have changed"] * 2


def test_what_cannot_be_placed_leaves_nothing(tmp_path):
    with closing(opened(tmp_path, 1)) as one:
        claim = one.claim("a")
        told, staged = result(tmp_path, claim.name)
        missing = replace(told.outputs[0], path="case-0/zzz.txt")
        told = replace(told, outputs=(*told.outputs, missing))
        with pytest.raises(OutputError, match="zzz.txt: cannot be written"):
            one.publish(claim, told, lambda: place(staged, tmp_path, told.outputs))
        assert one.counts()["running"] == 1 and not list((tmp_path / "case-0").iterdir())


def test_nothing_there_and_nothing_usable(tmp_path):
    with pytest.raises(MissingError, match="holds no batch"):
        Ledger(tmp_path, new=False)
    (tmp_path / ledger.NAME).write_text("this is no data base, and longer than a hundred bytes " * 3)
    with pytest.raises(OutputError, match="cannot be used"):
        Ledger(tmp_path)


def test_it_is_in_wal_mode(tmp_path):
    with closing(opened(tmp_path)):
        pass
    with closing(sqlite3.connect(tmp_path / ledger.NAME)) as base:
        assert base.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_series_that_grew_supersedes_its_earlier_self(tmp_path):
    files = tuple(tmp_path / f"{n}.dcm" for n in range(3))

    def series(name: str, count: int, key: str = "k") -> Named:
        return Named(name, name, (), Case("dicom", (Input(files[:count], series=key),)))

    assert write_key(tmp_path, [series("case-a", 2), series("case-b", 2, "other")]) == []
    assert write_key(tmp_path, [series("case-a", 2)]) == []
    assert write_key(tmp_path, [series("case-c", 3)]) == ["case-a"]
    assert write_key(tmp_path, [series("case-c-2", 3)]) == ["case-a"]  # listed twice, and both count
    assert set(read_key(tmp_path)) == {"case-a", "case-b", "case-c", "case-c-2"}


def test_a_claim_of_a_living_worker_that_slept_keeps_its_staging_folder(tmp_path, monkeypatch):
    with closing(opened(tmp_path)) as base:
        mine, other = base.claim(identity()), base.claim("elsewhere|1|1|x")
        monkeypatch.setattr(ledger.time, "time", lambda: 4e9)  # no heartbeat for long
        assert base.alive(living) == {mine.token} and base.alive(lambda worker: False) == set()
        assert other.token not in base.alive(living)
        assert not living("elsewhere|1|1|x") and not living("") and living(identity())


def test_a_lost_claim_cannot_fail_a_case(tmp_path):
    with closing(opened(tmp_path, 1)) as base:
        lost = base.claim("a")
        base.drop([lost])
        assert base.claim("b") is not None
        assert not base.fail(lost, "Error", "why", 1.0)
        assert base.counts()["running"] == 1 and base.counts()["failed"] == 0


def test_a_study_that_may_only_be_looked_at_tells_its_state(tmp_path, monkeypatch):
    with closing(opened(tmp_path, 2)) as base:
        publish(base, base.claim("a"))
    there = sorted(tmp_path.iterdir())
    monkeypatch.setattr(ledger.os, "access", lambda path, mode: False)  # as a folder that is mounted to be read
    with closing(Ledger(tmp_path, new=False)) as base:
        assert base.counts()["done"] == 1 and [row["name"] for row in base.cases("done")] == ["case-0"]
        with pytest.raises(OutputError, match="readonly"):
            base.put("secret", "x")
    assert sorted(tmp_path.iterdir()) == there
