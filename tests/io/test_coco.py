"""COCO JSON: agreement with pycocotools, round trips, and a typed error for each kind of damage."""

import contextlib
import copy
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from medseg import io
from medseg.candidates import Candidates
from medseg.errors import FormatError, InputError, MedsegWarning, MissingError, OutputError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.io import rle

# pycocotools' decode hands out arrays in a way that numpy 2 frowns upon; medseg does not use it
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASK = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]], bool)


def official(path):
    """What pycocotools' own loader makes of a file; it prints."""
    with contextlib.redirect_stdout(None):
        return COCO(str(path))


def code(mask, kind):
    runs = rle.encode(mask, (0, 0), mask.shape)
    if kind == "text":
        return {"size": list(mask.shape), "counts": rle.pack(runs)}
    return {"size": list(mask.shape), "counts": runs.tolist()}


def document():
    """Two images, 3 x 4 and 6 x 5; of the first three objects, one of them a crowd."""
    square = [1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0]
    one = {"image_id": 7, "category_id": 3, "iscrowd": 0}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 3, "width": 4},
            {"id": 2, "file_name": "b.png", "height": 6, "width": 5},
        ],
        "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {**one, "id": 40, "segmentation": code(MASK, "text")},
            {**one, "id": 12, "segmentation": code(~MASK, "list"), "iscrowd": 1},
            {**one, "id": 5, "segmentation": [square], "image_id": 2, "category_id": 9},
        ],
    }


