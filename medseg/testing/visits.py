"""Pairs of visits with known truth: a real image, lesions drawn into it, and the same some time later.

The later image is turned, shifted, stretched and bent by a known map, may have thick slices, and has noise of its own; its lesions
stayed, grew by 30 % of their volume, shrank, went, came, merged or split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances

FloatArray = npt.NDArray[np.float64]

CHANGES = ("stable", "grown", "shrunk", "resolved", "new", "merged", "split")
_GROWN, _SHRUNK = 1.30, 0.6  # of the volume


@dataclass(frozen=True)
class Pair:
    """Two visits and what became of each lesion.

    Attributes
    ----------
    baseline, later : (Image, Instances)
    truth : dict
        (id at baseline or 0, id later or 0) to state, of `medseg.follow.STATES`.
    """

    baseline: tuple[Image, Instances]
    later: tuple[Image, Instances]
    truth: dict[tuple[int, int], str]


@dataclass(frozen=True)
class _Ball:
    """An ellipsoid in baseline world coordinates; id 0: not there."""

    centre: FloatArray
    axes: FloatArray
    turn: FloatArray

    def inside(self, points: FloatArray) -> npt.NDArray[np.bool_]:
        return np.asarray(((((points - self.centre) @ self.turn) / self.axes) ** 2).sum(-1) <= 1)

    def scaled(self, volume: float) -> _Ball:
        return replace(self, axes=self.axes * volume ** (1 / 3))


def pair(
    image: Image, inside: npt.NDArray[np.bool_], seed: int, count: int = 8, bend: tuple[float, float] = (0.0, 2.0)
) -> Pair:
    """Make a pair.

    Parameters
    ----------
    image
        Real, 3-D, one channel.
    inside
        Where lesions may lie.
    seed
        The same seed makes the same pair.
    count
        Lesions at baseline, before those of merging and splitting.
    bend
        Range of the largest smooth shift, in mm, beside turning and stretching.
    """
    rng = np.random.default_rng(seed)
    grid = image.grid
    voxels = np.asarray(image.voxels()[0], dtype=np.float64)
    room = np.argwhere(binary_erosion(inside, iterations=int(8 / min(grid.spacing))))
    before: dict[int, list[_Ball]] = {}
    after: dict[int, list[_Ball]] = {}
    truth: dict[tuple[int, int], str] = {}
    taken: list[tuple[FloatArray, float]] = []
    for number in range(1, count + 1):
        change = CHANGES[number - 1] if number <= len(CHANGES) else str(rng.choice(CHANGES[:5]))
        one = _free(rng, grid, room, taken, apart=change in ("merged", "split"))
        if one is None:
            continue
        _add(change, number, one, rng, before, after, truth)
    move = _Moved(rng, grid, bend)
    return Pair(
        _imaged(voxels, grid, grid, before, None, rng, image),
        _imaged(voxels, grid, _other(grid, rng), after, move, rng, image),
        truth,
    )


def _free(
    rng: np.random.Generator,
    grid: Grid,
    room: npt.NDArray[np.int64],
    taken: list[tuple[FloatArray, float]],
    apart: bool,
) -> _Ball | None:
    """Draw an ellipsoid of 7 to 18 mm that keeps 6 mm from the others."""
    for _ in range(200):
        axes = rng.uniform(3.5, 9.0) * rng.uniform(0.85, 1.15, 3)
        centre = grid.to_world(room[int(rng.integers(len(room)))])
        reach = float(axes.max()) * (2.4 if apart else 1.2)
        if all(np.linalg.norm(centre - c) > reach + r + 6 for c, r in taken):
            taken.append((centre, reach))
            turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
            return _Ball(centre, axes, turn)
    return None


def _add(
    change: str,
    number: int,
    one: _Ball,
    rng: np.random.Generator,
    before: dict[int, list[_Ball]],
    after: dict[int, list[_Ball]],
    truth: dict[tuple[int, int], str],
) -> None:
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    size = float(one.axes.mean())
    far = replace(one, axes=one.axes * 0.9, centre=one.centre + way * size * 2.4)
    bridge = replace(one, axes=one.axes * 0.75, centre=one.centre + way * size * 1.2)
    other = number + 100
    if change == "merged":
        before |= {number: [one], other: [far]}
        after[number] = [one, bridge, far]
        truth |= {(number, number): "merged", (other, 0): "merged"}
    elif change == "split":
        before[number] = [one, bridge, far]
        after |= {number: [one], other: [far]}
        truth |= {(number, number): "split", (0, other): "split"}
    elif change == "new":
        after[number] = [one]
        truth[0, number] = "new"
    else:
        before[number] = [one]
        if change == "resolved":
            truth[number, 0] = change
        else:
            after[number] = [one.scaled({"grown": _GROWN, "shrunk": _SHRUNK}.get(change, 1.0))]
            truth[number, number] = change


class _Moved:
    """A map from later to baseline world: turned up to 6 degrees, shifted up to 12 mm, stretched up to 2 %, bent by some mm."""

    def __init__(self, rng: np.random.Generator, grid: Grid, bend: tuple[float, float]) -> None:
        self._middle = grid.to_world((np.array(grid.shape) - 1) / 2)
        axis = rng.normal(size=3)
        turn = Rotation.from_rotvec(np.deg2rad(rng.uniform(0, 6)) * axis / np.linalg.norm(axis)).as_matrix()
        self._matrix = turn @ np.diag(rng.uniform(0.98, 1.02, 3))
        self._shift = rng.uniform(-1, 1, 3) * 12 / np.sqrt(3)
        self._waves = rng.normal(size=(3, 3)) / 60
        self._phase = rng.uniform(0, 2 * np.pi, 3)
        self._bend = rng.uniform(*bend)

    def __call__(self, points: FloatArray) -> FloatArray:
        moved = (points - self._middle) @ self._matrix.T + self._middle + self._shift
        return np.asarray(moved + self._bend * np.sin(moved @ self._waves.T + self._phase) / np.sqrt(3))


def _other(grid: Grid, rng: np.random.Generator) -> Grid:
    """The scan of the later visit: slices up to 3 mm thick, another voxel size in the plane."""
    plane = rng.uniform(0.9, 1.3)
    thick = rng.choice([1.0, 2.0, 3.0])
    return grid.resample((float(max(thick, grid.spacing[0])), *(float(s * plane) for s in grid.spacing[1:])))


def _imaged(
    voxels: FloatArray,
    source: Grid,
    target: Grid,
    lesions: dict[int, list[_Ball]],
    move: _Moved | None,
    rng: np.random.Generator,
    like: Image,
) -> tuple[Image, Instances]:
    """Image the patient on a grid: the real voxels with bright lesions, noise, and the labels drawn on that grid."""
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64) for n in target.shape], indexing="ij"), -1)
    world = target.to_world(index.reshape(-1, 3))
    places = world if move is None else move(world)
    values = map_coordinates(voxels, source.to_index(places).T, order=1, mode="constant").reshape(target.shape)
    labels = np.zeros(len(places), np.int32)
    for id, balls in lesions.items():
        for ball in balls:
            near = np.flatnonzero(np.linalg.norm(places - ball.centre, axis=1) <= ball.axes.max())
            labels[near[ball.inside(places[near])]] = id
    labels = labels.reshape(target.shape)
    spread = float(np.percentile(voxels, 99) - np.percentile(voxels, 1))
    share = gaussian_filter((labels > 0).astype(np.float64), 0.6)
    values = values + share * 0.4 * spread + rng.normal(0, 0.03 * spread, target.shape)
    image = Image(values.astype(np.float32)[np.newaxis], replace(target, frame=""), modality=like.modality)
    return image, Instances.from_labels(labels, image.grid)
