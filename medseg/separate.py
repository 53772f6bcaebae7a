"""From a mask that says where lesions are to the single lesions: `separate`, and the rules that make masks: `foreground`.

The mask may come from any program, from a colleague, or from a rule such as "SUV>4".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg import io, shapes
from medseg.errors import InputError, SpecError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.deidentifier import VERSION
from medseg.io.clinical.segments import of_each as told_of
from medseg.ops import components, separation
from medseg.ops.labels import statistics
from medseg.spec import SeparateSpec

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_RULE = re.compile(
    r"(?P<what>SUV(?:bw|lbm|bsa)?|HU)?\s*(?P<sign>>=|<=|>|<)\s*(?P<kind>p)?(?P<value>-?\d+(?:\.\d+)?)\s*(?P<share>%)?",
    re.IGNORECASE,
)
_OF_ONE = ("number", "label", "tracking_id", "tracking_uid", "role")  # what a file says of one lesion, not of its kind
_OF_EACH = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class Rule:
    """A rule that tells foreground from background; made by `rule`.

    Attributes
    ----------
    text : str
        As given.
    what : str
        "SUVbw", "SUVlbm", "SUVbsa", "HU", or "" for the values as they are.
    above : bool
        Whether foreground is above the limit.
    kind : "value", "percentile", "maximum" or "otsu"
        What the limit is.
    limit : float
        Value, percentile, or share of the image's maximum in %.
    of_each : float or None
        Share of each instance's own maximum, in %, under which its voxels are taken away again.
    """

    text: str
    what: str
    above: bool
    kind: str
    limit: float
    of_each: float | None = None


def rule(text: str) -> Rule:
    """Read a rule.

    Parameters
    ----------
    text : str
        "SUV>4", "HU>=200", ">0.5" (values as they are), ">p99" (percentile of the image), ">41%" (share of the image's maximum),
        "otsu" (Otsu 1979); with a comma a second part "41%" keeps of each instance what reaches that share of its own maximum:
        "SUV>4, 41%".

    Raises
    ------
    SpecError
        It is no such rule.

    Examples
    --------
    >>> rule("SUV>4, 41%")
    Rule(text='SUV>4, 41%', what='SUVbw', above=True, kind='value', limit=4.0, of_each=41.0)
    """
    first, _, second = (part.strip() for part in text.partition(","))
    each = _OF_EACH.fullmatch(second)
    if second and not each:
        raise SpecError(f"{text!r}: after the comma stands a share of each instance's maximum, such as 41%.")
    share = float(each[1]) if each else None
    if first.lower() == "otsu":
        return Rule(text, "", True, "otsu", 0.0, share)
    found = _RULE.fullmatch(first)
    if not found or (found["kind"] and found["share"]):
        raise SpecError(f"{text!r} is no rule; give for example SUV>4, HU>=200, >0.5, >p99, >41% or otsu.")
    kind = "percentile" if found["kind"] else "maximum" if found["share"] else "value"
    limit = float(found["value"])
    if kind != "value" and not 0 <= limit <= 100:
        raise SpecError(f"{text!r}: {limit:g} is no percentage; give 0 to 100.")
    what = (found["what"] or "").upper()
    named = {"": "", "HU": "HU", "SUV": "SUVbw"}.get(what, f"SUV{what[3:].lower()}")
    return Rule(text, named, found["sign"][0] == ">", kind, limit, share)


def valued(image: Image, what: str, stated: str = "auto") -> Image:
    """Return the image in the quantity that a rule speaks of.

    Parameters
    ----------
    image : Image
        One channel.
    what : str
        `Rule.what`.
    stated : str
        What somebody says that the voxels of a file hold that does not know it itself: "HU", "SUVbw" and so on; or "auto".

    Raises
    ------
    InputError
        Several channels; HU of what is no CT; SUV whose tags are absent.
    """
    if len(image.channels) > 1:
        raise InputError(
            f"A rule looks at one channel, the image has {', '.join(image.channels)}; choose one with --channels (channels)."
        )
    if not what or stated.lower() == what.lower():
        return image
    if what == "HU":
        if image.modality != "CT":
            raise InputError(
                f"HU are of CT, and this image is {image.modality}; if its voxels are HU, say so: --values HU (values=)."
            )
        return image
    if image.source is None or image.source.format != "dicom":
        raise InputError(
            f"{what} needs DICOM tags; if the voxels of this file are {what}, say so: --values {what} (values=)."
        )
    return io.suv(image, what[3:])  # type: ignore[arg-type]


def foreground(image: Image, how: Rule) -> Mask:
    """Return the voxels of an image that a rule calls foreground.

    Parameters
    ----------
    image : Image
        From `valued`.
    how : Rule
        From `rule`.

    Returns
    -------
    bool array of the grid's shape
    """
    image.check_finite()
    values = image.voxels()[0]
    if how.kind == "otsu":
        from skimage.filters import threshold_otsu

        return np.asarray(values > threshold_otsu(np.asarray(values)))  # type: ignore[no-untyped-call]
    limit = how.limit
    if how.kind == "percentile":
        limit = float(np.percentile(values, how.limit))
    elif how.kind == "maximum":
        limit = float(values.max()) * how.limit / 100
    if how.above:
        return np.asarray(values >= limit if ">=" in how.text else values > limit)
    return np.asarray(values <= limit if "<=" in how.text else values < limit)


def separate(
    mask: Instances | Mask,
    grid: Grid | None = None,
    image: Image | None = None,
    spec: SeparateSpec | None = None,
    *,
    of_each: float | None = None,
) -> Instances:
    """Cut a mask into single objects.

    Parameters
    ----------
    mask : Instances or bool array
        Foreground: any id counts.
    grid : Grid, optional
        Where an array lies; Instances know it.
    image : Image, optional
        For the method "intensity", and for `of_each`; interpolated onto the grid of the mask where it lies on another.
    spec : SeparateSpec, optional
        Method and its settings.
    of_each : float, optional
        Keep of each object the voxels that reach this share (%) of its own maximum in the image.

    Returns
    -------
    Instances
        Scores are NaN; provenance["method"] says how they came about.

    Raises
    ------
    InputError
        The method needs an image, or an array comes without a grid.
    GeometryError
        Mask and image lie in different worlds.
    """
    spec = spec or SeparateSpec()
    if isinstance(mask, Instances):
        grid, array, record = mask.grid, mask.labels > 0, dict(mask.provenance)
    else:
        if grid is None:
            raise InputError("A mask that is an array needs the grid it lies on.")
        array, record = np.asarray(mask, dtype=bool), {}
    values = None
    if image is not None:
        placed = valued(image, "") if image.grid.matches(grid) else valued(image, "").on(grid)
        if placed is not image:
            record["notes"] = [*_notes(record), "the image was interpolated onto the grid of the mask"]
        values = placed
    elif spec.method == "intensity" or of_each is not None:
        raise InputError(
            "Separation by intensity, or by a share of each maximum, needs the image; give --image (image=)."
        )
    out = np.zeros(array.shape, np.int32)
    count, least = 0, max(1, int(np.ceil(spec.min_volume / grid.voxel_size)))
    for place, piece in _pieces(array):
        inside = None if values is None else np.asarray(values.voxels(place)[0], dtype=np.float64)
        found = separation.absorbed(_cut(piece, inside, grid, spec), least)
        if of_each is not None and inside is not None:
            found = _large(_reaching(found, inside, of_each), least)
        target = out[place]
        target[found > 0] = found[found > 0] + count
        count += int(found.max(initial=0))
    how = "distance" if spec.method == "shape" and out.ndim == 2 else spec.method
    record |= {
        "medseg": VERSION,
        "method": f"separated by {how}",
        "options": spec.model_dump(mode="json"),
    }
    if of_each is not None:
        record["method"] = f"{record['method']}, of each what reaches {of_each:g} % of its maximum"
    if spec.min_volume:
        unit = f"mm{grid.ndim}" if grid.known else "voxels"
        record["method"] = f"{record['method']}, none under {spec.min_volume:g} {unit}"
    if isinstance(mask, Instances) and (told := told_of(mask.provenance)):
        record["segments"] = _inherited(out, mask.labels, told)
        record.pop("relabelled_from", None)
    return Instances.from_labels(out, grid, provenance=record)


def _inherited(
    found: npt.NDArray[np.int32], ids: npt.NDArray[np.int32], told: dict[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return of each object what was told of the id that most of it was.

    What tells lesions apart (name, tracking, role) goes along only where an id became one object, and that is of no other id.
    """
    inside, size = found > 0, int(ids.max(initial=0)) + 1
    pairs, voxels = np.unique(found[inside].astype(np.int64) * size + ids[inside], return_counts=True)
    new, old = pairs // size, pairs % size
    alone = (np.bincount(new)[new] == 1) & (np.bincount(old)[old] == 1)
    out = {}
    for k in np.argsort(voxels, kind="stable").tolist():  # the largest part comes last, and stays
        one = told.get(int(old[k]), {})
        kept = {key: value for key, value in one.items() if alone[k] or key not in _OF_ONE}
        out[int(new[k])] = {**kept, "id": int(new[k])}
    return list(out.values())


def _pieces(mask: Mask) -> Iterator[tuple[tuple[slice, ...], Mask]]:
    """Give each connected piece in its box: what does not touch is never held together, however large the image."""
    parts = components.label(mask)
    count = int(parts.max(initial=0))
    if not count:
        return
    _, boxes, _ = statistics(parts, count)
    n = mask.ndim
    for number, box in enumerate(boxes.tolist(), 1):
        place = tuple(slice(a, b) for a, b in zip(box[:n], box[n:], strict=True))
        yield place, parts[place] == number


def _cut(piece: Mask, values: Floats | None, grid: Grid, spec: SeparateSpec) -> npt.NDArray[np.int32]:
    smooth = spec.smooth * min(grid.spacing)
    if spec.method == "components":
        found = piece.astype(np.int32)
    elif spec.method == "shape" and piece.ndim == 3:
        found = shapes.by_shape(piece, grid.spacing)
    elif spec.method in ("distance", "shape"):
        # a voxel of background around it, so that the border of the box is no border of the image
        wide = np.pad(piece, 1)
        height = separation.depth(wide, grid.spacing, smooth)
        found = separation.by_height(wide, height, spec.ratio)[(slice(1, -1),) * piece.ndim]
    else:
        assert values is not None  # checked by the caller
        found = separation.by_height(piece, _brightness(values, piece, grid, smooth), spec.ratio)
    return found


def _brightness(values: Floats, piece: Mask, grid: Grid, smooth: float) -> Floats:
    """Return how far the image rises above the lowest value of a piece, smoothed inside of it; 0 outside."""
    from scipy.ndimage import gaussian_filter

    sigma = [smooth / s for s in grid.spacing]
    weight = gaussian_filter(piece.astype(np.float64), sigma)
    mean = gaussian_filter(np.where(piece, values, 0.0), sigma) / np.maximum(weight, 1e-9)
    low = float(values[piece].min())
    return np.where(piece, np.maximum(mean - low, 1e-9), 0.0)


def _reaching(found: npt.NDArray[np.int32], values: Floats, percent: float) -> npt.NDArray[np.int32]:
    top = np.full(int(found.max(initial=0)) + 1, -np.inf)
    np.maximum.at(top, found.ravel(), values.ravel())
    return np.where(values >= percent / 100 * top[found], found, 0).astype(np.int32)


def _large(found: npt.NDArray[np.int32], least: int) -> npt.NDArray[np.int32]:
    """Return the objects of at least so many voxels, numbered from 1 in the order they had."""
    kept = np.bincount(found.ravel()) >= least
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[found]


def _notes(record: dict[str, object]) -> list[str]:
    notes = record.get("notes", [])
    return [str(note) for note in notes] if isinstance(notes, (list, tuple)) else []
