"""What ``medseg evaluate`` scores: label files paired by name, images of two COCO files, and the tables beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.cli.common import say, why
from medseg.errors import FormatError, InputError, MedsegError, MissingError

if TYPE_CHECKING:
    import pandas as pd

    from medseg.io.cocodata import CocoImage

_TABLES = tuple(f"_{kind}{suffix}" for kind in ("instances", "table") for suffix in (".csv", ".parquet"))


@dataclass(frozen=True, eq=False)
class Pair:
    """A case to score: two label files, or the same image of two COCO files."""

    name: str
    prediction: Path | CocoImage
    truth: Path | CocoImage

    @property
    def place(self) -> str:
        """What an error about it names."""
        return str(self.prediction) if isinstance(self.prediction, Path) else self.name


def pairs(prediction: Path, truth: Path) -> tuple[list[Pair], list[str], tuple[str, ...]]:
    """Cases of two files or folders, what has no partner, and the class names.

    Raises
    ------
    MissingError, InputError
        Nothing is there, a file and a folder, or COCO files that do not belong together.
    """
    for path in (prediction, truth):
        if not path.exists():
            raise MissingError(f"{path}: no such file or folder; check the path")
    if prediction.is_dir() != truth.is_dir():
        raise InputError(f"of {prediction} and {truth} one is a file and one a folder; give two files or two folders")
    json = [path.suffix.lower() == ".json" for path in (prediction, truth)]
    if all(json):
        return _coco_pairs(prediction, truth)
    if any(json):
        raise InputError(f"{prediction} and {truth}: one is COCO JSON, the other is not; give two of a kind")
    if not prediction.is_dir():
        found = [Pair(_base(prediction), prediction, truth)]
        return found, [], _classes(found)
    known = _by_name(truth)
    mine = _by_name(prediction)
    faults = [f"{p}: has no truth of the same name in {truth}" for name, p in mine.items() if name not in known]
    if lonely := sorted(known.keys() - mine.keys()):
        faults.append(f"{prediction}: has no labels for {', '.join(lonely)} of {truth}; these are not scored")
    found = [Pair(name, p, known[name]) for name, p in mine.items() if name in known]
    return found, faults, _classes(found)


def _coco_pairs(prediction: Path, truth: Path) -> tuple[list[Pair], list[str], tuple[str, ...]]:
    """Images of two COCO files by id; an image that a results list does not name has no predictions."""
    from medseg import io

    with suppress(OSError), truth.open(encoding="utf-8", errors="replace") as file:
        if file.read(64).lstrip("\ufeff \t\r\n").startswith("["):
            raise InputError(f"{truth} is a results list; truth is an instances file. The prediction comes first.")
    try:
        known = io.load_coco(truth)
    except MedsegError as error:
        raise InputError(why(truth, error)) from None
    try:
        found = io.load_coco(prediction, like=known)
    except MedsegError as error:
        raise InputError(why(prediction, error)) from None
    images = {image.id: image for image in found.images}
    numbers = {image.id for image in known.images}
    faults = [f"{prediction}: image {k} ({i.name}) is not in {truth}" for k, i in images.items() if k not in numbers]
    if lonely := [image.name for image in known.images if image.id not in images]:
        faults.append(f"{prediction}: has no image {', '.join(lonely)} of {truth}; these are not scored")
    several = len({image.name for image in known.images}) < len(known.images)
    out = [
        Pair(f"{image.name} ({image.id})" if several else image.name, images[image.id], image)
        for image in known.images
        if image.id in images
    ]
    return out, faults, known.classes or ("object",)


def _rank(path: Path) -> tuple[int, str]:
    """What a label file's name says: 2 for NAME_truth, 1 for NAME_labels, 0 for NAME; and NAME."""
    from medseg import io

    stem = io.stem(path)
    rank = 2 if stem.endswith("_truth") else 1 if stem.endswith("_labels") else 0
    return rank, stem.removesuffix(("", "_labels", "_truth")[rank])


def _base(path: Path) -> str:
    return _rank(path)[1]


def _by_name(folder: Path) -> dict[str, Path]:
    """Label files by the name of their image; of NAME, NAME_labels and NAME_truth the last that is there."""
    from medseg import io

    files = [p for p in folder.iterdir() if io.is_image(p) and not io.stem(p).endswith("_overlay")]
    if not files:
        raise MissingError(f"{folder}: holds no label images; name the folder that holds the files themselves")
    ranked = sorted((*_rank(p), p) for p in files)
    found = {name: p for _, name, p in ranked}
    # NAME beside NAME_labels is the image of these; two of one rank are a choice that nobody made
    if beside := [
        (path, found[name]) for rank, name, path in ranked if path != found[name] and rank == _rank(found[name])[0]
    ]:
        one, other = beside[0]
        say(f"medseg: note: {folder}: {len(beside)} files are passed over beside others of the same name, such as "
            f"{one.name} beside {other.name}")  # fmt: skip
    return found


def _classes(found: Sequence[Pair]) -> tuple[str, ...]:
    """Class names of all tables, in the order they occur; one name if no table, or only one side's, has several."""
    told: tuple[dict[str, None], dict[str, None]] = {}, {}
    for pair in found:
        for names, path in zip(told, (pair.prediction, pair.truth), strict=True):
            try:
                table = _table(path) if isinstance(path, Path) else None
            except MedsegError:
                continue  # told when the case is scored
            if table is not None and "class" in table:
                names.update(dict.fromkeys(table["class"].dropna().astype(str).tolist()))
    either = {**told[1], **told[0]}
    return tuple(either) if all(told) and max(map(len, told)) > 1 else ("object",)


def _table(labels: Path) -> pd.DataFrame | None:
    """The table of instances beside a label file, as `medseg segment` writes it; None if there is none.

    Raises
    ------
    FormatError
        It cannot be read, or has no column id.
    """
    import pandas as pd

    for ending in _TABLES:
        path = labels.with_name(_base(labels) + ending)
        if path.is_file():
            try:
                table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
                whole = table["id"].astype("int64")
            except Exception:  # pandas and pyarrow raise anything on damaged files
                raise FormatError(f"{path}: is no table of instances with a column id; mend or remove it.") from None
            if whole.duplicated().any() or (whole != table["id"]).any():
                raise FormatError(f"{path}: ids must be whole and each occur once; mend or remove it.")
            return table.set_index(whole)
    return None


def told(labels: Path, ids: Any, classes: tuple[str, ...]) -> tuple[Any, Any]:
    """Scores and class numbers of the ids, from the table beside the labels; None where there are none."""
    table = _table(labels)
    if len(classes) > 1 and (table is None or "class" not in table):
        raise InputError(
            f"{labels}: has no table with a column class beside it, as others have; add it, or remove theirs"
        )
    if table is None:
        return None, None
    if missing := sorted(set(ids.tolist()) - set(table.index.tolist())):
        raise InputError(f"{labels}: the table beside it has no id {missing[0]}; it belongs to other labels")
    rows = table.loc[ids]
    scores = kinds = None
    if "score" in rows:
        if len(rows) and rows["score"].dtype.kind not in "fiu":  # a column without rows has any type
            raise FormatError(f"{labels}: the table beside it has scores that are no numbers")
        scores = rows["score"].to_numpy(dtype="float64")
    if "class" in rows and len(classes) > 1:
        number = {name: k for k, name in enumerate(classes, 1)}
        kinds = [number.get(name, 0) for name in rows["class"].astype(str)]
        if 0 in kinds:
            raise InputError(f"{labels}: the table beside it gives an object no class")
    return scores, kinds
