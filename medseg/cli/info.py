"""``medseg info``: what a model file or an image file says about itself. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.common import why
from medseg.errors import InputError, MissingError, ModelError

if TYPE_CHECKING:
    from medseg.spec import ModelSpec


def info(
    target: Annotated[
        str, typer.Argument(metavar="MODEL|IMAGE", help="Model name, model file, image file or DICOM folder.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> int:
    """Describe a model (its card) or an image (shape, spacing, channels)."""
    from medseg import presets

    if target in presets.weights() | presets.added() or target.endswith(".safetensors"):
        from medseg.model import find, read_header

        spec = read_header(find(target))
        try:
            text = spec.model_dump_json(indent=1) + "\n" if as_json else card(spec)
        except (AttributeError, TypeError, ValueError, LookupError):  # the record of the training may hold anything
            raise ModelError(
                f"{target}: its header says of its training what cannot be shown; get the file again"
            ) from None
        print(text, end="")
        return 0
    path = Path(target)
    if not path.exists():
        raise MissingError(
            f"{target}: is neither a file or folder nor a shipped model ({', '.join(presets.weights())}); check it"
        )
    try:
        about = describe(path)
    except InputError as error:
        raise InputError(why(path, error)) from None
    if as_json:
        print(json.dumps(about))
    else:
        for key, value in about.items():
            print(f"{key:12} {value}".rstrip())
    return 0


def describe(path: Path) -> dict[str, Any]:
    """Facts about an image from its header; no voxels are read and no header text is shown."""
    from medseg import io

    image = io.load(path)
    grid = image.grid
    return {
        "format": image.source.format if image.source else "",
        "modality": image.modality,
        "grid": grid.describe(),
        "axes": " ".join(grid.axes),
        "orientation": grid.orientation or "not anatomical",
        "channels": ", ".join(image.channels),
        "type": str(image.array.dtype),
        "notes": "; ".join(image.source.notes) if image.source else "",
    }


_CHOSEN = "Head, thresholds and calibration were chosen on the tune split; val was scored once, after."
_BORDER = (
    "The threshold is where borders are sharpest in the image; the scores below are of a fixed one, chosen on tune."
)


def card(spec: ModelSpec) -> str:
    """The model card, in Markdown, made from the header alone."""
    t = spec.training
    tried = ", ".join(f"{k} {v:.3f}" for k, v in t.get("tune_ap_by_head", {}).items())
    images = t.get("images", {}).get("train", "?")
    data = f"{', '.join(t.get('sources', ()))} ({images} images; split file {t.get('split')})"
    run = f"{t.get('config')}, {t.get('steps')} steps of {t.get('batch')}, seed {t.get('seed')}"
    lines = [
        f"# {spec.name}: {spec.title}",
        "",
        spec.description,
        "",
        f"- Images: {', '.join(spec.modality)}, {spec.net.ndim}-D, channels {', '.join(spec.preprocess.channels)}",
        f"- Finds: {spec.target}, head `{spec.heads[0].kind}`",
        f"- Licence: {spec.licence}",
        f"- Trained on: {data}",
        f"- Training: {run}, revision {spec.revision}",
        f"- {_BORDER if spec.border else _CHOSEN}",
        *([f"- Mean AP (IoU .5 to .8) on tune by head: {tried}"] if tried else []),
        "",
        "| data set | split | images | figure | pooled | image mean |",
        "|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, str, int, str], dict[str, float]] = {}
    for s in spec.scores:
        rows.setdefault((s.source, s.split, s.images, s.figure), {})[s.averaging] = s.value
    for (source, split, images, figure), v in rows.items():
        lines.append(
            f"| {source} | {split} | {images} | {figure} | {_figure(v, 'pooled')} | {_figure(v, 'image mean')} |"
        )
    if not rows:
        lines[-2:] = ["Not scored yet."]
    lines += ["", "Limits:", "", *[f"- {x}" for x in spec.limits], "- For research use only; not a medical device.", ""]
    return "\n".join(lines)


def _figure(values: dict[str, float], averaging: str) -> str:
    return f"{values[averaging]:.3f}" if averaging in values else ""
