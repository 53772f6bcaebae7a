"""From masks to single objects: closed forms, drawn arrays, real PET; and the rules that make masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import io
from medseg.errors import GeometryError, InputError, SpecError
from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.segments import of_each
from medseg.metrics import match, overlap
from medseg.ops import separation
from medseg.separate import Rule, foreground, rule, separate, valued
from medseg.spec import SeparateSpec


def balls(shape, spacing, centres, radii):
    """Labels of balls; where two overlap the nearer centre, in radii, has the voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * np.array(spacing)
    far = np.stack([np.linalg.norm(index - c, axis=-1) / r for c, r in zip(centres, radii, strict=True)])
    return np.where(far.min(0) <= 1, far.argmin(0) + 1, 0).astype(np.int32)


TWO = {
    "equal": ([(15, 15, 12), (15, 15, 26)], (8, 8)),
    "unequal": ([(15, 15, 12), (15, 15, 25)], (9, 5)),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (0.5, 0.5, 0.5)])
@pytest.mark.parametrize("pair", TWO)
def test_two_touching_balls_come_apart_by_their_shape(spacing, pair):
    shape = tuple(int(n / s) for n, s in zip((30, 30, 40), spacing, strict=True))
    truth = balls(shape, spacing, *TWO[pair])
    grid = Grid.from_spacing(shape, spacing)
    assert len(separate(truth > 0, grid, spec=SeparateSpec(method="components"))) == 1
    found = separate(truth > 0, grid)
    counts, _ = match(overlap(truth, found.labels), 0.8)
    assert (counts.tp, counts.fp, counts.fn) == (2, 0, 0)
    assert ((found.labels > 0) == (truth > 0)).all()


@pytest.mark.parametrize("radii", [(4, 4, 4), (12, 6, 5), (15, 14, 4)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_one_ellipsoid_stays_one(radii, spacing):
    shape = tuple(int(36 / s) for s in spacing)
    index = (np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - np.array(shape) / 2) * np.array(spacing)
    mask = ((index / radii) ** 2).sum(-1) <= 1
    assert len(separate(mask, Grid.from_spacing(shape, spacing))) == 1


def test_what_the_border_of_the_box_cuts_is_not_cut_again():
    mask = np.zeros((20, 20, 20), bool)
    mask[:, :, 5:15] = True
    assert len(separate(mask, Grid.from_spacing(mask.shape, 1.0))) == 1


def test_an_image_that_dips_separates_what_its_shape_does_not():
    mask = np.zeros((9, 9, 40), bool)
    mask[2:7, 2:7, 4:36] = True
    x = np.arange(40)
    bright = 10 * (np.exp(-((x - 11) ** 2) / 30) + np.exp(-((x - 28) ** 2) / 30))
    image = Image(np.broadcast_to(bright, (1, 9, 9, 40)).astype(np.float32), Grid.from_spacing((9, 9, 40), 2.0), "PT")
    assert len(separate(mask, image.grid)) == 1
    found = separate(mask, image.grid, image, SeparateSpec(method="intensity"))
    assert len(found) == 2
    assert found.table["box_x_stop"].tolist()[0] == pytest.approx(20, abs=1)


@given(seed=st.integers(0, 500), ratio=st.floats(0.1, 1.2))
def test_every_voxel_of_the_mask_and_no_other_belongs_to_one_object(seed, ratio):
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 14, 16)) > 0.55
    found = separate(mask, Grid.from_spacing(mask.shape, (2.0, 1.0, 1.0)), spec=SeparateSpec(ratio=ratio))
    assert ((found.labels > 0) == mask).all()
    parts = separate(mask, found.grid, spec=SeparateSpec(method="components"))
    # an object never spans two pieces
    owner = {int(i): set(np.unique(parts.labels[found.labels == i])) for i in found.table["id"]}
    assert all(len(v) == 1 for v in owner.values())


