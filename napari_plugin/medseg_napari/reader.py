"""Open files in napari: NIfTI, NRRD, MetaImage, TIFF, PNG, DICOM files and folders, DICOM SEG and RTSTRUCT, CZI, ND2 and LIF.

napari asks every plugin about every path, so asking must be quick: suffixes, and the first bytes of a few files of a folder.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

Given = str | list[str]
LayerData = tuple[Any, dict[str, Any], str]

_LOOKED_AT = 40  # files of a folder that may be looked at before it is called foreign
_SCOPES = (".czi", ".nd2", ".lif")
_SUFFIXES = (
    *_SCOPES,
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".dcm",
    ".ima",
    ".tif",
    ".tiff",
    ".png",
    ".jpg",
    ".jpeg",
)
_READS = "It opens NIfTI, NRRD, MetaImage, TIFF, PNG, JPEG, CZI, ND2 and LIF files, and DICOM files and folders."
_NOTHING: list[Any] = [(None,)]  # napari's sign that there is no layer and no fault
_LABEL_WORDS = ("label", "_seg", "-seg", "mask", "dseg", "truth", "instance")


def get_reader(path: Given) -> Callable[[Given], list[LayerData]] | None:
    """Return the reader of these paths.

    DICOM files need no suffix, so napari asks us about every path, but only when a person chose medseg or nobody else reads the
    path. What holds no image therefore gets a reader that says so: None would make napari raise an error of its own.
    """
    paths = [path] if isinstance(path, str) else list(path)
    if not paths:
        return None
    return read if readable(paths) else _refuse


def readable(paths: list[str]) -> bool:
    """Return whether these paths may hold an image that medseg reads, by their names and first bytes."""
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return _holds_dicom(paths[0])
    return all(os.path.isfile(p) and (_named(p) or _is_dicom(p)) for p in paths)


def _refuse(path: Given) -> list[LayerData]:
    """Say that there is nothing to open."""
    from medseg_napari import notices

    paths = [path] if isinstance(path, str) else list(path)
    foreign = next((one for one in paths if not readable([one])), paths[0])
    what = "folder" if os.path.isdir(foreign) else "file"
    notices.problem(
        f"{os.path.basename(foreign.rstrip(os.sep))}: this {what} holds no image that medseg reads. {_READS}"
    )
    return _NOTHING


def read(path: Given) -> list[LayerData]:
    """Return layers, with problems shown as napari's notifications instead of tracebacks."""
    from medseg.errors import MedsegError
    from medseg_napari import notices

    paths = [path] if isinstance(path, str) else list(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layers = _layers(paths)
    except (MedsegError, OSError, MemoryError) as error:
        notices.problem(error)
        return _NOTHING
    for text in dict.fromkeys(str(w.message) for w in caught):
        notices.note(text)
    return layers or _NOTHING


def _layers(paths: list[str]) -> list[LayerData]:
    from medseg import io
    from medseg_napari.layers import of_frames, of_image

    if len(paths) > 1 and all(_is_dicom(p) for p in paths):
        return of_image(io.load(paths), "DICOM")
    out: list[LayerData] = []
    for one in paths:
        path = Path(one)
        if path.is_dir() or _is_dicom(one):
            out += _dicom(path)
        elif path.suffix.lower() in _SCOPES:
            out += _scene(path)
        elif any(word in path.name.lower() for word in _LABEL_WORDS):
            out.append(_labels(path))
        else:
            frames = io.frames(path)
            of_one = of_image(frames[0], io.stem(path))
            out += of_one if len(frames) == 1 else of_frames(frames, io.stem(path))
    return out


def _scene(path: Path) -> list[LayerData]:
    """A file of a microscope, which may hold several images."""
    from medseg import io
    from medseg.io import scopes
    from medseg_napari._qt.picker import choose_scene
    from medseg_napari.layers import of_image

    number = scopes.count(path)
    if number == 1:
        return of_image(io.load(path), io.stem(path))
    which = choose_scene(path, number)
    return [] if which is None else of_image(io.load(path, series=which), f"{io.stem(path)} scene {which}")


def _labels(path: Path) -> LayerData:
    from medseg import io
    from medseg_napari.layers import of_label_frames, of_labels

    frames = io.frames(path)
    return (
        of_labels(io.load_labels(path), io.stem(path)) if len(frames) == 1 else of_label_frames(frames, io.stem(path))
    )


def _dicom(path: Path) -> list[LayerData]:
    from medseg import io
    from medseg.io.clinical.objects import RTSTRUCT, SEG, is_kind
    from medseg_napari._qt.picker import choose
    from medseg_napari.layers import of_image, of_labels

    if path.is_file() and is_kind(path, SEG + RTSTRUCT):
        return [of_labels(io.load_labels(path), "segmentation")]
    found = io.series(path)
    one = found[0] if len(found) == 1 and not found[0].problems else choose(found)
    if one is None:
        return []
    # named by modality and hash: a series description may hold a patient's name
    return of_image(io.load(path, series=one.key, regularize=bool(one.problems)), f"{one.modality} {one.key[:6]}")


def _named(path: str) -> bool:
    return path.lower().endswith(_SUFFIXES)


def _is_dicom(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _holds_dicom(folder: str) -> bool:
    files = (os.path.join(base, name) for base, _, names in os.walk(folder) for name in sorted(names))
    return any(_is_dicom(path) for path in islice(files, _LOOKED_AT))
