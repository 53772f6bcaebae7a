"""What a head's NumPy half must do: the half of `medseg.testing.heads.HeadContract` that needs no torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg import heads
from medseg.candidates import Candidates
from medseg.metrics import match, overlap
from medseg.ops import regions
from medseg.ops.stitch import Mosaic
from medseg.spec import HeadBase, ModelSpec, NetSpec, PreprocessSpec
from medseg.testing import phantoms

Labels = NDArray[np.int32]
Maps = NDArray[np.float32]


class Field(NamedTuple):
    """A kind of array that every head must work in: objects of `radius` in the unit of `spacing`."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    objects: int
    radius: float


FIELDS = {
    "2-D": Field((96, 96), (1.0, 1.0), 10, 8.0),
    "3-D": Field((36, 40, 40), (1.0, 1.0, 1.0), 5, 7.0),
    "anisotropic": Field((16, 56, 56), (3.0, 1.0, 1.0), 6, 9.0),
}
each_field = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())


@lru_cache(maxsize=32)
def phantom(field: Field, touching: bool, seed: int = 0) -> Labels:
    """Blobs that fill a field; drawn once, read-only, as labels come out of `Instances`."""
    count = field.objects if touching else 4
    labels = phantoms.blobs(field.shape, count, field.radius, seed, touching, field.spacing)
    labels.flags.writeable = False
    return labels


def same_partition(one: Labels, other: Labels) -> bool:
    """Whether two label arrays hold the same objects, whatever their ids."""
    pairs = np.unique(one.astype(np.int64) * (int(other.max()) + 1) + other)
    count = len(np.unique(one))
    return len(pairs) == count == len(np.unique(other)) and bool(((one > 0) == (other > 0)).all())


def in_tiles(
    head: heads.Head, maps: Maps, spacing: tuple[float, ...], size: tuple[int, ...]
) -> tuple[Labels, NDArray[np.float32]]:
    """Labels and scores of maps decoded region by region, as the pipeline does it."""
    shape = maps.shape[1:]
    halo = tuple(min(r, n) for r, n in zip(head.reach(spacing), shape, strict=True))
    mosaic = Mosaic(shape)
    for core in regions.partition(shape, size):
        grown = regions.grow(core, halo, shape)
        found = head.decode(maps[(slice(None), *grown)], spacing)
        mosaic.add(core, grown, found.boxes, found.masks, found.scores.tolist(), found.classes.tolist())
    labels, scores, _ = mosaic.finish()
    return labels, scores


