"""Splits never leak, samples are numbered, and augmentation keeps image and labels together."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from medseg import io, presets
from medseg.data.cases import Case, CaseFiles, centres, data_root, find, load_cases, read_split
from medseg.data.sampling import Sampler
from medseg.data.split import make_folds, make_split, split_groups, touching_crops
from medseg.errors import InputError, MissingError, SpecError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.spec import AugmentSpec, PreprocessSpec, SourceSpec, SplitSpec, load_yaml
from medseg.testing import phantoms

SPLITS = sorted((presets.folder() / "splits").glob("*.json"))
groupings = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from("uvwxyz"), max_size=40)
shares = st.sampled_from([0.0, 0.1, 0.3, 0.6])
STILL = AugmentSpec(scale=(1, 1), stretch=1, rotate=0, p_elastic=0)


# --- splits


def check_dealt(groups, split):
    stems = [stem for part in split.values() for stem in part]
    assert list(split) == ["train", "tune", "val"]
    assert sorted(stems) == sorted(groups)  # each stem once
    assert all(part == sorted(part) for part in split.values())


@given(groupings, shares, shares, st.integers(0, 3))
def test_whole_groups_are_dealt(groups, val, tune, seed):
    split = split_groups(groups, val, tune, seed)
    check_dealt(groups, split)
    where = {}
    for part, stems in split.items():
        for stem in stems:
            assert where.setdefault(groups[stem], part) == part
    largest = max([0, *(list(groups.values()).count(g) for g in groups.values())])
    wanted = round(val * len(groups))
    assert wanted <= len(split["val"]) < max(1, wanted + largest)
    rest = round(tune * (len(groups) - wanted))
    assert min(rest, len(groups) - len(split["val"])) <= len(split["tune"]) < max(1, rest + largest)


@given(groupings, shares, st.integers(0, 3), st.randoms())
def test_a_fixed_val_keeps_its_siblings_out_of_tune(groups, tune, seed, random):
    fixed = frozenset(random.sample(sorted(groups), len(groups) // 3))
    split = split_groups(groups, 0.0, tune, seed, fixed)
    check_dealt(groups, split)
    assert split["val"] == sorted(fixed)
    assert not {groups[s] for s in split["tune"]} & {groups[s] for s in split["val"]}
    assert not {groups[s] for s in split["tune"]} & {groups[s] for s in split["train"]}


def test_the_deal_depends_on_seed_and_group_names_alone():
    groups = {f"s{i}": f"g{i // 2}" for i in range(60)}
    one = split_groups(groups, 0.2, 0.1)
    assert one == split_groups(dict(reversed(groups.items())), 0.2, 0.1)
    assert one != split_groups(groups, 0.2, 0.1, seed=1)
    # by SHA-256, so the same on every machine and Python
    assert split_groups({s: s for s in "abcdefgh"}, 0.25, 0.2)["val"] == ["f", "g"]


def field(seed, shape=(96, 120)):
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 5)
    return np.clip(120 + 400 * smooth / np.abs(smooth).max(), 0, 255).astype(np.uint8)


def test_crops_of_one_field_are_found():
    one, other = field(0), field(1)
    crops = {f"a{y}{x}": one[32 * y : 32 * y + 32, 40 * x : 40 * x + 40] for y in range(3) for x in range(3)}
    crops |= {f"b{x}": other[:32, 40 * x : 40 * x + 40] for x in range(2)}
    crops |= {
        "alone": field(2)[:32, :40],
        "flat": np.full((32, 40), 7, np.uint8),
        "flat2": np.full((32, 40), 7, np.uint8),
    }
    crops["taller"] = one[32:64, :41]  # another shape: nothing to compare
    groups = touching_crops(crops)
    assert {s: g for s, g in groups.items() if s.startswith("a") and s != "alone"} == {
        f"a{y}{x}": "a00" for y in range(3) for x in range(3)
    }
    assert groups["b0"] == groups["b1"] == "b0"
    assert [groups[s] for s in ("alone", "flat", "flat2", "taller")] == ["alone", "flat", "flat2", "taller"]


@pytest.mark.parametrize("scale", [1.0, 1e-4, 200.0])
def test_crops_are_found_whatever_their_range_of_values(scale):
    dim = {f"{x}": (field(1)[:32, 40 * x : 40 * x + 40] * scale).astype(np.float32) for x in range(2)}
    assert set(touching_crops(dim).values()) == {"0"}


def committed(path):
    """The splits in a file, one for each fold."""
    folds = json.loads(path.read_text()).get("folds")
    return [read_split(path.name, k) for k in range(len(folds))] if folds else [read_split(path.name)]


@pytest.mark.parametrize("path", SPLITS, ids=lambda p: p.stem)
def test_committed_splits_are_disjoint(path):
    assert (path.parent / json.loads(path.read_text())["recipe"]).is_file()
    for split in committed(path):
        for parts in split.values():
            stems = [stem for part in parts.values() for stem in part]
            assert parts["train"] and len(stems) == len(set(stems))


@pytest.mark.parametrize("path", SPLITS, ids=lambda p: p.stem)
def test_committed_splits_follow_their_recipe(path, real_data):
    recipe = load_yaml(SplitSpec, path.with_suffix(".yaml"))
    missing = [s.images for s in recipe.sources if not (real_data / s.images).is_dir()]
    if missing:
        pytest.skip(f"no {missing[0]} in {real_data}")
    assert committed(path) == (make_folds(recipe) if recipe.folds else [make_split(recipe)])


def test_a_recipe_names_what_it_misses(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_DATA", str(tmp_path))
    recipe = {"sources": [{"name": "s", "images": "set/images"}]}
    with pytest.raises(MissingError, match="no images"):
        make_split(SplitSpec.model_validate(recipe))
    (tmp_path / "set" / "images").mkdir(parents=True)
    for stem in ("a_1", "a_2", "b_1"):
        (tmp_path / "set" / "images" / f"{stem}.tif").touch()
    for change, error in (
        ({"group": "listed"}, MissingError),
        ({"val": "listed"}, MissingError),
        ({"group": "("}, SpecError),
    ):
        with pytest.raises(error):
            make_split(SplitSpec.model_validate({"sources": [recipe["sources"][0] | change]}))
    grouped = SplitSpec.model_validate(
        {"sources": [recipe["sources"][0] | {"group": "^[ab]", "val": "^b"}], "tune": 0.0}
    )
    assert make_split(grouped) == {"s": {"train": ["a_1", "a_2"], "tune": [], "val": ["b_1"]}}
    (tmp_path / "set" / "groups.json").write_text(json.dumps({"groups": {"a_1": 0, "a_2": 1, "b_1": 0}}))
    (tmp_path / "set" / "manifest.json").write_text(
        json.dumps({"items": [{"name": s, "split": "val" if s == "a_1" else "train"} for s in ("a_1", "a_2", "b_1")]})
    )
    listed = SplitSpec.model_validate(
        {"sources": [recipe["sources"][0] | {"group": "listed", "val": "listed"}], "tune": 0.9}
    )
    assert make_split(listed) == {"s": {"train": ["b_1"], "tune": ["a_2"], "val": ["a_1"]}}


# --- cases


def test_cases_are_found_and_loaded(tiny_training, tmp_path):
    spec = tiny_training()
    assert data_root() == tmp_path / "data"
    assert [[f.stem for f in find(spec, s)] for s in ("train", "tune", "val")] == [["p0", "p1"], ["p2"], ["p3"]]
    assert find(spec, "train", sources=("other",)) == []
    (case,) = load_cases(find(spec, "tune"), spec.preprocess)
    assert (case.source, case.stem, case.image.shape, case.labels.shape) == ("cells", "p2", (1, 48, 56), (48, 56))
    assert case.image.dtype == np.float32 and case.labels.max() == 6
    assert len(case.centres) == 6


def test_wrong_names_and_shapes_are_named(tiny_training, tmp_path):
    import tifffile

    spec = tiny_training()
    with pytest.raises(SpecError, match="'test' is not one of train, tune, val"):
        find(spec, "test")
    other = spec.data.model_copy(update={"sources": (SourceSpec(name="else", images="images", labels="labels"),)})
    strange = spec.model_copy(update={"data": other})
    with pytest.raises(SpecError, match="no source 'else'"):
        find(strange, "train")
    with pytest.raises(SpecError, match="no readable split file"):
        read_split("nowhere.json")
    tifffile.imwrite(tmp_path / "data" / "labels" / "p2.tif", np.zeros((48, 50), np.uint16))
    with pytest.raises(InputError, match=r"\(48, 50\) for an image of shape \(48, 56\)"):
        find(spec, "tune")[0].load()


def test_preprocessed_cases_keep_labels_on_the_images_grid(tiny_training):
    files = [replace(f, spacing=(0.001, 0.002)) for f in find(tiny_training(), "train")]
    (one, _) = load_cases(files, PreprocessSpec(spacing=(0.002, 0.002)))
    assert one.image.shape == (1, 24, 56) and one.labels.shape == (24, 56)
    assert one.spacing == pytest.approx((0.002, 0.002))


def test_centres_by_hand():
    labels = np.array([[0, 7, 7], [0, 7, 7], [3, 0, 0]], np.int32)
    assert centres(labels).tolist() == [[2, 0], [0.5, 1.5]]
    assert centres(np.zeros((3, 3), np.int32)).shape == (0, 2)


# --- samples


def case_of(labels, source="cells", value=None):
    image = phantoms.image_of(labels, 0) if value is None else np.full(labels.shape, value, np.float32)
    return Case(source, "stem", image[None], labels, (1.0,) * labels.ndim, centres(labels))


@pytest.fixture
def sampler(tiny_training):
    cases = tuple(case_of(phantoms.blobs((60, 60), 6, 7.0, seed)) for seed in range(2))
    return Sampler(tiny_training(), cases)


def test_samples_are_numbered(sampler):
    assert len(sampler) == 24
    again = Sampler(sampler.spec, sampler.cases)
    for number in (0, 1, 23):
        one, two = sampler[number], again[number]
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not np.array_equal(sampler[0]["image"], sampler[1]["image"])
    other = Sampler(sampler.spec.model_copy(update={"seed": 2}), sampler.cases)
    assert not np.array_equal(sampler[0]["image"], other[0]["image"])


def test_a_sample_holds_the_truth_of_every_head(sampler):
    sample = sampler[3]
    assert sample["image"].shape == (1, 32, 32)
    assert sample["0.offset"].shape == (2, 32, 32) and sample["1.distance"].shape == (1, 32, 32)
    for values in sample.values():
        assert values.dtype == np.float32 and np.isfinite(values).all()


def test_beyond_the_image_nothing_counts(tiny_training):
    labels = np.ones((20, 24), np.int32)
    spec = tiny_training(augment={"scale": [1, 1], "stretch": 1, "rotate": 0, "p_elastic": 0})
    sample = Sampler(spec, (case_of(labels),))[0]
    counts = sample["0.weight"][0] > 0
    assert counts.sum() == 20 * 24  # the patch of 32 x 32 holds the whole image
    assert np.array_equal(sample["0.foreground"][0] > 0, counts)
    assert np.array_equal(sample["0.weight"], sample["1.weight"])


def test_sources_are_drawn_by_weight_and_cases_by_the_root_of_their_size(tiny_training):
    def data(name, weight):
        return {"name": name, "images": "images", "labels": "labels", "weight": weight}

    full, none = np.ones((40, 40), np.int32), np.zeros((40, 40), np.int32)
    spec = tiny_training(data={"sources": [data("full", 3.0), data("none", 1.0)], "split": "s.json"}, patch=[8, 8])
    sampler = Sampler(spec, (case_of(full, "full"), case_of(none, "none"), case_of(none, "none")))
    share = np.mean([sampler[i]["0.foreground"].any() for i in range(400)])
    assert 0.68 < share < 0.82
    one = tiny_training(patch=[8, 8])
    large = np.zeros((80, 80), np.int32)  # four times as large: drawn twice as often
    share = np.mean([Sampler(one, (case_of(full), case_of(large)))[i]["0.foreground"].any() for i in range(400)])
    assert 0.26 < share < 0.41


def test_every_second_patch_shows_an_instance(tiny_training):
    labels = np.zeros((200, 200), np.int32)
    labels[150:156, 20:26] = 1  # so small that chance rarely meets it
    sampler = Sampler(tiny_training(augment={"scale": [1, 1]}, patch=[16, 16]), (case_of(labels),))
    share = np.mean([sampler[i]["0.foreground"].any() for i in range(300)])
    assert 0.4 < share < 0.6


def test_a_training_sees_scans_in_the_orientation_that_the_model_asks_for(tmp_path):
    rng = np.random.default_rng(0)
    labels = phantoms.blobs((12, 14, 16), 3, 3.0, 0)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, 1.0, 1.0])[:, ::-1]
    grid = Grid(labels.shape, affine, space="patient")
    array = rng.random((1, *labels.shape)).astype(np.float32)
    whole = []
    for name, order, flips in (("sal", (0, 1, 2), ()), ("other", (2, 0, 1), (0, 2))):
        lies = grid.permute(order).flip(*flips)
        turned = [np.flip(a.transpose(order), flips) for a in (array[0], labels)]
        io.save_image(Image(turned[0][None], lies, modality="MR"), tmp_path / f"{name}.nii.gz")
        io.save_labels(Instances.from_labels(turned[1], lies), tmp_path / f"{name}_labels.nii.gz")
        whole.append(CaseFiles("s", name, tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_labels.nii.gz", None))
    wanted, found = load_cases(whole, PreprocessSpec(orientation="SAL"))
    np.testing.assert_array_equal(found.image, wanted.image)
    np.testing.assert_array_equal(found.labels > 0, wanted.labels > 0)
    np.testing.assert_array_equal(wanted.labels > 0, labels > 0)
    plain, other = load_cases(whole, PreprocessSpec())
    assert plain.image.shape != other.image.shape


@pytest.mark.parametrize("wrong", ["SA", "SAR ", "SAX", "SAI", "sar"])
def test_an_orientation_is_three_letters_of_a_patient(wrong):
    with pytest.raises(ValueError, match="one of L and R"):
        PreprocessSpec(orientation=wrong)
