"""Texture of instances, by pyradiomics (van Griethuysen 2017, doi:10.1158/0008-5472.CAN-17-0339), an optional extra.

The five matrices of the Image Biomarker Standardisation Initiative (Zwanenburg 2020, doi:10.1148/radiol.2020191145) as pyradiomics
defines them, on the voxels as they are: nothing is resampled, so that figures of different spacings do not compare.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from medseg.errors import InputError, MissingError
from medseg.image import Image
from medseg.instances import Instances
from medseg.measure.lesions import masks

_MATRICES = ("glcm", "glrlm", "glszm", "gldm", "ngtdm")
_WIDTHS = {"CT": 25.0, "SUV": 0.25}  # HU and SUV per grey level
_LEVELS = 32  # grey levels of each instance where values have no fixed scale, as in MR
_LEAST = 8  # voxels of an instance that has a texture
_RIM = 1


def texture(instances: Instances, image: Image, values: str) -> tuple[pd.DataFrame, list[str]]:
    """Measure the texture of each instance.

    Parameters
    ----------
    instances
        3-D, or 2-D.
    image
        One channel, on the voxels of the instances.
    values
        "CT", "SUV", or anything else: what decides the width of a grey level (25 HU, 0.25 SUV, else 32 levels per instance).

    Returns
    -------
    table : DataFrame
        One row for each instance: texture_<matrix>_<feature>; NaN under 8 voxels, or where all voxels are equal.
    notes : list of str
        What was decided.

    Raises
    ------
    MissingError
        pyradiomics is not installed.
    InputError
        Several channels.
    """
    try:
        extractor_of = import_module("radiomics.featureextractor")
    except ImportError:
        raise MissingError('Texture needs pyradiomics; install it with: pip install "medseg[texture]"') from None
    import logging

    sitk: Any = import_module("SimpleITK")  # it tells no types

    logging.getLogger("radiomics").setLevel(logging.ERROR)
    if len(image.channels) > 1:
        raise InputError(f"Texture is of one channel, the image has {', '.join(image.channels)}; choose one.")
    width = _WIDTHS.get(values)
    setting: dict[str, Any] = {"binWidth": width} if width else {"binCount": _LEVELS}
    extractor = extractor_of.RadiomicsFeatureExtractor(**setting, force2D=instances.grid.ndim == 2)
    extractor.disableAllFeatures()
    for name in _MATRICES:
        extractor.enableFeatureClassByName(name)
    voxels, few = image.voxels()[0], 0
    rows: list[dict[str, float]] = []
    spacing = tuple(float(s) for s in reversed(instances.grid.spacing))
    for start, mask in masks(instances):
        place = tuple(slice(int(a), int(a) + n) for a, n in zip(start, mask.shape, strict=True))
        inside = np.asarray(voxels[place], dtype=np.float64)
        if mask.sum() < _LEAST or np.ptp(inside[mask]) == 0:
            few += 1
            rows.append({})
            continue
        picture, label = (sitk.GetImageFromArray(np.pad(a, _RIM)) for a in (inside, mask.astype(np.uint8)))
        for one in (picture, label):
            one.SetSpacing(spacing)
        found = extractor.execute(picture, label)
        rows.append({_name(k): float(v) for k, v in found.items() if k.startswith("original_")})
    told = f"{width:g} {values} per grey level".replace("CT", "HU") if width else f"{_LEVELS} grey levels per instance"
    notes = [f"texture by pyradiomics on the voxels as they are, {told}"]
    notes += [f"{few} instances are too small or too even to have a texture"] if few else []
    return pd.DataFrame(rows, index=range(len(instances))), notes


def _name(key: str) -> str:
    """texture_glcm_JointEntropy from original_glcm_JointEntropy."""
    return f"texture_{key.removeprefix('original_')}"
