"""``medseg segment``: images in, labels, tables and overlays out."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import numbers, progress, say, whole_numbers
from medseg.errors import MedsegError, MedsegWarning, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from medseg.image import Image
    from medseg.instances import Instances
    from medseg.model import Model
    from medseg.spec import RunSpec


def segment(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders of images, globs, DICOM folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Shipped name or model file; see: medseg models.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    spacing: Annotated[str | None, typer.Option(help="Voxel size in array order, e.g. 1.75,0.8,0.8 (z,y,x).")] = None,
    unit: Annotated[str, typer.Option(help="Unit of --spacing: mm or um.")] = "mm",
    channels: Annotated[str | None, typer.Option(help="Channels to use, by name or number, e.g. 0 or red,green,blue.")] = None,
    channel_axis: Annotated[int | None, typer.Option(help="Axis that counts channels, where the file does not say.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out instances with a lower score.")] = 0.0,
    tile: Annotated[str | None, typer.Option(help="Largest network window in voxels, e.g. 512,512.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run although the model says it does not fit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per case on standard output.")] = False,
) -> int:
    """Find the individual instances in images.

    Writes STEM_labels (.nii.gz for volumes in NIfTI, NRRD, MHA or DICOM, .tif for microscope images), STEM_instances.csv and
    STEM_overlay.png into the output folder. An image without instances is a normal result. For research use only.
    """
    from medseg.spec import RunSpec, parse

    if unit not in ("mm", "um"):
        raise typer.BadParameter(f"--unit: {unit!r} is neither mm nor um")
    size = numbers(spacing, "--spacing")
    options = parse(
        RunSpec,
        {"device": device, "tile": whole_numbers(tile, "--tile"), "min_score": min_score, "force": force},
        "options",
    )
    load = {"spacing": size, "unit": unit, "channel_axis": channel_axis}
    chosen = [int(c) if c.strip().isdigit() else c.strip() for c in channels.split(",")] if channels else None
    if model is not None:
        from medseg.model import find

        find(model)  # an unknown model is a usage error, before anything is read
    _make_folder(output)
    paths, failed = _expand(inputs, as_json)
    names, loaded, done = _Names(paths), _Models(model, options), 0
    with progress() as bar:
        task = bar.add_task("images", total=len(paths), note="")
        for path in paths:
            bar.update(task, note=path.name)
            try:
                case = _one(path, output, names, load, chosen, loaded, options, bar)
            except OutputError:
                raise
            except MedsegError as error:
                failed += 1
                _report({"case": path.name, "error": str(error)}, as_json)
            else:
                done += 1
                _report(case, as_json)
            bar.advance(task)
    if failed and not done:
        return 4
    return 3 if failed else 0


def _one(
    path: Path,
    output: Path,
    names: _Names,
    load: dict[str, Any],
    channels: list[str | int] | None,
    models: _Models,
    options: RunSpec,
    bar: Progress,
) -> dict[str, Any]:
    """Segment one input and write its files; returns what `--json` prints."""
    from medseg import io
    from medseg.pipeline import Finished, Started, run
    from medseg.pipeline import Progress as Windows

    started = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedsegWarning)
        image = io.load(path, **load)
        if channels is not None:
            image = image.select(channels)
        model = models.for_image(image)
        task = bar.add_task("  windows", total=1, note="")
        try:
            for event in run(image, model, options):
                if isinstance(event, Started):
                    bar.update(task, total=event.windows)
                elif isinstance(event, Windows):
                    bar.update(task, completed=event.done)
                elif isinstance(event, Finished):
                    instances, notes = event.instances, event.notes
        finally:
            bar.remove_task(task)
    said = [str(w.message) for w in caught if issubclass(w.category, MedsegWarning)]
    files = write(instances, image, output, names.of(path, image))
    return {
        "case": names.of(path, image),
        "model": model.spec.name,
        "files": [str(f) for f in files],
        "count": len(instances),
        "unit": image.length_unit,
        "seconds": round(time.monotonic() - started, 3),
        "warnings": list(dict.fromkeys([*said, *(image.source.notes if image.source else ()), *notes])),
    }


def write(instances: Instances, image: Image, output: Path, stem: str) -> list[Path]:
    """Write labels, table and overlay of one case and return their paths."""
    from medseg import io
    from medseg.io.overlay import save_overlay

    source = image.source.format if image.source else "tiff"
    ending = ".tif" if source in ("tiff", "png") else ".nii.gz"
    labels, table, picture = (output / f"{stem}{e}" for e in (f"_labels{ending}", "_instances.csv", "_overlay.png"))
    io.save_labels(instances, labels, like=image)
    io.save_table(instances, table, image.length_unit)
    save_overlay(image, instances, picture)
    return [labels, table, picture]


class _Models:
    """The model asked for, or the one that fits each image, loaded once."""

    def __init__(self, name: str | None, options: RunSpec) -> None:
        self._name, self._device = name, options.device
        self._loaded: dict[str, Model] = {}

    def for_image(self, image: Image) -> Model:
        from medseg.model import Model
        from medseg.pipeline import default_model

        name = self._name or default_model(image)
        if name not in self._loaded:
            self._loaded[name] = Model.load(name, self._device)
        return self._loaded[name]


class _Names:
    """Result names: the file's stem, made unique by a hash of content; a DICOM series is named by modality and hash."""

    def __init__(self, paths: list[Path]) -> None:
        from medseg import io

        self._count = Counter(io.stem(p) for p in paths)

    def of(self, path: Path, image: Image) -> str:
        from medseg import io

        key = image.source.key if image.source else ""
        if image.source and image.source.format == "dicom":
            return f"{image.modality}_{key}"
        stem = io.stem(path)
        return f"{stem}_{key}" if self._count[stem] > 1 else stem


def _expand(inputs: list[str], as_json: bool) -> tuple[list[Path], int]:
    """All inputs as paths, without repeats, and how many arguments named nothing readable."""
    from medseg import io

    paths, failed = [], 0
    for one in inputs:
        try:
            paths += io.inputs([one])
        except MedsegError as error:
            failed += 1
            _report({"case": one, "error": str(error)}, as_json)
    return list(dict.fromkeys(paths)), failed


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be made a folder ({error.strerror}); choose another --output") from None


def _report(case: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(case), flush=True)
    if "error" in case:
        say(f"medseg: error: {case['error']}")
        return
    if not as_json:
        print(f"{case['case']}: {case['count']} instances in {case['seconds']:.1f} s -> {Path(case['files'][0]).name}", flush=True)
    for warning in case["warnings"]:
        say(f"medseg: {case['case']}: {warning}")


