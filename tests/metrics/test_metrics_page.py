"""The HTML page of scores: one file without anything outside it, and true to the summary; and the docs page about figures."""

import base64
import importlib.util
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.candidates import Candidates
from medseg.errors import MissingError, OutputError
from medseg.metrics import GROUPS, page, score, score_case, summarise
from medseg.metrics.drawn import COLOURS, draw
from medseg.metrics.meaning import TITLES, meaning

DOCS = Path(__file__).parents[2] / "docs"
VOID = {"meta", "br", "img", "col"}


def squares(*kept, shape=(8, 40)):
    """Five squares, 4 x 4, in a row; all, or those named."""
    labels = np.zeros(shape, np.int32)
    for number in range(1, 6):
        labels[..., 2:6, 8 * number - 6 : 8 * number - 2] = number
    return np.where(np.isin(labels, kept), labels, 0) if kept else labels


def cases(metrics=GROUPS, **given):
    """Three cases of which b is the worst, then c; their objects have scores."""
    kept = {"a": (1, 2, 3, 4, 5), "b": (1, 2), "c": (1, 2, 3)}
    labels = {name: (squares(), squares(*some)) for name, some in kept.items()}
    return [
        score_case(*labels[name], metrics=metrics, name=name, scores=np.linspace(1, 0.5, len(some)), **given)
        for name, some in kept.items()
    ], lambda name: (None, *labels[name])


class Seen(HTMLParser):
    """Tags in order, whether they close in order, and the text outside of style."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def pixels(png):
    """A picture as RGB, and a way to count the pixels of a kind of line."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def count(kind):
        colour = [int(COLOURS[kind][i : i + 2], 16) for i in (1, 3, 5)]
        return int((picture == colour).all(axis=-1).sum())

    return picture, count


# ------------------------------------------------------------------ the page


