"""A mask from clicks and boxes in an image, without a model (`medseg.clicks`), as it grows click by click."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError
from medseg.image import Image
from medseg.ops.deltas import Place


class Prompt:
    """Clicks so far, and what they make."""

    def __init__(self, image: Image) -> None:
        from medseg.clicks import Clicks

        self.image = image
        self._clicks = Clicks(image)
        self.mask: npt.NDArray[np.bool_] = np.zeros((0,) * image.grid.ndim, bool)
        self.place: Place = tuple(slice(0, 0) for _ in image.grid.shape)

    def click(self, where: Sequence[float], inside: bool) -> None:
        """Add a click: what it hits belongs to the object, or does not."""
        self.mask, self.place = self._clicks.add(self._voxel(where), inside=inside)

    def box(self, first: Sequence[float], last: Sequence[float]) -> None:
        """Say what box the object lies in, by two corners."""
        low = [min(a, b) for a, b in zip(self._voxel(first), self._voxel(last), strict=True)]
        high = [max(a, b) + 1 for a, b in zip(self._voxel(first), self._voxel(last), strict=True)]
        self.mask, self.place = self._clicks.box(tuple(slice(a, b) for a, b in zip(low, high, strict=True)))

    def _voxel(self, where: Sequence[float]) -> tuple[int, ...]:
        index = tuple(int(round(float(i))) for i in where)
        if any(not 0 <= i < n for i, n in zip(index, self.image.grid.shape, strict=True)):
            raise InputError("The click lies outside of the image.")
        return index
