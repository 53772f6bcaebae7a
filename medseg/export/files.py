"""Write what was asked for of one case, each file whole or not at all, all of them speaking of the same instances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import pandas as pd

from medseg import io
from medseg.errors import InputError, MedsegWarning
from medseg.export.report import write_report
from medseg.image import Image
from medseg.instances import Instances
from medseg.io import write
from medseg.io.clinical.codes import MEASURES
from medseg.io.clinical.segments import recorded
from medseg.io.clinical.segments import said as spoken
from medseg.io.clinical.sr import ENDS
from medseg.io.names import SCOPES
from medseg.io.overlay import save_overlay
from medseg.measure import in_unit, measure
from medseg.measure.recist import LONG, NODE
from medseg.spec import CaseSpec, FindingSpec, MeasureSpec

KINDS = {
    "labels": "label image: .tif beside a microscope image, else .nii.gz",
    "nifti": "label image as .nii.gz",
    "tiff": "label image as OME-TIFF",
    "csv": "table of instances with all measurements",
    "parquet": "the same as Parquet",
    "overlay": "picture of the outlines",
    "report": "page for a reader: key slices, outlines, table",
    "seg": "DICOM segmentation",
    "rtstruct": "DICOM RT structure set",
    "sr": "DICOM structured report (writes the segmentation too)",
}
OF_SERIES = ("labels", "tiff", "csv", "parquet")  # kinds that can hold times
DEFAULT: tuple[str, ...] = CaseSpec().save


def save_case(
    instances: Instances,
    image: Image,
    folder: Path,
    stem: str,
    kinds: Sequence[str] = DEFAULT,
    *,
    finding: FindingSpec | None = None,
    measures: MeasureSpec | None = None,
    deidentify: bool = False,
    intensities: bool = True,
    said: pd.DataFrame | None = None,
) -> list[Path]:
    """Write the files of one case and return their paths, in the order of `KINDS`.

    Parameters
    ----------
    instances, image : Instances, Image
        What was found, on what.
    folder : Path
        There already.
    stem : str
        How the names of the files begin; free of anything that identifies a patient.
    kinds : sequence of str
        Of `KINDS`.
    finding : FindingSpec, optional
        What the instances are, for DICOM and the table.
    measures : MeasureSpec, optional
        Rules of the measurements.
    deidentify : bool
        Leave out of DICOM files what the basic profile removes.
    intensities : bool
        False: the image is only something to draw on, and its values are not measured.
    said : DataFrame, optional
        Column id and columns that a person filled in or corrected for single instances: what is there is taken in place of what
        was measured.

    Raises
    ------
    InputError
        A kind is not known, or DICOM is asked for of an image that was not read from DICOM.
    OutputError
        A file cannot be written; those before it are whole.

    Warns
    -----
    MedsegWarning
        Nothing was found: SEG and RTSTRUCT cannot say so and are not written. Measurements that could not be made.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"There is no output {', '.join(unknown)}; choose of {', '.join(KINDS)}.")
    chosen = [kind for kind in KINDS if kind in kinds or (kind == "seg" and "sr" in kinds)]
    table = corrected(measure(instances, image if intensities else None, measures), known_of(instances, finding, said))
    codes = [finding.site] if finding and finding.site else []
    instances, finding = spoken(instances, table, codes), _of_all(finding, table)
    for note in table.attrs["notes"]:
        warn(note, MedsegWarning, stacklevel=2)
    if not len(instances) and (missing := [kind for kind in chosen if kind in ("seg", "rtstruct")]):
        warn(
            f"nothing was found, which a DICOM {' or '.join(missing)} cannot say: not written",
            MedsegWarning,
            stacklevel=2,
        )
        chosen = [kind for kind in chosen if kind not in missing]
    paths = [_one(kind, instances, image, table, folder, stem, finding, deidentify) for kind in chosen]
    return list(dict.fromkeys(paths))  # of a volume, labels and nifti are one file


def save_series(
    found: Sequence[Instances | None],
    images: Sequence[Image],
    folder: Path,
    stem: str,
    kinds: Sequence[str],
    said: pd.DataFrame | None = None,
) -> list[Path]:
    """Write the files of a time series: labels with an axis of time, and a table whose column ``time`` counts from 0.

    Parameters
    ----------
    found : sequence of Instances
        Of each time; None where one was not looked at. No id is of two times.
    images : sequence of Image
        What they were found on.
    folder, stem, said
        As for `save_case`.
    kinds : sequence of str
        Of `OF_SERIES`.

    Raises
    ------
    InputError
        A kind cannot hold times, or an id is of two.
    OutputError
        A file cannot be written; those before it are whole.

    Warns
    -----
    MedsegWarning
        Measurements that could not be made.
    """
    if refused := [kind for kind in kinds if kind not in OF_SERIES]:
        raise InputError(
            f"A time series cannot be written as {', '.join(refused)}; choose of {', '.join(OF_SERIES)}, or segment one time."
        )
    tables = []
    for time, (one, image) in enumerate(zip(found, images, strict=True)):
        if one is not None:
            table = measure(one, image)
            table.insert(1, "time", time)
            tables.append(table)
    notes = [note for table in tables for note in table.attrs["notes"]]
    # empty tables say nothing of the types of their columns
    whole = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    if whole["id"].duplicated().any():
        raise InputError("An id is of instances of two times; number them through.")
    whole.attrs["notes"] = list(dict.fromkeys(notes))
    for note in whole.attrs["notes"]:
        warn(note, MedsegWarning, stacklevel=2)
    whole = corrected(whole, said)
    paths = []
    for kind in [kind for kind in OF_SERIES if kind in kinds]:
        path = folder / f"{stem}{'_labels.tif' if kind in ('labels', 'tiff') else f'_instances.{kind}'}"
        if path in paths:
            continue
        if kind in ("csv", "parquet"):
            write.rows(in_unit(whole, "um") if images[0].length_unit == "um" else whole, path)
        else:
            write.series(found, path)
        paths.append(path)
    return paths


