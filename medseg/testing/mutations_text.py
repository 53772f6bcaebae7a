"""Damage to text headers, JSON, YAML, and to model and session files, which hold JSON, for `medseg.testing.mutations`."""

from __future__ import annotations

import json
import re
import sqlite3
import struct
import zlib
from contextlib import closing
from typing import Any

from medseg.testing.mutations_any import Draw, flip, integer, pick

_NUMBERS = (
    b"0", b"-1", b"1e999", b"-1e999", b"nan", b"inf", b"1e-320", b"1000000000000", b"9223372036854775808", b"0.5", b"",
    b"9" * 5000, b"1_0", b"0x10", b"65536 65536 65536", b"\xd9\xa3",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 0.5, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\0", "\u202e", "\ud800", [], {},
    [[]], [1e308] * 6, ["a"], {"size": [2, 2]}, "../../x", [10**9] * 3,
)  # fmt: skip


def number(data: bytes, draw: Draw) -> bytes:
    """Put an awkward number in place of one in a text."""
    there = list(re.finditer(rb"-?\d[\d.eE+-]*", data[:3000]))
    if not there:
        return flip(data, draw)
    one = pick(draw, there)
    return data[: one.start()] + pick(draw, _NUMBERS) + data[one.end() :]


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
    old, new = pick(draw, there), pick(draw, there)
    return data[: old.start()] + pick(draw, (new.group(), b"", b"../../etc/passwd", b"LIST")) + data[old.end() :]


def _edited(value: Any, draw: Draw) -> Any:
    """Change one thing somewhere in a JSON value."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = pick(draw, list(value))
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
    return pick(draw, _VALUES)


def _deep(draw: Draw) -> bytes:
    return pick(draw, (b"[", b'{"a":', b"[[],")) * int(pick(draw, (500, 100_000)))


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
    extra = pick(draw, (
        b"[" * 3000, b"{a: " * 3000, laughs, b"seed: 2001-99-99\n", b"seed: !!python/object/apply:os.system ['true']\n",
        b"? [a]\n: b\n", b"seed: " + b"9" * 6000 + b"\n", b"name: &x [*x]\n", b"- " * 3000, b"seed: !!float x\n",
        b"seed: !!binary '%'\n", b"seed: 1:99999999:1\n", b"<<: [1]\n", b"seed: !!timestamp x\n", b"seed: !!int ''\n",
        b"name: \x07\n", b"seed: !!omap {a: b}\n", b"seed: !!bool x\n",
    ))  # fmt: skip
    return extra + data if draw.random() < 0.3 else data + extra


def session(data: bytes, draw: Draw) -> bytes:
    """Change what the tables of a session hold."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(data)
        keys = [row[0] for row in base.execute("SELECT key FROM about")]
        act = draw.random()
        if act < 0.6:
            key = pick(draw, (*keys, "shape", "rows", "affine"))
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
            column = pick(draw, ("before", "after", "name"))
            (old,) = base.execute(f"SELECT {column} FROM edits").fetchone()
            new = json.dumps(_edited(json.loads(old), draw)) if column != "name" else pick(draw, (None, 3, b"x"))
            base.execute(f"UPDATE edits SET {column} = ?", (new,))
        else:
            table, column = pick(draw, (("base", "labels"), ("edits", "delta")))
            (old,) = base.execute(f"SELECT {column} FROM {table}").fetchone()
            runs = integer(zlib.decompress(old), draw)
            base.execute(
                f"UPDATE {table} SET {column} = ?", (pick(draw, (zlib.compress(runs), flip(old, draw), None, 5)),)
            )
        base.commit()
        return bytes(base.serialize())
