"""``medseg separate``: a mask of any program to single objects."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.common import results_folder
from medseg.cli.files import IMAGE, SAVE, VALUES, Files, both, finding, kinds, tell
from medseg.errors import MedsegWarning

if TYPE_CHECKING:
    from medseg.image import Image


def separate(
    mask: Annotated[
        Path, typer.Argument(metavar="MASK", help="Mask or labels: NIfTI, NRRD, TIFF, DICOM SEG or RTSTRUCT.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    image: Annotated[Path | None, typer.Option(help=IMAGE)] = None,
    series: Annotated[str | None, typer.Option(help="Which series of a DICOM folder; see: medseg series.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="shape: as learned; components: pieces; distance: where it narrows; intensity: where the image dips."
        ),
    ] = "shape",
    min_volume: Annotated[
        float,
        typer.Option(min=0, help="mm3 (mm2; voxels without spacing) under which a piece joins its neighbour or goes."),
    ] = 0.0,
    save: Annotated[str, typer.Option(help=SAVE)] = "labels,csv,overlay",
    values: Annotated[str, typer.Option(help=VALUES)] = "auto",
    what: Annotated[str | None, typer.Option("--finding", help="Name such as nodule, or CODE:SCHEME:MEANING.")] = None,
    site: Annotated[
        str | None, typer.Option("--finding-site", help="Name such as lung, or CODE:SCHEME:MEANING.")
    ] = None,
    nodal: Annotated[
        bool, typer.Option("--nodal", help="They are lymph nodes: RECIST measures the short axis.")
    ] = False,
    role: Annotated[str | None, typer.Option(help="Role by RECIST: target, non-target or new.")] = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Leave out of DICOM files what the basic profile removes.")
    ] = False,
) -> int:
    """Cut a mask into single lesions or cells and measure each.

    The mask may come from any program or person; all its ids count as foreground. For research use only.
    """
    from medseg.separate import separate as cut
    from medseg.spec import MeasureSpec, SeparateSpec, parse

    spec = parse(SeparateSpec, {"method": method, "min_volume": min_volume}, "options")
    files = Files(
        kinds(save), finding(what, site, nodal, role), parse(MeasureSpec, {"values": values}, "--values"), deidentify
    )
    with results_folder(output), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        drawn, picture = both(mask, image, series)
        found = cut(drawn, image=picture if image else None, spec=spec)
        written = files.save(found, picture, output, _stem(mask, picture), intensities=image is not None)
    tell(caught, found)
    print(f"{len(drawn)} ids in the mask, {len(found)} objects -> {', '.join(p.name for p in written)}")
    return 0


def _stem(mask: Path, picture: Image) -> str:
    from medseg import io

    if picture.source and picture.source.format == "dicom":
        return f"{picture.modality}_{picture.source.key}"
    return io.stem(mask)
