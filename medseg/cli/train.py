"""``medseg train``: a model from a config; stop it when you like, the same command goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import is_terminal, progress, say

if TYPE_CHECKING:
    from medseg.spec import TrainSpec


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG.yaml", help="Config file, or the name of a shipped one.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; default runs/NAME.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare samples.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="End this stage after so long; replaces stage_minutes.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="Train only this one of the config's heads.")] = None,
    without: Annotated[str | None, typer.Option(help="Leave out this one of the config's data sets.")] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="Fold of the split file, from 0.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Replaces the config's steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Replaces the config's seed.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Begin with the weights of this model; of an ensemble, FILE:NUMBER, from 1.")
    ] = None,
) -> int:
    """Train a model, choose thresholds on tune, score val once, write NAME.safetensors.

    A checkpoint is kept every few minutes; the same command goes on from it, and the result does not depend on where
    it stopped.
    """
    from medseg import presets
    from medseg.model import choose_device
    from medseg.spec import TrainSpec, load_yaml
    from medseg.train import Checked, Done, Paused, Step
    from medseg.train import train as run
    from medseg.train.loop import cpu_seconds
    from medseg.train.select import finish
    from medseg.train.start import weights as weights_to_start

    spec = load_yaml(TrainSpec, presets.find_config(config))
    spec = _changed(spec, {"stage_minutes": minutes, "steps": steps, "seed": seed}, {"fold": fold}, head, without)
    first_weights = None
    if start is not None:
        told, first_weights = weights_to_start(start, spec)
        spec = spec.model_copy(update={"start": told})
    folder, where, first = output or Path("runs") / spec.name, choose_device(device), os.environ.get("RANK", "0") == "0"
    tell = say if first else lambda text: None  # of several processes that torchrun started, one talks and finishes
    tell(f"training {spec.name} on {where} in {folder}; log in {folder / 'log.jsonl'}")
    smooth = None
    with progress() as bar:
        task = bar.add_task(spec.name, total=spec.steps, note="")
        for event in run(spec, folder, where, workers, first_weights):
            if isinstance(event, Step):
                now = event.loss["total"]
                smooth = now if smooth is None else 0.98 * smooth + 0.02 * now
                bar.update(task, completed=event.step, note=f"loss {smooth:.3f}")
                if not is_terminal() and event.step % 100 == 0:
                    tell(f"step {event.step}/{event.steps} loss {smooth:.3f} {event.seconds:.0f} s")
            elif isinstance(event, Checked):
                for line in event.notes:
                    tell(f"medseg: note: {line}")
            elif isinstance(event, Paused):
                tell(f"stage over at step {event.step} of {event.steps}; run the same command to go on")
                return 0
            elif isinstance(event, Done):
                weights = event.weights
    if not first:
        return 0
    path = folder / f"{spec.name}.safetensors"
    for line in finish(spec, [weights], path, where, cpu_seconds=cpu_seconds(folder / "log.jsonl")):
        say(line)
    print(path)
    return 0


def _changed(
    spec: TrainSpec, settings: dict[str, Any], data: dict[str, Any], head: str | None, without: str | None
) -> TrainSpec:
    """The config with what the command line replaces."""
    update = {name: value for name, value in settings.items() if value is not None}
    update["data"] = spec.data.model_copy(update={name: value for name, value in data.items() if value is not None})
    if without is not None:
        rest = tuple(s for s in spec.data.sources if s.name != without)
        if len(rest) in (0, len(spec.data.sources)):
            known = ", ".join(s.name for s in spec.data.sources)
            raise typer.BadParameter(f"{without!r} is none of several data sets: {known}", param_hint="--without")
        update["data"] = update["data"].model_copy(update={"sources": rest})
    if head is not None:
        update["heads"] = tuple(h for h in spec.heads if h.kind == head)
        if not update["heads"]:
            known = ", ".join(h.kind for h in spec.heads)
            raise typer.BadParameter(f"{head!r} is none of the config's heads: {known}", param_hint="--head")
    return spec.model_copy(update=update)
