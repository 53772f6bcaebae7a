"""The training loop: AdamW, cosine rate with warm-up, averaged weights, numbered samples.

Stages chain: a stage ends after ``stage_minutes`` with a checkpoint, and the same call goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medseg import heads
from medseg.data.cases import find, load_cases, read_split
from medseg.data.check import Checked, check
from medseg.data.sampling import Sampler
from medseg.errors import InputError, TrainingError
from medseg.nets.backbone import memory_format, place
from medseg.nets.net import Net, fast_dtype
from medseg.ops.files import write_whole
from medseg.spec import TrainSpec
from medseg.train.checkpoint import load_checkpoint, save_checkpoint
from medseg.train.ranks import Ranks, join

# Version of the training itself: a change that makes the same config learn something else raises it. A model of an older one is
# repeated with the code of that time. 2: any channels, pasted instances, weights of small instances; 3: objects cut by an image's
# border are not pasted, shifts and zooms of patches follow what is wanted; 4: what lies around small instances weighs as they do,
# and specks of objects teach nothing.
RECIPE = 4


@dataclass(frozen=True)
class Step:
    """One step done.

    ``loss`` is by term; ``seconds`` is wall time of this stage's steps, ``cpu_seconds`` process time of all of it, loading too.
    """

    step: int
    steps: int
    loss: dict[str, float]
    rate: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Paused:
    """The stage's time is over; the same call goes on from the checkpoint."""

    step: int
    steps: int


@dataclass(frozen=True)
class Done:
    """All steps done. ``weights`` are the averaged weights by name."""

    weights: dict[str, Tensor]


def train(
    spec: TrainSpec, output: Path, device: torch.device, workers: int = 1, start: dict[str, Tensor] | None = None
) -> Iterator[Checked | Step | Paused | Done]:
    """Train, yielding what is strange about the data, then a `Step` per step and finally `Paused` or `Done`.

    Parameters
    ----------
    spec
        The whole training.
    output
        Folder for ``checkpoint.safetensors`` and ``log.jsonl``; a checkpoint found there is resumed.
    workers
        Processes that prepare samples.
    start
        Weights by name to begin with, as `medseg.train.start.weights` reads them; random ones if left out.

    Under ``torchrun`` each process takes its share of every batch.

    Raises
    ------
    InputError
        Faults of the data set, all of them in one error.
    TrainingError
        A checkpoint of another config, or a loss that is not finite.
    """
    started_cpu = time.process_time()
    group = join(device, spec.batch // spec.accumulate)
    checked = check(spec)
    if checked.faults:
        raise InputError("\n  ".join(["the data set cannot be trained on:", *checked.faults]))
    yield checked
    cases = load_cases(find(spec, "train"), spec.preprocess)
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(spec.seed)
    net = Net(spec.net, spec.heads)
    if start is not None:
        net.load_state_dict(start, strict=False)  # all but the counters of batches
    place(net, spec.net.ndim, device).train()
    decay = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=spec.rate
    )
    average = {k: v.clone().float() for k, v in net.state_dict().items() if v.is_floating_point()}
    learner = _Learner(spec, net, optimiser, average, device, group)
    path, digest, done = output / "checkpoint.safetensors", fingerprint(spec), 0
    if path.exists():
        done = load_checkpoint(path, net, average, optimiser, digest)
    group.wait()
    if group.writes:
        _trim_log(output / "log.jsonl", done)
    parts = iter(_loader(Sampler(spec, cases), done, workers, group))
    started = saved = time.monotonic()
    with open(output / "log.jsonl" if group.writes else os.devnull, "a", encoding="utf-8") as log:
        for step in range(done + 1, spec.steps + 1):
            loss = learner.step(islice(parts, spec.accumulate), step)
            event = Step(
                step,
                spec.steps,
                loss,
                learning_rate(spec, step),
                time.monotonic() - started,
                time.process_time() - started_cpu,
            )
            log.write(json.dumps(asdict(event)) + "\n")
            over = group.agree(time.monotonic() - started > spec.stage_minutes * 60, device)
            if step == spec.steps or over or time.monotonic() - saved > spec.checkpoint_minutes * 60:
                if group.writes:
                    save_checkpoint(path, step, net, average, optimiser, digest)
                log.flush()
                saved = time.monotonic()
            yield event
            if over and step < spec.steps:
                yield Paused(step, spec.steps)
                return
    yield Done(average)


