"""Groups of touching lesions and of touching ellipsoids with known truth, on which separation is measured.

Made unlike what the network learned from (`medseg.data.compose`): lesions of patients, and a family of tumours, that it never saw;
no shape is bent or interpolated, only turned by right angles; two objects meet at a wanted area of contact; where they overlap, the
voxel is of the one whose border is farther away; thick slices leave voxels out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, zoom

from medseg import io
from medseg.data.compose import single
from medseg.grid import Grid
from medseg.ops import components
from medseg.ops.labels import statistics

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]

PATIENTS = (
    "patient01",
    "patient02",
    "patient03",
)  # of ms_ljubljana_mni; left out by medseg.data.compose, as are sarcomas
_LEAST = 20  # voxels of an object that has a shape
_MOST = 44  # voxels along the longest side of an object


@dataclass(frozen=True)
class Group:
    """One connected group with its truth.

    Attributes
    ----------
    family : str
        "lesion", "sarcoma" or "ellipsoid".
    labels : int32 (z, y, x)
        1 to N.
    grid : Grid
        In mm.
    contact : float
        Largest area of contact of two objects, as a share of the middle cross-section of a ball as large as the smaller; 0 of one
        object alone.
    """

    family: str
    labels: Labels
    grid: Grid
    contact: float


def shapes(root: Path) -> dict[str, list[Mask]]:
    """Collect the objects, in their boxes, of patients and tumours that no network here learned from."""
    lesions: list[Mask] = []
    for patient in PATIENTS:
        path = next((root / "lesions" / "ms_ljubljana_mni" / patient).glob("GOLD_STANDARD*.nii.gz"))
        lesions += _boxes(single(components.label(io.load_labels(path).labels > 0)))
    tumours: list[Mask] = []
    for path in sorted((root / "lesions" / "sts_sarcoma" / "nifti").rglob("*mask*.nii*")):
        found = io.load_labels(path)
        even = [s / min(found.grid.spacing) for s in found.grid.spacing]
        for mask in _boxes(components.label(found.labels > 0), most=10_000):
            step = max(1.0, max(n * e for n, e in zip(mask.shape, even, strict=True)) / 36)
            tumours += _boxes(components.label(zoom(mask.astype(np.float32), [e / step for e in even], order=1) > 0.5))
    return {"lesion": lesions, "sarcoma": tumours}


def _boxes(labels: Labels, most: int = _MOST) -> list[Mask]:
    count = int(labels.max(initial=0))
    if not count:
        return []
    size, boxes, _ = statistics(labels, count)
    out = []
    for id, box in enumerate(boxes.tolist(), 1):
        place = tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))
        mask = labels[place] == id
        if mask.sum() >= _LEAST and max(mask.shape) <= most:
            out.append(mask)
    return out


def lesions(pool: list[Mask], family: str, count: int, seed: int) -> Iterator[Group]:
    """Yield groups of one to five real shapes.

    Parameters
    ----------
    pool
        Shapes of the family, from `shapes`.
    family
        Its name.
    count
        How many groups.
    seed
        The same seed gives the same groups.
    """
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        while True:
            n = 1 if rng.random() < 0.3 else int(rng.integers(2, 6))
            labels = np.zeros((120,) * 3, np.int32)
            for id in range(1, n + 1):
                _push(labels, _turned(pool[int(rng.integers(len(pool)))], rng), id, float(rng.uniform(0.05, 0.9)), rng)
            step = int(rng.integers(2, 5)) if rng.random() < 0.5 else 1
            found = _group(family, labels[:: max(1, step)], (float(step), 1.0, 1.0))
            if found is not None and (n == 1) == (found.labels.max() == 1):
                yield found
                break


def ellipsoids(count: int, seed: int) -> Iterator[Group]:
    """Yield groups of one to four ellipsoids of 3 to 40 mm (mean diameter), axes of up to 1 to 1.8, on voxels of .5 to 4 mm."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        while True:
            n = 1 if rng.random() < 0.3 else int(rng.integers(2, 5))
            largest = float(np.exp(rng.uniform(np.log(3), np.log(40))))
            spacing = largest / rng.uniform(6, 24) * np.array([rng.choice([1.0, 1.0, 2.0, 3.0]), 1, 1])
            labels = np.zeros((120,) * 3, np.int32)
            for id in range(1, n + 1):
                size = largest if id == 1 else max(largest * rng.uniform(0.4, 1), 3.0)
                _push(labels, _ellipsoid(size, spacing, rng), id, float(rng.uniform(0.05, 0.9)), rng)
            found = _group("ellipsoid", labels, (float(spacing[0]), float(spacing[1]), float(spacing[2])))
            if found is not None and (n == 1) == (found.labels.max() == 1):
                yield found
                break


