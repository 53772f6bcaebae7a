"""Damage: what `medseg.testing.fuzz` does to valid files. Each function takes bytes and a generator, and returns other bytes."""

from __future__ import annotations

import json
import re
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np

Draw = np.random.Generator
Mutation = Callable[[bytes, Draw], bytes]

_INTEGERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
    2**62,
    2**64 - 1,
)
_NUMBERS = (
    b"0", b"-1", b"1e999", b"-1e999", b"nan", b"inf", b"1e-320", b"1000000000000", b"9223372036854775808", b"0.5", b"",
    b"9" * 5000, b"1_0", b"0x10", b"65536 65536 65536", b"\xd9\xa3",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 0.5, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\0", "\u202e", "\ud800", [], {}, [[]],
    [1e308] * 6, ["a"], {"size": [2, 2]}, "../../x", [10**9] * 3,
)  # fmt: skip
_MEGABYTES = 1200  # that a compression bomb holds


def _pick(draw: Draw, values: Any) -> Any:
    return values[int(draw.integers(len(values)))]


def _place(data: bytes, draw: Draw) -> int:
    """A position, half of the time in the first kilobyte, where headers are."""
    size = max(1, len(data))
    return int(draw.integers(min(size, 1024) if draw.random() < 0.5 else size))


# ------------------------------------------------------------------ bytes of any kind


def flip(data: bytes, draw: Draw) -> bytes:
    """Flip single bits."""
    out = bytearray(data)
    for _ in range(int(draw.integers(1, 9))):
        if out:
            out[_place(data, draw)] ^= 1 << int(draw.integers(8))
    return bytes(out)


def overwrite(data: bytes, draw: Draw) -> bytes:
    """Put noise, zeros or ones over a run."""
    at, length = _place(data, draw), int(draw.integers(1, 64))
    run = _pick(draw, (draw.bytes(length), bytes(length), b"\xff" * length))
    return data[:at] + run + data[at + length :]


def truncate(data: bytes, draw: Draw) -> bytes:
    """Cut off the end."""
    return data[: _place(data, draw)]


def remove(data: bytes, draw: Draw) -> bytes:
    """Take a run out, so that all behind it moves."""
    at = _place(data, draw)
    return data[:at] + data[at + int(draw.integers(1, 64)) :]


def repeat(data: bytes, draw: Draw) -> bytes:
    """Put a run in twice, or very often."""
    at, length = _place(data, draw), int(draw.integers(1, 200))
    return data[:at] + data[at : at + length] * int(_pick(draw, (2, 2, 3, 500))) + data[at + length :]


def integer(data: bytes, draw: Draw) -> bytes:
    """Put an awkward number where a length, a count or an offset may be."""
    width, at = int(_pick(draw, (1, 2, 4, 8))), _place(data, draw)
    value = _pick(draw, _INTEGERS) & ((1 << 8 * width) - 1)
    return data[:at] + value.to_bytes(width, _pick(draw, ("little", "big"))) + data[at + width :]


def append(data: bytes, draw: Draw) -> bytes:
    """Let something follow."""
    return data + _pick(draw, (draw.bytes(30), bytes(5000), data))


# ------------------------------------------------------------------ DICOM

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
    return _pick(draw, there) if there else None


def tag(data: bytes, draw: Draw) -> bytes:
    """Make one element another."""
    found = _element(data, draw)
    if found is None:
        return flip(data, draw)
    return data[: found[0]] + struct.pack("<HH", *_pick(draw, _TAGS)) + data[found[0] + 4 :]


def representation(data: bytes, draw: Draw) -> bytes:
    """Give an element another value representation."""
    found = _element(data, draw)
    at = _place(data, draw) if found is None else found[0] + 4
    return data[:at] + _pick(draw, _VRS) + data[at + 2 :]


def length(data: bytes, draw: Draw) -> bytes:
    """Give an element another length."""
    found = _element(data, draw)
    at, width = (_place(data, draw), 2) if found is None else (found[0] + int(_pick(draw, (4, 6, 8))), 2)
    value = _pick(draw, (0, 1, 3, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE))
    width = 4 if value > 0xFFFF else width
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def value(data: bytes, draw: Draw) -> bytes:
    """Put an awkward value where that of an element begins."""
    found = _element(data, draw)
    at = _place(data, draw) if found is None else found[0] + int(_pick(draw, (8, 12)))
    new = _pick(draw, (b"\0\0", b"\xff\xff", b"nan ", b"1e99", b"-1\\0", b"\\\\\\\\", b"9" * 16, b"\0\x80", b"\x01\0"))
    return data[:at] + new + data[at + len(new) :]


