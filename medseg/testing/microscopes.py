"""Files of microscopes for tests: CZI by Zeiss's own library, LIF by hand."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

_NAMES = {0: "DAPI", 1: "GFP"}


def volume(path: Path, shape: tuple[int, int] = (40, 50), packed: str = "uncompressed:") -> npt.NDArray[np.uint16]:
    """Write a CZI of two channels and three slices with spacing, and return its voxels (2, 3, y, x).

    Parameters
    ----------
    path : Path
        Where.
    shape : tuple of int
        Of a slice.
    packed : str
        Compression as pylibCZIrw names it.
    """
    from pylibCZIrw import czi

    values = np.random.default_rng(0).integers(0, 4000, (2, 3, *shape)).astype(np.uint16)
    with czi.create_czi(str(path), compression_options=packed) as file:
        for c in range(2):
            for z in range(3):
                file.write(data=values[c, z][..., np.newaxis], plane={"C": c, "Z": z})
        file.write_metadata("doc", channel_names=_NAMES, scale_x=0.2e-6, scale_y=0.25e-6, scale_z=1e-6)
    return values


def always(data: bytes) -> bytes:
    """Return a CZI without what is drawn anew each time it is written."""
    data = re.sub(rb"(?<=<RetilingId>)[0-9a-f-]{36}", b"0" * 36, data)
    return data[:48] + bytes(32) + data[80:]


def lif(path: Path, images: Sequence[tuple[str, AnyArray, Mapping[str, float], Sequence[str]]]) -> None:
    """Write a LIF of Leica after its layout.

    Parameters
    ----------
    path : Path
        Where.
    images : sequence of tuple
        Name, voxels (C, [z,] y, x), steps in mm by axis, and a colour for each channel.
    """
    elements, blocks = [], []
    for number, (name, values, steps, colours) in enumerate(images):
        axes = "CZYX"[-values.ndim :] if values.ndim > 3 else "CYX"
        size = values.dtype.itemsize
        strides = dict(zip(axes, [size * int(np.prod(values.shape[i + 1 :])) for i in range(values.ndim)], strict=True))
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * size}" NameOfMeasuredQuantity="" Min="0" '
            f'Max="255" Unit="" LUTName="{colour}" IsLUTInverted="0" BytesInc="{i * strides["C"]}" BitInc="0"/>'
            for i, colour in enumerate(colours)
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{"XYZ".index(axis) + 1}" NumberOfElements="{n}" Origin="0" '
            f'Length="{steps[axis] * 1e-3 * (n - 1)}" Unit="m" BitInc="0" BytesInc="{strides[axis]}"/>'
            for axis, n in reversed(list(zip(axes, values.shape, strict=True)))
            if axis != "C"
        )
        elements.append(
            f'<Element Name="{name}" Visibility="1" UniqueID="{number}"><Data><Image TextDescription=""><ImageDescription>'
            f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{values.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
        blocks.append((f"MemBlock_{number}", values.tobytes()))
    text = (
        '<LMSDataContainerHeader Version="2"><Element Name="study" Visibility="1"><Data><Experiment Path=""/></Data>'
        f'<Memory Size="0" MemoryBlockID="MemBlock_x"/><Children>{"".join(elements)}</Children></Element></LMSDataContainerHeader>'
    )
    with path.open("wb") as file:
        encoded = text.encode("utf-16-le")
        file.write(struct.pack("<IIBI", 0x70, 5 + len(encoded), 0x2A, len(text)) + encoded)
        for name, data in blocks:
            about = name.encode("utf-16-le")
            head = struct.pack("<BQBI", 0x2A, len(data), 0x2A, len(name)) + about
            file.write(struct.pack("<II", 0x70, len(head)) + head + data)
