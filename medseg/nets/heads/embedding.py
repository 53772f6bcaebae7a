"""Embedding head, torch half: the Gaussian of each instance against the voxels around it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.heads.embedding import BROAD, NARROW
from medseg.nets.heads.dense import DenseModule, foreground_loss, mean

_MARGIN = 0.25  # of an instance's extent: how far around its box voxels are held against it
_LEAST = 2  # voxels of margin at least


class EmbeddingModule(DenseModule):
    """Learns the foreground, embeddings that gather by instance, their bandwidth, and seeds.

    Neven 2019: an instance's centre and bandwidth are the means over its voxels, and its Gaussian should be high on them and low on
    the voxels around, which moves the embeddings, the centre and the bandwidth together. No loop runs over instances.
    """

    def loss(self, maps: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        """Foreground loss; Lovasz hinge of the Gaussians; spread of the bandwidth within an instance; seed loss."""
        maps = maps.float()
        batch, ndim = len(maps), maps.ndim - 2
        weight = truth["weight"].reshape(-1)
        embedding = (truth["place"] + maps[:, 1 : 1 + ndim]).movedim(1, -1).reshape(-1, ndim)
        raw = maps[:, 1 + ndim : -1].movedim(1, -1).reshape(len(embedding), -1)
        width = raw.clamp(-BROAD, BROAD)
        owner, inside = number(truth["ids"][:, 0] * (truth["weight"][:, 0] > 0))
        mine = owner[inside]
        count = torch.bincount(mine).float()
        placed = embedding.index_select(0, inside)
        centre = average(placed, mine, count)
        log_sigma = average(width.index_select(0, inside), mine, count)
        factor = 0.5 * torch.exp(-2 * log_sigma) / NARROW**2  # 1 / (2 sigma^2)

        own = ((placed - centre.index_select(0, mine)) ** 2 * factor.index_select(0, mine)).sum(dim=1)
        target = torch.zeros_like(weight)
        target[inside] = torch.exp(-own.detach())
        seed = F.binary_cross_entropy_with_logits(maps[:, -1].reshape(-1), target, reduction="none")

        instance, voxel = neighbourhoods(owner, inside, (batch, *maps.shape[2:]), len(count))
        counts = weight.index_select(0, voxel) > 0
        if not counts.all():
            instance, voxel = instance[counts], voxel[counts]
        away = (
            (embedding.index_select(0, voxel) - centre.index_select(0, instance)) ** 2
            * factor.index_select(0, instance)
        ).sum(dim=1)
        spread = ((raw.index_select(0, inside) - log_sigma.detach()[mine]) ** 2).sum(dim=1)
        return {
            "foreground": foreground_loss(maps[:, :1], truth),
            "gaussian": 2 * lovasz(away, owner[voxel] == instance, instance, len(count)),
            "bandwidth": (spread / count[mine]).sum() / max(len(count), 1),
            "seed": mean(seed, weight),
        }


def number(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Instance of each voxel of a batch of ids, numbered from 0 over the batch and -1 outside, flat; and the voxels inside one."""
    ids = ids.long()
    most = int(ids.max()) + 1
    first = torch.arange(len(ids), device=ids.device).view(-1, *(1,) * (ids.ndim - 1)) * most
    inside = (ids > 0).flatten().nonzero()[:, 0]
    key = (ids + first).flatten()[inside]
    present = torch.bincount(key) > 0
    owner = torch.full((ids.numel(),), -1, dtype=torch.long, device=ids.device)
    owner[inside] = (present.cumsum(0) - 1)[key]
    return owner, inside


def average(values: Tensor, owner: Tensor, count: Tensor) -> Tensor:
    """Mean of (voxels, channels) per instance."""
    return values.new_zeros((len(count), values.shape[1])).index_add(0, owner, values) / count[:, None]


def neighbourhoods(owner: Tensor, inside: Tensor, shape: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """Pairs of an instance and a voxel in its box or a margin around it, by instance; voxels count on through the batch."""
    size = torch.tensor(shape, device=owner.device)
    step = torch.tensor([math.prod(shape[i + 1 :]) for i in range(len(shape))], device=owner.device)
    where = (inside[:, None] // step) % size
    mine = owner[inside, None].expand_as(where)
    low = where.new_zeros((count, len(shape))).scatter_reduce(0, mine, where, "amin", include_self=False)
    high = where.new_zeros((count, len(shape))).scatter_reduce(0, mine, where, "amax", include_self=False)
    margin = ((high - low + 1) * _MARGIN).ceil().long().clamp(min=_LEAST)
    margin[:, 0] = 0  # the batch
    low, high = (low - margin).clamp(min=0), torch.minimum(high + margin, size - 1)
    extent = high - low + 1
    volume = extent.prod(dim=1)
    instance = torch.repeat_interleave(torch.arange(count, device=owner.device), volume)
    rest = torch.arange(len(instance), device=owner.device) - (volume.cumsum(0) - volume)[instance]
    voxel = (low * step).sum(dim=1)[instance]
    for axis in range(len(shape) - 1, 0, -1):
        wide = extent[:, axis][instance]
        voxel = voxel + (rest % wide) * step[axis]
        rest = rest // wide
    return instance, voxel


def lovasz(away: Tensor, inside: Tensor, instance: Tensor, count: int) -> Tensor:
    """Lovasz hinge (Berman et al. 2018, arXiv:1705.08790) of each instance's Gaussian exp(-away), mean over instances.

    The errors of an instance, sorted from the largest, are each weighted by what the Jaccard loss grows by when that voxel is wrong
    too. Rows belong to an instance in order; its voxels are sorted within it, and sums over it are differences of sums over all.
    """
    if not count:
        return away.sum()
    phi = torch.exp(-away)
    error = torch.where(inside, 2 - 2 * phi, 2 * phi)  # hinge of 2 phi - 1, which is never below 0
    order = torch.argsort(instance * 4.0 - error.detach().double())
    good = inside[order].long()
    rows = torch.bincount(instance, minlength=count)
    start = (rows.cumsum(0) - rows)[instance]
    total = torch.zeros(count, dtype=torch.long, device=rows.device).index_add(0, instance, good)[instance]
    right, wrong = good.cumsum(0), (1 - good).cumsum(0)
    right = right - (right - good)[start]
    wrong = wrong - (wrong - (1 - good))[start]
    jaccard = 1 - (total - right) / (total + wrong).float()
    growth = jaccard.clone()
    growth[1:] -= jaccard[:-1] * (instance[1:] == instance[:-1])
    share = torch.empty_like(growth)
    share[order] = growth
    return (error * share).sum() / count
