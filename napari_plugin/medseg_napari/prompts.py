"""A mask from clicks and boxes in an image, without a model (`medseg.clicks`), as it grows click by click."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medseg.clicks import Clicks
from medseg.errors import InputError
from medseg.image import Image
from medseg.ops.deltas import Place


class Prompt:
    """Clicks so far, and what they make."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._clicks = Clicks(image)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The object, in `place`."""
        return self._clicks.mask

    @property
    def place(self) -> Place:
        """Where the mask lies in the image."""
        return self._clicks.place

    def click(self, where: Sequence[float], inside: bool) -> None:
        """Add a click: what it hits belongs to the object, or does not."""
        self._clicks.add(self._voxel(where), inside=inside)

    def box(self, first: Sequence[float], last: Sequence[float]) -> None:
        """Say what box the object lies in, by two corners; clicks before it are forgotten.

        A box drawn on one slice of a volume is taken to be about as deep as it is wide.
        """
        a, b = self._voxel(first), self._voxel(last)
        low, high = np.minimum(a, b), np.maximum(a, b)
        flat = np.flatnonzero(low == high)
        if len(low) == 3 and len(flat) == 1:
            axis, spacing = int(flat[0]), np.asarray(self.image.grid.spacing)
            wide = ((high - low) * spacing)[np.arange(3) != axis].mean()
            reach = int(np.ceil(wide / 2 / spacing[axis]))
            low[axis] = max(0, low[axis] - reach)
            high[axis] = min(self.image.grid.shape[axis] - 1, high[axis] + reach)
        self._clicks = Clicks(self.image, box=(low.tolist(), (high + 1).tolist()))

    def undo(self) -> None:
        """Take the last click back."""
        self._clicks.undo()

    def _voxel(self, where: Sequence[float]) -> tuple[int, ...]:
        index = tuple(int(round(float(i))) for i in where)
        if any(not 0 <= i < n for i, n in zip(index, self.image.grid.shape, strict=True)):
            raise InputError("The click lies outside of the image.")
        return index
