"""From medseg's values to what napari shows, and back.

napari shows an array on its own index grid with positive scale; what it cannot show, an oblique or flipped direction, stays in the
metadata and goes back into every file. Two images with the same directions lie over one another as they do in the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from medseg.errors import InputError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg_napari.rows import Left

if TYPE_CHECKING:
    from medseg_napari.session import Session

KEY = "medseg"  # in a layer's metadata

# Window centre and width in HU, as radiologists name them.
WINDOWS: Mapping[str, tuple[float, float]] = {
    "soft tissue": (40, 400),
    "lung": (-600, 1500),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (60, 160),
    "mediastinum": (50, 350),
}


def limits(window: str) -> tuple[float, float]:
    """Lowest and highest value that a window preset shows, in HU."""
    centre, width = WINDOWS[window]
    return centre - width / 2, centre + width / 2


def placed(grid: Grid) -> dict[str, Any]:
    """Scale, translation, units and axis names for a layer of this grid.

    The scale is the voxel size, in um for what is under 0.02 mm. The translation is where the first voxel lies along the grid's own
    axes, so that images with the same directions overlay.
    """
    factor = 1000.0 if micro(grid) else 1.0
    out: dict[str, Any] = {"scale": [s * factor for s in grid.spacing], "axis_labels": grid.axes}
    if not grid.known:
        return out | {"units": ["pixel"] * grid.ndim}
    n = grid.ndim
    directions = grid.affine[:n, :n] / np.asarray(grid.spacing)
    along = np.linalg.lstsq(directions, grid.affine[:n, n], rcond=None)[0] * factor
    return out | {"units": ["um" if factor > 1 else "mm"] * n, "translate": along.tolist()}


def micro(grid: Grid) -> bool:
    """Whether lengths are told in um."""
    return grid.known and min(grid.spacing) < 0.02


def of_image(image: Image, name: str) -> list[tuple[Any, dict[str, Any], str]]:
    """Layers of an image: one, in colour where it is, else one for each channel; CT with the soft tissue window."""
    more = placed(image.grid) | {"metadata": {KEY: {"image": image}}}
    voxels = image.voxels()
    if image.channels[:3] == ("red", "green", "blue") and voxels.dtype == np.uint8 and len(voxels) in (3, 4):
        return [(np.moveaxis(voxels[:3], 0, -1), more | {"name": name, "rgb": True}, "image")]
    if len(voxels) == 1:
        shown = (
            {"contrast_limits": limits("soft tissue")}
            if image.modality == "CT"
            else {"contrast_limits": span(voxels[0])}
        )
        return [(voxels[0], more | {"name": name, **shown}, "image")]
    colours = ["green", "magenta", "cyan", "yellow", "red", "blue"]
    return [
        (
            voxels[k],
            more
            | {
                "name": f"{name} {channel}",
                "colormap": colours[k % len(colours)],
                "blending": "additive",
                "contrast_limits": span(voxels[k]),
            },
            "image",
        )
        for k, channel in enumerate(image.channels)
    ]


def in_time(more: dict[str, Any]) -> dict[str, Any]:
    """What places a layer, with an axis of time in front."""
    first = {"axis_labels": "t", "scale": 1.0, "translate": 0.0, "units": "pixel"}
    return {key: (first[key], *value) if key in first else value for key, value in more.items()}


def of_frames(frames: Sequence[Image], name: str) -> list[tuple[Any, dict[str, Any], str]]:
    """Layers of a time series: those of an image, with an axis of time in front."""
    out = []
    for number, (data, more, kind) in enumerate(of_image(frames[0], name)):
        parts = [data, *(of_image(frame, name)[number][0] for frame in frames[1:])]
        about = {"metadata": {KEY: {"frames": tuple(frames)}}}
        out.append((np.stack(parts), in_time(more) | about, kind))
    return out


def span(voxels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Contrast limits that a few bright voxels do not spoil."""
    step = tuple(slice(None, None, max(1, n // 256)) for n in voxels.shape)
    low, high = (float(v) for v in np.percentile(np.nan_to_num(voxels[step]), [0.2, 99.8]))
    return (low, high) if high > low else (low, low + 1)


def of_labels(instances: Instances, name: str) -> tuple[Any, dict[str, Any], str]:
    """A labels layer that may be written into."""
    more = placed(instances.grid) | {"name": name, "metadata": {KEY: {"instances": instances}}}
    return np.array(instances.labels, order="C"), more, "labels"


def of_label_frames(frames: Sequence[Image], name: str) -> tuple[Any, dict[str, Any], str]:
    """A labels layer of a time series."""
    found = [Instances.from_labels(frame.voxels()[0], frame.grid) for frame in frames]
    nothing = pd.DataFrame({"id": [], "class": [], "score": []})
    left = Left(found[0].grid, found[0].classes, {"labels": name}, nothing)
    about = {"metadata": {KEY: {"instances": left, "times": len(frames)}}}
    return np.stack([one.labels for one in found]), in_time(placed(left.grid)) | about | {"name": name}, "labels"


def named(viewer: Any, name: str) -> Any:
    """The layer of this name, None where there is none."""
    return next((layer for layer in viewer.layers if layer.name == name), None)


def image_of(layer: Any, at: Sequence[float] = ()) -> Image:
    """The image that a layer shows: as it was read, or, for a layer of another plugin, from its array and scale.

    Parameters
    ----------
    layer
        An image layer.
    at
        Index in the layer. Of axes before the spatial ones, time above all, the place given here is taken: of an array with more
        than three axes the first ones, of one with three the first if it is named t or time.

    Raises
    ------
    InputError
        No image layer, or one that is no 2-D or 3-D image.
    """
    if layer is None:
        raise InputError(
            "There is no image: open one first, with File > Open File(s)... or by dropping it on the window."
        )
    about = layer.metadata.get(KEY, {})
    if "image" in about:
        return about["image"]  # type: ignore[no-any-return]
    if "frames" in about:
        step = int(round(float(at[0]))) if len(at) else 0
        return about["frames"][min(max(step, 0), len(about["frames"]) - 1)]  # type: ignore[no-any-return]
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data  # the finest level
    for axis in range(layer.ndim - spatial(layer)):
        step = int(round(float(at[axis]))) if axis < len(at) else 0
        data = data[min(max(step, 0), len(data) - 1)]
    data = np.asarray(data)
    if getattr(layer, "rgb", False):
        data = np.moveaxis(data[..., :3], -1, 0)
        channels: tuple[str, ...] = ("red", "green", "blue")
    else:
        data, channels = data[None], ("0",)
    if data.ndim not in (3, 4):
        raise InputError(
            f"The layer has {data.ndim - 1} axes; choose an image with two or three, such as one time point."
        )
    if data.dtype == bool or data.dtype.kind not in "iuf":
        raise InputError(f"The layer holds {data.dtype}; choose an image of numbers.")
    grid = grid_of(layer, data.shape[1:])
    return Image(data, grid, "microscopy" if micro(grid) else "other", channels)


def timed(layer: Any) -> bool:
    """Whether one axis comes before those of space: time."""
    return layer is not None and int(layer.ndim) - spatial(layer) == 1


def times_of(layer: Any) -> list[Image]:
    """The image of each time of an image layer that is `timed`.

    Raises
    ------
    InputError
        As for `image_of`.
    """
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    return [image_of(layer, (time,)) for time in range(len(data))]


def spatial(layer: Any) -> int:
    """How many axes of a layer are of space: the last three at most; of three the first is none if it is named t or time."""
    n, about = int(layer.ndim), layer.metadata.get(KEY, {})
    if "times" in about:
        return n - 1
    if (session := about.get("session")) is not None:
        return int(session.grid.ndim)
    return 3 if n > 3 else 2 if n == 3 and str(layer.axis_labels[0]).lower() in ("t", "time") else n


def transform(layer: Any, shape: tuple[int, ...], start: Sequence[int] = ()) -> dict[str, Any]:
    """Scale, translate and units that lay an array of ``shape`` over a layer, or over the part of it that begins at ``start``."""
    n = len(shape)
    scale = np.asarray(layer.scale, dtype=float)[-n:]
    translate = np.asarray(layer.translate, dtype=float)[-n:] + scale * np.asarray(start or (0,) * n)
    return {"scale": scale.tolist(), "translate": translate.tolist(), "units": list(layer.units[-n:])}


def grid_of(layer: Any, shape: tuple[int, ...], beside: Iterable[Any] = ()) -> Grid:
    """Grid of a layer: the true one where it was read by medseg, else that of an image layer in the same place, else its scale.

    Parameters
    ----------
    layer
        Any layer.
    shape
        Of its spatial axes.
    beside
        Other layers. Labels that were begun with napari's own button lie where the image is that they were begun on.
    """
    about = layer.metadata.get(KEY, {})
    for key in ("instances", "image"):
        if key in about and about[key].grid.shape == shape:
            return about[key].grid  # type: ignore[no-any-return]
    mine = transform(layer, shape)
    for other in beside:
        theirs = other.metadata.get(KEY, {})
        image = theirs.get("image") or next(iter(theirs.get("frames", ())), None)
        if image is None or image.grid.shape != shape:
            continue
        over = transform(other, shape)
        if all(np.allclose(mine[key], over[key], rtol=1e-6, atol=1e-9) for key in ("scale", "translate")):
            return image.grid  # type: ignore[no-any-return]
    units = {str(u).split()[-1] for u in mine["units"]}
    scale = [abs(s) for s in mine["scale"]]
    if units <= {"millimeter", "mm"}:
        return Grid.from_spacing(shape, scale)
    if units <= {"micrometer", "um", "micron"}:
        return Grid.from_spacing(shape, scale, unit="um")
    return Grid.from_spacing(shape)


def instances_of(layer: Any, beside: Iterable[Any] = ()) -> Instances:
    """Instances of a labels layer as it is now: of its session where it has one; else with the scores and classes it came with.

    Labels of no file were drawn by a person, which their provenance says.
    """
    session: Session | None = layer.metadata.get(KEY, {}).get("session")
    if session is not None:
        return session.instances()
    data = np.asarray(layer.data)
    if data.ndim not in (2, 3):
        raise InputError(f"The labels have {data.ndim} axes; two or three can be used.")
    grid = grid_of(layer, data.shape, beside)
    about = layer.metadata.get(KEY, {}).get("instances")
    if rejected := layer.metadata.get(KEY, {}).get("rejected"):  # in a session that was closed
        data = np.where(np.isin(data, rejected), 0, data)
    return _known(data, grid, about)


def series_of(layer: Any, beside: Iterable[Any] = ()) -> list[Instances | None]:
    """Instances of each time of a labels layer that is `timed`, as `instances_of`; None where a session did not look.

    Ids that are of several times are numbered through.
    """
    session: Session | None = layer.metadata.get(KEY, {}).get("session")
    if session is not None:
        return session.every()
    data = np.asarray(layer.data)
    grid = grid_of(layer, data.shape[1:], beside)
    about = layer.metadata.get(KEY, {}).get("instances")
    rejected = layer.metadata.get(KEY, {}).get("rejected") or []
    every = [_known(np.where(np.isin(frame, rejected), 0, frame), grid, about) for frame in data]
    ids = np.concatenate([one.table["id"].to_numpy() for one in every])
    return list(every) if len(ids) == len(np.unique(ids)) else _numbered(every)


def _numbered(every: Sequence[Instances]) -> list[Instances | None]:
    """The same with ids that are of one time only."""
    shift, out = 0, []
    for one in every:
        ids = one.table["id"].to_numpy()
        labels = np.where(one.labels > 0, np.searchsorted(ids, one.labels) + 1 + shift, 0)
        shift += len(ids)
        number = {name: k for k, name in enumerate(one.classes, 1)}
        out.append(
            Instances.from_labels(
                labels,
                one.grid,
                scores=one.table["score"].to_numpy(),
                class_ids=[number[name] for name in one.table["class"]],
                classes=one.classes,
                provenance=one.provenance,
            )
        )
    return list(out)


def _known(data: Any, grid: Grid, about: Any) -> Instances:
    """Labels with the scores and classes they came with, where there are such."""
    if about is None:
        return Instances.from_labels(data, grid, provenance={"edited": True})
    found = Instances.from_labels(data, grid, classes=about.classes, provenance=about.provenance)
    ids = found.table["id"]
    old = about.table.set_index("id")
    number = {name: k for k, name in enumerate(about.classes, 1)}
    scores = ids.map(old["score"]).to_numpy(np.float64)
    kinds = [number.get(name, 1) for name in ids.map(old["class"])]
    return Instances.from_labels(
        data, grid, scores=scores, class_ids=kinds, classes=about.classes, provenance=about.provenance
    )
