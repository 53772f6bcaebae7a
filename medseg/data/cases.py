"""Cases on disk: an image and its instance labels, found by split and stem."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from medseg import io, preprocess, presets
from medseg.errors import InputError, MissingError, SpecError
from medseg.image import Image
from medseg.ops.labels import across, dense, usual_size
from medseg.spec import PreprocessSpec, SourceSpec, TrainSpec

SPLITS = ("train", "tune", "val")
_RIM = 3  # voxels around a labelled object that are background for sure, although others were not labelled


@dataclass(frozen=True)
class Annotation:
    """What somebody drew on an image.

    Attributes
    ----------
    labels : int32 (*shape)
        Instance ids as in the file.
    ignore : bool (*shape) or None
        Where nobody annotated.
    classes : int32 (N,) or None
        Class number from 1 of each id that occurs, in the order of the ids; 0 where it is not known.
    """

    labels: NDArray[np.int32]
    ignore: NDArray[np.bool_] | None = None
    classes: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class CaseFiles:
    """Where one case lies. ``spacing`` (mm, array order) replaces what the file does not say."""

    source: str
    stem: str
    image: Path
    labels: Path
    spacing: tuple[float, ...] | None
    ignore: Path | None = None
    classes: Path | None = None
    names: tuple[str, ...] = ()
    partial: bool = False
    slices: int = 0

    def load(self) -> tuple[Image, Annotation]:
        """Read the image and what was drawn on it, shapes checked against each other."""
        image = io.load(self.image, spacing=self.spacing)
        truth = self._labels(self.labels, image)
        ignore = None if self.ignore is None else self._labels(self.ignore, image) > 0
        if self.partial:
            away = distance_transform_edt(truth == 0) if truth.any() else np.full(truth.shape, np.inf)
            unknown = (truth == 0) & (away > _RIM)
            ignore = unknown if ignore is None else ignore | unknown
        classes = None if self.classes is None else instance_classes(self.classes, truth, self.names)
        return image, Annotation(truth, ignore, classes)

    def _labels(self, path: Path, image: Image) -> NDArray[np.int32]:
        truth = io.load_labels(path, spacing=self.spacing)
        if truth.grid.shape != image.grid.shape:
            raise InputError(
                f"{path.name}: labels of shape {truth.grid.shape} for an image of shape {image.grid.shape}; "
                "both must be the same"
            )
        if truth.grid.known and image.grid.known and (why := image.grid.why_not(truth.grid)):
            raise InputError(f"{path.name}: lies elsewhere than its image: {why}; resample it onto the image's grid")
        return truth.labels


@dataclass(frozen=True)
class Case:
    """One case in memory, as the network sees it.

    Attributes
    ----------
    image : float32 (C, *shape)
        About 0 to 1.
    labels : int32 (*shape)
        Ids 1 to N, 0 background, -1 where nobody annotated.
    spacing : tuple of float
        Per array axis.
    centres : float64 (N, ndim)
        Centroid of each instance, array index.
    classes : int32 (N + 1,) or None
        Class number of each id; 0 of the background and where it is not known.
    diameter : float
        Median diameter of the instances in voxels of the finest axis; 0 without instances.
    """

    source: str
    stem: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    spacing: tuple[float, ...]
    centres: NDArray[np.float64]
    classes: NDArray[np.int32] | None = None
    diameter: float = 0.0


def data_root() -> Path:
    """Folder that relative data paths start from: ``MEDSEG_DATA``, else ``../shared/data`` beside the checkout."""
    if found := os.environ.get("MEDSEG_DATA"):
        return Path(found)
    return Path(__file__).resolve().parents[2].parent / "shared" / "data"


def read_split(name: str, fold: int | None = None) -> dict[str, dict[str, list[str]]]:
    """Split file by path, or by name from ``configs/splits``: {source: {train: [stems], tune: [...], val: [...]}}.

    Raises
    ------
    SpecError
        There is none, it cannot be read, or `fold` is none of its folds.
    """
    path = Path(name) if Path(name).is_file() else presets.folder() / "splits" / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        folds = content.get("folds")
        if (folds is None) != (fold is None) or (folds is not None and not 0 <= (fold or 0) < len(folds)):
            have = "has no folds" if folds is None else f"has the folds 0 to {len(folds) - 1}"
            raise SpecError(f"{path}: {have}; set data.fold (--fold) accordingly")
        split = content["splits"] if folds is None else folds[fold]
        return {str(s): {k: [str(x) for x in v[k]] for k in SPLITS} for s, v in split.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path}: no readable split file; make one with: medseg split --help") from None


def find(spec: TrainSpec, split: str, sources: tuple[str, ...] = ()) -> list[CaseFiles]:
    """Cases of one split (``train``, ``tune`` or ``val``) of a training, of all sources or of those named.

    Raises
    ------
    MissingError
        A file of the split is not there.
    """
    if split not in SPLITS:
        raise SpecError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    stems = read_split(spec.data.split, spec.data.fold)
    found = []
    for source in spec.data.sources:
        if (sources and source.name not in sources) or (source.slices and split != "train"):
            continue  # stacks that a 2-D network learns slices of are nothing it could be scored on
        if source.name not in stems:
            raise SpecError(f"{spec.data.split}: has no source {source.name!r}")
        found += [case_files(source, stem, spec.class_names) for stem in stems[source.name][split]]
    return found


def load_cases(files: list[CaseFiles], spec: PreprocessSpec, sized: bool = False) -> tuple[Case, ...]:
    """Read and preprocess cases into memory; of sources of slices, each slice is a case.

    With ``sized``, images whose objects are too small or too large for `spec` are resampled as a run would, by their true size.
    """
    out = []
    for one in files:
        image, drawn = _turned(*one.load(), spec)
        whole = diameter(drawn.labels, image.grid.spacing)  # of a stack: slices also cut objects near their ends
        for number, (flat, truth) in enumerate(slices(image, drawn, one.slices)):
            zoom = preprocess.zoom_for(usual_diameter(truth.labels, flat.grid.spacing), spec) if sized else 1.0
            prepared = preprocess.plan(flat, spec, zoom)
            array = prepared.read(flat, tuple(slice(0, n) for n in flat.grid.shape))
            # targets count ids: 1 to N whatever the file holds
            ids, labels = dense(prepared.to_model_labels(truth.labels))
            classes = None
            if truth.classes is not None:
                before = np.unique(truth.labels[truth.labels > 0])
                classes = np.concatenate([[0], truth.classes[np.isin(before, ids)]]).astype(np.int32)
            middle = centres(labels)
            size = whole if one.slices else diameter(labels, prepared.model_spacing)
            if truth.ignore is not None:
                hidden = prepared.to_model_labels(truth.ignore.astype(np.int32)) > 0
                labels = np.where(hidden, np.int32(-1), labels)
            name = f"{one.stem}[{number}]" if one.slices else one.stem  # number of the slice among those taken
            out.append(Case(one.source, name, array, labels, prepared.model_spacing, middle, classes, size))
    return tuple(out)


def _turned(image: Image, drawn: Annotation, spec: PreprocessSpec) -> tuple[Image, Annotation]:
    """Both in the orientation that the model is to know."""
    whole, turn = preprocess.turned(image, spec)
    ignore = None if drawn.ignore is None else turn.forth(drawn.ignore)
    return whole, replace(drawn, labels=turn.forth(drawn.labels), ignore=ignore)


def slices(image: Image, drawn: Annotation, step: int) -> Iterator[tuple[Image, Annotation]]:
    """The image itself, or every `step`-th slice of a stack that shows an instance, as images of their own."""
    if not step:
        yield image, drawn
        return
    stack, depth = image.voxels(), image.grid.shape[0]
    spacing = image.grid.spacing[1:] if image.grid.known else None
    for z in range(min(step, depth) // 2, depth, step):
        labels = np.ascontiguousarray(drawn.labels[z])
        if labels.any():
            ids = np.unique(drawn.labels[drawn.labels > 0])
            classes = None if drawn.classes is None else drawn.classes[np.isin(ids, labels)]
            ignore = None if drawn.ignore is None else drawn.ignore[z]
            flat = Image.from_array(
                stack[:, z], spacing, channel_axis=0, modality=image.modality, channels=image.channels
            )
            yield flat, Annotation(labels, ignore, classes)


def centres(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Centroid of each instance in index units, (N, ndim)."""
    index = np.nonzero(labels > 0)
    _, ids = np.unique(labels[index], return_inverse=True)
    if not ids.size:
        return np.zeros((0, labels.ndim))
    count = np.bincount(ids)
    return np.stack([np.bincount(ids, weights=i) / count for i in index], axis=1)


