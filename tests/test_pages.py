"""HTML pages with hostile text in every field that reaches them: inert, and nothing is fetched. The batch's is in `tests/batch`."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from medseg.export.report import write_report
from medseg.follow import Visit, follow
from medseg.follow.page import write_page
from medseg.follow.response import respond
from medseg.grid import Grid
from medseg.image import Image, Source
from medseg.instances import Instances
from medseg.measure import measure
from medseg.metrics import page, score_case, summarise
from medseg.spec import FollowSpec

EVIL = "<script>alert(1)</script><img src=http://x.invalid/a onerror=alert(1)>\"'><a href='javascript:x'>{{ 7*7 }}</style></svg>"


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.handlers, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def check_inert(path, least):
    """Hostile text is shown as text, at least so many times."""
    text = path.read_text(encoding="utf-8")
    seen = Seen(text)
    assert not {"script", "a", "iframe", "object", "embed", "link", "form", "base"} & set(seen.tags)
    assert seen.handlers == [] and all(one.startswith("data:image/") for one in seen.addresses)
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text
    shown = "".join(seen.text)
    assert shown.count("<script>alert(1)</script>") >= least and "{{ 7*7 }}" in shown


def visit(number):
    """An image and two lesions, all of whose words are hostile."""
    grid = Grid.from_spacing((12, 40, 40), (2.0, 1.0, 1.0))
    labels = np.zeros(grid.shape, np.int32)
    labels[3:9, 5 : 18 + number, 5:20], labels[4:8, 26:36, 26:36] = 1, 2
    voxels = np.random.default_rng(0).normal(0, 1, grid.shape).astype(np.float32) + 50 * (labels > 0)
    told = {"model": EVIL, "model_sha256": EVIL, "method": EVIL, "notes": [EVIL]}
    found = Instances.from_labels(labels, grid, class_ids=[1, 2], classes=(EVIL, EVIL + "2"), provenance=told)
    source = Source((), "nifti", notes=(EVIL,))
    return Image(voxels[None], grid, "CT", (EVIL,), source), found


def test_the_report_of_a_case(tmp_path):
    image, found = visit(0)
    table = measure(found, image)
    for name in ("finding_site", "role", "class"):
        table[name] = [EVIL, EVIL + "2"]
    table.attrs["notes"] = [EVIL]
    write_report(found, image, table, tmp_path / "r.html", EVIL)
    check_inert(tmp_path / "r.html", 6)


def test_the_page_of_a_course(tmp_path):
    visits = []
    for number in range(2):
        image, found = visit(number)
        said = pd.DataFrame({"id": [1, 2], "finding_site": [EVIL] * 2, "nodal": [False] * 2, "role": ["target"] * 2})
        visits.append(Visit(image, found, name=EVIL + str(number), date=f"2024-01-0{number + 1}", said=said))
    spec = FollowSpec(registration="none")
    course = follow(visits, spec)
    course = replace(course, notes=(*course.notes, EVIL), ledger=course.ledger.assign(finding_site=EVIL))
    write_page(course, respond(course), tmp_path / "c.html", spec, EVIL)
    check_inert(tmp_path / "c.html", 8)


def test_the_page_of_scores(tmp_path):
    labels = np.zeros((30, 30), np.int32)
    labels[4:12, 4:12], labels[18:26, 18:26] = 1, 2
    case = score_case(labels, np.roll(labels, 1, 0), name=EVIL, source=EVIL, class_names=[EVIL])
    other = score_case(labels, np.roll(labels, 2, 0), name=EVIL + "2", source=EVIL + "2", class_names=[EVIL])
    summary = summarise([case, other], split=EVIL, faults=[EVIL])
    page.write(summary, tmp_path / "s.html", lambda _: (None, labels, np.roll(labels, 1, 0)))
    check_inert(tmp_path / "s.html", 5)
