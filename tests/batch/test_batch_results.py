"""What a batch leaves: provenance, tables of all, the page; and that it finds what a single call finds."""

import json
import re
import shutil
import subprocess
import threading
from contextlib import closing
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nibabel
import numpy as np
import pandas as pd
import pytest

from medseg import cli, io, presets
from medseg.batch import Case, Input, Ledger
from medseg.batch.cases import Named
from medseg.batch.report import write_report
from medseg.batch.tables import write_tables
from medseg.batch.values import Output, Result
from medseg.errors import FormatError

from .conftest import RULE, batch, command, environment, results


def test_tables_and_provenance(study, tmp_path):
    out = tmp_path / "out"
    batch(study, "-o", out, *RULE)
    table, text = pd.read_parquet(out / "instances.parquet"), pd.read_csv(out / "instances.csv")
    assert list(table) == list(text) and len(table) == len(text) and table["case"].is_monotonic_increasing
    for name, rows in table.groupby("case"):
        own = pd.read_csv(out / name / f"{name}_instances.csv")
        assert list(rows["id"]) == list(own["id"]) and list(rows["voxels"]) == list(own["voxels"])
        told = json.loads((out / name / "provenance.json").read_text())
        assert told["case"] == name and told["instances"] == len(rows) and told["method"].startswith("otsu, ")
        assert re.fullmatch("[0-9a-f]{64}", told["inputs"][0]["sha256"]) and told["seed"] == 0
        assert set(told["seconds"]) == {"read", "find", "write"} and told["versions"]["medseg"]
        assert told["geometry"]["shape"] == [64, 80] and told["geometry"]["spacing_mm"] is None


