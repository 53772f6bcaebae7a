"""Slices that do not make one regular stack: gaps, jitter, tilt, repeats, several volumes in one series."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import UID

from medseg.testing.corpus.case import Case, Written, case
from medseg.testing.series import Plane, ramp_of, save, stack

CASES: list[Case] = []
here = partial(case, CASES)

OBLIQUE = (10.0, -20.0, 30.0)
GAP = "missing|gap|equally"
TILT = float(np.tan(np.radians(15)))


def _without(folder: Path, gone: set[int], count: int = 12) -> Written:
    planes = stack(count, angles=OBLIQUE, ramp=True)
    return save(folder, [plane for i, plane in enumerate(planes) if i not in gone], ramp=ramp_of())


for _name, _gone in (
    ("one slice missing", {4}),
    ("two slices missing in a row", {4, 5}),
    ("slices missing at three places", {2, 6, 7, 9}),
    ("the slice before the last missing", {10}),
):

    @here(_name, "regularize", word=GAP)
    def _missing(folder: Path, gone: set[int] = _gone) -> Written:
        return _without(folder, gone)


@here("one of three slices missing", "regularize", word=GAP)
def _three(folder: Path) -> Written:
    distances = [0, 2.5, 5, 10]
    return save(folder, stack(distances=distances, ramp=True), ramp=ramp_of())


@here("unequal gaps", "regularize", word=GAP)
def _unequal(folder: Path) -> Written:
    distances = [0, 2.5, 5.3, 7.5, 10.6, 12.5, 15]
    return save(folder, stack(distances=distances, angles=OBLIQUE, ramp=True), ramp=ramp_of())


@here("the spacing changes on the way", "regularize", word=GAP)
def _two_spacings(folder: Path) -> Written:
    distances = [0, 2, 4, 6, 8, 11, 14, 17, 20]
    return save(folder, stack(distances=distances, ramp=True), ramp=ramp_of())


@here("positions jitter by 0.2 mm", "regularize", word=GAP)
def _jitter(folder: Path) -> Written:
    distances = np.arange(8) * 2.5 + np.array([0, 0.2, -0.2, 0.1, -0.15, 0.2, 0, -0.2])
    return save(folder, stack(distances=list(distances), angles=OBLIQUE, ramp=True), ramp=ramp_of())


for _size, _off in ((1e-5, 0.01), (0.02, 0.05)):

    @here(f"positions jitter by {_size:g} mm")
    def _little(folder: Path, size: float = _size, off: float = _off) -> Written:
        noise = np.random.default_rng(0).uniform(-size, size, 8)
        return save(folder, stack(distances=list(np.arange(8) * 2.5 + noise), angles=OBLIQUE), off=off)


@here("positions rounded to 0.1 mm, thin slices", "plain", "regularize", word=GAP)
def _coarse(folder: Path) -> Written:
    planes = stack(distances=list(np.round(np.arange(9) * 0.625, 1)), ramp=True)
    return save(folder, planes, ramp=ramp_of(), off=0.06)


@here("one slice twice, the same pixels", "plain", "regularize", word="repeat|duplicate|same position")
def _twice(folder: Path) -> Written:
    planes = stack(angles=OBLIQUE)
    truth = save(folder, planes)
    copy = stack(angles=OBLIQUE)[2]
    copy.dataset.InstanceNumber = 40
    copy.dataset.SOPInstanceUID = copy.dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.77")
    save(folder / "again", [copy])
    return truth


@here("the same files twice", "plain", "regularize", word="repeat|duplicate|same position")
def _copied(folder: Path) -> Written:
    planes = stack(angles=OBLIQUE)
    save(folder, planes, name="copy{:03d}.dcm")
    return save(folder, planes, seed=5)


@here("one position twice, other pixels", "refused", word="repeat|duplicate|same position")
def _other_pixels(folder: Path) -> Written:
    planes = stack()
    copy = stack(seed=1)[2]
    copy.dataset.InstanceNumber = 40
    save(folder, [*planes, copy])
    return []


@here("every position twice, nothing tells them apart", "refused", word="repeat|duplicate|same position")
def _all_twice(folder: Path) -> Written:
    save(folder, [*stack(), *stack(seed=1)])
    return []


for _name, _step in (("gantry tilt of 15 degrees", 2.5), ("gantry tilt, slices descend", -2.5)):

    @here(_name, "regularize", word="tilt|shear")
    def _tilted(folder: Path, step: float = _step) -> Written:
        return save(folder, stack(8, step, shape=(12, 7), drift=TILT, ramp=True), ramp=ramp_of())


@here("gantry tilt of 0.05 degrees")
def _upright(folder: Path) -> Written:
    return save(folder, stack(8, drift=float(np.tan(np.radians(0.05)))))


@here("gantry tilt and one slice missing", "regularize", word="tilt|shear|" + GAP)
def _tilted_gap(folder: Path) -> Written:
    planes = stack(8, shape=(14, 7), drift=TILT, ramp=True)
    return save(folder, planes[:3] + planes[4:], ramp=ramp_of())


@here("slices wander sideways", "regularize", "refused", word="off a regular|shear|tilt|equally|regular|wander|side")
def _wandering(folder: Path) -> Written:
    planes = [plane for i in range(6) for plane in _moved(i)]
    return save(folder, planes, ramp=ramp_of())


def _moved(i: int) -> list[Plane]:
    """Slice i of a stack whose slices lie up to 2 mm to the right and left of a straight line."""
    x, y, z = -10.0 + (2, -1, 0, 1, -2, 1)[i], 20.0, 30.0 + 2.5 * i
    planes = stack(1, shape=(6, 12), origin=(x, y, z), ramp=False, InstanceNumber=i + 1)
    level = ramp_of()
    for plane in planes:
        stored = np.rint(plane.points() @ level[:3] + level[3] + 1024).astype(np.int16)
        plane.pixels, plane.values = stored, stored - 1024.0
    return planes


def _several(folder: Path, *parts: list[Plane], **truth: float) -> Written:
    """Several volumes under one SeriesInstanceUID, file names in any order, InstanceNumber running on."""
    everything = [plane for part in parts for plane in part]
    for number, plane in enumerate(everything, 1):
        plane.dataset.InstanceNumber = number
        plane.dataset.SOPInstanceUID = plane.dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.8.{number}")
    return [save(folder, part, seed=i, name=f"{'kbxq'[i]}{{:03d}}.dcm", **truth) for i, part in enumerate(parts)]


_TIMES: list[dict[str, Any]] = [{"TemporalPositionIdentifier": i, "NumberOfTemporalPositions": 3} for i in (1, 2, 3)]
_REPEATS: dict[str, list[dict[str, Any]]] = {
    "three time points by TemporalPositionIdentifier": _TIMES,
    "three time points by AcquisitionTime": [{"AcquisitionTime": f"1011{i}2.5"} for i in (0, 2, 4)],
    "three time points by AcquisitionNumber": [{"AcquisitionNumber": i} for i in (1, 2, 3)],
    "three phases by TriggerTime": [{"TriggerTime": str(t)} for t in (0, 250.5, 500)],
    "two echoes by EchoTime": [{"EchoTime": "4.6", "EchoNumbers": 1}, {"EchoTime": "9.2", "EchoNumbers": 2}],
    "b-values": [{"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}],
    "two energies by KVP": [{"KVP": "80"}, {"KVP": "140"}],
    "phases by NominalPercentageOfCardiacPhase": [{"NominalPercentageOfCardiacPhase": p} for p in (40.0, 75.0)],
    "magnitude and phase by ImageType": [{"ImageType": ["ORIGINAL", "PRIMARY", kind]} for kind in "MP"],
    "inversion times": [{"InversionTime": "300"}, {"InversionTime": "900"}],
}
for _name, _tags in _REPEATS.items():

    @here(_name, "series", word="series")
    def _repeated(folder: Path, tags: list[dict[str, Any]] = _tags) -> Written:
        kind: dict[str, Any] = {} if "KVP" in tags[0] else {"Modality": "MR"}
        return _several(folder, *[stack(angles=OBLIQUE, seed=i, **kind, **one) for i, one in enumerate(tags)])


@here("two time points, the second incomplete", "series", word="series|repeat|missing")
def _incomplete(folder: Path) -> Written:
    parts = [stack(seed=i, **tags) for i, tags in enumerate(_TIMES[:2])]
    return _several(folder, parts[0], parts[1][:4])


@here("AcquisitionTime differs in every slice")
def _own_times(folder: Path) -> Written:
    planes = stack(8)
    for i, plane in enumerate(planes):
        plane.dataset.AcquisitionTime, plane.dataset.AcquisitionNumber = f"1011{i:02d}.5", i // 2
        plane.dataset.ContentTime = f"1012{7 * i % 60:02d}"
    return save(folder, planes)


@here("two orientations in one series", "series", word="series")
def _two_ways(folder: Path) -> Written:
    return _several(folder, stack(), stack(angles=(-90, 0, 0), seed=1))


@here("three orthogonal localizer slices", "series", word="series")
def _scouts(folder: Path) -> Written:
    return _several(folder, *[stack(1, angles=a, seed=i) for i, a in enumerate(((0, 0, 0), (-90, 0, 0), (0, 90, 90)))])


@here("localizer inside the series", "series", word="series")
def _localizer(folder: Path) -> Written:
    scout = stack(1, angles=(-90, 0, 0), shape=(9, 11), seed=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return _several(folder, stack(), scout)


@here("two matrix sizes in one series", "series", word="series")
def _two_sizes(folder: Path) -> Written:
    return _several(folder, stack(), stack(shape=(8, 6), seed=1, origin=(-10, 20, 60)))


@here("two pixel spacings in one series", "series", "refused", word="series|PixelSpacing|spacing")
def _two_pixels(folder: Path) -> Written:
    return _several(folder, stack(), stack(spacing=(0.9, 0.9), seed=1, origin=(-10, 20, 60)))


@here("two frames of reference in one series", "series", word="series|frame")
def _two_frames(folder: Path) -> Written:
    return _several(folder, stack(), stack(seed=1, FrameOfReferenceUID="1.2.10"))


def _passes(folder: Path, *tags: Callable[[int], dict[str, Any]], apart: float = 0.0, **kind: Any) -> Written:
    """Stacks of six slices, the n-th `apart` mm times n further on; each slice k has the attributes its function gives."""
    parts = []
    for number, own in enumerate(tags):
        parts.append(stack(origin=(-10.0, 20.0, 30.0 + number * apart), seed=number, **kind))
        for k, plane in enumerate(parts[-1]):
            for key, value in own(k).items():
                setattr(plane.dataset, key, value)
    return _several(folder, *parts)


@here("two time points, TriggerTime jitters", "series", word="series")
def _jittering(folder: Path) -> Written:
    def own(number: int) -> Callable[[int], dict[str, Any]]:
        return lambda k: {
            "TriggerTime": str(600 + k + (7 if (k + number) % 2 else -5)), "AcquisitionTime": f"10{10 + number}{k:02d}"
        }  # fmt: skip

    return _passes(folder, own(0), own(1), Modality="MR")


@here("two time points, one across midnight", "series", word="series")
def _midnight(folder: Path) -> Written:
    before = ("235957", "235958", "235959", "000000", "000001", "000002")
    return _passes(folder, lambda k: {"AcquisitionTime": before[k]}, lambda k: {"AcquisitionTime": f"0002{k:02d}"})


@here("AcquisitionNumber and AcquisitionTime contradict each other", "refused", word="different ways")
def _contradictory(folder: Path) -> Written:
    def own(number: int) -> Callable[[int], dict[str, Any]]:
        return lambda k: {"AcquisitionNumber": 1 + (k + number) % 2, "AcquisitionTime": f"10{10 + number}{k:02d}"}

    _passes(folder, own(0), own(1))
    return []


_ALTERNATING: dict[str, tuple[str, Any, Any, float]] = {
    "two energies, the second half a slice further on": ("KVP", "80", "140", 1.25),
    "two phases, the second 0.2 mm further on": ("AcquisitionNumber", 1, 2, 0.2),
    "CT and PET of one SeriesInstanceUID, one after the other": ("Modality", "CT", "PT", 15.0),
    "two studies of one SeriesInstanceUID, one after the other": ("StudyInstanceUID", "1.2.1", "1.2.2", 15.0),
    "activity and counts, one after the other": ("Units", "BQML", "CNTS", 15.0),
}
for _name, (_tag, _one, _other, _apart) in _ALTERNATING.items():

    @here(_name, "series", word="series")
    def _alternating(
        folder: Path, tag: str = _tag, one: Any = _one, other: Any = _other, apart: float = _apart
    ) -> Written:
        kind = {"Modality": "PT"} if tag == "Units" else {}
        return _passes(folder, lambda _: {tag: one}, lambda _: {tag: other}, apart=apart, **kind)


@here("odd slices first, then even ones")
def _interleaved(folder: Path) -> Written:
    planes = stack(8, Modality="MR")
    for i, plane in enumerate(planes):
        plane.dataset.AcquisitionTime = plane.dataset.ContentTime = f"101{i % 2}00"
    return save(folder, planes)


@here("a dense part and a sparse one", "regularize", word=GAP)
def _dense(folder: Path) -> Written:
    distances = [0, 1, 2, 3, 4, 9, 14, 19, 24, 29, 34]
    return save(folder, stack(distances=distances, ramp=True), ramp=ramp_of())
