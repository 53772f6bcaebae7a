"""Sample images that come with medseg; nothing is fetched."""

from __future__ import annotations

from typing import Any


def _sample(name: str) -> list[tuple[Any, dict[str, Any], str]]:
    from medseg import io, presets
    from medseg_napari.layers import of_image

    path = presets.samples() / name
    return of_image(io.load(path), io.stem(path))


def fluorescence() -> list[tuple[Any, dict[str, Any], str]]:
    """Nuclei in fluorescence, 2-D."""
    return _sample("fluorescence.tif")


def tissue() -> list[tuple[Any, dict[str, Any], str]]:
    """Nuclei in stained tissue, in colour."""
    return _sample("tissue.tif")


def nodule() -> list[tuple[Any, dict[str, Any], str]]:
    """A lung nodule in CT, a DICOM series."""
    from medseg import io, presets
    from medseg_napari.layers import of_image

    return of_image(io.load(presets.samples() / "nodule"), "nodule")


def ovule() -> list[tuple[Any, dict[str, Any], str]]:
    """Nuclei of a plant's ovule, 3-D."""
    return _sample("ovule.ome.tif")
