"""Spec of a batch: what is done with each case, and within which limits."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from medseg.spec.base import Spec
from medseg.spec.case import CaseSpec


class BatchSpec(Spec):
    """How a study is worked through. Only `case` decides results; the rest decides how long they take."""

    case: CaseSpec = CaseSpec()
    scheduler: str = Field(
        default="local",
        description="who does the cases: local (or processes, the same), or a dask scheduler by its address, tcp://HOST:PORT",
    )
    jobs: int = Field(default=1, ge=1, description="worker processes; each loads the model once")
    threads: int = Field(default=1, ge=1, description="threads of each worker")
    seconds: float = Field(default=3600.0, gt=0, description="longest time for one case; a worker over it is killed")
    memory: float = Field(default=8.0, gt=0, description="GiB that a worker may hold; one over it is killed")
    tries: int = Field(default=2, ge=1, description="times a case is tried that kills its worker or finds no file")
    seed: int = Field(default=0, ge=0, description="of every random generator, set before each case")

    @field_validator("scheduler")
    @classmethod
    def _address(cls, text: str) -> str:
        if text == "processes":  # what is local runs in processes, always
            return "local"
        if text != "local" and not re.fullmatch(r"(tcp|tls)://[^\s/]+:\d+", text):
            raise ValueError("is local, processes, or the address of a dask scheduler such as tcp://10.0.0.5:8786")
        return text
