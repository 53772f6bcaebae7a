"""``medseg evaluate``: files, folders and COCO files in, figures out; what cannot be scored is listed, the rest goes on."""

import csv
import json
import os
import sys
import types

import nibabel
import numpy as np
import pandas as pd
import pytest
import tifffile

from medseg import io
from medseg.candidates import Candidates
from medseg.cli import scoring
from medseg.cli.pairs import Pair
from medseg.errors import FormatError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.metrics import Summary


def squares(*kept):
    """Five squares, 4 x 4, in a row; all, or those named."""
    labels = np.zeros((8, 40), np.uint16)
    for number in range(1, 6):
        labels[2:6, 8 * number - 6 : 8 * number - 2] = number
    return np.where(np.isin(labels, kept), labels, 0).astype(np.uint16) if kept else labels


FOUND = {"a": (1, 2, 3, 4, 5), "b": (1, 2), "c": (1, 2, 3)}


@pytest.fixture
def folders(tmp_path):
    """Three cases: all five found, two, three."""
    for folder in ("found", "true"):
        (tmp_path / folder).mkdir()
    for name, kept in FOUND.items():
        tifffile.imwrite(tmp_path / f"found/{name}_labels.tif", squares(*kept))
        tifffile.imwrite(tmp_path / f"true/{name}.tif", squares())
    return tmp_path / "found", tmp_path / "true"


def table(path, ids, **columns):
    pd.DataFrame({"id": list(ids), **columns}).to_csv(path, index=False)


def value(result, figure, averaging="pooled", **where):
    rows = [r for r in json.loads(result.out) if (r["figure"], r["averaging"]) == (figure, averaging)]
    where = {"class": "", "size": "", **where}
    (one,) = [r["value"] for r in rows if all(r.get(k) == v for k, v in where.items())]
    return one


def test_folders_in_both_averagings_and_worst_first(medseg, folders):
    result = medseg("evaluate", *folders, "--json")
    assert result.code == 0 and result.err == ""
    assert value(result, "AP@.5") == 10 / 15 and value(result, "AP@.5", "image mean") == pytest.approx(2 / 3)
    assert [r["case"] for r in json.loads(result.out) if r["averaging"] == "case" and r["figure"] == "PQ"] == list(
        "bca"
    )
    assert value(result, "AP@.5", "case", case="b") == 0.4
    text = medseg("evaluate", *folders).out.splitlines()
    at = text.index("cases, worst first")
    assert text[0] == "split: files" and [line.split()[0] for line in text[at + 2 :]] == ["b", "c", "a"]
    assert text[at + 2].split() == ["b", "5", "2", "2", "0", "3", "0.4000", "0.4000", "0.4000", "0.5714", "0.5714"]
    ap = next(line for line in text if "AP@.5 " in line)
    assert "0.6667" in ap and ap.count(" to ") == 2  # an interval beside each averaging


def test_groups_of_figures_and_sizes(medseg, folders):
    result = medseg("evaluate", *folders, "--metrics", "detection, regions,surface", "--by-size", "--json")
    assert result.code == 0
    assert value(result, "FN@.5") == 5 and value(result, "recall@.5") == 10 / 15 and value(result, "SQ") == 1
    assert value(result, "Dice", "case", case="b") == pytest.approx(4 / 7)
    assert value(result, "HD95 (px)", "case", case="a") == 0
    sizes = {r["size"] for r in json.loads(result.out)} - {""}
    assert sizes == {"up to 16 px", "over 16 px"}
    assert value(result, "FN@.5", size="up to 16 px") == 5
    shown = medseg("evaluate", *folders, "--metrics", "all", "--by-size")
    assert "by size" in shown.out and shown.code == 0
    assert [line for line in shown.err.splitlines() if "coco" in line] == [
        "medseg: note: there are no coco figures: the predictions have no scores"
    ]  # said once, not for each case


