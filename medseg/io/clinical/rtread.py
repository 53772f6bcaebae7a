"""RT Structure Sets: instances to closed planar contours on the source's slices, and contours to candidates.

Contours run along pixel edges, so that the pixel-centre rule gives back each mask exactly. Contours of one structure in
one slice are combined by exclusive or.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from medseg.candidates import Candidates, Mask
from medseg.errors import FormatError, GeometryError, InputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.io.clinical.objects import RTSTRUCT, opened
from medseg.io.clinical.segread import Found, code_of, tell
from medseg.io.common import reading
from medseg.io.dicom.pixels import quiet
from medseg.io.dicom.stack import JITTER_MM
from medseg.ops.contours import fill

FloatArray = npt.NDArray[np.float64]
_DATA = 0x30060050
_EDGE = 0.01  # of a pixel: writers round
_OFF = 0.1  # share of the slice distance by which a contour may lie off a slice
_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def to_lps(grid: Grid) -> FloatArray:
    """Return the (4, 4) matrix from array index (slice, row, column) to LPS mm, from what the grid says in DICOM."""
    geometry = grid.to_dicom()
    positions = np.array(geometry["ImagePositionPatient"])
    row, column = np.array(geometry["ImageOrientationPatient"]).reshape(2, 3)
    down, along = geometry["PixelSpacing"]
    if len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
    else:
        step = np.cross(row, column) * geometry["SpacingBetweenSlices"]
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([step, column * down, row * along, positions[0]])
    return matrix


def read(path: Path, like: Image | None) -> Found:
    """Read an RTSTRUCT on the grid of an image; see `medseg.io.load_candidates`."""
    if like is None:
        raise InputError(
            "An RTSTRUCT holds contours, not voxels: give the image they were drawn on too (--image, --reference; like= in Python)."
        )
    grid = like.grid
    if grid.space != "patient":
        raise GeometryError("Contours need an image with a place in the patient; give the DICOM series.")
    dataset = opened(path, RTSTRUCT, "RTSTRUCT")
    with reading(path, "RTSTRUCT"), quiet():
        rois = {int(one.ROINumber): _described(one) for one in dataset.get("StructureSetROISequence") or ()}
        _observed(dataset, rois)
        _check_frame(dataset, grid)
        notes = _check_series(dataset, like)
        boxes: list[list[int]] = []
        masks: list[Mask] = []
        info: list[dict[str, Any]] = []
        tally = Tally()
        for item in dataset.get("ROIContourSequence") or ():
            number = int(item.ReferencedROINumber)
            slices = _slices(item, grid, tally)
            found = _voxels(slices, grid)
            if found is None:
                tally.empty += 1
                continue
            tally.look(slices)
            boxes.append(found[0])
            masks.append(found[1])
            info.append(rois.get(number, {"number": number, "label": f"ROI {number}"}))
    tell(tally.notes())
    notes += tally.notes()
    count = len(masks)
    candidates = Candidates(
        np.array(boxes, dtype=np.int64).reshape(count, 6), np.full(count, np.nan, np.float32),
        np.ones(count, np.int32), tuple(masks), grid.shape,
    )  # fmt: skip
    return candidates, grid, {"segments": info, "notes": notes, "kind": "RTSTRUCT"}


class Tally:
    """What was left out or looks odd, counted over all structures."""

    def __init__(self) -> None:
        self.short = self.open = self.outside = self.cut = self.empty = self.sparse = 0

    def look(self, slices: dict[int, list[FloatArray]]) -> None:
        """Count a structure whose contours skip slices, as if drawn on another series."""
        gaps = np.diff(sorted(slices))
        self.sparse += bool(gaps.size > 1 and gaps.min() > 1)

    def notes(self) -> list[str]:
        """Say it, each in one sentence."""
        texts = (
            (self.short, "contours of fewer than 3 points were dropped"),
            (self.open, "points and open contours were left out, as they enclose nothing"),
            (self.outside, "contours lie outside the image and were left out"),
            (self.cut, "contours lie partly outside the image; what is outside was cut off"),
            (self.empty, "structures have no voxel in the image and were left out"),
            (self.sparse, "structures have contours on every second slice or fewer; nothing was put between them"),
        )
        return [f"{count} {text}" for count, text in texts if count]


def _described(item: Dataset) -> dict[str, Any]:
    volume = (item.get("ConceptualVolumeIdentificationSequence") or [Dataset()])[0]
    name = str(item.get("ROIName") or "") or f"ROI {item.ROINumber}"
    return {
        "number": int(item.ROINumber), "label": name, "category": None, "type": None, "site": None, "nodal": False, "role": "",
        "tracking_id": str(item.get("TrackingID") or name),
        "tracking_uid": str(item.get("TrackingUID") or volume.get("ConceptualVolumeUID") or ""),
        "algorithm": str(item.get("ROIGenerationAlgorithm") or ""), "algorithm_name": "", "algorithm_version": "",
    }  # fmt: skip


def _observed(dataset: Dataset, rois: dict[int, dict[str, Any]]) -> None:
    """Add what the observations say of each structure."""
    for item in dataset.get("RTROIObservationsSequence") or ():
        roi = rois.get(int(item.get("ReferencedROINumber") or -1))
        if roi is not None:
            roi["type"] = code_of(item.get("RTROIIdentificationCodeSequence"))
            roi["interpreted"] = str(item.get("RTROIInterpretedType") or "")


def _check_frame(dataset: Dataset, grid: Grid) -> None:
    frames = {
        str(one.ReferencedFrameOfReferenceUID)
        for one in dataset.get("StructureSetROISequence") or ()
        if one.get("ReferencedFrameOfReferenceUID")
    }
    if grid.frame and frames - {grid.frame}:
        raise GeometryError(
            "The RTSTRUCT was drawn in another frame of reference than the image's; give the image it was drawn on."
        )


def _check_series(dataset: Dataset, like: Image) -> list[str]:
    """Return a note if the contours name another series than the image's."""
    mine = like.source.uids.get("SeriesInstanceUID") if like.source else None
    named = {
        str(series.get("SeriesInstanceUID") or "")
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }
    if mine and named and mine not in named:
        return ["the contours were drawn on another series in the same frame of reference"]
    return []


