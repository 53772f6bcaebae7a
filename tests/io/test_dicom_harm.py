"""DICOM files that want to do harm: bombs, decoders that die or hang, damaged frames."""

import os
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from test_dicom_series import stack, written

from medseg import io
from medseg.errors import FormatError, InputError
from medseg.io.dicom import decode
from medseg.io.dicom.bounded import Bounded


def loaded(folder, slices):
    return io.load(written(folder, slices))


def compressed(count=1, syntax=RLELossless):
    slices, _ = stack(count, dtype=np.uint16, Rows=48, Columns=64)
    pixels = np.tile(np.random.default_rng(0).integers(0, 999, (count, 6, 8)), (1, 8, 8)).astype(np.uint16)
    for one, values in zip(slices, pixels, strict=True):
        one.PixelData = values.tobytes()
        one.compress(syntax, values, generate_instance_uid=False)
    return slices


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_a_small_file_that_promises_a_huge_image(tmp_path, syntax):
    slices = compressed(syntax=syntax)
    slices[0].Rows = slices[0].Columns = 60_000
    with pytest.raises(FormatError, match="promises 7200000000 bytes"):
        loaded(tmp_path / "s", slices)


def test_many_frames_promised(tmp_path):
    slices = compressed()
    slices[0].NumberOfFrames = 2_000_000_000
    slices[0].Modality = "NM"
    with pytest.raises(InputError):
        loaded(tmp_path / "s", slices)


def test_limit_can_be_lowered_and_raised(tmp_path, monkeypatch):
    slices, _ = stack(4)
    monkeypatch.setenv("MEDSEG_MAX_GB", "3e-7")
    with pytest.raises(InputError, match="MEDSEG_MAX_GB"):
        loaded(tmp_path / "s", slices)
    monkeypatch.setenv("MEDSEG_MAX_GB", "4e-7")
    loaded(tmp_path / "s", slices).voxels()


def deflated_bomb(path, before=True):
    """A header of zeros without end, or pixels that inflate to far more than the header promises."""
    slices, _ = stack(1)
    slices[0].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    slices[0].save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    start = 132 + 12 + struct.unpack_from("<L", content, 140)[0]
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    bomb = struct.pack("<HH2sHL", 9, 0x1001, b"OB", 0, 300 << 20)
    at = plain.index(b"\x10\x00\x10\x00PN") if before else len(plain)
    engine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = engine.compress(plain[:at] + (bomb if before else b""))
    for _ in range(300):
        packed += engine.compress(bytes(1 << 20))
    path.write_bytes(content[:start] + packed + engine.compress(plain[at:]) + engine.flush())
    return path


def peak_growth(call):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def test_deflated_bombs(tmp_path):
    early = deflated_bomb(tmp_path / "early.dcm")
    late = deflated_bomb(tmp_path / "late.dcm", before=False)
    assert early.stat().st_size < 2 << 20

    def both():
        with pytest.raises(FormatError, match="deflated|damaged"):
            io.load(early).voxels()
        io.load(late).voxels()  # what follows the pixels is never inflated

    assert peak_growth(both) < 200


def test_a_decoder_that_dies_or_hangs(tmp_path, monkeypatch):
    folder = written(tmp_path / "s", compressed(3))
    assert io.load(folder).voxels().shape == (1, 3, 48, 64)
    for word in ("os.abort()", "time.sleep(60)", "bytearray(1 << 40)"):
        monkeypatch.setattr(
            decode, "_START",
            f"import sys, os, time; sys.path[:] = {{path!r}}; from medseg.io.dicom import decode; "
            f"decode.frame = lambda *_: {word}; decode.serve()",
        )  # fmt: skip
        monkeypatch.setattr(decode, "SECONDS", 3.0)
        decode._close()
        started = time.monotonic()
        with pytest.raises(FormatError, match="pixels of slice 1 cannot be decoded"):
            io.load(folder).voxels()
        assert time.monotonic() - started < 30
    monkeypatch.undo()
    decode._close()
    assert io.load(folder).voxels().shape == (1, 3, 48, 64)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_its_own_worker(tmp_path):
    folder = written(tmp_path / "s", compressed(3))
    want = io.load(folder).voxels()
    child = os.fork()
    if not child:
        os._exit(int(not (io.load(folder).voxels() == want).all()))
    assert os.waitpid(child, 0)[1] == 0
    assert (io.load(folder).voxels() == want).all()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_damaged_frames(tmp_path, syntax):
    slices = compressed(2, syntax)
    whole = slices[1].PixelData
    draw = np.random.default_rng(0)
    for _ in range(8):
        content = bytearray(whole)
        for place in draw.integers(16, len(whole), 6):
            content[place] = draw.integers(256)
        slices[1].PixelData = bytes(content)
        slices[1]["PixelData"].is_undefined_length = True
        try:
            io.load(written(tmp_path / "s", slices)).voxels()
        except FormatError as error:
            assert "\n" not in str(error)


def test_garbage_for_a_frame(tmp_path):
    slices = compressed(2)
    slices[0].PixelData = encapsulate([b"\xff\xd8 not what it says" * 9])
    slices[0]["PixelData"].is_undefined_length = True
    with pytest.raises(FormatError, match="slice 1"):
        loaded(tmp_path / "s", slices).voxels()


@pytest.mark.parametrize("length", [0x7FFFFFFE, 0xFFFFFFFE])
def test_an_element_that_claims_gigabytes_takes_no_memory(tmp_path, length):
    """Python sets memory aside for all that is asked for, so pydicom must not ask for more than there is."""
    folder = written(tmp_path / "s", stack(1)[0])
    path = next(folder.iterdir())
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x0028, 0x0010))
    claim = struct.pack("<HH2sHL", 0x0019, 0x1001, b"OB", 0, length)
    path.write_bytes(data[:at] + claim + data[at:])

    def read():
        for call in (io.load, io.load_labels, io.load_candidates, io.load_report):
            with pytest.raises((InputError, FormatError)):
                call(path)

    tracemalloc.start()
    try:
        read()
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()


def test_a_bounded_file_reads_like_any_other(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    with Bounded(path) as stream:
        assert stream.read(3) == b"\0\1\2" and stream.read(1 << 40) == bytes(range(3, 200)) and stream.read(5) == b""
        stream.seek(500)
        assert stream.read(5) == stream.read() == b""
        stream.seek(198)
        assert stream.read() == b"\xc6\xc7"