def test_spacing_from_the_command_and_from_the_files(medseg, tmp_path):
    volume = np.zeros((6, 20, 20), np.int16)
    volume[1:4, 2:8, 2:8] = 1
    for name, array, steps in [
        ("p", np.roll(volume, 1, 2), (1, 1, 3)),
        ("t", volume, (1, 1, 3)),
        ("o", volume, (1, 1, 4)),
    ]:
        nibabel.save(nibabel.Nifti1Image(array.T, np.diag([*steps, 1.0])), tmp_path / f"{name}.nii.gz")
    p, t, o = (tmp_path / f"{n}.nii.gz" for n in "pto")
    result = medseg("evaluate", p, t, "--metrics", "surface,lesions", "--by-size", "--json")
    assert value(result, "HD95 (mm)", "case", case="p") == 1.0 and value(result, "FPV (autoPET, mL)") == 0
    assert value(result, "AP@.5", size="3 to 10 mm") == 1  # 324 mm3
    result = medseg("evaluate", p, t, "--metrics", "surface", "--spacing", "3,1,2.5", "--json", "--tolerance", "3")
    assert value(result, "HD95 (mm)", "case", case="p") == 2.5 and value(result, "NSD@3 mm", "case", case="p") == 1
    result = medseg("evaluate", o, t)
    assert result.code == 4 and len(result.errors) == 1
    assert "o.nii.gz: has spacing 4 x 1 x 1 mm, its truth 3 x 1 x 1" in result.errors[0]
    result = medseg("evaluate", o, t, "--spacing", "3,1,1", "--json")
    assert result.code == 0 and value(result, "AP@.5") == 1
    assert result.err.count("spacing 3 x 1 x 1 mm was given and used; the file states 4 x 1 x 1 mm") == 1
    moved = np.diag([1.0, 1, 3, 1])
    moved[0, 3] = 5
    nibabel.save(nibabel.Nifti1Image(volume.T, moved), tmp_path / "m.nii.gz")
    result = medseg("evaluate", tmp_path / "m.nii.gz", t)
    assert result.code == 4 and "m.nii.gz: lies at another place" in result.errors[0]


def test_tables_beside_the_labels_bring_scores_and_classes(medseg, folders):
    found, truth = folders
    for name, kept in FOUND.items():
        table(found / f"{name}_instances.csv", kept, **{"class": "nucleus", "score": np.linspace(1, 0.5, len(kept))})
    result = medseg("evaluate", *folders, "--metrics", "coco,lesions", "--json")
    # 10 of 15 found without a false one: precision 1 up to recall 10/15, so 67 of the 101 points
    assert result.code == 0 and value(result, "COCO AP50") == pytest.approx(67 / 101)
    assert value(result, "FROC mean sensitivity (any overlap)") == pytest.approx(10 / 15)
    assert {r["class"] for r in json.loads(result.out)} == {""}  # one class on either side: names do not matter
    for name, kept in FOUND.items():
        kinds = ["x" if number < 3 else "y" for number in range(1, 6)]
        table(truth / f"{name}_table.csv", range(1, 6), **{"class": kinds})
        table(found / f"{name}_instances.csv", kept, **{"class": ["x"] * len(kept)})
    result = medseg("evaluate", *folders, "--json")
    assert value(result, "AP@.5", **{"class": "x"}) == 6 / 10 and value(result, "AP@.5", **{"class": "y"}) == 0
    assert value(result, "AP@.5") == 6 / (6 + 4 + 9)
    assert "by class" in medseg("evaluate", *folders).out
    (truth / "c_table.csv").unlink()  # its classes are not guessed
    result = medseg("evaluate", *folders, "--json")
    assert result.code == 3 and "c.tif: has no table with a column class" in result.errors[0]
    table(truth / "c_table.csv", range(1, 6), **{"class": ["x", "y", "x", "y", None]})
    assert "gives an object no class" in medseg("evaluate", *folders).errors[0]


def test_a_table_without_rows_is_that_of_an_empty_image(medseg, folders):
    for name in FOUND:
        tifffile.imwrite(folders[0] / f"{name}_labels.tif", np.zeros((8, 40), np.uint16))
        (folders[0] / f"{name}_instances.csv").write_text("id,class,score,voxels\r\n")
    result = medseg("evaluate", *folders, "--metrics", "coco", "--json")
    assert result.code == 0 and result.err == "" and value(result, "COCO mAP") == 0