@pytest.mark.slow
def test_the_same_again_is_the_same(study, tmp_path):
    batch(study, "-o", tmp_path / "one", *RULE)
    batch(study, "-o", tmp_path / "two", *RULE, "--jobs", "2")
    assert results(tmp_path / "one") == results(tmp_path / "two")
    for name in ("instances.csv", "instances.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.slow
def test_a_model_finds_what_a_single_call_finds(tmp_path, capsys, one_thread):
    study = tmp_path / "in"
    study.mkdir()
    for name in ("fluorescence.tif", "tissue.tif"):
        (study / name).symlink_to(presets.samples() / name)
    batch(study, "-o", tmp_path / "out", "--model", "nuclei2d", "--device", "cpu")
    with pytest.raises(SystemExit) as left:
        cli.main(["segment", str(study), "-o", str(tmp_path / "single"), "--model", "nuclei2d", "--device", "cpu"])
    assert not left.value.code
    single = [io.load_labels(p).labels for p in sorted((tmp_path / "single").glob("*_labels.tif"))]
    batched = [io.load_labels(p).labels for p in sorted((tmp_path / "out").glob("*/*_labels.tif"))]
    assert len(batched) == 2 and all(any(np.array_equal(a, b) for b in batched) for a in single)
    told = json.loads(next((tmp_path / "out").glob("*/provenance.json")).read_text())
    assert told["model"] == "nuclei2d" and told["device"] == "cpu" and len(told["model_sha256"]) == 64


def labels_by_content(folder, count):
    """Label arrays of a folder, in an order that does not depend on names of files."""
    found = [io.load_labels(path).labels for path in folder.rglob("*_labels.*")]
    assert len(found) == count
    return sorted(found, key=lambda one: (one.shape, int((one > 0).sum()) // 1000))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "samples"),
    [("nuclei2d", ("fluorescence.tif", "tissue.tif")), ("cells2d", ("fluorescence.tif",)), ("nuclei3d", ("ovule.ome.tif",))],
)  # fmt: skip
def test_labels_at_one_and_two_threads_alone_and_in_a_batch(model, samples, tmp_path):
    study = tmp_path / "in"
    study.mkdir()
    for name in samples:
        (study / name).symlink_to(presets.samples() / name)
    the_same_at_one_and_two_threads(model, study, tmp_path)


@pytest.mark.slow
def test_lesions_at_one_and_two_threads_alone_and_in_a_batch(tmp_path, real_data):
    study = tmp_path / "in"
    study.mkdir()
    brain = nibabel.load(next((real_data / "lesions/ms_ljubljana_mni/patient19").glob("FLAIR*.nii.gz")))
    part = brain.slicer[50:130, 70:150, 80:112]  # where most lesions are
    edged = np.pad(
        part.get_fdata(dtype=np.float32)[8:-8, 8:-8], ((8, 8), (8, 8), (0, 0))
    )  # it wants a brain with 0 around
    nibabel.save(nibabel.Nifti1Image(edged, part.affine), study / "flair.nii.gz")
    the_same_at_one_and_two_threads("ms-lesions", study, tmp_path)


def the_same_at_one_and_two_threads(model, study, tmp_path):
    """What a model finds in the images of a folder, by `medseg batch` and `medseg segment`, is compared."""
    count, found = len(list(study.iterdir())), {}
    for threads in ("1", "2"):
        kept = ("--model", model, "--device", "cpu", "--save", "labels")
        batch(study, "-o", tmp_path / f"batch{threads}", *kept, "--threads", threads)
        alone = subprocess.run(
            command(study, "-o", tmp_path / f"alone{threads}", *kept, name="segment"),
            env=environment(OMP_NUM_THREADS=threads), capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert alone.returncode == 0, alone.stderr
        for way in ("batch", "alone"):
            found[way, threads] = labels_by_content(tmp_path / f"{way}{threads}", count)
    for threads in ("1", "2"):
        for one, other in zip(found["batch", threads], found["alone", threads], strict=True):
            np.testing.assert_array_equal(one, other)
    for one, two in zip(found["batch", "1"], found["batch", "2"], strict=True):
        assert one.max() > 3
        differ = np.count_nonzero(one != two)
        assert differ <= 1e-5 * one.size


def test_tables_of_cases_that_went_or_were_changed(study, tmp_path):
    out = tmp_path / "out"
    batch(study, "-o", out, *RULE)
    first, second = sorted(out.glob("case-*/*_instances.parquet"))[:2]
    first.unlink()
    with closing(Ledger(out, new=False)) as ledger:
        write_tables(ledger)
        assert first.parent.name not in set(pd.read_parquet(out / "instances.parquet")["case"])
        second.write_bytes(b"PAR1" * 100)
        with pytest.raises(FormatError, match=f"{second.name} is damaged; run the batch again"):
            write_tables(ledger)
    batch(study, "-o", out, *RULE)
    assert pd.read_parquet(out / "instances.parquet")["case"].nunique() == 6


# ------------------------------------------------------------------ the page

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>"


class Page(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.handlers = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def ledger_of(folder, count, text=""):
    """A ledger of many cases, all of whose texts are `text`."""
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder)
    ledger._base.execute("PRAGMA synchronous = OFF")  # thousands of cases, none of which has to last
    cases = [Named(f"case-{n:04d}{text}", str(n), (), Case("file", (Input(()),))) for n in range(count)]
    with ledger.locked():
        ledger.enroll(cases, "options")
    for number in range(count):
        claim = ledger.claim("me")
        if number % 10 == 9:
            ledger.fail(claim, f"Error{text}", f"why {text}", 1.0)
            continue
        facts = {"modality": f"CT{text}", "shape": [4, 5], "notes": [text or "note"], "size": [1.0 + number % 3],
                 "size_name": f"area_px{text}", "score": 0.9}  # fmt: skip
        one = Output(f"{claim.name.replace('/', '')}/x{text}.csv".replace("\0", ""), "0", 1)
        ledger.publish(
            claim, Result((one,), 1.0, 500 if number == 5 else 20 + number % 4, facts, b"\xff\xd8" * 2000), lambda: None
        )
    return ledger


def test_a_page_with_scripts_in_every_text_is_inert(tmp_path):
    with closing(ledger_of(tmp_path / "out", 12, SCRIPT)) as ledger:
        write_tables(ledger)
        write_report(ledger)
    text = (tmp_path / "out/report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and page.handlers == [] and page.tags.count("img") == 11
    assert text.count("&lt;script&gt;") > 30
    assert all(a.startswith("data:image/jpeg;base64,") or re.fullmatch(r"[\w%.~/-]+", a) for a in page.addresses)
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")


def opened(page):
    """The title that a page has when a browser has shown it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--timeout=60000",
        "--window-size=1240,1700",
        "--dump-dom",
    ]
    done = subprocess.run([browser, *options, page.absolute().as_uri()], capture_output=True, text=True, timeout=300)
    found = re.search(r"<title>([^<]*)", done.stdout)
    return found[1] if found else done.stderr


@pytest.mark.slow
def test_a_browser_runs_no_script_and_asks_nobody(tmp_path):
    asked = []

    class Heard(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *about):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Heard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_address[1]}"
        run = f"document.title='run';new Image().src='{place}/x'"
        text = f"<script>{run}</script><img src='{place}/y' onerror=\"{run}\"><link rel=stylesheet href='{place}/z'>\"'>{{{{7*7}}}}"
        with closing(ledger_of(tmp_path / "out", 12, text)) as ledger:
            write_tables(ledger)
            write_report(ledger)
        assert opened(tmp_path / "out/report.html") == "Study"
        assert asked == []
        naked = tmp_path / "naked.html"  # the browser does run and ask where it may
        naked.write_text(f"<title>x</title>{text}")
        assert opened(naked) == "run" and asked
        server.shutdown()


def test_a_page_of_two_thousand_cases(tmp_path):
    with closing(ledger_of(tmp_path / "out", 2000)) as ledger:
        write_tables(ledger)
        write_report(ledger)
    text = (tmp_path / "out/report.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == 1800 and text.count('loading="lazy"') == 1800
    assert len(text) < 20e6
    assert text.index('id="case-0005"') < min(text.index(f'id="case-{n:04d}"') for n in (0, 1, 2, 3))
    assert "instances 500, usually" in text and ">200</b><span>failed" in text
    assert (
        '<tr><td>200</td><td>why </td><td class="tight">Error</td>' in text and "<summary>200 cases</summary>" in text
    )


def test_a_page_of_a_mixed_study_compares_sizes_in_one_unit_alone(tmp_path):
    facts = {"modality": "CT", "shape": [4, 5], "notes": [], "score": 0.9}
    sizes = [(f"{1 + n / 10}", "volume_mm3") for n in range(4)] + [(f"{200 + n}", "area_px") for n in range(5)]
    with closing(Ledger(tmp_path)) as ledger:
        with ledger.locked():
            ledger.enroll([Named(f"case-{n}", str(n), (), Case("file", ())) for n in range(len(sizes))], "options")
        for size, name in [*sizes[:-1], ("9000", "area_px")]:
            claim = ledger.claim("me")
            told = facts | {"size": [float(size)], "size_name": name}
            ledger.publish(claim, Result((Output("x.csv", "0", 1),), 1.0, 1, told, b""), lambda: None)
        pd.DataFrame({"volume_mm3": [1.0, None], "volume_ml": [0.001, None], "area_px": [None, 200.0]}).to_parquet(
            tmp_path / "instances.parquet"
        )
        write_report(ledger)
    text = (tmp_path / "report.html").read_text()
    odd = re.findall(r'class="odd">([^<]*)', text)
    assert odd == ["median area 9,000 px, usually 202 px"]
    assert "1 instance, median volume" in text
    # one chart for each unit; volume_mm3 would be volume_ml again
    assert re.findall(r"([a-z]+ of an instance[^,:]*)[^:<]*: 1 instances", text) == [
        "volume of an instance in ml",
        "area of an instance in px",
    ]
