"""Data sets with faults: all of them are told at once, before a training starts."""

import json

import numpy as np
import pytest
import tifffile
import torch

from medseg.data.check import check
from medseg.errors import InputError
from medseg.train import Checked, train


@pytest.fixture
def data(tiny_training, tmp_path):
    """The four phantoms of `tiny_training`, and functions to spoil them."""
    folder = tmp_path / "data"

    class Data:
        spec = staticmethod(tiny_training)

        @staticmethod
        def labels(stem):
            return tifffile.imread(folder / "labels" / f"{stem}.tif")

        @staticmethod
        def write(stem, labels, kind="labels"):
            tifffile.imwrite(folder / kind / f"{stem}.tif", labels)

        @staticmethod
        def remove(stem, kind="labels"):
            (folder / kind / f"{stem}.tif").unlink()

        @staticmethod
        def split(train, tune, val=()):
            parts = {"train": list(train), "tune": list(tune), "val": list(val)}
            (tmp_path / "split.json").write_text(json.dumps({"splits": {"cells": parts}}))

    return Data


def test_a_good_data_set_has_nothing_to_tell(data):
    assert check(data.spec()) == Checked((), ())


def test_an_image_without_labels(data):
    data.remove("p1")
    (fault,) = check(data.spec()).faults
    assert "labels: no file p1.*" in fault


def test_labels_of_another_shape(data):
    data.write("p0", data.labels("p0")[:, 1:])
    (fault,) = check(data.spec()).faults
    assert "p0" in fault and "(48, 55)" in fault and "(48, 56)" in fault


def test_labels_that_lie_elsewhere_than_their_image(data, tmp_path):
    import nibabel as nib

    for stem in ("p0", "p2"):
        for kind, shift in (("images", 0.0), ("labels", 5.0 if stem == "p0" else 0.0)):
            (tmp_path / "data" / kind / f"{stem}.tif").unlink()
            affine = np.eye(4)
            affine[0, 3] = shift
            labels = np.zeros((20, 20, 20), np.uint8)
            labels[4:12, 4:12, 4:12] = 1
            nib.save(nib.Nifti1Image(labels, affine), tmp_path / "data" / kind / f"{stem}.nii.gz")
    data.split(["p0"], ["p2"])
    spec = data.spec(net={"ndim": 3, "filters": [4, 8, 8]}, patch=[16, 16, 16])
    (fault,) = check(spec).faults
    assert "p0" in fault and "lies elsewhere than its image" in fault


def test_labels_that_are_no_whole_numbers(data):
    data.write("p0", data.labels("p0") * np.float32(0.5))
    (fault,) = check(data.spec()).faults
    assert "p0" in fault and "fractional" in fault


def test_labels_as_whole_floats_are_fine(data):
    data.write("p0", data.labels("p0").astype(np.float32))
    assert check(data.spec()) == Checked((), ())


def test_empty_labels_everywhere(data):
    for stem in ("p0", "p1"):
        data.write(stem, np.zeros((48, 56), np.uint16))
    found = check(data.spec())
    assert "no label image in train holds an instance" in found.faults[0] and len(found.faults) == 1
    assert "2 images without any instance (p0, p1)" in found.notes[0]


def test_some_empty_labels_are_a_note(data):
    data.write("p1", np.zeros((48, 56), np.uint16))
    found = check(data.spec())
    assert not found.faults and "1 images without any instance (p1)" in found.notes[0]


def test_one_image(data):
    data.split(["p0"], [])
    found = check(data.spec())
    assert any("no image in tune" in f for f in found.faults)
    assert any("3 images of images are in no part of the split file" in n for n in found.notes)
    data.split([], ["p0"])
    assert any("no image in train" in f for f in check(data.spec()).faults)


def test_channels_that_do_not_fit_the_network(data):
    data.write("p0", np.zeros((48, 56, 3), np.uint8), "images")
    found = check(data.spec())
    assert len(found.faults) == 1 and "p0" in found.faults[0] and "channels" in found.faults[0]
    assert "differ in their number of channels (3 with 1, 1 with 3)" in found.notes[0]


def test_mixed_channels_where_any_may_come(data):
    data.write("p0", np.random.default_rng(0).integers(0, 255, (48, 56, 3)).astype(np.uint8), "images")
    spec = data.spec(
        net={"ndim": 2, "filters": [4, 8, 8], "in_channels": 3, "stem": "shared"},
        preprocess={"any_channels": 3, "joint": False},
    )
    found = check(spec)
    assert not found.faults and "differ in their number of channels" in found.notes[0]


