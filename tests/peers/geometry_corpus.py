"""Run the geometry corpus through medseg, SimpleITK and MONAI, and write the table of outcomes as a page of the docs.

python tests/peers/geometry_corpus.py docs/reference/geometry.md

Each reader is called as its documentation says to read a series. Where one returns a volume for each series it finds, all
are judged; where it returns one volume of several, that one must at least be a true one, and it is called "one of N".
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from monai.data import ITKReader, PydicomReader
from monai.transforms import LoadImage

from medseg.grid import Grid
from medseg.testing.corpus import CASES
from medseg.testing.judge import outcome, why_wrong

sitk.ProcessObject.SetGlobalWarningDisplay(False)
ITK = (
    importlib.util.find_spec("itk") is not None
)  # MONAI's ITKReader needs the package; without it its column is left out
READERS = ("medseg", "SimpleITK", *(["MONAI ITKReader"] if ITK else []), "MONAI PydicomReader")
ROUTES = {"plain": "right", "series": "right, asks which", "regularize": "right, resampled on request"}


def by_simpleitk(given) -> list:
    """Volumes as (values, affine) of every series that GDCM finds below a folder, or of the files given."""
    reader, groups = sitk.ImageSeriesReader(), []
    if isinstance(given, list):
        groups = [[str(file) for file in given]]
    elif given.is_file():
        groups = [[str(given)]]
    else:
        for uid in reader.GetGDCMSeriesIDs(str(given)):
            groups.append(reader.GetGDCMSeriesFileNames(str(given), uid))
    if not groups:
        raise RuntimeError("no series found")
    out = []
    for names in groups:
        reader.SetFileNames(names)
        image = reader.Execute() if len(names) > 1 else sitk.ReadImage(names[0])
        values = sitk.GetArrayFromImage(image)
        values = np.moveaxis(values, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else values[None]
        grid = Grid.from_itk(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        out.append((values, grid.affine))
    return out


def by_monai(reader):
    """A function that reads with MONAI's LoadImage: one volume, (i, j, k) or (i, j), and the affine it states."""

    def read(given) -> list:
        names = [str(file) for file in given] if isinstance(given, list) else str(given)
        image = LoadImage(reader=reader(), image_only=True, ensure_channel_first=True)(names)
        values, affine = np.asarray(image), np.asarray(image.affine, dtype=np.float64)
        if values.ndim == 5:  # colour, which it puts between y and z
            values = np.moveaxis(values[0], 2, 0)
        return [(values if values.ndim == 4 else values[..., None], affine)]

    return read


@contextlib.contextmanager
def silent():
    """Keep C++ libraries from writing to the terminal."""
    with open(os.devnull, "w") as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = [os.dup(1), os.dup(2)]
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def judged(read, given, truths) -> str:
    """What a peer makes of a case."""
    try:
        with silent():
            volumes = read(given)
    except Exception:
        return "refused"
    wrong, found = "", set()
    for values, affine in volumes:
        reasons = [why_wrong(values, affine, truth, strict=False) for truth in truths]
        found |= {i for i, why in enumerate(reasons) if why is None}
        if None not in reasons:
            wrong = reasons[0] if reasons else "should be refused"
    if wrong:
        return f"**WRONG**: {wrong}"
    return "right" if len(found) == len(truths) else f"one of {len(truths)}"


def row(case) -> list[str]:
    """Name and outcome for each reader."""
    with tempfile.TemporaryDirectory() as folder:
        given, truths = case.written(Path(folder))
        with silent():
            ours = outcome(given, truths)
        cells = [ROUTES[ours.route] if ours.verdict == "right" else ours.verdict]
        peers = [by_simpleitk, *([by_monai(ITKReader)] if ITK else []), by_monai(PydicomReader)]
        cells += [judged(read, given, truths) for read in peers]
    return [case.name, *cells]


def page(rows: list[list[str]]) -> str:
    """The page of the docs."""
    kinds = ("right", "one of several", "refused", "WRONG")
    count = [Counter(_kind(row[i]) for row in rows) for i in range(1, len(READERS) + 1)]
    answerable = sum(case.answerable for case in CASES)
    lines = [
        "# Geometry of DICOM series",
        "",
        f"{len(rows)} series that `medseg.testing.corpus` writes, each with its truth: the world position and the value of",
        f"every voxel. {answerable} of them have a right answer; for the others the only right answer is no.",
        "",
        "- **right**: every voxel within 0.01 mm of its place (where slices jitter, within max(0.05 mm, 2 % of the spacing)) and",
        "  its value exact; after resampling, values within rounding of what lies at that place.",
        "- **one of N**: a true volume, but one of several that lie there, chosen without a word.",
        "- **refused**: an error instead of an image.",
        "- **WRONG**: an image that is not the truth, without an error.",
        "",
        f"Written by `tests/peers/geometry_corpus.py` with SimpleITK {version('SimpleITK')} and MONAI {version('monai')}.",
        "SimpleITK's `ImageSeriesReader` gets the files of each series that GDCM finds; MONAI's `LoadImage` gets the folder.",
        *([] if ITK else ["MONAI's ITKReader needs the package itk, which was not installed; it is left out."]),
        "Values of MONOCHROME1 count as right for the peers as stored, too.",
        "",
        "| | " + " | ".join(READERS) + " |",
        "|---|" + "---:|" * len(READERS),
    ]
    lines += [f"| {kind} | " + " | ".join(str(one[kind]) for one in count) + " |" for kind in kinds]
    lines += ["", "| case | " + " | ".join(READERS) + " |", "|---|" + "---|" * len(READERS)]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _kind(cell: str) -> str:
    if "WRONG" in cell:
        return "WRONG"
    return "one of several" if cell.startswith("one of") else cell.split(",")[0]


def main() -> None:
    """Run everything; write to the path given, or to the terminal."""
    rows = []
    for number, case in enumerate(CASES, 1):
        rows.append(row(case))
        sys.stderr.write(f"{number:4} {' | '.join(rows[-1])}\n")
    text = page(rows)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
