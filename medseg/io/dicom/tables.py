"""Tables in DICOM headers that stored numbers are looked up in: the Modality LUT, and the colours of a palette."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import FormatError
from medseg.io.common import reading
from medseg.io.dicom.headers import Header

AnyArray = npt.NDArray[Any]


def modality(header: Header, signed: bool) -> tuple[int, AnyArray]:
    """Return the Modality LUT: the first stored value that it maps, and the values (n,).

    Raises
    ------
    FormatError
        It is malformed, or shorter than it says.
    """
    with reading(Path("The Modality LUT"), "DICOM"):
        item = header.dataset.ModalityLUTSequence[0]
        count, first, bits = (int(value) for value in item.LUTDescriptor)
        count = count & 0xFFFF or 1 << 16
        # Written as US in a signed image or as SS in an unsigned one, it holds the same bits.
        first = (first + 0x8000) % (1 << 16) - 0x8000 if signed else first % (1 << 16)
        element = item["LUTData"]
        data = element.value
        width = 1 if bits <= 8 and isinstance(data, bytes) and len(data) == count else 2
        if isinstance(data, bytes):
            # Bytes in big-endian words come in pairs the wrong way round.
            words = header.big and (width == 2 or element.VR == "OW")
            entries: AnyArray = np.frombuffer(data, ">u2" if words else "<u2" if width == 2 else "u1")
            entries = entries.astype("<u2").view("u1") if words and width == 1 else entries
        else:
            entries = np.atleast_1d(np.array(data))
        if len(entries) < count:
            raise FormatError("The Modality LUT is shorter than it says; the header is damaged.")
        return first, entries[:count].astype(np.uint16)


def palette_type(header: Header) -> np.dtype[Any]:
    """Return the type of the colours: 8 bits also where 16 bits hold nothing but 8 bits shifted or repeated."""
    with reading(Path("The colour palette"), "DICOM"):
        dataset = header.dataset
        if int(dataset.RedPaletteColorLookupTableDescriptor[2]) == 8:
            return np.dtype("u1")
        names = [f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")]
        if any(name not in dataset for name in names):
            return np.dtype("u2")
        entries = np.concatenate([np.frombuffer(dataset[name].value, "<u2") for name in names])
        high, low = entries >> 8, entries & 255
        return np.dtype("u1" if not low.any() or (low == high).all() else "u2")
