"""The documentation is true: snippets run, links lead somewhere, and every command, name, key, column and error has its place.

Rules for pages, README and CONTRIBUTING included:

- A `python` block runs, all of a page in order and in one namespace, in a folder with the samples `cells.tif`, `tissue.tif` and
  `stack.ome.tif`. A `text title="Output"` block after it is what it prints.
- In a `console` block the lines `$ medseg ...` run and end with exit code 0. Lines below one are what it prints; `...` is anything.
- A block with a file name as title becomes that file. `pyproject.toml` makes its entry points known.
- `bash`, `text`, `py` and `yaml` blocks without a title do not run. Commands and options in them must still exist.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer.main
import yaml
from markdown.extensions.toc import slugify
from pydantic import BaseModel

import medseg
import medseg.errors
from medseg import cli, presets, spec
from medseg.instances import Instances
from medseg.io import SUFFIXES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if p.exists()] + sorted(DOCS.rglob("*.md"))
SAMPLES = {"fluorescence.tif": "cells.tif", "tissue.tif": "tissue.tif", "ovule.ome.tif": "stack.ome.tif"}


def commands(group: object) -> dict[str, object]:
    """All commands by name. A group's first one is meant by the name of the group alone."""
    found = {}
    for name, one in group.commands.items():
        inner = getattr(one, "commands", {})
        found |= {f"{name} {own}" if i else name: c for i, (own, c) in enumerate(inner.items())} or {name: one}
    return found


COMMANDS = commands(typer.main.get_command(cli.app))
OPTIONS = {name: {o for p in c.params for o in p.opts if o.startswith("-")} for name, c in COMMANDS.items()}

