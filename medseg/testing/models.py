"""Models that know the answer: the pipeline and what stands on it can be tested without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg import heads
from medseg.image import Image
from medseg.model import Model
from medseg.spec import HeadBase, ModelSpec, NetSpec, PreprocessSpec, SemanticSpec

Maps = NDArray[np.float32]


class Lookup:
    """A network that answers each voxel from a table, whatever window it is given.

    Parameters
    ----------
    maps
        (channels, *shape): what to answer over the whole of the image from `numbered`.

    Attributes
    ----------
    calls : list of tuple of int
        Shape of each window it was given, padding included.
    """

    def __init__(self, maps: Maps) -> None:
        self.table = maps.reshape(len(maps), -1)
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map (1, channels, *window) to the (1, channels, *window) of one head."""
        number = np.rint(x[0, 0].numpy() * (self.table.shape[1] - 1)).astype(np.intp)
        self.calls.append(number.shape)
        return [torch.from_numpy(self.table[:, number])[None]]


def numbered(shape: tuple[int, ...], spacing: float | Sequence[float] | None = None, modality: str = "other") -> Image:
    """The image that `Lookup` reads: each voxel holds its own number, up to about four million of them."""
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    return Image.from_array(array, spacing, modality=modality)


def perfect(labels: NDArray[np.int32], head: HeadBase, spacing: tuple[float, ...], noise: float = 0.0) -> Maps:
    """The maps of a network that had learned these labels perfectly; a little noise breaks the ties between voxels."""
    half = heads.make(head)
    maps = half.perfect(half.targets(labels, None, spacing))
    return maps + np.random.default_rng(0).normal(0, noise, maps.shape).astype(np.float32)


def knowing(maps: Maps, head: HeadBase | None = None, **changes: Any) -> Model:
    """A model on the CPU whose network is a `Lookup` of these maps.

    Parameters
    ----------
    maps
        (channels, *shape), raw, as the head decodes them.
    head
        Spec of the head; semantic if absent.
    **changes
        Fields of the `ModelSpec` that should differ.

    Examples
    --------
    >>> from medseg import segment
    >>> labels = np.zeros((32, 32), np.int32)
    >>> labels[4:12, 4:12], labels[20:28, 4:28] = 1, 2
    >>> model = knowing(perfect(labels, SemanticSpec(), (1.0, 1.0)))
    >>> len(segment(numbered((32, 32)), model=model))
    2
    """
    settings: dict[str, Any] = {
        "name": "knowing",
        "title": "Knows the answer",
        "licence": "CC0-1.0",
        "modality": ("microscopy",),
        "target": "cell",
        "classes": ("cell",),
        "net": NetSpec(ndim=2 if maps.ndim == 3 else 3, filters=(4, 4, 4)),
        "preprocess": PreprocessSpec(low=0, high=100),  # so that a voxel's number can be read back exactly
        "heads": (head or SemanticSpec(),),
    }
    return Model(ModelSpec(**settings | changes), Path("knowing"), "0" * 64, torch.device("cpu"), (Lookup(maps),))


def flat(labels: NDArray[np.int32], head: HeadBase | None = None, **changes: Any) -> tuple[Model, Image]:
    """A model that knows these 2-D labels (y, x), by default through a semantic head, and the image it knows them of."""
    head = head or SemanticSpec()
    return knowing(perfect(labels, head, (1.0, 1.0)), head, **changes), numbered(labels.shape)
