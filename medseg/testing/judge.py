"""Whether a volume that a reader returned is the truth: any order and direction of axes, no voxel elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, MedsegError
from medseg.testing.series import NAME, Truth

FloatArray = npt.NDArray[np.float64]
LEFT_OUT = "were left out without a word"
Route = Literal["plain", "series", "regularize", "refused"]


def why_wrong(values: npt.NDArray[Any], affine: FloatArray, truth: Truth, strict: bool = True) -> str | None:
    """Return what is wrong with a volume, in a few words, or None if it is right.

    Parameters
    ----------
    values : array (channels, 3 spatial axes)
        Voxels, axes in any order.
    affine : array (4, 4)
        Index of the spatial axes to RAS mm.
    truth : Truth
        What it should be.
    strict : bool
        Whether the values of `truth.also` are wrong.
    """
    if values.ndim != 4 or affine.shape != (4, 4):
        return "no place in space"
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "no usable affine"
    why = _why_not_exact(values, affine, truth, strict)
    if why is None or truth.ramp is None or len(values) != 1:
        return why
    return _why_not_ramp(values[0], affine, truth)


def _why_not_exact(values: npt.NDArray[Any], affine: FloatArray, truth: Truth, strict: bool) -> str | None:
    """Every true voxel is there, nothing else is, and each holds its value."""
    points = truth.points.reshape(-1, 3)
    index = np.rint((points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    size = np.array(values.shape[1:])
    off = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - points, axis=1).max()
    if values[0].size != len(points) or (index < 0).any() or (index >= size).any():
        worst = np.abs(np.clip(index, 0, size - 1) @ affine[:3, :3].T + affine[:3, 3] - points).max()
        return f"{values[0].size} voxels for {len(points)}, up to {max(float(worst), float(off)):.3g} mm off"
    if off > truth.off or len(np.unique(index, axis=0)) < len(points):
        return f"voxels lie up to {off:.3g} mm off"
    found = values[:, index[:, 0], index[:, 1], index[:, 2]].astype(np.float64)
    wanted = [truth.values, *(() if strict else truth.also)]
    errors = [_error(found, one.reshape(len(one), -1), truth.close) for one in wanted]
    if None in errors:
        return None
    return errors[0]


def _error(found: FloatArray, wanted: FloatArray, close: float) -> str | None:
    if found.shape != wanted.shape:
        return f"{len(found)} channels for {len(wanted)}"
    judged = np.isfinite(wanted)
    off = np.abs(found - wanted)[judged]
    # a result in single precision rounds; anything else is off
    allowed = close + 1e-6 * np.abs(wanted[judged])
    if np.isfinite(off).all() and (off <= allowed).all():
        return None
    return f"values are up to {np.nanmax(off) if np.isfinite(off).any() else np.nan:.4g} off"


def _why_not_ramp(values: npt.NDArray[Any], affine: FloatArray, truth: Truth) -> str | None:
    """Between the slices, each voxel of a resampled volume holds the value of its place, and no slice was lost."""
    assert truth.ramp is not None
    size = np.array(values.shape)
    inverse = np.linalg.inv(affine[:3, :3]).T
    index = (truth.points.reshape(-1, 3) - affine[:3, 3]) @ inverse
    edge = 0.5 + 0.02
    if (index < -edge).any() or (index > size - 1 + edge).any():
        return "slices reach out of the volume"
    spot = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), axis=-1).reshape(-1, 3)
    points = spot @ affine[:3, :3].T + affine[:3, 3]
    inside = _inside(points, truth.points)
    if inside.sum() < 0.4 * truth.values[0].size:
        return f"only {inside.sum()} voxels between the slices"
    off = np.abs(values.reshape(-1).astype(np.float64) - points @ truth.ramp[:3] - truth.ramp[3])[inside]
    # half a unit from rounding what is stored, half from rounding the result
    steep = float(np.linalg.norm(truth.ramp[:3]))
    if np.isfinite(off).all() and off.max() <= 1.05 + max(0.0, truth.off - 0.01) * steep:
        return None
    return f"values are up to {off.max() / steep:.3g} mm off"


def _inside(points: FloatArray, slices: FloatArray) -> npt.NDArray[np.bool_]:
    """Which points lie between two slices and within the rectangles of both."""
    right, down = slices[0, 0, 1] - slices[0, 0, 0], slices[0, 1, 0] - slices[0, 0, 0]
    normal = np.cross(right, down)
    normal = normal / np.linalg.norm(normal)
    origins = slices[:, 0, 0]
    order = np.argsort(origins @ normal)
    origins, height = origins[order], (origins @ normal)[order]
    at = points @ normal
    eps = 1e-6
    above = np.clip(np.searchsorted(height, at - eps), 0, len(height) - 1)
    below = np.clip(np.searchsorted(height, at + eps) - 1, 0, len(height) - 1)
    ok: npt.NDArray[np.bool_] = (at >= height[0] - eps) & (at <= height[-1] + eps)
    for near in (above, below):
        place = points - origins[near]
        for step, count in ((right, slices.shape[2]), (down, slices.shape[1])):
            along = place @ step / (step @ step)
            ok &= (along >= -eps) & (along <= count - 1 + eps)
    return ok


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Parameters
    ----------
    verdict : str
        "right", "refused" (a typed error), "WRONG" (an image that is not the truth, without an error), "crashed" (an
        error that is not typed, or that shows header text).
    route : str
        What opened it, or was refused last: "plain", "series" or "regularize"; "refused" if nothing was offered.
    told : str
        The first refusal, or what is wrong.
    """

    verdict: Literal["right", "refused", "WRONG", "crashed"]
    route: Route
    told: str = ""


