"""Put the instances of overlapping regions together into one label array.

An instance that no inner border cuts belongs to the region whose core holds the centre of its box: the same instance
is then seen whole there too, so ownership needs no matching and the result equals the whole image's. Where two regions
see it a voxel differently, both or neither may hold its centre: it is painted once all the same. Only instances larger
than the halo are cut; their pieces are joined where two regions agree best in the strip that both see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.ops.regions import Region

Mask = NDArray[np.bool_]

# Two pieces are one instance when they share more than this of their union in the strip that both regions see.
_SAME = 0.3


@dataclass(frozen=True)
class _Piece:
    region: int
    box: Region  # in the whole array
    mask: Mask
    core: Region  # part of the array this region answers for
    score: float
    kind: int


class Mosaic:
    """Labels of a whole array, filled region by region.

    Parameters
    ----------
    shape
        Shape of the whole array.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.labels = np.zeros(shape, dtype=np.int32)
        self.scores: list[float] = []
        self.classes: list[int] = []
        self._pieces: list[_Piece] = []
        self._spare: list[_Piece] = []  # whole, and owned by a neighbour if that sees it alike
        self._grown: list[Region] = []

    def add(
        self,
        core: Region,
        grown: Region,
        boxes: NDArray[np.int64],
        masks: Sequence[Mask],
        scores: Sequence[float],
        classes: Sequence[int],
    ) -> int:
        """Take in one region's instances and return how many were painted at once.

        Parameters
        ----------
        core, grown
            The region in the whole array, without and with its halo.
        boxes
            (N, 2 * ndim) start then stop, index within ``grown``.
        masks, scores, classes
            Per instance; masks are cropped to their box.
        """
        shape, number, before = self.labels.shape, len(self._grown), len(self.scores)
        self._grown.append(grown)
        origin = np.array([s.start for s in grown])
        n = len(shape)
        size = np.array([s.stop - s.start for s in grown])
        inner = np.concatenate([origin > 0, origin + size < shape])  # faces of the region where the array goes on
        cut = ((boxes == np.concatenate([np.zeros_like(size), size])) & inner).any(axis=1)
        moved = boxes + np.tile(origin, 2)
        middle = (moved[:, :n] + moved[:, n:]) / 2
        owned = np.ones(len(boxes), bool)
        for axis, own in enumerate(core):
            owned &= (own.start <= middle[:, axis]) & (middle[:, axis] < own.stop)
        for k, (ends, mask) in enumerate(zip(moved.tolist(), masks, strict=True)):
            place = tuple(map(slice, ends[:n], ends[n:]))
            piece = _Piece(number, place, mask, core, float(scores[k]), int(classes[k]))
            if cut[k]:
                self._pieces.append(piece)
            elif owned[k]:
                self._paint_free(piece)
            elif _meet(place, core) is not None:
                self._spare.append(piece)
        return len(self.scores) - before

    def finish(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
        """Join the cut pieces and return labels (1..N), scores (N,) and classes (N,)."""
        for piece in self._spare:
            self._paint_free(piece)
        for members in _joined(self._pieces, self._grown):
            pieces = [self._pieces[m] for m in members]
            parts = [p for p in ((self._inside(p)) for p in pieces) if p is not None]
            if parts:
                size = np.array([p.mask.sum() for p in pieces], dtype=float)
                score = float(np.average([p.score for p in pieces], weights=size))
                self._paint(parts, score, pieces[int(size.argmax())].kind)
        self._pieces, self._spare = [], []
        return self.labels, np.array(self.scores, dtype=np.float32), np.array(self.classes, dtype=np.int32)

    def _paint_free(self, piece: _Piece) -> None:
        """Paint a whole instance, unless most of it is painted already."""
        free = (self.labels[piece.box] == 0) & piece.mask
        if np.count_nonzero(free) * 2 >= np.count_nonzero(piece.mask):
            self._paint([(piece.box, free)], piece.score, piece.kind)

    def _paint(self, parts: list[tuple[Region, Mask]], score: float, kind: int) -> None:
        self.scores.append(score)
        self.classes.append(kind)
        for place, mask in parts:
            view = self.labels[place]
            np.copyto(view, len(self.scores), where=mask & (view == 0))

    def _inside(self, piece: _Piece) -> tuple[Region, Mask] | None:
        """The part of a piece in its region's core, unless a whole instance lies there already."""
        place = tuple(
            slice(max(b.start, c.start), min(b.stop, c.stop)) for b, c in zip(piece.box, piece.core, strict=True)
        )
        if any(s.start >= s.stop for s in place):
            return None
        mask = piece.mask[
            tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(place, piece.box, strict=True))
        ]
        taken = (self.labels[place] > 0) & mask
        if not mask.any() or taken.sum() * 2 > mask.sum():
            return None
        return place, mask


def _joined(pieces: list[_Piece], grown: list[Region]) -> list[list[int]]:
    """Groups of pieces that are one instance: mutual best partners of each pair of regions."""
    group = list(range(len(pieces)))

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    best: dict[tuple[int, int], tuple[float, int]] = {}  # (piece, other region) -> likeness, partner
    for i, j in _meeting(pieces):
        a, b = pieces[i], pieces[j]
        likeness = _likeness(a, b, grown)
        if likeness > _SAME:
            for me, you, other in ((i, j, b.region), (j, i, a.region)):
                if likeness > best.get((me, other), (0.0, -1))[0]:
                    best[me, other] = (likeness, you)
    for (me, _), (_, you) in best.items():
        if best.get((you, pieces[me].region), (0.0, -1))[1] == me:
            x, y = sorted((root(me), root(you)))
            group[y] = x
    out: dict[int, list[int]] = {}
    for i in range(len(pieces)):
        out.setdefault(root(i), []).append(i)
    return list(out.values())


def _meeting(pieces: list[_Piece]) -> list[tuple[int, int]]:
    """Pairs (i < j) of one kind and of different regions whose boxes meet: a sweep along the axis on which pieces spread most."""
    if not pieces:
        return []
    starts = np.array([[s.start for s in p.box] for p in pieces])
    axis = int(np.ptp(starts, axis=0).argmax())
    pairs, open_now = [], list[int]()
    for j in np.argsort(starts[:, axis], kind="stable").tolist():
        b = pieces[j]
        open_now = [i for i in open_now if pieces[i].box[axis].stop > b.box[axis].start]
        pairs += [
            (min(i, j), max(i, j))
            for i in open_now
            if pieces[i].region != b.region and pieces[i].kind == b.kind and _meet(pieces[i].box, b.box) is not None
        ]
        open_now.append(j)
    return sorted(pairs)


def _likeness(a: _Piece, b: _Piece, grown: list[Region]) -> float:
    """IoU of two pieces in the strip that both regions see."""
    both = _meet(a.box, b.box)
    if both is None:
        return 0.0
    shared = int((_cut(a, both) & _cut(b, both)).sum())
    strip = _meet(grown[a.region], grown[b.region])
    if not shared or strip is None:
        return 0.0
    seen = sum(int(_cut(p, m).sum()) for p in (a, b) if (m := _meet(p.box, strip)) is not None)
    return shared / (seen - shared)


def _meet(a: Region, b: Region) -> Region | None:
    out = tuple(slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(a, b, strict=True))
    return None if any(s.start >= s.stop for s in out) else out


def _cut(piece: _Piece, place: Region) -> Mask:
    return piece.mask[tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(place, piece.box, strict=True))]
