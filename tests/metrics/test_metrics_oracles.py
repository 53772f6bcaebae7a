"""Agreement with other people's scorers on 550 random cases of 2-D and 550 of 3-D.

What the peers say was computed in their own environment by tests/peers/scorers/freeze.py and is frozen beside this file
(``make oracles`` computes it again); the cases are drawn anew here. What is left out is left out by name, with the reason.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest

from medseg.bench import scoring
from medseg.candidates import Candidates
from medseg.metrics import THRESHOLDS, coco, match, overlap, ranked, regions
from medseg.metrics.areas import areas
from medseg.metrics.lesions import BRATS, autopet, brats
from medseg.metrics.surface import surface_distances

PEERS = Path(__file__).parents[1] / "peers" / "scorers"
FIXTURES = Path(__file__).parent / "fixtures"

# What a comparison may leave out, and why. What medseg gives there is pinned by hand in the other tests of this folder.
CORNERS = {
    "both empty": "StarDist gives 0, Cellpose and panoptica NaN; medseg 1, and the case counts",
    "one empty": "one of two surfaces is not there, so distances are inf or NaN; medseg gives the diagonal of the image",
    "no truth": "SEG is a mean over truth, and pycocotools gives -1 without any",
    "no background": "Cellpose counts ids less one, taking it that background is among them",
}


def _module(name):
    spec = importlib.util.spec_from_file_location(f"scorer_{name}", PEERS / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drawing = _module("cases")


class Sweep:
    """Cases with what the peers say of them and our tables."""

    def __init__(self, ndim, first, file):
        self.cases = list(drawing.every(ndim, first))
        with np.load(file) as frozen:
            self.peers = {name: frozen[name] for name in frozen.files}
        self.tables = [overlap(c.truth, c.prediction, scores=c.scores, spacing=c.spacing) for c in self.cases]
        self.counts = [[match(table, t)[0] for t in THRESHOLDS] for table in self.tables]

    @cached_property
    def full(self):
        """Predictions ranked with classes, crowd and masks that overlap."""
        return [ranked(full_table(case)) for case in self.cases]

    def without(self, *corners):
        """Which cases (N,) are in none of the named corners."""
        empty = np.array([(not case.truth.any(), not case.prediction.any()) for case in self.cases])
        left_out = {
            "both empty": empty.all(axis=1),
            "one empty": empty[:, 0] != empty[:, 1],
            "no truth": empty[:, 0],
            "no background": np.array([case.truth.all() or case.prediction.all() for case in self.cases]),
        }
        assert left_out.keys() == CORNERS.keys()
        return ~np.any([left_out[corner] for corner in corners], axis=0)

    def agrees(self, name, ours, where=..., within=1e-9):
        """Compare a figure of all cases, or of some; at least 500 are numbers, and where one side is NaN both are."""
        theirs, ours = np.asarray(self.peers[name], float)[where], np.asarray(ours, float)[where]
        assert theirs.shape == ours.shape
        assert np.isfinite(theirs).reshape(len(theirs), -1).all(axis=1).sum() >= 500
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=within, err_msg=name)


def full_table(case):
    ids = np.unique(case.prediction[case.prediction > 0])
    masks = [case.prediction == one for one in ids] + [mask for mask, _, _ in case.more]
    boxes, cut = [], []
    for mask in masks:
        places = np.argwhere(mask)
        low, high = places.min(axis=0), places.max(axis=0) + 1
        boxes.append([*low, *high])
        cut.append(mask[tuple(map(slice, low, high))])
    candidates = Candidates(
        np.array(boxes, int).reshape(len(cut), 2 * case.truth.ndim),
        np.append(case.scores, [score for _, score, _ in case.more]),
        np.append(case.classes, [kind for _, _, kind in case.more]),
        tuple(cut),
        case.truth.shape,
    )
    return overlap(case.truth, candidates, truth_classes=case.truth_classes, crowd=case.crowd, spacing=case.spacing)


@cache
def frozen(ndim):
    return Sweep(ndim, 0, FIXTURES / f"oracles{ndim}d.npz")


@cache
def further(ndim, folder):
    return Sweep(ndim, drawing.NUMBER, folder / f"oracles{ndim}d.npz")


@pytest.fixture(scope="session")
def more_figures(tmp_path_factory):
    """Folder of what the peers say of further cases; MEDSEG_PEERS names the python of their environment."""
    if not os.environ.get("MEDSEG_PEERS"):
        pytest.skip("MEDSEG_PEERS names no python of the peers' environment; make oracles builds one")
    folder = tmp_path_factory.mktemp("oracles")
    command = [os.environ["MEDSEG_PEERS"], PEERS / "freeze.py", "--first", str(drawing.NUMBER), folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(
    params=[
        "2-D",
        "3-D",
        pytest.param("2-D further", marks=pytest.mark.slow),
        pytest.param("3-D further", marks=pytest.mark.slow),
    ]
)
def sweep(request):
    ndim = int(request.param[0])
    return further(ndim, request.getfixturevalue("more_figures")) if "further" in request.param else frozen(ndim)


def test_the_cases_are_those_that_the_peers_saw(sweep):
    assert [drawing.checksum(case) for case in sweep.cases] == sweep.peers["cases/checksum"].tolist()
    names = Counter(case.name for case in sweep.cases)
    assert names["usual"] + names["identical"] + names["no background"] >= 500
    assert min(names[name] for name in ("both empty", "truth empty", "prediction empty", "no background")) >= 10
    assert sum(int((table.iou == 0.5).sum()) for table in sweep.tables) >= 500
    assert set(json.loads(str(sweep.peers["versions"]))) >= {"stardist", "cellpose", "pycocotools", "panoptica"}


def of(found, name):
    """One figure of `Counts` by case and threshold."""
    return np.array([[getattr(one, name) for one in row] for row in found], float)


def test_stardist(sweep):
    found, some = sweep.counts, sweep.without("both empty")
    for name in ("tp", "fp", "fn"):
        sweep.agrees(f"stardist/{name}", of(found, name))
    for name, ours in (("accuracy", "ap"), ("f1", "f1"), ("pq", "pq")):
        sweep.agrees(f"stardist/{name}", of(found, ours), some)
    sweep.agrees("stardist/mean matched", of(found, "iou") / np.maximum(of(found, "tp"), 1))


def test_cellpose(sweep):
    found = sweep.counts
    some = sweep.without("no background")
    for name in ("tp", "fp", "fn"):
        sweep.agrees(f"cellpose/{name}", of(found, name), some)
    some = sweep.without("no background", "both empty")
    sweep.agrees("cellpose/ap", of(found, "ap").astype(np.float32), some, 0)  # it divides in float32


def test_what_the_peers_give_in_the_corners(sweep):
    """The reasons of `CORNERS` hold."""
    both, full = ~sweep.without("both empty"), ~sweep.without("no background")
    assert both.sum() >= 10 and full.sum() >= 10
    ap = of(sweep.counts, "ap")
    assert (ap[both] == 1).all() and (sweep.peers["stardist/accuracy"][both] == 0).all()
    assert np.isnan(sweep.peers["cellpose/ap"][both]).all() and np.isnan(sweep.peers["panoptica/pq"][both]).all()
    truths = sweep.peers["cellpose/tp"] + sweep.peers["cellpose/fn"]
    np.testing.assert_array_equal(truths[full, 0], np.array([table.n_truth for table in sweep.tables])[full] - 1)
    assert np.isnan(sweep.peers["coco/all"][~sweep.without("no truth")]).all()


def test_the_number_of_pairs_below_one_half(sweep):
    """Below .5 the peers break ties by pairs that do not count, so only the number of pairs is comparable, not their IoU."""
    found = of([[match(table, t)[0] for t in drawing.LOW] for table in sweep.tables], "tp")
    sweep.agrees("stardist/low tp", found)
    sweep.agrees("cellpose/low tp", found, sweep.without("no background"))


def test_panoptica(sweep):
    found, some = [[match(table, strict=True)[0]] for table in sweep.tables], sweep.without("both empty")
    for name in ("tp", "fp", "fn"):
        sweep.agrees(f"panoptica/{name}", of(found, name)[:, 0])
    for name, ours in (("pq", "pq"), ("rq", "f1")):
        sweep.agrees(f"panoptica/{name}", of(found, ours)[:, 0], some)
    matched = of(found, "iou")[:, 0] / np.maximum(of(found, "tp")[:, 0], 1)
    sweep.agrees("panoptica/sq", matched, some)
    above = np.nextafter(0.5, 1)  # its pairs have IoU > .5
    sweep.agrees("panoptica/matched dice", [regions.matched_dice(table, above) for table in sweep.tables], some)
    masks = [(case.truth > 0, case.prediction > 0) for case in sweep.cases]
    sweep.agrees("panoptica/dice", [regions.dice(*pair) for pair in masks], some)
    sweep.agrees("panoptica/iou", [regions.iou(*pair) for pair in masks], some)


def test_published_formulas_of_aji_and_seg(sweep):
    sweep.agrees("formula/aji", [regions.aji(table) for table in sweep.tables], sweep.without("both empty"))
    sweep.agrees("formula/seg", [regions.seg(table) for table in sweep.tables], sweep.without("no truth"))


def test_pycocotools(sweep):
    for sizes, limits in drawing.SIZES.items():
        some = slice(None) if sizes == "all" else slice(None, None, 3)
        theirs = sweep.peers[f"coco/{sizes}"][some]
        ours = [list(coco([ranked(table, size_range=limits)]).values()) for table in sweep.tables[some]]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=sizes)  # NaN: no truth of this size
        assert np.isfinite(theirs).all(axis=1).sum() >= (500 if sizes == "all" else 80)


def test_pycocotools_with_classes_crowd_and_masks_that_overlap(sweep):
    ours = [list(coco([one]).values()) for one in sweep.full]
    sweep.agrees("coco/full", ours, sweep.without("no truth"))  # NaN: all truth is crowd


@pytest.mark.parametrize("kind", ["plain", "full"])
def test_pycocotools_over_images(sweep, kind):
    lists = sweep.full if kind == "full" else [ranked(table) for table in sweep.tables]
    ours = [list(coco([lists[k] for k in group]).values()) for group in drawing.groups()]
    np.testing.assert_allclose(ours, sweep.peers[f"coco/pooled {kind}"], rtol=0, atol=1e-9)
    assert np.isfinite(ours).all() and len(ours) * drawing.POOLED >= 500


def test_surface_distance(sweep):
    some = sweep.without("both empty", "one empty")
    found = [surface_distances(c.truth > 0, c.prediction > 0, c.spacing) for c in sweep.cases]
    for name, percent in (("hd95", 95), ("hd", 100), ("hd50", 50)):
        sweep.agrees(f"surface/{name}", [one.hd(percent) for one in found], some, 1e-6)
    sweep.agrees("surface/nsd", [[one.nsd(t) for t in drawing.TOLERANCES] for one in found], some, 1e-6)
    sweep.agrees("surface/areas", [[one.truth_areas.sum(), one.prediction_areas.sum()] for one in found], some, 1e-6)
    theirs, areas = sweep.peers["surface/means"][some], sweep.peers["surface/areas"][some]
    pooled = (theirs * areas).sum(axis=1) / areas.sum(axis=1)
    np.testing.assert_allclose([f.assd() for f, k in zip(found, some, strict=True) if k], pooled, rtol=0, atol=1e-6)
    both = theirs.mean(axis=1)
    np.testing.assert_allclose([f.masd() for f, k in zip(found, some, strict=True) if k], both, rtol=0, atol=1e-6)


def test_the_area_of_every_neighbourhood(sweep):
    ours = [areas(spacing) for spacing in drawing.SPACINGS[sweep.cases[0].truth.ndim]]
    np.testing.assert_allclose(ours, sweep.peers["surface/table"], rtol=0, atol=1e-9)


def test_voxel_borders_of_panoptica(sweep):
    some = sweep.without("both empty", "one empty")
    found = [surface_distances(c.truth > 0, c.prediction > 0, c.spacing, borders="voxels") for c in sweep.cases]
    sweep.agrees("panoptica/assd", [one.masd() for one in found], some, 1e-6)
    sweep.agrees("panoptica/hd", [one.hd(100) for one in found], some, 1e-6)


def test_brats_2023(sweep):
    """The formula of the challenge's own code with surface-distance inside it; corners and all."""
    found, settings = [], list(drawing.BRATS.values())
    for number, case in enumerate(sweep.cases):  # gliomas and metastases in turn
        found.append(brats(case.truth > 0, case.prediction > 0, case.spacing, *settings[number % 2]))
    which = np.arange(len(found)), np.arange(len(found)) % 2
    for name in ("tp", "fp", "fn", "dice", "hd95"):
        theirs = sweep.peers[f"brats/{name}"][which]
        ours = [getattr(one, name) for one in found]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 if name == "hd95" else 1e-9, err_msg=name)
    assert len(np.unique(theirs)) >= 200


def test_the_settings_of_the_brats_tasks_are_those_of_the_challenge():
    assert {name: tuple(setting) for name, setting in BRATS.items() if name in drawing.BRATS} == drawing.BRATS


def test_autopet(sweep):
    found = [autopet(case.truth > 0, case.prediction > 0, case.spacing) for case in sweep.cases]
    sweep.agrees("autopet/fpv", [one.fpv for one in found])
    sweep.agrees("autopet/fnv", [one.fnv for one in found])
    assert min(np.count_nonzero(sweep.peers[f"autopet/{name}"]) for name in ("fpv", "fnv")) >= 100


def test_the_bench_measures_what_it_says():
    seconds, (peak, inputs), pairs = scoring._measured(scoring._OURS, (96, 96), 36, 2)
    assert len(seconds) == 2 and min(seconds) > 0 and inputs == 2 * 4 * 96 * 96 and peak >= 0
    assert pairs[0] > pairs[-1] == 9  # every fourth object is where it should be