@given(seed=st.integers(0, 500))
def test_a_larger_share_cuts_no_less(seed):
    rng = np.random.default_rng(seed)
    field = np.cumsum(rng.normal(size=(20, 20)), axis=1)
    mask = field > np.quantile(field, 0.4)
    height = separation.depth(mask, (1.0, 1.0))
    counts = [int(separation.by_height(mask, height, r).max(initial=0)) for r in (0.01, 0.5, 0.8, 1.01)]
    assert counts == sorted(counts)


def test_the_result_does_not_depend_on_the_unit_of_length():
    truth = balls((30, 30, 40), (1.0, 1.0, 1.0), *TWO["unequal"])
    fine, coarse = (separate(truth > 0, Grid.from_spacing(truth.shape, s)) for s in (0.01, 3.0))
    assert (fine.labels == coarse.labels).all()


def test_small_pieces_join_their_neighbour_or_go():
    labels = np.zeros((1, 12), np.int32)
    labels[0, :4], labels[0, 4], labels[0, 9] = 1, 2, 3
    assert separation.absorbed(labels, 2).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]
    assert separation.absorbed(labels, 1).max() == 3


def test_nothing_in_is_nothing_out():
    grid = Grid.from_spacing((4, 5, 6), 1.0)
    assert len(separate(np.zeros(grid.shape, bool), grid)) == 0
    assert len(separate(Instances.from_labels(np.zeros(grid.shape, np.int32), grid))) == 0


def test_an_array_needs_a_grid_and_intensity_an_image():
    with pytest.raises(InputError, match="grid"):
        separate(np.ones((3, 3), bool))
    with pytest.raises(InputError, match="image"):
        separate(np.ones((3, 3), bool), Grid.from_spacing((3, 3), 1.0), spec=SeparateSpec(method="intensity"))


def test_what_a_file_said_of_an_id_goes_to_the_objects_that_it_became():
    labels = np.zeros((1, 20, 40), np.int32)
    labels[:, 2:8, 30:38] = 2  # is the first object, as it lies first
    labels[:, 12:18, 2:8], labels[:, 12:18, 12:18] = 1, 1  # one id of two objects
    labels[:, 12:14, 30:38], labels[:, 14:18, 30:38] = 4, 7  # two ids of one object
    told = {1: "Lung", 2: "Liver", 4: "Kidney", 7: "Brain"}
    segments = [
        {"id": id, "site": ("1", "SCT", name), "role": "target", "label": name, "tracking_uid": f"1.{id}"}
        for id, name in told.items()
    ]
    grid = Grid.from_spacing(labels.shape, 1.0)
    mask = Instances.from_labels(labels, grid, provenance={"read_as": "DICOM SEG", "segments": segments})
    for drawn in (mask, mask.relabel()):
        found = separate(drawn, spec=SeparateSpec(method="components"))
        known = of_each(found.provenance)
        at = {
            known[int(found.labels[0, y, x])]["site"][2]: found.labels[0, y, x] for y, x in ((3, 31), (13, 3), (16, 31))
        }
        assert set(at) == {"Liver", "Lung", "Brain"} and len(found) == 4
        assert known[int(at["Liver"])] == {**segments[1], "id": int(at["Liver"])}
        others = [one for id, one in known.items() if id != at["Liver"]]
        assert len(others) == 3 and not any({"role", "label", "tracking_uid"} & set(one) for one in others)


