"""Beside instances: classes, places nobody annotated, partly labelled images, slices of stacks, pasted instances, folds."""

import json

import numpy as np
import pytest
import tifffile

from medseg import heads
from medseg.data.augment import paste
from medseg.data.cases import Case, centres, find, instance_classes, load_cases
from medseg.data.sampling import Sampler
from medseg.data.split import fold_groups, make_folds
from medseg.errors import InputError, SpecError
from medseg.spec import SplitSpec
from medseg.testing import phantoms


@pytest.fixture
def labels(tiny_training, tmp_path):
    """Labels of the first phantom of `tiny_training`."""
    return lambda stem="p0": tifffile.imread(tmp_path / "data" / "labels" / f"{stem}.tif").astype(np.int32)


def spec_with(tiny_training, **source):
    spec = tiny_training(heads=[{"kind": "offset"}])
    sources = (spec.data.sources[0].model_copy(update=source),)
    return spec.model_copy(update={"data": spec.data.model_copy(update={"sources": sources})})


# --- classes


def test_classes_from_a_table(tmp_path):
    drawn = np.array([[0, 2, 2], [5, 5, 9]], np.int32)
    (tmp_path / "a.csv").write_text("id,class\n9,immune\n2,tumour\n")
    assert instance_classes(tmp_path / "a.csv", drawn, ("tumour", "immune")).tolist() == [1, 0, 2]  # 5 has no row
    (tmp_path / "a.csv").write_text("id,class\n9,stroma\n")
    with pytest.raises(InputError, match="'stroma' is none of tumour, immune"):
        instance_classes(tmp_path / "a.csv", drawn, ("tumour", "immune"))
    (tmp_path / "a.csv").write_text("id,class\n9,immune\n9,tumour\n")
    with pytest.raises(InputError, match="id 9 occurs twice"):
        instance_classes(tmp_path / "a.csv", drawn, ("tumour", "immune"))
    (tmp_path / "a.csv").write_text("id,class\n9,NA\n2,\n")  # a class may have any name; none is not known
    assert instance_classes(tmp_path / "a.csv", drawn, ("NA",)).tolist() == [0, 0, 1]
    (tmp_path / "a.csv").write_text("number,kind\n9,1\n")
    with pytest.raises(InputError, match="columns id and class"):
        instance_classes(tmp_path / "a.csv", drawn, ("tumour", "immune"))


def test_classes_from_an_image_by_most_voxels(tmp_path):
    drawn = np.array([[1, 1, 1, 4, 4, 4, 7]], np.int32)
    tifffile.imwrite(tmp_path / "a.tif", np.array([[2, 2, 1, 0, 0, 1, 3]], np.uint8))
    assert instance_classes(tmp_path / "a.tif", drawn, ("a", "b", "c")).tolist() == [2, 0, 3]
    with pytest.raises(InputError, match="class numbers 0 to 2"):
        instance_classes(tmp_path / "a.tif", drawn, ("a", "b"))


def test_a_sample_knows_the_class_of_every_instance(tiny_training, tmp_path, labels):
    (tmp_path / "data" / "kinds").mkdir()
    for stem in ("p0", "p1", "p2", "p3"):
        rows = "".join(f"{i},{'even' if i % 2 == 0 else 'odd'}\n" for i in np.unique(labels(stem))[1:])
        (tmp_path / "data" / "kinds" / f"{stem}.csv").write_text("id,class\n" + rows)
    spec = spec_with(tiny_training, classes="kinds")
    spec = type(spec).model_validate(spec.model_dump() | {"classes": ("odd", "even")})
    assert spec.heads[0].classes == 2
    cases = load_cases(find(spec, "train"), spec.preprocess)
    assert cases[0].classes.tolist() == [0, 1, 2, 1, 2, 1, 2]
    sampler = Sampler(spec.model_copy(update={"augment": spec.augment.model_copy(update={"p_paste": 1.0})}), cases)
    for number in range(20):
        sample = sampler[number]
        kinds, foreground = sample["0.class"][0], sample["0.foreground"][0]
        np.testing.assert_array_equal(kinds > 0, foreground > 0)
        assert set(np.unique(kinds)) <= {0, 1, 2}


