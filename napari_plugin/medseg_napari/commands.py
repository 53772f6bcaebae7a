"""What a person can do to instances: each one undoable step on a `Session`. No Qt here.

Places are voxel indices, of clicks in a series with the time in front; lengths are in mm (voxels where the spacing is unknown).
Each returns the step, or None where nothing would change; wrong use raises `InputError` with words for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError
from medseg.io.clinical.codes import ROLES, anatomy
from medseg.maps import Maps
from medseg.ops import components, editing
from medseg.ops.deltas import Labels, Place
from medseg.separate import separate as cut
from medseg_napari import notices
from medseg_napari.journal import Edit
from medseg_napari.session import Frame, Session

Mask = npt.NDArray[np.bool_]
Point = Sequence[float]


def each(session: Session, ids: Sequence[int], action: Callable[[int], Edit | None]) -> list[str]:
    """Do the same to several instances, as one step.

    Returns
    -------
    list of str
        Why some of them stay as they are.

    Raises
    ------
    InputError
        All do.
    """
    problems = []
    with session.together():
        for id in ids:
            try:
                action(id)
            except InputError as error:
                problems.append(f"{id}: {error}" if len(ids) > 1 else str(error))
    if len(problems) == len(ids):
        raise InputError("; ".join(dict.fromkeys(problems)))
    return problems


def split(session: Session, id: int, clicks: Sequence[Point]) -> Edit | None:
    """Cut an instance between clicks, where the model's maps say it is thinnest, or by its shape where there are none."""
    frame = _clicked(session, id, clicks)
    place = frame.around([id])
    mask = frame.labels[place] == id
    inner = [session.inner(click) for click in clicks]
    seeds = [[int(round(float(c))) - s.start for c, s in zip(click, place, strict=True)] for click in inner]
    parts = editing.split_by_seeds(mask, seeds, frame.grid.spacing, _height(frame, place))
    return _parted(frame, "split", id, place, parts)


def split_by_line(session: Session, id: int, path: Sequence[Point], axis: int | None = None) -> Edit | None:
    """Cut an instance along a drawn line, through all slices along ``axis``."""
    frame = _clicked(session, id, path)
    place = frame.around([id])
    inner = np.array([session.inner(point) for point in path], dtype=float) - [s.start for s in place]
    parts = editing.split_by_line(frame.labels[place] == id, inner, axis)
    return _parted(frame, "split by line", id, place, parts)


def separate(session: Session, id: int) -> Edit | None:
    """Cut an instance wherever its shape says that it is several, as `medseg separate` does."""
    frame = session.of([id])
    place = frame.around([id])
    crop = frame.grid.crop([s.start for s in place], [s.stop for s in place])
    parts = cut(frame.labels[place] == id, crop).labels
    if int(parts.max(initial=0)) < 2:
        raise InputError("By its shape this is one object; split it by clicks or by a line.")
    return _parted(frame, "separate by shape", id, place, parts)


def merge(session: Session, ids: Sequence[int]) -> Edit | None:
    """Make one instance of several; it keeps the number of the largest."""
    chosen = list(dict.fromkeys(ids))
    if len(chosen) < 2:
        raise InputError("Choose two or more instances to merge: click on them with Shift.")
    kept = max(chosen, key=lambda id: session.row(id).voxels)
    frame = session.of(chosen)
    place = frame.around(chosen)
    before = frame.labels[place]
    after = before.copy()
    for id in chosen:
        if id != kept:
            inner = tuple(
                slice(a.start - b.start, a.stop - b.start) for a, b in zip(frame.around([id]), place, strict=True)
            )
            part = after[inner]
            part[part == id] = kept
    return frame.commit("merge", place, after, status="")  # what was decided of the parts is not of the whole


def delete(session: Session, ids: Sequence[int]) -> Edit | None:
    """Take instances away."""
    if not ids:
        raise InputError("Choose an instance to delete: click on it.")
    times: dict[int | None, list[int]] = {}
    for id in ids:
        times.setdefault(session.row(id).time, []).append(id)
    if len(times) > 1:
        with session.together():
            for mine in times.values():
                delete(session, mine)
        return session.edits[-1]
    frame = session.of(ids)
    place = frame.around(ids)
    before = frame.labels[place]
    after = np.where(np.isin(before, list(ids)), 0, before).astype(np.int32)
    return frame.commit("delete", place, after)


def fill_holes(session: Session, id: int) -> Edit | None:
    """Fill background that an instance encloses."""
    return _reshaped(session, "fill holes", id, editing.filled)


def keep_largest(session: Session, id: int) -> Edit | None:
    """Keep the largest connected piece of an instance."""
    return _reshaped(session, "keep largest piece", id, components.largest_of)


def resize(session: Session, id: int, by: float) -> Edit | None:
    """Grow an instance into background by a length, or shrink it by a negative one."""
    if not by:
        return None
    name = f"{'grow' if by > 0 else 'shrink'} by {abs(by):g}"
    spacing = session.grid.spacing
    return _reshaped(session, name, id, lambda mask: editing.resized(mask, by, spacing), max(by, 0.0))


def smooth(session: Session, id: int, by: float) -> Edit | None:
    """Round an instance off at the scale of a length."""
    spacing = session.grid.spacing
    return _reshaped(session, "smooth", id, lambda mask: editing.smoothed(mask, by, spacing), 3 * by)


def interpolate(session: Session, id: int, axis: int = 0) -> Edit | None:
    """Draw an instance on the slices between those it was painted on."""
    spacing = session.grid.spacing
    return _reshaped(session, "draw between slices", id, lambda mask: editing.interpolated(mask, axis, spacing))


