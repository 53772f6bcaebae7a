"""Damage to what DICOM, NIfTI, TIFF, PNG, CZI and LIF files say of themselves, and bombs, for `medseg.testing.mutations`."""

from __future__ import annotations

import struct
import zlib
from functools import cache

import numpy as np

from medseg.testing.mutations_any import INTEGERS, Draw, flip, integer, overwrite, pick, place, truncate
from medseg.testing.mutations_text import number

_MEGABYTES = 1200  # that a compression bomb holds

_TAGS = (
    (0x0002, 0x0010), (0x0008, 0x0005), (0x0008, 0x0016), (0x0008, 0x0060), (0x0020, 0x000D), (0x0020, 0x0013),
    (0x0020, 0x0032), (0x0020, 0x0037), (0x0028, 0x0002), (0x0028, 0x0004), (0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011),
    (0x0028, 0x0030), (0x0028, 0x0100), (0x0028, 0x0101), (0x0028, 0x0102), (0x0028, 0x0103), (0x0028, 0x1052),
    (0x0028, 0x1053), (0x5200, 0x9229), (0x5200, 0x9230), (0x0062, 0x0002), (0x0062, 0x0004), (0x3006, 0x0020),
    (0x3006, 0x0039), (0x3006, 0x0050), (0x0040, 0xA730), (0x0040, 0xA040), (0x7FE0, 0x0010), (0xFFFE, 0xE000), (0xFFFE, 0xE0DD),
)  # fmt: skip
_VRS = (b"UN", b"OB", b"OW", b"SQ", b"DS", b"IS", b"US", b"UI", b"AT", b"FD", b"UC", b"OV", b"ZZ", b"\0\0")


def _element(data: bytes, draw: Draw) -> tuple[int, bytes] | None:
    """Where an element of interest begins, and its tag as stored."""
    there = [(m, t) for t in (struct.pack("<HH", *tag) for tag in _TAGS) if (m := data.find(t)) >= 0]
    return pick(draw, there) if there else None


def tag(data: bytes, draw: Draw) -> bytes:
    """Make one element another."""
    found = _element(data, draw)
    if found is None:
        return flip(data, draw)
    return data[: found[0]] + struct.pack("<HH", *pick(draw, _TAGS)) + data[found[0] + 4 :]


def representation(data: bytes, draw: Draw) -> bytes:
    """Give an element another value representation."""
    found = _element(data, draw)
    at = place(data, draw) if found is None else found[0] + 4
    return data[:at] + pick(draw, _VRS) + data[at + 2 :]


def length(data: bytes, draw: Draw) -> bytes:
    """Give an element another length."""
    found = _element(data, draw)
    at, width = (place(data, draw), 2) if found is None else (found[0] + int(pick(draw, (4, 6, 8))), 2)
    value = pick(draw, (0, 1, 3, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE))
    width = 4 if value > 0xFFFF else width
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def value(data: bytes, draw: Draw) -> bytes:
    """Put an awkward value where that of an element begins."""
    found = _element(data, draw)
    at = place(data, draw) if found is None else found[0] + int(pick(draw, (8, 12)))
    new = pick(draw, (b"\0\0", b"\xff\xff", b"nan ", b"1e99", b"-1\\0", b"\\\\\\\\", b"9" * 16, b"\0\x80", b"\x01\0"))
    return data[:at] + new + data[at + len(new) :]


def nested(data: bytes, draw: Draw) -> bytes:
    """Sequences in sequences of undefined length, deeper than any program's stack."""
    found = _element(data, draw)
    at = len(data) if found is None else found[0]
    one = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return data[:at] + one * int(pick(draw, (50, 900, 20000))) + data[at:]


