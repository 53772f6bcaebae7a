"""Heads, NumPy half: what an instance means to a head, and how it is read back from the network's maps.

The torch half of each head, the layers and losses, is the file of the same name in ``medseg.nets.heads``. Nothing here imports
torch, so a model can be read, decoded and measured from maps made by any runtime.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medseg.candidates import Candidates
from medseg.errors import SpecError
from medseg.spec import HeadBase

Truth = dict[str, NDArray[np.float32]]
Memory = dict[str, Any]  # what a head keeps between two readings of the same maps


@runtime_checkable
class Head(Protocol):
    """The contract of a head's NumPy half. ``medseg.testing.heads`` holds the suite that checks it.

    All arrays are channel first, ``(C, y, x)`` or ``(C, z, y, x)``. ``spacing`` is the voxel size per array axis; heads measure in
    units of the finest axis, so only ratios matter. A head that another package registers also has the class attribute
    ``Spec``, its `HeadBase` subclass, by which the specs find it. One whose class attribute ``remembers`` is True takes a third
    argument of ``decode``, a dict in which it may keep what does not depend on its settings.
    """

    spec: HeadBase
    blendable: bool  # may the maps of overlapping tiles be averaged before decoding?
    tunable: dict[str, tuple[float, ...]]  # settings of the spec that are chosen on the tune split, and what to try

    def channels(self, ndim: int) -> int:
        """Number of map channels in ``ndim`` dimensions."""
        ...

    def targets(self, labels: NDArray[np.int32], ignore: NDArray[np.bool_] | None, spacing: tuple[float, ...]) -> Truth:
        """What the network should learn from instance ids; the key ``weight`` is 0 where ``ignore`` is True."""
        ...

    def perfect(self, truth: Truth) -> NDArray[np.float32]:
        """The maps of a network that had learned ``truth`` perfectly (contract tests, phantoms)."""
        ...

    def decode(self, maps: NDArray[np.float32], spacing: tuple[float, ...]) -> Candidates:
        """Raw network maps (logits, not probabilities) to instances."""
        ...

    def mirror(self, maps: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Maps of an image as they would be if its axis ``axis`` ran the other way."""
        ...

    def reach(self, spacing: tuple[float, ...]) -> tuple[int, ...]:
        """Halo in voxels per axis that a region needs for its inner instances to come out as in the whole image."""
        ...


def make(spec: HeadBase) -> Head:
    """Build the NumPy half for a spec: built in, or registered under the entry point group ``medseg.heads``.

    A spec of several classes gives the same head with a class for each instance (`medseg.heads.classes`).
    """
    from medseg.heads.classes import ClassedHead

    return ClassedHead(_separating(spec)) if spec.classes > 1 else _separating(spec)


def read(head: Head, maps: NDArray[np.float32], spacing: tuple[float, ...], memory: Memory) -> Candidates:
    """Decode maps that may be read again under other settings, with what the head remembers of them.

    Parameters
    ----------
    memory
        Empty at first; to be given again with the same maps and spacing alone. The result is the same without.
    """
    if getattr(head, "remembers", False):
        return head.decode(maps, spacing, memory)  # type: ignore[call-arg]
    return head.decode(maps, spacing)


def _separating(spec: HeadBase) -> Head:
    from medseg.heads.embedding import EmbeddingHead
    from medseg.heads.flow import FlowHead
    from medseg.heads.offset import OffsetHead
    from medseg.heads.semantic import SemanticHead
    from medseg.heads.star import StarHead
    from medseg.heads.watershed import WatershedHead

    built_in: dict[str, Any] = {
        "semantic": SemanticHead,
        "watershed": WatershedHead,
        "offset": OffsetHead,
        "flow": FlowHead,
        "star": StarHead,
        "embedding": EmbeddingHead,
    }
    if spec.kind in built_in:
        return built_in[spec.kind](spec)  # type: ignore[no-any-return]
    for point in entry_points(group="medseg.heads", name=spec.kind):
        return point.load()(spec)  # type: ignore[no-any-return]
    raise SpecError(f"no head of kind {spec.kind!r}; known: {', '.join(sorted(built_in))}")