def save_spec(instances: Instances, image: Image, folder: Path, stem: str, spec: CaseSpec) -> list[Path]:
    """Write the files that a spec names, as `save_case` does."""
    return save_case(
        instances, image, folder, stem, spec.save,
        finding=spec.finding, measures=spec.measure, deidentify=spec.deidentify,
    )  # fmt: skip


def known_of(instances: Instances, finding: FindingSpec | None, said: pd.DataFrame | None) -> pd.DataFrame:
    """Return id, and what is known of each instance that was not measured: of single ones by a person, else of all, else by a file.

    With finding_site, nodal and role where anything of them is known, empty or False where not of this instance.
    """
    out = recorded(instances)
    if finding is not None and (finding.site or finding.nodal or finding.role):
        out = out.assign(
            finding_site=finding.site[2] if finding.site else out.get("finding_site", ""),
            nodal=finding.nodal or out.get("nodal", False),
            role=finding.role or out.get("role", ""),
        )
    out = corrected(out, said)
    for name, nothing in (("finding_site", ""), ("role", ""), ("nodal", False)):
        if name in out:
            out[name] = [nothing if pd.isna(value) else value for value in out[name]]
    return out


def _of_all(finding: FindingSpec | None, table: pd.DataFrame) -> FindingSpec | None:
    """Return the finding without what the table says otherwise of single instances."""
    if finding is None:
        return None
    whole = {"site": ("finding_site", finding.site[2] if finding.site else ""), "nodal": ("nodal", finding.nodal)}
    whole["role"] = ("role", finding.role)
    usual = FindingSpec()
    other = {
        name: getattr(usual, name) for name, (column, told) in whole.items()
        if column in table and not (table[column] == told).all()
    }  # fmt: skip
    return finding.model_copy(update=other)


def corrected(table: pd.DataFrame, said: pd.DataFrame | None) -> pd.DataFrame:
    """Return the table with what a person said of single instances in place of what was measured; NaN says nothing."""
    if said is None:
        return table
    told = said.set_index("id")
    out = table.copy()
    for name in told.columns:
        values = out["id"].map(told[name])
        out[name] = values.where(values.notna(), out[name]) if name in out else values
    if "measurable" in out and "long_axis_mm" in out:
        node = out["nodal"].fillna(False).astype(bool) if "nodal" in told else pd.Series(False, index=out.index)
        moved = (
            out["id"].map(told["long_axis_mm"]).notna() if "long_axis_mm" in told else pd.Series(False, index=out.index)
        )
        # what is shorter than 10 mm is never measurable; of a moved axis no more is known here than of the measured one
        out.loc[moved & (out["long_axis_mm"] < LONG), "measurable"] = False
        out.loc[node, "measurable"] = out.loc[node, "short_axis_mm"] >= NODE
    out.attrs = dict(table.attrs)
    return out


def _one(
    kind: str,
    instances: Instances,
    image: Image,
    table: pd.DataFrame,
    folder: Path,
    stem: str,
    finding: FindingSpec | None,
    deidentify: bool,
) -> Path:
    source = image.source.format if image.source else "tiff" if image.grid.ndim == 2 else "nifti"
    ending = ".tif" if kind == "tiff" or (kind == "labels" and source in ("tiff", "png", *SCOPES)) else ".nii.gz"
    names: dict[str, str] = {
        "csv": "_instances.csv",
        "parquet": "_instances.parquet",
        "overlay": "_overlay.png",
        "report": "_report.html",
        "seg": "_seg.dcm",
        "rtstruct": "_rtstruct.dcm",
        "sr": "_sr.dcm",
    }
    path = folder / f"{stem}{names.get(kind, f'_labels{ending}')}"
    dicom: dict[str, Any] = {"finding": finding, "deidentify": deidentify}
    if kind in ("labels", "nifti", "tiff"):
        io.save_labels(instances, path, like=image)
    elif kind in ("csv", "parquet"):
        write.rows(in_unit(table, "um") if image.length_unit == "um" else table, path)
    elif kind == "overlay":
        save_overlay(image, instances, path)
    elif kind == "report":
        write_report(instances, image, table, path, stem)
    elif kind == "seg":
        io.save_seg(instances, path, image, **dicom)
    elif kind == "rtstruct":
        io.save_rtstruct(instances, path, image, **dicom)
    else:
        coded = [name for name in table.columns if (name in MEASURES and name != "volume_mm3") or name in ENDS]
        seg = folder / f"{stem}_seg.dcm" if len(instances) else None
        io.save_report(instances, path, image, segmentation=seg, measures=table[["id", *coded]], **dicom)
    return path
