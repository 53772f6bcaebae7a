"""Damage: what `medseg.testing.fuzz` does to valid files. Each mutation takes bytes and a generator, and returns other bytes."""

from __future__ import annotations

from medseg.testing.mutations_any import ANY, Draw, Mutation, integer, pick
from medseg.testing.mutations_images import (
    czi,
    deflated,
    gzip_bomb,
    length,
    lif,
    nested,
    nifti,
    png,
    representation,
    tag,
    text_bomb,
    tiff,
    unpacked,
    value,
    xml,
)
from medseg.testing.mutations_text import line, model, number, session, structure, word, yaml_bomb

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
    "czi": (czi, czi, czi),
    "lif": (lif, lif),
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
    for turn in range(int(pick(draw, (1, 1, 1, 2, 3)))):
        one = pick(draw, own) if own and turn == 0 and draw.random() < 0.6 else pick(draw, ANY)
        if one in _HEAVY and draw.random() > 1 / 6:
            one = integer
        data = one(data, draw)
        names.append(one.__name__)
    return data, "+".join(names)
