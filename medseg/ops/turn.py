"""An array's axes in another order and direction: what another anatomical orientation makes of an image, to the voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medseg.grid import Grid

Region = tuple[slice, ...]
_ENDS = ("LR", "PA", "IS")  # the two directions along each axis of a patient


@dataclass(frozen=True)
class Turn:
    """How an array is turned; what is turned forth and back is what it was.

    Parameters
    ----------
    shape : tuple of int
        Of the array as it is stored.
    order : tuple of int
        Which stored axis each turned axis is.
    flipped : tuple of bool
        Whether it runs the other way, for each turned axis.

    Examples
    --------
    >>> turn = Turn((2, 3), (1, 0), (True, False))
    >>> turn.forth(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
    [[3, 6], [2, 5], [1, 4]]
    >>> turn.place_back((slice(0, 1), slice(1, 2)))  # of the 6
    (slice(1, 2, None), slice(2, 3, None))
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    flipped: tuple[bool, ...]

    @classmethod
    def none(cls, shape: Sequence[int]) -> Self:
        """Leave all as it is stored."""
        return cls(tuple(shape), tuple(range(len(shape))), (False,) * len(shape))

    @classmethod
    def to(cls, grid: Grid, orientation: str | None) -> Self:
        """Turn a patient's image so that its axes point to these directions, letters as in `Grid.orientation`.

        An image without anatomy stays as it is stored, and any does without an orientation. Axes of an oblique image go by the
        direction that each is nearest to.
        """
        stored = grid.orientation
        if orientation is None or stored is None:
            return cls.none(grid.shape)
        along = [next(i for i, ends in enumerate(_ENDS) if letter in ends) for letter in stored]
        order = tuple(along.index(next(i for i, ends in enumerate(_ENDS) if letter in ends)) for letter in orientation)
        return cls(grid.shape, order, tuple(stored[a] != letter for a, letter in zip(order, orientation, strict=True)))

    @property
    def needed(self) -> bool:
        """Whether anything changes."""
        return self.order != tuple(range(len(self.order))) or any(self.flipped)

    def forth(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array or a part of it, (..., *spatial); a view."""
        return np.flip(self._transposed(array, self.order), self._flips(array.ndim))

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn a turned array, or a part of it, to how it was stored; a view."""
        return self._transposed(np.flip(array, self._flips(array.ndim)), self._inverse)

    def sizes(self, values: Sequence[int]) -> tuple[int, ...]:
        """Numbers of each stored axis, in the order of the turned ones."""
        return tuple(values[a] for a in self.order)

    def sizes_back(self, values: Sequence[int]) -> tuple[int, ...]:
        """Numbers of each turned axis, in the order of the stored ones."""
        return tuple(values[a] for a in self._inverse)

    def place(self, place: Region) -> Region:
        """Where a part of the stored array is in the turned one."""
        return self._mirrored(tuple(place[a] for a in self.order))

    def place_back(self, place: Region) -> Region:
        """Where a part of the turned array is in the stored one."""
        return tuple(self._mirrored(place)[a] for a in self._inverse)

    def grid(self, grid: Grid) -> Grid:
        """Where the voxels of the turned array lie."""
        return grid.permute(self.order).flip(*self._flips(len(self.order))) if self.needed else grid

    @property
    def _inverse(self) -> tuple[int, ...]:
        return tuple(self.order.index(a) for a in range(len(self.order)))

    def _flips(self, ndim: int) -> tuple[int, ...]:
        return tuple(ndim - len(self.order) + a for a, flipped in enumerate(self.flipped) if flipped)

    @staticmethod
    def _transposed(array: NDArray[Any], order: tuple[int, ...]) -> NDArray[Any]:
        before = array.ndim - len(order)
        return array.transpose(*range(before), *(before + a for a in order))

    def _mirrored(self, place: Region) -> Region:
        return tuple(
            slice(n - s.stop, n - s.start) if flipped else s
            for s, n, flipped in zip(place, self.sizes(self.shape), self.flipped, strict=True)
        )
