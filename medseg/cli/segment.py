"""``medseg segment``: images in, labels, tables and overlays out."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import numbers, progress, results_folder, say, whole_numbers, why
from medseg.cli.files import Files, Rules, finding, kinds
from medseg.errors import MedsegError, MedsegWarning, OutputError, SpecError

if TYPE_CHECKING:
    from rich.progress import Progress

    from medseg.image import Image
    from medseg.instances import Instances
    from medseg.model import Model
    from medseg.pipeline import Finished
    from medseg.spec import RunSpec


def segment(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders of images, globs, DICOM folders.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Shipped name or model file; see: medseg models.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    spacing: Annotated[
        str | None, typer.Option(help="Voxel size in array order, e.g. 1.75,0.8,0.8 (z,y,x), or one number for all.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Unit of --spacing: mm or um.")] = "mm",
    channels: Annotated[
        str | None, typer.Option(help="Channels to use, by name or number, e.g. 0 or red,green,blue.")
    ] = None,
    channel_axis: Annotated[
        int | None, typer.Option(help="Axis that counts channels, where the file does not say.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="Which series of a DICOM folder: key or number; see: medseg series.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", help="Another image of the same case for a model with several inputs: T1=t1.nii.gz."),
    ] = None,
    brain_mask: Annotated[
        Path | None, typer.Option(help="Mask of the brain, for a model that wants it cut out of the image.")
    ] = None,
    regularize: Annotated[
        bool, typer.Option("--regularize", help="Resample irregular DICOM stacks (tilt, gaps) to regular ones.")
    ] = False,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out instances with a lower score; 0 keeps all.")
    ] = None,
    diameter: Annotated[
        float | None, typer.Option(min=1, help="Usual diameter of the objects in voxels, where the model estimates it.")
    ] = None,
    tile: Annotated[str | None, typer.Option(help="Largest network window in voxels, e.g. 512,512.")] = None,
    threshold: Annotated[
        str | None, typer.Option(help='A rule in place of a model: "SUV>4", "SUV>4, 41%", "HU>=200", ">p99", otsu.')
    ] = None,
    method: Annotated[
        str, typer.Option(help="How a rule's foreground is cut: shape, components, distance or intensity.")
    ] = "shape",
    min_volume: Annotated[
        float, typer.Option(min=0, help="Smallest object of a rule in mm3 (mm2; voxels without spacing).")
    ] = 0.0,
    values: Annotated[
        str, typer.Option(help="What the voxels of a file hold that does not say it: HU, SUVbw, SUVlbm, SUVbsa.")
    ] = "auto",
    save: Annotated[
        str,
        typer.Option(help="Files to write, of: labels, nifti, tiff, csv, parquet, overlay, report, seg, rtstruct, sr."),
    ] = "labels,csv,overlay",
    what: Annotated[
        str | None,
        typer.Option("--finding", help="What the objects are: a name such as nodule, or CODE:SCHEME:MEANING."),
    ] = None,
    site: Annotated[
        str | None, typer.Option("--finding-site", help="Where they are: a name such as lung, or CODE:SCHEME:MEANING.")
    ] = None,
    nodal: Annotated[
        bool, typer.Option("--nodal", help="They are lymph nodes: RECIST measures the short axis.")
    ] = False,
    role: Annotated[str | None, typer.Option(help="Their role by RECIST: target, non-target or new.")] = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Leave out of DICOM files what the basic profile removes.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run although the model says it does not fit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per case on standard output.")] = False,
) -> int:
    """Find the individual instances in images, by a model or by a rule, and measure them.

    Writes STEM_labels (.nii.gz for volumes in NIfTI, NRRD, MHA or DICOM, .tif for microscope images),
    STEM_instances.csv and STEM_overlay.png into the output folder, and what else --save names. An image without
    instances is a normal result. For research use only.
    """
    from medseg.spec import MeasureSpec, RunSpec, SeparateSpec, parse

    if unit not in ("mm", "um"):
        raise typer.BadParameter(f"{unit!r} is neither mm nor um", param_hint="--unit")
    if unit != "mm" and spacing is None:
        raise typer.BadParameter("is the unit of --spacing, which is not given", param_hint="--unit")
    size = numbers(spacing, "--spacing")
    options = parse(
        RunSpec,
        {
            "device": device,
            "tile": whole_numbers(tile, "--tile"),
            "diameter": diameter,
            "min_score": min_score,
            "force": force,
        },
        "options",
    )
    load = {"spacing": size[0] if size and len(size) == 1 else size, "unit": unit, "channel_axis": channel_axis}
    load |= {"series": series} if series else {}
    load |= {"regularize": True} if regularize else {}
    chosen = [int(c) if c.strip().isdecimal() else c.strip() for c in channels.split(",")] if channels else None
    files = Files(
        kinds(save),
        finding(what, site, nodal, role),
        parse(MeasureSpec, {"values": values}, "--values"),
        deidentify,
    )
    if threshold is None:
        if method != "shape" or min_volume:
            raise typer.BadParameter("belongs to --threshold, which is not given", param_hint="--method, --min-volume")
        source: _Models | Rules = _Models(model, options)
    else:
        if model is not None:
            raise typer.BadParameter("is a rule in place of a model; give one of the two", param_hint="--threshold")
        spec = parse(SeparateSpec, {"method": method, "min_volume": min_volume}, "options")
        source = Rules(threshold, spec, values)
    others = _others(beside or [])
    for one in inputs:
        if os.path.isdir(one) and os.path.isdir(output) and os.path.samefile(one, output):
            raise SpecError(f"--output {output} is also an input; choose another folder, or results become inputs")
    tell = _Tell(as_json)
    with results_folder(output):
        paths = _expand(inputs, tell)
        if (others or brain_mask) and len(paths) > 1:
            raise typer.BadParameter(
                "belongs to one INPUT; run the command once for each", param_hint="--with, --brain-mask"
            )
        if paths:
            source.check()
        with progress() as bar:
            _each(
                paths, _Job(output, _Names(paths), load, chosen, others, brain_mask, source, files, options, bar), tell
            )
    return tell.code


@dataclass(frozen=True)
class _Job:
    """What all cases of a call share."""

    output: Path
    names: _Names
    load: dict[str, Any]
    channels: list[str | int] | None
    others: dict[str, Path]
    brain_mask: Path | None
    source: _Models | Rules
    files: Files
    options: RunSpec
    bar: Progress


def _each(paths: list[Path], job: _Job, tell: _Tell) -> None:
    """Segment one input after the other; only a result that cannot be written ends the run."""
    task = job.bar.add_task("images", total=len(paths), note="")
    for path in paths:
        job.bar.update(task, note=path.name)
        try:
            tell.done(_one(path, job))
        except BrokenPipeError:
            raise
        except OutputError as error:
            tell.failed(
                path, OutputError(f"{error}; {tell.count} of {len(paths)} inputs were done, their files are whole")
            )
            return
        except Exception as error:  # also a fault of ours in one image must not cost the others
            tell.failed(path, error)
        job.bar.advance(task)


def _one(path: Path, job: _Job) -> dict[str, Any]:
    """Segment one input and write its files; returns what `--json` prints."""
    from medseg import io

    started = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        image = io.load(path, **job.load)
        if job.channels is not None:
            image = image.select(job.channels)
        if job.others:
            image = _combined(image, job)
        if job.brain_mask is not None:
            from medseg.preprocess import masked

            image = masked(image, io.load_labels(job.brain_mask, like=image))
        instances, drawn_by, notes = _found(image, job)
        name = job.names.of(path, image)
        files = job.files.save(instances, image, job.output, name)
    said = [str(w.message) for w in caught if issubclass(w.category, MedsegWarning)]
    return {
        "case": name,
        "input": str(path),
        "model": drawn_by,
        "files": [str(f) for f in files],
        "count": len(instances),
        "unit": image.length_unit,
        "seconds": round(time.monotonic() - started, 3),
        "warnings": list(dict.fromkeys([*said, *notes])),
        "notes": [n for n in (image.source.notes if image.source else ()) if n not in said],
    }


def _others(beside: list[str]) -> dict[str, Path]:
    """Parse ``--with``."""
    out = {}
    for text in beside:
        name, mark, path = text.partition("=")
        if not mark or not name.strip() or not path.strip():
            raise typer.BadParameter(f"{text!r} is no NAME=FILE such as T1=t1.nii.gz", param_hint="--with")
        out[name.strip()] = Path(path.strip())
    return out


def _combined(image: Image, job: _Job) -> Image:
    """The image and those beside it as one; the image itself is what the model has no other name for."""
    from medseg import io
    from medseg.preprocess import combine

    if isinstance(job.source, Rules):
        raise typer.BadParameter("belongs to a model, not to a rule", param_hint="--with")
    wanted = job.source.for_image(image).spec.preprocess.channels
    named = {name.lower(): name for name in wanted}
    if strange := [name for name in job.others if name.lower() not in named]:
        raise typer.BadParameter(
            f"{strange[0]!r} is none of the model's inputs {', '.join(wanted)}", param_hint="--with"
        )
    rest = [name for name in wanted if name.lower() not in {n.lower() for n in job.others}]
    if len(rest) != 1:
        raise typer.BadParameter(f"the model's inputs are {', '.join(wanted)}; give all but one", param_hint="--with")
    parts = {rest[0]: image} | {named[name.lower()]: io.load(path) for name, path in job.others.items()}
    return combine({name: parts[name] for name in (rest[0], *[n for n in wanted if n != rest[0]])})


def _found(image: Image, job: _Job) -> tuple[Instances, str, tuple[str, ...]]:
    """The instances of an image, what found them, and what it noted."""
    if isinstance(job.source, Rules):
        return job.source.apply(image), job.source.text, ()
    model = job.source.for_image(image)
    last = _run(image, model, job)
    return last.instances, model.spec.name, last.notes


def _run(image: Image, model: Model, job: _Job) -> Finished:
    """Drain the pipeline into the progress bar."""
    from medseg.pipeline import Finished, Progress, Started, run

    task = job.bar.add_task("  windows", total=1, note="")
    try:
        for event in run(image, model, job.options):
            if isinstance(event, Started):
                job.bar.update(task, total=event.windows)
            elif isinstance(event, Progress):
                job.bar.update(task, completed=event.done)
            elif isinstance(event, Finished):
                return event
        raise RuntimeError("a run ends with Finished")
    finally:
        job.bar.remove_task(task)


class _Models:
    """The model asked for, or the one that fits each image, loaded once."""

    def __init__(self, name: str | None, options: RunSpec) -> None:
        self._name, self._device = name, options.device
        self._loaded: dict[str, Model] = {}
        if name is not None:
            from medseg.model import find, read_header

            read_header(find(name))  # an unknown or damaged model is told without torch

    def check(self) -> None:
        """Raise ModelError or DeviceError for what no image could be run with."""
        from medseg.model import choose_device

        choose_device(self._device)
        if self._name is not None:
            self._load(self._name)

    def for_image(self, image: Image) -> Model:
        from medseg.pipeline import default_model

        return self._load(self._name or default_model(image))

    def _load(self, name: str) -> Model:
        from medseg.model import Model

        if name not in self._loaded:
            self._loaded[name] = Model.load(name, self._device)
        return self._loaded[name]


class _Names:
    """Result names: the file's stem, made unique by a hash of content; a DICOM series is named by modality and hash."""

    def __init__(self, paths: list[Path]) -> None:
        self._count = Counter(self._stem(p) for p in paths)

    @staticmethod
    def _stem(path: Path) -> str:
        from medseg import io

        return io.stem(path).casefold()  # some file systems know no case

    def of(self, path: Path, image: Image) -> str:
        from medseg import io

        key = image.source.key if image.source else ""
        if image.source and image.source.format == "dicom":
            return f"{image.modality}_{key}"
        return f"{io.stem(path)}_{key}" if self._count[self._stem(path)] > 1 else io.stem(path)


