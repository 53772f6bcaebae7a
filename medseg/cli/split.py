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
    from medseg.data.split import make_folds, make_split
    from medseg.ops.files import write_whole
    from medseg.spec import SplitSpec, load_yaml

    spec, columns = load_yaml(SplitSpec, recipe), ["train", "tune", "val"]
    deals = [make_split(spec)] if spec.folds is None else make_folds(spec)
    content = {"splits": deals[0]} if spec.folds is None else {"folds": deals}
    write_whole(output, (json.dumps({"recipe": recipe.name, **content}, indent=1) + "\n").encode())
    for number, parts in enumerate(deals):
        title = "" if spec.folds is None else f"fold {number}"
        table(title, ["data set", *columns], [[name, *[len(part[k]) for k in columns]] for name, part in parts.items()])
    return 0
