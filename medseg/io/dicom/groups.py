"""Which planes make one volume: series, split by where their slices lie and by what tells slices at one place apart.

A SeriesInstanceUID says little: it may hold a localizer, several phases, echoes or b-values, two matrix sizes. Each group
has a key made from the headers alone, the same wherever the files lie and whatever they are called.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg.errors import GeometryError
from medseg.io.dicom.frames import Plane
from medseg.io.dicom.repeats import Labels, told_apart, woven
from medseg.io.dicom.stack import FloatArray, repeat_gap

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
    doubt : str
        Why it may be more than one volume; empty if nothing speaks for that.
    """

    uid: str
    planes: tuple[Plane, ...]
    apart: str
    doubt: str = ""

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
    """Split by study, kind, image size, colour, frame of reference, orientation; each flat image is a group of its own."""
    placed = [plane for plane in series.planes if plane.place]
    kinds: dict[tuple[object, ...], list[Plane]] = {}
    for plane in placed:
        kinds.setdefault(_kind(plane), []).append(plane)
    out: list[Group] = []
    mixed = len({kind[-1] for kind in kinds}) > 1
    parts = [(kind if mixed else kind[:-1], part) for kind in sorted(kinds, key=str) for part in _alike(kinds[kind])]
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
    # A copied SeriesInstanceUID must not make one volume of two patients, of CT and PET, of activity and counts.
    whose = tuple(plane.header.text(name) for name in ("StudyInstanceUID", "Modality", "SOPClassUID", "Units"))
    return (*_size(plane), samples, plane.place.frame or "" if plane.place else "", scout, whose)


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
    """Split a group whose positions repeat, or lie between each other, by what tells its slices apart.

    Whole if nothing does; whole and refused if marks contradict each other.
    """
    planes = [plane for plane in group.planes if plane.place]
    if len(planes) < 2 or len(planes) < len(group.planes):
        return [group]
    along = _along(planes)
    where = _positions(along)
    most = max(Counter(where).values())
    doubt = ""
    labels: Labels | None
    try:
        if most > 1:
            labels = told_apart(planes, where, most)
        else:
            labels, doubt = woven(planes, along.tolist())
    except GeometryError as error:
        return [replace(group, planes=(replace(planes[0], refused=error), *planes[1:]))]
    if labels is None:
        return [replace(group, doubt=doubt)]
    parts: dict[tuple[str, ...], list[Plane]] = {}
    for plane, label in zip(planes, labels, strict=True):
        parts.setdefault(label, []).append(plane)
    return [group.part(parts[label], str(label)) for label in sorted(parts, key=_natural)]


def _along(planes: Sequence[Plane]) -> FloatArray:
    """Distance of each plane along the normal of the first, mm."""
    normal = planes[0].place.normal if planes[0].place else np.zeros(3)
    found: FloatArray = np.array([plane.place.position for plane in planes if plane.place]) @ normal
    return found


def _positions(along: FloatArray) -> list[int]:
    """Number the positions along the normal; equal numbers lie at one position."""
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    steps = np.concatenate([[0], np.cumsum(gaps >= repeat_gap(gaps))])
    where = np.empty(len(along), int)
    where[order] = steps
    return [int(place) for place in where]


def _natural(label: tuple[str, ...]) -> list[tuple[int, float, str]]:
    """Sort numbers as numbers and before text."""
    out = []
    for text in label:
        try:
            out.append((0, float(text), ""))
        except ValueError:
            out.append((1, 0.0, text))
    return out
