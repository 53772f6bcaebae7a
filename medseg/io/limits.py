"""How much memory one image may claim, asked before the memory is taken: headers are written by anybody."""

from __future__ import annotations

import os
from pathlib import Path

from medseg.errors import InputError, SpecError

VARIABLE = "MEDSEG_MAX_GB"
DEFAULT_GB = 16.0
DEFLATE = 1040  # deflate cannot pack tighter than this, so a file that claims to is not whole
SLACK = 1 << 20  # bytes allowed after the voxels of a stream; more means that header and data do not belong together


def max_bytes() -> int:
    """Return the largest decoded size of one image, in bytes: MEDSEG_MAX_GB in the environment, or 16 GB.

    Raises
    ------
    SpecError
        MEDSEG_MAX_GB is not a positive number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        size = float(text) if text else DEFAULT_GB
    except ValueError:
        size = 0.0
    if not 0 < size < 1e9:
        raise SpecError(f"{VARIABLE} in the environment is {text!r}; give a positive number of gigabytes, or unset it.")
    return int(size * 1e9)


def check_claim(size: int, path: Path) -> None:
    """Raise InputError if a header claims more bytes of voxels than one image may have.

    Raises
    ------
    InputError
        The claim is over the limit; the message says how to raise it.
    """
    if size > max_bytes():
        raise InputError(
            f"{path.name} claims {size / 1e9:.1f} GB of voxels, over the limit of {max_bytes() / 1e9:g} GB; if that is "
            f"right, raise the limit with {VARIABLE} in the environment."
        )
