"""Loops over voxels, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function on its first call, without the interpreter's lock.

    The result is kept for the next process beside the source or in the user's cache folder; where neither may be written, as
    in a container that is read-only, each process compiles for itself.
    """
    try:
        return cast(F, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba finds no folder for its cache
        return cast(F, njit(nogil=True)(function))
