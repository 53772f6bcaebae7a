"""Headers that are made to cost time."""

import struct
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from medseg import io
from medseg.errors import FormatError


@pytest.mark.parametrize("kind", ["items", "elements"])
def test_a_header_of_millions_of_elements_is_refused(tmp_path, kind):
    source = Path(get_testdata_file("CT_small.dcm"))
    content, start = source.read_bytes(), pydicom.dcmread(source).file_meta.FileMetaInformationGroupLength + 144
    count = 2_100_000
    many = (
        struct.pack("<HHL", 0xFFFE, 0xE000, 0) * count
        if kind == "items"
        else struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + b"\x09\0\x02\x10LO\0\0" * count
        + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    )
    sequence = (
        struct.pack("<HH2sHL", 0x0003, 0x1001, b"SQ", 0, 0xFFFFFFFF) + many + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    )
    path = tmp_path / "a.dcm"
    path.write_bytes(content[:start] + sequence + content[start:])
    began = time.process_time()
    with pytest.raises(FormatError, match="damaged"):
        io.load(path)
    assert time.process_time() - began < 60  # pydicom would take minutes
