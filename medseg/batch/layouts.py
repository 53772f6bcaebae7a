"""Layouts of data sets: BIDS, nnU-Net, lists, plates. Each becomes cases; no voxels are read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.batch.cases import Case, Input
from medseg.errors import FormatError, InputError, MissingError
from medseg.io.names import is_image, stem, suffix

_ENTITY = r"[a-z]+-[A-Za-z0-9]+"
_BIDS = re.compile(rf"sub-[A-Za-z0-9]+(?:_{_ENTITY})*_[A-Za-z0-9]+")
_FOLDER = re.compile(r"sub-[A-Za-z0-9]+(?:/ses-[A-Za-z0-9]+)?(?:/[a-z]+)?")
_RESULTS = ("dseg", "mask", "probseg", "seg")  # suffixes of labels, which are no images
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_LONGEST = 120  # characters of a BIDS name, so that what is added to it still fits


# ---------------------------------------------------------------- BIDS


def is_bids(folder: Path) -> bool:
    """Whether a folder is a BIDS data set: folders of subjects, and images named by them."""
    subjects = [one for one in folder.iterdir() if one.is_dir() and _FOLDER.fullmatch(one.name)]
    return bool(subjects) and any(_BIDS.fullmatch(stem(file)) for one in subjects for file in _images(one))


def _images(folder: Path) -> list[Path]:
    found = []
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [Path(place, name) for name in sorted(files) if is_image(name)]
    return found


def bids(root: Path, roles: Sequence[str]) -> list[Case]:
    """Every image of a BIDS data set is a case; with roles, the images of a session that have them are one.

    An image that is not named by the rules is a case without a label: its name might be anybody's.
    """
    subjects = sorted(one for one in root.iterdir() if one.is_dir() and one.name.startswith("sub-"))
    files = [file for one in subjects for file in _images(one)]
    files = [file for file in files if stem(file).rsplit("_", 1)[-1] not in _RESULTS]
    if len(roles) > 1:
        return _sessions(root, files, roles)
    return [_bids_case(root, (Input((file,)),)) for file in files]


def _bids_case(root: Path, inputs: tuple[Input, ...], label: str = "", fault: str = "") -> Case:
    first = inputs[0].files[0]
    label = label or stem(first)
    place = first.parent.relative_to(root).as_posix()
    if not (_BIDS.fullmatch(label) and _FOLDER.fullmatch(place) and len(label) <= _LONGEST):
        return Case("file", inputs, {"kind": "file"}, fault=fault)
    *entities, last = label.split("_")
    facts = dict(one.split("-", 1) for one in entities) | {"kind": "bids", "suffix": last}
    if "/" in place:
        facts["datatype"] = place.rsplit("/", 1)[1]
    return Case("bids", inputs, facts, label, place, fault)


def _sessions(root: Path, files: list[Path], roles: Sequence[str]) -> list[Case]:
    """Images that differ in their suffix alone and are inputs of the model, as one case."""
    parts: dict[tuple[Path, str], dict[str, Path]] = {}
    known = {role.lower(): role for role in roles}
    for file in files:
        start, _, last = stem(file).rpartition("_")
        role = known.get(last.lower()) or known.get(re.sub(r"w$", "", last.lower()))
        if role:
            parts.setdefault((file.parent, start), {})[role] = file
    cases = []
    for (_, start), found in parts.items():
        inputs = tuple(Input((found[role],), role) for role in roles if role in found)
        missing = [role for role in roles if role not in found]
        fault = f"the model's inputs {', '.join(missing)} are not there; add them" if missing else ""
        cases.append(_bids_case(root, inputs, f"{start}_multi", fault))
    if not cases:
        raise MissingError(f"{root}: no image is named by an input of the model ({', '.join(roles)})")
    return cases


# ---------------------------------------------------------------- nnU-Net


def nnunet_folders(folder: Path) -> list[Path]:
    """The folders of images of an nnU-Net data set; none if it is not one."""
    below = [folder / name for name in ("imagesTr", "imagesTs") if (folder / name).is_dir()]
    if below:
        return below
    names = [stem(file) for file in folder.iterdir() if is_image(file)]
    if not names or not all(_CHANNEL.fullmatch(name) for name in names):
        return []
    # image_0001.tif, image_0002.tif, ... are as a rule pictures of their own: something has to say that they are channels
    told = folder.name.startswith("images") and (folder.parent / "dataset.json").is_file()
    return [folder] if told or all(name.endswith("_0000") for name in names) else []


def nnunet(folders: Sequence[Path]) -> list[Case]:
    """Cases of nnU-Net: files NAME_0000, NAME_0001, ... are channels of one; without such names, each file is a case."""
    cases = []
    for folder in folders:
        parts: dict[str, dict[str, Path]] = {}
        files = sorted(file for file in folder.iterdir() if is_image(file))
        numbered = {file: found for file in files if (found := _CHANNEL.fullmatch(stem(file)))}
        if not numbered:  # as the Medical Segmentation Decathlon has them
            cases += [Case("nnunet", (Input((file,)),), {"kind": "nnunet", "set": folder.name[:12]}) for file in files]
            continue
        for file, found in numbered.items():
            parts.setdefault(found[1], {})[found[2]] = file
        every = sorted({channel for one in parts.values() for channel in one})
        names = _channel_names(folder, every)
        for one in parts.values():
            missing = [channel for channel in every if channel not in one]
            inputs = tuple(Input((one[c],), names[c] if len(every) > 1 else "") for c in every if c in one)
            fault = f"channels {', '.join(missing)} of other cases are not there; add them" if missing else ""
            cases.append(Case("nnunet", inputs, {"kind": "nnunet", "set": folder.name[:12]}, fault=fault))
    return cases


def _channel_names(folder: Path, channels: Sequence[str]) -> dict[str, str]:
    """Names of channels by dataset.json; else their numbers."""
    for place in (folder, folder.parent):
        try:
            told = json.loads((place / "dataset.json").read_text(encoding="utf-8"))
            names: dict[str, Any] = told.get("channel_names") or told.get("modality")
            return {c: str(names[str(int(c))]) for c in channels}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return {c: c for c in channels}


# ---------------------------------------------------------------- lists


def listed(path: Path, roles: Sequence[str]) -> list[Case]:
    """Cases of a table: a column image, or a column for each role; paths are relative to the table.

    Other columns are facts to choose by; they go nowhere else.

    Raises
    ------
    FormatError
        It cannot be read, or has no such column.
    """
    import pandas as pd

    try:
        table = pd.read_parquet(path) if suffix(path) == ".parquet" else pd.read_csv(path, dtype=str)
    except (OSError, ValueError, ImportError):
        raise FormatError(f"{path}: cannot be read as a table; give .csv or .parquet with a column image") from None
    columns = {str(name).strip().lower(): name for name in table.columns}
    several = {role: columns[role.lower()] for role in roles if role.lower() in columns}
    named = several if len(several) > 1 or (several and "image" not in columns) else {"": columns.get("image")}
    if None in named.values():
        wanted = "image" + (f", or {', '.join(roles)}" if len(roles) > 1 else "")
        raise FormatError(f"{path}: has no column {wanted}; call the one with the paths of the files so")
    rest = [name for name in table.columns if name not in named.values()]
    cases = []
    for row in table.fillna("").astype(str).to_dict("records"):
        inputs = tuple(Input((path.parent / row[c].strip(),), role) for role, c in named.items() if row[c].strip())
        fault = "" if len(inputs) == len(named) else "the list names no file for some of its inputs; fill it in"
        facts = {str(name).strip().lower(): row[name] for name in rest} | {"kind": "list"}
        if inputs:
            cases.append(_row(inputs, facts, fault))
    if not cases:
        raise MissingError(f"{path}: names no image")
    return cases


def _row(inputs: tuple[Input, ...], facts: dict[str, str], fault: str) -> Case:
    """A row of a list; a folder of DICOM stands for its series."""
    out = []
    for one in inputs:
        folder = one.files[0]
        files = tuple(sorted(f for f in folder.rglob("*") if f.is_file())) if folder.is_dir() else one.files
        out.append(Input(files or one.files, one.role))
    return Case("list", tuple(out), facts, fault=fault)


# ---------------------------------------------------------------- plates


def fields_of(pattern: str) -> list[str]:
    """The fields that a pattern names.

    Raises
    ------
    InputError
        None, or one twice.
    """
    names = re.findall(r"\{(\w+)\}", pattern)
    if not names or len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
        raise InputError(
            f"--pattern {pattern!r} names no fields, or one twice; such as '{{well}}_s{{site}}_w{{channel}}.tif'"
        )
    return names


def plates(folder: Path, pattern: str) -> list[Case]:
    """Cases by a pattern of file names: what differs in {channel} alone is one case.

    Raises
    ------
    InputError
        The pattern names no field, or one twice.
    MissingError
        No file fits it.
    """
    names = fields_of(pattern)
    pieces = re.split(r"\{(\w+)\}", pattern)
    text = "".join(f"(?P<{p}>[^/]+?)" if i % 2 else re.escape(p) for i, p in enumerate(pieces))
    parts: dict[tuple[str, ...], dict[str, Path]] = {}
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            file = Path(place, name)
            if found := re.fullmatch(text, file.relative_to(folder).as_posix()):
                which = tuple(v for k, v in found.groupdict().items() if k != "channel")
                parts.setdefault(which, {})[found.groupdict().get("channel", "")] = file
        if "/" not in pattern:
            break
    if not parts:
        raise MissingError(f"{folder}: no file fits --pattern {pattern!r}")
    fields = [name for name in names if name != "channel"]
    every = sorted({channel for one in parts.values() for channel in one})
    cases = []
    for which, one in parts.items():
        missing = len(every) - len(one)
        fault = f"{missing} channels that other cases have are not there; add them" if missing else ""
        inputs = tuple(Input((one[c],), c if len(every) > 1 else "") for c in every if c in one)
        facts = dict(zip(fields, which, strict=True)) | {"kind": "plate"}
        cases.append(Case("plate", inputs, facts, fault=fault))
    return cases
