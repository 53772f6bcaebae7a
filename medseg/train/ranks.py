"""Several processes that train one network together, as ``torchrun`` starts them; one process is the usual case.

Each takes its share of every batch and has the same weights: gradients are averaged before each step (Goyal et al. 2017,
arXiv:1706.02677). Rank 0 writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from medseg.errors import TrainingError


@dataclass(frozen=True)
class Ranks:
    """Which process this is, and of how many."""

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints, log and model."""
        return self.rank == 0

    def share(self, first: int, last: int, batch: int) -> list[int]:
        """Numbers of this process's samples of the batches ``first`` to ``last`` - 1, in order."""
        own = range(self.rank, batch, self.world)
        return [step * batch + i for step in range(first, last) for i in own]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor /= self.world

    def agree(self, value: bool, device: torch.device) -> bool:
        """What rank 0 says."""
        if self.world == 1:
            return value
        told = torch.tensor([int(value)], device=device)
        dist.broadcast(told, 0)
        return bool(told.item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


def join(device: torch.device, batch: int) -> Ranks:
    """Join the processes that ``torchrun`` named in the environment, if any.

    Raises
    ------
    TrainingError
        The batch cannot be dealt evenly.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    if batch % world:
        raise TrainingError(f"a batch of {batch} cannot be dealt to {world} processes; choose a multiple of that")
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), world)