class DecodeContract:
    """See `medseg.testing.heads.HeadContract`."""

    spec: ClassVar[HeadBase]
    separates_touching: ClassVar[bool] = True
    iou: ClassVar[float] = 0.9

    @property
    def head(self) -> heads.Head:
        """The NumPy half, found by the spec's ``kind``."""
        return heads.make(self.spec)

    def maps(self, labels: Labels, spacing: tuple[float, ...]) -> Maps:
        """The maps of a network that had learned these labels perfectly; read-only, since decoding must not write."""
        maps = self.head.perfect(self.head.targets(labels, None, spacing))
        maps.flags.writeable = False
        return maps

    def noisy(self, field: Field, amount: float, seed: int = 0) -> Maps:
        """Perfect maps of a field's phantom, and noise."""
        maps = self.maps(phantom(field, self.separates_touching), field.spacing)
        return maps + np.random.default_rng(seed).normal(0, amount, maps.shape).astype(np.float32)

    def check_found(self, labels: Labels, found: Candidates) -> None:
        """Each object is found once with the IoU of `iou`, and nothing else is."""
        counts, _ = match(overlap(labels, found.paint()[0]), self.iou)
        objects = len(np.unique(labels[labels > 0]))
        assert (len(found), counts.tp, counts.fn) == (objects, objects, 0)

    def changed(self, **changes: Any) -> heads.Head:
        """A head whose spec differs in one or two settings."""
        return heads.make(type(self.spec).model_validate({**self.spec.model_dump(), **changes}))

    # --- what a head says about itself

    def test_is_a_head(self) -> None:
        assert isinstance(self.head, heads.Head)
        assert self.head.spec == self.spec
        assert isinstance(self.head.blendable, bool)

    def test_spec_survives_the_header_of_a_model_file(self) -> None:
        model = ModelSpec(
            name="m",
            title="t",
            licence="l",
            modality=("other",),
            target="cell",
            net=NetSpec(),
            preprocess=PreprocessSpec(),
            heads=(self.spec,),
        )
        back = ModelSpec.model_validate_json(model.model_dump_json())
        assert back == model
        assert type(back.heads[0]) is type(self.spec)

    def test_tunable_settings_are_settings_of_the_spec(self) -> None:
        for name, values in self.head.tunable.items():
            assert getattr(self.changed(**{name: values[0]}).spec, name) == values[0]
            assert len(values) == len(set(values))

    @each_field
    def test_reach_is_a_whole_number_of_voxels_per_axis(self, field: Field) -> None:
        reach = self.head.reach(field.spacing)
        assert len(reach) == len(field.shape)
        assert all(isinstance(r, int) and r > 0 for r in reach)
        assert reach == self.head.reach(tuple(s / 1024 for s in field.spacing))

    # --- targets

    @each_field
    def test_targets_and_channels(self, field: Field) -> None:
        truth = self.head.targets(phantom(field, True), None, field.spacing)
        for array in truth.values():
            assert array.dtype == np.float32
            assert array.shape[1:] == field.shape
            assert np.isfinite(array).all()
        maps = self.head.perfect(truth)
        assert maps.dtype == np.float32
        assert maps.shape == (self.head.channels(len(field.shape)), *field.shape)

    @each_field
    def test_ignored_voxels_weigh_nothing(self, field: Field) -> None:
        labels = phantom(field, True)
        ignore = np.random.default_rng(0).random(field.shape) < 0.3
        weight = self.head.targets(labels, ignore, field.spacing)["weight"]
        assert weight.shape == (1, *field.shape)
        np.testing.assert_array_equal(weight[0] == 0, ignore)
        assert (self.head.targets(labels, None, field.spacing)["weight"] > 0).all()

    # --- decoding perfect maps

    @each_field
    @pytest.mark.parametrize("seed", range(2))
    def test_finds_every_object(self, field: Field, seed: int) -> None:
        labels = phantom(field, self.separates_touching, seed)
        self.check_found(labels, self.head.decode(self.maps(labels, field.spacing), field.spacing))

    @each_field
    def test_no_objects_are_a_normal_result(self, field: Field) -> None:
        found = self.head.decode(self.maps(np.zeros(field.shape, np.int32), field.spacing), field.spacing)
        assert len(found) == 0
        assert found.shape == field.shape

    @each_field
    def test_one_object_may_fill_the_field(self, field: Field) -> None:
        labels = np.ones(field.shape, np.int32)
        self.check_found(labels, self.head.decode(self.maps(labels, field.spacing), field.spacing))

    @each_field
    def test_ids_carry_no_meaning(self, field: Field) -> None:
        labels = phantom(field, self.separates_touching)
        drawn = np.random.default_rng(0).choice(70_000, int(labels.max()), replace=False) + 1  # any order, with gaps
        other = np.concatenate([[0], drawn]).astype(np.int32)[labels]
        one = self.head.decode(self.maps(labels, field.spacing), field.spacing)
        two = self.head.decode(self.maps(other, field.spacing), field.spacing)
        assert same_partition(one.paint()[0], two.paint()[0])

    @each_field
    def test_a_gap_of_one_voxel_keeps_two_objects_apart(self, field: Field) -> None:
        for axis in range(len(field.shape)):
            labels = np.zeros(field.shape, np.int32)
            side = [max(3, round(12 / s)) for s in field.spacing]
            for number in range(2):
                box = [slice(2, 2 + n) for n in side]
                start = 2 + number * (side[axis] + 1)
                box[axis] = slice(start, start + side[axis])
                labels[tuple(box)] = number + 1
            self.check_found(labels, self.head.decode(self.maps(labels, field.spacing), field.spacing))

    @each_field
    def test_objects_cut_by_the_border_are_found(self, field: Field) -> None:
        labels = np.zeros(field.shape, np.int32)
        size = np.array(field.shape)
        for number, centre in enumerate([np.zeros(len(size)), size - 1, np.append(size[:-1] // 2, 0)], 1):
            index = np.indices(field.shape).T - centre
            labels[(((index * field.spacing) ** 2).sum(axis=-1) <= field.radius**2).T] = number
        self.check_found(labels, self.head.decode(self.maps(labels, field.spacing), field.spacing))

    @each_field
    def test_only_the_ratio_of_spacings_matters(self, field: Field) -> None:
        labels = phantom(field, self.separates_touching)
        small = tuple(s / 1024 for s in field.spacing)  # a power of two, so that nothing is rounded
        np.testing.assert_array_equal(self.maps(labels, field.spacing), self.maps(labels, small))
        one = self.head.decode(self.noisy(field, 0.1), field.spacing)
        two = self.head.decode(self.noisy(field, 0.1), small)
        assert len(one) > 0
        np.testing.assert_array_equal(one.paint()[0], two.paint()[0])

    @each_field
    def test_mirrored_maps_are_those_of_the_mirrored_image(self, field: Field) -> None:
        labels = phantom(field, self.separates_touching)
        for axis in range(len(field.shape)):
            mirrored = self.head.mirror(self.maps(labels, field.spacing), axis)
            other = np.ascontiguousarray(np.flip(labels, axis))
            assert mirrored.shape == self.maps(other, field.spacing).shape
            self.check_found(other, self.head.decode(mirrored, field.spacing))
            np.testing.assert_allclose(self.head.mirror(mirrored, axis)[0], self.maps(labels, field.spacing)[0])

    @each_field
    def test_smaller_than_min_voxels_is_dropped(self, field: Field) -> None:
        labels = np.array(phantom(field, False))
        sizes = np.bincount(labels.ravel())[1:]
        small = int(sizes.argmin()) + 1
        limit = int(sizes[small - 1] + np.delete(sizes, small - 1).min()) // 2
        maps = self.maps(labels, field.spacing)
        self.check_found(labels, self.changed(min_voxels=1).decode(maps, field.spacing))
        labels[labels == small] = 0
        self.check_found(labels, self.changed(min_voxels=limit).decode(maps, field.spacing))

    @each_field
    def test_tiles_give_what_the_whole_gives(self, field: Field) -> None:
        reach = self.head.reach(field.spacing)
        radius = min(field.radius, reach[-1] / 2.7)  # of objects smaller than the halo
        others = [round(7 * radius / s) for s in field.spacing[:-1]]
        part = (*others, max(2 * reach[-1], round(8 * radius)))
        drawn = [phantoms.blobs(part, 4, radius, seed, self.separates_touching, field.spacing) for seed in range(3)]
        labels = np.concatenate([one + (one > 0) * 4 * i for i, one in enumerate(drawn)], axis=-1).astype(np.int32)
        maps = self.maps(labels, field.spacing)  # with a little noise: in perfect maps many voxels tie
        maps = maps + np.random.default_rng(0).normal(0, 0.01, maps.shape).astype(np.float32)
        whole = self.head.decode(maps, field.spacing)
        tiled, scores = in_tiles(self.head, maps, field.spacing, (*others, reach[-1] // 2))
        assert len(whole) == labels.max()
        assert same_partition(whole.paint()[0], tiled)
        np.testing.assert_allclose(np.sort(scores), np.sort(whole.scores), atol=1e-5)

    # --- decoding anything

    @each_field
    @pytest.mark.parametrize("kind", ["noise", "strong noise", "zero", "high", "low"])
    def test_any_maps_give_valid_candidates(self, field: Field, kind: str) -> None:
        shape = (self.head.channels(len(field.shape)), *field.shape)
        level = {"zero": 0, "high": 80, "low": -80}.get(kind, 0)
        spread = {"noise": 1, "strong noise": 30}.get(kind, 0)
        maps = np.random.default_rng(1).normal(level, spread, shape).astype(np.float32)
        found = self.head.decode(maps, field.spacing)
        assert found.shape == field.shape
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert all(mask.sum() >= self.spec.min_voxels for mask in found.masks)

    @each_field
    def test_what_it_remembers_changes_nothing(self, field: Field) -> None:
        maps, memory = self.noisy(field, 1.0), dict[str, Any]()
        for name, values in self.head.tunable.items():
            for value in (values[0], values[-1], values[len(values) // 2], values[0]):
                head = self.changed(**{name: value})
                one, two = head.decode(maps, field.spacing), heads.read(head, maps, field.spacing, memory)
                np.testing.assert_array_equal(one.boxes, two.boxes)
                np.testing.assert_array_equal(one.scores, two.scores)
                assert all(np.array_equal(a, b) for a, b in zip(one.masks, two.masks, strict=True))

    @each_field
    def test_decoding_is_deterministic(self, field: Field) -> None:
        one, two = (self.head.decode(self.noisy(field, 1.0), field.spacing) for _ in range(2))
        np.testing.assert_array_equal(one.boxes, two.boxes)
        np.testing.assert_array_equal(one.scores, two.scores)
        assert all(np.array_equal(a, b) for a, b in zip(one.masks, two.masks, strict=True))