def add(
    session: Session, mask: Mask, place: Place, name: str = "add", kind: str | None = None, time: int | None = None
) -> Edit | None:
    """Add an instance where there is background, at a time of a series; what other instances hold stays theirs."""
    frame = session.frame(time)
    before = frame.labels[place]
    free = mask & (before == 0)
    if not free.any():
        raise InputError("There is an instance here already; delete it first, or change it.")
    after = np.where(free, np.int32(session.new_id()), before).astype(np.int32)
    return frame.commit(name, place, after, kind=kind or session.classes[0])


def regrow(session: Session, where: Point, box: Place | None = None) -> Edit | None:
    """Add what the model saw at a click or in a box but was not sure enough of: its maps are read with lower thresholds."""
    time = session.time_of(where)
    maps = session.frame(time).maps
    if maps is None:
        raise InputError("There are no maps of a model here; run a model first, or add by clicks in the image.")
    shape, reach = session.grid.shape, maps.reach()
    at = tuple(int(round(float(i))) for i in session.inner(where))
    if any(not 0 <= i < n for i, n in zip(at, shape, strict=True)):
        raise InputError("The click lies outside of the image.")
    place = box or tuple(
        slice(max(0, i - 2 * r), min(n, i + 2 * r + 1)) for i, r, n in zip(at, reach, shape, strict=True)
    )
    found = _proposal(maps, place, tuple(i - s.start for i, s in zip(at, place, strict=True)))
    if found is None:
        raise InputError("The model sees nothing here, even at its lowest threshold; add it by clicks in the image.")
    return add(session, found[0], place, "add from the model", session.classes[found[1] - 1], time)


def _proposal(maps: Maps, place: Place, at: tuple[int, ...]) -> tuple[Mask, int] | None:
    """What the maps hold at a voxel at the highest threshold that shows it, and its class from 1."""
    head = maps.spec.heads[0]
    usual = float(getattr(head, "threshold", 0.5))
    for threshold in (usual, usual * 0.7, usual * 0.5, usual * 0.3, usual * 0.15):
        lower = {"min_voxels": max(1, head.min_voxels // 2)}
        if hasattr(head, "threshold"):
            lower["threshold"] = threshold  # type: ignore[assignment]
        if hasattr(head, "votes"):
            lower["votes"] = head.votes * threshold / usual
        found = maps.around(place, head.model_copy(update=lower))
        labels, _ = found.paint()
        if labels[at] > 0:
            return np.asarray(labels == labels[at]), int(found.classes[labels[at] - 1])
    return None


def set_kind(session: Session, ids: Sequence[int], kind: str) -> Edit | None:
    """Say what class instances are of."""
    if kind not in session.classes:
        raise InputError(f"There is no class {kind!r}; the classes are {', '.join(session.classes)}.")
    return session.tell(f"class {kind}", ids, kind=kind)


def say(session: Session, id: int, column: str, text: str) -> Edit | None:
    """Take what a person wrote of an instance: its finding_site, role or nodal.

    Raises
    ------
    InputError
        It is no role, or neither yes nor no.
    """
    text = text.strip()
    value: str | bool = text
    if column == "role":
        value = text.lower()
        if value and value not in ROLES:
            raise InputError(f"{text!r} is no role; use {', '.join(ROLES)}.")
    elif column == "nodal":
        known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}
        if text.lower() not in known:
            raise InputError(f"nodal is yes or no, not {text!r}.")
        value = known[text.lower()]
    elif text and anatomy(text) is None:
        notices.note(
            f"{text!r} is no site of the standard such as lung or liver: it is in the table, not in SEG and SR."
        )
    return session.tell(column.replace("_", " "), [id], **{column: value})


def accept(session: Session, ids: Sequence[int]) -> Edit | None:
    """Say that instances are right."""
    return session.tell("accept", ids, status="accepted")


def reject(session: Session, ids: Sequence[int]) -> Edit | None:
    """Say that instances are wrong: they stay visible and are left out of what is saved."""
    return session.tell("reject", ids, status="rejected")


def _clicked(session: Session, id: int, clicks: Sequence[Point]) -> Frame:
    """The time of an instance, which clicks must be of too."""
    frame = session.of([id])
    if any(session.time_of(click) != frame.time for click in clicks):
        raise InputError("The clicks are not of the time of the instance; choose the instance again.")
    return frame


def _parted(frame: Frame, name: str, id: int, place: Place, parts: Labels) -> Edit | None:
    """Number the parts of an instance: the largest keeps its number."""
    session, before = frame.session, frame.labels[place]
    size = np.bincount(parts.ravel())
    size[0] = 0
    number = np.zeros(len(size), np.int32)
    for part in range(1, len(size)):
        number[part] = id if part == int(size.argmax()) else session.new_id()
    after = np.where(parts > 0, number[parts], before).astype(np.int32)
    return frame.commit(name, place, after, kind=session.row(id).kind)


def _reshaped(session: Session, name: str, id: int, change: Callable[[Mask], Mask], margin: float = 0.0) -> Edit | None:
    """Give an instance another shape; voxels of others stay theirs."""
    frame = session.of([id])
    place = frame.around([id], margin)
    before = frame.labels[place]
    mine = before == id
    mask = change(mine)
    if not mask.any():
        raise InputError("Nothing would be left of the instance; delete it instead.")
    after = np.where(mine & ~mask, 0, before)
    after = np.where(mask & (before == 0), id, after).astype(np.int32)
    return frame.commit(name, place, after)


def _height(frame: Frame, place: Place) -> npt.NDArray[np.float32] | None:
    """What the model's foreground is in one place, on the image's voxels; None without maps."""
    return None if frame.maps is None else frame.maps.foreground(place)
