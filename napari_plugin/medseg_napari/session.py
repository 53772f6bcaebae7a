"""One image being worked on: its labels, its table, what was done to them, and the way back.

No Qt here. A window listens to `Session.changed` and draws.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from psygnal import Signal

from medseg.errors import FormatError, InputError, MedsegError, OutputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.ops.deltas import Delta, Labels, Place
from medseg.ops.labels import LAST_ID
from medseg_napari.journal import Edit, Journal, Row, folder
from medseg_napari.rows import Left, row_after, rows_of

if TYPE_CHECKING:
    from medseg.maps import Maps


@dataclass(frozen=True)
class Change:
    """What listeners need to draw: where voxels changed, which rows changed or went, and what it was."""

    place: Place
    ids: frozenset[int]
    name: str


@dataclass(frozen=True)
class Frame:
    """What single instances are changed, measured and judged in: a session's image, or one time of a series."""

    session: Session
    time: int | None

    @property
    def labels(self) -> Labels:
        """Labels of this time, those of the session themselves."""
        return self.session.labels if self.time is None else self.session.labels[self.time]

    @property
    def grid(self) -> Grid:
        """Of the labels."""
        return self.session.grid

    @property
    def image(self) -> Image | None:
        """What they were found on."""
        return self.session.images[self.time or 0]

    @property
    def maps(self) -> Maps | None:
        """Of the network that found them."""
        return self.session.every_maps[self.time or 0]

    def around(self, ids: Iterable[int], margin: float = 0.0) -> Place:
        """Box of instances with a margin in the unit of the spacing, inside of the image."""
        return self.session.around(ids, margin)

    def commit(self, name: str, place: Place, after: Labels, **told: Any) -> Edit | None:
        """Put a part of the labels in place of what is there, as `Session.commit` does."""
        whole = place if self.time is None else (slice(self.time, self.time + 1), *place)
        return self.session.commit(name, whole, after, **told)


