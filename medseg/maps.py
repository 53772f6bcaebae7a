"""What a network said of an image, read into instances: once as the pipeline goes, and again under other settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from medseg import heads, preprocess
from medseg.calibration import calibrated
from medseg.candidates import Candidates
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.ops import regions, stitch, tally
from medseg.ops.labels import taken, usual
from medseg.ops.turn import Turn
from medseg.spec import HeadBase, ModelSpec

_REMEMBER = 1 << 27  # bytes of maps up to which what heads keep of them is kept too: it is up to three times as large


@dataclass(frozen=True, eq=False)
class Maps:
    """What the network said of an image: instances can be read from it again, under other settings, without the network.

    Attributes
    ----------
    grid : Grid
        Of the image.
    spec : ModelSpec
        Of the model.
    spacing : tuple of float
        Voxel size of the maps, per array axis.
    parts : tuple of (core, grown, maps)
        Of each region of the turned image: the part it answers for, the part it covers, and float32 (channels, *shape) on the
        model's grid.
    provenance : mapping
        Of the first reading.
    turn : Turn
        How the image was turned for the network. All that is asked and answered here is of the image as it is stored.
    """

    grid: Grid
    spec: ModelSpec
    spacing: tuple[float, ...]
    parts: tuple[tuple[regions.Region, regions.Region, NDArray[np.float32]], ...]
    provenance: Mapping[str, object]
    turn: Turn
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)
    _memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def decode(self, head: HeadBase | None = None, min_score: float | None = None) -> Instances:
        """Read the instances again.

        Parameters
        ----------
        head
            Settings of the head; those of the model file if left out.
        min_score
            Leave out instances below it; the model file's if left out.
        """
        told = head or self.spec.heads[0]
        with self._lock:
            labels, scores, classes, _ = self._decoded(told).finish(min_score)
        changed = {"head": told.model_dump(mode="json"), "min_score": min_score}
        return Instances.from_labels(
            np.ascontiguousarray(self.turn.back(labels)),
            self.grid,
            scores=scores,
            class_ids=classes,
            classes=self.spec.classes,
            provenance={**self.provenance, "decoded_with": changed},
        )

    def _decoded(self, head: HeadBase) -> Decoding:
        """All regions read with these settings; the last reading is kept, and what heads remember of small maps."""
        if self._memory.get("head") == head:
            return self._memory["decoding"]  # type: ignore[no-any-return]
        small = sum(maps.nbytes for _, _, maps in self.parts) <= _REMEMBER
        decoding = Decoding(self.turn.sizes(self.grid.shape), self.spec, heads.make(head), self.spacing)
        for number, (core, grown, maps) in enumerate(self.parts):
            decoding.add(core, grown, maps, self._memory.setdefault(number, {}) if small else None)
        if small:
            self._memory.update(head=head, decoding=decoding)
        return decoding

    def reach(self) -> tuple[int, ...]:
        """Voxels of the image around a place that its instances may depend on."""
        reach = heads.make(self.spec.heads[0]).reach(self.spacing)
        return self.turn.sizes_back([int(np.ceil(r / self._scale(axis))) for axis, r in enumerate(reach)])

    def around(self, place: regions.Region, head: HeadBase | None = None) -> Candidates:
        """Read what the maps propose in one part of the image, on that part's own voxels.

        The maps are those of the region that answers for the middle of the part.
        """
        there = self.turn.place(place)
        middle = tuple((s.start + s.stop) // 2 for s in there)
        _, grown, maps = next(
            part for part in self.parts if all(s.start <= m < s.stop for s, m in zip(part[0], middle, strict=True))
        )
        inner = tuple(slice(max(p.start, g.start), min(p.stop, g.stop)) for p, g in zip(there, grown, strict=True))
        cut = self._cut(inner, grown, maps.shape[1:])
        found = heads.make(head or self.spec.heads[0]).decode(
            np.ascontiguousarray(maps[(slice(None), *cut)]), self.spacing
        )
        nearest = [
            np.clip(np.floor(c).astype(int) - s.start, 0, s.stop - s.start - 1)
            for c, s in zip(self._places(inner, grown, maps.shape[1:], 0.5), cut, strict=True)
        ]
        labels = self.turn.back(found.paint(order="index")[0][np.ix_(*nearest)])
        kept = np.unique(labels[labels > 0]) - 1
        shown = Candidates.from_labels(labels, scores=found.scores[kept], classes=found.classes[kept])
        offset = [i.start - p.start for i, p in zip(self.turn.place_back(inner), place, strict=True)]
        return shown.shift(offset, tuple(s.stop - s.start for s in place))

    def foreground(self, place: regions.Region) -> NDArray[np.float32]:
        """Probability that a voxel belongs to an object, in one part of the image."""
        there = self.turn.place(place)
        out = np.zeros(tuple(s.stop - s.start for s in there), np.float32)
        for core, grown, maps in self.parts:
            inner = tuple(slice(max(p.start, c.start), min(p.stop, c.stop)) for p, c in zip(there, core, strict=True))
            if any(s.stop <= s.start for s in inner):
                continue
            # the first map of every dense head is the logit of an object
            places = np.meshgrid(*self._places(inner, grown, maps.shape[1:], 0.0), indexing="ij")
            value = map_coordinates(maps[0], places, order=1, mode="nearest")
            where = tuple(slice(i.start - p.start, i.stop - p.start) for i, p in zip(inner, there, strict=True))
            out[where] = 1 / (1 + np.exp(-np.clip(value, -30, 30)))
        return self.turn.back(out)

    def _scale(self, axis: int) -> float:
        """Voxels of the maps for each of the image, along an axis."""
        _, grown, maps = self.parts[0]
        return float(maps.shape[1 + axis] / (grown[axis].stop - grown[axis].start))

    @staticmethod
    def _places(
        inner: regions.Region, grown: regions.Region, shape: tuple[int, ...], shift: float
    ) -> list[NDArray[np.float64]]:
        """Where the middles of the image's voxels lie in the maps, per axis; a map's voxel has its middle at 0, or at ``shift``."""
        return [
            (np.arange(i.start, i.stop) - g.start + 0.5) * n / (g.stop - g.start) - 0.5 + shift
            for i, g, n in zip(inner, grown, shape, strict=True)
        ]

    @staticmethod
    def _cut(inner: regions.Region, grown: regions.Region, shape: tuple[int, ...]) -> regions.Region:
        """The part of the maps that covers a part of the image."""
        return tuple(
            slice(
                int(np.floor((i.start - g.start) * n / (g.stop - g.start))),
                min(n, int(np.ceil((i.stop - g.start) * n / (g.stop - g.start)))),
            )
            for i, g, n in zip(inner, grown, shape, strict=True)
        )


def _onto(found: Candidates, size: tuple[int, ...]) -> Candidates:
    """Candidates of the model's grid on the image's (nearest voxel); those that no voxel of it shows are gone."""
    if found.shape == size:
        return found
    labels = preprocess.resize(found.paint(order="index")[0], size, order=0).astype(np.int32, copy=False)
    kept = np.unique(labels)
    kept = kept[kept > 0] - 1
    return Candidates.from_labels(labels, scores=found.scores[kept], classes=found.classes[kept])


class Decoding:
    """One region's maps after the other into one label array.

    Parameters
    ----------
    shape
        Of the image.
    spec
        Of the model.
    head
        Reads the maps.
    spacing
        Voxel size of the maps, per array axis.
    """

    def __init__(self, shape: tuple[int, ...], spec: ModelSpec, head: heads.Head, spacing: tuple[float, ...]) -> None:
        self._mosaic = stitch.Mosaic(shape)
        self._spec, self._head, self._spacing = spec, head, spacing

    def add(
        self,
        core: regions.Region,
        grown: regions.Region,
        maps: NDArray[np.float32],
        memory: heads.Memory | None = None,
    ) -> NDArray[np.int32]:
        """Decode a region; returns how its core looks so far, read-only. ``memory`` is of this region, see `heads.read`."""
        found = heads.read(self._head, maps, self._spacing, {} if memory is None else memory)
        found = _onto(found, tuple(s.stop - s.start for s in grown))
        self._mosaic.add(core, grown, found.boxes, found.masks, found.scores.tolist(), found.classes.tolist())
        view = self._mosaic.labels[core].view()
        view.flags.writeable = False
        return view

    def finish(
        self, min_score: float | None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], tuple[str, ...]]:
        """Labels of what is no speck and no doubt, scores and classes of each, and notes; may be asked again."""
        labels, scores, classes = self._mosaic.finish()
        voxels = tally.sizes(labels, len(scores))[1:]
        kept = usual(labels, self._spec.min_share, classes, voxels)
        labels, scores, classes = taken(labels, kept), scores[kept], classes[kept]
        scores = calibrated(scores, voxels[kept], self._spec.calibration)
        least = self._spec.min_score if min_score is None else min_score
        notes: tuple[str, ...] = ()
        kept = scores >= least
        doubtful = int((~kept).sum())
        if doubtful and min_score is None:
            notes += (
                f"{doubtful} doubtful instances with a score below {least:g} are left out; --min-score 0 keeps them",
            )
        labels, scores, classes = taken(labels, kept), scores[kept], classes[kept]
        if len(scores) >= 10 and np.median(scores) < 0.5:
            notes += (
                f"half of the scores are below {np.median(scores):.2f}: "
                f"{self._spec.name} may not be made for such images",
            )
        return labels, scores, classes, notes
