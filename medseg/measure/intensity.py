"""What the image says inside of each instance, per channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from medseg.image import Image
from medseg.instances import Instances

Floats = npt.NDArray[np.float64]

STATISTICS = ("mean", "sd", "min", "max", "median", "p5", "p95", "sum")


def grouped(instances: Instances) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return flat places of all labelled voxels, sorted by instance in the order of the table, and where each begins (N + 1)."""
    flat = instances.labels.ravel()
    places = np.flatnonzero(flat)
    places = places[np.argsort(flat[places], kind="stable")]
    ends = np.cumsum(instances.table["voxels"].to_numpy(np.int64))
    return places, np.concatenate([[0], ends]).astype(np.int64)


def statistics(values: Floats, starts: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Return `STATISTICS` of groups of values, each (N,).

    Parameters
    ----------
    values
        Grouped: those of instance i are at starts[i] to starts[i + 1].
    starts
        (N + 1,); no group is empty.

    Notes
    -----
    sd is that of the population (divided by N); percentiles are linear between values.
    """
    count = len(starts) - 1
    if not count:
        return {name: np.zeros(0) for name in STATISTICS}
    first, size = starts[:-1], np.diff(starts)
    total = np.add.reduceat(values, first)
    mean = total / size
    # around each mean, as a difference of large squares would lose digits
    spread = np.sqrt(np.add.reduceat((values - np.repeat(mean, size)) ** 2, first) / size)
    parts = [np.percentile(values[a:b], (50, 5, 95)) for a, b in zip(first, starts[1:], strict=True)]
    median, low, high = np.array(parts).T
    return {
        "mean": mean,
        "sd": spread,
        "min": np.minimum.reduceat(values, first),
        "max": np.maximum.reduceat(values, first),
        "median": median,
        "p5": low,
        "p95": high,
        "sum": total,
    }


def intensities(instances: Instances, image: Image, prefix: str) -> pd.DataFrame:
    """Measure the image inside each instance.

    Parameters
    ----------
    instances, image
        On one grid.
    prefix
        What the values are, such as "hu"; of several channels the name of each follows.

    Returns
    -------
    DataFrame
        <prefix>[_<channel>]_<statistic>, a row per instance in the order of the table. A sum says something of light only, so it
        is left out of HU.
    """
    places, starts = grouped(instances)
    columns: dict[str, Floats] = {}
    for channel, name in zip(image.voxels(), image.channels, strict=True):
        head = prefix if len(image.channels) == 1 else f"{prefix}_{name}"
        found = statistics(np.asarray(channel).ravel()[places].astype(np.float64), starts)
        columns |= {f"{head}_{k}": v for k, v in found.items() if not (prefix == "hu" and k == "sum")}
    return pd.DataFrame(columns, index=range(len(instances)))
