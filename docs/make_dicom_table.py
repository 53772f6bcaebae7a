"""Write reference/dicom-files.md: what medseg makes of each of 437 difficult DICOM files. Needs MEDSEG_DATA.

The files are not part of the project; where they are absent, nothing is written and the page stays as it is.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from medseg import io
from medseg.errors import MedsegError

PAGE = Path(__file__).parent / "reference" / "dicom-files.md"
DATA = Path(os.environ.get("MEDSEG_DATA", Path(__file__).parents[2] / "shared" / "data")) / "dicom-hard"
HEAD = """# Difficult DICOM files

<!-- Made by docs/make_dicom_table.py. Do not edit. -->

What `medseg.io.load` makes of each of {count} difficult files from public collections: the test files of
[pydicom](https://github.com/pydicom/pydicom), [dicom2nifti](https://github.com/icometrix/dicom2nifti),
[cornerstone](https://github.com/cornerstonejs/cornerstoneWADOImageLoader), [mirp](https://github.com/oncoray/mirp) and
[dcm_qa_ct](https://github.com/neurolabusc/dcm_qa_ct), and series spoiled on purpose. Each is opened alone. {read} are
read with all their voxels; {refused} are refused with a typed error. None ends or hangs the process.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one file: "read" or the name of the error, what was found or said, and seconds."""

    file: str
    verdict: str
    told: str
    seconds: float


def outcome(path: Path, name: str) -> Outcome:
    """Load a file and touch every voxel."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = io.load(path)
            image.voxels()
        colours = "" if len(image.channels) == 1 else f", {len(image.channels)} channels"
        verdict, told = "read", f"{image.grid.describe()}, {image.array.dtype}{colours}"
    except MedsegError as error:
        verdict, told = type(error).__name__, str(error).replace(f"{path.parent}/", "").replace(path.name, "The file")
    return Outcome(name, verdict, told, time.perf_counter() - started)


def outcomes() -> list[Outcome]:
    """All files of the manifest, in its order."""
    files = [entry["file"] for entry in json.loads((DATA / "manifest.json").read_text())["files"]]
    return [outcome(DATA / file, file) for file in files]


def page(found: list[Outcome]) -> str:
    """The whole page: counts, then one line for each folder and outcome."""
    read = sum(one.verdict == "read" for one in found)
    lines = [HEAD.format(count=len(found), read=read, refused=len(found) - read), "| outcome | files |", "|---|---|"]
    lines += [f"| {verdict} | {count} |" for verdict, count in Counter(one.verdict for one in found).most_common()]
    lines += ["", "| file | outcome | found, or the reason |", "|---|---|---|"]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        folder = str(Path(one.file).parent)
        groups.setdefault((folder, one.verdict, one.told), []).append(Path(one.file).name)
    for (folder, verdict, told), names in groups.items():
        shown = f"`{folder}/{names[0]}`" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        lines.append(f"| {shown} | {verdict} | {told.replace('|', ' ')} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__" and DATA.is_dir():
    PAGE.write_text(page(outcomes()), encoding="utf-8")
