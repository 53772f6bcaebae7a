"""One case as an HTML page that needs nothing else: what was found, key slices with outlines and axes, the table.

No scripts, no links: it can be mailed, archived and printed. It names no patient: the case is known by its key.
"""

from __future__ import annotations

from base64 import b64encode
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from medseg.export.marks import marked
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.deidentifier import VERSION
from medseg.io.overlay import busiest_slice, colours, draw, inner_edge, turned
from medseg.measure import burden, in_unit
from medseg.ops.files import write_whole

SHOWN = 12  # key slices, of the largest instances
LISTED = 1000  # rows of the table
_SIZE = 360  # pixels of a key slice
_ROOM = 25.0  # mm around a lesion, or half its size if that is more
_WINDOWS = {"CT": (-160.0, 240.0)}  # soft tissue; a lesion of lung is drawn in the window of lung
_LUNG = (-1350.0, 150.0)

Pixels = npt.NDArray[np.uint8]

# columns of the table, with a heading each; what a case does not have is left out
_COLUMNS = {
    "id": "id", "class": "class", "score": "score", "finding_site": "site", "role": "role", "volume_ml": "volume (mL)",
    "area_mm2": "area (mm2)", "area_um2": "area (um2)", "volume_um3": "volume (um3)", "area_px": "area (px)",
    "volume_px": "volume (voxels)", "long_axis_mm": "long axis (mm)", "short_axis_mm": "short axis (mm)",
    "diameter_3d_mm": "3-D diameter (mm)", "measurable": "measurable", "hu_mean": "HU mean", "hu_sd": "HU sd",
    "suv_max": "SUVmax", "suv_peak": "SUVpeak", "suv_mean": "SUVmean", "mtv_41pct_ml": "MTV 41 % (mL)", "mtv_ml": "MTV (mL)",
    "tlg_g": "TLG (g)", "equivalent_diameter_um": "diameter (um)", "circularity": "circularity", "sphericity": "sphericity",
    "intensity_mean": "mean", "touches_border": "at border",
}  # fmt: skip
_TOTALS = {
    "count": "instances", "total_volume_ml": "total volume (mL)", "largest_ml": "largest (mL)",
    "long_axes_mm": "sum of long axes (mm)", "mtv_ml": "MTV (mL)", "tlg_g": "TLG (g)",
}  # fmt: skip


def write_report(instances: Instances, image: Image, table: pd.DataFrame, path: Path, case: str) -> None:
    """Write the page of one case.

    Parameters
    ----------
    instances, image : Instances, Image
        What was found, on what.
    table : DataFrame
        From `medseg.measure.measure`.
    path : Path
        HTML file; replaced whole or not at all.
    case : str
        Name of the case that identifies nobody.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    order = table.sort_values(["voxels", "id"], ascending=[False, True], kind="stable")
    shown = order.head(SHOWN) if image.grid.ndim == 3 else order.head(0)
    page = rendered(
        "medseg.export",
        "report.html.j2",
        case=case,
        facts=_facts(instances, image),
        totals=[(_TOTALS[k], number(int(v) if k == "count" else v)) for k, v in burden(table).items()],
        notes=[*table.attrs.get("notes", []), *(image.source.notes if image.source else ())],
        overview=_png(draw(image, instances)),
        overview_told=_overview_told(instances),
        slices=[key_slice(instances, image, row) for _, row in shown.iterrows()],
        table=_rows(in_unit(order, "um") if image.length_unit == "um" else order),
        more=max(0, len(table) - LISTED),
        count=len(table),
    )
    write_whole(path, page)


def rendered(package: str, name: str, **values: Any) -> bytes:
    """Fill in the template of a page; what is not HTML is escaped, and a value that is missing is an error."""
    from jinja2 import Environment, StrictUndefined

    template = files(package).joinpath(name).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**values).encode("utf-8", "replace")


def _facts(instances: Instances, image: Image) -> list[tuple[str, str]]:
    record = instances.provenance
    facts = [("image", f"{image.modality}, {image.grid.describe()}")]
    if record.get("model"):
        facts.append(("model", f"{record['model']} (sha256 {str(record.get('model_sha256', ''))[:12]})"))
    if record.get("method"):
        facts.append(("method", str(record["method"])))
    return [*facts, ("program", f"medseg {VERSION}, for research use only")]


def _overview_told(instances: Instances) -> str:
    """Which slice the overview is, and which side of the patient is where; nothing of what is flat."""
    grid = instances.grid
    if grid.ndim != 3:
        return ""
    level = busiest_slice(instances)
    sides = "; the patient's right is at the left" if (grid.orientation or " ")[-1] in "RL" else ""
    return f"slice {grid.axes[0]} {level}{_height(instances, 0, level)}{sides}"


def _rows(table: pd.DataFrame) -> dict[str, Any]:
    columns = [name for name in _COLUMNS if name in table and not _empty(table[name])]
    if "class" in columns and table["class"].nunique() < 2:
        columns.remove("class")
    some = table[columns].head(LISTED)
    return {
        "heads": [_COLUMNS[name] for name in columns],
        "rows": [[number(value) for value in row] for row in some.itertuples(index=False)],
        "colours": [_hex(int(id)) for id in some["id"]],
    }


def _empty(column: pd.Series) -> bool:
    return len(column) > 0 and bool(column.isna().all() or (column == "").all())


def number(value: Any) -> str:
    """Return a value as a reader wants it: three digits, yes or no, a dash for none."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        if not np.isfinite(value):
            return "\u2013"
        number = float(value)
        return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
    return str(value)


