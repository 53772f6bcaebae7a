"""Candidates: what a head proposes, before anything is painted into one label array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError
from medseg.ops import labels as ops
from medseg.ops.labels import IntArray, Labels

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Proposed objects, which may overlap.

    Parameters
    ----------
    boxes : int array (N, 2 * ndim)
        Start then stop of each box in array axis order, half-open, inside `shape`.
    scores : float32 array (N,)
        Higher is surer; NaN where there is none.
    classes : int32 array (N,)
        1-based index into the class names.
    masks : tuple of bool arrays
        Each object within its box; none is empty.
    shape : tuple of int
        Shape of the field the boxes refer to.

    Raises
    ------
    InputError
        If the parts do not fit one another.

    Examples
    --------
    >>> found = Candidates.from_labels(np.array([[1, 1, 0], [0, 0, 7]]), scores=[0.9, 0.4])
    >>> len(found), found.boxes.tolist()
    (2, [[0, 0, 1, 2], [1, 2, 2, 3]])
    """

    boxes: IntArray
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    masks: tuple[Mask, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that all parts fit and freeze the arrays."""
        shape = tuple(int(size) for size in self.shape)
        n, ndim = len(self.masks), len(shape)
        boxes = np.array(self.boxes, dtype=np.int64)
        scores = np.array(self.scores, dtype=np.float32)
        classes = np.array(self.classes, dtype=np.int32)
        if boxes.shape != (n, 2 * ndim) or scores.shape != (n,) or classes.shape != (n,):
            raise InputError(
                f"{n} masks need boxes {(n, 2 * ndim)} and {n} scores and classes, "
                f"not {boxes.shape}, {scores.shape} and {classes.shape}."
            )
        start, stop = boxes[:, :ndim], boxes[:, ndim:]
        if (start < 0).any() or (stop <= start).any() or (stop > np.array(shape)).any():
            raise InputError(f"A box is empty or leaves the field of shape {shape}; clip boxes first.")
        if (classes < 1).any() or np.isinf(scores).any():
            raise InputError("Classes count from 1, and scores are finite, or NaN for none.")
        for i, (mask, sizes) in enumerate(zip(self.masks, (stop - start).tolist(), strict=True)):
            if mask.dtype != np.bool_ or mask.shape != tuple(sizes) or not mask.any():
                raise InputError(f"Mask {i} must be bool, fill its box of shape {tuple(sizes)} and not be empty.")
        for name, value in (("boxes", boxes), ("scores", scores), ("classes", classes)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        object.__setattr__(self, "masks", tuple(self.masks))
        object.__setattr__(self, "shape", shape)

    @classmethod
    def empty(cls, shape: Sequence[int]) -> Self:
        """Return no candidates on a field of this shape."""
        none = np.empty(0)
        return cls(
            np.empty((0, 2 * len(shape)), np.int64), none.astype(np.float32), none.astype(np.int32), (), tuple(shape)
        )

    @classmethod
    def from_labels(
        cls, labels: npt.ArrayLike, scores: npt.ArrayLike | None = None, classes: npt.ArrayLike | None = None
    ) -> Self:
        """Make one candidate of each positive id, in the order of the ids.

        Parameters
        ----------
        labels : array
            Ids, 0 is background; they need not be contiguous.
        scores, classes : array (N,), optional
            One for each id that occurs, in id order. Without them scores are NaN and classes 1.

        Raises
        ------
        InputError
            If labels are not whole numbers of 0 to 2^31-1, or counts differ.
        """
        values = ops.whole(labels)
        ids, dense, _, boxes, _ = ops.facts(values)
        masks = tuple(
            dense[tuple(map(slice, box[: values.ndim], box[values.ndim :]))] == number
            for number, box in enumerate(boxes.tolist(), 1)
        )
        score, kind = ops.per_label(scores, np.nan, ids, "scores"), ops.per_label(classes, 1, ids, "classes")
        return cls(boxes, score.astype(np.float32), kind.astype(np.int32), masks, values.shape)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.masks)

    def take(self, indices: npt.ArrayLike) -> Self:
        """Return some candidates, by number (in that order) or by a bool array (N,)."""
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_ and chosen.shape != (len(self),):
            raise InputError(f"A choice of shape {chosen.shape} does not fit {len(self)} candidates.")
        numbers = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64).ravel()
        if chosen.size and chosen.dtype.kind not in "biu":
            raise InputError("Choose candidates by whole numbers or by a bool array.")
        if ((numbers < 0) | (numbers >= len(self))).any():
            raise InputError(f"A number is not one of the {len(self)} candidates.")
        masks = tuple(self.masks[i] for i in numbers.tolist())
        return replace(
            self, boxes=self.boxes[numbers], scores=self.scores[numbers], classes=self.classes[numbers], masks=masks
        )

    def shift(self, offset: Sequence[int], shape: Sequence[int]) -> Self:
        """Return the candidates on a field of another shape, moved by `offset` voxels.

        Masks are clipped at the edges of the new field; candidates with nothing left in it are dropped.
        """
        ndim = len(self.shape)
        if len(offset) != ndim or len(shape) != ndim:
            raise InputError(f"Offset {tuple(offset)} and shape {tuple(shape)} must have {ndim} entries.")
        moved = self.boxes + np.tile(np.asarray(offset, dtype=np.int64), 2)
        clipped = np.clip(moved, 0, np.tile(np.asarray(shape, dtype=np.int64), 2))
        low, high = clipped[:, :ndim] - moved[:, :ndim], clipped[:, ndim:] - moved[:, :ndim]
        masks = [m[tuple(map(slice, a, b))] for m, a, b in zip(self.masks, low.tolist(), high.tolist(), strict=True)]
        kept = [i for i, mask in enumerate(masks) if mask.any()]
        return type(self)(
            clipped[kept], self.scores[kept], self.classes[kept], tuple(masks[i] for i in kept), tuple(shape)
        )

    def paint(self, order: Literal["score", "index"] = "score") -> tuple[Labels, IntArray]:
        """Draw all candidates into one label array; where they overlap one wins.

        Parameters
        ----------
        order : "score" or "index"
            Who wins: the higher score (NaN last, ties to the lower index), or the lower index.

        Returns
        -------
        labels : int32 array of the field's shape
            Candidate number + 1.
        lost : int64 array (N,)
            Voxels that each candidate lost to others; all of its voxels if it is hidden.
        """
        if order not in ("score", "index"):
            raise InputError(f"Order {order!r} is not known; use score or index.")
        keys = -self.scores if order == "score" else np.arange(len(self))
        labels = np.zeros(self.shape, np.int32)
        ndim = len(self.shape)
        for i in np.argsort(keys, kind="stable")[::-1].tolist():
            box = self.boxes[i].tolist()
            labels[tuple(map(slice, box[:ndim], box[ndim:]))][self.masks[i]] = i + 1
        seen = np.bincount(labels.ravel(), minlength=len(self) + 1)[1:]
        sizes = np.array([np.count_nonzero(mask) for mask in self.masks], dtype=np.int64)
        return labels, sizes - seen