@cache
def _zeros(gzip: bool) -> bytes:
    """A megabyte times `_MEGABYTES` of zeros, as deflate has it; without an end, which nobody should wait for."""
    if gzip:
        packer = zlib.compressobj(9, wbits=31)
        return (packer.compress(bytes(1 << 20)) + packer.flush()) * _MEGABYTES
    packer = zlib.compressobj(9, wbits=-15)
    return (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * _MEGABYTES


def deflated(data: bytes, draw: Draw) -> bytes:
    """A DICOM header that says deflated, and a bomb behind it."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    old, new = str(ExplicitVRLittleEndian).encode() + b"\0", str(DeflatedExplicitVRLittleEndian).encode()
    start = data.find(struct.pack("<HH", 8, 5)) if b"\x08\0\x05\0" in data else data.find(struct.pack("<HH", 8, 8))
    packer = zlib.compressobj(9, wbits=-15)
    head = packer.compress(data[max(start, 0) :]) + packer.flush(zlib.Z_FULL_FLUSH)
    meta = data[: max(start, 0)].replace(old + b"", new + b"\0" * (len(new) % 2))
    # the length of the UID has grown by two bytes, and so have the group's
    meta = meta.replace(
        struct.pack("<HH2sH", 2, 0x10, b"UI", len(old)), struct.pack("<HH2sH", 2, 0x10, b"UI", len(new))
    )
    return meta + head + _zeros(False)


_NIFTI = (
    (0, "<i"), *((40 + 2 * i, "<h") for i in range(8)), (70, "<h"), (72, "<h"),
    *((76 + 4 * i, "<f") for i in range(8)),
    (108, "<f"), (112, "<f"), (116, "<f"), (123, "<B"), (252, "<h"), (254, "<h"),
    *((256 + 4 * i, "<f") for i in range(18)), (344, "<i"),
)  # fmt: skip


def nifti(data: bytes, draw: Draw) -> bytes:
    """Change numbers of a NIfTI header."""
    out = bytearray(data.ljust(352, b"\0"))
    for _ in range(int(draw.integers(1, 4))):
        at, kind = pick(draw, _NIFTI)
        if kind == "<f":
            out[at : at + 4] = struct.pack(kind, pick(draw, (0.0, -1.0, np.nan, np.inf, 1e38, 1e-40, 3.5, 2**31)))
        else:
            width = struct.calcsize(kind)
            out[at : at + width] = pick(draw, INTEGERS).to_bytes(8, "little")[:width]
    return bytes(out)


def unpacked(data: bytes, draw: Draw) -> bytes:
    """Damage what a gzip file holds."""
    inner = zlib.decompress(data, wbits=31)
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(pick(draw, (nifti, nifti, truncate, integer))(inner, draw)) + packer.flush()


def gzip_bomb(data: bytes, draw: Draw) -> bytes:
    """The header is right or claims more; zeros without end follow."""
    inner = zlib.decompress(data, wbits=31)[:352]
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(nifti(inner, draw) if draw.random() < 0.5 else inner) + packer.flush() + _zeros(True)


def text_bomb(data: bytes, draw: Draw) -> bytes:
    """Voxels that unpack to more than the header says, by far."""
    end = max(data.find(b"\n\n") + 2, data.find(b"LOCAL\n") + 6)
    if b"gzip" in data[:end]:
        return data[:end] + _zeros(True)
    return data[:end] + b"\x78\xda" + _zeros(False)


def tiff(data: bytes, draw: Draw) -> bytes:
    """Change an entry of the first directory, or where the next one is."""
    big = data[2:3] == b"+"
    order = "<" if data[:2] == b"II" else ">"
    width, head, at_form, count_form = (20, 8, 8, "Q") if big else (12, 2, 4, "H")
    start = int.from_bytes(data[at_form : at_form + (8 if big else 4)], "little" if order == "<" else "big")
    if not 0 < start < len(data) - head:
        return integer(data, draw)
    (count,) = struct.unpack_from(order + count_form, data, start)
    entry = start + head + width * int(draw.integers(max(1, min(count + 1, 60))))
    fields = [(2, "H"), (0, "H"), (4, "Q" if big else "I"), (width - (8 if big else 4), "Q" if big else "I")]
    at, kind = pick(draw, fields)
    new = pick(draw, (*INTEGERS, start, len(data), 256, 257, 273, 279, 322, 5, 8))
    out = bytearray(data)
    size = struct.calcsize(kind)
    out[entry + at : entry + at + size] = struct.pack(order + kind, new & ((1 << 8 * size) - 1))
    return bytes(out)


def xml(data: bytes, draw: Draw) -> bytes:
    """Put entities, depth or attributes of other kinds into the XML of an OME-TIFF, without moving what follows."""
    start, end = data.find(b"<?xml"), data.find(b"</OME>") + 6
    if start < 0 or end < start:
        return tiff(data, draw)
    room = end - start
    laughs = b'<!DOCTYPE a [<!ENTITY l "ha">' + b"".join(
        b'<!ENTITY l%d "%s">' % (i, (b"&l%d;" % (i - 1) if i else b"&l;") * 9) for i in range(9)
    )
    new = pick(draw, (
        b"<?xml version='1.0'?>" + laughs + b"]><OME>&l8;</OME>", b"<OME>" + b"<a>" * room, b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><OME/>',
    ))[:room]  # fmt: skip
    if draw.random() < 0.7:
        return data[:start] + number(data[start:end], draw)[:room].ljust(room) + data[end:]
    return data[:start] + new.ljust(room) + data[end:]


def png(data: bytes, draw: Draw) -> bytes:
    """Change a chunk and mend its check sum, so that the decoder sees it."""
    at, chunks = 8, []
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return flip(data, draw)
    which = int(draw.integers(len(chunks))) if draw.random() < 0.5 else 0
    name, body = chunks[which]
    if name == b"IDAT" and draw.random() < 0.2:
        body = b"\x78\xda" + _zeros(False)
    chunks[which] = (
        name,
        pick(draw, (integer, flip, truncate, overwrite))(body, draw) if len(body) < 1 << 19 else body,
    )
    parts = [len(b).to_bytes(4, "big") + n + b + zlib.crc32(n + b).to_bytes(4, "big") for n, b in chunks]
    return data[:8] + b"".join(parts)


_CZI = (
    *((name, at) for name in (b"ZISRAWFILE", b"ZISRAWSUBBLOCK", b"ZISRAWMETADATA", b"ZISRAWDIRECTORY") for at in range(16, 128, 4)),
    *((b"DV", at) for at in (2, 6, 14, 18, 22, 28)),  # a tile: type of its voxels, where it begins, how it is packed, how many axes
    *((axis + bytes(3), at) for axis in (b"X", b"Y", b"C", b"Z", b"T", b"M", b"S") for at in (0, 4, 8, 12, 16)),
)  # fmt: skip


def czi(data: bytes, draw: Draw) -> bytes:
    """Change a number where CZI keeps them: heads of segments, and the entry of each tile; or one of its XML."""
    if draw.random() < 0.15:
        start, end = data.find(b"<ImageDocument>"), data.find(b"</ImageDocument>")
        if 0 <= start < end:
            return data[:start] + number(data[start:end], draw)[: end - start].ljust(end - start) + data[end:]
    out = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        marker, after = pick(draw, _CZI)
        there = [at for at in range(len(data)) if data.startswith(marker, at)]
        if not there:
            continue
        at, width = pick(draw, there) + after, int(pick(draw, (4, 4, 8)))
        out[at : at + width] = (pick(draw, INTEGERS) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return bytes(out)


def lif(data: bytes, draw: Draw) -> bytes:
    """Change a number of the XML of a LIF, which lies in front and is UTF-16; what counts its length is mended."""
    mark, _, star, count = struct.unpack_from("<IIBI", data)
    end = 13 + 2 * count
    text = data[13:end].decode("utf-16-le", "replace").encode("ascii", "replace")
    at = int(draw.integers(max(1, len(text))))  # so that every part is reached
    new = (text[:at] + number(text[at:], draw)).decode("ascii", "replace")
    return struct.pack("<IIBI", mark, 5 + 2 * len(new), star, len(new)) + new.encode("utf-16-le") + data[end:]