def diameter(labels: NDArray[np.int32], spacing: tuple[float, ...]) -> float:
    """Median diameter of the instances in voxels of the finest axis; 0 without instances."""
    size = _sizes(labels)
    return float(np.median(across(size, spacing))) if size.size else 0.0


def usual_diameter(labels: NDArray[np.int32], spacing: tuple[float, ...]) -> float:
    """As `diameter`, but of the object that half of the labelled voxels belong to larger ones than: what a run goes by."""
    size = _sizes(labels)
    return float(across(usual_size(size), spacing)) if size.size else 0.0


def _sizes(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Voxels of each instance that occurs."""
    size = np.bincount(labels[labels > 0].ravel())
    return size[size > 0]


def instance_classes(path: Path, labels: NDArray[np.int32], names: tuple[str, ...]) -> NDArray[np.int32]:
    """Class number of each id that occurs, in the order of the ids: from a table of ids, or an image of class numbers.

    Of an image, most of an instance's voxels decide; 0 there, or no row in a table, is an instance whose class is not known.

    Raises
    ------
    InputError
        A table without columns id and class, or a class that is not one of `names`.
    """
    ids = np.unique(labels[labels > 0])
    if path.suffix.lower() == ".csv":
        import pandas as pd

        try:
            table = pd.read_csv(path, dtype={"class": str}, keep_default_na=False).set_index("id")["class"]
        except (OSError, ValueError, KeyError):
            raise InputError(f"{path.name}: is no table with columns id and class") from None
        if table.index.has_duplicates:
            raise InputError(
                f"{path.name}: id {table.index[table.index.duplicated()][0]} occurs twice; each has one class"
            )
        number = {"": 0} | {name: i for i, name in enumerate(names, 1)}
        if strange := sorted(set(table) - set(number)):
            raise InputError(f"{path.name}: class {strange[0]!r} is none of {', '.join(names)}")
        return np.array([number[table.get(i, "")] for i in ids.tolist()], dtype=np.int32)
    if not len(ids):
        return np.zeros(0, np.int32)
    image = io.load_labels(path).labels
    if image.shape != labels.shape or image.max() > len(names):
        raise InputError(
            f"{path.name}: must have shape {labels.shape} and class numbers 0 to {len(names)}, "
            f"has {image.shape} and {image.max()}"
        )
    inside = labels > 0
    row = np.searchsorted(ids, labels[inside])
    votes = np.bincount(row * (len(names) + 1) + image[inside], minlength=len(ids) * (len(names) + 1))
    most: NDArray[np.int32] = votes.reshape(len(ids), -1).argmax(axis=1).astype(np.int32)
    return most


def case_files(source: SourceSpec, stem: str, names: tuple[str, ...]) -> CaseFiles:
    """Files of one image of a source; `names` are class names.

    Raises
    ------
    MissingError
        The image, its labels, or what else the source promises is not there.
    """
    root = data_root()
    return CaseFiles(
        source.name,
        stem,
        _one(root / source.images, stem),
        _one(root / source.labels, stem),
        source.spacing,
        None if source.ignore is None else _one(root / source.ignore, stem),
        None if source.classes is None else _one(root / source.classes, stem),
        names,
        source.partial,
        source.slices,
    )


def _one(folder: Path, stem: str) -> Path:
    try:
        found = _by_stem(folder, folder.stat().st_mtime_ns).get(stem, ())
    except OSError:
        found = ()
    if not found:
        raise MissingError(
            f"{folder}: no file {stem}.*; add it, or set MEDSEG_DATA to the folder that holds the training data"
        )
    if len(found) > 1:
        raise InputError(f"{folder}: {' and '.join(p.name for p in found[:2])} have one name; keep one of them")
    return found[0]


@lru_cache(maxsize=64)
def _by_stem(folder: Path, changed: int) -> dict[str, tuple[Path, ...]]:
    """Images and tables of a folder by stem; `changed` is when the folder last was."""
    out: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.iterdir()):
        table = path.suffix.lower() == ".csv"
        if (table or io.is_image(path)) and not path.name.startswith("."):
            stem = path.stem if table else io.stem(path)
            out[stem] = (*out.get(stem, ()), path)
    return out
