"""The image of a case: one file, one DICOM series, or several inputs put together."""

from __future__ import annotations

from dataclasses import replace

from medseg.batch.cases import Case, Input
from medseg.case import read
from medseg.errors import FormatError, InputError
from medseg.image import Image
from medseg.io.names import SCOPES, suffix
from medseg.model import find, read_header
from medseg.preprocess import combine
from medseg.spec import BatchSpec, CaseSpec

_PLAIN = frozenset({"red", "green", "blue", "gray"})


def load(case: Case, spec: BatchSpec, known: frozenset[str]) -> Image:
    """Read the image of a case, all its inputs put together, under channel names that say nothing about anybody.

    Parameters
    ----------
    case
        As found.
    spec
        How it is read.
    known
        Names of channels that may be kept.

    Raises
    ------
    InputError
        As `medseg.load`; a channel is not there; the inputs do not fit together.
    """
    plain = spec.case.model_copy(update={"channels": None})
    parts = {}
    for one in case.inputs:
        parts[one.role] = _read(one, plain)
    if len(parts) < len(case.inputs):
        raise InputError("two inputs have the same role; give each its own")
    image = _chosen(combine(parts) if len(parts) > 1 else parts[case.inputs[0].role], spec)
    if len(parts) > 1 or (image.source and image.source.format == "dicom"):
        return image  # its channels are named by roles, or by what DICOM calls red, green and blue
    names = tuple(
        n if n.lower() in known or n.isdecimal() and len(n) < 3 else str(i) for i, n in enumerate(image.channels)
    )
    return replace(image, channels=names if len(set(names)) == len(names) else ())


def _read(one: Input, spec: CaseSpec) -> Image:
    if suffix(one.files[0]).lstrip(".") in SCOPES:
        return read(one.files[0], spec, one.series or None)
    path = one.files[0] if len(one.files) == 1 and not one.series else one.files
    try:
        return read(path, spec)
    except FormatError:  # of files that hold several series, the key says which; alone, a series may have another key
        if not one.series:
            raise
        return read(path, spec, one.series)


def _chosen(image: Image, spec: BatchSpec) -> Image:
    if spec.case.channels is None:
        return image
    try:
        return image.select(spec.case.channels)
    except InputError:  # its message lists names that the file gives
        asked = ", ".join(map(str, spec.case.channels))
        raise InputError(f"there is no channel {asked} among the {len(image.channels)} of the image") from None


def known_channels(spec: BatchSpec) -> frozenset[str]:
    """Return names of channels that nobody is known by: of colours, and those that the model or the command names."""
    asked = {str(name).lower() for name in spec.case.channels or ()}
    if spec.case.model is None:
        return _PLAIN | asked
    about = read_header(find(spec.case.model)).preprocess
    return frozenset(_PLAIN | asked | {name.lower() for name in (*about.channels, *about.optional)})
