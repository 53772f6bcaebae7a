"""``medseg convert``: one image or label file into another format, on its own grid or on a reference's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import numbers, say
from medseg.errors import InputError, MedsegWarning
from medseg.words import counted

if TYPE_CHECKING:
    from medseg.image import Image
    from medseg.instances import Instances

DICOM = ("seg", "labelmap", "rtstruct", "sr")


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Image, label file, DICOM folder, SEG, RTSTRUCT or SR.")],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="NAME.nii.gz, .nii, .nrrd, .mha, .ome.tif; .dcm for labels; .csv of an SR."),
    ],
    reference: Annotated[
        Path | None, typer.Option(help="Image whose grid OUT has; for .dcm the DICOM series it belongs to.")
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="IN holds labels: ids are never mixed.")] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="What a .dcm is: seg (one segment per instance), labelmap, rtstruct, or sr of a SEG; seg if absent.",
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(help="Which series of a DICOM folder (of IN, or of --reference for labels); see: medseg series."),
    ] = None,
    regularize: Annotated[
        bool, typer.Option("--regularize", help="Resample an irregular DICOM stack to a regular one.")
    ] = False,
    spacing: Annotated[str | None, typer.Option(help="Voxel size in array order, where IN states none.")] = None,
    unit: Annotated[str, typer.Option(help="Unit of --spacing: mm or um.")] = "mm",
    channel_axis: Annotated[int | None, typer.Option(help="Axis that counts channels, where IN does not say.")] = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Leave out of a .dcm what the basic profile removes.")
    ] = False,
) -> int:
    """Convert an image or labels between NIfTI, NRRD, MetaImage, OME-TIFF and DICOM, a report (SR) to a table.

    Positions are kept to a thousandth of a millimetre; images are interpolated and labels take the nearest id only
    where --reference lies on another grid. For research use only.
    """
    from medseg import io
    from medseg.io import write
    from medseg.io.clinical import objects

    dicom = target.suffix.lower() == ".dcm"
    if form is not None and (form not in DICOM or not dicom):
        raise typer.BadParameter(f"{form!r} with {target.suffix}; a .dcm is {', '.join(DICOM)}", param_hint="--as")
    if unit not in ("mm", "um"):
        raise typer.BadParameter(f"{unit!r} is neither mm nor um", param_hint="--unit")
    if deidentify and not dicom:
        raise typer.BadParameter("is for .dcm; other formats hold no patient", param_hint="--deidentify")
    size = numbers(spacing, "--spacing")
    given: dict[str, Any] = {"spacing": size[0] if size and len(size) == 1 else size, "unit": unit}
    chosen: dict[str, Any] = {"series": series, "regularize": regularize}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        drawn = source.is_file() and objects.is_kind(source, objects.SEG + objects.RTSTRUCT)
        if source.is_file() and objects.is_kind(source, objects.SR):
            found = io.load_report(source)
            write.rows(found, target)
            said = f"{len(found)} measurement groups"
        elif labels or dicom or drawn:  # then only the reference can be a series to choose from
            like = None if reference is None else io.load(reference, **chosen)
            _keep_inputs(target, source, like)
            instances = _read(source, like, drawn, given)
            _tell_ids(instances, dicom)
            segmentation = source if drawn and objects.is_kind(source, objects.SEG) else None
            _write(instances, target, like, (form or "seg") if dicom else "", deidentify, segmentation)
            said = f"{counted(len(instances))}, {instances.grid.describe()}"
        else:
            image = io.load(source, channel_axis=channel_axis, **given, **chosen)
            _keep_inputs(target, source, image)
            image = image if reference is None else image.on(io.load(reference).grid)
            io.save_image(image, target)
            for note in image.source.notes if image.source else ():
                say(f"medseg: note: {note}")
            said = f"image, {image.grid.describe()}" + (f", {n} channels" if (n := len(image.channels)) > 1 else "")
    print(f"{target}: {said}")
    for one in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, MedsegWarning)):
        say(f"medseg: {one}")
    return 0


def _read(source: Path, like: Image | None, drawn: bool, given: dict[str, Any]) -> Instances:
    """Labels on their own grid, or on the reference's."""
    from medseg import io
    from medseg.io.clinical import objects

    if not drawn:
        instances = io.load_labels(source, **given)
    elif given["spacing"] is not None:
        raise InputError(f"{source.name} states its own spacing; leave --spacing out.")
    else:  # contours have no grid of their own, segments have
        instances = io.load_labels(source, like=like if objects.is_kind(source, objects.RTSTRUCT) else None)
    if like is None:
        return instances
    placed = instances.on(like.grid)
    if len(instances) and not len(placed):
        raise InputError(
            f"{source.name}: none of its {len(instances)} instances lies in the reference; is it the image they were drawn on?"
        )
    return placed


def _keep_inputs(target: Path, source: Path, image: Image | None) -> None:
    """Raise unless OUT is another file than all that are read."""
    read = {source, *(image.source.files if image and image.source else ())}
    if target.exists() and any(one.exists() and one.samefile(target) for one in read):
        raise InputError(f"{target}: is one of the files that are read; choose another name for the result.")


def _tell_ids(instances: Instances, dicom: bool) -> None:
    """DICOM numbers its segments from 1: say which was which."""
    ids = instances.table["id"].tolist()
    if dicom and ids != list(range(1, len(ids) + 1)):
        shown = ", ".join(f"{old} is {new}" for new, old in enumerate(ids[:20], 1))
        say(f"medseg: note: DICOM numbers from 1: {shown}{' ...' if len(ids) > 20 else ''}")


def _write(
    instances: Instances, target: Path, like: Image | None, form: str, deidentify: bool, segmentation: Path | None
) -> None:
    from medseg import io

    if not form:
        io.save_labels(instances, target)
    elif like is None:
        raise InputError(f"{target.name}: a DICOM result belongs to a DICOM series; name it with --reference.")
    elif form == "sr":
        if deidentify:
            raise InputError(
                f"{target.name}: a de-identified report needs its SEG written in the same breath; use io.save_seg and "
                "io.save_report with deidentify=True in Python."
            )
        if segmentation is None:
            raise InputError(
                f"{target.name}: a report names the segments of a SEG; convert to a SEG first, then that SEG with --as sr."
            )
        io.save_report(instances, target, like, segmentation=segmentation, deidentify=deidentify)
    elif form == "rtstruct":
        io.save_rtstruct(instances, target, like, deidentify=deidentify)
    else:
        io.save_seg(instances, target, like, kind="binary" if form == "seg" else "labelmap", deidentify=deidentify)
