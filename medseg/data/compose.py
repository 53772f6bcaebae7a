"""Groups of touching objects with known truth, composed of real shapes: what separation by shape learns from.

Shapes are lesions of patients with multiple sclerosis, tumours, nuclei, parts of the hippocampus, and ellipsoids. Each is turned,
stretched and scaled; up to six are pushed against one another until they touch or overlap a little. The group is then put on voxels
as coarse as a scanner's. Patients and families that separation is measured on are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter, zoom
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.ops import components
from medseg.ops.labels import statistics

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

LEFT_OUT = (
    "patient19",
    "patient26",
    "patient01",
    "patient02",
    "patient03",
    "sarcoma",
)  # what separation is measured on
_SIDE = 72  # voxels of the field that a group is composed in
_CONFLUENT = 1500  # voxels
_LEAST = 20  # voxels of a shape that is worth turning


@dataclass(frozen=True)
class Shape:
    """One real object: signed depth (inside positive) on voxels of equal sides, its mask as drawn, and the family it is of."""

    family: str
    group: str
    depth: Floats
    mask: Mask


def shape_of(mask: Mask, spacing: Sequence[float], family: str, group: str) -> Shape | None:
    """Return one object as a shape, about 24 voxels long; None if it is too small to have one."""
    if int(mask.sum()) < _LEAST:
        return None
    finest = min(spacing)
    long = max(n * s for n, s in zip(mask.shape, spacing, strict=True))
    step = max(finest / 2, long / 24)
    even = zoom(np.pad(mask, 2).astype(np.float64), [s / step for s in spacing], order=1) > 0.5
    even = components.largest_of(even)
    if not even.any():
        return None
    wide = np.pad(even, 3)
    inside, outside = (np.asarray(distance_transform_edt(part)) for part in (wide, ~wide))
    return Shape(family, group, inside - outside, np.ascontiguousarray(mask))


def ellipsoid(rng: np.random.Generator) -> Shape:
    """Draw an ellipsoid with axes of up to 1 to 2.2."""
    axes = 11.0 / rng.uniform(1, 2.2, 3)
    index = np.meshgrid(*[np.arange(-14, 15)] * 3, indexing="ij")
    ball = sum((i / a) ** 2 for i, a in zip(index, axes, strict=True)) <= 1
    found = shape_of(np.asarray(ball), (1.0, 1.0, 1.0), "ellipsoid", "drawn")
    assert found is not None  # it is 11 voxels long
    return found


def library(root: Path, leave_out: Sequence[str] = ()) -> list[Shape]:
    """Collect the real shapes below a data folder.

    Parameters
    ----------
    root
        `medseg.data.cases.data_root`.
    leave_out
        Families or patients (`Shape.family`, `Shape.group`) that are not used.
    """
    shapes: list[Shape | None] = []
    for path in sorted((root / "lesions" / "ms_ljubljana_mni").glob("patient*/GOLD_STANDARD*.nii.gz")):
        lesions = single(components.label(io.load_labels(path).labels > 0))
        shapes += _each(lesions, path, (1.0, 1.0, 1.0), "lesion", path.parent.name)
    for path in sorted((root / "lesions" / "msd_hippocampus" / "labelsTr").glob("*.nii.gz"))[::4]:
        shapes += _each(io.load_labels(path).labels, path, (1.0, 1.0, 1.0), "hippocampus", path.name.split(".")[0])
    for path in sorted((root / "cells" / "bbbc050_mouse_embryo" / "labels").glob("*.tif"))[::2]:
        shapes += _each(io.load_labels(path).labels, path, (1.75, 0.8, 0.8), "nucleus", path.stem.split("_")[0])
    for path in sorted((root / "lesions" / "sts_sarcoma" / "nifti").rglob("*mask*.nii*")):
        found = io.load_labels(path)
        shapes += _each(components.label(found.labels > 0), path, found.grid.spacing, "sarcoma", path.parents[2].name)
    for path in sorted((root / "lesions" / "pyradiomics").glob("*_label.nrrd")):
        found = io.load_labels(path)
        shapes += _each(components.label(found.labels > 0), path, found.grid.spacing, "tumour", path.name.split("_")[0])
    return [s for s in shapes if s is not None and not {s.family, s.group} & set(leave_out)]


def single(lesions: Labels) -> Labels:
    """Leave out components of a multiple sclerosis mask that are so large (1.5 mL at 1 mm) that they are mostly several lesions."""
    size = components.sizes(lesions)
    return np.where((size > _CONFLUENT)[lesions], 0, lesions).astype(np.int32)


def _each(labels: Labels, path: Path, spacing: Sequence[float], family: str, group: str) -> list[Shape | None]:
    count = int(labels.max())
    if not count:
        return []
    _, boxes, _ = statistics(labels, count)
    out = []
    for id, box in enumerate(boxes.tolist(), 1):
        place = tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))
        if all(s.stop > s.start for s in place):
            out.append(shape_of(labels[place] == id, spacing, family, group))
    return out


def turned(shape: Shape, size: float, rng: np.random.Generator) -> Mask:
    """Turn, stretch and scale a shape to the volume of a ball of radius `size`; cut to its box."""
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    stretch = np.diag(np.exp(rng.uniform(-0.25, 0.25, 3)))
    radius = (3 * float((shape.depth > 0).sum()) / (4 * np.pi)) ** (1 / 3)
    matrix = turn @ stretch * (radius / size)
    half = int(np.ceil(np.linalg.norm(shape.depth.shape) / 2 * size / radius * 1.3))
    centre = (np.array(shape.depth.shape) - 1) / 2
    out = affine_transform(
        shape.depth, matrix, centre - matrix @ np.full(3, half), output_shape=(2 * half + 1,) * 3, order=1, cval=-9.0
    )
    mask = np.asarray(out) > 0
    if not mask.any():
        return np.ones((1, 1, 1), bool)
    where = np.argwhere(mask)
    low, high = where.min(0), where.max(0) + 1
    return mask[tuple(map(slice, low, high))]


def as_drawn(pool: Sequence[Mask], rng: np.random.Generator) -> Labels:
    """Compose one group of masks on the voxels that they were drawn on, as ragged as they are, only turned by right angles."""
    count = 1 if rng.random() < 0.3 else int(rng.integers(2, 6))
    labels = np.zeros((_SIDE,) * 3, np.int32)
    depth = np.zeros(labels.shape)
    for number in range(1, count + 1):
        mask = np.transpose(pool[int(rng.integers(len(pool)))], rng.permutation(3))
        _add(labels, depth, mask[tuple(slice(None, None, int(d)) for d in rng.choice([-1, 1], 3))], number, rng)
    return labels


def compose(draw: Callable[[np.random.Generator], Shape], rng: np.random.Generator) -> Labels | None:
    """Compose one group of shapes that are turned, stretched and scaled; None if it did not fit."""
    count = 1 if rng.random() < 0.25 else int(rng.integers(2, 7))
    largest = rng.uniform(6, 10)
    sizes = largest * np.exp(-rng.uniform(0, 0.9, count))
    sizes[0] = largest
    labels = np.zeros((_SIDE,) * 3, np.int32)
    depth = np.zeros(labels.shape)
    for number, size in enumerate(sizes, 1):
        _add(labels, depth, turned(draw(rng), float(size), rng), number, rng)
    return labels if labels.any() else None


def _add(labels: Labels, depth: Floats, mask: Mask, number: int, rng: np.random.Generator) -> None:
    """Push one object towards the middle, or towards what is there, until it overlaps by a chosen share."""
    shape = np.array(mask.shape)
    if (shape + 4 > _SIDE).any():
        return
    room = np.array(labels.shape) - shape - 2
    own = np.asarray(distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1, 1:-1]
    taken = labels > 0
    for _ in range(12):
        start = np.array(labels.shape) // 2 - shape // 2
        found: npt.NDArray[np.int64] | None = start
        if taken.any():
            # a random object is the target, the overlap is none, or up to 15 % of the smaller
            target = np.argwhere(labels == rng.choice(np.unique(labels[taken]))).mean(0)
            aim = rng.choice([0.0, rng.uniform(0, 0.15)])
            way = rng.normal(size=3)
            way /= np.linalg.norm(way)
            found = _approach(taken, mask, target - shape / 2, way, aim)
        if found is None or (found < 2).any() or (found > room).any():
            continue
        place = tuple(slice(int(a), int(a + n)) for a, n in zip(found, shape, strict=True))
        # where two overlap, the one that is deeper there, for its size, has the voxel
        wins = mask & (own / own.max() > depth[place])
        labels[place][wins] = number
        depth[place][wins] = (own / own.max())[wins]
        return


def _approach(taken: Mask, mask: Mask, middle: Floats, way: Floats, aim: float) -> npt.NDArray[np.int64] | None:
    """Come from afar along a way until the share of the mask that overlaps exceeds `aim`; return the last start before."""
    least = aim * min(int(mask.sum()), int(taken.sum()))
    before, shape = None, np.array(mask.shape)
    for far in np.arange(60.0, 0.0, -1.0):
        start = np.round(middle + way * far).astype(np.int64)
        if (start < 0).any() or (start + shape > np.array(taken.shape)).any():
            continue
        place = tuple(slice(int(a), int(a + n)) for a, n in zip(start, shape, strict=True))
        over = int((taken[place] & mask).sum())
        if over > least:
            return start if aim > 0 or before is None else before
        before = start
    return None


def scanned(labels: Labels, rng: np.random.Generator, thick: bool = False) -> tuple[Labels, tuple[float, float, float]]:
    """Put a group on voxels as coarse as a scanner's, at most so coarse that the smallest object is still two voxels across.

    With `thick`, slices of up to 4 voxels, or none, whatever the objects.

    Returns
    -------
    labels : int32
        The truth on such voxels: of each object its largest piece, and what touches it; cut to the group, with a rim.
    spacing : tuple of float
        In voxels of the group.
    """
    size = np.bincount(labels.ravel())[1:]
    most = max(1.0, (6 * size[size > 0].min() / np.pi) ** (1 / 3) / 2)
    coarse = np.exp(rng.uniform(0, np.log(most))) * np.array([np.exp(rng.choice([0, rng.uniform(0, 0.9)])), 1, 1])
    coarse = rng.permutation(coarse)
    if thick:
        coarse = rng.permutation([float(rng.uniform(1, 4)), 1.0, 1.0])
    if rng.random() < (0.5 if thick else 0.3):
        coarse = np.ones(3)
    count = np.maximum(2, np.round(np.array(labels.shape) / coarse)).astype(int)
    at = [np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(count, labels.shape, strict=True)]
    out = labels[np.ix_(*at)]
    out = _own(out, out > 0)
    if out.any() and rng.random() < 0.25:
        out = rough(out, rng)
    where = np.argwhere(out)
    if len(where):
        out = np.pad(out[tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))], 2)
    z, y, x = (m / n for n, m in zip(count, labels.shape, strict=True))
    return out, (float(z), float(y), float(x))


def rough(labels: Labels, rng: np.random.Generator) -> Labels:
    """Give a group the ragged border and the holes of a mask that is a threshold on a noisy image."""
    wide = np.pad(labels, 1)
    noise = gaussian_filter(rng.normal(size=wide.shape), 0.6)
    noise *= rng.uniform(0.05, 0.2) / max(float(noise.std()), 1e-6)
    mask = gaussian_filter((wide > 0).astype(np.float64), 0.6) + noise > 0.5
    nearest = distance_transform_edt(wide == 0, return_distances=False, return_indices=True)
    near = np.asarray(distance_transform_edt(wide == 0)) <= 1.5
    return _own(np.where(mask & near, wide[tuple(nearest)], 0).astype(np.int32), mask & near)


def _own(labels: Labels, mask: Mask) -> Labels:
    """Keep the largest piece of each object, and give the crumbs to whom they touch."""
    kept = components.largest_pieces(np.where(mask, labels, 0).astype(np.int32), 8)
    if not kept.any():
        return kept
    nearest = distance_transform_edt(kept == 0, return_distances=False, return_indices=True)
    return np.where(mask & (labels > 0), kept[tuple(nearest)], 0).astype(np.int32)


def groups(shapes: Sequence[Shape], count: int, seed: int) -> Iterator[tuple[Labels, tuple[float, float, float]]]:
    """Yield scanned groups with their spacing.

    Lesions come twice, as they are what is separated and the most irregular; and a sixth of the groups is of lesions as drawn.
    """
    raw = [s.mask for s in shapes if s.family == "lesion"]
    families = sorted({s.family for s in shapes})
    by_family = {f: [s for s in shapes if s.family == f] for f in families}
    drawn = sorted({*families, "ellipsoid"}) + [f for f in families if f == "lesion"]

    def draw(rng: np.random.Generator) -> Shape:
        family = str(rng.choice(drawn))
        return ellipsoid(rng) if family == "ellipsoid" else by_family[family][int(rng.integers(len(by_family[family])))]

    for number in range(count):
        rng = np.random.default_rng([seed, number])
        drawn_so = bool(raw) and number % 6 == 0
        labels = as_drawn(raw, rng) if drawn_so else compose(draw, rng)
        if labels is not None and labels.any():
            found, spacing = scanned(labels, rng, drawn_so)
            if found.any():
                yield found, spacing
