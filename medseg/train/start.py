"""Weights of a finished model to begin another training with."""

from __future__ import annotations

import hashlib
import re

from torch import Tensor

from medseg import heads
from medseg.errors import ModelError
from medseg.model import find, read_header, weights_of
from medseg.nets.net import Net
from medseg.spec import TrainSpec


def weights(model: str, spec: TrainSpec) -> tuple[str, dict[str, Tensor]]:
    """Weights of a model that has the network and heads of a training, and what tells them from others.

    Parameters
    ----------
    model
        Shipped name or file; of an ensemble, ``FILE:NUMBER`` names the network, counted from 1.
    spec
        The training.

    Returns
    -------
    told : str
        SHA-256 of the file and number of the network.
    weights
        By name, float32.

    Raises
    ------
    ModelError
        No such model or network in it, or it is of another kind.
    """
    parts = re.fullmatch(r"(.+):(\d+)", model)
    name, number = (parts[1], int(parts[2])) if parts else (model, 1)
    path = find(name)
    header = read_header(path)
    if not 1 <= number <= header.members or (parts is None and header.members > 1):
        raise ModelError(
            f"{path.name}: holds {header.members} networks; name the one to start with, :1 to :{header.members} after the file"
        )
    if (header.net, header.preprocess) != (spec.net, spec.preprocess):
        raise ModelError(
            f"{path.name}: has another network or another preprocessing than the config, so its weights do not fit"
        )
    kinds = [[heads.make(h).channels(spec.net.ndim) for h in of] for of in (header.heads, spec.heads)]
    named = [[h.kind for h in of] for of in (header.heads, spec.heads)]
    if kinds[0] != kinds[1] or named[0] != named[1]:
        raise ModelError(
            f"{path.name}: has the heads {', '.join(named[0])}, the config {', '.join(named[1])}; they must be the same"
        )
    found = weights_of(path)
    if header.members > 1:
        lead = f"{number - 1}."
        found = {k.removeprefix(lead): v for k, v in found.items() if k.startswith(lead)}
    known = Net(spec.net, spec.heads).state_dict()
    if any(k not in known or known[k].shape != v.shape for k, v in found.items()):
        raise ModelError(f"{path.name}: the weights do not fit the network that the header names; get the file again")
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}:{number}", found
