"""What lies in a folder: several series, junk, files that are cut off, other objects among the slices."""

from __future__ import annotations

import gc
import shutil
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from medseg.testing.corpus.case import Case, Given, Written, case
from medseg.testing.series import Plane, Truth, save, stack, write

CASES: list[Case] = []
here = partial(case, CASES)

CUT = "truncat|damaged|breaks off|cut"


@here("a list of files")
def _listed(folder: Path) -> Written:
    truth = save(folder, stack(angles=(10, 20, 30)))
    return sorted(folder.iterdir())[::-1], [truth]


@here("names without a suffix")
def _bare(folder: Path) -> Written:
    return save(folder, stack(), name="IM{:05d}")


@here("names are UIDs")
def _uids(folder: Path) -> Written:
    return save(folder, stack(), name="1.2.840.99.{:03d}")


@here("two series in a folder", "series", word="series")
def _two(folder: Path) -> Written:
    one = save(folder, stack(angles=(10, 20, 30)))
    return [one, save(folder, stack(seed=1, series="2"), name="b{:03d}.dcm")]


@here("two series in a folder, the same positions", "series", word="series")
def _same_place(folder: Path) -> Written:
    return [save(folder, stack()), save(folder, stack(seed=1, series="2", step=5.0, count=3), name="b{:03d}.dcm")]


@here("two series in folders of a study", "series", word="series")
def _study(folder: Path) -> Written:
    return [save(folder / "s1", stack()), save(folder / "s2", stack(seed=1, series="2", Modality="MR"))]


@here("one series spread over nested folders, junk between")
def _nested(folder: Path) -> Written:
    planes = stack(9, angles=(10, 20, 30))
    truth = save(folder / "all", planes)
    for i, file in enumerate(sorted((folder / "all").iterdir())):
        home = folder / f"disk{i % 3}" / "DICOM"
        home.mkdir(parents=True, exist_ok=True)
        shutil.move(file, home / file.name)
        (home / "viewer.exe").write_bytes(b"MZ" + bytes(200))
        (home.parent / "index.html").write_text("<html></html>")
    return truth


@here("half of a series in a linked folder")
def _linked(folder: Path) -> Written:
    planes = stack(8, angles=(10, 20, 30))
    truth = save(folder / "all", planes)
    (folder / "study").mkdir()
    (folder / "store").mkdir()
    for i, file in enumerate(sorted((folder / "all").iterdir())):
        shutil.move(file, folder / ("study" if i % 2 else "store") / file.name)
    (folder / "study" / "more").symlink_to(folder / "store", target_is_directory=True)
    (folder / "study" / "loop").symlink_to(folder / "study", target_is_directory=True)
    return folder / "study", [truth]


@here("junk among the slices")
def _junk(folder: Path) -> Written:
    truth = save(folder, stack())
    (folder / "notes.txt").write_text("nothing")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(300))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    (folder / "._I000.dcm").write_bytes(b"\0\5\x16\7" + bytes(400))
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("a", "b" * 400)
    return truth


@here("an empty .dcm among the slices")
def _empty(folder: Path) -> Written:
    truth = save(folder, stack())
    (folder / "empty.dcm").write_bytes(b"")
    return truth


def _fileset(folder: Path) -> tuple[Given, list[Truth]]:
    planes = stack(angles=(10, 20, 30))
    truth = save(folder / "loose", planes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pydicom leaves its own temporary folders to the collector
        disc = FileSet()
        for plane in planes:
            plane.dataset.StudyID, plane.dataset.AccessionNumber = "1", "1"
            plane.dataset.PatientBirthDate = ""
            disc.add(plane.dataset)
        disc.write(folder / "disc")
        del disc
        gc.collect()
    shutil.rmtree(folder / "loose")
    return folder / "disc", [truth]


@here("a folder with a DICOMDIR")
def _disc(folder: Path) -> Written:
    return _fileset(folder)


@here("a DICOMDIR")
def _dicomdir(folder: Path) -> Written:
    _, truths = _fileset(folder)
    return folder / "disc" / "DICOMDIR", truths


def _rewritten(folder: Path, part: slice) -> None:
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[part])


@here("files without a preamble")
def _headless(folder: Path) -> Written:
    truth = save(folder, stack())
    _rewritten(folder, slice(132, None))
    return truth


@here("a file cut within its pixels", "refused", word=CUT)
def _cut(folder: Path) -> Written:
    save(folder, stack(shape=(40, 40)))
    file = folder / "I003.dcm"
    file.write_bytes(file.read_bytes()[:-400])
    return []


@here("a file cut by two bytes", "refused", word=CUT)
def _nearly(folder: Path) -> Written:
    save(folder, stack(shape=(40, 40)))
    file = folder / "I003.dcm"
    file.write_bytes(file.read_bytes()[:-2])
    return []


@here("a file cut within its header", "refused", word=CUT)
def _cut_header(folder: Path) -> Written:
    save(folder, stack())
    file = folder / "I003.dcm"
    file.write_bytes(file.read_bytes()[:500])
    return []


@here("pixels missing in one slice", "refused", word="pixel")
def _pixelless(folder: Path) -> Written:
    planes = stack()
    del planes[2].dataset.PixelData
    save(folder, planes)
    return []


@here("Rows say more than there are", "refused", word=CUT + "|pixel|bytes|size")
def _claims(folder: Path) -> Written:
    planes = stack()
    for plane in planes:
        plane.dataset.Rows = 500
    save(folder, planes)
    return []


def _object(kind: str, modality: str, series: str, **more: Any) -> Plane:
    one = stack(1, SOPClassUID=kind, Modality=modality, series=series)[0]
    for key, value in more.items():
        setattr(one.dataset, key, value)
    return one


@here("an RTSTRUCT among the slices")
def _rtstruct(folder: Path) -> Written:
    truth = save(folder, stack())
    plan = _object(RTStructureSetStorage, "RTSTRUCT", "7", StructureSetLabel="a").dataset
    for key in ("Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
                "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SamplesPerPixel",
                "PhotometricInterpretation", "SliceThickness", "RescaleSlope", "RescaleIntercept"):  # fmt: skip
        delattr(plan, key)
    write(plan, folder / "rs.dcm")
    return truth


@here("a SEG among the slices", "plain", "series", word="series")
def _seg(folder: Path) -> Written:
    truth = save(folder, stack())
    mask = _object(SegmentationStorage, "SEG", "8", NumberOfFrames=1, SegmentationType="BINARY").dataset
    mask.BitsAllocated = mask.BitsStored = 1
    mask.HighBit = 0
    mask.PixelData = bytes(6)
    mask.SegmentSequence = Sequence([Dataset()])
    write(mask, folder / "seg.dcm")
    return truth


@here("a report without pixels in the same series")
def _report(folder: Path) -> Written:
    truth = save(folder, stack())
    report = _object("1.2.840.10008.5.1.4.1.1.88.33", "SR", "1").dataset
    for key in ("Rows", "Columns", "PixelData"):
        delattr(report, key)
    write(report, folder / "sr.dcm")
    return truth


@here("file names hold a name, order and suffix at random")
def _names(folder: Path) -> Written:
    planes = stack(9, angles=(10, 20, 30))
    truth = save(folder, planes)
    draw = np.random.default_rng(4)
    for file in sorted(folder.iterdir()):
        ending = draw.choice([".dcm", ".IMA", "", ".dicom"])
        file.rename(folder / f"{draw.integers(1 << 40):x}{ending}")
    return truth