def outcome(given: Path | list[Path], truths: list[Truth], strict: bool = True) -> Outcome:
    """Open something with `medseg.io` the way its own messages advise, and judge what comes.

    Parameters
    ----------
    given : Path or list of Path
        What `medseg.io.load` is given.
    truths : list of Truth
        The volumes that lie there; none if there is no right answer.
    strict : bool
        See `why_wrong`.
    """
    from medseg import io

    try:
        image = io.load(given)
        image.voxels()  # damage to pixels shows on first touch
        return _judged([image], truths, "plain", "", strict)
    except MedsegError as error:
        told, offered = str(error), isinstance(error, GeometryError) and "regularize" in str(error)
        several = isinstance(error, ValueError) and "series" in str(error) and len(truths) != 0
    except Exception as error:  # whatever it is, it is not what a reader may raise
        return Outcome("crashed", "refused", f"{type(error).__name__}: {error}")
    if NAME in told or NAME.split("^")[0] in told:
        return Outcome("crashed", "refused", "the message shows header text")
    if offered:
        return _retried([lambda: io.load(given, regularize=True)], truths, "regularize", told, strict)
    if several and hasattr(io, "series"):
        try:
            keys = [one.key for one in io.series(given)]
        except MedsegError as error:
            return Outcome("refused", "series", f"{told} Then: {error}")
        return _retried([partial(io.load, given, series=key) for key in keys], truths, "series", told, strict)
    return Outcome("refused", "refused", told)


def _retried(loads: list[Callable[[], Any]], truths: list[Truth], route: Route, told: str, strict: bool) -> Outcome:
    """Judge what comes when the advice of a message is taken; a series that is refused is no image."""
    images, refused = [], ""
    for load in loads:
        try:
            image = load()
            image.voxels()
        except MedsegError as error:
            refused = str(error)
        except Exception as error:
            return Outcome("crashed", route, f"{type(error).__name__}: {error}")
        else:
            images.append(image)
    found = _judged(images, truths, route, told, strict) if images else None
    if found is None or (refused and LEFT_OUT in found.told):
        return Outcome("refused", route, f"{told} Then: {refused}")
    return found


def _judged(images: list[Any], truths: list[Truth], route: Route, told: str, strict: bool) -> Outcome:
    """Each truth must be one of the images, and each image one of the truths."""
    reasons = [[why_wrong(image.voxels(), _affine(image), truth, strict) for truth in truths] for image in images]
    for row in reasons:
        if None not in row:
            return Outcome("WRONG", route, row[0] if row and row[0] else "it should have been refused")
    missing = [i for i in range(len(truths)) if all(row[i] is not None for row in reasons)]
    if missing:
        return Outcome("WRONG", route, f"{len(missing)} of {len(truths)} volumes {LEFT_OUT}")
    return Outcome("right", route, told)


def _affine(image: Any) -> FloatArray:
    affine: FloatArray = image.grid.affine if image.grid.known else np.full((4, 4), np.nan)
    return affine
