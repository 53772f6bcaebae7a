"""What tells slices at one position apart, and slices of two stacks that lie between each other.

A mark is believed if it holds each value once at each position and nothing says otherwise. Clocks say otherwise where the
slices were taken in passes, each over all positions: then no part may reach from one pass into another.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import combinations, pairwise

from medseg.errors import GeometryError
from medseg.io.dicom.frames import MARKS, TIMES, Plane
from medseg.io.dicom.headers import PRIVATE_B
from medseg.io.dicom.stack import arrange

Labels = list[tuple[str, ...]]

# Slices that differ in these are never one volume, even where they lie between each other.
_APART = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoTime", "EchoNumbers", "DiffusionBValue",
    *PRIVATE_B.values(), "DiffusionGradientOrientation", "KVP", "ConvolutionKernel", "StackID",
    "NominalPercentageOfCardiacPhase", "NominalPercentageOfRespiratoryPhase",
)  # fmt: skip
# These may alternate in one volume that was acquired in two goes, odd slices and even ones. Times always may.
_MAYBE = ("AcquisitionNumber", "ImageType", "InversionTime", "FlipAngle", "ContrastBolusAgent")
_DAY = 86400.0
_STAMP = re.compile(r"(\d{8})(\d{2})(\d{2})?(\d{2}(?:\.\d*)?)?([+-]\d{4})?")
_CLOCK = re.compile(r"(\d{2})(\d{2})?(\d{2}(?:\.\d*)?)?")


def told_apart(planes: Sequence[Plane], where: Sequence[int], most: int, sure: bool = False) -> Labels | None:
    """A label for each plane so that no position repeats under one label; None if there is no good one.

    Tried in turn: one attribute with exactly as many values as there are repeats, two attributes together, one with more
    values that still make stacks, and the order in time at each position.

    Parameters
    ----------
    planes : sequence of Plane
        With a place.
    where : sequence of int
        Number of the position of each.
    most : int
        How many lie at the fullest position.
    sure : bool
        Take only one attribute that is exact, or passes in time.

    Raises
    ------
    GeometryError
        Two marks, or a mark and the times, tell the slices apart in different ways.
    """
    values = {name: [plane.marks.get(name, "") for plane in planes] for name in _names(planes)}
    varied = [name for name, found in values.items() if len(set(found)) > 1]

    def tried(names: tuple[str, ...], exact: bool) -> Labels | None:
        labels = [tuple(values[name][i] for name in names) for i in range(len(planes))]
        count = len(set(labels))
        enough = count == most if exact else count * 0.5 * len(set(where)) <= len(planes)
        return labels if enough and len(set(zip(labels, where, strict=True))) == len(planes) else None

    passes = _passes(planes, where, most)
    single = {name: labels for name in varied if (labels := tried((name,), True))}
    made = single.pop("ContentTime", None)  # when the image was made, which may be in any order
    parts = [*single.values(), *([passes] if passes else [])]
    if any(crosses(one, other) for one, other in combinations(parts, 2)):
        raise _contradiction([*single], bool(passes))
    if single or made or sure:
        return parts[0] if parts else made
    pairs = list(combinations(varied, 2))
    for names, exact in [*((pair, True) for pair in pairs), *(((name,), False) for name in varied),
                         *((pair, False) for pair in pairs)]:  # fmt: skip
        timed = bool({*names} & {*TIMES})
        if (timed and passes) or not (labels := tried(names, exact)):
            continue
        if passes and crosses(labels, passes):
            raise _contradiction(names, True)
        return labels
    return passes or next((found for name in TIMES if (found := _ranks(planes, where, most, name)[0])), None)


def crosses(labels: Labels, passes: Labels) -> bool:
    """Whether a part of the first has slices of two parts of the second."""
    return len(set(zip(labels, passes, strict=True))) > len(set(labels))


def _contradiction(names: Sequence[str], timed: bool) -> GeometryError:
    shown = " and ".join([*names, *(["the times of acquisition"] if timed else [])])
    return GeometryError(
        f"Several slices lie at each position, and {shown} tell them apart in different ways, so which belong "
        "together cannot be known; export the volumes as series of their own."
    )


def _names(planes: Sequence[Plane]) -> list[str]:
    """Attributes to try, best first: those of the list, then dimension indices of enhanced files."""
    rest = sorted({name for plane in planes for name in plane.marks} - {*MARKS})
    return [*MARKS, *rest]


def _passes(planes: Sequence[Plane], where: Sequence[int], most: int) -> Labels | None:
    """Passes in time, each over all positions, that do not overlap; None if slices were not taken so."""
    for name in ("AcquisitionDateTime", "AcquisitionTime"):
        labels, whole = _ranks(planes, where, most, name)
        if labels and whole:
            return labels
    return None


def _ranks(planes: Sequence[Plane], where: Sequence[int], most: int, name: str) -> tuple[Labels | None, bool]:
    """Number the slices at each position in order of time, and say whether these are passes over all positions.

    None unless all positions have as many, at different times. Positions whose times overlap must have been taken in
    passes: if the first slice at one place is later than the second at another, their order says nothing.
    """
    times = seconds(planes, name)
    at: dict[int, list[tuple[float, int]]] = {}
    for i, (time, place) in enumerate(zip(times or [], where, strict=False)):
        at.setdefault(place, []).append((time, i))
    if not at or any(len({time for time, _ in found}) != most or len(found) != most for found in at.values()):
        return None, False
    rows = sorted([time for time, _ in sorted(found)] for found in at.values())
    blocks: list[list[list[float]]] = []
    last = -math.inf
    for row in rows:
        if row[0] < last:
            blocks[-1].append(row)
        else:
            blocks.append([row])
        last = max(last, row[-1])
    if name != "TriggerTime":  # no clock: it begins anew with each heartbeat
        for block in blocks:
            columns = list(zip(*block, strict=True))
            if any(max(early) >= min(late) for early, late in pairwise(columns)):
                return None, False
    labels: Labels = [("",)] * len(where)
    for found in at.values():
        for rank, (_, i) in enumerate(sorted(found)):
            labels[i] = (str(rank),)
    return labels, len(blocks) == 1 and len(rows) > 1 and most > 1


def seconds(planes: Sequence[Plane], name: str) -> list[float] | None:
    """Times of planes on one scale, s; None if one has none.

    A time without a date, or with one that stood still, goes on after midnight: whoever took slices at 23:59 and 0:01
    did not wait a day between them.
    """
    texts = [plane.marks.get(name, "") for plane in planes]
    if name == "TriggerTime":
        try:
            return [float(text) / 1000 for text in texts]
        except ValueError:
            return None
    if name == "AcquisitionDateTime":
        stamps = [_stamp(text) for text in texts]
        return None if None in stamps else [stamp for stamp in stamps if stamp is not None]
    clocks = [_clock(text) for text in texts]
    if None in clocks:
        return None
    found = [clock for clock in clocks if clock is not None]
    days = [_day(plane.header.text(name.replace("Time", "Date"))) for plane in planes]
    if len(set(days)) > 1 and None not in days:
        return [day * _DAY + clock for day, clock in zip(days, found, strict=True) if day is not None]
    for early, late in pairwise(sorted(set(found))):
        if late - early > _DAY / 2:
            return [clock + _DAY if clock <= early else clock for clock in found]
    return found


def _clock(text: str) -> float | None:
    """Seconds since midnight of a TM, with colons as before 1993 or without its first zero too."""
    text = text.replace(":", "").strip()
    match = _CLOCK.fullmatch("0" + text if len(text.partition(".")[0]) == 5 else text)
    return (
        sum(float(part or 0) * size for part, size in zip(match.groups(), (3600, 60, 1), strict=True))
        if match
        else None
    )


def _day(text: str) -> int | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])).toordinal()
    except ValueError:
        return None


def _stamp(text: str) -> float | None:
    """Seconds of a DT; in universal time where it has a zone."""
    match = _STAMP.fullmatch(text.strip())
    day = _day(match[1]) if match else None
    if match is None or day is None:
        return None
    hours, minutes, rest = (float(part or 0) for part in match.group(2, 3, 4))
    zone = match[5] or "+0000"
    east = (int(zone[1:3]) * 3600 + int(zone[3:]) * 60) * (-1 if zone[0] == "-" else 1)
    return day * _DAY + hours * 3600 + minutes * 60 + rest - east


def woven(planes: Sequence[Plane], along: Sequence[float]) -> tuple[Labels | None, str]:
    """A label for each plane where regular stacks lie between each other; or what to tell if they may be one volume.

    Parameters
    ----------
    planes : sequence of Plane
        At positions of their own.
    along : sequence of float
        Their positions along the normal, mm.

    Raises
    ------
    GeometryError
        See `told_apart`.
    """
    if len(planes) < 4:
        return None, ""
    near = _bunches(along)
    labels = told_apart(planes, near, near.count(near[0]), sure=True) if near else None
    if labels and _regular(planes, labels):
        return labels, ""
    for name in (*_APART, *_MAYBE):
        texts = [plane.marks.get(name, "") for plane in planes]
        if len(set(texts)) < 2:
            continue
        labels = [(_rounded(text),) for text in texts]
        if not _between(labels, along) or not _regular(planes, labels):
            continue
        if name in _APART or not _regular(planes, [("",)] * len(planes)):
            return labels, ""
        return None, (
            f"slices of {len(set(labels))} kinds by {name} alternate in this stack and were taken as one volume; check "
            "that they are one"
        )
    return None, ""


def _bunches(along: Sequence[float]) -> list[int] | None:
    """Number bunches of slices, each as many and much closer to each other than to the next; None if there are none."""
    order = sorted(range(len(along)), key=along.__getitem__)
    gaps = [along[j] - along[i] for i, j in pairwise(order)]
    out, number = [0] * len(along), 0
    for gap, i in zip(gaps, order[1:], strict=True):
        number += gap > 0.5 * max(gaps)
        out[i] = number
    sizes = set(Counter(out).values())
    return out if number > 1 and len(sizes) == 1 and sizes != {1} else None


def _between(labels: Labels, along: Sequence[float]) -> bool:
    """Whether there are parts of at least two slices and like size, two of which reach into each other."""
    parts: dict[tuple[str, ...], list[float]] = {}
    for label, place in zip(labels, along, strict=True):
        parts.setdefault(label, []).append(place)
    sizes = [len(part) for part in parts.values()]
    if len(parts) < 2 or min(sizes) < 2 or max(sizes) > 2 * min(sizes):
        return False
    ends = sorted((min(part), max(part)) for part in parts.values())
    return any(after[0] < before[1] for before, after in pairwise(ends))


def _regular(planes: Sequence[Plane], labels: Labels) -> bool:
    """Whether each part is a regular stack."""
    parts: dict[tuple[str, ...], list[Plane]] = {}
    for plane, label in zip(planes, labels, strict=True):
        parts.setdefault(label, []).append(plane)
    try:
        for part in parts.values():
            arrange([plane.place for plane in part if plane.place])
    except GeometryError:
        return False
    return True


def _rounded(text: str) -> str:
    """Text, or a number to three digits: some scanners write 4.601 and 4.602 for one echo."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text
