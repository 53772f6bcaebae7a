"""Options that say what is done with each case, the same for every command that finds instances, and the spec they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import numbers, whole_numbers
from medseg.cli.files import finding, kinds

if TYPE_CHECKING:
    from medseg.spec import CaseSpec

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Shipped or added name, or model file; see: medseg models.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Spacing = Annotated[
    str | None, typer.Option(help="Voxel size in array order, e.g. 1.75,0.8,0.8 (z,y,x), or one number for all.")
]
Unit = Annotated[str, typer.Option(help="Unit of --spacing: mm or um.")]
Channels = Annotated[str | None, typer.Option(help="Channels to use, by name or number, e.g. 0 or red,green,blue.")]
ChannelAxis = Annotated[int | None, typer.Option(help="Axis that counts channels, where the file does not say.")]
Regularize = Annotated[
    bool, typer.Option("--regularize", help="Resample irregular DICOM stacks (tilt, gaps) to regular ones.")
]
MinScore = Annotated[
    float | None, typer.Option(min=0, max=1, help="Leave out instances with a lower score; 0 keeps all.")
]
Diameter = Annotated[
    float | None, typer.Option(min=1, help="Usual diameter of the objects in voxels, where the model estimates it.")
]
Tile = Annotated[str | None, typer.Option(help="Largest network window in voxels, e.g. 512,512.")]
Threshold = Annotated[
    str | None, typer.Option(help='A rule in place of a model: "SUV>4", "SUV>4, 41%", "HU>=200", ">p99", otsu.')
]
Method = Annotated[str, typer.Option(help="How a rule's foreground is cut: shape, components, distance or intensity.")]
MinVolume = Annotated[
    float, typer.Option(min=0, help="Smallest object of a rule in mm3 (mm2; voxels without spacing).")
]
Values = Annotated[
    str, typer.Option(help="What the voxels of a file hold that does not say it: HU, SUVbw, SUVlbm, SUVbsa.")
]
Save = Annotated[
    str,
    typer.Option(help="Files to write, of: labels, nifti, tiff, csv, parquet, overlay, report, seg, rtstruct, sr."),
]
What = Annotated[
    str | None,
    typer.Option("--finding", help="What the objects are: a name such as nodule, or CODE:SCHEME:MEANING."),
]
Site = Annotated[
    str | None, typer.Option("--finding-site", help="Where they are: a name such as lung, or CODE:SCHEME:MEANING.")
]
Nodal = Annotated[bool, typer.Option("--nodal", help="They are lymph nodes: RECIST measures the short axis.")]
Role = Annotated[str | None, typer.Option(help="Their role by RECIST: target, non-target or new.")]
Deidentify = Annotated[
    bool, typer.Option("--deidentify", help="Leave out of DICOM files what the basic profile removes.")
]
Force = Annotated[bool, typer.Option("--force", help="Run although the model says it does not fit.")]


def case_spec(given: dict[str, Any]) -> CaseSpec:
    """Return what the options say as a spec.

    Parameters
    ----------
    given
        Arguments of a command, by name; those that have nothing to do with a case are passed over.

    Raises
    ------
    typer.BadParameter, SpecError
        Options that are not valid or do not go together.
    """
    from medseg.spec import CaseSpec, MeasureSpec, RunSpec, SeparateSpec, parse

    if given["unit"] not in ("mm", "um"):
        raise typer.BadParameter(f"{given['unit']!r} is neither mm nor um", param_hint="--unit")
    if given["unit"] != "mm" and given["spacing"] is None:
        raise typer.BadParameter("is the unit of --spacing, which is not given", param_hint="--unit")
    if given["threshold"] is None and (given["method"] != "shape" or given["min_volume"]):
        raise typer.BadParameter("belongs to --threshold, which is not given", param_hint="--method, --min-volume")
    if given["threshold"] is not None and given["model"] is not None:
        raise typer.BadParameter("is a rule in place of a model; give one of the two", param_hint="--threshold")
    size = numbers(given["spacing"], "--spacing")
    parts = [part.strip() for part in (given["channels"] or "").split(",")]
    run = {name: given[name] for name in ("device", "diameter", "min_score", "force")}
    cut = {name: given[name] for name in ("method", "min_volume")}
    told = {name: given[name] for name in ("model", "threshold", "unit", "channel_axis", "regularize", "deidentify")}
    return parse(
        CaseSpec,
        told
        | {
            "run": parse(RunSpec, run | {"tile": whole_numbers(given["tile"], "--tile")}, "options"),
            "separate": parse(SeparateSpec, cut, "options"),
            "measure": parse(MeasureSpec, {"values": given["values"]}, "--values"),
            "finding": finding(given["what"], given["site"], given["nodal"], given["role"]),
            "spacing": size[0] if size and len(size) == 1 else size,
            "channels": parts if given["channels"] else None,
            "save": kinds(given["save"]),
        },
        "options",
    )
