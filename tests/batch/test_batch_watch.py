"""Cases that arrive while a folder is watched."""

import time

import tifffile

from medseg.batch import Case, Input
from medseg.batch.arrivals import Arrivals
from medseg.testing import series

from .conftest import RULE, field, fill, finished, start


def test_a_case_is_given_once_when_it_has_settled(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one, two = tmp_path / "1.dcm", tmp_path / "2.dcm"
    one.write_bytes(b"1")
    arrivals, case = Arrivals(10), Case("dicom", (Input((one,)),))
    assert arrivals.settled([case]) == []
    now[0] = 9.0
    two.write_bytes(b"2")
    grown = Case("dicom", (Input((one, two)),))
    assert arrivals.settled([grown]) == []  # a slice more: the clock starts again
    now[0] = 18.0
    assert arrivals.settled([grown]) == []
    now[0] = 19.0
    assert arrivals.settled([grown]) == [grown] and arrivals.settled([grown]) == []
    two.write_bytes(b"22")
    assert arrivals.settled([grown]) == []
    now[0] = 29.0
    assert arrivals.settled([grown]) == [grown]
    two.unlink()
    assert arrivals.settled([grown]) == []


def test_a_folder_is_watched(tmp_path):
    home = fill(tmp_path / "in", 1)
    quick = ("--settle", "0.5", "--every", "0.2", "--idle", "8")
    process = start(home, "-o", tmp_path / "out", *RULE, *quick, name="watch")
    assert process.stdout.readline().endswith("s\n")  # the one that was there
    tifffile.imwrite(tmp_path / "new.tif", field(9))
    (tmp_path / "new.tif").rename(home / "new.tif")
    rest, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert "2 done, 0 failed, 0 left" in rest and finished(rest) == 1


def test_what_comes_first_may_be_of_another_kind(tmp_path):
    home = fill(tmp_path / "in", 1)  # of which nothing says modality
    quick = ("--settle", "0.5", "--every", "0.2", "--idle", "6", "--where", "modality=CT")
    process = start(home, "-o", tmp_path / "out", "--threshold", "HU>=150", *quick, name="watch")
    assert "no case says 'modality'" in process.stderr.readline()
    series.save(home / "scan", series.stack(4, shape=(24, 24), series="1.2.3", seed=1, Modality="CT"))
    rest, err = process.communicate(timeout=120)
    assert process.returncode == 0 and finished(rest) == 1, err
    assert "no case says" not in err  # said once
    wrong = start(home, "-o", tmp_path / "out", *RULE, "--pattern", "all.tif", name="watch")
    _, err = wrong.communicate(timeout=60)
    assert wrong.returncode == 4 and "names no fields" in err
