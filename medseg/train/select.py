"""From trained weights to a model file: the head, its thresholds and its calibration are chosen on the tune split.

Nothing here looks at val before everything is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg import heads, io, preprocess
from medseg.calibration import calibrated, features, fit
from medseg.data.cases import Case, find, load_cases
from medseg.errors import TrainingError
from medseg.metrics import Counts, Overlap, excused, match, overlap, summarise
from medseg.model import Model, save_model
from medseg.ops.labels import dense, taken, usual
from medseg.spec import CalibrationSpec, HeadBase, ModelSpec, ScoreSpec, TrainSpec
from medseg.train.evaluate import score_cases
from medseg.train.loop import RECIPE, fingerprint

_SHARES = (0.0, 0.03, 0.06, 0.1, 0.15)  # of the usual instance, under which others are too small to be one


@dataclass(frozen=True)
class Choice:
    """A head with the settings that did best on tune, and how well that was (mean AP over sources and thresholds)."""

    index: int
    spec: HeadBase
    share: float
    score: float


def finish(
    spec: TrainSpec,
    members: Sequence[dict[str, Tensor]],
    path: Path,
    device: torch.device,
    mirrors: bool = False,
    cpu_seconds: float = 0.0,
    reported: Sequence[ScoreSpec] | None = None,
    config: TrainSpec | None = None,
) -> Iterator[str]:
    """Choose on tune, report on val, and write the model file; yields one line per decision.

    Parameters
    ----------
    spec
        The training.
    members
        Weights by name; of several networks of the same training with other seeds, an ensemble is made.
    path
        Model file to write.
    mirrors
        Average over mirror images too.
    cpu_seconds
        What the training took, for the header, which also counts the choosing.
    reported
        Scores on val for the header, where val cannot be scored as members have learned from it: each member's, on what it has not.
    config
        The whole config that members were trained with, where `spec` has fewer heads or sources.

    Raises
    ------
    TrainingError
        The split file lists no tune cases.
    """
    started = time.process_time()
    files = find(spec, "tune")
    if not files:
        raise TrainingError("the split file lists no tune cases, on which thresholds are chosen")
    cases = load_cases(files, spec.preprocess, sized=True)
    weights = _together(members)
    plain = _model_spec(spec, spec.heads).model_copy(update={"members": len(members), "mirrors": mirrors})
    untuned = path.with_name(f"{spec.name}.untuned.safetensors")  # the final name means a finished model
    save_model(untuned, plain, weights)
    model = Model.load(untuned, str(device))
    maps = [model.maps(case.image) for case in cases]
    untuned.unlink()
    shares = _SHARES if spec.alike else _SHARES[:1]
    choices = [
        choose(head, i, cases, [m[i] for m in maps], spec.choose_at, shares) for i, head in enumerate(spec.heads)
    ]
    for choice in choices:
        yield f"tune: {choice.spec.kind} mean AP {choice.score:.3f} with {_settings(choice)}"
    best = max(choices, key=lambda c: c.score)
    chosen = [m[best.index] for m in maps]
    head = best.spec
    found = [_found(head, case, one, best.share) for case, one in zip(cases, chosen, strict=True)]
    trust = calibrate(cases, found, spec.choose_at[0])
    least = cutoff(cases, found, trust, spec.choose_at)
    yield f"kept: {head.kind}, {_told(trust)}, instances with a score of {least:g} or more"
    kept = {k: v for k, v in weights.items() if ".heads." not in f".{k}"}
    own = f"heads.{best.index}."
    kept |= {k.replace(own, "heads.0.", 1): v for k, v in weights.items() if f".{own}" in f".{k}"}
    final = plain.model_copy(
        update={"heads": (head,), "calibration": trust, "min_score": least, "min_share": best.share}
    )
    told: dict[str, Any] = {} if config is None else {"config_sha256": fingerprint(config)}
    told |= {"tune_ap_by_head": {c.spec.kind: round(c.score, 4) for c in choices}}
    if cpu_seconds:
        told["cpu_seconds"] = round(cpu_seconds + time.process_time() - started)
    final = final.model_copy(update={"training": final.training | told})
    save_model(untuned, final, kept)
    model = Model.load(untuned, str(device))
    untuned.unlink()
    scores = summarise(list(score_cases(model, files)), split="tune").specs()
    if reported is not None:
        scores += tuple(reported)
    elif val := find(spec, "val"):
        scores += summarise(list(score_cases(model, val)), split="val").specs()
    save_model(path, final.model_copy(update={"scores": scores}), kept)
    for s in scores:
        if s.averaging == "pooled":
            yield f"{s.split}: {s.source} {s.figure} {s.value:.3f} ({s.averaging}, {s.images} images)"


def _together(members: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Weights as a model file holds them: of several members, under their numbers."""
    if len(members) == 1:
        return members[0]
    return {f"{i}.{name}": value for i, one in enumerate(members) for name, value in one.items()}


def choose(
    head: HeadBase,
    index: int,
    cases: tuple[Case, ...],
    maps: list[NDArray[np.float32]],
    at: tuple[float, ...],
    shares: tuple[float, ...] = _SHARES,
) -> Choice:
    """Settings of a head by coordinate descent over its ``tunable`` values and the smallest share of a usual instance."""
    grid = {"share": shares, **heads.make(head).tunable}
    best = Choice(index, head, 0.0, _score(head, cases, maps, 0.0, at))
    for _ in range(2):
        before = best
        for name, values in grid.items():
            for value in values:
                share = value if name == "share" else best.share
                trial = best.spec if name == "share" else best.spec.model_copy(update={name: value})
                if (trial, share) != (best.spec, best.share):
                    score = _score(trial, cases, maps, share, at)
                    if score > best.score:
                        best = Choice(index, trial, share, score)
        if best == before:
            break
    return best