def test_the_page_stands_alone_and_holds_what_was_asked(tmp_path):
    some, pictures = cases()
    summary = summarise(some, by_size=True, faults=["/data/run 1/x.tif: has shape (8, 39), its truth (8, 40)"])
    page.write(summary, tmp_path / "scores.html", pictures)
    seen = Seen((tmp_path / "scores.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in seen.tags}
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in seen.all("img"))
    assert not [value for _, held in seen.tags for value in held.values() if value and "http:" in value]
    assert [image["alt"] for image in seen.all("img")] == [
        "AP over IoU", "Precision and recall", "FROC", "By size",
        "errors in b", "errors in c", "errors in a",
    ]  # fmt: skip
    assert "x.tif: has shape (8, 39)" in seen.text and "/data" not in seen.text  # the name, and no folder
    assert "BraTS: they need a volume of known spacing" in seen.text
    for text in ("3 images, 15 true and 10 predicted objects", "lesion F1 (any overlap)", "COCO mAP", "HD95 (px)",
                 "up to 16 px", "missed: 3, 4, 5", "TP 2, FP 0, FN 3, AP@.5 0.400", "medseg 0."):  # fmt: skip
        assert text in seen.text, text


def test_figures_stand_in_both_averagings_with_intervals():
    some, _ = cases()
    summary = summarise(some)
    text = page.render(summary)
    row = re.search(r'<th scope="row">AP@\.5</th>(.*?)</tr>', text)[1]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    one = next(r.estimate for r in summary.rows if r.figure == "AP@.5")
    assert cells[:2] == ["3", f"{10 / 15:.3f}"] and cells[3] == f"{(1 + 0.4 + 0.6) / 3:.3f}"
    assert cells[2] == "{:.3f} to {:.3f}".format(*one.pooled_interval) and cells[5].startswith("TP / (TP + FP + FN)")
    distance = re.search(r'<th scope="row">HD95 \(px\)</th>(.*?)</tr>', text)[1]
    assert re.findall(r"<td[^>]*>(.*?)</td>", distance)[1:3] == ["–", "–"]  # it cannot be pooled
    froc = re.search(r'<th scope="row">any overlap</th>(.*?)</tr>', text)[1]
    assert re.findall(r"<td[^>]*>(.*?)</td>", froc) == ["0.667"] * 8


def test_the_same_summary_gives_the_same_bytes(tmp_path):
    for name in ("one.html", "two.html"):
        some, pictures = cases()
        page.write(summarise(some, by_size=True), tmp_path / name, pictures)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_names_are_text_and_never_markup(tmp_path):
    name = '<img src=x onerror="alert(1)">&amp;\udcff'
    case = score_case(squares(), squares(1), name=name, source="<b>", class_names=["<i>"])
    other = score_case(squares(), squares(2), name=name, source="</table>", class_names=["<i>"])
    summary = summarise([case, other], faults=["<u>.tif: is </html> broken"])
    page.write(summary, tmp_path / "p.html", lambda _: (None, squares(), squares(1)))
    seen = Seen((tmp_path / "p.html").read_bytes().decode("utf-8"))
    assert not seen.all("u") and [held for held in seen.all("i") if not held.get("style")] == []
    assert all("onerror" not in held for held in seen.all("img"))
    assert name.replace("\udcff", "?") in seen.text and "<u>.tif: is </html> broken" in seen.text


def test_without_scores_pictures_or_sizes_the_page_says_so_or_leaves_out():
    case = score_case(squares(), squares(1, 2), metrics=("coco", "lesions"), name="a")
    seen = Seen(page.render(summarise([case])))
    assert [image["alt"] for image in seen.all("img")] == ["AP over IoU"]
    assert "coco: the predictions have no scores" in seen.text and "No pictures" in seen.text
    assert "a single image has none" in seen.text and "By size" not in seen.text


def test_a_case_whose_files_are_gone_keeps_its_place():
    some, pictures = cases(())

    def gone(name):
        if name == "b":
            raise MissingError("/data/b.tif: no such file")
        return pictures(name)

    seen = Seen(page.render(summarise(some), gone))
    assert "no picture: b.tif: no such file" in seen.text and "/data" not in seen.text
    assert [image["alt"] for image in seen.all("img")][1:] == ["errors in c", "errors in a"]


def test_ten_are_drawn_and_long_tables_end(monkeypatch):
    asked = []
    some = [score_case(squares(), squares(1), name=f"case {n:02d}") for n in range(14)]
    monkeypatch.setattr(page, "LISTED", 12)

    def pictures(name):
        asked.append(name)
        return None, squares(), squares(1)

    seen = Seen(page.render(summarise(some), pictures))
    assert asked == [f"case {n:02d}" for n in range(10)]
    assert "case 11" in seen.text and "case 12" not in seen.text and "and 2 more, which --csv" in seen.text


def test_several_data_sets_and_classes():
    kinds = {"class_names": ["cell", "dirt"], "classes": [1, 2], "truth_classes": [1, 2, 1, 1, 1]}
    some = [score_case(squares(), squares(1, 2), name="a", source=s, **kinds) for s in ("north", "south")]
    seen = Seen(page.render(summarise(some)))
    for text in ("in 2 data sets", "north (1 images)", "south (1 images)", "By class", "dirt", "mean of classes"):
        assert text in seen.text


def test_one_dimension_and_nothing_at_all():
    line = np.array([1, 1, 0, 2, 2])
    flat = score_case(line, line, name="flat")
    empty = score_case(np.zeros((4, 4), int), np.zeros((4, 4), int), name="empty", metrics=("detection",))
    for case, text in ((flat, "the case has 1 dimensions"), (empty, "TP 0, FP 0, FN 0, AP@.5 1.000")):
        seen = Seen(page.render(summarise([case], by_size=True), lambda _: (None, *[np.zeros((4, 4), int)] * 2)))
        assert text in seen.text


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    some, _ = cases(())
    with pytest.raises(OutputError, match="cannot be written"):
        page.write(summarise(some), tmp_path / "no" / "p.html")
    assert not list(tmp_path.iterdir())


def test_every_figure_is_explained():
    volume = np.zeros((6, 8, 40), np.int32)
    volume[1:5] = squares()
    found = np.where(volume < 4, volume, 0)
    labels = {"spacing": (2.0, 1.0, 1.0), "scores": np.ones(3)}
    classes = {"classes": [1, 2, 1], "truth_classes": [1, 2, 1, 2, 1]}
    names = set(score(found, volume, metrics=GROUPS, **labels, **classes).names())
    names |= set(score(squares(1), squares(), metrics=GROUPS).names())
    assert {"mIoU", "FPV (autoPET, mL)", "NSD@1 voxel", "sensitivity at 0.125 FP per scan (IoU >= .1)"} <= names
    told = {name: meaning(name) for name in names}
    assert [name for name, one in told.items() if not one.words or one.group not in TITLES] == []
    assert {one.group for one in told.values()} == {"main", *GROUPS}
    assert meaning("NSD@1 voxel").words.count("1 voxel") == 1 and meaning("speed") == ("", "")


# ------------------------------------------------------------------ a case drawn


def test_what_was_found_missed_and_invented_has_its_colour():
    truth, found = squares(1, 2), squares(2, 3)
    _, count = pixels(draw(score_case(truth, found), truth, found).png)
    assert min(count("found"), count("missed"), count("spurious")) > 100 and count("ignored") == 0
    _, count = pixels(draw(score_case(truth, truth), truth, truth).png)
    assert count("found") > 100 and count("missed") == count("spurious") == 0
    crowd = score_case(Candidates.from_labels(truth), Candidates.from_labels(found), crowd=[True, False])
    _, count = pixels(draw(crowd, truth, found).png)
    assert count("ignored") > 10 and count("missed") == 0


def test_letters_mark_what_was_split_and_merged():
    truth = np.zeros((24, 48), np.int32)
    truth[4:20, 4:12], truth[4:20, 14:22], truth[4:20, 28:44] = 1, 2, 3
    found = truth.copy()
    found[4:20, 4:22] = 1
    found[4:20, 36:44] = 4
    case = score_case(truth, found)
    errors = case.errors()
    assert errors["merged"].ids.tolist() == [1] and errors["split"].ids.tolist() == [3]
    drawing = draw(case, truth, found)
    picture, _ = pixels(drawing.png)
    scale = drawing.size[0] // 48
    black = (picture == 0).all(axis=-1)
    assert black[:, : 24 * scale].any() and black[:, 28 * scale :].any()  # the rims of M and S
    plain = pixels(draw(score_case(truth, truth), truth, truth).png)[0]
    assert not (plain == 0).all(axis=-1).any()


def test_of_a_volume_the_slice_with_most_error_is_shown():
    truth = np.zeros((5, 20, 20), np.int32)
    truth[1:4, 2:8, 2:8], truth[3, 10:18, 10:18] = 1, 2
    found = np.where(truth == 1, 1, 0)
    assert draw(score_case(truth, found), truth, found).shown.startswith("slice 3 of 0 to 4 along z")
    turned, other = np.moveaxis(truth, 0, 2), np.moveaxis(found, 0, 2)  # its coarse axis is the last
    case = score_case(turned, other, spacing=(1.0, 1.0, 3.0))
    drawing = draw(case, turned, other, np.zeros((1, *turned.shape)))
    assert drawing.shown.startswith("slice 3 of 0 to 4 along x") and drawing.size[0] == drawing.size[1]
    assert draw(score_case(truth, truth), truth, truth).shown.startswith("slice 3")  # no error: the most objects


def test_rows_and_columns_of_unlike_size_become_square():
    truth = squares()
    assert np.divide(*draw(score_case(truth, truth), truth, truth).size) == pytest.approx(5, rel=0.01)
    case = score_case(truth, truth, spacing=(5.0, 1.0))
    assert np.divide(*draw(case, truth, truth).size) == pytest.approx(1, rel=0.01)


def test_of_a_large_image_the_part_with_most_errors_is_shown():
    truth = np.zeros((700, 1500), np.int32)
    for number, (y, x) in enumerate([(20, 20), (600, 1200), (620, 1250), (640, 1300)], 1):
        truth[y : y + 10, x : x + 10] = number
    found = np.where(truth == 2, 2, 0)
    drawing = draw(score_case(truth, found), truth, found)
    assert re.match(r"rows 188 to 699, columns (\d+) to (\d+), where most errors are", drawing.shown)
    _, count = pixels(drawing.png)
    assert count("found") and count("missed") and max(drawing.size) <= 1040


def test_the_image_is_drawn_below_in_grey():
    truth = squares()
    image = np.zeros((3, 8, 40))
    image[:, :, 20:] = 1000.0
    image[0, 0, 0] = np.nan
    picture, _ = pixels(draw(score_case(truth, truth), truth, truth, image).png)
    assert picture[0, 5].tolist() == [0, 0, 0] and picture[0, -5, 0] > 150
    assert picture[0, -5, 0] == picture[0, -5, 1] == picture[0, -5, 2]


def test_pictures_are_small_files():
    truth, noise = np.zeros((512, 512), np.int32), np.random.default_rng(0).normal(size=(1, 512, 512))
    assert len(draw(score_case(truth, truth), truth, truth, noise).png) < 500_000


# ------------------------------------------------------------------ the docs page


@pytest.fixture(scope="module")
def maker():
    found = importlib.util.spec_from_file_location("make_numbers_page", DOCS / "make_numbers_page.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_docs_page_has_the_figures_of_the_code(maker):
    text = (DOCS / "explanation/which-number.md").read_text(encoding="utf-8")
    assert text == maker.page(text), "its tables are old; write it again with: python docs/make_numbers_page.py"
    assert "| Dice | 0.99 | 0.97 | 0.90 |" in text
    with pytest.raises(ValueError, match="no place <!-- table -->"):
        maker.page("# Nothing")


def test_the_docs_pictures_are_those_of_the_figures(maker):
    for name, png in maker.pictures().items():
        there = (DOCS / "images" / name).read_bytes()
        new, old = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (png, there))
        assert new.shape == old.shape
        assert (new != old).any(axis=-1).mean() < 0.01, name  # letters depend on the version of the font


def test_pictures_in_the_page_are_the_drawings():
    some, pictures = cases(())
    sources = [image["src"] for image in Seen(page.render(summarise(some), pictures)).all("img")]
    _, truth, found = pictures("b")
    assert base64.b64decode(sources[1].partition(",")[2]) == draw(some[1], truth, found).png
