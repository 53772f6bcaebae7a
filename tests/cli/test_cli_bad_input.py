"""Bad input: one line that says what, where and what to do; the right exit code; the others are still done."""

import errno
import gzip
import json
import os
import re
import struct
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image as Picture

from medseg import io, pipeline, presets
from medseg.cli import common, segment
from medseg.ops import files

RNG = np.random.default_rng(0)


def nifti(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), np.eye(4)), path)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_nifti(path: Path) -> None:
    nifti(path, RNG.integers(0, 99, (16, 16, 16)))
    half(path)


def truncated_tiff(path: Path) -> None:
    tifffile.imwrite(path, RNG.integers(0, 255, (64, 64)).astype(np.uint8))
    half(path)


def truncated_png(path: Path) -> None:
    Picture.fromarray(RNG.integers(0, 255, (64, 64)).astype(np.uint8)).save(path)
    half(path)


def with_value(value: float):
    def make(path: Path) -> None:
        array = np.ones((64, 64), np.float32)
        array[3, 3] = value
        tifffile.imwrite(path, array)

    return make


def zero_size(path: Path) -> None:
    nifti(path.with_name("whole.nii.gz"), np.zeros((4, 4, 4)))
    header = bytearray(gzip.decompress(path.with_name("whole.nii.gz").read_bytes()))
    header[40:56] = struct.pack("<8h", 3, 0, 4, 4, 1, 1, 1, 1)
    path.write_bytes(bytes(header))


BAD = {
    "missing.tif": lambda path: None,
    "empty_folder": lambda path: path.mkdir(),
    "text.nii.gz": lambda path: path.write_text("hello\n" * 99),
    "text.tif": lambda path: path.write_text("hello\n" * 99),
    "truncated.nii.gz": truncated_nifti,
    "truncated.tif": truncated_tiff,
    "truncated.png": truncated_png,
    "nothing.tif": lambda path: path.write_bytes(b""),
    "nan.tif": with_value(np.nan),
    "inf.tif": with_value(np.inf),
    "zero.nii": zero_size,
    "five.nii.gz": lambda path: nifti(path, np.zeros((4, 4, 4, 2, 3))),
    "five.tif": lambda path: tifffile.imwrite(path, np.zeros((2, 2, 3, 32, 32), np.uint8), photometric="minisblack"),
    "table.xyz": lambda path: path.write_text("1 2 3"),
    "no_such_*.tif": lambda path: None,
}


def check(line: str, name: str) -> None:
    """One line: what and where, then what to do about it."""
    assert line.startswith("medseg: error: ") and name in line
    what, do = re.fullmatch(r"medseg: error: (.{10,}?)[;.] (.{8,})", line).groups()
    assert "internal fault" not in line and "Error" not in line and "Errno" not in line, (what, do)


