"""What all specs share, and how they are read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.errors import SpecError

S = TypeVar("S", bound="Spec")


class Spec(BaseModel):
    """Base of all specs: frozen, no unknown keys, no numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def parse(cls: type[S], data: object, where: str) -> S:
    """Validate ``data`` as ``cls``; a failure is one `SpecError` line naming ``where`` and the keys."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'top level'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()[:5]
        )
        raise SpecError(f"{where}: {faults}") from None


def load_yaml(cls: type[S], path: str | Path) -> S:
    """Read a YAML file as ``cls``.

    Raises
    ------
    SpecError
        The file is missing, is not YAML, or does not fit the spec.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (
        Exception
    ):  # beside YAMLError: ValueError of a date, KeyError of a bool, IndexError of a number, RecursionError
        raise SpecError(f"{path}: is not valid YAML") from None
    return parse(cls, data, str(path))