def test_an_image_of_another_frame_is_refused_and_one_of_another_grid_brought_over():
    affine = np.eye(4)
    mask = Instances.from_labels(np.ones((6, 6, 6), np.int32), Grid((6, 6, 6), affine, frame="1.2", space="patient"))
    other = Image(np.ones((1, 6, 6, 6)), Grid((6, 6, 6), affine, frame="1.3", space="patient"))
    with pytest.raises(GeometryError, match="frames"):
        separate(mask, image=other)
    finer = Image(
        np.ones((1, 12, 12, 12)), Grid((12, 12, 12), np.diag([0.5, 0.5, 0.5, 1]), frame="1.2", space="patient")
    )
    assert "interpolated" in separate(mask, image=finer).provenance["notes"][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SUV>4", ("SUVbw", True, "value", 4.0, None)),
        ("suvlbm >= 2.5", ("SUVlbm", True, "value", 2.5, None)),
        ("HU<-500", ("HU", False, "value", -500.0, None)),
        (">p99.5", ("", True, "percentile", 99.5, None)),
        (">41%", ("", True, "maximum", 41.0, None)),
        ("SUV>4, 41%", ("SUVbw", True, "value", 4.0, 41.0)),
        ("Otsu", ("", True, "otsu", 0.0, None)),
    ],
)
def test_rules_are_read(text, expected):
    found = rule(text)
    assert (found.what, found.above, found.kind, found.limit, found.of_each) == expected


@pytest.mark.parametrize(
    "text", ["", "4", "SUV", "SUV>>4", "SUV>4;rm", ">p101", ">140%", "SUV>4, 41", "__import__", "HU>nan"]
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(SpecError):
        rule(text)


def test_rules_choose_voxels():
    grid = Grid.from_spacing((1, 1, 101), 1.0)
    image = Image(np.arange(101.0).reshape(1, 1, 1, 101), grid, "CT")
    counts = {t: int(foreground(image, rule(t)).sum()) for t in (">90", ">=90", "<10", "<=10", ">p75", ">41%", "otsu")}
    assert counts == {">90": 10, ">=90": 11, "<10": 10, "<=10": 11, ">p75": 25, ">41%": 59, "otsu": 51}


def test_a_quantity_is_never_guessed():
    image = Image(np.ones((1, 4, 4, 4)), Grid.from_spacing((4, 4, 4), 1.0), "PT")
    with pytest.raises(InputError, match="--values SUVbw"):
        valued(image, "SUVbw")
    with pytest.raises(InputError, match="CT"):
        valued(image, "HU")
    assert valued(image, "SUVbw", "SUVbw") is image
    two = Image(np.ones((2, 4, 4, 4)), image.grid, "PT")
    with pytest.raises(InputError, match="one channel"):
        valued(two, "")


def test_of_each_keeps_what_reaches_a_share_of_its_own_maximum():
    grid = Grid.from_spacing((1, 1, 40), 1.0)
    line = np.zeros(40)
    line[2:10], line[5], line[20:30], line[25] = 5, 20, 5, 10
    image = Image(line.reshape(1, 1, 1, 40), grid, "PT")
    found = separate(line.reshape(1, 1, 40) > 4, grid, image, of_each=41.0)
    assert found.table["voxels"].tolist() == [1, 10]


def test_what_a_share_leaves_too_small_goes():
    grid = Grid.from_spacing((1, 1, 40), 1.0)
    line = np.zeros(40)
    line[2:10], line[5], line[20:30], line[25] = 5, 20, 5, 10
    image = Image(line.reshape(1, 1, 1, 40), grid, "PT")
    spec = SeparateSpec(min_volume=2)
    found = separate(line.reshape(1, 1, 40) > 4, grid, image, spec, of_each=41.0)
    assert found.table[["id", "voxels"]].to_numpy().tolist() == [[1, 10]]
    assert str(found.provenance["method"]).endswith(", none under 2 mm3")


def test_lesions_of_a_real_scan_by_a_rule(real_data):
    image = io.load(real_data / "lesions" / "sts_raw_petdicom")
    how = rule("SUV>4, 41%")
    assert how == Rule("SUV>4, 41%", "SUVbw", True, "value", 4.0, 41.0)
    suv = valued(image, how.what)
    found = separate(foreground(suv, how), image.grid, suv, SeparateSpec(min_volume=500), of_each=how.of_each)
    values = np.asarray(suv.voxels()[0])
    assert 5 < len(found) < 100
    for id in found.table["id"]:
        inside = values[found.labels == id]
        assert inside.min() > 4 and inside.min() >= 0.41 * inside.max() * (1 - 1e-6)
