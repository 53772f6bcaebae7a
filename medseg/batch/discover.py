"""Which cases lie under a path: DICOM by series, and files; other layouts are in `layouts`. Voxels are not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.batch import layouts
from medseg.batch.cases import Case, Input
from medseg.batch.scenes import counts
from medseg.errors import InputError, MedsegError, MissingError
from medseg.io.find import holds_dicom_below, is_dicom
from medseg.io.names import SCOPES, is_image, suffix

LISTS = (".csv", ".parquet")


def discover(given: Path, pattern: str | None = None, roles: Sequence[str] = ()) -> list[Case]:
    """Find the cases of a study.

    Parameters
    ----------
    given : Path
        A folder: a BIDS data set, an nnU-Net data set or images folder, a tree of DICOM, a folder of images. Or a list:
        .csv or .parquet with a column image, or one for each of the roles. Or one image.
    pattern : str, optional
        How files are named, relative to the folder: "{well}_s{site}_w{channel}.tif". Files that differ in {channel} alone
        are channels of one case.
    roles : sequence of str
        Inputs of a model that has several; images of one BIDS session are put together by them.

    Returns
    -------
    list of Case
        In a fixed order. What can be told to be unreadable is a case with a fault.

    Raises
    ------
    MissingError
        Nothing is there, or no case.
    FormatError, InputError
        A list without the columns needed, a pattern without fields.

    Examples
    --------
    >>> discover(Path("study"))  # doctest: +SKIP
    """
    if not given.exists():
        raise MissingError(f"{given}: is not there; check the path")
    if pattern is not None:
        if not given.is_dir():
            raise InputError(f"{given}: is no folder; --pattern names the files of a folder")
        return layouts.plates(given, pattern)
    if given.is_file():
        if suffix(given) in LISTS:
            return layouts.listed(given, roles)
        return _files([given]) if not is_dicom(given) else _dicom(given)
    if layouts.is_bids(given):
        cases = layouts.bids(given, roles)
    elif folders := layouts.nnunet_folders(given):
        cases = layouts.nnunet(folders)
    else:
        cases = _folder(given)
    if not cases:
        linked = "; folders that are links are not followed" if any(_linked(one) for one in given.iterdir()) else ""
        raise MissingError(
            f"{given}: holds no case; images in folders below are found by --pattern, such as '{{case}}/image.nii.gz'{linked}"
        )
    return cases


def _linked(place: Path) -> bool:
    return place.is_symlink() and place.is_dir()


def _folder(folder: Path) -> list[Case]:
    """A tree of DICOM, a folder of images, or both."""
    try:
        files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
    # a link that leads nowhere is no file, and still a case that somebody expects
    images = [f for f in files if is_image(f) and not f.is_dir() and not is_dicom(f)]
    cases = _files(images)
    if any(is_dicom(file) for file in files) or holds_dicom_below(folder):
        cases += _dicom(folder)
    return cases


def _files(paths: Sequence[Path]) -> list[Case]:
    """A case for each file; one for each scene of a microscope's file that holds several."""
    scenes = counts([path for path in paths if suffix(path).lstrip(".") in SCOPES])
    cases = []
    for path in paths:
        facts = {"kind": "file", "suffix": suffix(path).lstrip(".")}
        if scenes.get(path, 1) == 1:
            cases.append(Case("file", (Input((path,)),), facts))
            continue
        for number in map(str, range(1, scenes[path] + 1)):
            cases.append(Case("file", (Input((path,), series=number),), facts | {"scene": number}))
    return cases


def _dicom(given: Path) -> list[Case]:
    """A case for each DICOM image, and one for each folder of which nothing can be read."""
    from medseg.io.dicom.series import survey

    try:
        series, damaged = survey(given)
    except MedsegError:
        if given.is_file():
            raise
        return [_damaged(given)]
    cases = []
    for one in series:
        # read alone, a series would not be refused for the file beside it that may be one of its slices
        fault = next((f"{text}; get it again" for text in one.problems if "damaged header" in text), "")
        facts = {"kind": "dicom", "modality": one.modality}
        cases.append(Case("dicom", (Input(one.files, series=one.key),), facts, fault=fault))
    return cases + [_damaged(folder) for folder in damaged]


def _damaged(folder: Path) -> Case:
    files = tuple(sorted(file for file in folder.rglob("*") if file.is_file()))
    text = "a folder of DICOM files whose headers are damaged or truncated; get them again"
    return Case("dicom", (Input(files),), {"kind": "dicom", "modality": "?"}, fault=text)
