"""A class for each instance, on any head: one more map per class, read over the mask of the instance.

What separates instances need not know what they are (Graham et al. 2019, HoVer-Net, doi:10.1016/j.media.2019.101563, has a
branch of its own for the type of a nucleus): the head finds the instance, and all its voxels vote for a class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from medseg.candidates import Candidates
from medseg.heads import Memory, read
from medseg.heads.common import SURE
from medseg.spec import HeadBase

Truth = dict[str, NDArray[np.float32]]


class ClassedHead:
    """The maps of another head, then one logit per class. Made by `medseg.heads.make` for a spec of several classes."""

    remembers = True

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.spec: HeadBase = inner.spec
        self.blendable: bool = inner.blendable
        self.tunable: dict[str, tuple[float, ...]] = inner.tunable

    def channels(self, ndim: int) -> int:
        """Those of the other head and one per class."""
        return int(self.inner.channels(ndim)) + self.spec.classes

    def targets(
        self,
        labels: NDArray[np.int32],
        ignore: NDArray[np.bool_] | None,
        spacing: tuple[float, ...],
        classes: NDArray[np.int32] | None = None,
    ) -> Truth:
        """Truth of the other head, and ``class`` (1, *shape): class number of each instance's voxels, 0 where not known.

        ``classes`` holds the class of each id, its first entry that of the background; without it all are of class 1.
        """
        each = np.ones(int(labels.max(initial=0)) + 1, np.int32) if classes is None else classes
        known = np.where(labels > 0, each[labels], 0)
        truth: Truth = self.inner.targets(labels, ignore, spacing)
        return truth | {"class": known[None].astype(np.float32)}

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """Perfect maps of the other head, and certain classes."""
        number = truth["class"][0].astype(np.intp)
        sure = np.where(
            number[None] == np.arange(1, self.spec.classes + 1).reshape(-1, *[1] * number.ndim), SURE, -SURE
        )
        return np.concatenate([self.inner.perfect(truth), sure]).astype(np.float32)

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...], memory: Memory | None = None) -> Candidates:
        """Instances of the other head; the class of each is the likeliest over its mask."""
        memory = {} if memory is None else memory
        found = read(self.inner, maps[: -self.spec.classes], spacing, memory.setdefault("inner", {}))
        if "classes" not in memory:
            memory["classes"] = log_softmax(maps[-self.spec.classes :].astype(np.float32), axis=0)
        logits = memory["classes"]
        ndim = len(found.shape)
        classes = [
            logits[(slice(None), *map(slice, box[:ndim], box[ndim:]))][:, mask].sum(axis=1).argmax() + 1
            for box, mask in zip(found.boxes.tolist(), found.masks, strict=True)
        ]
        return replace(found, classes=np.array(classes, dtype=np.int32))

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """That of the other head."""
        return tuple(self.inner.reach(spacing))

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """That of the other head, and the class maps turned over."""
        count = self.spec.classes
        return np.concatenate([self.inner.mirror(maps[:-count], axis), np.flip(maps[-count:], axis + 1)])
