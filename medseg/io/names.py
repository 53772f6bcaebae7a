"""What file names say: suffixes and stems. Imports nothing, so that listing files costs nothing."""

from __future__ import annotations

from pathlib import Path

DOUBLE = (".nii.gz", ".ome.tiff", ".ome.tif")
FORMATS: dict[str, tuple[str, ...]] = {
    "nifti": (".nii", ".nii.gz"),
    "itk": (".nrrd", ".nhdr", ".mha", ".mhd"),
    "tiff": (".tif", ".tiff", ".ome.tif", ".ome.tiff"),
    "png": (".png", ".jpg", ".jpeg"),
    "dicom": (".dcm", ".dicom", ".ima"),
    "czi": (".czi",),
    "nd2": (".nd2",),
    "lif": (".lif",),
}
SCOPES = ("czi", "nd2", "lif")  # formats of microscopes, where one file may hold several images
SUFFIXES: tuple[str, ...] = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)


def suffix(path: Path) -> str:
    """Return the suffix in lower case, both parts where two belong together (".nii.gz", ".ome.tif")."""
    name = path.name.lower()
    return next((double for double in DOUBLE if name.endswith(double)), path.suffix.lower())


def stem(path: str | Path) -> str:
    """Return the file name without its suffix; ".nii.gz" and ".ome.tif" go as a whole, an unknown suffix stays.

    Examples
    --------
    >>> stem("scan.nii.gz"), stem("a.b.ome.tif"), stem("series.1")
    ('scan', 'a.b', 'series.1')
    """
    path = Path(path)
    ending = suffix(path)
    return path.name[: -len(ending)] if ending in SUFFIXES and len(ending) < len(path.name) else path.name


def is_image(path: str | Path) -> bool:
    """Whether the name ends like a file medseg reads; the file is not opened and hidden files are none."""
    path = Path(path)
    return suffix(path) in SUFFIXES and not path.name.startswith(".")