def cutoff(cases: tuple[Case, ...], found: list[_Found], trust: CalibrationSpec | None, at: tuple[float, ...]) -> float:
    """Score from which instances are kept: the one with the highest mean AP on tune."""
    chances = [calibrated(f.scores, f.voxels, trust) for f in found]
    values = np.arange(0, 0.65, 0.05)
    scores = [
        _mean_ap(cases, [taken(f.labels, p >= value) for f, p in zip(found, chances, strict=True)], at)
        for value in values
    ]
    return round(float(values[int(np.argmax(scores))]), 2)


def calibrate(cases: tuple[Case, ...], found: list[_Found], iou: float) -> CalibrationSpec | None:
    """Fit what turns raw scores into the chance that a true object shares that IoU; sources weigh the same."""
    rows, right, weight = [], [], []
    for case, one in zip(cases, found, strict=True):
        table = _overlap(case, one.labels)
        _, partner = match(table, iou)
        ok = np.zeros(len(one.scores), dtype=bool)
        ok[partner[partner >= 0]] = True
        counts = ok | ~excused(table)  # what lies where nobody annotated is neither right nor wrong
        rows.append(features(one.scores, one.voxels)[counts])
        right.append(ok[counts])
        per_source = sum(len(c.centres) + 1 for c in cases if c.source == case.source)
        weight.append(np.full(int(counts.sum()), 1 / per_source))
    return fit(np.concatenate(rows), np.concatenate(right), np.concatenate(weight))


def _score(
    head: HeadBase, cases: tuple[Case, ...], maps: list[NDArray[np.float32]], share: float, at: tuple[float, ...]
) -> float:
    return _mean_ap(cases, [_found(head, case, one, share).labels for case, one in zip(cases, maps, strict=True)], at)


def _mean_ap(cases: tuple[Case, ...], found: list[NDArray[np.int32]], at: tuple[float, ...]) -> float:
    """Pooled AP of each source, mean over the sources and over IoU thresholds."""
    total: dict[str, list[Counts]] = {}
    for case, labels in zip(cases, found, strict=True):
        table = _overlap(case, labels)
        counts = total.setdefault(case.source, [Counts(0, 0, 0, 0.0)] * len(at))
        total[case.source] = [c + match(table, t)[0] for c, t in zip(counts, at, strict=True)]
    return float(np.mean([[c.ap for c in counts] for counts in total.values()]))


@dataclass(frozen=True)
class _Found:
    """What a head finds in a case, without what is too small beside the rest: labels 1 to N, raw scores and voxels (N,)."""

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    voxels: NDArray[np.int64]


def _found(head: HeadBase, case: Case, maps: NDArray[np.float32], share: float) -> _Found:
    found = heads.make(head).decode(maps, case.spacing)
    ids, labels = dense(found.paint(order="index")[0])
    kept = usual(labels, share)
    labels, scores = taken(labels, kept), found.scores[ids - 1][kept]
    return _Found(labels, scores, np.bincount(labels.ravel(), minlength=len(scores) + 1)[1:])


def _overlap(case: Case, labels: NDArray[np.int32]) -> Overlap:
    """Pairs of a case's objects and of what was found, where somebody annotated."""
    hidden = case.labels < 0
    return overlap(np.maximum(case.labels, 0), labels, ignore=hidden if hidden.any() else None)


def _settings(choice: Choice) -> str:
    told = {name: getattr(choice.spec, name) for name in heads.make(choice.spec).tunable} | {"min_share": choice.share}
    return ", ".join(f"{name} {value:g}" for name, value in told.items())


def _spacing_range(spec: TrainSpec) -> tuple[tuple[float, float], ...]:
    """Trained spacing per axis, for models that resample to a physical spacing; empty for those that work in voxels."""
    if spec.preprocess.spacing is None:
        return ()
    images = [io.load(f.image, spacing=f.spacing) for f in find(spec, "train")]
    spacings = [preprocess.turned(image, spec.preprocess)[0].grid.spacing for image in images]
    # thick slices were part of the training; finer voxels are averaged to the network's
    finer, coarser = (0.2, spec.augment.coarse[1]) if spec.augment.p_coarse else (1.0, 1.0)
    return tuple((min(axis) * finer, max(axis) * coarser) for axis in zip(*spacings, strict=True))


def _model_spec(spec: TrainSpec, head_specs: tuple[HeadBase, ...]) -> ModelSpec:
    return ModelSpec(
        name=spec.name,
        title=spec.title,
        description=spec.description,
        licence=spec.licence,
        modality=spec.modality,
        target=spec.target,
        classes=spec.class_names,
        net=spec.net,
        preprocess=spec.preprocess,
        heads=head_specs,
        limits=spec.limits,
        spacing_range=_spacing_range(spec),
        training={
            "config": f"{spec.name}.yaml",
            "config_sha256": fingerprint(spec),
            "recipe": RECIPE,
            "split": spec.data.split,
            **({} if spec.data.fold is None else {"fold": spec.data.fold}),
            "sources": [s.name for s in spec.data.sources],
            "images": {s: len(find(spec, s)) for s in ("train", "tune", "val")},
            "steps": spec.steps,
            "batch": spec.batch,
            "patch": list(spec.patch),
            "seed": spec.seed,
            **({"start": spec.start} if spec.start else {}),
        },
        revision=fingerprint(spec)[:12],
    )


def _told(trust: CalibrationSpec | None) -> str:
    if trust is None:
        return "raw scores"
    return "calibration " + " ".join(f"{k} {v:g}" for k, v in trust.model_dump().items())
