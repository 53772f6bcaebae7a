"""Measure how masks are cut into single objects, and write reference/separation.md.

MEDSEG_DATA=FOLDER python docs/make_separation_page.py [--count 300]

The settings of the watersheds are chosen on composed groups as the shape network learned from (other seed); nothing is chosen on
what is reported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg.data.cases import data_root
from medseg.data.compose import LEFT_OUT, library
from medseg.data.compose import groups as composed
from medseg.grid import Grid
from medseg.image import Image
from medseg.metrics import Counts, match, overlap
from medseg.ops.files import write_whole
from medseg.separate import separate
from medseg.spec import SeparateSpec
from medseg.testing import groups
from medseg.testing.groups import Group

PAGE = Path(__file__).parent / "reference" / "separation.md"
RATIOS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
SMOOTHS = (0.5, 1.0, 1.5)
SEED = 7
BINS = (("one object", 0.0, 0.0), ("up to .33", 1e-9, 0.33), (".33 to .66", 0.33, 0.66), ("over .66", 0.66, np.inf))

Method = Callable[[Group, np.random.Generator], np.ndarray]


def pet(group: Group, rng: np.random.Generator) -> Image:
    """An image as a PET would make of the group: an uptake for each object, blurred, with noise."""
    uptake = np.concatenate([[0.5], rng.uniform(3, 9, int(group.labels.max()))])
    size = np.bincount(group.labels.ravel())[1:].max() * group.grid.voxel_size
    sigma = 0.3 * (3 * size / (4 * np.pi)) ** (1 / 3)
    values = gaussian_filter(uptake[group.labels], [sigma / s for s in group.grid.spacing], mode="nearest")
    values += rng.normal(0, 0.15, values.shape)
    return Image(values.astype(np.float32)[np.newaxis], group.grid, modality="PT")


def by(spec: SeparateSpec) -> Method:
    """A method of medseg with its settings."""

    def cut(group: Group, rng: np.random.Generator) -> np.ndarray:
        image = pet(group, rng) if spec.method == "intensity" else None
        return separate(group.labels > 0, group.grid, image, spec).labels

    return cut


def scored(some: Iterable[Group], method: Method) -> list[tuple[Group, Counts, bool]]:
    """Counts at IoU .5 of each group, and whether one object came out as several."""
    out = []
    for number, group in enumerate(some):
        found = method(group, np.random.default_rng([SEED, number]))
        single = int(group.labels.max()) == 1
        out.append((group, match(overlap(group.labels, found), 0.5)[0], single and int(found.max()) > 1))
    return out


def pooled(rows: list[tuple[Group, Counts, bool]]) -> Counts:
    """All counts together."""
    return sum((r[1] for r in rows), Counts(0, 0, 0, 0.0))


def tuned(method: str, some: list[Group]) -> SeparateSpec:
    """The settings with the best PQ on groups to tune on."""
    tries = [SeparateSpec(method=method, ratio=r, smooth=s) for r in RATIOS for s in SMOOTHS]
    return max(tries, key=lambda spec: pooled(scored(some, by(spec))).pq)


def main() -> None:
    """Compose, tune, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="groups of each family")
    given = parser.parse_args()
    found = composed(library(data_root(), LEFT_OUT), 120, 2)
    to_tune = [Group("", labels, Grid.from_spacing(labels.shape, spacing), 0.0) for labels, spacing in found]
    best = [tuned(method, to_tune) for method in ("distance", "intensity")]
    specs = [SeparateSpec(method="components"), *best, SeparateSpec(method="shape")]
    pool = groups.shapes(data_root())
    sets = {f: list(groups.lesions(pool[f], f, given.count, SEED)) for f in pool}
    sets["ellipsoid"] = list(groups.ellipsoids(given.count, SEED))
    lines, singles = [], []
    for family, some in sets.items():
        for spec in specs:
            rows = scored(some, by(spec))
            cells = [pooled([r for r in rows if low <= r[0].contact <= high]) for _, low, high in BINS]
            all_, ones = pooled(rows), [r for r in rows if int(r[0].labels.max()) == 1]
            told = " | ".join(f"{c.pq:.3f}" for c in cells)
            cut = np.mean([r[2] for r in ones])
            lines.append(f"| {family} | {spec.method} | **{all_.pq:.3f}** | {all_.f1:.3f} | {told} | {cut:.1%} |")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
        ones = [r for r in some if int(r.labels.max()) == 1]
        objects = sum(int(g.labels.max()) for g in some)
        singles.append(f"{family}: {len(some)} groups of {objects} objects, {len(ones)} of them single")
    chosen = ", ".join(f"{s.method}: ratio {s.ratio:g}, smooth {s.smooth:g}" for s in specs[1:3])
    write_whole(
        PAGE, TEXT.format(rows="\n".join(lines), sets="; ".join(singles), count=given.count, chosen=chosen).encode()
    )


TEXT = """# Separation of touching objects

How well `medseg separate` cuts a mask into single objects. Made by `python docs/make_separation_page.py --count {count}`;
PQ and F1 at IoU .5, pooled over all objects.

Groups are put together by `medseg.testing.groups`, unlike those that the shape network learned from: lesions of three patients with
multiple sclerosis (1 mm voxels, 20 to 1500 of them, as larger ones are mostly several) and soft-tissue sarcomas (two patients),
none of which it ever saw, and ellipsoids of 3 to 40 mm. Half of the groups of lesions have slices of 2 to 4 voxels. *Contact* is
the largest area over which two objects of a group touch, as a share of the middle cross-section of a ball as large as the smaller
one. *Cut* is the share of objects on their own that came out as several.

Compared are connected components, watersheds of the distance to the border and of an image (here drawn: an uptake for each object,
blurred by .3 of the largest object's radius, with noise), both with settings chosen on groups as the network learned
from ({chosen}),
and the default, `shape`.

| family | method | PQ | F1 | PQ, one object | contact up to .33 | .33 to .66 | over .66 | cut |
|---|---|---|---|---|---|---|---|---|
{rows}

Groups: {sets}.

What it cannot do: two objects that meet over most of their width have one shape together, and nothing but an image could tell them
apart; `shape` uses none, and an image alone cuts far worse, as the rows of `intensity` show. Lesions of multiple sclerosis of a few
voxels are ragged, so that their own shape looks like several.
"""


if __name__ == "__main__":
    main()
