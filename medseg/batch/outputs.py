"""The files of one case of a batch, written into a staging folder of their own."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

import medseg
from medseg import io
from medseg.batch.cases import Case
from medseg.batch.placing import make
from medseg.export import save_spec
from medseg.image import Image
from medseg.instances import Instances
from medseg.io.overlay import draw
from medseg.ops.files import write_whole
from medseg.spec import BatchSpec

_THUMB = 160  # pixels of a thumbnail's longer side
_LIBRARIES = ("numpy", "scipy", "torch", "monai")


def write_case(
    instances: Instances, image: Image, folder: Path, name: str, found: Case, spec: BatchSpec
) -> pd.DataFrame:
    """Write the files of a case into `folder`, laid out as they will be, and return its table.

    Parameters
    ----------
    instances, image
        What was found, on what.
    folder
        Staging folder.
    name, found
        Of the case, and the case itself; one of a BIDS data set has a place.
    spec
        What is written.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    place, case = found.place, spec.case
    home = folder / (place or name)
    make(home)
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
        "Sources": [f"bids:raw:{place}/{file.name}" for file in found.files],  # names by the rules of BIDS
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
    return {"medseg": medseg.__version__, "python": platform.python_version()} | {
        one: version(one) for one in _LIBRARIES
    }


def thumbnail(image: Image, instances: Instances) -> bytes:
    """Draw a small JPEG of the image with outlines."""
    from PIL import Image as Picture

    out = BytesIO()
    Picture.fromarray(draw(image, instances, _THUMB, _THUMB)).save(out, format="JPEG", quality=70)
    return out.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
