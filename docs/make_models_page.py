"""Write reference/models.md from the headers of the shipped model files: the cards that ``medseg info NAME`` prints."""

from __future__ import annotations

from pathlib import Path

from medseg import presets
from medseg.cli.info import card
from medseg.model import read_header

PAGE = Path(__file__).parent / "reference" / "models.md"
HEAD = """# Models

<!-- Made by `make docs` (docs/make_models_page.py) from the headers of the model files. Do not edit. -->

The models that medseg ships. Each card below is what `python -m medseg info NAME` prints, made from the header of the model file
and from nothing else. [Splits and scores](../explanation/splits-and-scores.md) says what the figures mean.
"""


def page() -> str:
    """The whole page: one card per shipped model, headings one level down, lists set apart as Markdown wants them."""
    cards = [card(read_header(path)) for path in presets.weights().values()]
    return "\n".join([HEAD, *[f"#{c}".replace("Limits:\n-", "Limits:\n\n-") for c in cards]])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
