"""Training samples: number ``i`` of a training is always the same sample, whatever ran before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg import heads
from medseg.data.augment import coordinates, intensities, paste, take
from medseg.data.cases import Case
from medseg.data.channels import compose
from medseg.spec import TrainSpec

_SEEN = 8  # voxels of an object that a patch must show

Sample = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Sampler:
    """A map from sample number to sample (usable as a torch map-style dataset).

    A source is drawn by its weight, a case of it by the root of its size, and every second patch is centred on an instance drawn by
    id, so that small instances are seen as often as large ones. Where the network takes any channels, all samples of a batch show
    the same number of them.
    """

    spec: TrainSpec
    cases: tuple[Case, ...]

    def __len__(self) -> int:
        return self.spec.steps * self.spec.batch

    def __getitem__(self, number: int) -> Sample:
        """Return ``image`` (C, *patch) and, per head ``i``, the truth arrays under ``i.name``."""
        spec, rng = self.spec, np.random.default_rng([self.spec.seed, number])
        case = self._draw(rng)
        image, labels, outside, classes = self._patch(rng, case)
        if spec.preprocess.any_channels:
            image = compose(rng, image, labels, self._channels(number))
        several = bool(spec.preprocess.any_channels or spec.preprocess.optional)
        image = intensities(rng, spec.augment, image, apart=several)
        if spec.preprocess.optional and rng.random() < spec.augment.p_drop:
            image[[c in spec.preprocess.optional for c in spec.preprocess.channels]] = 0
        sample: Sample = {"image": image}
        for i, one in enumerate(spec.heads):
            head = heads.make(one)
            told = {"classes": classes} if one.classes > 1 else {}
            truth = head.targets(labels, outside, case.spacing, **told)
            sample |= {f"{i}.{name}": array for name, array in truth.items()}
        return sample

    def _draw(self, rng: np.random.Generator) -> Case:
        shares = {s.name: s.weight for s in self.spec.data.sources}
        names = sorted({c.source for c in self.cases})
        weight = np.array([shares[n] for n in names])
        source = names[rng.choice(len(names), p=weight / weight.sum())]
        return self._draw_of(rng, source)

    def _draw_of(self, rng: np.random.Generator, source: str, channels: int = 0) -> Case:
        """A case of a source, if asked for one of so many channels."""
        pool = [c for c in self.cases if c.source == source and len(c.image) in (channels or len(c.image),)]
        size = np.sqrt([c.labels.size for c in pool])
        return pool[rng.choice(len(pool), p=size / size.sum())]

    def _patch(
        self, rng: np.random.Generator, case: Case
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_], NDArray[np.int32]]:
        """Image, ids, where nothing is known, and the class of each id, of one patch, perhaps with instances of another."""
        augment = self.spec.augment
        image, labels, outside = self._cut(rng, case)
        classes = self._classes(case)
        if rng.random() < augment.p_paste:
            other = self._draw_of(rng, case.source, len(case.image))
            ids = np.unique(labels[labels > 0])
            labels = np.searchsorted(ids, labels).astype(np.int32) + (labels > 0)  # room for the new ids
            classes = classes[np.concatenate([[0], ids])]
            image, labels, pasted = paste(rng, image, labels, outside, self._cut(rng, other))
            classes = np.concatenate([classes, self._classes(other)[pasted]])
        return image, labels, outside, classes

    def _cut(
        self, rng: np.random.Generator, case: Case
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
        """A patch on an instance drawn by id, or, every second time, anywhere."""
        spec, ndim = self.spec, case.labels.ndim
        jitter = rng.uniform(-0.25, 0.25, ndim) * spec.patch
        if len(case.centres) and rng.random() < 0.5:
            centre = case.centres[rng.integers(len(case.centres))]
        else:
            centre, jitter = rng.uniform(0, 1, ndim) * (np.array(case.labels.shape) - 1), np.zeros(ndim)
        coords, factor = coordinates(
            rng, spec.augment, centre, case.labels.shape, spec.patch, case.spacing, _zooms(spec, case), jitter
        )
        image, labels, outside = take(case.image, case.labels, coords, factor)
        size = np.bincount(labels.ravel())
        size[0] = _SEEN
        outside |= (size < _SEEN)[
            labels
        ]  # specks of an object teach nothing, neither that it is there nor that it is not
        labels[outside] = 0
        return image, labels, outside

    def _classes(self, case: Case) -> NDArray[np.int32]:
        """Class of each id, 0 where it is not known; of one class all are known."""
        if case.classes is not None:
            return case.classes
        known = len(self.spec.class_names) == 1
        return np.concatenate([[0], np.full(len(case.centres), int(known))]).astype(np.int32)

    def _channels(self, number: int) -> int:
        """How many channels the batch of a sample shows."""
        share = np.array(self.spec.augment.channels[: self.spec.net.in_channels])
        rng = np.random.default_rng([self.spec.seed, number // self.spec.batch, 1])
        return 1 + int(rng.choice(len(share), p=share / share.sum()))


def _zooms(spec: TrainSpec, case: Case) -> tuple[float, float] | None:
    """Range of the magnification that brings a case's objects to the diameters wanted.

    At most threefold, which adds no detail, and, within that, no smaller than leaves an image that fills most of a patch.
    """
    if spec.augment.diameter is None or not case.diameter:
        return None
    fills = 0.8 * min(p / n for p, n in zip(spec.patch, case.labels.shape, strict=True))
    low, high = (min(w / case.diameter, 3.0) for w in spec.augment.diameter)
    return min(max(low, fills), high / 1.01), high