# --- places nobody annotated


def test_ignored_places_teach_nothing(tiny_training, tmp_path):
    (tmp_path / "data" / "unknown").mkdir()
    for stem in ("p0", "p1", "p2", "p3"):
        hidden = np.zeros((48, 56), np.uint8)
        hidden[:, 28:] = 255
        tifffile.imwrite(tmp_path / "data" / "unknown" / f"{stem}.tif", hidden)
    spec = spec_with(tiny_training, ignore="unknown")
    cases = load_cases(find(spec, "train"), spec.preprocess)
    assert (cases[0].labels[:, 28:] == -1).all() and (cases[0].labels[:, :28] >= 0).all()
    share = [(Sampler(spec, cases)[i]["0.weight"] > 0).mean() for i in range(30)]
    assert 0.2 < np.mean(share) < 0.75


def test_of_a_partly_labelled_image_only_what_is_near_labels_counts(tiny_training, labels):
    spec = spec_with(tiny_training, partial=True)
    (case, _) = load_cases(find(spec, "train"), spec.preprocess)
    known = case.labels >= 0
    assert known[labels() > 0].all() and not known.all()
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(labels() == 0)
    np.testing.assert_array_equal(known, away <= 3)


# --- slices


def test_slices_of_a_stack_are_cases_of_a_2d_training(tiny_training, tmp_path):
    stack = phantoms.blobs((20, 48, 56), 4, 5.0, 0)
    tifffile.imwrite(tmp_path / "data" / "labels" / "p0.tif", stack.astype(np.uint16))
    tifffile.imwrite(
        tmp_path / "data" / "images" / "p0.tif", (200 * phantoms.image_of(stack, 0)).clip(0, 255).astype(np.uint8)
    )
    (tmp_path / "split.json").write_text(
        json.dumps({"splits": {"cells": {"train": ["p0"], "tune": ["p2"], "val": []}}})
    )
    spec = spec_with(tiny_training, slices=3)
    cases = load_cases(find(spec, "train"), spec.preprocess)
    shown = [z for z in range(1, 20, 3) if stack[z].any()]
    assert [c.stem for c in cases] == [f"p0[{number}]" for number in range(len(shown))]
    for case, z in zip(cases, shown, strict=True):
        np.testing.assert_array_equal(case.labels > 0, stack[z] > 0)
    assert find(spec, "tune") == []  # a 2-D network is not scored on stacks


# --- pasting


def patch_of(seed, ids=6):
    drawn = phantoms.blobs((64, 64), ids, 6.0, seed, touching=False)
    return phantoms.image_of(drawn, seed)[None], drawn, np.zeros(drawn.shape, bool)


@pytest.mark.parametrize("seed", range(8))
def test_pasted_instances_are_whole_and_cover_none(seed):
    image, drawn, outside = patch_of(0)
    other, donor, _ = patch_of(seed + 1)
    new, labels, pasted = paste(np.random.default_rng(seed), image, drawn, outside, (other, donor, outside))
    np.testing.assert_array_equal(labels[drawn > 0], drawn[drawn > 0])
    np.testing.assert_array_equal(new[0][drawn > 0], image[0][drawn > 0])
    assert labels.max() == drawn.max() + len(pasted)
    for place, number in enumerate(pasted.tolist(), 1):
        np.testing.assert_array_equal(labels == drawn.max() + place, donor == number)
        inner = (labels == drawn.max() + place) & (donor == number)
        assert np.abs(new[0][inner] - other[0][inner]).mean() < np.abs(image[0][inner] - other[0][inner]).mean()


def test_nothing_is_pasted_onto_what_is_not_known_or_taken():
    image, drawn, _ = patch_of(0)
    other, donor, outside = patch_of(1)
    everywhere = np.ones_like(outside)
    _, labels, pasted = paste(np.random.default_rng(0), image, drawn, everywhere, (other, donor, outside))
    assert len(pasted) == 0 and np.array_equal(labels, drawn)
    _, _, pasted = paste(np.random.default_rng(0), image, np.ones_like(drawn), outside, (other, donor, outside))
    assert len(pasted) == 0


