"""What is wrong or strange with a data set, all of it at once, before hours go into a training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from medseg import io, preprocess
from medseg.data.cases import SPLITS, Annotation, case_files, data_root, read_split, slices
from medseg.errors import MedsegError, MissingError
from medseg.ops import labels as ops
from medseg.spec import SourceSpec, TrainSpec

_NAMED = 5  # files of one kind of fault that are named; the rest is counted


@dataclass(frozen=True)
class Checked:
    """What a look at every file of a data set found.

    Attributes
    ----------
    faults : tuple of str
        What must be mended before a training can start.
    notes : tuple of str
        What is allowed, but should be known.
    """

    faults: tuple[str, ...]
    notes: tuple[str, ...]


def check(spec: TrainSpec) -> Checked:
    """Look at every image and label file of a training.

    Faults are images without labels, shapes that differ, labels that are no ids, files that cannot be read, channels that do not
    fit the network, sources without any instance in train, no train or tune images at all. Notes are empty images, ids with gaps,
    ids in several pieces, images in no part of the split.

    Raises
    ------
    SpecError
        There is no readable split file.
    """
    stems = read_split(spec.data.split, spec.data.fold)
    faults: list[str] = []
    notes: list[str] = []
    for source in spec.data.sources:
        if source.name not in stems:
            faults.append(f"{source.name}: is not in the split file {spec.data.split}; make it anew with medseg split")
            continue
        if missing := [f for f in (source.images, source.labels) if not (data_root() / f).is_dir()]:
            faults.append(
                f"{source.name}: no folder {data_root() / missing[0]}; set MEDSEG_DATA to the folder it lies in"
            )
            continue
        listed = {part: set(stems[source.name][part]) for part in SPLITS}
        for one, other in (("train", "tune"), ("train", "val"), ("tune", "val")):
            if both := sorted(listed[one] & listed[other]):
                faults.append(f"{source.name}: {_some(both)} in {one} and in {other} of the split file; split anew")
        if len(spec.class_names) > 1 and source.classes is None:
            notes.append(f"{source.name}: has no folder of classes; its instances teach shapes and no classes")
        found = _Found(source)
        parts = SPLITS if not source.slices else ("train",)
        for part in parts:
            for stem in stems[source.name][part]:
                found.look(stem, part, spec)
        faults += found.faults(bool(listed["train"]))
        notes += found.notes(sum(len(stems[source.name][part]) for part in SPLITS))
    if not any(stems[s.name]["val"] for s in spec.data.sources if s.name in stems and not s.slices):
        notes.append("the split file has no image in val; nothing will tell how good the model is")
    for part, why in (("train", "learned from"), ("tune", "used to choose thresholds")):
        if not any(
            stems[s.name][part] for s in spec.data.sources if s.name in stems and (part == "train" or not s.slices)
        ):
            faults.append(f"the split file has no image in {part}, that is none can be {why}; add images or split anew")
    return Checked(tuple(faults), tuple(notes))


class _Found:
    """What was found in one source."""

    def __init__(self, source: SourceSpec) -> None:
        self.source = source
        self.broken: list[str] = []
        self.channels: Counter[int] = Counter()
        self.instances: Counter[str] = Counter()
        self.empty: list[str] = []
        self.gaps: list[str] = []
        self.small = 0
        self.pieces = 0
        self.in_pieces: list[str] = []

    def look(self, stem: str, part: str, spec: TrainSpec) -> None:
        """Read one case."""
        try:
            files = case_files(self.source, stem, spec.class_names)
            image, drawn = files.load()
            self.channels[len(image.channels)] += 1
            if not files.slices and image.grid.ndim != spec.net.ndim:
                self.broken.append(f"{stem}: is {image.grid.ndim}-D, the network {spec.net.ndim}-D")
                return
            shown = list(slices(image, drawn, files.slices))
            if shown:
                preprocess.plan(shown[0][0], spec.preprocess)
        except MissingError as error:
            self.broken.append(str(error))
            return
        except MedsegError as error:
            self.broken.append(f"{stem}: {error}")
            return
        except Exception as error:  # one odd file must not hide what is wrong with the others
            self.broken.append(f"{stem}: cannot be used ({type(error).__name__})")
            return
        if not shown:
            self.empty.append(stem)
        elif files.slices:
            self.instances[part] += len(shown)
        else:
            self._count(stem, part, drawn, spec)

    def _count(self, stem: str, part: str, drawn: Annotation, spec: TrainSpec) -> None:
        ids, dense = ops.dense(drawn.labels)
        if not self.source.slices and spec.preprocess.spacing is None and spec.augment.diameter is None:
            size = np.bincount(dense.ravel(), minlength=len(ids) + 1)[1:]
            self.small += int((size < min(h.min_voxels for h in spec.heads)).sum())
        self.instances[part] += len(ids)
        if not len(ids):
            self.empty.append(stem)
            return
        if ids[-1] != len(ids):
            self.gaps.append(stem)
        several = int((ops.pieces(dense, ops.statistics(dense, len(ids))[1]) > 1).sum())
        if several:
            self.pieces += several
            self.in_pieces.append(stem)

    def faults(self, learned: bool) -> list[str]:
        """One line per kind of fault; `learned` says whether train has images of the source."""
        name, out = self.source.name, [f"{self.source.name}: {line}" for line in self.broken[:_NAMED]]
        if len(self.broken) > _NAMED:
            out.append(f"{name}: and {len(self.broken) - _NAMED} more files with such faults")
        if learned and not self.broken and not self.instances["train"]:
            out.append(f"{name}: no label image in train holds an instance; are these the right files?")
        return out

    def notes(self, listed: int) -> list[str]:
        """One line per kind of strangeness."""
        name, out = self.source.name, []
        if len(self.channels) > 1:
            told = ", ".join(f"{n} with {c}" for c, n in sorted(self.channels.items()))
            out.append(f"{name}: images differ in their number of channels ({told})")
        if self.empty:
            out.append(
                f"{name}: {len(self.empty)} images without any instance ({_some(self.empty)}); they teach background"
            )
        if self.small > 0.02 * sum(self.instances.values()):
            out.append(f"{name}: {self.small} instances are smaller than a head's min_voxels, which are never found")
        if self.gaps:
            out.append(f"{name}: ids with gaps in {len(self.gaps)} images ({_some(self.gaps)}); they are numbered anew")
        if self.pieces:
            out.append(
                f"{name}: {self.pieces} ids have several pieces in {len(self.in_pieces)} images ({_some(self.in_pieces)}); "
                "each id stays one object"
            )
        folder = data_root() / self.source.images
        there = sum(io.is_image(p) and not p.name.startswith(".") for p in folder.glob("*.*"))
        if there > listed:
            out.append(f"{name}: {there - listed} images of {self.source.images} are in no part of the split file")
        return out


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
