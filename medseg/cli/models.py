"""``medseg models``: what is shipped."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from medseg.cli.common import table


def models(as_json: Annotated[bool, typer.Option("--json", help="Whole model headers as JSON.")] = False) -> int:
    """List the shipped models."""
    from medseg import presets
    from medseg.model import read_header

    headers = {name: read_header(path) for name, path in presets.weights().items()}
    if as_json:
        print(json.dumps({n: h.model_dump(mode="json") for n, h in headers.items()}))
        return 0
    rows = [
        [n, f"{h.net.ndim}-D", ", ".join(h.modality), h.target, h.heads[0].kind, h.title] for n, h in headers.items()
    ]
    table("", ["name", "", "images", "finds", "head", "what"], rows)
    print("\nmedseg info NAME shows a model's card: data, licence, scores, limits.")
    return 0