class Session:
    """Labels that a person corrects. Every change is one step that can be undone.

    Of a time series the labels have an axis of time in front. An id is of one instance at one time: nothing is tracked.

    Parameters
    ----------
    instances : Instances, or one for each time of a series
        Where to start; copied. None stands for a time that was not looked at. Ids of a series are numbered through.
    image : Image, or one for each time; optional
        What they were found on.
    maps : Maps, or those of each time; optional
        Of the network that found them.
    journal : Journal, optional
        Where steps are kept; without one nothing is autosaved.
    """

    changed = Signal(Change)
    complained = Signal(str)

    def __init__(
        self,
        instances: Instances | Sequence[Instances | None],
        image: Image | Sequence[Image] | None = None,
        maps: Maps | Sequence[Maps | None] | None = None,
        journal: Journal | None = None,
    ) -> None:
        labels, self.rows, first = _joined(instances)
        self.labels = np.array(labels, order="C")
        self.grid: Grid = first.grid
        self.classes = first.classes
        self.provenance = _record(instances, first)
        self.times = None if isinstance(instances, Instances) else len(instances)  # how many; None: no series
        self.images: tuple[Image | None, ...] = _each(image, self.times or 1)
        self.every_maps: tuple[Maps | None, ...] = _each(maps, self.times or 1)
        self.journal = journal
        self.problem: str | None = None  # of autosave, before anybody listened
        self._edits: list[Edit] = []
        self._position = 0
        self._saved: Edit | None = None
        self._held: list[Edit] | None = None  # steps that are to become one
        self._revision = len(self.rows)
        self._last = max(self.rows, default=0)
        if journal is not None:
            self._keep(lambda: journal.begin(self._about(), Delta.of_array(self.labels), self.rows))

    def _about(self) -> dict[str, Any]:
        source = self.image.source if self.image else None
        return {
            "classes": self.classes,
            "provenance": self.provenance,
            "affine": self.grid.affine.tolist(),
            "unit": self.grid.unit,
            "axes": self.grid.axes,
            "frame": self.grid.frame,
            "space": self.grid.space,
            "timed": self.times is not None,
            "files": [str(Path(file).absolute()) for file in source.files] if source else [],
            "notes": list(source.notes) if source else [],
            "image_sha256": source.content_hash() if source and source.files else None,
        }

    @classmethod
    def resume(cls, path: Path) -> Session:
        """Open a session file: labels, table and undo as they were.

        Raises
        ------
        FormatError
            The file is damaged.
        InputError
            It claims more labels than `medseg.io.limits` allows.
        """
        journal = Journal(path)
        try:
            return cls._resumed(journal)
        except Exception as error:  # JSON of another kind than ours fails in as many ways as there are values
            journal.close()  # so that it can be opened again
            if isinstance(error, MedsegError) and path.name in str(error):
                raise
            raise FormatError(f"{path.name}: is no session of this medseg, or is damaged") from None

    @classmethod
    def _resumed(cls, journal: Journal) -> Session:
        about = journal.about()
        shape, timed = about["shape"], about["timed"]
        inner = shape[1:] if timed else shape
        grid = Grid(
            inner, np.array(about["affine"]), about["unit"], tuple(about["axes"]), about["frame"], about["space"]
        )
        labels = np.zeros(shape, np.int32)
        journal.base(shape).apply(labels)
        empty = Instances.from_labels(
            np.zeros(inner, np.int32), grid, classes=about["classes"], provenance=about["provenance"]
        )
        self = cls([empty] * shape[0] if timed else empty)
        self.provenance = dict(empty.provenance)
        self.labels, self.rows, self.journal = labels, about["rows"], journal
        self._edits = list(journal.edits(shape))
        self._position = min(about["position"], len(self._edits))
        for edit in self._edits[: self._position]:
            edit.delta.apply(labels)
            self._exchange(edit.before, edit.after)
        every = [*self.rows.values(), *(r for e in self._edits for r in (*e.before.values(), *e.after.values()))]
        self._revision = max((row.revision for row in every), default=0)
        self._last = max((row.id for row in every), default=0)
        return self

    # --- asking

    @property
    def image(self) -> Image | None:
        """What the instances were found on; of a series its first time."""
        return self.images[0]

    @property
    def maps(self) -> Maps | None:
        """Of the network that found them; of a series those of its first time, None if those of any time are missing."""
        done = self.provenance.get("times")
        every = self.every_maps if done is None else [self.every_maps[time] for time in done]
        return every[0] if all(maps is not None for maps in every) else None

    def remember(self, image: Image | Sequence[Image] | None) -> None:
        """Say what the instances were found on, where that was not known."""
        self.images = _each(image, self.times or 1)

    def frame(self, time: int | None = None) -> Frame:
        """One time of a series; of an image all of it."""
        return Frame(self, None if self.times is None else min(max(int(time or 0), 0), self.times - 1))

    def of(self, ids: Iterable[int]) -> Frame:
        """The time that instances are of.

        Raises
        ------
        InputError
            There is no such instance, or they are of several times.
        """
        times = {self.row(id).time for id in ids}
        if len(times) > 1:
            raise InputError("These instances are of several times; choose those of one.")
        return Frame(self, times.pop() if times else None)

    def inner(self, where: Sequence[float]) -> tuple[float, ...]:
        """The axes of space of an index of the whole array."""
        return tuple(where)[-self.grid.ndim :]

    def time_of(self, where: Sequence[float]) -> int | None:
        """The time of an index of the whole array; None where there is no time."""
        return None if self.times is None else int(round(float(where[0])))

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self.rows)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Steps in force, the oldest first."""
        return tuple(self._edits[: self._position])

    @property
    def can_redo(self) -> bool:
        """Whether a step was undone that can be done again."""
        return self._position < len(self._edits)

    @property
    def saved(self) -> bool:
        """Whether all steps in force are in files that a person saved."""
        return self._saved is self.latest

    def mark_saved(self) -> None:
        """Remember that what there is now was saved."""
        self._saved = self.latest

    @property
    def latest(self) -> Edit | None:
        """The last step in force."""
        return self._edits[self._position - 1] if self._position else None

    def row(self, id: int) -> Row:
        """Return the row of an instance.

        Raises
        ------
        InputError
            There is no such instance.
        """
        if id not in self.rows:
            raise InputError(f"There is no instance {id}; choose one in the table or click on it.")
        return self.rows[id]

    def at(self, index: Iterable[float]) -> int:
        """Id at a voxel index, 0 for background or outside."""
        where = tuple(int(round(float(i))) for i in index)
        if len(where) != self.labels.ndim or any(not 0 <= i < n for i, n in zip(where, self.labels.shape, strict=True)):
            return 0
        return int(self.labels[where])

    def around(self, ids: Iterable[int], margin: float = 0.0) -> Place:
        """Box of instances with a margin in the unit of the spacing, inside of the image."""
        boxes = np.array([self.row(id).box for id in ids])
        n = self.grid.ndim
        wide = [int(np.ceil(margin / s)) + 1 for s in self.grid.spacing]
        lows, highs = boxes[:, :n].min(axis=0) - wide, boxes[:, n:].max(axis=0) + wide
        return tuple(
            slice(max(0, int(a)), min(size, int(b))) for a, b, size in zip(lows, highs, self.grid.shape, strict=True)
        )

    def new_id(self) -> int:
        """An id that no instance has or had.

        Raises
        ------
        InputError
            All ids are used up.
        """
        if self._last >= LAST_ID:
            raise InputError("All instance numbers are used up; save, and open the result again.")
        self._last += 1
        return self._last

    # --- changing

    def commit(self, name: str, place: Place, after: Labels, **told: Any) -> Edit | None:
        """Put a part of the labels in place of what is there, as one step.

        Parameters
        ----------
        name : str
            Of the step, as a person reads it.
        place : tuple of slice
            Where, in the whole array.
        after : int32 array
            Labels of that place.
        **told
            Class of instances that are new: ``kind``; ``status`` of all whose voxels change.

        Returns
        -------
        Edit or None
            None if nothing would change.
        """
        delta = Delta.between(self.labels[place], after.reshape(self.labels[place].shape), place, self.labels.shape)
        if not len(delta):
            return None
        delta.apply(self.labels)
        return self.took(name, delta, **told)

    def took(self, name: str, delta: Delta, **told: Any) -> Edit | None:
        """Record a step whose voxels are in the labels already (a brush stroke)."""
        if not len(delta):
            return None
        delta = self._parted(delta)
        ids = delta.ids
        before = {id: self.rows[id] for id in ids if id in self.rows}
        self._last = max(self._last, *ids)
        after = {}
        for id in ids:
            self._revision += 1
            place = delta.of(id).place
            time = None if self.times is None else place[0].start
            base = before.get(id) or Row(id, str(told.get("kind", self.classes[0])), None, 0, (), (), time=time)
            found = row_after(self.frame(time).labels, base, place[-self.grid.ndim :])
            if found is not None:
                after[id] = found.changed(status=told.get("status", base.status), revision=self._revision)
        return self._push(Edit(name, delta, before, after))

    def _parted(self, delta: Delta) -> Delta:
        """Give what was painted with the number of an instance of another time a number of its own."""
        if self.times is None:
            return delta
        size = self.labels[0].size
        runs = delta.runs.copy()
        known = {id: row.time for id, row in self.rows.items()}
        fresh: dict[tuple[int, int], int] = {}
        self._last = max(self._last, *delta.ids)
        for time, id in sorted(set(zip((runs["start"] // size).tolist(), runs["new"].tolist(), strict=True))):
            if id and known.setdefault(id, time) != time:
                fresh[time, id] = self.new_id()
        for (time, id), new in fresh.items():
            runs["new"][(runs["start"] // size == time) & (runs["new"] == id)] = new
        if fresh:
            delta = Delta(delta.shape, runs)
            delta.apply(self.labels)
        return delta

    def replace(self, name: str, instances: Instances | Sequence[Instances | None]) -> Edit | None:
        """Put other instances in place of all there are, as one step; a step of the same name before it is replaced too."""
        if self._position and self._edits[self._position - 1].name == name:
            last = self._edits[self._position - 1]
            last.delta.revert(self.labels)
            self._exchange(last.after, last.before)
            del self._edits[self._position - 1 :]
            self._position -= 1
        whole = tuple(slice(0, n) for n in self.labels.shape)
        labels, rows, first = _joined(instances)
        delta = Delta.between(self.labels, labels, whole, self.labels.shape)
        delta.apply(self.labels)
        self.provenance = _record(instances, first)
        before, after = dict(self.rows), {}
        for row in rows.values():
            self._revision += 1
            after[row.id] = row.changed(revision=self._revision)
        self._last = max([self._last, *after])
        return self._push(Edit(name, delta, before, after))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one step, of the name of the first, of all steps that are made within; where it fails none is made."""
        held: list[Edit] = []
        self._held = held
        try:
            yield
        except BaseException:
            for edit in reversed(held):
                edit.delta.revert(self.labels)
                self._exchange(edit.after, edit.before)
            raise
        finally:
            self._held = None
        if held:
            before: dict[int, Row] = {}
            after: dict[int, Row] = {}
            for edit in held:
                before |= {id: row for id, row in edit.before.items() if id not in before and id not in after}
                for id in edit.before:
                    after.pop(id, None)
                after |= edit.after
            self._push(
                Edit(held[0].name, Delta.joined([edit.delta for edit in held], self.labels.shape), before, after)
            )

    def tell(self, name: str, ids: Iterable[int], **values: Any) -> Edit | None:
        """Change what the table says of instances (status, kind, role, ...), as one step without voxels."""
        before = {id: self.row(id) for id in ids}
        after = {id: row.changed(**values) for id, row in before.items()}
        if before == after:
            return None
        return self._push(Edit(name, Delta.of_voxels([], [], [], self.labels.shape), before, after))

    def amend(self, id: int, revision: int, **values: Any) -> None:
        """Fill in what was computed of an instance meanwhile (its score); no step of its own, and undo stays exact."""
        row = self.rows.get(id)
        if row is None or row.revision != revision:
            return
        new = row.changed(**values)
        self.rows[id] = new
        for number, edit in enumerate(self._edits, 1):
            mine = [rows for rows in (edit.before, edit.after) if rows.get(id) == row]
            for rows in mine:
                rows[id] = new
            if mine and self.journal is not None:
                self._keep(partial(self.journal.amend, number, edit))
        self.changed.emit(Change(tuple(slice(0, 0) for _ in self.labels.shape), frozenset({id}), "score"))

    def let_go(self) -> None:
        """Free the network's maps: the window has left this session."""
        self.every_maps = _each(None, self.times or 1)

    def drop(self) -> None:
        """Forget a session that nobody worked on, and its file."""
        self.let_go()
        if self.journal is not None:
            self.journal.remove()
            self.journal = None

    def undo(self) -> Edit | None:
        """Take the last step back; None if there is none."""
        if not self._position:
            return None
        self._position -= 1
        edit = self._edits[self._position]
        edit.delta.revert(self.labels)
        self._exchange(edit.after, edit.before)
        self._moved(edit, f"undo {edit.name}")
        return edit

    def redo(self) -> Edit | None:
        """Do the next step again; None if there is none."""
        if not self.can_redo:
            return None
        edit = self._edits[self._position]
        self._position += 1
        edit.delta.apply(self.labels)
        self._exchange(edit.before, edit.after)
        self._moved(edit, f"redo {edit.name}")
        return edit

    def _push(self, edit: Edit) -> Edit:
        if self._held is not None:
            self._held.append(edit)
            self._exchange(edit.before, edit.after)
            return edit
        del self._edits[self._position :]
        self._edits.append(edit)
        self._position += 1
        self._exchange(edit.before, edit.after)
        if self.journal is not None:
            journal, number = self.journal, self._position
            self._keep(lambda: journal.add(number, edit))
        self.changed.emit(Change(edit.delta.place, frozenset(edit.before) | frozenset(edit.after), edit.name))
        return edit

    def _moved(self, edit: Edit, name: str) -> None:
        if self.journal is not None:
            journal = self.journal
            self._keep(lambda: journal.move(self._position))
        self.changed.emit(Change(edit.delta.place, frozenset(edit.before) | frozenset(edit.after), name))

    def _exchange(self, gone: Mapping[int, Row], new: Mapping[int, Row]) -> None:
        for id in gone:
            self.rows.pop(id, None)
        self.rows.update(new)

    def _keep(self, write: Any) -> None:
        """Write to the journal; a full disk must not cost the work in memory."""
        try:
            write()
        except OutputError as error:
            self.journal = None
            self.complained.emit(f"{error}. Autosave is off; save your work now.")

    # --- handing on

    def instances(self, time: int | None = None, *, rejected: bool = False) -> Instances:
        """Return the labels as they are now as a frozen value, for measuring and saving.

        Parameters
        ----------
        time : int, optional
            Which, in a series.
        rejected : bool
            Keep instances that were rejected.
        """
        frame = self.frame(time)
        labels, rows = frame.labels, {id: row for id, row in sorted(self.rows.items()) if row.time == frame.time}
        kept = {id: row for id, row in rows.items() if rejected or row.status != "rejected"}
        if len(kept) < len(rows):
            labels = np.where(np.isin(labels, [id for id in rows if id not in kept]), np.int32(0), labels)
        number = {name: i for i, name in enumerate(self.classes, 1)}
        return Instances.from_labels(
            np.array(labels),
            self.grid,
            scores=[np.nan if row.score is None else row.score for row in kept.values()],
            class_ids=[number[row.kind] for row in kept.values()],
            classes=self.classes,
            provenance=self._edited(kept),
        )

    def every(self) -> list[Instances | None]:
        """Instances of each time of a series, rejected ones left out; None where none was looked at."""
        done = self.done()
        return [self.instances(time) if time in done else None for time in range(self.times or 0)]

    def done(self) -> list[int]:
        """Times of a series that were looked at."""
        told = self.provenance.get("times")
        every = range(self.times or 0)
        done = {time for time in told if isinstance(time, int)} if isinstance(told, (list, tuple)) else set(every)
        return sorted((done | {row.time for row in self.rows.values() if row.time is not None}) & set(every))

    def _edited(self, kept: Mapping[int, Row]) -> dict[str, Any]:
        """Provenance, with the ids that somebody edited."""
        record: dict[str, Any] = {**self.provenance}
        before = record.get("edited", [])
        edited = [id for id, row in kept.items() if row.edited or (isinstance(before, (list, tuple)) and id in before)]
        if edited and before is not True:  # what somebody edited before this session stays edited
            record["edited"] = edited
        return record

    def left(self) -> Left:
        """What a layer whose session has ended still knows of it; no voxel is read."""
        kept = {id: row for id, row in sorted(self.rows.items()) if row.status != "rejected"}
        cells = [(id, row.kind, np.nan if row.score is None else row.score, row.time) for id, row in kept.items()]
        table = pd.DataFrame(cells, columns=["id", "class", "score", "time"])
        if self.times is None:
            table = table.drop(columns="time")
        return Left(self.grid, self.classes, self._edited(kept), table)

    def reviewed(self) -> pd.DataFrame:
        """Return what a person said and did, one row an instance, in id order."""
        columns = ["id", "status", "edited", "seconds", "finding_site", "role", "nodal"]
        columns[1:1] = [] if self.times is None else ["time"]
        cells = [{name: getattr(row, name) for name in columns} for _, row in sorted(self.rows.items())]
        return pd.DataFrame(cells, columns=columns)


