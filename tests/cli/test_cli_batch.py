"""medseg batch: options, what it refuses, what it shows. What it does is in tests/batch."""

import inspect
import json
from typing import get_args

import pytest

from medseg import export
from medseg.cli import batch, watch
from medseg.spec import BatchSpec
from medseg.spec.case import Kind

RULE = ("--threshold", "otsu", "--method", "components")


@pytest.mark.parametrize("command", [batch.run, watch.watch])
def test_defaults_are_those_of_the_specs(command):
    said = {name: p.default for name, p in inspect.signature(command).parameters.items()}
    spec = BatchSpec()
    for name in ("jobs", "threads", "seconds", "memory"):
        assert said[name] == getattr(spec, name)
    for name in ("unit", "regularize", "deidentify", "model", "threshold", "spacing", "channels", "channel_axis"):
        assert said[name] == getattr(spec.case, name)
    assert tuple(said["save"].split(",")) == spec.case.save == export.DEFAULT
    assert (said["method"], said["min_volume"]) == (spec.case.separate.method, spec.case.separate.min_volume)
    assert set(get_args(Kind)) == set(export.KINDS)


def test_dry_run(medseg, field, ct, tmp_path):
    code, out, err = medseg("batch", tmp_path, "-o", tmp_path / "out", *RULE, "--dry-run")
    assert (code, err) == (0, "") and out.startswith("2 cases\n") and "PATIENT_NAME" not in out
    assert out.splitlines()[1].split() == [
        "number",
        "kind",
        "modality",
        "suffix",
        "inputs",
        "files",
    ]  # no column that is empty
    rows = json.loads(medseg("batch", tmp_path, "-o", tmp_path / "out", *RULE, "--dry-run", "--json").out)
    assert [(r["kind"], r["modality"], r["files"]) for r in rows] == [("file", "", 1), ("dicom", "CT", 8)]
    some = medseg("batch", tmp_path, "-o", tmp_path / "out", *RULE, "--dry-run", "--where", "modality=CT")
    assert some.out.startswith("1 case\n") and some.err == "medseg: 1 case is left out by --where\n"
    assert not (tmp_path / "out").exists()


def test_what_is_refused(medseg, field, tmp_path):
    home, out = tmp_path, tmp_path / "out"
    for given, code, words in (
        ([tmp_path / "nothing", "-o", out], 4, "is not there"),
        ([home, "-o", home], 2, "is also the input"),
        ([home, "-o", out, "--where", "modality"], 2, "no NAME=VALUE"),
        ([home, "-o", out, "--where", "modality=CT"], 4, "no case says 'modality'"),
        ([home, "-o", out, "--where", "suffix=png"], 4, "no case is left; --where leaves out all 1"),
        ([home, "-o", out, "--method", "distance"], 2, "belongs to --threshold"),
        ([home, "-o", out, *RULE, "--model", "nuclei2d"], 2, "one of the two"),
        ([home, "-o", out, "--jobs", "0"], 2, "--jobs"),
        (["status", out], 4, "holds no batch"),
        (["retry", out], 4, "holds no batch"),
        (["report", out], 4, "holds no batch"),
        ([], 2, "INPUT"),
    ):
        result = medseg("batch", *given)
        assert result.code == code and words in result.errors[-1], (given, result)
    assert not out.exists()


def test_results_are_no_inputs(medseg, field, tmp_path):
    out = tmp_path / "out"
    assert medseg("batch", tmp_path, "-o", out, *RULE, "--save", "labels").code == 0
    again = medseg("batch", tmp_path, "-o", out, *RULE, "--dry-run", "--json", "--pattern", "out/{case}/{name}.tif")
    assert again.code == 4 and "no case is left; all files under it are results" in again.errors[0]
    status = json.loads(medseg("batch", "status", out, "--json").out)
    assert status["cases"]["done"] == 1 and status["failed"] == []
    assert medseg("batch", "retry", out).err == "medseg: nothing failed and nothing is left to do\n"
    assert medseg("batch", "report", out).out.startswith("6 instances -> ")


def test_what_was_done_before_is_said(medseg, field, tmp_path):
    out = tmp_path / "out"
    first = medseg("batch", tmp_path, "-o", out, *RULE, "--save", "labels")
    same = medseg("batch", tmp_path, "-o", out, *RULE, "--save", "labels")
    other = medseg("batch", tmp_path, "-o", out, *RULE, "--save", "labels,csv")
    assert first.err == "" and same.err == "medseg: 1 case is done already\n"
    assert other.err == "medseg: 1 case was done with other options or another model, and will be again\n"


def test_a_rule_that_cannot_be_understood(medseg, field, tmp_path):
    result = medseg("batch", tmp_path, "-o", tmp_path / "out", "--threshold", "nonsense")
    assert result.code == 2 and len(result.errors) == 1 and "nonsense" in result.errors[0]