def test_a_stack_for_a_network_of_images(data):
    for kind in ("images", "labels"):
        data.write("p0", np.ones((5, 48, 56), np.uint8), kind)
    (fault,) = check(data.spec()).faults
    assert "p0: is 3-D, the network 2-D" in fault


def test_ids_with_gaps_are_a_note(data):
    data.write("p0", data.labels("p0") * 7)
    found = check(data.spec())
    assert not found.faults and "ids with gaps in 1 images (p0)" in found.notes[0]


def test_an_id_in_several_pieces_stays_one_object(data):
    labels = np.zeros((48, 56), np.uint16)
    labels[4:10, 4:10] = labels[30:36, 40:46] = 1
    data.write("p0", labels)
    spec = data.spec()
    found = check(spec)
    assert not found.faults and "1 ids have several pieces in 1 images (p0); each id stays one object" in found.notes[0]
    from medseg.data.cases import find, load_cases

    (case, _) = load_cases(find(spec, "train"), spec.preprocess)
    assert len(case.centres) == 1 and case.labels.max() == 1


def test_all_faults_are_told_at_once_and_nothing_is_trained(data, tmp_path):
    data.remove("p1")
    data.write("p0", data.labels("p0")[1:])
    data.write("p2", data.labels("p2") * np.float32(0.5))
    spec = data.spec()
    assert len(check(spec).faults) == 3
    with pytest.raises(InputError) as error:
        next(train(spec, tmp_path / "run", torch.device("cpu"), workers=0))
    assert all(stem in str(error.value) for stem in ("p0", "p1", "p2"))
    assert not (tmp_path / "run").exists()


def test_many_faults_are_counted(data):
    stems = [f"q{i}" for i in range(9)]
    data.split(stems, ["p2"])
    faults = check(data.spec()).faults
    assert len(faults) == 6 and "and 4 more files" in faults[-1]


def test_an_image_in_two_parts_of_the_split(data):
    data.split(["p0", "p1"], ["p1", "p2"], ["p3"])
    (fault,) = check(data.spec()).faults
    assert "p1 in train and in tune" in fault


def test_a_split_without_val_is_a_note(data):
    data.split(["p0", "p1", "p3"], ["p2"])
    found = check(data.spec())
    assert not found.faults and "no image in val" in found.notes[0]


def test_a_source_that_only_reports_needs_no_instances_in_train(data):
    spec = data.spec()
    source = spec.data.sources[0].model_copy(update={"name": "others"})
    both = spec.model_copy(update={"data": spec.data.model_copy(update={"sources": (*spec.data.sources, source)})})
    from pathlib import Path

    path = Path(both.data.split)
    splits = json.loads(path.read_text())["splits"] | {"others": {"train": [], "tune": [], "val": ["p3"]}}
    path.write_text(json.dumps({"splits": splits}))
    assert not check(both).faults


def test_instances_too_small_to_be_found_are_a_note(data):
    labels = np.zeros((48, 56), np.uint16)
    labels[4:7, 4:7] = 1
    labels[20:23, 20:23] = 2
    data.write("p0", labels)
    found = check(data.spec())
    assert not found.faults and "2 instances are smaller than a head's min_voxels" in found.notes[0]


def test_a_stack_of_fewer_planes_than_the_step_still_gives_a_slice(data):
    for kind in ("images", "labels"):
        for stem in ("p0", "p1"):
            data.write(stem, np.ones((5, 48, 56), np.uint8) * np.arange(56, dtype=np.uint8), kind)
    data.split(["p0"], ["p2"])
    spec = data.spec()
    source = spec.data.sources[0].model_copy(update={"slices": 12})
    sliced = spec.model_copy(update={"data": spec.data.model_copy(update={"sources": (source,)})})
    assert not [f for f in check(sliced).faults if "tune" not in f]
    from medseg.data.cases import find, load_cases

    assert len(load_cases(find(sliced, "train"), sliced.preprocess)) == 1


def test_a_source_that_the_split_does_not_know(data):
    spec = data.spec()
    source = spec.data.sources[0].model_copy(update={"name": "others"})
    other = spec.model_copy(update={"data": spec.data.model_copy(update={"sources": (*spec.data.sources, source)})})
    (fault,) = check(other).faults
    assert "others: is not in the split file" in fault
