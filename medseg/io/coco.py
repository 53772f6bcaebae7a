"""COCO JSON, in and out: instances files (images, annotations, categories) and results lists. 2-D only, as the format is.

Masks stay run-length coded until `CocoImage.candidates` is asked for them, so that a data set of thousands of images fits
into memory, and one image at a time can be handed to a worker.

https://cocodataset.org/#format-data and #format-results (Lin et al. 2014).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt

from medseg.io.cocodata import Coco

if TYPE_CHECKING:
    from medseg.candidates import Candidates
    from medseg.instances import Instances


def load_coco(path: str | Path, *, like: Coco | None = None) -> Coco:
    """Read a COCO instances file, or a results list. 2-D only.

    Parameters
    ----------
    path : str or Path
        A JSON file. Masks are polygons, or run lengths, compressed or not.
    like : Coco, optional
        The truth that a results list belongs to: names, sizes and categories come from there. Without it they are taken
        from the list itself, whose masks must then be run lengths. An instances file must agree with it.

    Returns
    -------
    Coco
        Objects of no pixel are left out, with a `MedsegWarning`.

    Raises
    ------
    MissingError
        The file is not there.
    FormatError
        It is not JSON, a key is missing or of the wrong type, an id occurs twice or is unknown, run lengths do not fit
        their image, a polygon has fewer than 3 points or leads far outside, or a score is NaN.
    InputError
        An image or an outline claims more memory than the limit (see `medseg.io.limits`).

    Examples
    --------
    >>> truth = load_coco("instances_val.json")  # doctest: +SKIP
    >>> found = load_coco("results.json", like=truth)  # doctest: +SKIP
    >>> len(found.images[0].candidates())  # doctest: +SKIP
    14
    """
    from medseg.io.cocoread import Reader, parsed

    path = Path(path)
    return Reader(path, parsed(path), like).coco()


def save_coco(
    images: Mapping[str, Instances | Candidates],
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    crowd: Mapping[str, npt.ArrayLike] | None = None,
    polygons: bool = False,
    results: bool = False,
    like: Coco | None = None,
) -> None:
    """Write objects of 2-D images as COCO JSON that pycocotools reads, whole or not at all.

    Parameters
    ----------
    images : mapping of file name to Instances or Candidates
        Image ids count from 1 in this order, annotation ids in the order of the objects.
    path : str or Path
        File to write.
    classes : sequence of str, optional
        Category names, whose ids count from 1; else those of the `Instances`, or "object".
    crowd : mapping of file name to bool array (N,), optional
        Objects to mark iscrowd.
    polygons : bool
        Write outlines instead of run lengths where they give back the same pixels; crowds keep run lengths.
    results : bool
        Write a results list, which needs scores.
    like : Coco, optional
        Take ids of images (by file name) and categories (by name) from this file instead.

    Raises
    ------
    InputError
        An image is not 2-D, classes differ between images, a score is missing from results, or `like` lacks an image or
        category.
    OutputError
        The file cannot be written.
    """
    from medseg.io.cocowrite import Writer

    Writer(images, classes, crowd or {}, like).write(Path(path), polygons=polygons, results=results)


def is_coco(path: Path) -> bool:
    """Whether a file is named as COCO files are."""
    return path.suffix.lower() == ".json"
