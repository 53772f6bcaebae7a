"""Read DICOM Segmentations: BINARY, LABELMAP and FRACTIONAL, any order of frames, on a grid worked out from positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from medseg.candidates import Candidates, Mask
from medseg.errors import FormatError, GeometryError, MedsegWarning
from medseg.grid import Grid
from medseg.image import Image
from medseg.io.clinical.codes import BACKGROUND, LYMPH_NODE, role_of
from medseg.io.clinical.objects import SEG, opened
from medseg.io.clinical.planes import Plane, lattice, on_grid
from medseg.io.common import reading
from medseg.io.dicom.pixels import quiet
from medseg.io.limits import check_claim

AnyArray = npt.NDArray[Any]
Found = tuple[Candidates, Grid, dict[str, Any]]
_HALF = 0.5  # share of MaximumFractionalValue from which a voxel of a FRACTIONAL segmentation belongs


@dataclass(frozen=True)
class Frame:
    """One frame: its number in the file, the slice of the grid it lies on, its segment (None: a label map)."""

    number: int
    slice: int
    segment: int | None


def read(path: Path, like: Image | None = None) -> Found:
    """Read a SEG; see `medseg.io.load_candidates`."""
    dataset = opened(path, SEG, "DICOM SEG")
    with reading(path, "DICOM SEG"), quiet():
        kind = _kind(dataset)
        planes, segments = _functional(dataset)
        described = {int(one.SegmentNumber): _described(one) for one in dataset.get("SegmentSequence") or ()}
    frame = str(dataset.get("FrameOfReferenceUID") or "") or None
    grid, slices, notes = _place(planes, frame, like)
    tell(notes)
    check_claim(int(np.prod(grid.shape)) * (2 if kind == "LABELMAP" else 1), path)
    frames = [Frame(i, z, segment) for i, (z, segment) in enumerate(zip(slices, segments, strict=True))]
    background: int | None = 0
    with reading(path, "DICOM SEG"), quiet():
        if kind == "LABELMAP":
            background = _background(dataset)
            numbers, found = _label_map(dataset, frames, grid, background)
        else:
            numbers, found = _masks(dataset, frames, grid, kind)
    if kind == "FRACTIONAL":
        notes.append("fractions of at least half of MaximumFractionalValue were taken as inside")
    unknown = [number for number in numbers if number not in described]
    if unknown:
        notes.append(f"{len(unknown)} segments are not described in the header")
    if empty := len(set(described) - set(numbers) - {background}):
        notes.append(f"{empty} segments have no voxel and were left out")
    info = [described.get(number, {"number": number, "label": f"segment {number}"}) for number in numbers]
    return found, grid, {"segments": info, "notes": notes, "kind": f"DICOM SEG {kind}"}


def _kind(dataset: Dataset) -> str:
    """Return the segmentation type, or refuse what is not a stack of planes in a patient."""
    kind = str(dataset.get("SegmentationType") or "BINARY").upper()
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise FormatError("The SEG has a SegmentationType other than BINARY, FRACTIONAL and LABELMAP; it is not read.")
    if "TotalPixelMatrixRows" in dataset or str(dataset.get("DimensionOrganizationType", "")).startswith("TILED"):
        raise FormatError("The SEG is tiled, of a whole-slide image, which is not read.")
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        raise GeometryError("The SEG has no functional groups, so the place of its frames is unknown.")
    count = int(dataset.get("NumberOfFrames") or 1)
    if count != len(dataset.PerFrameFunctionalGroupsSequence):
        raise FormatError(
            f"The SEG states {count} frames and places {len(dataset.PerFrameFunctionalGroupsSequence)}; it is damaged."
        )
    return kind


def _functional(dataset: Dataset) -> tuple[list[Plane], list[int | None]]:
    """Return where each frame lies, and which segment it shows (None in a label map)."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    size = (int(dataset.Rows), int(dataset.Columns))
    planes: list[Plane] = []
    segments: list[int | None] = []
    for number, own in enumerate(dataset.PerFrameFunctionalGroupsSequence, 1):

        def group(name: str, own: Dataset = own) -> Dataset:
            items = own.get(name) or shared.get(name)
            return items[0] if items else Dataset()

        measures = group("PixelMeasuresSequence")
        planes.append(
            Plane.of(
                number,
                size,
                group("PlanePositionSequence").get("ImagePositionPatient"),
                group("PlaneOrientationSequence").get("ImageOrientationPatient"),
                measures.get("PixelSpacing"),
                measures.get("SpacingBetweenSlices"),
                measures.get("SliceThickness"),
            )  # fmt: skip
        )
        segment = group("SegmentIdentificationSequence").get("ReferencedSegmentNumber")
        segments.append(None if segment is None else int(segment))
    if str(dataset.get("SegmentationType")) != "LABELMAP" and None in segments:
        if len(dataset.get("SegmentSequence") or ()) != 1:
            raise FormatError("Frames of the SEG do not say which segment they show; it is damaged.")
        only = int(dataset.SegmentSequence[0].SegmentNumber)
        segments = [only if one is None else one for one in segments]
    return planes, segments


