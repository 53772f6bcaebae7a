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

from medseg.cli import cases
from medseg.cli.common import progress, results_folder, say, why
from medseg.errors import InputError, MedsegError, MedsegWarning, OutputError, SpecError
from medseg.words import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from medseg.case import Models, Rules
    from medseg.image import Image
    from medseg.pipeline import Finished
    from medseg.spec import CaseSpec


def segment(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders of images, globs, DICOM folders.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: cases.Model = None,
    device: cases.Device = "auto",
    spacing: cases.Spacing = None,
    unit: cases.Unit = "mm",
    channels: cases.Channels = None,
    channel_axis: cases.ChannelAxis = None,
    series: Annotated[
        str | None,
        typer.Option(help="Which series of a DICOM folder (see: medseg series), or scene of a CZI, ND2 or LIF."),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", help="Another image of the same case for a model with several inputs: T1=t1.nii.gz."),
    ] = None,
    brain_mask: Annotated[
        Path | None, typer.Option(help="Mask of the brain, for a model that wants it cut out of the image.")
    ] = None,
    regularize: cases.Regularize = False,
    min_score: cases.MinScore = None,
    diameter: cases.Diameter = None,
    tile: cases.Tile = None,
    threshold: cases.Threshold = None,
    method: cases.Method = "shape",
    min_volume: cases.MinVolume = 0.0,
    values: cases.Values = "auto",
    save: cases.Save = "labels,csv,overlay",
    what: cases.What = None,
    site: cases.Site = None,
    nodal: cases.Nodal = False,
    role: cases.Role = None,
    deidentify: cases.Deidentify = False,
    force: cases.Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per case on standard output.")] = False,
) -> int:
    """Find the individual instances in images, by a model or by a rule, and measure them.

    Writes STEM_labels (.nii.gz for volumes in NIfTI, NRRD, MHA or DICOM, .tif for microscope images),
    STEM_instances.csv and STEM_overlay.png into the output folder, and what else --save names. An image without
    instances is a normal result. For research use only.
    """
    spec = cases.case_spec(locals())
    from medseg.case import finder

    source = finder(spec)
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
            _each(paths, _Job(output, _Names(paths), spec, series, others, brain_mask, source, bar), tell)
    return tell.code


@dataclass(frozen=True)
class _Job:
    """What all cases of a call share."""

    output: Path
    names: _Names
    spec: CaseSpec
    series: str | None
    others: dict[str, Path]
    brain_mask: Path | None
    source: Models | Rules
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
    from medseg.case import read
    from medseg.export import save_spec

    started = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        image = read(path, job.spec, job.series)
        if job.others:
            image = _combined(image, job)
        if job.brain_mask is not None:
            from medseg.preprocess import masked

            image = masked(image, io.load_labels(job.brain_mask, like=image))
        last = _run(image, job)
        name = job.names.of(path, image)
        files = save_spec(last.instances, image, job.output, name, job.spec)
    said = [str(w.message) for w in caught if issubclass(w.category, MedsegWarning)]
    return {
        "case": name,
        "input": str(path),
        "model": job.source.name(image),
        "files": [str(f) for f in files],
        "count": len(last.instances),
        "unit": image.length_unit,
        "seconds": round(time.monotonic() - started, 3),
        "warnings": list(dict.fromkeys([*said, *last.notes])),
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
    """The image and those beside it as one."""
    from medseg import io
    from medseg.case import Models, combined

    if not isinstance(job.source, Models):
        raise InputError("--with belongs to a model, not to a rule; leave it out")
    wanted = job.source.for_image(image).spec.preprocess.channels
    try:
        return combined(image, {name: io.load(path) for name, path in job.others.items()}, wanted)
    except InputError as error:
        raise InputError(f"--with: {error}") from None


def _run(image: Image, job: _Job) -> Finished:
    """Drain the pipeline into the progress bar."""
    from medseg.pipeline import Finished, Progress, Started

    task = job.bar.add_task("  windows", total=1, note="")
    try:
        for event in job.source.events(image):
            if isinstance(event, Started):
                job.bar.update(task, total=event.windows)
            elif isinstance(event, Progress):
                job.bar.update(task, completed=event.done)
            elif isinstance(event, Finished):
                return event
        raise RuntimeError("a run ends with Finished")
    finally:
        job.bar.remove_task(task)


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
            print(f"{case['case']}: {counted(case['count'])} in {case['seconds']:.1f} s -> {files}", flush=True)
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