def test_dicom_segmentations_are_label_files(medseg, ct, tmp_path):
    labels = np.zeros((8, 40, 40), np.int16)
    labels[2:5, 4:12, 4:12], labels[2:5, 20:30, 20:30] = 1, 2
    like = io.load(ct)
    for name, array in (("truth", labels), ("found", np.where(labels == 2, 0, labels))):
        instances = io.load_labels(write_nifti(tmp_path / f"{name}.nii.gz", array, like))
        io.save_seg(instances, tmp_path / f"{name}.dcm", like)
    result = medseg("evaluate", tmp_path / "found.dcm", tmp_path / "truth.dcm", "--metrics", "detection", "--json")
    assert result.code == 0, result.err
    assert value(result, "TP@.5") == 1 and value(result, "FN@.5") == 1


def write_nifti(path, labels, like):
    io.save_labels(Instances.from_labels(labels, like.grid), path)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,score\r\n1,0.5\r\n", "b_labels.tif: the table beside it has no id 2"),
        ("number\r\n1\r\n", "b_instances.csv: is no table of instances with a column id"),
        ("id\r\n1\r\n2\r\n2\r\n", "b_instances.csv: ids must be whole and each occur once"),
        ("id,score\r\n1,high\r\n2,low\r\n", "scores that are no numbers"),
        ("id,score\r\n1,0.5\r\n2,\r\n", "score of prediction object 2 is NaN"),
        ("\x00\xff", "is no table of instances"),
    ],
)
def test_tables_that_do_not_fit(medseg, folders, text, said):
    (folders[0] / "b_instances.csv").write_text(text, encoding="latin-1", newline="")
    result = medseg("evaluate", *folders, "--json")
    assert result.code == 3 and len(result.errors) == 1 and said in result.errors[0]
    assert value(result, "AP@.5") == 8 / 10  # of a and c


def test_each_case_that_cannot_be_scored_is_listed_and_the_rest_goes_on(medseg, folders):
    found, truth = folders
    wrong = {"fraction": squares() / 2, "negative": squares().astype(np.int16) - 1, "shape": squares()[:, :-1]}
    for name, labels in wrong.items():
        tifffile.imwrite(found / f"{name}.tif", labels.astype(np.float32) if name == "fraction" else labels)
        tifffile.imwrite(truth / f"{name}.tif", squares())
    (found / "cut.tif").write_bytes(b"II*\0 cut")
    (truth / "cut.tif").write_bytes((truth / "a.tif").read_bytes())
    tifffile.imwrite(found / "alone.tif", squares())
    for jobs in ((), ("--jobs", 2)):
        result = medseg("evaluate", *folders, "--json", *jobs)
        assert result.code == 3 and value(result, "AP@.5") == 10 / 15
        said = "\n".join(result.errors)
        assert len(result.errors) == 5
        for text in (
            "alone.tif: has no truth", "cut.tif ", "fraction.tif", "fractional values", "negative value -1",
            "shape.tif: has shape (8, 39), its truth (8, 40)",
        ):  # fmt: skip
            assert text in said, said


@pytest.mark.parametrize("jobs", [2, 3])
def test_a_process_that_is_killed_costs_only_its_case(folders, jobs):
    pairs = [Pair(n, folders[0] / f"{n}_labels.tif", folders[1] / f"{n}.tif") for n in "bac"]
    outcomes = {p.name: done for p, done in scoring.scored(pairs, scoring.Settings(), jobs, killed_at_b)}
    assert outcomes["b"].score is None and "b_labels.tif: its process was ended from outside" in outcomes["b"].error
    assert outcomes["a"].score.counts().tp == 5 and outcomes["c"].score.counts().tp == 3


def killed_at_b(pair, settings):
    """Score a case; at b end the process, as an operating system short of memory would."""
    if pair.name == "b":
        os._exit(9)
    return scoring.score_pair(pair, settings)