def _each(value: Any, count: int) -> tuple[Any, ...]:
    """One for each time."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * count


def _joined(instances: Instances | Sequence[Instances | None]) -> tuple[Labels, dict[int, Row], Instances]:
    """Labels and rows of an image, or of all times of a series, numbered through; and what was found first."""
    if isinstance(instances, Instances):
        return instances.labels, {row.id: row for row in rows_of(instances)}, instances
    first = next((found for found in instances if found is not None), None)
    if first is None:
        raise InputError("No time of the series was segmented.")
    labels = np.zeros((len(instances), *first.grid.shape), np.int32)
    rows: dict[int, Row] = {}
    for time, found in enumerate(instances):
        if found is None:
            continue
        shift = max(rows, default=0)
        np.add(found.labels, np.int32(shift), out=labels[time], where=found.labels > 0)
        for row in rows_of(found, time, shift):
            rows[row.id] = row.changed(revision=len(rows) + 1)
    return labels, rows, first


def _record(instances: Instances | Sequence[Instances | None], first: Instances) -> dict[str, Any]:
    """Provenance; of a series that of what was found first, and which times were looked at."""
    if isinstance(instances, Instances):
        return dict(instances.provenance)
    return {**first.provenance, "times": [time for time, found in enumerate(instances) if found is not None]}


def start(
    instances: Instances | Sequence[Instances | None],
    image: Image | Sequence[Image] | None = None,
    maps: Maps | Sequence[Maps | None] | None = None,
) -> Session:
    """Begin a session that is autosaved; where that cannot be, it goes on without and says so."""
    journal, problem = None, None
    try:
        journal = Journal(folder() / f"{secrets.token_hex(8)}.session")
    except (OutputError, OSError) as error:
        problem = error if isinstance(error, MedsegError) else "the folder for sessions cannot be made"
    session = Session(instances, image, maps, journal)
    if problem:
        session.problem = f"{problem}. Autosave is off."
    return session
