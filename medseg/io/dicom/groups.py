"""Which planes make one volume: series, split by where their slices lie and by what tells slices at one place apart.

A SeriesInstanceUID says little: it may hold a localizer, several phases, echoes or b-values, two matrix sizes. Each group
has a key made from the headers alone, the same wherever the files lie and whatever they are called.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medseg.io.dicom.frames import MARKS, TIMES, Plane
from medseg.io.dicom.stack import repeat_gap

ALIKE = 2e-3  # largest difference of orientation cosines (0.1 degrees) within one group


@dataclass(frozen=True, eq=False)
class Group:
    """Planes that make one image.

    Parameters
    ----------
    uid : str
        SeriesInstanceUID; empty where there is none.
    planes : tuple of Plane
        In an order that does not depend on file names.
    apart : str
        What tells it from its siblings of the same UID; holds header text, never shown.
    """

    uid: str
    planes: tuple[Plane, ...]
    apart: str

    @property
    def key(self) -> str:
        """Twelve hex digits that stand for the group."""
        return hashlib.sha256(f"{self.uid}|{self.apart}".encode()).hexdigest()[:12]

    @property
    def flat(self) -> bool:
        """Whether it is a single image without a place in space."""
        return self.planes[0].place is None and self.planes[0].refused is None

    def part(self, planes: Iterable[Plane], apart: str) -> Group:
        """Return some of its planes as a group."""
        return Group(self.uid, tuple(planes), f"{self.apart}|{apart}")


def groups(planes: Sequence[Plane]) -> list[Group]:
    """Split planes into volumes.

    Parameters
    ----------
    planes : sequence of Plane
        In any order; the result does not depend on it.

    Returns
    -------
    list of Group
        Sorted by UID, then by size, orientation and what tells repeats apart. Planes that cannot be read join the group
        they most likely belong to, so that it is refused rather than loaded without them.
    """
    ordered = sorted(planes, key=lambda plane: plane.tie)
    series: dict[str, list[Plane]] = {}
    for plane in ordered:
        series.setdefault(plane.header.text("SeriesInstanceUID"), []).append(plane)
    found: list[Group] = []
    for uid in sorted(series):
        for group in _volumes(Group(uid, tuple(series[uid]), "")):
            found += _phases(group)
    return found


def _volumes(series: Group) -> list[Group]:
    """Split by image size, colour, frame of reference, orientation; each flat image is a group of its own."""
    placed = [plane for plane in series.planes if plane.place]
    kinds: dict[tuple[object, ...], list[Plane]] = {}
    for plane in placed:
        kinds.setdefault(_kind(plane), []).append(plane)
    out: list[Group] = []
    parts = [(kind, part) for kind in sorted(kinds, key=str) for part in _alike(kinds[kind])]
    for kind, part in sorted(parts, key=lambda one: -len(one[1])):  # the one most likely wanted first
        first = part[0].place
        turned = np.round(first.orientation, 2) + 0.0 if first else ()
        out.append(series.part(part, f"{kind} {tuple(float(value) for value in turned)}"))
    refused = [plane for plane in series.planes if plane.refused]
    if refused:
        size = _size(refused[0])
        alike = [i for i, group in enumerate(out) if _size(group.planes[0]) == size] or list(range(len(out)))
        if alike:
            most = max(alike, key=lambda i: len(out[i].planes))
            out[most] = Group(series.uid, (*refused, *out[most].planes), out[most].apart)
        else:
            out.append(series.part(refused, "refused"))
    flat = [plane for plane in series.planes if not plane.place and not plane.refused]
    return out + [series.part([plane], f"flat {plane.tie}") for plane in flat]


def _size(plane: Plane) -> tuple[object, object]:
    return plane.header.get("Rows"), plane.header.get("Columns")


def _kind(plane: Plane) -> tuple[object, ...]:
    scout = "LOCALIZER" in (plane.marks.get("ImageType") or "").upper()
    samples = str(plane.header.get("SamplesPerPixel", 1))
    return (*_size(plane), samples, plane.place.frame or "" if plane.place else "", scout)


def _alike(planes: list[Plane]) -> list[list[Plane]]:
    """Split by orientation."""
    parts: list[list[Plane]] = []
    for plane in planes:
        turned = np.array(plane.place.orientation if plane.place else ())
        for part in parts:
            first = part[0].place
            if first and np.abs(turned - first.orientation).max() <= ALIKE:
                part.append(plane)
                break
        else:
            parts.append([plane])
    return parts


def _phases(group: Group) -> list[Group]:
    """Split a group whose positions repeat by what tells the repeats apart; whole if nothing does."""
    planes = [plane for plane in group.planes if plane.place]
    if len(planes) < 2 or len(planes) < len(group.planes):
        return [group]
    where = _positions(planes)
    most = max(Counter(where).values())
    if most == 1:
        return [group]
    labels = _labels(planes, where, most)
    if labels is None:
        return [group]
    parts: dict[tuple[str, ...], list[Plane]] = {}
    for plane, label in zip(planes, labels, strict=True):
        parts.setdefault(label, []).append(plane)
    return [group.part(parts[label], str(label)) for label in sorted(parts, key=_natural)]


def _positions(planes: Sequence[Plane]) -> list[int]:
    """Number the positions along the normal; equal numbers lie at one position."""
    normal = planes[0].place.normal if planes[0].place else np.zeros(3)
    along = np.array([plane.place.position for plane in planes if plane.place]) @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    steps = np.concatenate([[0], np.cumsum(gaps >= repeat_gap(gaps))])
    where = np.empty(len(planes), int)
    where[order] = steps
    return [int(place) for place in where]


def _labels(planes: Sequence[Plane], where: list[int], most: int) -> list[tuple[str, ...]] | None:
    """A label for each plane so that no position repeats under one label; None if there is no good one.

    Tried in turn: one attribute with exactly as many values as there are repeats, two attributes together, one with more
    values that still make stacks, and the order in time at each position.
    """
    values = {name: [plane.marks.get(name, "") for plane in planes] for name in _names(planes)}
    varied = [name for name, found in values.items() if len(set(found)) > 1]
    sets = [(name,) for name in varied] + list(combinations(varied, 2))
    for exact in (True, False):
        for names in sets:
            labels = [tuple(values[name][i] for name in names) for i in range(len(planes))]
            count = len(set(labels))
            enough = count == most if exact else count * 0.5 * len(set(where)) <= len(planes)
            if enough and len(set(zip(labels, where, strict=True))) == len(planes):
                return labels
    ranked = (_ranks(values[name], where, most) for name in TIMES)
    return next((found for found in ranked if found), None)


def _names(planes: Sequence[Plane]) -> list[str]:
    """Attributes to try, best first: those of the list, then dimension indices of enhanced files."""
    rest = sorted({name for plane in planes for name in plane.marks} - {*MARKS})
    return [*MARKS, *rest]


def _ranks(times: list[str], where: list[int], most: int) -> list[tuple[str, ...]] | None:
    """Number the slices at each position in order of time; None unless all positions have as many, at different times."""
    at: dict[int, list[tuple[float, int]]] = {}
    for i, (time, place) in enumerate(zip(times, where, strict=False)):
        try:
            at.setdefault(place, []).append((float(time), i))
        except ValueError:
            return None
    if not at or any(len({time for time, _ in found}) != most or len(found) != most for found in at.values()):
        return None
    labels: list[tuple[str, ...]] = [("",)] * len(where)
    for found in at.values():
        for rank, (_, i) in enumerate(sorted(found)):
            labels[i] = (str(rank),)
    return labels


def _natural(label: tuple[str, ...]) -> list[tuple[int, float, str]]:
    """Sort numbers as numbers and before text."""
    out = []
    for text in label:
        try:
            out.append((0, float(text), ""))
        except ValueError:
            out.append((1, 0.0, text))
    return out
