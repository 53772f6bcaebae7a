"""Files for pydicom, which asks for as many bytes as an element claims: Python would set memory aside for all of a claimed 4 GB."""

from __future__ import annotations

import os
from io import BufferedReader, FileIO
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import dcmread, read_dataset, read_preamble


class Bounded(BufferedReader):
    """A file to read from that never sets more memory aside than the file has bytes left.

    Parameters
    ----------
    path : Path
        The file.

    Examples
    --------
    >>> with Bounded(path) as stream:  # doctest: +SKIP
    ...     header = pydicom.dcmread(stream, stop_before_pixels=True)
    """

    def __init__(self, path: Path) -> None:
        raw = FileIO(os.fspath(path))
        super().__init__(raw)
        self._end = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or all that are left."""
        left = max(0, self._end - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def whole(path: Path) -> FileDataset:
    """Return all of a file, whether it has a preamble or not. Damage raises whatever pydicom raises."""
    with Bounded(path) as stream:
        return dcmread(stream, force=True)


def meta(path: Path) -> Dataset:
    """Return the file meta information (group 2) of a file with a preamble.

    Raises
    ------
    InvalidDicomError
        There is no preamble. Damage raises whatever pydicom raises.
    """
    with Bounded(path) as stream:
        read_preamble(stream, False)
        return read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
