"""What a batch was asked to do: kept beside the results, and a hash of what decides them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import medseg
from medseg import presets
from medseg.errors import MissingError, SpecError
from medseg.ops.files import write_whole
from medseg.spec import BatchSpec, parse

NAME = "batch.json"


def fingerprint(spec: BatchSpec) -> str:
    """Hash of all that decides results, the input aside: options, the model's bytes, the program's version.

    Raises
    ------
    ModelError
        There is no such model.
    """
    from medseg.model import find

    case = spec.case
    files = [] if case.threshold else [find(case.model)] if case.model else sorted(presets.weights().values())
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    options = case.model_dump(mode="json", exclude={"model"}) | {"seed": spec.seed}
    return hashlib.sha256(json.dumps([medseg.__version__, digests, options], sort_keys=True).encode()).hexdigest()


def remember(folder: Path, spec: BatchSpec) -> None:
    """Keep the spec in an output folder."""
    write_whole(folder / NAME, (spec.model_dump_json(indent=2) + "\n").encode())


def remembered(folder: Path) -> BatchSpec:
    """The spec of the last run in an output folder.

    Raises
    ------
    MissingError
        There was none.
    SpecError
        The file is damaged.
    """
    try:
        data = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except OSError:
        raise MissingError(f"{folder}: holds no batch; name the folder that was the --output of one") from None
    except ValueError:
        raise SpecError(f"{folder / NAME}: is damaged; run the batch again with its options") from None
    return parse(BatchSpec, data, NAME)
