"""``medseg split``: a split file from a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.common import table


def split(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.yaml", help="Which folders, how grouped; see configs/splits.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Split file to write (.json).")],
) -> int:
    """Deal images to train, tune and val by group, the same way on every machine."""
    from medseg.data.split import make_split
    from medseg.ops.files import write_whole
    from medseg.spec import SplitSpec, load_yaml

    parts = make_split(load_yaml(SplitSpec, recipe))
    text = json.dumps({"recipe": recipe.name, "splits": parts}, indent=1) + "\n"
    write_whole(output, text.encode())
    columns = ["train", "tune", "val"]
    table("", ["data set", *columns], [[name, *[len(part[k]) for k in columns]] for name, part in parts.items()])
    return 0