def nested(data: bytes, draw: Draw) -> bytes:
    """Sequences in sequences of undefined length, deeper than any program's stack."""
    found = _element(data, draw)
    at = len(data) if found is None else found[0]
    one = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return data[:at] + one * int(_pick(draw, (50, 900, 20000))) + data[at:]


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


# ------------------------------------------------------------------ NIfTI, text headers, TIFF, PNG

_NIFTI = (
    (0, "<i"), *((40 + 2 * i, "<h") for i in range(8)), (70, "<h"), (72, "<h"), *((76 + 4 * i, "<f") for i in range(8)), (108, "<f"),
    (112, "<f"), (116, "<f"), (123, "<B"), (252, "<h"), (254, "<h"), *((256 + 4 * i, "<f") for i in range(18)), (344, "<i"),
)  # fmt: skip


def nifti(data: bytes, draw: Draw) -> bytes:
    """Change numbers of a NIfTI header."""
    out = bytearray(data.ljust(352, b"\0"))
    for _ in range(int(draw.integers(1, 4))):
        at, kind = _pick(draw, _NIFTI)
        if kind == "<f":
            out[at : at + 4] = struct.pack(kind, _pick(draw, (0.0, -1.0, np.nan, np.inf, 1e38, 1e-40, 3.5, 2**31)))
        else:
            width = struct.calcsize(kind)
            out[at : at + width] = _pick(draw, _INTEGERS).to_bytes(8, "little")[:width]
    return bytes(out)


def unpacked(data: bytes, draw: Draw) -> bytes:
    """Damage what a gzip file holds."""
    inner = zlib.decompress(data, wbits=31)
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(_pick(draw, (nifti, nifti, truncate, integer))(inner, draw)) + packer.flush()


def gzip_bomb(data: bytes, draw: Draw) -> bytes:
    """The header is right or claims more; zeros without end follow."""
    inner = zlib.decompress(data, wbits=31)[:352]
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(nifti(inner, draw) if draw.random() < 0.5 else inner) + packer.flush() + _zeros(True)


def number(data: bytes, draw: Draw) -> bytes:
    """Put an awkward number in place of one in a text."""
    there = list(re.finditer(rb"-?\d[\d.eE+-]*", data[:3000]))
    if not there:
        return flip(data, draw)
    one = _pick(draw, there)
    return data[: one.start()] + _pick(draw, _NUMBERS) + data[one.end() :]


def line(data: bytes, draw: Draw) -> bytes:
    """Take a line of a text out, or put it in again elsewhere."""
    lines = data[:3000].split(b"\n")
    one = int(draw.integers(len(lines)))
    taken = lines[one]
    if draw.random() < 0.5:
        del lines[one]
    if draw.random() < 0.5:
        lines.insert(int(draw.integers(len(lines) + 1)), taken)
    return b"\n".join(lines) + data[3000:]


def word(data: bytes, draw: Draw) -> bytes:
    """Put one word of a text in place of another."""
    there = list(re.finditer(rb"[A-Za-z_]{2,}", data[:3000]))
    if len(there) < 2:
        return flip(data, draw)
    old, new = _pick(draw, there), _pick(draw, there)
    return data[: old.start()] + _pick(draw, (new.group(), b"", b"../../etc/passwd", b"LIST")) + data[old.end() :]


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
    at, kind = _pick(draw, fields)
    new = _pick(draw, (*_INTEGERS, start, len(data), 256, 257, 273, 279, 322, 5, 8))
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
    new = _pick(draw, (
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
        _pick(draw, (integer, flip, truncate, overwrite))(body, draw) if len(body) < 1 << 19 else body,
    )
    parts = [len(b).to_bytes(4, "big") + n + b + zlib.crc32(n + b).to_bytes(4, "big") for n, b in chunks]
    return data[:8] + b"".join(parts)


# ------------------------------------------------------------------ JSON and what is made of it


def _edited(value: Any, draw: Draw) -> Any:
    """Change one thing somewhere in a JSON value."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = _pick(draw, list(value))
        out = dict(value)
        if draw.random() < 0.1:
            del out[key]
        else:
            out[key] = _edited(value[key], draw)
        return out
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = int(draw.integers(len(value)))
        act = draw.random()
        return [
            *value[:at],
            *([] if act < 0.1 else [value[at]] * 2 if act < 0.2 else [_edited(value[at], draw)]),
            *value[at + 1 :],
        ]
    return _pick(draw, _VALUES)


def _deep(draw: Draw) -> bytes:
    return _pick(draw, (b"[", b'{"a":', b"[[],")) * int(_pick(draw, (500, 100_000)))


def structure(data: bytes, draw: Draw) -> bytes:
    """Change the structure of a JSON file, or nest it without end."""
    if draw.random() < 0.05:
        return _deep(draw)
    return json.dumps(_edited(json.loads(data), draw)).encode()


def model(data: bytes, draw: Draw) -> bytes:
    """Change the header of a model file: its tensors, or the spec inside, which is JSON in JSON."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    act = draw.random()
    if act < 0.7:
        about = _edited(json.loads(header["__metadata__"]["medseg"]), draw)
        header["__metadata__"]["medseg"] = _deep(draw).decode() if act < 0.03 else json.dumps(about)
    else:
        header = _edited(header, draw)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def yaml_bomb(data: bytes, draw: Draw) -> bytes:
    """Nesting, aliases and values that YAML builds objects of."""
    laughs = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12)
    )
    extra = _pick(draw, (
        b"[" * 3000, b"{a: " * 3000, laughs, b"seed: 2001-99-99\n", b"seed: !!python/object/apply:os.system ['true']\n", b"? [a]\n: b\n",
        b"seed: " + b"9" * 6000 + b"\n", b"name: &x [*x]\n", b"- " * 3000, b"seed: !!float x\n", b"seed: !!binary '%'\n", b"seed: 1:99999999:1\n",
        b"<<: [1]\n", b"seed: !!timestamp x\n", b"seed: !!int ''\n", b"name: \x07\n", b"seed: !!omap {a: b}\n", b"seed: !!bool x\n",
    ))  # fmt: skip
    return extra + data if draw.random() < 0.3 else data + extra