def cpu_seconds(log: Path) -> float:
    """Process time of all stages that a ``log.jsonl`` tells of, processes that prepared samples left out."""
    total = last = 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        now = float(json.loads(line)["cpu_seconds"])
        total, last = total + (now - last if now >= last else now), now
    return total


def fingerprint(spec: TrainSpec, recipe: int = RECIPE) -> str:
    """Hash of everything that changes what is learned: not of words, stage times, or what is chosen after training.

    Settings at their default are left out, so that a setting which is new today does not orphan the models of yesterday; whoever
    changes a default raises `RECIPE`.
    """
    words = {"stage_minutes", "checkpoint_minutes", "title", "description", "licence", "limits", "choose_at", "alike"}
    data = spec.model_dump(mode="json", exclude=words, exclude_defaults=True) | {"recipe": recipe}
    stems = read_split(spec.data.split, spec.data.fold)
    data["train"] = {s.name: stems[s.name]["train"] for s in spec.data.sources}
    for told, head in zip(data["heads"], spec.heads, strict=True):
        told["kind"] = head.kind  # each spec's own default
        for name in (*heads.make(head).tunable, "min_voxels"):
            told.pop(name, None)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _trim_log(path: Path, done: int) -> None:
    """Drop what a killed stage logged after its last checkpoint: those steps are done again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_whole(path, "".join(lines[:done]).encode())  # one line per step


def learning_rate(spec: TrainSpec, step: int) -> float:
    """Linear warm-up, then half a cosine to a hundredth of the rate at the last step (Loshchilov 2017)."""
    if step <= spec.warmup:
        return spec.rate * step / spec.warmup
    share = (step - spec.warmup) / max(1, spec.steps - spec.warmup)
    return spec.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@dataclass(frozen=True)
class _Learner:
    """What a step changes, and what it goes by."""

    spec: TrainSpec
    net: Net
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]
    device: torch.device
    group: Ranks

    def step(self, parts: Iterable[dict[str, Tensor]], number: int) -> dict[str, float]:
        """One step of the optimiser on the parts of a batch; the loss by term."""
        share = 1 / self.spec.accumulate
        for settings in self.optimiser.param_groups:
            settings["lr"] = learning_rate(self.spec, number)
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for part in parts:
            terms = self._losses(part)
            total = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(total):
                raise TrainingError(
                    f"the loss is not finite at step {number}; lower 'rate' and go on from the last checkpoint"
                )
            (total * share).backward()  # type: ignore[no-untyped-call]
            for name, value in (terms | {"total": total}).items():
                sums[name] = sums.get(name, 0.0) + value.item() * share
        self.group.average(p.grad for p in self.net.parameters() if p.grad is not None)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        keep = min(self.spec.ema, (1 + number) / (10 + number))  # early on, follow the weights closely
        with torch.no_grad():
            for key, value in self.net.state_dict().items():
                if key in self.average:
                    self.average[key].lerp_(value.float(), 1 - keep)
        return {name: round(value, 5) for name, value in sums.items()}

    def _losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        spec, device = self.spec, self.device
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        image = batch.pop("image").contiguous(memory_format=memory_format(spec.net.ndim))
        truth: list[dict[str, Tensor]] = [{} for _ in spec.heads]
        for key, value in batch.items():
            index, name = key.split(".", 1)
            truth[int(index)][name] = value
        kind = fast_dtype(device)
        with torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None):
            maps = self.net(image, truth)
            return self.net.loss(maps, truth)


def _loader(sampler: Sampler, done: int, workers: int, group: Ranks) -> DataLoader[dict[str, Tensor]]:
    spec = sampler.spec
    return DataLoader(
        sampler,  # type: ignore[arg-type]
        batch_size=spec.batch // spec.accumulate // group.world,
        sampler=group.share(done, spec.steps, spec.batch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        drop_last=True,
    )
