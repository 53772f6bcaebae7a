"""What all readers share: units, typed errors for damaged files, the spacing a caller gives."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from medseg.errors import FormatError, InputError, MedsegError, MedsegWarning, MissingError
from medseg.grid import Grid
from medseg.image import Image

OFF = 0.01  # share by which a spacing given by the caller may differ from the file's without a word

_MM = {"pm": 1e-9, "å": 1e-7, "nm": 1e-6, "um": 1e-3, "mm": 1.0, "cm": 10.0, "dm": 100.0, "m": 1e3, "in": 25.4}
_ALSO = {
    "micron": "um", "microns": "um", "micrometer": "um", "micrometers": "um", "micrometre": "um", "nanometer": "nm",
    "millimeter": "mm", "millimetre": "mm", "centimeter": "cm", "meter": "m", "inch": "in", "inches": "in",
    "angstrom": "å", "\\u00b5m": "um",
}  # fmt: skip


def millimetres(unit: str) -> float | None:
    """Return the length of a unit in mm, or None for pixels and unknown names."""
    name = unit.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")  # two characters that both look like mu
    return _MM.get(_ALSO.get(name, name))


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads `path` into a typed error that shows no header text.

    Raises
    ------
    MissingError, InputError, FormatError
        The file is gone, may not be read, or is damaged.
    """
    try:
        yield
    except (MedsegError, MedsegWarning):  # a warning is raised where the caller turns warnings into errors
        raise
    except FileNotFoundError:
        raise MissingError(f"{path.name} is not there; check the path.") from None
    except PermissionError:
        raise InputError(f"{path.name} may not be read; check its permissions.") from None
    except MemoryError:
        raise InputError(f"{path.name} does not fit into memory; crop it or use a larger machine.") from None
    except Exception:  # decoders raise anything from struct.error to RecursionError on damaged files
        raise FormatError(f"{path.name} is a damaged or truncated {what} file; get it again.") from None
    except BaseException as error:
        # Rust decoders raise pyo3's PanicException, which is not an Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise FormatError(f"{path.name} is a damaged {what} file; get it again.") from None


def note(image: Image, *notes: str) -> Image:
    """Return the image with notes added to its source."""
    if image.source is None or not notes:
        return image
    return replace(image, source=replace(image.source, notes=(*image.source.notes, *notes)))


def respace(image: Image, spacing: float | Sequence[float] | None, unit: Literal["mm", "um"]) -> Image:
    """Return the image with the spacing a caller gave, in array axis order.

    A spacing the file does not state is filled in. One that the file states otherwise (by more than 1 %) is replaced:
    the caller knows better, but hears of it.

    Raises
    ------
    GeometryError
        If the count of numbers does not fit the axes, or one is not positive.
    InputError
        A unit without a spacing.
    """
    if spacing is None:
        if unit != "mm":
            raise InputError(f"unit={unit!r} is the unit of spacing, which is not given; give both or neither.")
        return image
    grid = image.grid
    wanted = np.array(Grid.from_spacing(grid.shape, spacing, unit=unit).spacing)
    stated = np.array(grid.spacing)
    if not grid.known:
        return _scaled(note(image, "spacing given by the caller"), wanted)
    if (np.abs(wanted / stated - 1) <= OFF).all():
        return image
    text = f"spacing {_mm(wanted)} mm was given and used; the file states {_mm(stated)} mm"
    warnings.warn(text, MedsegWarning, stacklevel=4)
    return _scaled(note(image, text), wanted)


def _scaled(image: Image, wanted: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Image:
    affine = image.grid.affine.copy()
    n = image.grid.ndim
    affine[:n, :n] *= wanted / image.grid.spacing
    return replace(image, grid=replace(image.grid, affine=affine, unit="mm"))


def _mm(steps: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    return " x ".join(f"{step:.4g}" for step in steps)