def test_pasting_shows_more_instances(tiny_training):
    drawn = [phantoms.blobs((60, 60), 3, 6.0, seed) for seed in range(4)]
    cases = tuple(Case("cells", "s", phantoms.image_of(d, 0)[None], d, (1.0, 1.0), centres(d)) for d in drawn)
    share = []
    for chance in (0.0, 1.0):
        spec = tiny_training(augment={"p_paste": chance}, heads=[{"kind": "semantic"}])
        share.append(np.mean([Sampler(spec, cases)[i]["0.foreground"].mean() for i in range(60)]))
    assert share[1] > 1.1 * share[0]


# --- small instances


def test_small_instances_weigh_more():
    drawn = np.zeros((40, 40), np.int32)
    drawn[2:5, 2:5], drawn[10:36, 10:36] = 1, 2
    weight = heads.make(spec_head()).targets(drawn, None, (1.0, 1.0))["weight"][0]
    assert weight[3, 3] == 3 and weight[20, 20] == 1 and weight[0, 20] == 1
    assert weight[6, 6] == 3 and weight[7, 7] == 1  # two voxels around a small one count as much


def spec_head():
    from medseg.spec import SemanticSpec

    return SemanticSpec()


# --- folds


def test_every_image_is_in_val_once_and_groups_stay_whole():
    groups = {f"{g}_{i}": f"g{g}" for g in range(9) for i in range(1 + g % 4)}
    folds = [fold_groups(groups, 4, k, 0.2, seed=3) for k in range(4)]
    assert sorted(s for f in folds for s in f["val"]) == sorted(groups)
    for fold in folds:
        assert sorted(fold["train"] + fold["tune"] + fold["val"]) == sorted(groups)
        parts = [{groups[s] for s in fold[p]} for p in ("train", "tune", "val")]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert fold["tune"]
    sizes = [len(f["val"]) for f in folds]
    assert max(sizes) - min(sizes) <= 3
    assert folds == [fold_groups(groups, 4, k, 0.2, seed=3) for k in range(4)]


def test_a_fold_is_chosen_in_the_config(tiny_training, tmp_path, monkeypatch):
    recipe = {"sources": [{"name": "cells", "images": "images", "group": "file"}], "tune": 0.3, "folds": 2}
    tiny = tiny_training()
    folds = make_folds(SplitSpec.model_validate(recipe))
    (tmp_path / "folds.json").write_text(json.dumps({"folds": folds}))
    for fold in range(2):
        data = tiny.data.model_copy(update={"split": str(tmp_path / "folds.json"), "fold": fold})
        found = find(tiny.model_copy(update={"data": data}), "val")
        assert [f.stem for f in found] == folds[fold]["cells"]["val"]
    for data in (
        tiny.data.model_copy(update={"split": str(tmp_path / "folds.json")}),
        tiny.data.model_copy(update={"split": str(tmp_path / "folds.json"), "fold": 2}),
        tiny.data.model_copy(update={"fold": 0}),
    ):
        with pytest.raises(SpecError, match="--fold"):
            find(tiny.model_copy(update={"data": data}), "val")
    with pytest.raises(ValueError, match="leave 'val' and 'tune'"):
        SplitSpec.model_validate(recipe | {"sources": [recipe["sources"][0] | {"val": "^p1"}]})


def test_images_to_tune_on_may_be_named(tmp_path, monkeypatch):
    from medseg.data.split import split_groups

    groups = {f"f{i}": f"f{i}" for i in range(8)}
    out = split_groups(groups, 0.0, 0.5, fixed_val=frozenset({"f7"}), fixed_tune=frozenset({"f5", "f6"}))
    assert out == {"train": [f"f{i}" for i in range(5)], "tune": ["f5", "f6"], "val": ["f7"]}
    out = split_groups(groups, 0.25, 0.5, fixed_tune=frozenset({"f5", "f6"}))
    assert out["tune"] == ["f5", "f6"] and len(out["val"]) == 2


# --- what a review found


def test_an_object_cut_by_the_images_border_is_not_pasted():
    image, drawn, outside = patch_of(0)
    donor = np.zeros((64, 64), np.int32)
    beyond = np.zeros((64, 64), bool)
    beyond[:, :10] = True  # where the donor image had ended
    donor[20:32, 10:22] = 1
    donor[40:50, 40:50] = 2
    for seed in range(10):
        _, _, pasted = paste(np.random.default_rng(seed), image, np.zeros_like(drawn), outside, (image, donor, beyond))
        assert pasted.tolist() == [2]


