"""A listener on loopback: series come by C-STORE, SEG goes back, and what is hostile is refused."""

import gc
import shutil
import signal
import socket
import stat
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom")
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from medseg import presets
from medseg.batch import Ledger
from medseg.batch import spool as spools
from medseg.batch.pacs import Listener, Peer, peer, send, title
from medseg.batch.spool import NO_ROOM, NOT_READ, OTHER_KIND, SUCCESS, Spool
from medseg.errors import MissingError, SpecError
from medseg.testing import series

from .conftest import batch, start

CT, RLE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.5"
RULE = ("--threshold", "HU>=-300", "--method", "components", "--min-volume", "50", "--save", "seg")


@pytest.fixture
def nodule():
    """The sample series, in the order of files."""
    return [dcmread(file) for file in sorted((presets.samples() / "nodule").glob("*.dcm"))]


@contextmanager
def sender(port):
    """An association that sends."""
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(CT)
    ae.add_requested_context(CT, RLE)  # as the sample is
    ae.add_requested_context("1.2.840.10008.1.1")
    found = ae.associate("127.0.0.1", port)
    assert found.is_established
    try:
        yield found
    finally:
        found.release()


@contextmanager
def archive(answers=()):
    """A second SCP, which keeps what it gets; it answers with the statuses given, then with success."""
    got, left = [], list(answers)

    def stored(event):
        if left and (status := left.pop(0)):
            return status
        one = event.dataset
        one.file_meta = event.file_meta
        got.append(one)
        return 0

    ae = AE(ae_title="ARCHIVE")
    for kind in ("66.4", "88.33", "88.34"):
        ae.add_supported_context(f"1.2.840.10008.5.1.4.1.1.{kind}")
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, stored)])
    try:
        yield got, server.server_address[1]
    finally:
        server.shutdown()


@pytest.fixture
def listener(tmp_path):
    """A listener in this process, and its spool."""
    waiting = Spool(tmp_path / "spool", b"key", 100_000, 10_000_000)
    ear = Listener(waiting, "MEDSEG", "127.0.0.1", 0)
    yield ear, waiting
    ear.close()


def status(association, one):
    return association.send_c_store(one).Status


def test_a_series_comes_is_done_and_goes_back(nodule, tmp_path):
    out, spool = tmp_path / "out", tmp_path / "out" / ".spool"
    with archive([0xA700]) as (got, port):
        process = start(
            out, "--port", "0", "--aet", "HERE", "--settle", "1", "--send-to", f"ARCHIVE@127.0.0.1:{port}", *RULE,
            name="listen",
        )  # fmt: skip
        told = process.stderr.readline()
        assert told.startswith("medseg: HERE listens on 127.0.0.1:")
        with sender(int(told.rpartition(":")[2])) as association:
            assert association.send_c_echo().Status == SUCCESS
            assert {status(association, one) for one in nodule} == {SUCCESS}
        deadline = time.monotonic() + 120
        while not got and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        text, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert "refused with status A700; it is tried again" in err and "1 objects sent" in err
    files = list(spool.rglob("*.dcm"))
    assert len(files) == len(nodule) and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    shutil.copytree(presets.samples() / "nodule", tmp_path / "in")
    batch(tmp_path / "in", "-o", tmp_path / "here", *RULE)
    (here,) = (tmp_path / "here").rglob("*_seg.dcm")
    assert len(got) == 1 and (got[0].pixel_array == dcmread(here).pixel_array).all()
    assert got[0].StudyInstanceUID == nodule[0].StudyInstanceUID
    for secret in (str(nodule[0].PatientID), str(nodule[0].SeriesInstanceUID), str(nodule[0].StudyInstanceUID)):
        assert secret not in text + err and not any(secret in str(path) for path in out.rglob("*"))


def test_ctrl_c_while_somebody_sends(nodule, tmp_path):
    process = start(tmp_path / "out", "--port", "0", *RULE, name="listen")
    with sender(int(process.stderr.readline().rpartition(":")[2])) as association:
        assert status(association, nodule[0]) == SUCCESS
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and err.splitlines()[-1].startswith("medseg: interrupted"), err
    with closing(Ledger(tmp_path / "out")) as ledger:
        assert not any(ledger.counts().values())


def test_two_series_that_come_interleaved(listener, tmp_path):
    ear, waiting = listener
    stacks = [series.stack(4, shape=(16, 16), series=f"1.2.{n}", seed=n) for n in (1, 2)]
    for number, planes in enumerate(stacks):
        series.save(tmp_path / f"s{number}", planes, seed=number)
    sets = [[dcmread(file) for file in sorted((tmp_path / f"s{n}").iterdir())] for n in (0, 1)]
    with sender(ear.port) as one, sender(ear.port) as two:
        for first, second in zip(*sets, strict=True):
            assert status(one, first) == status(two, second) == SUCCESS
        assert waiting.settled(0) == []  # both may send more
    _until(lambda: len(list(waiting.folder.rglob("*.dcm"))) == 8)
    ready = []
    _until(lambda: ready.extend(waiting.settled(0)) or len(ready) == 2)
    for folder in ready:
        assert len({dcmread(file).SeriesInstanceUID for file in folder.iterdir()}) == 1
        assert len(list(folder.iterdir())) == 4
    assert waiting.settled(0) == []


