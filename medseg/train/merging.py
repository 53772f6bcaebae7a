"""Learn which basins of a distance map are one object, on composed groups: `medseg/weights/shape.json`.

    python -m medseg.train.merging -o medseg/weights/shape.json

A small network reads what `medseg.ops.merging` measures of two neighbours. Examples are taken along the way that the joining itself
takes, decided by the truth: first in the order of a plain rule, then in that of what was learned so far (as in Ross 2011, DAgger).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medseg.data.cases import data_root
from medseg.data.compose import LEFT_OUT, groups, library
from medseg.metrics import Counts, match, overlap
from medseg.ops import merging
from medseg.ops.files import write_whole
from medseg.ops.merging import FEATURES, Chance, Regions
from medseg.preprocess import resize
from medseg.shapes import MergeNet, assigned

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

_HIDDEN = 96
_CUTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


class Prepared:
    """One group cut into basins, and whose each basin is."""

    def __init__(self, truth: Labels, spacing: tuple[float, ...]) -> None:
        self.truth = truth
        self.spacing = spacing
        self.labels, depth, step = merging.basins(truth > 0, spacing)
        self._measured = merging.measured(self.labels, depth, step, spacing)
        on = resize(truth, self.labels.shape, order=0).astype(np.int32)
        votes = np.zeros((int(self.labels.max()) + 1, int(truth.max()) + 1))
        np.add.at(votes, (self.labels.ravel(), on.ravel()), 1)
        votes[:, 0] = 0
        self.owner = votes.argmax(axis=1)

    def regions(self) -> Regions:
        """A fresh copy of what is measured."""
        r = self._measured
        return Regions(r.sums.copy(), r.peak.copy(), r.surface.copy(), dict(r.meets), r.scanned, r.anisotropy)

    def examples(self, chance: Chance) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Pairs met on the way and whether they are one object: features (M, F) and answers (M,)."""
        regions, rows, answers = self.regions(), list[Floats](), list[bool]()

        def ask(a: int, b: int) -> bool:
            same = bool(self.owner[a] == self.owner[b])
            rows.append(merging.features(regions, np.array([(a, b)]))[0])
            answers.append(same)
            return same

        merging.joined(regions, chance, 0.0, ask)
        return np.array(rows).reshape(-1, len(FEATURES)), np.array(answers, dtype=bool)

    def scored(self, chance: Chance, least: float) -> tuple[Counts, bool, bool]:
        """Counts at IoU .5, whether it is one object, and whether that was cut."""
        number = merging.joined(self.regions(), chance, least)
        found = assigned(self.truth > 0, number[self.labels])
        single = int(self.truth.max()) == 1
        return match(overlap(self.truth, found), 0.5)[0], single, single and int(found.max()) > 1


def plain(features: Floats) -> Floats:
    """The rule that examples are first gathered by: the higher the pass beside the lower peak, the likelier."""
    return np.clip(features[:, 0], 0, 1)


def learn(x: Floats, y: npt.NDArray[np.bool_], seed: int, epochs: int = 100) -> MergeNet:
    """Fit the network; a tenth of the examples says when to stop."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    inputs = torch.tensor(np.clip((x - mean) / scale, -5, 5), dtype=torch.float32)
    target = torch.tensor(y, dtype=torch.float32)
    held = torch.tensor(rng.random(len(x)) < 0.1)
    net = torch.nn.Sequential(
        torch.nn.Linear(len(FEATURES), _HIDDEN), torch.nn.ReLU(), torch.nn.Linear(_HIDDEN, _HIDDEN), torch.nn.ReLU(),
        torch.nn.Linear(_HIDDEN, 1),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    train = torch.nonzero(~held)[:, 0]
    steps = epochs * max(1, len(train) // 512)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss = torch.nn.BCEWithLogitsLoss()
    best, kept = np.inf, {k: v.clone() for k, v in net.state_dict().items()}
    for step in range(steps):
        pick = train[torch.randint(len(train), (512,))]
        optimiser.zero_grad()
        loss(net(inputs[pick])[:, 0], target[pick]).backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            with torch.no_grad():
                now = float(loss(net(inputs[held])[:, 0], target[held]))
            if now < best:
                best, kept = now, {k: v.clone() for k, v in net.state_dict().items()}
    layers = [(kept[f"{i}.weight"].double().numpy(), kept[f"{i}.bias"].double().numpy()) for i in (0, 2, 4)]
    return MergeNet(mean, scale, tuple(layers), 0.5)


def quality(prepared: Sequence[Prepared], chance: Chance, least: float) -> tuple[float, float]:
    """Pooled PQ, and the share of single objects that were cut."""
    rows = [p.scored(chance, least) for p in prepared]
    total = sum((r[0] for r in rows), Counts(0, 0, 0, 0.0))
    singles = sum(r[1] for r in rows)
    return total.pq, sum(r[2] for r in rows) / max(1, singles)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compose, learn, choose the cut on groups that were not learned from, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=2400, help="to learn from")
    parser.add_argument("--tune", type=int, default=300, help="to choose the cut on")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    started = time.process_time()
    shapes = library(data_root(), LEFT_OUT)
    train, tune = (
        [Prepared(truth, spacing) for truth, spacing in groups(shapes, count, seed)]
        for count, seed in ((given.groups, given.seed), (given.tune, given.seed + 1))
    )
    _say(f"{len(train)} groups of {len(shapes)} shapes, {time.process_time() - started:.0f} CPU seconds")
    chance: Chance = plain
    x, y = np.zeros((0, len(FEATURES))), np.zeros(0, bool)
    for number in range(3):
        found = [p.examples(chance) for p in train]
        x, y = np.concatenate([x, *[f[0] for f in found]]), np.concatenate([y, *[f[1] for f in found]])
        net = learn(x, y, given.seed + number)
        chance = net.chance
        pq, cut = quality(tune, chance, 0.5)
        _say(f"round {number + 1}: {len(x)} examples; tune PQ {pq:.3f} (pooled), single objects cut {cut:.1%}")
    tried = [(least, *quality(tune, chance, least)) for least in _CUTS]
    for least, pq, cut in tried:
        _say(f"joined from a chance of {least:g}: tune PQ {pq:.3f}, single objects cut {cut:.1%}")
    best = max(tried, key=lambda t: t[1] - t[2])  # a single object that is cut is as bad as what separation gains
    seconds = round(time.process_time() - started)
    told: dict[str, Any] = {
        "made_by": f"python -m medseg.train.merging --groups {given.groups} --tune {given.tune} --seed {given.seed}",
        "cpu_seconds": seconds, "examples": len(x), "tune_pq": round(best[1], 4), "tune_single_cut": round(best[2], 4),
    }  # fmt: skip
    final = MergeNet(net.mean, net.scale, net.layers, best[0])
    write_whole(given.output, json.dumps(final.to_json() | {"training": told}).encode())
    _say(f"{given.output}: {told}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
