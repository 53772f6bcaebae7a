"""The pipeline, with networks that know the answer: events, tiles, refusals, and what the result says about itself."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import medseg.maps
from medseg import heads, presets
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.metrics import match, overlap
from medseg.model import Model
from medseg.pipeline import Finished, Progress, Region, Started, run, segment
from medseg.spec import OffsetSpec, PreprocessSpec, RunSpec, SemanticSpec, WatershedSpec
from medseg.testing import phantoms
from medseg.testing.decoding import each_field, same_partition
from medseg.testing.models import Lookup, flat, knowing, numbered, perfect

# --- events


def test_events_come_in_order_and_count_the_windows(drawn):
    model, image = flat(drawn)
    events = list(run(image, model, RunSpec(region=(20, 20), tile=(24, 20))))
    first, *middle, last = events
    assert type(first) is Started and type(last) is Finished
    assert [e.done for e in middle if type(e) is Progress] == list(range(1, first.windows + 1))
    assert {e.windows for e in middle if type(e) is Progress} == {first.windows} == {len(model._nets[0].calls)}
    places = [e.place for e in middle if type(e) is Region]
    assert len(places) == 6 and type(middle[-1]) is Region and type(middle[0]) is Progress
    seen = np.zeros(drawn.shape, int)
    for place in places:
        seen[place] += 1
    assert (seen == 1).all()
    assert last.seconds >= 0 and last.notes == first.notes == ()


def test_a_small_image_is_one_window_and_one_region(drawn):
    model, image = flat(drawn)
    assert [type(e) for e in run(image, model)] == [Started, Progress, Region, Finished]


def test_regions_show_what_stands_and_cannot_be_written(drawn):
    model, image = flat(drawn)
    *_, region, last = run(image, model)
    assert region.place == (slice(0, 40), slice(0, 60))
    assert not region.labels.flags.writeable
    np.testing.assert_array_equal(region.labels, last.instances.labels)
    assert same_partition(region.labels, drawn)


def test_windows_and_regions_are_no_larger_than_asked(drawn):
    model, image = flat(drawn)
    for event in run(image, model, RunSpec(region=(15, 25), tile=(16, 24))):
        if type(event) is Region:
            assert all(p.stop - p.start <= n for p, n in zip(event.place, (15, 25), strict=True))
    assert all(a <= 16 and b <= 24 for a, b in model._nets[0].calls)


def test_closing_the_generator_stops_the_work(drawn):
    model, image = flat(drawn)
    events = run(image, model, RunSpec(region=(20, 20)))
    next(events)
    assert model._nets[0].calls == []
    next(events)
    events.close()
    assert len(model._nets[0].calls) == 1
    with pytest.raises(StopIteration):
        next(events)


# --- tiles


@each_field
@pytest.mark.parametrize("head", [SemanticSpec(), WatershedSpec(), OffsetSpec()], ids=lambda h: h.kind)
def test_tiled_equals_untiled(field, head):
    reach = heads.make(head).reach(field.spacing)[-1]
    radius = min(field.radius, reach / 2.7)
    part = (*[round(7 * radius / s) for s in field.spacing[:-1]], max(2 * reach, round(8 * radius)))
    labels = np.concatenate(
        [phantoms.blobs(part, 4, radius, s, head.kind != "semantic", field.spacing) for s in range(2)], -1
    )
    labels[..., part[-1] :] += 4 * (labels[..., part[-1] :] > 0)
    model = knowing(perfect(labels, head, field.spacing, 0.01), head)
    image = numbered(labels.shape, field.spacing)
    small = RunSpec(region=(*labels.shape[:-1], part[-1] // 3), tile=tuple(max(8, n // 2) for n in part))
    whole = segment(image, model=model)
    calls = len(model._nets[0].calls)
    tiled = segment(image, model=model, options=small)
    assert calls == 1 and len(model._nets[0].calls) - calls > 6
    assert len(whole) == 8 and whole.grid == image.grid
    assert same_partition(whole.labels, tiled.labels)
    np.testing.assert_allclose(np.sort(whole.table["score"]), np.sort(tiled.table["score"]), atol=1e-4)


@pytest.mark.parametrize("closed", [False, True], ids=["bar", "ring"])
@pytest.mark.parametrize("shape", [(90, 100), (16, 70, 80)])
def test_an_object_through_all_regions_stays_one(shape, closed):
    labels = phantoms.chain(shape, 5, closed)
    model = knowing(perfect(labels, SemanticSpec(), (1.0,) * len(shape)))
    found = segment(numbered(shape), model=model, options=RunSpec(region=(20,) * len(shape)))
    assert len(found) == 1 and np.array_equal(found.labels > 0, labels > 0)


def test_windows_that_disagree_are_blended_evenly():
    class Drift(Lookup):
        def __call__(self, x):
            return [super().__call__(x)[0] + 2.0 * (len(self.calls) - 1.5)]  # -1 and 1

    model, image = flat(np.ones((16, 64), np.int32))
    model = replace(model, _nets=(Drift(np.zeros((1, 16, 64), np.float32)),))
    found = segment(image, model=model, options=RunSpec(tile=(16, 40)))
    assert len(model._nets[0].calls) == 2
    edge = np.flatnonzero((found.labels > 0).all(axis=0))[0]  # where the mean of both turns positive
    assert edge == pytest.approx(32, abs=1)


# --- what the head is told


@pytest.mark.parametrize("spacing", [(4.0, 1.0, 1.0), None])
def test_heads_are_told_the_anisotropy_also_where_the_image_does_not_say(spacing):
    labels = phantoms.blobs((18, 60, 60), 5, 12.0, 0, spacing=(4.0, 1.0, 1.0))
    head = OffsetSpec()
    model = knowing(
        perfect(labels, head, (4.0, 1.0, 1.0)), head, preprocess=PreprocessSpec(low=0, high=100, anisotropy=4.0)
    )
    found = segment(numbered(labels.shape, spacing), model=model)
    assert match(overlap(labels, found.labels), 0.9)[0].ap == 1.0
    told = "spacing unknown: z is taken to be 4 times coarser than in plane"
    assert found.provenance["notes"] == [told] * (spacing is None)
    assert ("volume_px" in found.table) == (spacing is None)


class Bright:
    """A network that finds what is bright; it has no idea of where it looks."""

    def __init__(self):
        self.shapes = []

    def __call__(self, x):
        self.shapes.append(tuple(x.shape[2:]))
        return [(x[:, :1] - 0.5) * 20]


def test_a_resampled_stack_comes_back_on_its_own_grid():
    labels = phantoms.blobs((36, 40, 40), 4, 7.0, 1, touching=False)
    model = knowing(np.zeros((1, 2, 2, 2)), preprocess=PreprocessSpec(low=0, high=100, anisotropy=2.0))
    model = replace(model, _nets=(Bright(),))
    image = Image.from_array((labels > 0).astype(np.float32), 0.5)
    *_, last = run(image, model, RunSpec(region=(18, 40, 40)))
    assert {shape[0] for shape in model._nets[0].shapes} == {20}  # (18 + halo of 18 in the other half) / 2, padded to 4
    assert last.instances.grid == image.grid and len(last.instances) == 4
    assert last.notes == ("z resampled by 0.50 to the model's anisotropy 2",)
    both = ((last.instances.labels > 0) & (labels > 0)).sum() / ((last.instances.labels > 0) | (labels > 0)).sum()
    assert both > 0.85


@pytest.mark.parametrize("factor", [1, 3])
def test_offsets_survive_a_model_of_another_spacing(factor):
    small = phantoms.blobs((40, 40), 5, 5.0, 0)
    labels = np.kron(small, np.ones((factor, factor), np.int32))
    head = OffsetSpec()
    maps = torch.from_numpy(perfect(small, head, (1.0, 1.0)))[None]
    model = knowing(np.zeros((3, 4, 4)), head, preprocess=PreprocessSpec(spacing=(factor, factor)))
    found = segment(numbered(labels.shape, 1.0), model=replace(model, _nets=(lambda x: [maps],)))
    assert match(overlap(labels, found.labels), 0.7)[0].ap == 1.0


# --- scores


def halves(left, right):
    """One object of 10 x 40, the two halves of which are more or less probable."""
    p = np.full((20, 60), 0.01, np.float32)
    p[5:15, 10:30], p[5:15, 30:50] = left, right
    return knowing(np.log(p / (1 - p))[None]), numbered((20, 60))


def test_scores_below_the_least_are_left_out(drawn):
    p = np.array([0.01, 0.6, 0.7, 0.8, 0.9, 0.95], np.float32)[drawn]
    model = knowing(np.log(p / (1 - p))[None])
    found = segment(numbered(drawn.shape), model=model, options=RunSpec(min_score=0.75))
    assert sorted(found.table["score"]) == pytest.approx([0.8, 0.9, 0.95], abs=1e-3)
    assert np.array_equal(found.labels > 0, drawn >= 3)
    assert found.table["id"].tolist() == [1, 2, 3]


def test_a_model_may_leave_out_doubtful_instances_unless_asked_for(drawn):
    p = np.array([0.01, 0.6, 0.7, 0.8, 0.9, 0.95], np.float32)[drawn]
    model = knowing(np.log(p / (1 - p))[None], min_score=0.75)
    found = segment(numbered(drawn.shape), model=model)
    assert len(found) == 3
    assert any("2 doubtful instances with a score below 0.75" in n for n in found.provenance["notes"])
    every = segment(numbered(drawn.shape), model=model, options=RunSpec(min_score=0))
    assert len(every) == 5 and not any("doubtful" in n for n in every.provenance["notes"])


def test_a_model_may_leave_out_what_is_too_small_beside_the_rest(drawn):
    shown = np.array(drawn)
    shown[0:4, 0:4] = 6  # 16 voxels beside objects of some 80
    model = knowing(np.where(shown > 0, 8.0, -8.0).astype(np.float32)[None])
    assert len(segment(numbered(drawn.shape), model=model)) == 6
    model = knowing(np.where(shown > 0, 8.0, -8.0).astype(np.float32)[None], min_share=0.5)
    found = segment(numbered(drawn.shape), model=model)
    assert np.array_equal(found.labels > 0, drawn > 0)


def test_the_score_of_an_object_cut_by_regions_is_that_of_the_whole():
    model, image = halves(0.9, 0.6)
    for least, count in ((0.7, 1), (0.8, 0)):
        tiled = segment(image, model=model, options=RunSpec(region=(20, 20), min_score=least))
        whole = segment(image, model=model, options=RunSpec(min_score=least))
        assert len(tiled) == len(whole) == count
        assert np.array_equal(tiled.labels > 0, whole.labels > 0)


# --- results


def test_the_result_says_how_it_came_about(drawn):
    model, image = flat(drawn)
    found = segment(image, model=model, options=RunSpec(region=(30, 30)))
    about = found.provenance
    assert set(about) == {
        "medseg", "model", "model_sha256", "head", "device", "options", "source_sha256", "notes", "seconds",
    }  # fmt: skip
    assert (about["medseg"], about["model"], about["model_sha256"]) == (medseg.__version__, "knowing", "0" * 64)
    assert (about["head"], about["device"], about["source_sha256"], about["notes"]) == ("semantic", "cpu", None, [])
    assert about["options"] == RunSpec(region=(30, 30)).model_dump(mode="json")
    assert found.classes == ("cell",) and set(found.table["class"]) == {"cell"}


def test_the_hash_of_the_file_is_recorded(tiny_training, tmp_path):
    import hashlib

    path = tmp_path / "data" / "images" / "p0.tif"
    model = replace(knowing(np.zeros((1, 2, 2))), _nets=(Bright(),))
    found = segment(path, model=model, spacing=0.5, unit="um")
    assert found.provenance["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.grid.spacing == pytest.approx((5e-4, 5e-4)) and len(found) > 0


def test_nothing_found_is_a_normal_result(drawn):
    model, image = flat(np.zeros_like(drawn))
    found = segment(image, model=model)
    assert isinstance(found, Instances)
    assert len(found) == 0 and not found.labels.any() and "area_px" in found.table.columns


@pytest.mark.parametrize("spacing, column, factor", [(None, "area_px", 1.0), (0.5, "area_mm2", 0.25)])
def test_areas_are_in_pixels_where_the_spacing_is_unknown(drawn, spacing, column, factor):
    model, _ = flat(drawn)
    table = segment(numbered(drawn.shape, spacing), model=model).table
    assert sorted(table[column]) == sorted(factor * np.bincount(drawn.ravel())[1:])
    assert ("area_px" in table) == (spacing is None)


# --- kept maps


def _sample(keep):
    *_, last = run(medseg.io.load(presets.samples() / "fluorescence.tif"), Model.load("nuclei2d"), keep=keep)
    assert isinstance(last, Finished)
    return last


def test_kept_maps_give_the_same_instances_and_others_under_other_settings():
    last = _sample(1 << 30)
    np.testing.assert_array_equal(last.maps.decode().labels, last.instances.labels)
    few = last.maps.decode(last.maps.spec.heads[0].model_copy(update={"min_voxels": 400}))
    assert 0 < len(few) < len(last.instances)
    assert len(last.maps.decode(min_score=0.0)) > len(last.instances)


@pytest.mark.parametrize("name", ["nuclei2d", "cells2d"])
@pytest.mark.parametrize("remembered", [True, False])
def test_maps_read_again_and_again_give_what_one_reading_gives(name, remembered, monkeypatch):
    if not remembered:
        monkeypatch.setattr(medseg.maps, "_REMEMBER", 0)
    image = medseg.io.load(presets.samples() / "fluorescence.tif")
    *_, last = run(image, Model.load(name), RunSpec(region=(150, 150)), keep=1 << 30)
    kept, spec = last.maps, last.maps.spec.heads[0]
    assert len(kept.parts) > 1
    steps = [{"threshold": 0.3}, {"threshold": 0.6}, {"votes": 8.0}, {}, {"threshold": 0.45, "min_voxels": 60}]
    for number, change in enumerate(steps):
        least = [None, 0.0, 0.8][number % 3]
        fresh = replace(kept, parts=kept.parts)
        for _ in range(2):
            found = kept.decode(spec.model_copy(update=change), least)
            wanted = fresh.decode(spec.model_copy(update=change), least)
            np.testing.assert_array_equal(found.labels, wanted.labels)
            pd.testing.assert_frame_equal(found.table, wanted.table)


def test_maps_over_the_budget_are_not_kept():
    last = _sample(1000)
    assert last.maps is None and len(last.instances)


def test_maps_propose_around_a_place_what_was_found_there():
    last = _sample(1 << 30)
    row = last.instances.table.sort_values("score").iloc[-1]
    height, width = last.instances.grid.shape
    place = (
        slice(max(0, row["box_y_start"] - 20), min(height, row["box_y_stop"] + 20)),
        slice(max(0, row["box_x_start"] - 20), min(width, row["box_x_stop"] + 20)),
    )
    found = last.maps.around(place)
    labels, _ = found.paint()
    truth = last.instances.labels[place] == row["id"]
    best = max((truth & (labels == n)).sum() / (truth | (labels == n)).sum() for n in range(1, len(found) + 1))
    assert found.shape == truth.shape and best > 0.85


def test_maps_of_a_resampled_image_propose_what_they_gave_in_its_place():
    image = medseg.io.load(presets.samples() / "fluorescence.tif")
    *_, last = run(image, Model.load("cells2d"), RunSpec(diameter=80), keep=1 << 30)
    assert any("resampled" in note for note in last.notes)
    shared = []
    for row in last.instances.table.sort_values("score").tail(12).to_dict("records"):
        low = [max(0, row[f"box_{a}_start"] - 30) for a in "yx"]
        high = [min(n, row[f"box_{a}_stop"] + 30) for a, n in zip("yx", image.grid.shape, strict=True)]
        place = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        labels, _ = last.maps.around(place).paint()
        truth = last.instances.labels[place] == row["id"]
        shared.append(
            max((truth & (labels == n)).sum() / (truth | (labels == n)).sum() for n in range(1, labels.max() + 1))
        )
    assert np.median(shared) > 0.93
    whole = tuple(slice(0, n) for n in image.grid.shape)
    sure = last.maps.foreground(whole)
    assert sure[last.instances.labels > 0].mean() > 0.8 > 0.2 > sure[last.instances.labels == 0].mean()


# --- thresholds from the image


def test_a_model_that_goes_by_borders_finds_what_the_image_shows():
    """Its network is unsure of two bright objects and of one that is not there: nothing is above .5, two are to be seen."""
    labels = np.zeros((48, 60), np.int32)
    labels[5:15, 5:15], labels[30:42, 8:20], labels[20:30, 40:50] = 1, 2, 3
    bright = np.isin(labels, (1, 2)) + 0.5 * np.random.default_rng(0).random(labels.shape)
    number = np.argsort(np.argsort(bright.ravel()))  # of each voxel, as `Lookup` reads it; brighter is more
    table = np.empty((1, labels.size), np.float32)
    table[0, number] = np.where(labels > 0, -1.0, -6.0).ravel()
    image = Image.from_array(number.reshape(labels.shape).astype(np.float64))
    for border, count in ((0.0, 0), (0.5, 2)):
        model = knowing(table.reshape(1, *labels.shape), border=border)
        *_, last = run(image, model, RunSpec(region=(20, 20)), keep=1 << 20)
        assert len(last.instances) == count
        assert any("by the borders in this image" in n for n in last.notes) == bool(border)
        assert (last.instances.labels > 0).sum() == (0 if not border else np.isin(labels, (1, 2)).sum())
        assert len(last.maps.decode()) == count  # what is kept is what was decoded


# --- orientation


@pytest.fixture(scope="module")
def sided():
    """A stack of cells as a patient's, and a real network, which finds other things in a stack that lies otherwise."""
    image = medseg.io.load(presets.samples() / "ovule.ome.tif").crop((30, 10, 10), (50, 74, 80))
    model = Model.load("nuclei3d")
    spec = model.spec.model_copy(update={"preprocess": model.spec.preprocess.model_copy(update={"orientation": "SAL"})})
    return image, replace(model, spec=spec)


