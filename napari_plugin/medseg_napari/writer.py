"""Save labels by File > Save: NIfTI, OME-TIFF, NRRD, or DICOM SEG for what was found on a DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write one labels layer; the ending says how. Rejected instances are left out.

    Raises
    ------
    OutputError
        The ending is none of .nii.gz, .nii, .tif, .tiff, .nrrd, .mha, .dcm, of a time series none of .tif and .tiff, or the file
        cannot be written.
    InputError
        DICOM is asked for of an image that was not read from DICOM.
    """
    from types import SimpleNamespace

    from medseg import io
    from medseg.errors import InputError
    from medseg.io import write
    from medseg_napari.layers import KEY, instances_of, series_of, timed

    about = meta.get("metadata", {}).get(KEY, {})
    layer = SimpleNamespace(
        data=np.asarray(data),
        metadata=meta.get("metadata", {}),
        scale=meta.get("scale", (1.0,) * np.ndim(data)),
        units=meta.get("units", ("pixel",) * np.ndim(data)),
        translate=meta.get("translate", (0.0,) * np.ndim(data)),
        axis_labels=meta.get("axis_labels", ()),
        ndim=np.ndim(data),
    )
    import napari

    viewer = napari.current_viewer()
    beside = viewer.layers if viewer is not None else ()
    target = Path(path)
    if timed(layer):
        write.series(series_of(layer, beside), target)
        return [str(target)]
    instances = instances_of(layer, beside)
    session = about.get("session")
    image = session.image if session is not None else about.get("image")
    if target.suffix.lower() == ".dcm":
        if image is None or image.source is None or image.source.format != "dicom":
            raise InputError("DICOM SEG belongs to a DICOM series; these labels do not: save .nii.gz or .tif.")
        io.save_seg(instances, target, image)
    else:
        io.save_labels(instances, target)
    return [str(target)]
