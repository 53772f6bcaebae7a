"""DICOM images: series of slices, multi-frame files, single flat images.

Slices are ordered by their position along the normal, never by InstanceNumber or file name. A stack that is not regular
is refused unless it may be resampled. Messages name slices by number, never by file name or header text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg.errors import FormatError, GeometryError, InputError, MedsegError
from medseg.grid import Grid
from medseg.image import Image, LazyArray, Source
from medseg.io.dicom import regular
from medseg.io.dicom.discover import Found, Given, find
from medseg.io.dicom.frames import Plane, check_alone, flat_grid
from medseg.io.dicom.groups import Group
from medseg.io.dicom.pixels import Stored, check_size, frame_size, header_number, quiet, result, stored
from medseg.io.dicom.stack import Slice, arrange
from medseg.io.dicom.voxels import Item, reader
from medseg.io.limits import check_claim

_MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PT"}
_COLOURS = ("red", "green", "blue")
_NAME = Path("The DICOM series")  # stands for the file names, which may hold a patient's, in messages


@dataclass(frozen=True)
class Series:
    """One image among DICOM files, as `series` lists it.

    Parameters
    ----------
    key : str
        Twelve hex digits; stands for this group of slices wherever the files lie.
    uid : str
        SeriesInstanceUID.
    modality : str
        As DICOM has it, such as "CT".
    files : tuple of Path
        In the order of slices where the stack is regular.
    shape : tuple of int
        (slices, rows, columns), or (rows, columns) of an image without a place in space.
    spacing : tuple of float, optional
        mm in array order; None if it is unknown or the stack is irregular.
    orientation : str, optional
        Letters of RASLPI in array order; None where there is none.
    problems : tuple of str
        Why it cannot be loaded, or only resampled; empty if all is well.
    description : str
        SeriesDescription. It may identify the patient: it is in no message, and not in the text of this object.
    """

    key: str
    uid: str
    modality: str
    files: tuple[Path, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    orientation: str | None
    problems: tuple[str, ...]
    description: str = field(repr=False)


def read(
    path: Given,
    channel_axis: int | None = None,
    labels: bool = False,
    *,
    series: str | int | None = None,
    regularize: bool = False,
) -> Image:
    """Read a DICOM image: headers now, voxels when they are touched.

    Parameters
    ----------
    path : Path or sequence of Path
        A file, a folder and all inside it, a DICOMDIR, or a list of files. What is not DICOM is passed over.
    channel_axis : int, optional
        Must be absent: a header says which samples are colours.
    labels : bool
        Not used.
    series : str or int, optional
        Which image, where there are several: key, SeriesInstanceUID, or number from 1 as `listed` has them.
    regularize : bool
        Resample an irregular stack to a regular upright one at the true positions instead of refusing it.

    Returns
    -------
    Image
        Voxels (channels, slices, rows, columns), or (channels, rows, columns) without a place in space, rescaled (CT:
        HU): as stored without a rescale, int16 or int32 with one that is whole and the same for all slices, else float.

    Raises
    ------
    MissingError
        There is no DICOM slice.
    FormatError
        Several series and no choice, damaged or truncated files, a mosaic.
    GeometryError
        Positions, orientation or spacing are missing, or the stack is irregular, tilted or has duplicates.
    InputError
        Not an image (segmentation, structure set, report), or a kind that is not read.
    """
    if channel_axis is not None:
        raise InputError("DICOM has no channel axis here; leave channel_axis out.")
    with quiet():
        found = find(path)
        group = _chosen(found, series)
        image, aloud = _image(group, found, regularize)
    found.warn(*aloud)
    return image


def listed(path: Given) -> list[Series]:
    """Return what can be loaded from a path, in a fixed order; the numbers of `read` count from its start.

    Raises
    ------
    MissingError, FormatError, InputError
        There is no DICOM image.
    """
    with quiet():
        found = find(path)
        return [_described(group, found) for group in found.groups]


def survey(folder: Path) -> tuple[list[Series], list[Path]]:
    """Return what `listed` does, and the folders where damaged files lie and nothing else can be read.

    Raises
    ------
    MissingError, FormatError, InputError
        There is no DICOM image.
    """
    with quiet():
        found = find(folder)
        series = [_described(group, found) for group in found.groups]
    homes = {file.parent for one in series for file in one.files}
    return series, sorted(found.damaged - homes)


def _chosen(found: Found, series: str | int | None) -> Group:
    """The group that is meant.

    Raises
    ------
    FormatError
        There are several and none was named.
    InputError
        The one named is not there, or a UID stands for several.
    """
    groups = found.groups
    if series is None:
        if len(groups) == 1:
            return groups[0]
        shown = [f"{number}: {_brief(group)}" for number, group in enumerate(groups, 1)]
        more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
        raise FormatError(
            f"There are {len(groups)} DICOM series here; choose one by number or key (series=, or --series). "
            f"{'; '.join(shown[:12])}{more}."
        )
    wanted = str(series)
    keyed = [group for group in groups if wanted in (group.key, group.uid)]
    if len(keyed) == 1:
        return keyed[0]
    if len(keyed) > 1:
        raise InputError(
            f"The SeriesInstanceUID holds {len(keyed)} images; choose by key: {', '.join(g.key for g in keyed)}."
        )
    if wanted.isdecimal() and 1 <= int(wanted) <= len(groups):
        return groups[int(wanted) - 1]
    raise InputError(
        f"There is no series {wanted!r}; there are {len(groups)}, numbered from 1: {', '.join(g.key for g in groups[:12])}."
    )


def _brief(group: Group) -> str:
    """A group in a few words: key, modality, size."""
    size = " x ".join(map(str, _shape(group)))
    return f"{group.key} {_modality(group)} {size}" + (" flat, without a position" if group.flat else "")


def _modality(group: Group) -> str:
    """Modality as DICOM has it; a code of a few letters or nothing."""
    text = group.planes[0].header.text("Modality")
    return text if text.isalnum() and len(text) <= 16 else "?"


def _shape(group: Group) -> tuple[int, ...]:
    try:
        rows, columns = (int(group.planes[-1].header.get(key) or 0) for key in ("Rows", "Columns"))
    except (TypeError, ValueError):
        rows = columns = 0
    return (rows, columns) if group.flat else (len(group.planes), rows, columns)


def _described(group: Group, found: Found) -> Series:
    """What `listed` tells about a group, from headers alone."""
    planes, spacing, orientation, problems = group.planes, None, None, []
    try:
        items = _items(planes)
        if group.flat:
            grid, *_ = flat_grid(planes[0].header)
        else:
            order, grid, _ = arrange([plane.place for plane in planes if plane.place])
            planes = tuple(planes[i] for i in order)
        result([one for *_, one in items])
        spacing, orientation = grid.spacing if grid.known else None, grid.orientation
    except MedsegError as error:
        problems.append(str(error))
    if _near_damage(group, found):
        problems.append("a file with a damaged header lies beside its files")
    header = planes[0].header
    return Series(
        group.key, group.uid, _modality(group), tuple(dict.fromkeys(plane.header.path for plane in planes)),
        _shape(group), spacing, orientation, tuple(problems), header.text("SeriesDescription"),
    )  # fmt: skip


def _near_damage(group: Group, found: Found) -> bool:
    return bool(found.damaged & {plane.header.path.parent for plane in group.planes})


def _items(planes: Sequence[Plane]) -> list[Item]:
    """How each plane is stored; raises what makes the group unreadable."""
    if refused := next((plane.refused for plane in planes if plane.refused), None):
        raise refused
    known: dict[tuple[Path, tuple[float, float] | None], Stored] = {}
    items: list[Item] = []
    for plane in planes:
        header = plane.header
        mark = (header.path, plane.scale)
        if mark not in known:
            known[mark] = stored(header, plane.scale)
            check_size(header, int(header_number(header, "NumberOfFrames", 1)))
            check_alone(header)
        items.append((header, plane.frame, known[mark]))
    if len({one.colour for *_, one in items}) > 1:
        raise InputError("Some slices are gray and some in colour; split the series.")
    check_claim(sum(frame_size(header) for header, *_ in items), _NAME)
    return items


def _image(group: Group, found: Found, regularize: bool) -> tuple[Image, list[str]]:
    """Make the image of a group, and say what of its notes should be heard."""
    if _near_damage(group, found):
        raise FormatError("A DICOM file beside these has a damaged or truncated header; get it again.")
    planes = group.planes
    items = _items(planes)
    channels = _COLOURS if items[0][2].colour else ("gray",)
    if group.flat:
        grid, told, aloud = flat_grid(planes[0].header)
        shape = (len(channels), 1, *grid.shape)
        load = reader(items, shape, [1])
        array = LazyArray((len(channels), *grid.shape), result([one for *_, one in items]), lambda: load()[:, 0])
        order = [0]
    else:
        order, grid, told, array, aloud = _volume(planes, items, len(channels), regularize)
    if group.doubt:
        told, aloud = [*told, group.doubt], [*aloud, group.doubt]
    told += _values_notes([items[i] for i in order])
    first = planes[order[0]].header
    uids = {key: first.text(key) for key in ("StudyInstanceUID", "SeriesInstanceUID") if first.text(key)}
    files = tuple(dict.fromkeys(planes[i].header.path for i in order))
    modality = _MODALITIES.get(first.text("Modality"), "other")
    return Image(array, grid, modality, channels, Source(files, "dicom", uids, (*found.notes, *told))), aloud


def _volume(
    planes: Sequence[Plane], items: Sequence[Item], channels: int, regularize: bool
) -> tuple[list[int], Grid, list[str], LazyArray, list[str]]:
    """Order of the planes, their grid, notes and voxels, regular or made so, and what of the notes should be heard."""
    slices = [plane.place for plane in planes if plane.place]
    kind = result([one for *_, one in items])
    try:
        order, grid, told = arrange(slices)
    except GeometryError:
        if not regularize or len(slices) < 2:
            raise
    else:
        used = [items[i] for i in order]
        load = reader(used, (channels, *grid.shape), range(1, len(used) + 1))
        return order, grid, told, LazyArray((channels, *grid.shape), kind, load), []
    plan = _plan(slices, items, channels)
    used = [items[i] for i in plan.order]
    check_claim(channels * int(np.prod(plan.grid.shape)) * kind.itemsize, _NAME)
    load = reader(used, (channels, len(used), slices[0].rows, slices[0].columns), range(1, len(used) + 1))
    array = LazyArray((channels, *plan.grid.shape), kind, lambda: plan.apply(load()))
    return plan.order, plan.grid, plan.notes, array, [plan.lost] if plan.lost else []


def _plan(slices: list[Slice], items: Sequence[Item], channels: int) -> regular.Plan:
    def same(i: int, j: int) -> bool:
        both = [items[i], items[j]]
        pixels = reader(both, (channels, 2, slices[i].rows, slices[i].columns), [i + 1, j + 1])()
        return bool(np.array_equal(pixels[:, 0], pixels[:, 1]))

    return regular.plan(slices, same)


def _values_notes(items: Sequence[Item]) -> list[str]:
    """What was decided about values."""
    notes = list(dict.fromkeys(note for *_, one in items for note in one.notes))
    paddings = {one.padding for *_, one in items} - {None}
    if paddings:
        ends = sorted({value for padding in paddings if padding for value in padding})
        shown = " to ".join(map(str, (ends[0], ends[-1]) if len(ends) > 1 else ends))
        notes.append(f"pixels stored as {shown} are padding, not measured; they are rescaled like the others")
    return notes
