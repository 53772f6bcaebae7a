"""``medseg combine``: an ensemble of models, or a model that looks at mirror images too, as one model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.common import say
from medseg.errors import ModelError, OutputError

if TYPE_CHECKING:
    from medseg.spec import ModelSpec


def _learned(header: ModelSpec) -> tuple[object, ...]:
    """What members of an ensemble must have in common: what their maps mean, and which split they were trained by."""
    from medseg import heads

    chosen = {*heads.make(header.heads[0]).tunable, "min_voxels"}
    told = [header.training.get(k) for k in ("split", "fold")]
    return header.heads[0].model_dump_json(exclude=chosen), header.classes, told


def combine(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Model files of one config that differ in the seed, or in data sets."),
    ],
    config: Annotated[str, typer.Option(help="Training config: where thresholds are chosen and val is scored.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write (.safetensors).")],
    mirrors: Annotated[
        bool, typer.Option("--mirrors", help="Average over mirror images too; four times the work.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> int:
    """Average the maps of several networks, and of mirror images, in one model file.

    Thresholds and calibration are chosen anew on tune, and val is scored once. Where the networks were trained on different data
    sets, val is not scored: the header has each network's own scores on what it was held out from.
    """
    from medseg import presets
    from medseg.model import choose_device, find, read_header, weights_of
    from medseg.spec import TrainSpec, load_yaml
    from medseg.train.select import finish

    if not output.parent.is_dir() or output.suffix != ".safetensors":
        raise OutputError(f"{output}: cannot be written; name a .safetensors file in a folder that is there")
    spec = load_yaml(TrainSpec, presets.find_config(config))
    paths = [find(one) for one in models]
    headers = [read_header(path) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        if (header.net, header.preprocess) != (spec.net, spec.preprocess) or header.members > 1:
            raise ModelError(f"{path.name}: is no single network of {config}; combine what that config trained")
        if _learned(header) != _learned(headers[0]):
            raise ModelError(
                f"{path.name}: differs from {paths[0].name} in head, classes, split file or fold; combine networks that differ in "
                "the seed or in data sets, or one would be scored on what another has learned"
            )
    heads = tuple(h for h in spec.heads if h.kind == headers[0].heads[0].kind)
    fold, sources = headers[0].training.get("fold"), {s for h in headers for s in h.training.get("sources", [])}
    apart = len({tuple(h.training.get("sources", [])) for h in headers}) > 1
    reported = [score for h in headers for score in h.scores if score.split == "val"] if apart else None
    data = spec.data.model_copy(
        update={"fold": fold, "sources": tuple(s for s in spec.data.sources if s.name in sources) or spec.data.sources}
    )
    trained = spec.model_copy(update={"data": data})
    left = trained.model_copy(update={"heads": heads})
    weights = [weights_of(path) for path in paths]
    for line in finish(left, weights, output, choose_device(device), mirrors, reported=reported, config=trained):
        say(line)
    print(output)
    return 0
