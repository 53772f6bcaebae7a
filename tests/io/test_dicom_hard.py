"""All difficult DICOM files, one by one: read or refused by name, in bounded time and memory."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.errors import MedsegError

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("MEDSEG_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning"),
    pytest.mark.skipif(not (DATA / "dicom-hard").is_dir(), reason="real data not here; set MEDSEG_DATA to its folder"),
]


def table():
    spec = importlib.util.spec_from_file_location("make_dicom_table", ROOT / "docs" / "make_dicom_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_file_is_read_or_refused_in_bounded_time_and_memory():
    resource = pytest.importorskip("resource")
    module = table()
    module.DATA = DATA / "dicom-hard"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = module.outcomes()  # an error that is not typed ends it
    assert len(found) == 437 and sum(one.verdict == "read" for one in found) >= 299
    assert max(one.seconds for one in found) < 30
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert max(own, workers) < 1 << 20  # KiB: 1 GiB
    text = module.page(found)
    assert "Anonymous" not in text and "^" not in text and text.count("\n") > 50


def test_the_page_is_up_to_date():
    module = table()
    module.DATA = DATA / "dicom-hard"
    assert module.PAGE.read_text(encoding="utf-8") == module.page(module.outcomes())


@pytest.mark.parametrize("seed", range(3))
def test_files_with_flipped_bytes(tmp_path, seed):
    """No damage to header or pixels gives anything but an image or a typed error of one line."""
    names = [
        "pydicom-test_files/CT_small.dcm", "pydicom-test_files/rtdose.dcm", "pydicom-test_files/examples_palette.dcm",
        "dicom2nifti/hyperfine/anatomical/001/001.dcm", "pydicom-test_files/image_dfl.dcm",
        "pydicom-test_files/MR_small_bigendian.dcm", "pydicom-test_files/SC_rgb_rle.dcm",
        "pydicom-test_files/MR_small_jpeg_ls_lossless.dcm", "pydicom-test_files/MR_small_jp2klossless.dcm",
        "pydicom-test_files/SC_rgb_jpeg_gdcm.dcm", "pydicom-test_files/dicomdirtests/DICOMDIR",
    ]  # fmt: skip
    draw = np.random.default_rng(seed)
    for turn in range(110):
        content = bytearray((DATA / "dicom-hard" / names[turn % len(names)]).read_bytes())
        end = len(content) if turn % 3 else min(len(content), 6000)
        for _ in range(draw.integers(1, 12)):
            content[draw.integers(128, end)] = draw.integers(256)
        path = tmp_path / "f.dcm"
        path.write_bytes(content if turn % 7 else content[: draw.integers(140, len(content))])
        try:
            io.load(path).voxels()
        except MedsegError as error:
            assert "\n" not in str(error)