class _Tell:
    """Says how each input went, results on standard output and errors on standard error, and keeps the exit code."""

    def __init__(self, as_json: bool) -> None:
        self._json, self.count, self._failed, self._faults = as_json, 0, 0, 0

    @property
    def code(self) -> int:
        """Exit code of the run so far."""
        if self._faults:
            return 1
        return (3 if self.count else 4) if self._failed else 0

    def done(self, case: dict[str, Any]) -> None:
        """One input is done."""
        self.count += 1
        if self._json:
            print(json.dumps(case), flush=True)
        else:
            files = ", ".join(Path(f).name for f in case["files"])
            print(f"{case['case']}: {case['count']} instances in {case['seconds']:.1f} s -> {files}", flush=True)
        for warning in case["warnings"]:
            say(f"medseg: {case['case']}: {warning}")
        for note in case["notes"]:
            say(f"medseg: {case['case']}: note: {note}")

    def failed(self, where: str | Path, error: Exception) -> None:
        """One input failed."""
        self._failed += 1
        self._faults += not isinstance(error, (MedsegError, OSError, MemoryError))
        text = str(error) if isinstance(error, OutputError) else why(where, error)
        if self._json:
            print(json.dumps({"case": str(where), "error": text}), flush=True)
        say(f"medseg: error: {text}")


def _expand(inputs: list[str], tell: _Tell) -> list[Path]:
    """All inputs as paths, without repeats; what names nothing readable is told."""
    from medseg import io

    paths: list[Path] = []
    for one in inputs:
        try:
            paths += io.inputs([one])
        except (MedsegError, OSError) as error:
            tell.failed(one, error)
    return list(dict.fromkeys(paths))