def session(data: bytes, draw: Draw) -> bytes:
    """Change what the tables of a session hold."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(data)
        keys = [row[0] for row in base.execute("SELECT key FROM about")]
        act = draw.random()
        if act < 0.6:
            key = _pick(draw, (*keys, "shape", "rows", "affine"))
            (old,) = base.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
            new = json.loads(old)
            # rows are JSON within JSON
            new = (
                json.dumps(_edited(json.loads(new), draw))
                if key == "rows" and draw.random() < 0.8
                else _edited(new, draw)
            )
            base.execute("UPDATE about SET value = ? WHERE key = ?", (json.dumps(new), key))
        elif act < 0.8:
            column = _pick(draw, ("before", "after", "name"))
            (old,) = base.execute(f"SELECT {column} FROM edits").fetchone()
            new = json.dumps(_edited(json.loads(old), draw)) if column != "name" else _pick(draw, (None, 3, b"x"))
            base.execute(f"UPDATE edits SET {column} = ?", (new,))
        else:
            table, column = _pick(draw, (("base", "labels"), ("edits", "delta")))
            (old,) = base.execute(f"SELECT {column} FROM {table}").fetchone()
            runs = integer(zlib.decompress(old), draw)
            base.execute(
                f"UPDATE {table} SET {column} = ?", (_pick(draw, (zlib.compress(runs), flip(old, draw), None, 5)),)
            )
        base.commit()
        return bytes(base.serialize())


ANY: tuple[Mutation, ...] = (flip, overwrite, truncate, remove, repeat, integer, append)
OWN: dict[str, tuple[Mutation, ...]] = {
    "dicom": (tag, representation, length, value, nested, deflated),
    "nifti": (nifti, nifti),
    "gzip": (unpacked, unpacked, unpacked, gzip_bomb),
    "text": (number, number, line, word, text_bomb),
    "tiff": (tiff, tiff, tiff, xml),
    "png": (png, png),
    "json": (structure, structure, structure, number),
    "model": (model, model, model),
    "yaml": (number, line, word, yaml_bomb, yaml_bomb),
    "session": (session, session),
    "bytes": (),
}
_HEAVY = (gzip_bomb, text_bomb, deflated)  # megabytes to write: one in six of those drawn


def mutated(data: bytes, other: bytes, kind: str, draw: Draw) -> tuple[bytes, str]:
    """Damage a file once, or a few times.

    Parameters
    ----------
    data : bytes
        The file.
    other : bytes
        Another file of its kind, which a part may come from.
    kind : str
        See `medseg.testing.seeds.Seed`.
    draw : Generator
        Decides all.

    Returns
    -------
    data : bytes
    how : str
        Names of the mutations.
    """
    if draw.random() < 0.05:
        cut = int(draw.integers(1, max(2, min(len(data), len(other)))))
        return data[:cut] + other[cut:], "splice"
    names = []
    own = OWN[kind]
    for turn in range(int(_pick(draw, (1, 1, 1, 2, 3)))):
        one = _pick(draw, own) if own and turn == 0 and draw.random() < 0.6 else _pick(draw, ANY)
        if one in _HEAVY and draw.random() > 1 / 6:
            one = integer
        data = one(data, draw)
        names.append(one.__name__)
    return data, "+".join(names)