def _ellipsoid(size: float, spacing: npt.NDArray[np.float64], rng: np.random.Generator) -> Mask:
    """Draw one of a mean diameter, any way round."""
    axes = rng.uniform(1, 1.8, 3)
    axes *= size / 2 / np.prod(axes) ** (1 / 3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    half = np.ceil(axes.max() / spacing).astype(int)
    index = np.stack(np.meshgrid(*[np.arange(-h, h + 1) for h in half], indexing="ij"), -1) * spacing
    return np.asarray((((index @ turn) / axes) ** 2).sum(-1) <= 1)


def _turned(mask: Mask, rng: np.random.Generator) -> Mask:
    turned = np.transpose(mask, rng.permutation(3))
    return turned[tuple(slice(None, None, int(d)) for d in rng.choice([-1, 1], 3))]


def _push(labels: Labels, mask: Mask, id: int, wanted: float, rng: np.random.Generator) -> None:
    """Come nearer along a random way until two objects meet at the wanted area, or a fifth of the smaller is covered."""
    size, shape = np.array(labels.shape), np.array(mask.shape)
    if (shape + 2 > size).any():
        return
    if not labels.any():
        start = (size - shape) // 2
        labels[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))][mask] = id
        return
    sizes = np.bincount(labels.ravel())
    anchor = np.argwhere(labels == int(rng.choice(np.flatnonzero(sizes[1:]) + 1))).mean(0)
    own = np.asarray(distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1, 1:-1]
    others = _deep(labels)
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    most = 0.2 * min(int(mask.sum()), int(sizes[1:][sizes[1:] > 0].min()))
    best: tuple[tuple[slice, ...], Mask] | None = None
    for far in np.arange(50.0, -0.5, -1.0):
        start = np.round(anchor + way * far - shape / 2).astype(int)
        if (start < 1).any() or (start + shape > size - 1).any():
            continue
        place = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        rim = tuple(slice(a - 1, a + n + 1) for a, n in zip(start, shape, strict=True))
        if not labels[rim].any():
            continue
        if (mask & (labels[place] > 0)).sum() > most:
            break
        wins = mask & (own > others[place])
        trial = labels[rim].copy()
        trial[1:-1, 1:-1, 1:-1][wins] = id
        share = _contact(trial, id, volumes=sizes)
        if share > 0:
            best = place, wins
        if share >= wanted:
            break
    if best is not None:
        labels[best[0]][best[1]] = id


def _deep(labels: Labels) -> npt.NDArray[np.float64]:
    """Distance of each labelled voxel to the background, computed where there are labels."""
    where = np.argwhere(labels)
    box = tuple(slice(a - 1, b + 2) for a, b in zip(where.min(0), where.max(0), strict=True))
    out = np.zeros(labels.shape)
    out[box] = distance_transform_edt(labels[box] > 0)
    return out


def _contact(
    labels: Labels,
    id: int,
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    volumes: npt.NDArray[np.int64] | None = None,
) -> float:
    """Largest area that an object shares with one other, as a share of the smaller one's middle cross-section.

    `volumes` are voxels per label, where `labels` is a part of a larger array.
    """
    area = np.zeros(max(int(labels.max()) + 1, 0 if volumes is None else len(volumes)))
    for axis in range(3):
        face = float(np.prod(spacing)) / spacing[axis]
        for a, b in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            here = labels[tuple(a if k == axis else slice(None) for k in range(3))]
            there = labels[tuple(b if k == axis else slice(None) for k in range(3))]
            area += np.bincount(there[(here == id) & (there != id) & (there > 0)], minlength=len(area)) * face
    volume = np.bincount(labels.ravel(), minlength=len(area)).astype(np.float64)
    if volumes is not None:
        volume[: len(volumes)] = np.maximum(volume[: len(volumes)], volumes)
    volume *= float(np.prod(spacing))
    # faces of voxels make a slanting plane 1.5 times larger on average
    radius = (3 * np.minimum(volume, volume[id]) / (4 * np.pi)) ** (1 / 3)
    return float((area[1:] / 1.5 / np.maximum(np.pi * radius[1:] ** 2, 1e-9)).max(initial=0))


def _group(family: str, labels: Labels, spacing: tuple[float, float, float]) -> Group | None:
    """Cut to the largest connected group of objects that are one piece and large enough; None if nothing is left."""
    kept = components.largest_pieces(labels, _LEAST)
    kept = np.where(components.largest_of(kept > 0), kept, 0)
    if not kept.any():
        return None
    ids, dense = np.unique(kept, return_inverse=True)
    kept = dense.reshape(kept.shape).astype(np.int32)
    where = np.argwhere(kept)
    kept = kept[tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))]
    contact = max(_contact(kept, id, spacing) for id in range(1, len(ids)))
    return Group(family, kept, Grid.from_spacing(kept.shape, spacing), contact)
