"""Many slices in one file: enhanced CT and MR, mosaics, frames without a place, secondary captures."""

from __future__ import annotations

from collections.abc import Sequence as Many
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage,
    SecondaryCaptureImageStorage,
)

from medseg.testing.corpus.case import Case, Written, case
from medseg.testing.series import Plane, Truth, numbers, ramp_of, save, stack, write

CASES: list[Case] = []
here = partial(case, CASES)

OBLIQUE = (10.0, -20.0, 30.0)
PLACE = "position|functional|frame|place|ImagePosition|ImageOrientation|orientation"


def _item(**tags: object) -> Sequence:
    out = Dataset()
    for key, value in tags.items():
        setattr(out, key, value)
    return Sequence([out])


def enhanced(planes: Many[Plane], index: Many[tuple[int, ...]], kind: str = EnhancedCTImageStorage) -> FileDataset:
    """One enhanced multi-frame data set of planes in the order given, with their dimension indices."""
    out = stack(1, SOPClassUID=kind)[0].dataset
    out.Modality = "CT" if kind == EnhancedCTImageStorage else "MR"
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
                "RescaleIntercept"):  # fmt: skip
        delattr(out, key)
    first = planes[0]
    out.NumberOfFrames, out.Rows, out.Columns = len(planes), first.dataset.Rows, first.dataset.Columns
    out.BitsAllocated, out.BitsStored = first.dataset.BitsAllocated, first.dataset.BitsStored
    out.HighBit, out.PixelRepresentation = first.dataset.HighBit, first.dataset.PixelRepresentation
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=first.dataset.ImageOrientationPatient)
    shared.PixelMeasuresSequence = _item(PixelSpacing=numbers(np.array(first.spacing)), SliceThickness="2.5")
    out.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for plane, values in zip(planes, index, strict=True):
        frame = Dataset()
        frame.FrameContentSequence = _item(
            DimensionIndexValues=list(values), StackID="1", InStackPositionNumber=values[-1],
            TemporalPositionIndex=values[0] if len(values) > 1 else 1,
        )  # fmt: skip
        frame.PlanePositionSequence = _item(ImagePositionPatient=plane.dataset.ImagePositionPatient)
        frame.PixelValueTransformationSequence = _item(
            RescaleSlope=plane.dataset.RescaleSlope, RescaleIntercept=plane.dataset.RescaleIntercept, RescaleType="HU"
        )
        frames.append(frame)
    out.PerFrameFunctionalGroupsSequence = Sequence(frames)
    out.PixelData = b"".join(plane.dataset.PixelData for plane in planes)
    return out


def _one(folder: Path, dataset: FileDataset) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write(dataset, folder / "multi.dcm")
    return folder / "multi.dcm"


def _indexed(count: int) -> list[tuple[int, ...]]:
    return [(i + 1,) for i in range(count)]


for _name, _kind in (("CT", EnhancedCTImageStorage), ("MR", EnhancedMRImageStorage)):

    @here(f"enhanced {_name}")
    def _enhanced(folder: Path, kind: str = _kind) -> Written:
        planes = stack(shape=(6, 8), angles=OBLIQUE)
        return _one(folder, enhanced(planes, _indexed(6), kind)), [Truth.of(planes)]


@here("enhanced CT, frames in another order than their index")
def _shuffled(folder: Path) -> Written:
    planes, index = stack(8, shape=(6, 8), angles=OBLIQUE), _indexed(8)
    order = np.random.default_rng(0).permutation(8)
    file = _one(folder, enhanced([planes[i] for i in order], [index[i] for i in order]))
    return file, [Truth.of(planes)]


@here("enhanced CT, the index contradicts positions")
def _misindexed(folder: Path) -> Written:
    planes = stack(8, shape=(6, 8), angles=OBLIQUE)
    index = [(int(i) + 1,) for i in np.random.default_rng(0).permutation(8)]
    return _one(folder, enhanced(planes, index)), [Truth.of(planes)]


@here("enhanced CT, one frame without a position", "refused", word=PLACE)
def _unplaced(folder: Path) -> Written:
    dataset = enhanced(stack(shape=(6, 8)), _indexed(6))
    del dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    return _one(folder, dataset), []


@here("enhanced CT, a rescale for each frame")
def _rescaled(folder: Path) -> Written:
    planes = stack(shape=(6, 8))
    for i, plane in enumerate(planes):
        plane.dataset.RescaleSlope, plane.dataset.RescaleIntercept = str(1 + i / 4), str(-i)
        plane.values = plane.pixels * (1 + i / 4) - i
    return _one(folder, enhanced(planes, _indexed(6))), [Truth.of(planes)]


