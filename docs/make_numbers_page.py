"""Draw the pictures of explanation/which-number.md and write its tables, all from `medseg.metrics`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics import CaseScore, Summary, score
from medseg.metrics.drawn import draw
from medseg.ops.files import write_whole

DOCS = Path(__file__).parent
PAGE = DOCS / "explanation" / "which-number.md"
IMAGES = DOCS / "images"

Labels = NDArray[np.int32]

# figure of the summary, its name on the page; distances have an image mean only, which for one image is its value
ROWS = (
    ("TP@.5", "TP@.5"),
    ("FP@.5", "FP@.5"),
    ("FN@.5", "FN@.5"),
    ("splits", "splits"),
    ("merges", "merges"),
    ("AP@.5", "AP@.5"),
    ("AP@.50:.95", "AP@.50:.95"),
    ("F1@.5", "F1@.5"),
    ("PQ", "PQ"),
    ("SQ", "SQ"),
    ("SEG", "SEG"),
    ("AJI", "AJI"),
    ("Dice", "Dice"),
    ("lesion F1 (any overlap)", "lesion F1 (any overlap)"),
    ("lesion sensitivity (any overlap)", "lesion sensitivity (any overlap)"),
    ("boundary F@1 px", "boundary F@1 px"),
    ("HD95 (px)", "HD95 (px)"),
    ("NSD@1 px", "NSD@1 px"),
)
COUNTS = ("TP@.5", "FP@.5", "FN@.5", "splits", "merges")


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> NDArray[np.bool_]:
    """Pixels within a radius of a point, a little more than that so that no single pixel sticks out."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside: NDArray[np.bool_] = (rows - y) ** 2 + (columns - x) ** 2 <= (radius + 0.3) ** 2
    return inside


def merged() -> tuple[Labels, Labels]:
    """Ten cells; two pairs of close ones come back as one object each, with the gap between them filled."""
    truth = np.zeros((80, 132), np.int32)
    places = [(18, 16), (18, 36), (18, 62), (18, 82), (18, 112), (58, 16), (58, 36), (58, 62), (58, 82), (58, 112)]
    for number, (y, x) in enumerate(places, 1):
        truth[disc(truth.shape, y, x, 9)] = number
    found = truth.copy()
    for one, other in ((1, 2), (8, 9)):
        pair = np.isin(truth, (one, other))
        found[ndimage.binary_closing(pair, np.ones((5, 5)))] = one
    return truth, found


def tiny() -> tuple[Labels, Labels]:
    """One large lesion, found almost perfectly, and eight tiny ones, of which one is found."""
    truth = np.zeros((80, 132), np.int32)
    truth[disc(truth.shape, 40, 40, 26)] = 1
    places = [(14, 84), (20, 108), (34, 92), (38, 118), (52, 80), (56, 104), (68, 90), (70, 120)]
    for number, (y, x) in enumerate(places, 2):
        truth[disc(truth.shape, y, x, 2)] = number
    found = np.where((truth == 1) | (truth == 4), truth, 0).astype(np.int32)
    return truth, found


def fat() -> tuple[Labels, Labels]:
    """Five large and nine small cells, all found, each outline one pixel too far out."""
    truth = np.zeros((80, 132), np.int32)
    places = [(20, 18, 11), (20, 50, 11), (58, 34, 11), (58, 66, 11), (20, 82, 11)]
    places += [(12 + 14 * (n // 2), 106 + 14 * (n % 2), 4) for n in range(9)]
    for number, (y, x, radius) in enumerate(places, 1):
        truth[disc(truth.shape, y, x, radius)] = number
    found = truth.copy()
    for number in range(1, len(places) + 1):
        found[ndimage.binary_dilation(truth == number) & (found == 0)] = number
    return truth, found


PICTURES = {"merged": merged, "tiny": tiny, "fat": fat}


def summaries() -> dict[str, Summary]:
    """The three pictures scored with the groups that the table needs."""
    groups = ("detection", "regions", "lesions", "surface")
    out = {}
    for name, make in PICTURES.items():
        truth, found = make()
        out[name] = score(found, truth, metrics=groups, names=[name])
    return out


def table() -> str:
    """The table of all figures, one column for each picture."""
    made = summaries()
    head = ["| figure | " + " | ".join(f"*{name}*" for name in made) + " |", "|---|" + "---|" * len(made)]
    lines = [f"| {told} | " + " | ".join(_value(one, figure) for one in made.values()) + " |" for figure, told in ROWS]
    return "\n".join(head + lines)


def _value(summary: Summary, figure: str) -> str:
    averaging = "image mean" if figure.startswith(("HD95", "NSD", "boundary")) else "pooled"
    value = summary.value(figure, averaging)
    return f"{value:.0f}" if figure in COUNTS else f"{value:.2f}"


def sizes() -> str:
    """The third picture by size of the cells."""
    truth, found = fat()
    large = range(1, 6)
    lines = ["| figure | large cells | small cells |", "|---|---|---|"]
    made = [
        score(*(np.where(np.isin(side, large) == one, side, 0) for side in (found, truth)), metrics=("detection",))
        for one in (True, False)
    ]
    for figure in ("AP@.5", "AP@.75", "AP@.50:.95", "SQ"):
        lines.append(f"| {figure} | " + " | ".join(_value(one, figure) for one in made) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its tables made anew; nothing else of it changes."""
    for name, made in (("table", table()), ("sizes", sizes())):
        place = rf"(?<=<!-- {name} -->\n\n).*?(?=\n\n<!-- end -->)"
        if not re.search(place, text, re.DOTALL):
            raise ValueError(f"the page has no place <!-- {name} --> to <!-- end -->")
        text = re.sub(place, lambda _, made=made: made, text, count=1, flags=re.DOTALL)  # type: ignore[misc]
    return text


def pictures() -> dict[str, bytes]:
    """The pictures as PNG, by file name."""
    out = {}
    for name, summary in summaries().items():
        case: CaseScore = summary.cases[0]
        out[f"number-{name}.png"] = draw(case, *PICTURES[name]()).png
    return out


if __name__ == "__main__":
    write_whole(PAGE, page(PAGE.read_text(encoding="utf-8")).encode("utf-8"))
    for name, png in pictures().items():
        write_whole(IMAGES / name, png)
