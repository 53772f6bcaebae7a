"""Training samples: number ``i`` of a training is always the same sample, whatever ran before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg import heads
from medseg.data.augment import coordinates, intensities, take
from medseg.data.cases import Case
from medseg.spec import TrainSpec

Sample = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Sampler:
    """A map from sample number to sample (usable as a torch map-style dataset).

    A source is drawn by its weight, a case of it by the root of its size, and every second patch is centred on an instance drawn by
    id, so that small instances are seen as often as large ones.
    """

    spec: TrainSpec
    cases: tuple[Case, ...]

    def __len__(self) -> int:
        return self.spec.steps * self.spec.batch

    def __getitem__(self, number: int) -> Sample:
        """Return ``image`` (C, *patch) and, per head ``i``, the truth arrays under ``i.name``."""
        rng = np.random.default_rng([self.spec.seed, number])
        case = self._draw(rng)
        centre = self._centre(rng, case)
        aspect = case.spacing[0] / case.spacing[-1]
        coords, factor = coordinates(rng, self.spec.augment, centre, case.labels.shape, self.spec.patch, aspect)
        image, labels, outside = take(case.image, case.labels, coords, factor)
        sample: Sample = {"image": intensities(rng, self.spec.augment, image)}
        for i, head in enumerate(self.spec.heads):
            truth = heads.make(head).targets(labels, outside, case.spacing)
            sample |= {f"{i}.{name}": array for name, array in truth.items()}
        return sample

    def _draw(self, rng: np.random.Generator) -> Case:
        shares = {s.name: s.weight for s in self.spec.data.sources}
        names = sorted({c.source for c in self.cases})
        weight = np.array([shares[n] for n in names])
        source = names[rng.choice(len(names), p=weight / weight.sum())]
        pool = [c for c in self.cases if c.source == source]
        size = np.sqrt([c.labels.size for c in pool])
        return pool[rng.choice(len(pool), p=size / size.sum())]

    def _centre(self, rng: np.random.Generator, case: Case) -> NDArray[np.float64]:
        jitter = rng.uniform(-0.25, 0.25, case.labels.ndim) * self.spec.patch
        if len(case.centres) and rng.random() < 0.5:
            return np.asarray(case.centres[rng.integers(len(case.centres))] + jitter)
        return np.asarray(rng.uniform(0, 1, case.labels.ndim) * (np.array(case.labels.shape) - 1))