def write(tmp_path, data, name="truth.json"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def whole(found, number):
    """A candidate's mask on its whole field."""
    out = np.zeros(found.shape, bool)
    top, left, bottom, right = found.boxes[number]
    out[top:bottom, left:right] = found.masks[number]
    return out


def test_reading_an_instances_file(tmp_path):
    coco = io.load_coco(write(tmp_path, document()))
    assert coco.classes == ("cat", "dog") and coco.categories == (9, 3)
    a, b = coco.images
    assert (a.id, a.name, a.shape, b.id, b.name, b.shape) == (7, "a.png", (3, 4), 2, "b.png", (6, 5))
    assert a.ids.tolist() == [40, 12] and a.classes.tolist() == [2, 2] and a.crowd.tolist() == [False, True]
    assert np.isnan(a.scores).all() and b.classes.tolist() == [1]
    found = a.candidates()
    assert np.array_equal(whole(found, 0), MASK) and np.array_equal(whole(found, 1), ~MASK)
    want = np.zeros((6, 5), bool)
    want[1:4, 1:4] = True
    assert np.array_equal(whole(b.candidates(), 0), want)


def test_images_without_objects_and_masks_that_overlap(tmp_path):
    data = document()
    data["annotations"] = [data["annotations"][0], {**data["annotations"][0], "id": 41}]
    a, b = io.load_coco(write(tmp_path, data)).images
    assert len(b) == 0 and len(b.candidates()) == 0 and b.candidates().shape == (6, 5)
    found = a.candidates()
    assert len(found) == 2 and np.array_equal(whole(found, 0), whole(found, 1))


def test_results_with_and_without_their_truth(tmp_path):
    truth = io.load_coco(write(tmp_path, document()))
    rows = [
        {"image_id": 7, "category_id": 9, "score": s, "segmentation": code(MASK, kind)}
        for s, kind in ((0.25, "text"), (1, "list"))
    ]
    path = write(tmp_path, rows, "results.json")
    found = io.load_coco(path, like=truth)
    assert [i.name for i in found.images] == ["a.png", "b.png"] and found.classes == ("cat", "dog")
    assert found.images[0].scores.tolist() == [0.25, 1] and found.images[0].ids.tolist() == [1, 2]
    assert found.images[0].classes.tolist() == [1, 1]
    alone = io.load_coco(path)
    assert [(i.id, i.name, i.shape) for i in alone.images] == [(7, "7", (3, 4))] and alone.classes == ("9",)
    rows[0]["segmentation"] = [[0, 0, 2, 0, 2, 2]]
    with pytest.raises(FormatError, match="how large its image is"):
        io.load_coco(write(tmp_path, rows, "results.json"))


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(masks)
def test_run_lengths_are_those_of_pycocotools(mask):
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = rle.unpack(theirs["counts"].decode())
    assert np.array_equal(rle.check(runs, mask.shape), runs)
    ours = rle.pack(rle.encode(mask, (0, 0), mask.shape))
    assert np.array_equal(coco_mask.decode({"size": list(mask.shape), "counts": ours}), mask)
    if mask.any():
        top, left, bottom, right = box = rle.box(runs, mask.shape)
        out = np.zeros_like(mask)
        out[top:bottom, left:right] = rle.paint(runs, mask.shape, box)
        assert np.array_equal(out, mask)
        assert ours == theirs["counts"].decode()
    else:
        assert rle.box(runs, mask.shape) is None


@given(masks, st.integers(0, 5), st.integers(0, 5))
def test_a_mask_in_its_box_is_coded_as_on_the_whole_image(mask, top, left):
    shape = (mask.shape[0] + 7, mask.shape[1] + 6)
    field = np.zeros(shape, bool)
    field[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    theirs = coco_mask.encode(np.asfortranarray(field.astype(np.uint8)))["counts"].decode()
    assert rle.pack(rle.encode(mask, (top, left), shape)) == theirs


@given(
    st.lists(st.integers(0, 2**28), max_size=40)
)  # pycocotools writes beyond its memory for differences from 2^29 on
def test_run_lengths_as_pycocotools_packs_them(counts):
    packed = coco_mask.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)["counts"].decode()
    assert rle.unpack(packed).tolist() == counts
    assert rle.pack(np.array(counts, np.int64)) == packed


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_large_run_lengths_come_back(counts):
    assert rle.unpack(rle.pack(np.array(counts, np.int64))).tolist() == counts


def test_polygons_of_a_gigantic_image_are_refused(tmp_path):
    data = {
        "images": [{"id": 1, "file_name": "a.tif", "height": 2**15, "width": 2**15}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(FormatError, match="give run lengths"):
        io.load_coco(tmp_path / "a.json")


@pytest.mark.parametrize("polygons", [False, True])
def test_writing_for_pycocotools(tmp_path, polygons):
    labels = np.zeros((9, 12), np.int32)
    labels[1:4, 2:7], labels[5:8, 1:6], labels[6, 2:4], labels[0, 11] = 3, 8, 0, 9  # 8 has a hole
    cells = Instances.from_labels(labels, Grid.from_spacing((9, 12)), class_ids=[1, 2, 1], classes=("a", "b"))
    none = Instances.from_labels(np.zeros((4, 4), int), cells.grid.crop((0, 0), (4, 4)), classes=("a", "b"))
    path = tmp_path / "out.json"
    io.save_coco({"x.tif": cells, "y.tif": none}, path, crowd={"x.tif": [False, False, True]}, polygons=polygons)
    theirs = official(path)
    assert theirs.getImgIds() == [1, 2] and [c["name"] for c in theirs.loadCats([1, 2])] == ["a", "b"]
    for annotation, number, kind in zip(theirs.loadAnns(theirs.getAnnIds()), (3, 8, 9), (1, 2, 1), strict=True):
        assert np.array_equal(theirs.annToMask(annotation), labels == number)
        assert annotation["category_id"] == kind and annotation["area"] == (labels == number).sum()
        rows, columns = np.nonzero(labels == number)
        assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    outlined = [isinstance(a["segmentation"], list) for a in theirs.loadAnns(theirs.getAnnIds())]
    assert outlined == [polygons, polygons, False]  # a crowd keeps its run lengths
    back = io.load_coco(path)
    assert back.classes == ("a", "b") and len(back.images[1]) == 0
    image = back.images[0]
    assert (
        image.name == "x.tif" and image.crowd.tolist() == [False, False, True] and image.classes.tolist() == [1, 2, 1]
    )
    for number in range(3):
        assert np.array_equal(whole(image.candidates(), number), labels == (3, 8, 9)[number])


@given(masks.filter(np.any))
def test_polygons_give_back_the_same_pixels_or_are_not_written(tmp_path_factory, mask):
    path = tmp_path_factory.mktemp("coco") / "out.json"
    io.save_coco({"a": Candidates.from_labels(mask.astype(int))}, path, polygons=True)
    assert np.array_equal(whole(io.load_coco(path).images[0].candidates(), 0), mask)


def test_results_that_pycocotools_loads(tmp_path):
    path = write(tmp_path, document())
    truth = io.load_coco(path)
    found = Candidates.from_labels(np.where(MASK, 4, 0), scores=[0.75], classes=[2])
    io.save_coco({"a.png": found}, tmp_path / "r.json", classes=truth.classes, results=True, like=truth)
    with contextlib.redirect_stdout(None):
        theirs = official(path).loadRes(str(tmp_path / "r.json"))
    (one,) = theirs.loadAnns(theirs.getAnnIds())
    assert (one["image_id"], one["category_id"], one["score"]) == (7, 3, 0.75)
    assert np.array_equal(theirs.annToMask(one), MASK)
    back = io.load_coco(tmp_path / "r.json", like=truth)
    assert back.images[0].scores.tolist() == [0.75] and back.images[0].classes.tolist() == [2]


def test_what_cannot_be_written(tmp_path):
    flat, solid = Candidates.from_labels(MASK.astype(int)), Candidates.from_labels(np.ones((2, 3, 4), int))
    path = tmp_path / "out.json"
    for images, settings, said in [
        ({"a": solid}, {}, "2-D images only"),
        ({"a": flat}, {"results": True}, "no score"),
        ({"a": flat}, {"crowd": {"a": [True, False]}}, "crowd has shape"),
        ({"a": flat}, {"crowd": {"b": [True]}}, "none of the images"),
        ({"a": Candidates.from_labels(MASK.astype(int), classes=[2])}, {}, "give classes"),
        ({"a": flat}, {"like": io.load_coco(write(tmp_path, document()))}, "no image or category 'a'"),
    ]:
        with pytest.raises(InputError, match=said):
            io.save_coco(images, path, **settings)
    grid = Grid.from_spacing(MASK.shape)
    two = {n: Instances.from_labels(MASK.astype(int), grid, classes=(n,)) for n in "ab"}
    with pytest.raises(InputError, match="different class names"):
        io.save_coco(two, path)
    with pytest.raises(OutputError):
        io.save_coco({"a": flat}, tmp_path / "no" / "out.json")
    path.write_text("old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match="No space"):
            io.save_coco({"a": flat}, path)
    assert path.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "truth.json"]


def test_objects_without_a_pixel_are_left_out_aloud(tmp_path):
    data = document()
    data["annotations"][0]["segmentation"] = {"size": [3, 4], "counts": [12]}
    data["annotations"][2]["segmentation"] = [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]]
    with pytest.warns(MedsegWarning, match="truth.json: 2 objects have no pixel and are left out: 40, 5"):
        coco = io.load_coco(write(tmp_path, data))
    assert [len(i) for i in coco.images] == [1, 0]


def change(*where, to=...):
    """A document in which the entry at a place is another, or gone."""
    data = copy.deepcopy(document())
    at = data
    for key in where[:-1]:
        at = at[key]
    if to is ...:
        del at[where[-1]]
    else:
        at[where[-1]] = to
    return data


A = "annotations"
DAMAGE = {
    "not JSON": ('{"images": [', "is not JSON"),
    "not text": ("", None),
    "nested without end": ("[" * 200_000, "is not JSON"),
    "a number": ("3", "neither an object"),
    "no images": (change("images"), "no list of images"),
    "no categories": (change("categories"), "no list of categories"),
    "annotations are no list": (change(A, to={}), "no list of annotations"),
    "an annotation is no object": (change(A, 1, to=5), r"annotations\[1\] is no object"),
    "an image without a height": (change("images", 1, "height"), r"images\[1\] has no height"),
    "an image of size 0": (change("images", 1, "width", to=0), "6 x 0"),
    "a size that is no whole number": (change("images", 1, "width", to=5.0), "no whole number"),
    "a name that is no text": (change("images", 1, "file_name", to=3), "file_name that is no text"),
    "two images of one id": (change("images", 1, "id", to=7), "image id 7 occurs twice"),
    "two categories of one id": (change("categories", 1, "id", to=9), "category 9 occurs twice"),
    "two categories of one name": (change("categories", 1, "name", to="cat"), "category 3 occurs twice"),
    "two annotations of one id": (change(A, 2, "id", to=40), "annotation id 40 occurs twice"),
    "no annotation id": (change(A, 0, "id"), r"annotations\[0\] has no id"),
    "an unknown image": (change(A, 1, "image_id", to=8), r"annotations\[1\] is of image 8"),
    "an unknown category": (change(A, 1, "category_id", to=1), r"annotations\[1\] is of category 1"),
    "iscrowd 2": (change(A, 1, "iscrowd", to=2), "iscrowd 2"),
    "no segmentation": (change(A, 0, "segmentation"), "no segmentation"),
    "an empty segmentation": (change(A, 0, "segmentation", to=[]), "no segmentation"),
    "run lengths of another size": (change(A, 0, "segmentation", "size", to=[4, 3]), r"size \[4, 3\] in an image of"),
    "run lengths too long": (change(A, 1, "segmentation", "counts", to=[5, 8]), "damaged or do not fit"),
    "run lengths too short": (change(A, 1, "segmentation", "counts", to=[5]), "damaged or do not fit"),
    "negative run lengths": (change(A, 1, "segmentation", "counts", to=[13, -1]), "damaged or do not fit"),
    "run lengths beyond 64 bits": (change(A, 1, "segmentation", "counts", to=[10**30]), "damaged or do not fit"),
    "run lengths that are fractions": (change(A, 1, "segmentation", "counts", to=[1.5, 10.5]), "damaged"),
    "a cut code": (change(A, 0, "segmentation", "counts", to="PP"), "damaged or do not fit"),
    "an empty code": (change(A, 0, "segmentation", "counts", to=""), "damaged or do not fit"),
    "letters of no code": (change(A, 0, "segmentation", "counts", to="\xff\xff"), "damaged or do not fit"),
    "a code too long": (change(A, 0, "segmentation", "counts", to="o" * 50 + "0"), "damaged or do not fit"),
    "a polygon of two points": (change(A, 2, "segmentation", to=[[0, 0, 1, 1]]), "fewer than 3 points"),
    "half a point": (change(A, 2, "segmentation", to=[[0, 0, 1, 1, 2, 2, 3]]), "half a point"),
    "a vertex far away": (change(A, 2, "segmentation", to=[[0, 0, 1, 1e12, 2, 2]]), "far out of its image"),
    "a vertex that is NaN": (change(A, 2, "segmentation", to=[[0, 0, 1, float("nan"), 2, 2]]), "no number"),
    "a vertex that is text": (change(A, 2, "segmentation", to=[[0, 0, 1, "1", 2, 2]]), "no number"),
    "a score that is NaN": (change(A, 0, "score", to=float("nan")), r"annotations\[0\] has the score nan"),
    "a score without end": (change(A, 0, "score", to=float("inf")), "score inf"),
    "a score that is text": (change(A, 0, "score", to="high"), "no score, or one that is no number"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_a_typed_error(tmp_path, name):
    data, said = DAMAGE[name]
    if name == "not text":
        (tmp_path / "truth.json").write_bytes(b"\xff\xfe\x00\xd8")
        data, said = None, "is not JSON"
    path = tmp_path / "truth.json" if data is None else write(tmp_path, data)
    with pytest.raises(FormatError, match=said) as told:
        io.load_coco(path)
    assert str(told.value).startswith("truth.json")


def test_damage_of_results(tmp_path):
    truth = io.load_coco(write(tmp_path, document()))
    good = {"image_id": 7, "category_id": 9, "score": 0.5, "segmentation": code(MASK, "text")}
    for key, value, said in [
        ("score", ..., r"\[0\] has no score"),
        ("score", float("nan"), "score nan"),
        ("image_id", 1, "of image 1"),
        ("category_id", 1, "of category 1"),
        ("segmentation", ..., "no segmentation"),
    ]:
        row = {k: v for k, v in ({**good, key: value}).items() if v is not ...}
        with pytest.raises(FormatError, match=said):
            io.load_coco(write(tmp_path, [row], "results.json"), like=truth)


def test_files_that_do_not_belong_together(tmp_path):
    truth = io.load_coco(write(tmp_path, document()))
    with pytest.raises(FormatError, match="categories are not those"):
        io.load_coco(write(tmp_path, change("categories", 0, "name", to="cow"), "other.json"), like=truth)
    other = change("images", 1, "height", to=7)
    other["annotations"].pop()
    with pytest.raises(FormatError, match=r"image 2 has shape \(7, 5\), in the other file \(6, 5\)"):
        io.load_coco(write(tmp_path, other, "other.json"), like=truth)


def test_claims_over_the_limit_are_refused_before_memory_is_taken(tmp_path, monkeypatch):
    data = change("images", 0, "height", to=10**6)
    data["images"][0]["width"] = 10**6
    with pytest.raises(InputError, match="MEDSEG_MAX_GB"):
        io.load_coco(write(tmp_path, data))
    huge = {"size": [10**6, 10**6], "counts": [0, 10**12]}
    with pytest.raises(InputError, match="MEDSEG_MAX_GB"):
        io.load_coco(write(tmp_path, [{"image_id": 1, "category_id": 1, "score": 1, "segmentation": huge}]))
    # one image within the limit, but its masks together are not
    monkeypatch.setenv("MEDSEG_MAX_GB", "0.0001")
    full = {"size": [150, 150], "counts": [0, 22500]}
    rows = [{"image_id": 1, "category_id": 1, "score": 1, "segmentation": full}] * 5
    (image,) = io.load_coco(write(tmp_path, rows)).images
    with pytest.raises(InputError, match="MEDSEG_MAX_GB"):
        image.candidates()
    # an outline that runs to and fro is walked step by step
    data = change("images", 1, "height", to=150)
    data["images"][1]["width"] = 150
    data["annotations"][2]["segmentation"] = [[0, 0, 150, 150] * 5000]
    with pytest.raises(InputError, match="MEDSEG_MAX_GB"):
        io.load_coco(write(tmp_path, data))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingError, match=r"none\.json"):
        io.load_coco(tmp_path / "none.json")
    with pytest.raises(InputError, match="folder.json"):
        (tmp_path / "folder.json").mkdir()
        io.load_coco(tmp_path / "folder.json")