def test_a_series_settles_and_comes_again_with_more(tmp_path, nodule, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(spools.time, "monotonic", lambda: now[0])
    waiting = Spool(tmp_path / "spool", b"key", 100_000, 10_000_000)
    assert _take(waiting, nodule[0], 1) == SUCCESS
    now[0] += 60
    assert waiting.settled(10) == []  # not released
    assert not waiting.ended(1, True)
    assert len(waiting.settled(10)) == 1 and waiting.settled(10) == []
    assert _take(waiting, nodule[1], 2) == SUCCESS
    assert waiting.ended(2, False)
    now[0] += 60
    assert waiting.settled(10) == []  # the sender broke off
    assert _take(waiting, nodule[2], 3) == SUCCESS
    waiting.ended(3, True)
    assert waiting.settled(10) == []
    now[0] += 10
    (home,) = waiting.settled(10)
    assert len(list(home.iterdir())) == 3
    waiting.forget(5)
    assert not home.exists()


def _file(one):
    from io import BytesIO

    out = BytesIO()
    one.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _take(waiting, one, number, data=None):
    return waiting.take(data or _file(one), str(one.SOPClassUID), str(one.SOPInstanceUID), number)


def test_limits(tmp_path, nodule):
    size = len(_file(nodule[0]))
    assert _take(Spool(tmp_path / "a", b"k", size - 1, 10**9), nodule[0], 1) == NO_ROOM
    small = Spool(tmp_path / "b", b"k", 10**9, 2 * size + 2000)
    assert [_take(small, one, 1) for one in (nodule[0], nodule[1], nodule[0], nodule[2])] == [0, 0, NO_ROOM, NO_ROOM]
    again = Spool(tmp_path / "b", b"k", 10**9, 3 * size + 5000)  # knows what was there
    assert [_take(again, one, 1) for one in (nodule[2], nodule[3])] == [0, NO_ROOM]
    assert len(list((tmp_path / "b").rglob("*"))) == 4


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what is wrong on purpose
def test_what_is_hostile_is_refused(listener, nodule, tmp_path):
    ear, waiting = listener
    fine, bad = nodule[0], nodule[1]
    empty = Dataset()
    empty.SOPClassUID, empty.SOPInstanceUID = CT, "1.2.3"
    empty.file_meta = fine.file_meta
    names = ("../../x", "/etc/passwd", "1.2\0.3", "", "1" * 65)
    with sender(ear.port) as association:
        assert status(association, empty) == NOT_READ  # no pixels
        for name in names:
            bad.SeriesInstanceUID = name
            assert status(association, bad) == OTHER_KIND, name
        assert status(association, fine) == SUCCESS
    data = _file(fine)
    assert _take(waiting, fine, 1, data[:500]) in (NOT_READ, OTHER_KIND)
    assert _take(waiting, fine, 1, b"\xff" * 3000) in (NOT_READ, OTHER_KIND)
    assert waiting.take(data, CT, "1.2.3", 1) == OTHER_KIND
    inside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert inside == {"spool"} and len(list(waiting.folder.rglob("*.dcm"))) == 1
    with sender(ear.port) as association:
        assert association.send_c_echo().Status == SUCCESS


def test_what_is_no_dicom_or_too_much_does_not_kill_the_listener(listener, nodule):
    ear, waiting = listener
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff" + bytes(3_000_000), b"\x04\x00\x00"):
        with socket.create_connection(("127.0.0.1", ear.port)) as line:
            line.settimeout(10)
            try:
                line.sendall(junk)
                line.shutdown(socket.SHUT_WR)
                while line.recv(4096):
                    pass
            except OSError:
                pass
    big = nodule[0]
    big.decompress()
    big.PixelData = bytes(3_000_000)  # more than one object may have
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(CT)
    association = ae.associate("127.0.0.1", ear.port)
    assert getattr(association.send_c_store(big), "Status", None) != SUCCESS
    association.abort()
    assert not list(waiting.folder.rglob("*.dcm"))
    with sender(ear.port) as again:
        assert status(again, nodule[1]) == SUCCESS


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # pynetdicom leaves it to the collector
def test_nobody_there_to_send_to(tmp_path):
    assert "no association" in send([], Peer("ARCHIVE", "127.0.0.1", 9), "MEDSEG")
    gc.collect()  # here, where that is expected


@pytest.mark.parametrize("text", ["ARCHIVE", "A@b", "A@b:0", "A@b:99999", "@b:1", "A\\B@c:1", f"{'A' * 17}@c:1"])
def test_what_is_no_peer(text):
    with pytest.raises(SpecError):
        peer(text)


def test_titles():
    assert title("MEDSEG 1", "--aet") == "MEDSEG 1"
    with pytest.raises(SpecError, match="--aet"):
        title("", "--aet")


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pynetdicom", None)
    with pytest.raises(MissingError, match=r'pip install "medseg\[pacs\]"'):
        send([], Peer("A", "b", 1), "C")
    with pytest.raises(MissingError, match=r'pip install "medseg\[pacs\]"'):
        Listener(Spool(tmp_path, b"k", 1, 1), "C", "127.0.0.1", 0)


def _until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.02)


def test_a_call_without_anything_to_send_is_told(tmp_path):
    arguments = ("--send-to", "A@127.0.0.1:104", "--save", "labels")
    process = start(tmp_path / "out", *arguments, name="listen")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "--send-to has nothing to send" in err
    assert not Path(tmp_path / "out").exists()
