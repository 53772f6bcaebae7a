"""What a COCO file holds: images and their objects, masks run-length coded until they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medseg.io import rle
from medseg.io.limits import check_claim

if TYPE_CHECKING:
    from medseg.candidates import Candidates


@dataclass(frozen=True, eq=False)
class CocoImage:
    """The objects of one image of a COCO file.

    Attributes
    ----------
    id : int
        Image id.
    name : str
        file_name; the id where a results list was read by itself.
    shape : (int, int)
        Rows and columns.
    ids : int64 array (N,)
        Annotation ids; of a results list the position in it, counted from 1.
    classes : int32 array (N,)
        1-based index into `Coco.classes`.
    scores : float64 array (N,)
        NaN where there is none.
    crowd : bool array (N,)
        iscrowd: a region of many objects that is to be ignored.
    """

    id: int
    name: str
    shape: tuple[int, int]
    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]
    runs: tuple[rle.Runs, ...] = field(repr=False)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.runs)

    def candidates(self) -> Candidates:
        """Decode the masks, which may overlap, in the order of `ids`.

        Raises
        ------
        InputError
            All masks together are over the limit of memory (see `medseg.io.limits`).
        """
        from medseg.candidates import Candidates

        boxes = [rle.box(runs, self.shape) or (0, 0, 0, 0) for runs in self.runs]
        check_claim(sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes), Path(self.name))
        masks = tuple(rle.paint(runs, self.shape, box) for runs, box in zip(self.runs, boxes, strict=True))
        table = np.array(boxes, dtype=np.int64).reshape(-1, 4)
        return Candidates(table, self.scores.astype(np.float32), self.classes, masks, self.shape)


@dataclass(frozen=True, eq=False)
class Coco:
    """A COCO file.

    Attributes
    ----------
    images : tuple of CocoImage
        In the order of the file; also those without objects.
    classes : tuple of str
        Names of the categories, in the order of the file.
    categories : tuple of int
        Their ids.
    """

    images: tuple[CocoImage, ...]
    classes: tuple[str, ...]
    categories: tuple[int, ...]