@here("enhanced MR, two time points", "series", word="series")
def _times(folder: Path) -> Written:
    parts = [stack(shape=(6, 8), seed=i) for i in range(2)]
    frames = [plane for pair in zip(*parts, strict=True) for plane in pair]
    index = [(time + 1, place + 1) for place in range(6) for time in range(2)]
    dataset = enhanced(frames, index, EnhancedMRImageStorage)
    dataset.DimensionIndexSequence = Sequence(
        [
            _item(DimensionIndexPointer=0x00209128, FunctionalGroupPointer=0x00209111)[0],
            _item(DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111)[0],
        ]
    )
    return _one(folder, dataset), [Truth.of(part) for part in parts]


@here("enhanced CT, one frame missing", "regularize", word="missing|gap|equally")
def _gap(folder: Path) -> Written:
    planes = stack(8, shape=(6, 8), angles=OBLIQUE, ramp=True)
    del planes[3]
    return _one(folder, enhanced(planes, _indexed(7))), [Truth.of(planes, ramp=ramp_of())]


@here("enhanced CT without functional groups", "refused", word=PLACE)
def _bare(folder: Path) -> Written:
    dataset = enhanced(stack(shape=(6, 8)), _indexed(6))
    del dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence
    return _one(folder, dataset), []


@here("enhanced CT, pixels cut off", "refused", word="truncat|damaged|cut|pixels|bytes")
def _cut(folder: Path) -> Written:
    file = _one(folder, enhanced(stack(shape=(6, 8)), _indexed(6)))
    file.write_bytes(file.read_bytes()[:-100])
    return file, []


@here("enhanced CT, more frames stated than there are", "refused", word="truncat|damaged|frames|pixels|bytes")
def _overstated(folder: Path) -> Written:
    dataset = enhanced(stack(shape=(6, 8)), _indexed(6))
    dataset.NumberOfFrames = 60
    return _one(folder, dataset), []


@here("mosaic", "refused", word="mosaic")
def _mosaic(folder: Path) -> Written:
    save(folder, stack(Modality="MR", shape=(16, 16), ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]))
    return []


@here("multi-frame secondary capture without a place", "refused", word=PLACE)
def _captures(folder: Path) -> Written:
    dataset = enhanced(stack(shape=(6, 8)), _indexed(6), MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    del dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence
    dataset.FrameIncrementPointer = 0x00181063
    dataset.FrameTime = "40"
    return _one(folder, dataset), []


@here("secondary captures without a place", "refused", word=PLACE)
def _capture(folder: Path) -> Written:
    tags: dict[str, Any] = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    save(folder, stack(SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", **tags))
    return []


@here("single-frame slices that say NumberOfFrames 1")
def _said(folder: Path) -> Written:
    return save(folder, stack(NumberOfFrames=1))


def _nuclear(folder: Path, kind: str, order: Many[int] = (1, 2, 3, 4, 5, 6), **tags: Any) -> tuple[Path, list[Truth]]:
    """One file of nuclear medicine: frame n is slice `order[n]` of six, 4 mm apart."""
    planes = stack(step=4.0, shape=(6, 8), dtype="uint16", RescaleSlope=None, RescaleIntercept=None)
    first = planes[0].dataset
    dataset = stack(1, SOPClassUID=NuclearMedicineImageStorage, Modality="NM", **tags)[0].dataset
    for key in ("Rows", "Columns", "PixelRepresentation", "PixelSpacing"):
        setattr(dataset, key, first.get(key))
    dataset.DetectorInformationSequence = _item(
        ImagePositionPatient=first.ImagePositionPatient, ImageOrientationPatient=first.ImageOrientationPatient
    )
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, key)
    dataset.ImageType, dataset.NumberOfFrames = ["ORIGINAL", "PRIMARY", kind, "EMISSION"], 6
    dataset.SpacingBetweenSlices = "4"
    dataset.PixelData = b"".join(planes[number - 1].dataset.PixelData for number in order)
    return _one(folder, dataset), [Truth.of(planes)]


@here("nuclear medicine, reconstructed")
def _reconstructed(folder: Path) -> Written:
    return _nuclear(folder, "RECON TOMO", NumberOfSlices=6)


@here("nuclear medicine, frames in the order of SliceVector")
def _vector(folder: Path) -> Written:
    order = [1, 3, 5, 6, 4, 2]
    return _nuclear(folder, "RECON TOMO", order, SliceVector=order)


@here("nuclear medicine, projections", "refused", word="projection")
def _projections(folder: Path) -> Written:
    return _nuclear(folder, "TOMO", AngularViewVector=[1, 2, 3, 4, 5, 6])[0], []


@here("nuclear medicine, two energy windows", "refused", word="EnergyWindow")
def _windows(folder: Path) -> Written:
    return _nuclear(folder, "RECON TOMO", EnergyWindowVector=[1, 1, 1, 2, 2, 2], SliceVector=[1, 2, 3, 1, 2, 3])[0], []