FENCE = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, title, text, and the page's line on which the text begins."""

    language: str
    title: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    return [Block(m[1], m[2] or "", m[3], text.count("\n", 0, m.start(3)) + 1) for m in FENCE.finditer(text)]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = re.escape(heading.split(" ")[0])
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{heading.count('#')}}} |\Z)", text, re.M | re.S)
    assert found, f"there is no heading {heading!r} of level {level}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Cells of all table rows but headers and rules."""
    lines = [[c.strip() for c in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")]
    rules = {i for i, line in enumerate(lines) if set("".join(line)) <= set("-|")}
    return [line for i, line in enumerate(lines) if i not in rules and i + 1 not in rules]


def coded(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def by_path(page: Path) -> str:
    return str(page.relative_to(ROOT)) if ROOT in page.parents else page.name


every_page = pytest.mark.parametrize("page", PAGES, ids=by_path)


# ------------------------------------------------------------------ snippets run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder with the samples, as a reader of the tutorials has it."""
    for name, copy in SAMPLES.items():
        shutil.copy(presets.samples() / name, tmp_path / copy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSEG_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def medseg_command(line: str) -> tuple[int, str, str]:
    """Run a command line in process; returns exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        cli.main(shlex.split(line)[1:])
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def lines(text: str) -> str:
    """Text without white space at the ends of its lines."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()).rstrip("\n")


def run_console(text: str, where: str) -> None:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        if not command.startswith("medseg "):
            continue
        code, out, err = medseg_command(command)
        assert code == 0, f"{where}: $ {command}\nexit code {code}\n{err}"
        wanted = ".*".join(map(re.escape, lines(shown).split("...")))
        if wanted:
            assert re.fullmatch(wanted, lines(out), re.DOTALL), f"{where}: $ {command}\nprints\n{out}\nnot\n{shown}"


def install(text: str, folder: Path) -> None:
    """Make the entry points of a pyproject.toml known, as pip would."""
    project = tomllib.loads(text)["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))
    importlib.invalidate_caches()


def write_titled(block: Block, folder: Path) -> None:
    (folder / block.title).write_text(block.text, encoding="utf-8")
    if block.title == "pyproject.toml":
        install(block.text, folder)


def run_page(page: Path, folder: Path) -> int:
    """Run all that runs on a page, in order; returns how much that was."""
    namespace: dict[str, object] = {"__name__": "page"}
    printed, count = "", 0
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{by_path(page)}:{block.line}"
        if "." in block.title:
            write_titled(block, folder)
        elif block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            printed, count = out.getvalue(), count + 1
        elif block.language == "console":
            run_console(block.text, where)
            count += 1
        elif block.title == "Output":
            assert lines(printed) == lines(block.text), f"{where}: the block above prints\n{printed}"
    return count


RUNNING = [p for p in PAGES if any(b.language in ("python", "console") for b in blocks(p.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("page", RUNNING, ids=by_path)
def test_snippets_run(page, place):
    assert run_page(page, place) > 0


def test_the_pages_that_teach_have_snippets():
    names = {by_path(p) for p in RUNNING}
    taught = {by_path(p) for p in PAGES if p.parent.name in ("tutorials", "how-to")}
    # windows are walked through by tests/napari/test_tutorials.py
    assert taught - {"docs/tutorials/viewer.md"} <= names


@every_page
def test_no_block_escapes_the_tests(page):
    text = page.read_text(encoding="utf-8")
    fences = [line for line in text.splitlines() if re.match(r"\s*(```|~~~)", line)]
    assert len(fences) == 2 * len(blocks(text)), (
        "a fence is indented, not closed, or has more than a language and a title"
    )
    for block in blocks(text):
        assert block.language in ("python", "py", "console", "bash", "text", "yaml", "toml", "json"), block
        if block.language == "console":
            assert block.text.startswith("$ "), block
        if block.title == "Output" or "." in block.title:
            continue
        assert block.language not in ("yaml", "toml") or yaml.safe_load(block.text), block


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('```python\nprint(1)\n```\n\n```text title="Output"\n2\n```\n', AssertionError),
        ("```python\nraise KeyError\n```\n", KeyError),
        ("```console\n$ medseg info nothing.tif\n```\n", AssertionError),
        ("```console\n$ medseg info --nonsense cells.tif\n```\n", AssertionError),
        ("```console\n$ medseg info cells.tif\nformat png\n```\n", AssertionError),
    ],
)
def test_the_runner_notices_what_is_not_true(text, error, place):
    page = place / "page.md"
    page.write_text(text)
    with pytest.raises(error):
        run_page(page, place)


# ------------------------------------------------------------------ links and the site


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {slugify(re.sub(r"[`*]|\]\([^)]*\)|\[", "", h), "-") for h in headings}


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target}: no such file"
        assert DOCS in there.parents or DOCS not in page.parents, f"{target}: leaves the site"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def nav(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for e in (entry.values() if isinstance(entry, dict) else entry) for page in nav(e)]


def test_nav_holds_every_page_in_four_kinds():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(nav(config["nav"])) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))
    assert [next(iter(e)) for e in config["nav"]][1:] == ["Tutorials", "How to", "Explanation", "Reference"]


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/reference/models.html").is_file()
    assert not list((tmp_path / "site").rglob("*.py"))


@pytest.mark.slow
def test_the_head_of_the_guide_keeps_the_contract(place):
    for block in blocks(read("how-to/add-a-head.md")):
        if "." in block.title:
            write_titled(block, place)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "test_cores.py"]
    path = os.pathsep.join([str(place), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=place, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_models_page_shows_the_shipped_models():
    maker = importlib.util.spec_from_file_location("make_models_page", DOCS / "make_models_page.py")
    assert maker is not None and maker.loader is not None
    module = importlib.util.module_from_spec(maker)
    maker.loader.exec_module(module)
    page = read("reference/models.md")
    assert page == module.page(), (
        "docs/reference/models.md is not what `python -m medseg info NAME` prints for the shipped models; "
        "write it again with `make docs` or `python docs/make_models_page.py`"
    )
    assert presets.weights()
    assert all(f"\n## {name}: " in page for name in presets.weights())


# ------------------------------------------------------------------ commands


def test_every_command_is_on_its_page_and_no_other():
    text = read("reference/cli.md")
    sections = re.findall(r"^## medseg ([\w ]+)$", text, re.MULTILINE)
    overview = [row[0] for row in rows(text.split("\n## ")[0])]
    assert [f"[`medseg {name}`](#medseg-{name.replace(' ', '-')})" for name in sections] == overview
    assert sorted(sections) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page_with_its_default(name):
    text = section(read("reference/cli.md"), f"## medseg {name}")
    told = {frozenset(coded(row[0])): row[1] for row in rows(text) if row[0].startswith("`-")}
    params = [p for p in COMMANDS[name].params if p.opts[0].startswith("-")]
    assert set(told) == {frozenset(p.opts) for p in params}
    for param in params:
        default = told[frozenset(param.opts)]
        if param.required:
            assert default == "required"
        elif isinstance(param.default, bool):
            assert default == "off"
        elif param.default is not None:
            assert default == f"`{param.default}`"
        else:
            assert default not in ("", "required", "off")
    for param in COMMANDS[name].params:
        if not param.opts[0].startswith("-"):
            word = re.split(r"\W", param.metavar or param.name.upper())[0]
            assert word in text or word.lower() in text, f"the argument {word} is not explained"


def calls(text: str) -> list[tuple[str, str]]:
    """Every `medseg COMMAND ...` in blocks and in backticks."""
    code = "\n".join([b.text for b in blocks(text) if b.language in ("bash", "console", "text")] + coded(prose(text)))
    found = re.findall(r"(?:^|[ (])medseg ([a-z]+)\b([^\n|;>#]*)", code, re.MULTILINE)
    longer = [(f"{name} {(rest.split() or [''])[0]}", name, rest) for name, rest in found]
    return [(full if full in COMMANDS else name, rest) for full, name, rest in longer]


@every_page
def test_commands_and_options_in_all_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    for name, rest in calls(text):
        assert name in COMMANDS, f"medseg {name}"
        used = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) - {"--help"}
        assert used <= OPTIONS[name], f"medseg {name}{rest}"
    alone = {c.split()[0] for c in coded(prose(text)) if c.startswith("--")}
    known = set().union(*OPTIONS.values(), {"--help"})
    assert alone <= known | {"--strict"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join([b.text for b in blocks(text) if b.language == "bash"] + coded(prose(text)))
    assert set(re.findall(r"(?:^|[ (])make ([a-z-]+)", code, re.MULTILINE)) <= targets


def test_json_of_segment_has_the_keys_of_the_guide(place):
    told = rows(section(read("how-to/segment-a-folder.md"), "## Check a run by machine"))
    keys = [key for row in told for key in coded(row[0])]
    code, out, err = medseg_command("medseg segment cells.tif nothing.tif -o results --json")
    done, failed = sorted(map(json.loads, out.splitlines()), key=lambda case: "error" in case)
    assert code == 3
    assert err
    assert set(keys) == set(done) | set(failed)
    assert set(failed) == {"case", "error"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("medseg models", 0),
        ("medseg segment cells.tif -o out --model no_such_model", 2),
        ("medseg segment cells.tif -o out --no-such-option", 2),
        ("medseg segment nothing.tif -o out", 4),
        ("medseg nonsense", 2),
    ],
)
def test_exit_codes_are_those_of_the_pages(line, code, place):
    assert medseg_command(line)[0] == code
    for page, heading in (
        ("how-to/segment-a-folder.md", "## Check a run by machine"),
        ("reference/errors.md", "## Exit codes of the command line"),
    ):
        told = {int(row[0]) for row in rows(section(read(page), heading)) if row[0].isdigit()}
        assert told == set(map(int, re.findall(r"\b(\d+) [a-z]", cli.__doc__ or "")))


# ------------------------------------------------------------------ Python names


def signature(thing: object) -> str:
    """Arguments as the page shows them: no self, no annotations, double quotes."""
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for name, p in inspect.signature(thing).parameters.items()
        if name not in ("self", "cls")
    ]
    return str(inspect.Signature(parameters)).replace("'", '"').replace("<factory>", "...")


def test_the_page_has_the_public_names_and_no_other():
    text = read("reference/api.md")
    assert sorted(re.findall(r"^### medseg\.(\w+)$", text, re.MULTILINE)) == medseg.__all__


@pytest.mark.parametrize("name", medseg.__all__)
def test_signatures_on_the_page_are_the_real_ones(name):
    text, thing = section(read("reference/api.md"), f"### medseg.{name}"), getattr(medseg, name)
    for block in blocks(text):
        assert block.text.strip() == f"medseg.{name}{signature(thing)}"
    assert blocks(text) or name in ("Model", "MedsegError")
    if not inspect.isclass(thing) or issubclass(thing, (BaseModel, Exception)):
        return
    public = {k: v for k, v in vars(thing).items() if not k.startswith("_")}
    methods = {k for k, v in public.items() if isinstance(v, classmethod) or inspect.isfunction(v)}
    told = {coded(row[0])[0] for row in rows(text)}
    assert told == {f"{k}{signature(getattr(thing, k))}" for k in methods}
    assert {k for k, v in public.items() if isinstance(v, property)} <= set(coded(prose(text)))


def test_arguments_options_and_events_are_explained():
    text = read("reference/api.md")
    explained = {
        "segment": set(inspect.signature(medseg.segment).parameters),
        "RunSpec": set(medseg.RunSpec.model_fields),
    }
    for name, wanted in explained.items():
        assert {coded(row[0])[0] for row in rows(section(text, f"### medseg.{name}"))} == wanted
    from medseg import pipeline

    events = {coded(row[0])[0]: row[1] for row in rows(section(text, "### medseg.run"))}
    assert set(events) == {c.__name__ for c in pipeline.Event.__args__}
    for name, fields in events.items():
        assert set(coded(fields)) == set(inspect.signature(getattr(pipeline, name)).parameters)


def test_other_modules_hold_what_the_page_says():
    for module, holds in rows(section(read("reference/api.md"), "## Other modules")):
        found = importlib.import_module(coded(module)[0])
        assert [name for name in coded(holds) if not hasattr(found, name)] == []


# ------------------------------------------------------------------ files, errors, layers


def default(field: object) -> str:
    """A default as the page shows it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return "none" if value is None else "see below"
    return f"`{json.dumps(value)}`"


@pytest.mark.parametrize(
    "name",
    [
        "BatchSpec",
        "CaseSpec",
        "ModelSpec",
        "SplitSpec",
        "SplitSource",
        "TrainSpec",
        "DataSpec",
        "SourceSpec",
        "NetSpec",
        "PreprocessSpec",
    ]
    + ["AugmentSpec", "SemanticSpec", "WatershedSpec", "OffsetSpec"],
)
def test_every_key_of_a_spec_is_on_the_page_with_its_default(name):
    fields = getattr(spec, name).model_fields
    table = "".join(rf"\| `{k}` \| {re.escape(default(f))} \| [^|\n]+ \|\n" for k, f in fields.items())
    assert re.search(rf"\|---\|---\|---\|\n{table}(?!\|)", read("reference/files.md")), {
        k: default(f) for k, f in fields.items()
    }


def columns() -> dict[str, set[str]]:
    """Columns of tables, by kind of image and unit."""
    out = {}
    for ndim in (2, 3):
        for spacing, units in ((0.5, ("um", "mm")), (None, ("px",))):
            grid = medseg.Grid.from_spacing((8,) * ndim, spacing)
            some = Instances.from_labels(np.ones(grid.shape, np.int32), grid)
            out |= {f"{ndim} {unit}": set(some.table_in(unit).columns) for unit in units}
    return out


def test_every_column_is_explained():
    told = {name for row in rows(section(read("reference/files.md"), "## Table")) for name in coded(row[0])}
    assert told == set().union(*columns().values())
    page, real = read("tutorials/first-image.md"), columns()
    flat = {name for row in rows(section(page, "## 5. Read the table")) for name in coded(row[0])}
    assert flat == real["2 px"]
    physical = {name for row in rows(section(page, "## 6. Give the pixel size")) for name in coded(row[0])}
    assert physical == real["2 um"] - real["2 px"]
    stack = {name for row in rows(section(page, "## 7. A stack")) for name in coded(row[0])}
    assert stack == real["3 um"] - real["2 um"]


def test_every_format_is_listed():
    table = rows(section(read("reference/files.md"), "## Formats read and written"))
    assert {suffix for row in table for suffix in coded(row[1])} == set(SUFFIXES)


def test_every_error_is_in_the_tree():
    kinds = [e for e in vars(medseg.errors).values() if inspect.isclass(e)]
    told = {coded(row[0])[0]: coded(row[1]) for row in rows(section(read("reference/errors.md"), "## The tree"))}
    assert told == {e.__name__: [base.__name__ for base in e.__bases__] for e in kinds}


def test_common_messages_are_messages_of_the_program():
    source = "\n".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "medseg").rglob("*.py")))
    for row in rows(section(read("reference/errors.md"), "## Common ones")):
        for message in coded(row[0]):
            for piece in re.split(r"\d+(?:-D)?|\.\.\.|\bCT\b|\(.*\)", message):
                assert piece.strip() in source, message


def test_layers_are_those_that_are_enforced():
    text = read("explanation/architecture.md")
    shown = next(b.text.split("\n")[:-1] for b in blocks(text) if b.title == "layers")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["type"] == "layers")
    assert shown == layers["layers"]
    names = {name for row in rows(section(text, "## Layers")) for name in coded(row[0])}
    assert names == set(re.findall(r"\w+", " ".join(layers["layers"]))) | {"testing"}
    torchless = next(c for c in contracts if "torch" in c.get("forbidden_modules", []))["source_modules"]
    rule = section(text, "## Layers").rsplit("\n\n", 1)[1]
    assert {f"medseg.{name}" for name in coded(rule)} == {*torchless, "medseg.testing"}


def test_numbers_of_the_architecture_are_those_of_the_code():
    from medseg import pipeline
    from medseg.ops import stitch

    text = " ".join(read("explanation/architecture.md").split())
    sizes = [*pipeline._WINDOW.values(), *pipeline._REGION.values()]
    assert [size for size in sizes if " x ".join(map(str, size)) not in text] == []
    assert f"share more than {stitch._SAME} of their union" in text


def test_lists_and_tables_stand_apart():
    """Python-Markdown takes a list or a table that follows a line of text for more of that text."""
    for page in sorted(DOCS.rglob("*.md")):
        for before, line in itertools.pairwise(prose(page.read_text(encoding="utf-8")).splitlines()):
            for mark in (r"- |\d+\. ", r"\|"):
                inside = re.match(rf"{mark}|  |$", before)
                assert not re.match(mark, line) or inside, f"{by_path(page)}: {line}"