@pytest.mark.parametrize("axes, flips", [((0, 1, 2), (1,)), ((2, 1, 0), (0, 2)), ((1, 2, 0), ())])
def test_what_is_found_does_not_depend_on_how_a_patient_is_stored(sided, axes, flips):
    image, model = sided
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, 1.0, 1.0])[:, ::-1] @ np.diag(image.grid.spacing)
    grid = Grid(image.grid.shape, affine, space="patient")
    assert grid.orientation == "SAL"
    array = np.ascontiguousarray(image.voxels())
    options = RunSpec(region=(20, 40, 70), tile=(16, 64, 70), force=True)
    wanted = list(run(Image(array, grid), model, options, keep=1 << 30))

    def other(values):
        moved = values.transpose(*range(values.ndim - 3), *(values.ndim - 3 + a for a in axes))
        return np.ascontiguousarray(np.flip(moved, [values.ndim - 3 + a for a in flips]))

    sizes = {name: tuple(getattr(options, name)[a] for a in axes) for name in ("region", "tile")}
    stored = Image(other(array), grid.permute(axes).flip(*flips))
    found = list(run(stored, model, options.model_copy(update=sizes), keep=1 << 30))
    first, last = wanted[-1], found[-1]
    assert len(first.instances) > 2 and last.instances.grid == stored.grid
    np.testing.assert_array_equal(last.instances.labels, other(first.instances.labels))
    np.testing.assert_array_equal(last.instances.table["score"], first.instances.table["score"])
    shown = [np.zeros_like(one[-1].instances.labels) for one in (wanted, found)]
    for events, labels in zip((wanted, found), shown, strict=True):
        for event in events:
            if type(event) is Region:
                labels[event.place] = event.labels
    np.testing.assert_array_equal(shown[1], other(shown[0]))
    np.testing.assert_array_equal(last.maps.decode().labels, last.instances.labels)
    whole = tuple(slice(0, n) for n in stored.grid.shape)
    np.testing.assert_array_equal(
        last.maps.foreground(whole), other(first.maps.foreground(tuple(slice(0, n) for n in grid.shape)))
    )
    assert last.maps.reach() == tuple(first.maps.reach()[a] for a in axes)
    row = last.instances.table.sort_values("score").iloc[-1]
    place = tuple(slice(row[f"box_{a}_start"], row[f"box_{a}_stop"]) for a in stored.grid.axes)
    labels = last.maps.around(place).paint()[0]
    truth = last.instances.labels[place] == row["id"]
    assert max((truth & (labels == n)).sum() / (truth | (labels == n)).sum() for n in range(1, labels.max() + 1)) > 0.85
    plain = replace(model, spec=Model.load("nuclei3d").spec)  # it is no matter of a network that does not care
    assert not np.array_equal(list(run(stored, plain, options))[-1].instances.labels, last.instances.labels)
