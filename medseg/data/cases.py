"""Cases on disk: an image and its instance labels, found by split and stem."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg import io, preprocess, presets
from medseg.errors import InputError, MissingError, SpecError
from medseg.image import Image
from medseg.ops.labels import dense
from medseg.spec import DataSpec, PreprocessSpec, SourceSpec

SPLITS = ("train", "tune", "val")


@dataclass(frozen=True)
class CaseFiles:
    """Where one case lies. ``spacing`` (mm, array order) replaces what the file does not say."""

    source: str
    stem: str
    image: Path
    labels: Path
    spacing: tuple[float, ...] | None

    def load(self) -> tuple[Image, NDArray[np.int32]]:
        """Read the image and its instance ids, shapes checked against each other."""
        image = io.load(self.image, spacing=self.spacing)
        truth = io.load_labels(self.labels, spacing=self.spacing).labels
        if truth.shape != image.grid.shape:
            raise InputError(
                f"{self.labels.name}: labels of shape {truth.shape} for an image of shape {image.grid.shape}; "
                "both must be the same"
            )
        return image, truth


@dataclass(frozen=True)
class Case:
    """One case in memory, as the network sees it: float image (C, *shape), ids, spacing, instance centres (N, ndim)."""

    source: str
    stem: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    spacing: tuple[float, ...]
    centres: NDArray[np.float64]


def data_root() -> Path:
    """Folder that relative data paths start from: ``MEDSEG_DATA``, else ``../shared/data`` beside the checkout."""
    if found := os.environ.get("MEDSEG_DATA"):
        return Path(found)
    return Path(__file__).resolve().parents[2].parent / "shared" / "data"


def read_split(name: str) -> dict[str, dict[str, list[str]]]:
    """Split file by path, or by name from ``configs/splits``: {source: {train: [stems], tune: [...], val: [...]}}."""
    path = Path(name) if Path(name).is_file() else presets.folder() / "splits" / name
    try:
        split = json.loads(path.read_text(encoding="utf-8"))["splits"]
        return {str(s): {k: [str(x) for x in v[k]] for k in SPLITS} for s, v in split.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise SpecError(f"{path}: no readable split file; make one with: medseg split --help") from None


def find(data: DataSpec, split: str, sources: tuple[str, ...] = ()) -> list[CaseFiles]:
    """Cases of one split (``train``, ``tune`` or ``val``), of all sources or of those named.

    Raises
    ------
    MissingError
        A file of the split is not there.
    """
    if split not in SPLITS:
        raise SpecError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    stems = read_split(data.split)
    found = []
    for source in data.sources:
        if sources and source.name not in sources:
            continue
        if source.name not in stems:
            raise SpecError(f"{data.split}: has no source {source.name!r}")
        found += [_files(source, stem) for stem in stems[source.name][split]]
    return found


def load_cases(files: list[CaseFiles], spec: PreprocessSpec) -> tuple[Case, ...]:
    """Read and preprocess cases into memory."""
    out = []
    for one in files:
        image, truth = one.load()
        prepared = preprocess.plan(image, spec)
        array = prepared.read(image, tuple(slice(0, n) for n in image.grid.shape))
        _, labels = dense(prepared.to_model_labels(truth))  # targets count ids: 1 to N whatever the file holds
        out.append(Case(one.source, one.stem, array, labels, prepared.model_spacing, centres(labels)))
    return tuple(out)


def centres(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Centroid of each instance in index units, (N, ndim)."""
    index = np.nonzero(labels)
    _, ids = np.unique(labels[index], return_inverse=True)
    if not ids.size:
        return np.zeros((0, labels.ndim))
    count = np.bincount(ids)
    return np.stack([np.bincount(ids, weights=i) / count for i in index], axis=1)


def _files(source: SourceSpec, stem: str) -> CaseFiles:
    root = data_root()
    image = _one(root / source.images, stem)
    return CaseFiles(source.name, stem, image, _one(root / source.labels, stem), source.spacing)


def _one(folder: Path, stem: str) -> Path:
    for path in sorted(folder.glob(f"{stem}.*")):
        return path
    raise MissingError(f"{folder}: no file {stem}.*; set MEDSEG_DATA to the folder that holds the training data")
