"""Where shipped files lie: configs, weights and samples, in a wheel and in a checkout alike."""

from __future__ import annotations

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


def samples() -> Path:
    """Folder of the shipped sample images with their truth and licences."""
    return PACKAGE / "samples"