def test_images_of_a_source_may_differ_in_channels(tiny_training):
    drawn = [phantoms.blobs((60, 60), 3, 6.0, seed) for seed in range(4)]
    cases = tuple(
        Case("cells", "s", np.repeat(phantoms.image_of(d, 0)[None], 1 + i % 3, axis=0), d, (1.0, 1.0), centres(d))
        for i, d in enumerate(drawn)
    )
    spec = tiny_training(
        net={"ndim": 2, "filters": [4, 8, 8], "in_channels": 3, "stem": "shared"},
        preprocess={"any_channels": 3, "joint": False},
        augment={"p_paste": 1.0},
    )
    assert all(np.isfinite(Sampler(spec, cases)[i]["image"]).all() for i in range(40))


def test_a_source_without_classes_teaches_none(tiny_training):
    drawn = phantoms.blobs((60, 60), 3, 6.0, 0)
    spec = tiny_training(classes=["a", "b"], heads=[{"kind": "offset"}])
    case = Case("cells", "s", phantoms.image_of(drawn, 0)[None], drawn, (1.0, 1.0), centres(drawn))
    assert not any(Sampler(spec, (case,))[i]["0.class"].any() for i in range(10))
    plain = tiny_training(heads=[{"kind": "offset"}])
    assert "0.class" not in Sampler(plain, (case,))[0]


@pytest.mark.parametrize("shape", [(100, 600), (64, 64), (300, 300)])
def test_a_small_image_is_not_magnified_beyond_what_is_wanted(tiny_training, shape):
    from medseg.data.sampling import _zooms

    drawn = np.zeros(shape, np.int32)
    drawn[10:40, 10:40] = 1
    spec = tiny_training(patch=[256, 256], augment={"diameter": [10, 30]})
    case = Case("cells", "s", drawn[None].astype(np.float32), drawn, (1.0, 1.0), centres(drawn), None, 34.0)
    low, high = _zooms(spec, case)
    assert low < high <= 30 / 34 + 1e-9


def test_files_are_paired_by_their_whole_stem(tiny_training, tmp_path):
    folder = tmp_path / "data" / "labels"
    labels = tifffile.imread(folder / "p0.tif")
    tifffile.imwrite(folder / "p0.b.tif", np.zeros_like(labels))  # sorts before p0.tif
    tifffile.imwrite(folder / "x[1].tif", labels)
    spec = tiny_training()
    assert find(spec, "train")[0].labels.name == "p0.tif"
    from medseg.data.cases import _one

    assert _one(folder, "x[1]").name == "x[1].tif"
    (folder / "p0.png").write_bytes(b"")
    with pytest.raises(InputError, match="have one name"):
        find(spec, "train")


def test_an_image_without_instances_has_no_classes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 4), np.uint8))
    assert instance_classes(tmp_path / "a.tif", np.zeros((3, 4), np.int32), ("a",)).tolist() == []


def test_a_partly_labelled_image_without_labels_teaches_nothing(tiny_training, tmp_path):
    tifffile.imwrite(tmp_path / "data" / "labels" / "p0.tif", np.zeros((48, 56), np.uint16))
    spec = spec_with(tiny_training, partial=True)
    (case, _) = load_cases(find(spec, "train"), spec.preprocess)
    assert (case.labels == -1).all()


def test_specks_of_an_object_teach_nothing(tiny_training):
    drawn = np.zeros((60, 60), np.int32)
    drawn[30:32, 30:32] = 1
    spec = tiny_training(augment={"scale": [1, 1], "stretch": 1, "rotate": 0, "p_elastic": 0}, patch=[16, 16])
    case = Case("cells", "s", phantoms.image_of(drawn, 0)[None], drawn, (1.0, 1.0), centres(drawn))
    samples = [Sampler(spec, (case,))[i] for i in range(20)]
    assert not any(s["0.foreground"].any() for s in samples)
    assert sum((s["0.weight"] == 0).sum() == 4 for s in samples) >= 5
