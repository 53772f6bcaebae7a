"""Where shipped files lie: configs, weights and samples, in a wheel and in a checkout alike."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from medseg.errors import SpecError

PACKAGE = Path(__file__).resolve().parent


def folder() -> Path:
    """The ``configs`` folder: inside the package when installed from a wheel, beside it in a checkout."""
    for path in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (path / "train").is_dir():
            return path
    raise SpecError("the configs folder is missing from this installation; install medseg again")


def find_config(name: str) -> Path:
    """A config by path, or by name from ``configs/train``."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = folder() / "train" / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.yaml")))
    raise SpecError(f"no config {name!r}; give a .yaml file or one of: {known}")


def weights() -> dict[str, Path]:
    """Shipped model files by name."""
    return {p.stem: p for p in sorted((PACKAGE / "weights").glob("*.safetensors"))}


def user_folder() -> Path:
    """Where models that a user added lie: MEDSEG_MODELS, else a folder of the user as the system has it."""
    if given := os.environ.get("MEDSEG_MODELS"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "medseg" / "models"


def added() -> dict[str, Path]:
    """Model files that a user added, by name."""
    return {p.stem: p for p in sorted(user_folder().glob("*.safetensors")) if not p.name.startswith(".")}


def samples() -> Path:
    """Folder of the shipped sample images with their truth and licences."""
    return PACKAGE / "samples"