def _hex(id: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_colour(id))


def _colour(id: int) -> list[int]:
    """Return the colour that the overlay draws an instance in."""
    found: list[int] = (colours(np.array([id], np.int32))[0] * 255).astype(int).tolist()
    return found


# ---------------------------------------------------------------- key slices


def key_slice(instances: Instances, image: Image, row: pd.Series) -> dict[str, str]:
    """Draw one instance in the slice of its axes: its outline, its neighbours' outlines, ids, the axes, directions, a scale bar.

    Parameters
    ----------
    instances, image : Instances, Image
        In one world.
    row : Series
        Of the table of measurements; without axes, the slice of the centroid is drawn.

    Returns
    -------
    dict
        id, colour (hex), png (base64) and told (what the caption says).
    """
    grid = instances.grid
    axis = grid.axes.index(row["axes_axis"]) if "axes_axis" in row else 0
    level = int(row["axes_slice"]) if "axes_slice" in row else int(row[f"centroid_{grid.axes[0]}"])
    place = _around(grid.spacing, grid.shape, grid.axes, row, axis, level)
    labels = np.take(instances.labels[place], 0, axis=axis)
    view = image if image.grid.matches(grid) else image.on(grid)
    plane = np.take(view.voxels(place)[0], 0, axis=axis).astype(np.float32)
    inside = [k for k in range(3) if k != axis]
    steps = np.array([grid.spacing[k] for k in inside])
    canvas, ids, unit = _canvas(plane, labels, steps, _window(image, row, plane))
    picture = _axes(canvas, row, instances, place, inside, steps, unit)
    tints = {int(id): _colour(int(id)) for id in np.unique(ids)}
    view_of = turned(grid, inside)
    picture = marked(picture[view_of], ids[view_of], tints, grid, inside, unit)
    told = [f"slice {grid.axes[axis]} {level}{_height(instances, axis, level)}"]
    for name, text in (("long_axis_mm", "long"), ("short_axis_mm", "short")):
        if name in row:
            told.append(f"{text} {row[name]:.1f} mm")
    if "volume_ml" in row:
        told.append(f"{number(row['volume_ml'])} mL")
    if "suv_max" in row:
        told.append(f"SUVmax {number(row['suv_max'])}")
    return {"id": str(row["id"]), "colour": _hex(int(row["id"])), "png": _png(picture), "told": ", ".join(told)}