def _slices(item: Dataset, grid: Grid, tally: Tally) -> dict[int, list[FloatArray]]:
    """Return the contours (N, 2) of one structure in pixels, by slice.

    Raises
    ------
    GeometryError
        A contour lies between slices or across them.
    FormatError
        A contour is damaged, or its points are offset.
    """
    to_index = np.linalg.inv(to_lps(grid))
    spacing = float(grid.to_dicom()["SpacingBetweenSlices"])
    tolerance = max(JITTER_MM / spacing, _OFF)
    slices: dict[int, list[FloatArray]] = {}
    off, contours = 0, item.get("ContourSequence") or ()
    for contour in contours:
        kind = str(contour.get("ContourGeometricType") or "CLOSED_PLANAR").strip().upper()
        points = _points(contour)
        if kind not in _FILLED:
            tally.open += 1
        elif len(points) < 3:
            tally.short += 1
        else:
            index = points @ to_index[:3, :3].T + to_index[:3, 3]
            z = int(np.rint(np.median(index[:, 0])))
            if np.abs(index[:, 0] - z).max() > tolerance:
                off += 1
            elif not 0 <= z < grid.shape[0] or not _reaches(index[:, 1:], grid):
                tally.outside += 1
            else:
                tally.cut += not _within(index[:, 1:], grid)
                slices.setdefault(z, []).append(index[:, 1:])
    if off:
        raise GeometryError(
            f"{off} of {len(contours)} contours of a structure do not lie in the slices of the image; give the image "
            "they were drawn on."
        )
    return slices


def _reaches(points: FloatArray, grid: Grid) -> bool:
    """Whether the rectangle around a contour (N, 2), in pixels, has a part in the image."""
    return bool((points.max(axis=0) > -0.5).all() and (points.min(axis=0) < np.array(grid.shape[1:]) - 0.5).all())


def _within(points: FloatArray, grid: Grid) -> bool:
    """Whether a contour (N, 2), in pixels, stays in the image, whose border is that of its outer pixels."""
    far = np.array(grid.shape[1:]) - 0.5
    return bool((points.min(axis=0) >= -0.5 - _EDGE).all() and (points.max(axis=0) <= far + _EDGE).all())


def _points(contour: Dataset) -> FloatArray:
    """Return the points (N, 3) of a contour, LPS mm.

    Raises
    ------
    FormatError
        They are not triples of numbers; or there is an offset, of which readers differ whether to add or subtract it.
    """
    offset = contour.get("ContourOffsetVector")
    if offset is not None and np.any(np.array(offset, dtype=np.float64) != 0):
        raise FormatError(
            "A contour has a ContourOffsetVector, which DICOM retired as unclear; write the structures again with the "
            "offset in the points."
        )
    # The raw text is parsed at once: pydicom makes an object of each number.
    element: Any = contour.get_item(_DATA) if _DATA in contour else None
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        text = element.value.strip(b"\0 ")
        values = np.array(text.split(b"\\") if text else [], dtype=np.float64)
    else:
        found = element.value if isinstance(element, DataElement) else None
        values = np.array([] if found in (None, "") else found, dtype=np.float64)
    if values.size % 3 or not np.isfinite(values).all():
        raise FormatError("A contour is not a list of points (x, y, z); the RTSTRUCT is damaged.")
    return values.reshape(-1, 3)


def _voxels(slices: dict[int, list[FloatArray]], grid: Grid) -> tuple[list[int], Mask] | None:
    """Fill the contours of one structure: its box and its mask; None if no pixel centre is inside."""
    ends = np.array([grid.shape[1], grid.shape[2]])
    points = np.concatenate([one for polygons in slices.values() for one in polygons] or [np.zeros((1, 2))])
    low = np.clip(np.floor(points.min(axis=0)), 0, ends - 1).astype(int)  # only a window around the contours is filled
    high = np.clip(np.ceil(points.max(axis=0)) + 1, low + 1, ends).astype(int)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    filled = {z: fill([one - low for one in polygons], size) for z, polygons in sorted(slices.items())}
    filled = {z: mask for z, mask in filled.items() if mask.any()}
    if not filled:
        return None
    flat = np.logical_or.reduce(list(filled.values()))
    rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    first, last = min(filled), max(filled)
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    mask = np.zeros((last - first + 1, bottom - top, right - left), np.bool_)
    for z, one in filled.items():
        mask[z - first] = one[top:bottom, left:right]
    start, stop = low + (top, left), low + (bottom, right)
    return [first, int(start[0]), int(start[1]), last + 1, int(stop[0]), int(stop[1])], mask


def contour_text(polygon: FloatArray, slice_number: int, matrix: FloatArray) -> list[str]:
    """Return the points of a polygon (N, 2) in one slice as DICOM decimal strings in LPS mm, x, y, z by turns."""
    index = np.column_stack([np.full(len(polygon), float(slice_number)), polygon])
    points = index @ matrix[:3, :3].T + matrix[:3, 3] + 0.0
    return [f"{value:.6f}" for value in points.ravel().tolist()]
