"""The public functions that `medseg.testing.fuzz` gives damaged files to: each reads header and voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _image(path: Path, ct: Path) -> None:
    from medseg import io

    io.load(path).voxels().max()


def _labels(path: Path, ct: Path) -> None:
    from medseg import io

    io.load(path).voxels()
    io.load_labels(path).labels.max()


def _series(path: Path, ct: Path) -> None:
    """The mutant stands in for one slice of a series."""
    from medseg import io

    files = [path, *sorted(ct.iterdir())[1:]]
    io.series(files)
    io.load(files).voxels()


def _objects(path: Path, ct: Path) -> None:
    from medseg import io

    io.load_candidates(path)
    io.load_labels(path).labels.max()


def _contours(path: Path, ct: Path) -> None:
    from medseg import io

    io.load_candidates(path, like=ct)


def _report(path: Path, ct: Path) -> None:
    from medseg import io

    io.load_report(path)


def _coco(path: Path, ct: Path) -> None:
    from medseg import io

    for one in io.load_coco(path).images:
        repr(one)


def _model(path: Path, ct: Path) -> None:
    from medseg.model import Model, read_header

    read_header(path)
    Model.load(path, "cpu")


def _split(path: Path, ct: Path) -> None:
    from medseg.spec import SplitSpec, load_yaml

    load_yaml(SplitSpec, path)


def _train(path: Path, ct: Path) -> None:
    from medseg.spec import TrainSpec, load_yaml

    load_yaml(TrainSpec, path)


def _session(path: Path, ct: Path) -> None:
    from medseg_napari.session import Session

    session = Session.resume(path)
    if session.journal is not None:
        session.journal.close()


READERS: dict[str, Callable[[Path, Path], None]] = {
    "image": _image, "labels": _labels, "series": _series, "objects": _objects, "contours": _contours, "report": _report,
    "coco": _coco, "model": _model, "split": _split, "train": _train, "session": _session,
}  # fmt: skip