def _height(instances: Instances, axis: int, number: int) -> str:
    """Where an axial, coronal or sagittal slice lies in the patient, as a viewer shows it: S 45.2 mm."""
    grid = instances.grid
    if grid.space != "patient":
        return ""
    along = int(np.argmax(np.abs(grid.affine[:3, axis])))
    index = (np.array(grid.shape) - 1) / 2
    index[axis] = number
    at = float(grid.to_world(index)[along])
    return f" ({('L', 'P', 'I')[along] if at < 0 else ('R', 'A', 'S')[along]} {abs(at):.1f} mm)"


def _around(
    spacing: tuple[float, ...], shape: tuple[int, ...], axes: tuple[str, ...], row: pd.Series, axis: int, number: int
) -> tuple[slice, ...]:
    """Return a window around an instance's box, square in space as far as the image allows, one slice thick."""
    start = np.array([row[f"box_{a}_start"] for a in axes], np.float64)
    stop = np.array([row[f"box_{a}_stop"] for a in axes], np.float64)
    steps = np.array(spacing)
    extent = ((stop - start) * steps)[[k for k in range(3) if k != axis]].max()
    half = extent / 2 + max(_ROOM, extent / 2) * (1 if extent > 1 else 0.05)
    middle = (start + stop) / 2
    low = np.clip(np.floor(middle - half / steps).astype(int), 0, shape)
    high = np.clip(np.ceil(middle + half / steps).astype(int), 1, shape)
    low[axis], high[axis] = number, number + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _window(image: Image, row: pd.Series, plane: npt.NDArray[np.float32]) -> tuple[float, float]:
    if image.modality == "CT":
        return _LUNG if float(np.median(plane)) < -400 else _WINDOWS["CT"]
    low, high = np.percentile(plane, [0.5, 99.8])
    return float(low), float(max(high, low + 1e-6))


def _canvas(
    plane: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    steps: npt.NDArray[np.float64],
    window: tuple[float, float],
) -> tuple[Pixels, npt.NDArray[np.int32], float]:
    """Return the slice as RGB with square pixels, outlines drawn, the id of each pixel, and how many mm one is."""
    extent = np.array(plane.shape) * steps
    unit = float(extent.max()) / _SIZE
    count = np.maximum(1, np.round(extent / unit)).astype(int)
    shown = np.ix_(
        *[np.minimum((np.arange(m) * n / m).astype(int), n - 1) for m, n in zip(count, plane.shape, strict=True)]
    )
    low, high = window
    grey = np.clip((plane[shown] - low) / (high - low), 0, 1)
    rgb = np.repeat((grey * 255).astype(np.uint8)[..., None], 3, axis=-1)
    ids = labels[shown]
    edge = inner_edge(ids, 1)
    for id in np.unique(ids[edge]):
        rgb[edge & (ids == id)] = _colour(int(id))
    return rgb, ids, unit


def _axes(
    canvas: Pixels,
    row: pd.Series,
    instances: Instances,
    place: tuple[slice, ...],
    inside: list[int],
    steps: Any,
    unit: float,
) -> Pixels:
    """Draw the two axes."""
    from PIL import Image as Picture
    from PIL import ImageDraw

    if "long_axis_a_x_mm" not in row:
        return canvas
    picture = Picture.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    corner = np.array([place[k].start for k in inside])
    for name, tint in (("long_axis", (255, 255, 255)), ("short_axis", (255, 220, 60))):
        ends = np.array([[row[f"{name}_{e}_{a}_mm"] for a in "xyz"] for e in "ab"], np.float64)
        index = instances.grid.to_index(ends)[:, inside]
        rows = (index - corner + 0.5) * steps / unit
        line = [(float(c), float(r)) for r, c in rows]
        pen.line(line, fill=(0, 0, 0), width=3)  # a dark rim, or a white axis is lost in a bright lesion
        pen.line(line, fill=tint, width=1)
    return np.asarray(picture)


def _png(pixels: Pixels) -> str:
    from PIL import Image as Picture

    out = BytesIO()
    Picture.fromarray(pixels).save(out, format="PNG", compress_level=6)
    return b64encode(out.getvalue()).decode("ascii")