def test_all_in_one_call_with_good_ones_between(medseg, field, stack, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    for name, make in BAD.items():
        make(bad / name)
    names = list(BAD)
    given = [*(bad / n for n in names[:7]), field, *(bad / n for n in names[7:]), stack]
    result = medseg("segment", *given, "-o", tmp_path / "out", "--json")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 3
    assert [c["case"] for c in found if "error" not in c] == ["field", "stack"]
    assert len(io.load_labels(tmp_path / "out/field_labels.tif")) == next(c for c in found if "count" in c)["count"]
    failed = {Path(c["case"]).name: c for c in found if "error" in c}
    assert set(failed) == set(BAD) and len(result.errors) == len(BAD)
    for name, case in failed.items():
        assert set(case) == {"case", "error"} and f"medseg: error: {case['error']}" in result.errors
        check(f"medseg: error: {case['error']}", name)
    assert len(list((tmp_path / "out").iterdir())) == 6


@pytest.mark.parametrize("name", BAD)
def test_alone(medseg, tmp_path, name):
    BAD[name](tmp_path / name)
    result = medseg("segment", tmp_path / name, "-o", tmp_path / "out")
    assert result.code == 4 and result.out == "" and len(result.err.splitlines()) == 1
    check(result.errors[0], name)
    assert not (tmp_path / "out").exists()  # nothing came of it


def test_spacing_that_does_not_fit_one_of_two(medseg, field, stack, tmp_path):
    result = medseg("segment", field, stack, "-o", tmp_path / "out", "--spacing", "2,1,1", "--unit", "um", "--json")
    failed, done = (json.loads(line) for line in result.out.splitlines())
    assert result.code == 3 and len(result.errors) == 1 and "field.tif" in result.errors[0]
    assert "spacing" in failed["error"] and done["case"] == "stack"
    assert medseg("segment", field, "-o", tmp_path / "out", "--spacing", "2,1,1").code == 4


USAGE = [
    (["--nope"], "--nope"),
    (["--model", "nuclei9d"], "cells2d, ms-lesions, nuclei2d, nuclei3d"),
    (["--model", "{tmp}"], "no model"),
    (["--unit", "cm"], "'cm'"),
    (["--unit", "um"], "--spacing"),
    (["--spacing", "a,b"], "'a,b'"),
    (["--spacing", "1,-1"], "positive"),
    (["--spacing", "nan"], "positive"),
    (["--tile", "64,0.5"], "whole"),
    (["--device", "tpu"], "device"),
    (["--min-score", "2"], "--min-score"),
    (["--channel-axis", "x"], "--channel-axis"),
]


@pytest.mark.parametrize(("options", "said"), USAGE)
def test_usage(medseg, field, tmp_path, options, said):
    options = [o.format(tmp=tmp_path) for o in options]
    result = medseg("segment", field, tmp_path / "missing.tif", "-o", tmp_path / "out", *options)
    assert result.code == 2 and result.out == "" and len(result.err.splitlines()) == 1  # before anything is read
    assert said in result.errors[0] and "internal" not in result.errors[0]


def test_usage_of_commands(medseg, tmp_path):
    for arguments, said in [
        (["segment"], "INPUT"),
        (["segment", "a.tif"], "--output"),
        (["nope"], "nope"),
        (["--nope"], "--nope"),
        (["evaluate"], "PREDICTION"),
        (["evaluate", "a.tif"], "PREDICTION"),
        (["bench", "nope"], "nope"),
        (["train", "nope"], "nuclei2d"),
        (["train", tmp_path / "nope.yaml"], "nope.yaml"),
        (["split", tmp_path / "nope.yaml", "-o", tmp_path / "s.json"], "nope.yaml"),
        (["evaluate", "--model", "nuclei2d", "--config", "nope"], "nope"),
    ]:
        result = medseg(*arguments)
        assert result.code == 2 and result.out == "" and len(result.err.splitlines()) == 1
        assert said in result.errors[0] and "internal" not in result.errors[0]


def test_damaged_model_is_told_before_anything_is_read(medseg, field, tmp_path, monkeypatch):
    whole = presets.weights()["nuclei2d"].read_bytes()
    monkeypatch.setattr(io, "load", lambda *a, **k: pytest.fail("an image was read"))
    for name, data in {"half": whole[: len(whole) // 2], "junk": b"junk" * 99, "text": b"no model", "no": b""}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        result = medseg("segment", field, "-o", tmp_path / "out", "--model", path)
        assert result.code == 2 and result.out == "" and len(result.err.splitlines()) == 1
        assert path.name in result.errors[0] and "damaged" in result.errors[0]


def test_model_of_another_dimension(medseg, field, stack, tmp_path):
    result = medseg("segment", stack, field, "-o", tmp_path / "out", "--model", "nuclei2d")
    assert result.code == 3 and len(result.errors) == 1 and result.out.startswith("field: ")
    check(result.errors[0], "stack.ome.tif")


def test_output_that_cannot_be_a_folder(medseg, field, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("precious")
    for output in (tmp_path / "file", tmp_path / "file/below"):
        result = medseg("segment", field, "-o", output)
        assert result.code == 4 and result.out == "" and len(result.err.splitlines()) == 1
        check(result.errors[0], str(output))
        assert medseg("demo", "-o", output).code == 4
    assert (tmp_path / "file").read_text() == "precious"
    monkeypatch.setattr(common.os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    result = medseg("segment", field, "-o", tmp_path)
    assert result.code == 4 and result.out == ""
    check(result.errors[0], str(tmp_path))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_output_that_fails_on_the_way(medseg, field, stack, tmp_path, monkeypatch, code):
    third = tmp_path / "third.tif"
    third.write_bytes(field.read_bytes())
    real = os.replace

    def replace(source, target):
        if "stack_instances" in str(target):
            raise OSError(code, os.strerror(code))
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    result = medseg("segment", field, stack, third, "-o", tmp_path / "out", "--json")
    assert result.code == 3 and len(result.errors) == 1 and os.strerror(code) in result.errors[0]
    assert "stack_instances.csv" in result.errors[0] and "1 of 3 inputs were done" in result.errors[0]
    assert [json.loads(line)["case"] for line in result.out.splitlines()] == ["field", str(stack)]  # the run is over
    made = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert made == ["field_instances.csv", "field_labels.tif", "field_overlay.png", "stack_labels.tif"]
    io.load_labels(tmp_path / "out/stack_labels.tif")
    io.load_labels(tmp_path / "out/field_labels.tif")
    result = medseg("segment", stack, field, "-o", tmp_path / "out")
    assert result.code == 4 and result.out == "" and len(result.errors) == 1


def test_a_fault_of_ours_in_one_image_does_not_cost_the_others(medseg, field, stack, tmp_path, monkeypatch):
    real = pipeline.run

    def run(image, model, options):
        if image.grid.ndim == 3:
            raise KeyError("Surname^Given")
        return real(image, model, options)

    monkeypatch.setattr(pipeline, "run", run)
    result = medseg("segment", stack, field, "-o", tmp_path / "out")
    assert result.code == 1 and result.out.startswith("field: ") and len(result.err.splitlines()) == 1
    assert "stack.ome.tif: internal fault (KeyError at test_cli_bad_input.py:" in result.errors[0]
    assert "Surname" not in result.err  # a library's message may quote a header


def test_a_fault_of_ours_elsewhere(medseg, monkeypatch):
    monkeypatch.setattr(presets, "weights", lambda: 1 / 0)
    result = medseg("models")
    assert result.code == 1 and len(result.err.splitlines()) == 1 and "ZeroDivisionError at" in result.errors[0]


def test_out_of_memory(medseg, field, tmp_path, monkeypatch):
    def run(*arguments):
        raise MemoryError

    monkeypatch.setattr(pipeline, "run", run)
    result = medseg("segment", field, "-o", tmp_path / "out")
    assert result.code == 4
    check(result.errors[0], "field.tif")


def test_interrupt(medseg, field, tmp_path, monkeypatch):
    def run(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", run)
    result = medseg("segment", field, "-o", tmp_path / "out")
    assert result.code == 130 and result.err == "medseg: interrupted; files already written are whole\n"


def test_nobody_reads_the_results_any_more(medseg, field, stack, tmp_path, monkeypatch):
    def done(tell, case):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(segment._Tell, "done", done)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # typer wraps it then
    result = medseg("segment", field, stack, "-o", tmp_path / "out")
    assert result == (130, "", "") and not list((tmp_path / "out").glob("stack*"))


def test_two_series_in_a_folder(medseg, ct, tmp_path):
    other = pydicom.dcmread(ct / "0.dcm")
    other.SeriesInstanceUID = "1.2.9"
    other.save_as(ct / "other.dcm")
    for arguments in (["segment", ct, "-o", tmp_path / "out"], ["info", ct]):
        result = medseg(*arguments)
        assert result.code == 4 and result.out == "" and len(result.err.splitlines()) == 1
        check(result.errors[0], f"{ct}: There are 2 DICOM series here")


def test_other_commands(medseg, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "recipe.yaml").write_text("sources:\n  - {name: a, images: nothing}\n")
    truncated_tiff(tmp_path / "cut.tif")
    for arguments, said in [
        (["info", tmp_path / "missing.tif"], "missing.tif"),
        (["info", "nuclei9d"], "cells2d, ms-lesions, nuclei2d, nuclei3d"),
        (["info", "x" * 999], "too long"),
        (["info", tmp_path / "cut.tif"], "cut.tif"),
        (["info", tmp_path], str(tmp_path)),
        (["evaluate", tmp_path / "missing", tmp_path], "missing"),
        (["split", tmp_path / "recipe.yaml", "-o", tmp_path / "s.json"], "MEDSEG_DATA"),
        (["train", "nuclei2d", "-o", tmp_path / "run", "--device", "cpu"], "MEDSEG_DATA"),
    ]:
        result = medseg(*arguments)
        lines = [line for line in result.err.splitlines() if not line.startswith("training ")]
        assert result.code == 4 and result.out == "" and said in lines[0] + lines[-1], result
        assert len(lines) == 1 or "train" in arguments, result  # faults of a data set are told all at once
        assert lines[0].startswith("medseg: error: ") and "internal" not in lines[0]
