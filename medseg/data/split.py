"""Splits by group: crops of one field, time points of one embryo, studies of one patient never straddle train and tune."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg import io
from medseg.data.cases import data_root
from medseg.errors import MissingError, SpecError
from medseg.spec import SplitSource, SplitSpec

_FLAT = 0.05  # an edge that varies less than this share of its image's standard deviation shows nothing to match


def make_split(spec: SplitSpec) -> dict[str, dict[str, list[str]]]:
    """Carry out a recipe: {source: {train: [stems], tune: [...], val: [...]}}.

    Raises
    ------
    MissingError
        A folder holds no images, or the groups or manifest file that the recipe leans on is not there.
    """
    return {s.name: _split_source(s, spec.tune, spec.seed) for s in spec.sources}


def make_folds(spec: SplitSpec) -> list[dict[str, dict[str, list[str]]]]:
    """Carry out a recipe with ``folds``: so many splits, in which every image that is not fixed in val is in val once."""
    groups = {s.name: _groups(s) for s in spec.sources}
    return [
        {name: fold_groups(group, spec.folds or 2, number, spec.tune, spec.seed) for name, group in groups.items()}
        for number in range(spec.folds or 2)
    ]


def _groups(source: SplitSource) -> dict[str, str]:
    """Group of each image of a source, by stem."""
    folder = data_root() / source.images
    files = {io.stem(p): p for p in sorted(folder.glob("*.*")) if io.is_image(p) and not p.name.startswith(".")}
    if not files:
        raise MissingError(f"{folder}: no images; set MEDSEG_DATA to the folder that holds the training data")
    if source.group == "file":
        return {s: s for s in files}
    if source.group == "touching":
        return touching_crops({s: io.load(p).voxels()[0] for s, p in files.items()})
    if source.group == "listed":
        listed = _json(folder.parent / "groups.json")["groups"]
        return {s: str(listed[s]) for s in files}
    return {s: _match(source.group, s) or s for s in files}


def _split_source(source: SplitSource, tune: float, seed: int) -> dict[str, list[str]]:
    groups, folder = _groups(source), data_root() / source.images
    chosen = frozenset(s for s in groups if source.tune is not None and _match(source.tune, s))
    if isinstance(source.val, float):
        return split_groups(groups, source.val, tune, seed, fixed_tune=chosen)
    if source.val == "listed":
        manifest = _json(folder.parent / "manifest.json")
        proposed = manifest.get("split_proposal", {}).get("val", [])
        fixed = frozenset(str(i["name"]) for i in manifest.get("items", []) if i["split"] == "val") | frozenset(
            proposed
        )
    else:
        fixed = frozenset(s for s in groups if _match(source.val, s))
    return split_groups(groups, 0.0, tune, seed, fixed, chosen)


def _match(pattern: str, stem: str) -> str | None:
    try:
        found = re.search(pattern, stem)
    except re.error as error:
        raise SpecError(f"{pattern!r} is not a regular expression: {error}") from None
    return found.group(0) if found else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise MissingError(f"{path}: is not there or not JSON; the recipe's 'listed' needs it") from None


def split_groups(
    groups: dict[str, str],
    val: float,
    tune: float,
    seed: int = 0,
    fixed_val: frozenset[str] = frozenset(),
    fixed_tune: frozenset[str] = frozenset(),
) -> dict[str, list[str]]:
    """Deal whole groups to ``train``, ``tune`` and ``val``.

    Parameters
    ----------
    groups
        Group of each stem.
    val, tune
        Share of the stems that val gets, and share of the rest that tune gets.
    seed
        Changes the order in which groups are dealt, which is by hash and so the same on every machine.
    fixed_val
        Stems that somebody else has put into val already; ``val`` is then not dealt. A group with such a stem goes to neither
        tune nor val.
    fixed_tune
        Stems to tune on; ``tune`` is then not dealt, and their whole groups are in tune.

    Returns
    -------
    dict
        Sorted stems under ``train``, ``tune`` and ``val``.
    """
    members, place = _dealt(groups, seed)
    out: dict[str, list[str]] = {"train": [], "tune": [], "val": sorted(fixed_val)}
    free = []
    for group in place:
        if fixed_val & set(members[group]):
            out["train"] += [s for s in members[group] if s not in fixed_val]
        else:
            free.append(group)
    total = sum(len(members[g]) for g in free)
    wanted_val = 0 if fixed_val else round(val * total)
    wanted_tune = round(tune * (len(groups) - len(fixed_val) - wanted_val))
    for group in free:
        if len(out["val"]) < wanted_val and not fixed_val and not fixed_tune & set(members[group]):
            part = "val"
        elif fixed_tune & set(members[group]) or (not fixed_tune and len(out["tune"]) < wanted_tune):
            part = "tune"
        else:
            part = "train"
        out[part] += members[group]
    return {k: sorted(v) for k, v in out.items()}


def fold_groups(groups: dict[str, str], folds: int, fold: int, tune: float, seed: int = 0) -> dict[str, list[str]]:
    """Deal whole groups to one of several folds: val is that fold, tune a share of the rest.

    Groups go to the fold that has fewest images so far, in an order by hash, so that folds are of nearly equal size.
    """
    members, place = _dealt(groups, seed)
    sizes, home = [0] * folds, {}
    for group in sorted(place, key=lambda g: -len(members[g])):  # a stable sort: equal sizes stay in the order by hash
        home[group] = sizes.index(min(sizes))
        sizes[home[group]] += len(members[group])
    out: dict[str, list[str]] = {"train": [], "tune": [], "val": []}
    wanted = round(tune * (len(groups) - sizes[fold]))
    for group in place:
        part = "val" if home[group] == fold else "tune" if len(out["tune"]) < wanted else "train"
        out[part] += members[group]
    return {k: sorted(v) for k, v in out.items()}


def _dealt(groups: dict[str, str], seed: int) -> tuple[dict[str, list[str]], list[str]]:
    """Stems of each group, and the groups in an order by hash, the same on every machine."""
    members: dict[str, list[str]] = {}
    for stem, group in groups.items():
        members.setdefault(group, []).append(stem)
    return members, sorted(members, key=lambda g: hashlib.sha256(f"{seed}/{g}".encode()).hexdigest())


def touching_crops(images: dict[str, NDArray[np.generic]], likeness: float = 0.98) -> dict[str, str]:
    """Group images that continue one another: crops of one larger field share an edge.

    Two images of equal shape belong together when the last row (or column) of one correlates with the first of the other by at
    least ``likeness`` and both have structure there.

    Returns
    -------
    dict
        Group name (its first stem) of each stem.
    """
    stems = sorted(images)
    parent = {s: s for s in stems}

    def root(s: str) -> str:
        while parent[s] != s:
            s = parent[s]
        return s

    by_shape: dict[tuple[int, ...], list[str]] = {}
    for s in stems:
        by_shape.setdefault(images[s].shape, []).append(s)
    for members in by_shape.values():
        for first, last in (
            ((slice(0, 1),), (slice(-1, None),)),
            ((slice(None), slice(0, 1)), (slice(None), slice(-1, None))),
        ):
            contrast = np.array([images[s].std() for s in members])
            a = _standard(np.stack([images[s][last].astype(np.float64).ravel() for s in members]), contrast)
            b = _standard(np.stack([images[s][first].astype(np.float64).ravel() for s in members]), contrast)
            for i, j in np.argwhere(a @ b.T >= likeness):
                if i != j:
                    x, y = sorted((root(members[i]), root(members[j])))
                    parent[y] = x
    return {s: root(s) for s in stems}


def _standard(rows: NDArray[np.float64], contrast: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with mean 0 and length 1; a row without structure, seen beside its image's, becomes 0 and correlates with nothing."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    flat = length <= _FLAT * contrast[:, None] * np.sqrt(rows.shape[1])
    return np.where(flat, 0, rows / np.where(flat, 1, length))