def test_processes_are_started_where_that_saves_time(folders, monkeypatch):
    pairs = [Pair(n, folders[0] / f"{n}_labels.tif", folders[1] / f"{n}.tif") for n in "abc"]
    used = []
    monkeypatch.setattr(scoring, "_in_processes", lambda rest, *_: used.append([p.name for p in rest]) or iter(()))
    assert len(list(scoring.scored(pairs, scoring.Settings(), None))) == 3 and used == []
    monkeypatch.setattr(scoring.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(scoring, "_START", 0.0)
    assert len(list(scoring.scored(pairs, scoring.Settings(), None))) == 1 and used == [["b", "c"]]
    monkeypatch.setattr(scoring.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert len(list(scoring.scored(pairs, scoring.Settings(), None))) == 3  # one processor: nothing to share


def test_a_fault_of_ours_in_one_case_costs_no_other(medseg, folders, monkeypatch):
    real = scoring.load_labels

    def broken(path, settings):
        return real(path, settings) if path.name != "b.tif" else {}["b"]

    monkeypatch.setattr(scoring, "load_labels", broken)
    result = medseg("evaluate", *folders, "--json", "--jobs", 1)
    assert result.code == 1 and value(result, "AP@.5") == 8 / 10
    assert "b_labels.tif: internal fault (KeyError" in result.errors[0]


def test_processes_give_the_same_figures(medseg, folders):
    alone = medseg("evaluate", *folders, "--metrics", "all", "--json", "--jobs", 1)
    assert medseg("evaluate", *folders, "--metrics", "all", "--json", "--jobs", 3).out == alone.out


# ------------------------------------------------------------------ COCO


@pytest.fixture
def coco(tmp_path):
    """The same three cases as two COCO files; in a, the first object is a crowd."""
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    objects = {f"{n}.png": Candidates.from_labels(squares().astype(int)) for n in FOUND}
    io.save_coco(objects, truth, classes=["cell"], crowd={"a.png": np.arange(5) == 0})
    hits = {
        f"{n}.png": Candidates.from_labels(squares(*kept).astype(int), scores=np.linspace(1, 0.5, len(kept)))
        for n, kept in FOUND.items()
    }
    io.save_coco(hits, found, classes=["cell"], results=True, like=io.load_coco(truth))
    return found, truth


def test_coco_files(medseg, coco):
    result = medseg("evaluate", *coco, "--metrics", "detection,coco,regions", "--json")
    assert result.code == 0 and result.err == ""
    assert value(result, "TP@.5") == 9 and value(result, "FP@.5") == 0 and value(result, "FN@.5") == 5
    assert value(result, "COCO AP50") == pytest.approx(65 / 101)  # recall 9/14 = .643
    assert value(result, "IoU", "case", case="c.png") == 0.6
    assert medseg("evaluate", *coco, "--metrics", "detection,coco,regions", "--json", "--jobs", 2).out == result.out
    rows = json.loads(coco[0].read_text())
    coco[0].write_text(json.dumps([r for r in rows if r["image_id"] != 3]))  # no results for c: nothing was found
    assert value(medseg("evaluate", *coco, "--metrics", "detection", "--json"), "FN@.5") == 8


def test_coco_files_that_cannot_be_scored(medseg, coco, folders, tmp_path):
    found, truth = coco
    good = json.loads(truth.read_text())
    for change, said in [
        (lambda d: d["annotations"][1].update(id=1), "truth.json: annotation id 1 occurs twice"),
        (lambda d: d["images"][0].update(height=10**6, width=10**6), "MEDSEG_MAX_GB"),
        (lambda d: d.pop("categories"), "no list of categories"),
    ]:
        data = json.loads(json.dumps(good))
        change(data)
        truth.write_text(json.dumps(data))
        result = medseg("evaluate", *coco)
        assert result.code == 4 and result.out == "" and len(result.errors) == 1 and said in result.errors[0]
    truth.write_text(json.dumps(good))
    rows = json.loads(found.read_text())
    found.write_text(json.dumps([{**rows[0], "score": float("nan")}, *rows[1:]]))
    result = medseg("evaluate", *coco)
    assert result.code == 4 and "found.json: [0] has the score nan" in result.errors[0]
    result = medseg("evaluate", found, folders[1] / "a.tif")
    assert result.code == 4 and "one is COCO JSON, the other is not" in result.errors[0]
    result = medseg("evaluate", truth, found)
    assert result.code == 4 and "found.json is a results list; truth is an instances file" in result.errors[0]
    other = json.loads(json.dumps(good))
    other["images"][2].update(id=9)
    other["annotations"] = [a for a in other["annotations"] if a["image_id"] != 3]
    found.write_text(json.dumps(other))
    result = medseg("evaluate", *coco)
    assert result.code == 3 and len(result.errors) == 2
    assert "image 9 (c.png) is not in" in result.errors[0] and "has no image c.png" in result.errors[1]


def test_images_of_one_name_stay_apart(medseg, coco):
    found, truth = coco
    data = json.loads(truth.read_text())
    data["images"][1]["file_name"] = "a.png"
    truth.write_text(json.dumps(data))
    result = medseg("evaluate", *coco, "--json")
    assert {r["case"] for r in json.loads(result.out) if r["averaging"] == "case"} == {
        "a.png (1)", "a.png (2)", "c.png (3)",
    }  # fmt: skip


# ------------------------------------------------------------------ files written


def test_csv_has_a_row_for_each_case(medseg, folders, tmp_path):
    result = medseg("evaluate", *folders, "--metrics", "detection,regions", "--csv", tmp_path / "cases.csv")
    assert result.code == 0 and "split: files" in result.out
    data = (tmp_path / "cases.csv").read_bytes()
    rows = list(csv.DictReader(data.decode().splitlines()))
    assert data.count(b"\r\n") == data.count(b"\n") == 4 and [r["case"] for r in rows] == ["b", "c", "a"]
    assert rows[0]["FN"] == "3" and float(rows[0]["IoU"]) == 0.4 and rows[2]["AP@.5"] == "1"
    result = medseg("evaluate", *folders, "--csv", tmp_path / "no" / "cases.csv")
    assert result.code == 4 and "cases.csv: cannot be written" in result.errors[0]


def test_html_gets_the_summary_and_a_way_to_the_pictures(medseg, folders, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/b.tif", np.arange(320, dtype=np.uint8).reshape(8, 40) % 7)
    tifffile.imwrite(tmp_path / "images/c.tif", np.zeros((9, 9), np.uint8))
    got = []
    page = types.ModuleType("medseg.metrics.page")
    page.write = lambda *given: got.append(given)
    monkeypatch.setitem(sys.modules, "medseg.metrics.page", page)
    result = medseg("evaluate", *folders, "--html", tmp_path / "page.html", "--images", tmp_path / "images")
    ((summary, path, pictures),) = got
    assert result.code == 0 and isinstance(summary, Summary) and path == tmp_path / "page.html"
    assert summary.cases[0].name == "b" and summary.value("FN@.5") == 5  # what its curves need is computed
    image, truth, found = pictures("b")
    assert image.shape == (1, 8, 40) and np.array_equal(truth, squares()) and np.array_equal(found, squares(1, 2))
    assert pictures("a")[0] is None and pictures("c")[0] is None  # none there; of another shape
    medseg("evaluate", *folders, "--html", tmp_path / "page.html")
    assert got[1][2]("b")[0] is None
    result = medseg("evaluate", *folders, "--html", tmp_path / "page.html", "--images", tmp_path / "none")
    assert result.code == 4 and "none: no such folder" in result.errors[0]


def test_images_that_do_not_fit_are_told(medseg, folders, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / "b_image.tif", squares())
    page = "--metrics", "detection", "--html", tmp_path / "page.html", "--images", images
    result = medseg("evaluate", *folders, *page)
    said = f"medseg: note: {images}: holds no image with the name of a case, such as a.tif; errors are drawn without"
    assert result.code == 0 and result.err.splitlines() == [said]
    tifffile.imwrite(images / "a.tif", squares()[:, :-1])
    result = medseg("evaluate", *folders, *page)
    said = "medseg: a: its image is left out: it has shape (8, 39), the labels (8, 40)"
    assert result.code == 0 and result.err.splitlines() == [said]


def test_masks_of_foreground_are_told(medseg, folders):
    found, truth = folders
    note = (
        "{} hold one id each, in several pieces (of a in 5), and an id is one object; if they are masks of foreground"
    )
    for name in FOUND:
        tifffile.imwrite(found / f"{name}_labels.tif", squares(*FOUND[name]) > 0)
    result = medseg("evaluate", *folders)
    assert result.code == 0 and result.err.count("medseg: note: ") == 1 and note.format("predictions") in result.err
    for name in FOUND:
        tifffile.imwrite(truth / f"{name}.tif", (255 * (squares() > 0)).astype(np.uint8))
        tifffile.imwrite(found / f"{name}_labels.tif", squares(1))
    result = medseg("evaluate", *folders)
    assert result.err.count("medseg: note: ") == 1 and note.format("truth") in result.err
    tifffile.imwrite(truth / "a.tif", squares())  # ids are told apart in one: these are no masks
    assert medseg("evaluate", *folders).err == ""
    for name in FOUND:  # one lesion each, one of them in two pieces
        tifffile.imwrite(truth / f"{name}.tif", squares(*((1, 2) if name == "a" else (1,))) > 0)
    assert medseg("evaluate", *folders).err == ""


def test_distances_sizes_and_tolerance_are_in_the_unit(medseg, folders):
    found, truth = folders
    for path in (*found.iterdir(), *truth.iterdir()):
        labels = tifffile.imread(path)
        io.save_labels(Instances.from_labels(labels, Grid.from_spacing(labels.shape, 0.5, unit="um")), path)
        path.with_suffix(".ome.tif").unlink(missing_ok=True)
    moved = Instances.from_labels(np.roll(squares(), 2, 1), Grid.from_spacing((8, 40), 0.5, unit="um"))
    io.save_labels(moved, found / "a_labels.tif")
    options = "--metrics", "surface,regions", "--by-size", "--json"
    mm = medseg("evaluate", *folders, *options, "--tolerance", "0.001")
    assert value(mm, "HD95 (mm)", "case", case="a") == pytest.approx(0.001)
    um = medseg("evaluate", *folders, *options, "--tolerance", "1", "--unit", "um")
    given = medseg("evaluate", *folders, *options, "--tolerance", "1", "--unit", "um", "--spacing", "0.5")
    assert um.code == 0 and um.err == "" and given.out == um.out
    for name, many in (
        ("HD95 ({})", 1000),
        ("HD ({})", 1000),
        ("ASSD ({})", 1000),
        ("NSD@{}", 1),
        ("boundary F@{}", 1),
    ):
        for case in FOUND:
            one = value(mm, name.format("mm" if "(" in name else "0.001 mm"), "case", case=case)
            other = value(um, name.format("um" if "(" in name else "1 um"), "case", case=case)
            assert other == pytest.approx(many * one)
    assert {r["size"] for r in json.loads(um.out)} == {"", "up to 4 um2"}  # of 16 px of .25 um2


def test_usage(medseg, folders):
    for options, said in [
        (("--metrics", "speed"), "'speed' is none of detection, coco, regions, lesions, surface, all"),
        (("--spacing", "0,1"), "--spacing"),
        (("--unit", "cm"), "--unit"),
        (("--images", "."), "--images"),
        (("--jobs", 0), "--jobs"),
        (("--tolerance", -1), "--tolerance"),
    ]:
        result = medseg("evaluate", *folders, *options)
        assert result.code == 2 and result.out == "" and said in result.errors[0]


def test_a_spacing_that_does_not_fit_the_files(medseg, folders):
    result = medseg("evaluate", *folders, "--spacing", "1,1,1")
    assert result.code == 4 and len(result.errors) == 3 and "spacing" in result.errors[0]


def test_reading_coco_names_the_file_in_full(coco):
    coco[1].write_text("{")
    with pytest.raises(FormatError, match="is not JSON"):
        io.load_coco(coco[1])


@pytest.mark.parametrize(
    "option", [["--split", "val"], ["--config", "x.yaml"], ["--source", "a"], ["--device", "cuda"]]
)
def test_options_of_a_model_are_no_options_of_files(medseg, tmp_path, option):
    result = medseg("evaluate", tmp_path, tmp_path, *option)
    assert result.code == 2 and "go with --model" in result.err


def test_files_that_are_passed_over_are_told(medseg, tmp_path):
    for side in ("p", "t"):
        (tmp_path / side).mkdir()
        tifffile.imwrite(tmp_path / side / "a.tif", np.eye(5, dtype=np.uint8))
    tifffile.imwrite(tmp_path / "p" / "a.ome.tif", np.zeros((5, 5), np.uint8))
    result = medseg("evaluate", tmp_path / "p", tmp_path / "t")
    assert (
        result.code == 0
        and "1 files are passed over beside others of the same name, such as a.ome.tif beside a.tif" in result.err
    )
