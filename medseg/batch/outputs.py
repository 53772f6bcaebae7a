"""The files of one case of a batch: written into a folder of its own first, given their final names when all are whole."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from medseg import io
from medseg.batch.ledger import Output
from medseg.errors import OutputError
from medseg.export import save_spec
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.clinical.deidentifier import VERSION
from medseg.io.overlay import draw
from medseg.ops.files import sync_folder, write_whole
from medseg.spec import BatchSpec

STAGING = ".staging"
_THUMB = 160  # pixels of a thumbnail's longer side
_LIBRARIES = ("numpy", "scipy", "torch", "monai")
_BIDS_DESCRIPTION = {
    "Name": "medseg instance segmentation",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "medseg", "Version": VERSION}],
}
_BIDS_IGNORE = (
    "*.parquet\n*_overlay.png\n*_provenance.json\n*.sqlite*\nkey.csv\nbatch.json\ninstances.csv\nreport.html\n"
)


def write_case(
    instances: Instances, image: Image, folder: Path, name: str, place: str, spec: BatchSpec
) -> pd.DataFrame:
    """Write the files of a case into `folder`, laid out as they will be, and return its table.

    Parameters
    ----------
    instances, image
        What was found, on what.
    folder
        Staging folder.
    name
        Of the case.
    place
        Folder of a BIDS case, such as "sub-01/anat"; else "".
    spec
        What is written.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    home = folder / (place or name)
    make(home)
    case = spec.case
    kinds = dict.fromkeys((*case.save, "parquet"))  # tables of all cases become one of the study
    if not place:
        save_spec(instances, image, home, name, case.model_copy(update={"save": tuple(kinds)}))
        return pd.read_parquet(home / f"{name}_instances.parquet")
    begin, _, last = name.rpartition("_")
    stem = f"{begin}_desc-{last.replace('-', '')}"
    own = tuple(kind for kind in kinds if kind not in ("labels", "nifti", "csv"))  # BIDS has names for these
    save_spec(instances, image, home, stem, case.model_copy(update={"save": own}))
    table = pd.read_parquet(home / f"{stem}_instances.parquet")
    io.save_labels(instances, home / f"{stem}_dseg.nii.gz", like=image)
    rows = table.rename(columns={"id": "index", "class": "name"})
    text = rows.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.6g", lineterminator="\n")
    write_whole(home / f"{stem}_dseg.tsv", text.encode())
    about = {
        "Sources": [f"bids:raw:{place}/{name}"],
        "SpatialReference": "orig",
        "Description": "one index per instance",
    }
    write_whole(home / f"{stem}_dseg.json", _json(about))
    return table


def write_provenance(folder: Path, name: str, place: str, record: dict[str, Any]) -> None:
    """Write how a case came about."""
    begin, _, last = name.rpartition("_")
    file = f"{begin}_desc-{last.replace('-', '')}_provenance.json" if place else "provenance.json"
    write_whole(folder / (place or name) / file, _json(record))


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {"medseg": VERSION, "python": platform.python_version()} | {one: version(one) for one in _LIBRARIES}


def thumbnail(image: Image, instances: Instances) -> bytes:
    """Draw a small JPEG of the image with outlines."""
    from PIL import Image as Picture

    out = BytesIO()
    Picture.fromarray(draw(image, instances, _THUMB, _THUMB)).save(out, format="JPEG", quality=70)
    return out.getvalue()


def write_bids_description(folder: Path) -> None:
    """Write what makes an output folder a BIDS derivative."""
    write_whole(folder / "dataset_description.json", _json(_BIDS_DESCRIPTION))
    write_whole(folder / ".bidsignore", _BIDS_IGNORE.encode())


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


# ---------------------------------------------------------------- from staging to the final names


def outputs(staged: Path) -> tuple[Output, ...]:
    """Whole files in a staging folder, by the path they will have."""
    files = sorted(file for file in staged.rglob("*") if file.is_file())
    return tuple(Output(f.relative_to(staged).as_posix(), _sha256(f), f.stat().st_size) for f in files)


def place(staged: Path, folder: Path, files: Iterable[Output]) -> None:
    """Give staged files their final names.

    Raises
    ------
    OutputError
        A folder cannot be made or written, or is a link that leads elsewhere.
    """
    top = folder.resolve()
    homes = set()
    for one in files:
        final = folder / one.path
        make(final.parent)
        if top not in final.parent.resolve().parents and final.parent.resolve() != top:
            raise OutputError(f"{Path(one.path).parent}: leads out of the output folder; remove the link")
        try:
            os.replace(staged / one.path, final)
        except OSError as error:
            fault = OutputError(f"{one.path}: cannot be written ({error.strerror}); check space and permission")
            fault.errno = error.errno
            raise fault from None
        homes.add(final.parent)
    for home in homes | {folder}:
        sync_folder(home)


def broken(folder: Path, files: Iterable[Output]) -> bool:
    """Whether a file is gone or is not what was written."""
    every = list(files)
    try:
        return not every or any(
            (folder / f.path).stat().st_size != f.size or _sha256(folder / f.path) != f.sha256 for f in every
        )
    except OSError:
        return True


def make(folder: Path) -> None:
    """Make a folder.

    Raises
    ------
    OutputError
        No space, no permission, or a file is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = OutputError(f"{folder.name}: cannot be made a folder ({error.strerror}); check space and permission")
        fault.errno = error.errno
        raise fault from None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