def _place(planes: list[Plane], frame: str | None, like: Image | None) -> tuple[Grid, list[int], list[str]]:
    """Return the grid, the slice of each frame, and notes: the grid of `like` where all planes lie on it."""
    if like is not None:
        if frame and like.grid.frame and frame != like.grid.frame:
            raise GeometryError("The segmentation and the image have different frames of reference; register them.")
        slices = on_grid(planes, like.grid)
        if slices is not None:
            return like.grid, slices, []
    grid, slices, notes = lattice(planes, frame)
    if like is not None:
        notes.append("the planes of the segmentation are not those of the image; it is on its own grid")
    return grid, slices, notes


def _described(item: Dataset) -> dict[str, Any]:
    """Return what the header says of one segment."""
    algorithm = (item.get("SegmentationAlgorithmIdentificationSequence") or [Dataset()])[0]
    kind = (item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
    regions = [code_of([one]) for one in item.get("AnatomicRegionSequence") or ()]
    roles = [role_of(code_of([one])) for one in kind.get("SegmentedPropertyTypeModifierCodeSequence") or ()]
    return {
        "number": int(item.SegmentNumber),
        "label": str(item.get("SegmentLabel") or f"segment {item.SegmentNumber}"),
        "category": code_of(item.get("SegmentedPropertyCategoryCodeSequence")),
        "type": code_of(item.get("SegmentedPropertyTypeCodeSequence")),
        "site": regions[0] if regions else None,
        "nodal": any(code is not None and code[:2] == LYMPH_NODE[:2] for code in regions),
        "role": next((role for role in roles if role), ""),
        "tracking_id": str(item.get("TrackingID") or ""),
        "tracking_uid": str(item.get("TrackingUID") or ""),
        "algorithm": str(item.get("SegmentAlgorithmType") or ""),
        "algorithm_name": str(algorithm.get("AlgorithmName") or item.get("SegmentAlgorithmName") or ""),
        "algorithm_version": str(algorithm.get("AlgorithmVersion") or ""),
    }


def code_of(items: Any) -> tuple[str, str, str] | None:
    """Return (value, scheme, meaning) of the first item of a code sequence, or None."""
    if not items:
        return None
    first = items[0]
    value = first.get("CodeValue") or first.get("LongCodeValue") or first.get("URNCodeValue") or ""
    return str(value), str(first.get("CodingSchemeDesignator") or ""), str(first.get("CodeMeaning") or "")


def _masks(dataset: Dataset, frames: list[Frame], grid: Grid, kind: str) -> tuple[list[int], Candidates]:
    """Return the numbers of the segments that have voxels, and one candidate for each."""
    least = _HALF * float(dataset.get("MaximumFractionalValue") or 255) if kind == "FRACTIONAL" else 1
    parts: dict[int, dict[int, tuple[int, int, Mask]]] = {}
    for frame, values in _pixels(dataset, frames):
        inside = values >= least
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        seen = parts.setdefault(frame.segment or 0, {})
        if frame.slice in seen:
            raise GeometryError(
                f"Several frames of segment {frame.segment} lie at one position, as over time; that is not read."
            )
        if rows.size:
            crop = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
            seen[frame.slice] = (int(rows[0]), int(columns[0]), crop)
    numbers = sorted(number for number, seen in parts.items() if seen)
    boxes, masks = [], []
    for number in numbers:
        box, mask = _joined(parts.pop(number))
        boxes.append(box)
        masks.append(mask)
    count = len(numbers)
    return numbers, Candidates(
        np.array(boxes, dtype=np.int64).reshape(count, 6), np.full(count, np.nan, np.float32),
        np.ones(count, np.int32), tuple(masks), grid.shape,
    )  # fmt: skip


def _joined(parts: dict[int, tuple[int, int, Mask]]) -> tuple[list[int], Mask]:
    """Join the cropped masks of slices: {slice: (first row, first column, mask)}, to a box and its mask."""
    start = [min(parts), min(r for r, _, _ in parts.values()), min(c for _, c, _ in parts.values())]
    stop = [
        max(parts) + 1,
        max(r + mask.shape[0] for r, _, mask in parts.values()),
        max(c + mask.shape[1] for _, c, mask in parts.values()),
    ]
    whole = np.zeros([b - a for a, b in zip(start, stop, strict=True)], dtype=np.bool_)
    for z, (row, column, mask) in parts.items():
        top, left = row - start[1], column - start[2]
        whole[z - start[0], top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return [*start, *stop], whole


def _background(dataset: Dataset) -> int | None:
    """Return the value of a label map that stands for no segment; None if each is one (PS3.3 C.8.20.2.3)."""
    numbers = [int(one.SegmentNumber) for one in dataset.get("SegmentSequence") or ()]
    if dataset.get("PixelPaddingValue") is not None:
        return int(dataset.PixelPaddingValue)
    for number, one in zip(numbers, dataset.get("SegmentSequence") or (), strict=True):
        if (code_of(one.get("SegmentedPropertyTypeCodeSequence")) or ("", ""))[:2] == BACKGROUND[:2]:
            return number
    return None if 0 in numbers else 0


def _label_map(
    dataset: Dataset, frames: list[Frame], grid: Grid, background: int | None
) -> tuple[list[int], Candidates]:
    """Return the segment numbers that occur, and one candidate for each."""
    described = {int(one.SegmentNumber) for one in dataset.get("SegmentSequence") or ()}
    volume = np.zeros(grid.shape, np.int32)  # number + 1, as 0 may be a segment
    seen: set[int] = set()
    for frame, values in _pixels(dataset, frames):
        if frame.slice in seen:
            raise GeometryError("Several frames of the label map lie at one position, as over time; that is not read.")
        seen.add(frame.slice)
        volume[frame.slice] = values
        volume[frame.slice] += 1
    if background is not None:
        volume[volume == background + 1] = 0
    numbers = [int(number) - 1 for number in np.unique(volume) if number]
    if 0 in numbers and 0 not in described:
        raise FormatError("The label map has pixels of 0, which is neither its background nor a segment it describes.")
    return numbers, Candidates.from_labels(volume)


def _pixels(dataset: Dataset, frames: list[Frame]) -> Iterator[tuple[Frame, AnyArray]]:
    """Give each frame with its stored values (rows, columns)."""
    shape = (int(dataset.Rows), int(dataset.Columns))
    size, bits = shape[0] * shape[1], int(dataset.BitsAllocated)
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or bits not in (1, 8, 16):
        raise FormatError(f"The SEG has {bits} bits for each pixel, or colour; medseg reads 1, 8 and 16.")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        for frame in frames:
            yield frame, pixel_array(dataset, index=frame.number, raw=True).reshape(shape)
        return
    data = np.frombuffer(dataset.PixelData, np.uint8)
    if data.size * 8 < size * bits * len(frames):
        raise FormatError("The SEG has fewer pixels than its header promises; it is truncated.")
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    for frame in frames:
        if bits == 1:  # frames follow one another bit by bit and need not begin at a byte
            first = frame.number * size
            block = np.unpackbits(data[first // 8 : -(-(first + size) // 8)], bitorder="little")
            yield frame, block[first % 8 : first % 8 + size].reshape(shape)
        else:
            step = size * bits // 8
            raw = data[frame.number * step : (frame.number + 1) * step]
            yield frame, raw.view(f"{order}u{bits // 8}").reshape(shape)


def tell(notes: list[str]) -> None:
    """Warn of each note."""
    for note in notes:
        warn(note, MedsegWarning, stacklevel=4)
