"""Checkpoints without pickle: one safetensors file with weights, averaged weights, optimiser state and the step count.

A training resumed from a checkpoint goes on exactly as if it had not stopped: samples are numbered, and nothing else is random.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from medseg.errors import TrainingError
from medseg.ops.files import write_whole


def save_checkpoint(
    path: Path, step: int, net: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer, digest: str
) -> None:
    """Write atomically: a reader finds the old file or the new one, never half of one."""
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    data = save(
        {k: v.contiguous().cpu() for k, v in tensors.items()}, {"medseg": json.dumps({"step": step, "spec": digest})}
    )
    write_whole(path, data)


def load_checkpoint(
    path: Path, net: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer, digest: str
) -> int:
    """Restore everything in place and return the number of steps done.

    Raises
    ------
    TrainingError
        The file is damaged, or was written by a training with another config.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["medseg"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise TrainingError(
            f"{path}: is no readable checkpoint ({type(error).__name__}); delete it to start anew"
        ) from None
    if about["spec"] != digest:
        raise TrainingError(
            f"{path}: was written with another config; choose another --output folder, or delete this one to start anew"
        )
    net.load_state_dict(_below(tensors, "net."))
    for key, value in _below(tensors, "average.").items():
        average[key].copy_(value)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _below(tensors, "optimiser.").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(about["step"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
