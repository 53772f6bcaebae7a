"""``medseg demo``: shipped images, shipped models, real results in a minute."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.common import make_folder, say, table


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("medseg-demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> int:
    """Segment the shipped sample images, score them against their shipped truth, and say what to try next."""
    from medseg import io, presets
    from medseg.export import save_case
    from medseg.metrics import match, overlap
    from medseg.model import Model
    from medseg.pipeline import default_model, segment
    from medseg.spec import RunSpec, parse

    options = parse(RunSpec, {"device": device}, "options")
    make_folder(output)
    models: dict[str, Model] = {}
    rows = []
    for path in sorted(p for p in presets.samples().glob("*.tif") if "_truth" not in p.name):
        stem, image = io.stem(path), io.load(path)
        say(f"segmenting {path.name}: {image.grid.describe()}")
        name = default_model(image)
        models.setdefault(name, Model.load(name, options.device))
        started = time.monotonic()
        instances = segment(image, model=models[name], options=options)
        seconds = time.monotonic() - started
        truth = io.load_labels(path.with_name(path.name.replace(stem, f"{stem}_truth")))
        save_case(instances, image, output, stem)
        counts, _ = match(overlap(truth.labels, instances.labels), 0.5)
        rows.append([stem, name, len(instances), len(truth), f"{counts.ap:.2f}", f"{counts.f1:.2f}", f"{seconds:.1f}"])
    table("", ["image", "model", "found", "truth", "AP@.5", "F1", "seconds"], rows)
    print(f"""
Each image's labels (.tif), table (.csv) and outlines (.png) are in {output}/
None of these images was trained on. For research use only.

Try next:
  medseg segment YOUR_IMAGES/ -o results      your own microscope images, 2-D or 3-D
  medseg models                               what is shipped;  medseg info nuclei2d  shows a model's card
  medseg segment --help                       spacing, channels, thresholds, GPU
In Python:  import medseg; cells = medseg.segment("image.tif"); cells.table""")
    return 0
