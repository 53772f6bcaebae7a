"""All measurements of a case in one table."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pandas as pd

from medseg import io
from medseg.errors import GeometryError, InputError
from medseg.image import Image
from medseg.instances import Instances
from medseg.measure.cells import cells
from medseg.measure.intensity import intensities
from medseg.measure.lesions import lesions
from medseg.measure.neighbours import neighbours
from medseg.measure.pet import uptake
from medseg.measure.texture import texture
from medseg.ops.resample import beyond, check_meets, check_world
from medseg.spec import MeasureSpec

_SUFFIX = re.compile(r"(?P<per>_per)?_mm(?P<power>[23]?)$")


def measure(instances: Instances, image: Image | None = None, spec: MeasureSpec | None = None) -> pd.DataFrame:
    """Measure each instance.

    Parameters
    ----------
    instances : Instances
        What to measure.
    image : Image, optional
        For intensities; brought onto the grid of the instances by linear interpolation where it lies on another.
    spec : MeasureSpec, optional
        Which rules.

    Returns
    -------
    DataFrame
        The table of `instances` and further columns, whose names end in their unit (mm; px where the spacing is unknown). What
        was decided, and what could not be measured and why, is a list of sentences in ``.attrs["notes"]``.

    Raises
    ------
    GeometryError
        Image and instances lie in different worlds, or a plane is asked for that the grid does not know.
    """
    spec, notes = spec or MeasureSpec(), list[str]()
    kind = spec.kind
    if kind == "auto":
        kind = "cell" if image is not None and image.modality == "microscopy" else "lesion"
    parts = [instances.table]
    if kind == "cell":
        parts += [cells(instances), neighbours(instances, spec.nearest)]
    else:
        sliced = image is not None and image.source is not None and image.source.format == "dicom"
        parts.append(lesions(instances, spec, sliced and image is not None and image.grid.matches(instances.grid)))
    if image is not None:
        placed = image
        if not image.grid.matches(instances.grid):
            check_world(instances.grid, image.grid)
            check_meets(instances.labels, instances.grid, image.grid)
            placed = image.on(instances.grid)
            notes.append("the image was interpolated onto the grid of the instances")
        seen = _seen(instances, image, notes)
        values = _values(seen, image, placed, kind, spec, notes)
        if spec.texture:
            values.append(_texture(seen, image, placed, spec, notes))
        if len(seen) < len(instances):  # what the image does not reach has no values
            rows = pd.Index(seen.table["id"]).get_indexer(instances.table["id"])
            values = [part.reindex(rows) for part in values]
        parts += values
    elif spec.texture:
        raise InputError("Texture is of an image; give the one that the labels were drawn on.")
    table = pd.concat([part.reset_index(drop=True) for part in parts], axis=1)
    table.attrs["notes"] = notes
    return table


def burden(table: pd.DataFrame) -> dict[str, float]:
    """Sum up the lesions of a case.

    Parameters
    ----------
    table
        From `measure`.

    Returns
    -------
    dict
        count; of those columns that there are: total_volume_ml, largest_ml, long_axes_mm (their sum), mtv_ml, tlg_g.
    """
    found: dict[str, float] = {"count": len(table)}
    if "volume_ml" in table:
        volumes = table["volume_ml"].to_numpy(np.float64)
        found |= {"total_volume_ml": float(volumes.sum()), "largest_ml": float(volumes.max(initial=0.0))}
    for name, column in (("long_axes_mm", "long_axis_mm"), ("mtv_ml", "mtv_ml"), ("tlg_g", "tlg_g")):
        if column in table:
            found[name] = float(table[column].sum())
    return found


def in_unit(table: pd.DataFrame, unit: Literal["mm", "um"]) -> pd.DataFrame:
    """Return a copy of a table with all columns of mm, mm2 or mm3 in another unit of length, and renamed.

    Raises
    ------
    InputError
        The unit is not known.
    GeometryError
        The table is in voxels, as the spacing is unknown.
    """
    if unit not in ("mm", "um"):
        raise InputError(f"Unit {unit!r} is not known; use um or mm.")
    if any(str(name).endswith("_px") for name in table.columns):
        raise GeometryError(f"The spacing is unknown, so there is no table in {unit}; give the spacing on loading.")
    if unit == "mm":
        return table.copy()
    out, names = table.copy(), {}
    for name in table.columns:
        if found := _SUFFIX.search(str(name)):
            factor = 1000.0 ** int(found["power"] or 1)
            out[name] = out[name] / factor if found["per"] else out[name] * factor
            names[name] = f"{str(name)[: found.start()]}{found['per'] or ''}_um{found['power']}"
    return out.rename(columns=names)


def _seen(instances: Instances, image: Image, notes: list[str]) -> Instances:
    """Return the instances without what lies beyond the image: nothing is known there, and it would count as air."""
    if image.grid.matches(instances.grid):
        return instances
    lost = beyond(instances.labels, instances.grid, image.grid)
    count, whole = int(lost.sum()), int(instances.table["voxels"].sum())
    if not count:
        return instances
    notes.append(
        f"{count} of {whole} voxels of the instances ({100 * count / whole:.3g} %) lie outside of the image and have no "
        "intensities; are both of one patient, one scan and one space?"
    )
    return Instances.from_labels(np.where(lost, 0, instances.labels), instances.grid)


def _values(
    instances: Instances, image: Image, placed: Image, kind: str, spec: MeasureSpec, notes: list[str]
) -> list[pd.DataFrame]:
    """Measure voxel values: HU, SUV, or plain intensities per channel."""
    if spec.values == "HU" or (spec.values == "auto" and image.modality == "CT"):
        return [intensities(instances, placed, "hu")]
    if spec.values.startswith("SUV"):
        return [_uptake(instances, placed, spec.values.lower(), spec)]
    if image.modality == "PT" and kind == "lesion":
        return _pet(instances, image, placed, spec, notes)
    return [intensities(instances, placed, "intensity")]


def _texture(instances: Instances, image: Image, placed: Image, spec: MeasureSpec, notes: list[str]) -> pd.DataFrame:
    """Measure texture in the unit that intensities are measured in."""
    values = "CT" if spec.values == "HU" or (spec.values == "auto" and image.modality == "CT") else "other"
    if spec.values.startswith("SUV"):
        values = "SUV"
    elif spec.values == "auto" and image.modality == "PT":
        converted = io.suv(image, "bw")
        values, placed = "SUV", converted if image.grid.matches(instances.grid) else converted.on(instances.grid)
    found, told = texture(instances, placed, values)
    notes += told
    return found


def _pet(instances: Instances, image: Image, placed: Image, spec: MeasureSpec, notes: list[str]) -> list[pd.DataFrame]:
    """Measure SUV in all variants that the tags allow; without any, plain intensities, and why."""
    parts = []
    for variant in ("bw", "lbm", "bsa"):
        try:
            converted = io.suv(image, variant)
        except InputError as error:
            notes.append(f"SUV{variant} was not computed: {error}")
            continue
        on = converted if image.grid.matches(instances.grid) else converted.on(instances.grid)
        parts.append(_uptake(instances, on, f"suv{variant}", spec))
    return parts or [intensities(instances, placed, "intensity")]


def _uptake(instances: Instances, image: Image, name: str, spec: MeasureSpec) -> pd.DataFrame:
    if image.array.shape[0] != 1 or instances.grid.ndim != 3 or not instances.grid.known:
        raise InputError("SUV is measured in 3-D, in one channel, with known spacing.")
    return uptake(instances, np.asarray(image.voxels()[0]), "suv" if name == "suvbw" else name, spec)
