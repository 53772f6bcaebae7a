"""medseg: from an image to individual lesions or cells, each with a mask, a score and measurements. Research use only.

The names below load on first use, so that ``import medseg`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.candidates import Candidates as Candidates
    from medseg.errors import MedsegError as MedsegError
    from medseg.grid import Grid as Grid
    from medseg.image import Image as Image
    from medseg.instances import Instances as Instances
    from medseg.io import load as load
    from medseg.io import load_labels as load_labels
    from medseg.io import save_labels as save_labels
    from medseg.io import save_table as save_table
    from medseg.model import Model as Model
    from medseg.pipeline import run as run
    from medseg.pipeline import segment as segment
    from medseg.spec import RunSpec as RunSpec

__version__ = "0.1.0"

_HOME = {
    "Candidates": "candidates",
    "Grid": "grid",
    "Image": "image",
    "Instances": "instances",
    "MedsegError": "errors",
    "Model": "model",
    "RunSpec": "spec",
    "load": "io",
    "load_labels": "io",
    "run": "pipeline",
    "save_labels": "io",
    "save_table": "io",
    "segment": "pipeline",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}")
    return getattr(import_module(f"medseg.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
