"""Objects of 2-D images, written as COCO JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.candidates import Candidates
from medseg.errors import InputError
from medseg.instances import Instances
from medseg.io import rle
from medseg.io.cocodata import Coco
from medseg.ops.contours import outlines
from medseg.ops.files import write_whole


class Writer:
    """Objects of images on their way into one COCO file; see `medseg.io.save_coco`."""

    def __init__(
        self,
        images: Mapping[str, Instances | Candidates],
        classes: Sequence[str] | None,
        crowd: Mapping[str, npt.ArrayLike],
        like: Coco | None,
    ) -> None:
        self.images, self.crowd = images, crowd
        self.classes = tuple(classes) if classes is not None else self._classes()
        self.numbers = {name: number for number, name in enumerate(images, 1)}
        self.categories = {name: number for number, name in enumerate(self.classes, 1)}
        if like is not None:
            self.numbers = {image.name: image.id for image in like.images}
            self.categories = dict(zip(like.classes, like.categories, strict=True))
        missing = [
            *(n for n in images if n not in self.numbers),
            *(c for c in self.classes if c not in self.categories),
        ]
        if missing:
            raise InputError(
                f"The file to be like has no image or category {missing[0]!r}; leave `like` out, or name it."
            )
        if unknown := [name for name in crowd if name not in images]:
            raise InputError(f"crowd names {unknown[0]!r}, which is none of the images.")

    def _classes(self) -> tuple[str, ...]:
        told = {one.classes for one in self.images.values() if isinstance(one, Instances)}
        if len(told) > 1:
            raise InputError(
                f"Images have different class names, {' and '.join(map(str, sorted(told)))}; give classes."
            )
        return told.pop() if told else ("object",)

    def write(self, path: Path, *, polygons: bool, results: bool) -> None:
        """Write the file whole or not at all."""
        annotations: list[dict[str, Any]] = []
        for name in self.images:
            annotations += self._annotations(name, len(annotations), polygons, results)
        document: Any = annotations if results else self._document(annotations)
        write_whole(path, json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii"))

    def _document(self, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        sizes = {n: o.grid.shape if isinstance(o, Instances) else o.shape for n, o in self.images.items()}
        return {
            "info": {"description": "written by medseg"},
            "licenses": [],
            "images": [
                {"id": self.numbers[name], "file_name": name, "height": height, "width": width}
                for name, (height, width) in sizes.items()
            ],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for name, number in self.categories.items()],
        }

    def _annotations(self, name: str, before: int, polygons: bool, results: bool) -> list[dict[str, Any]]:
        """Annotations of one image; `before` are those of the images before it."""
        found, own = _objects(name, self.images[name])
        names = own or self.classes
        if len(found) and (int(found.classes.max()) > len(names) or not {*names} <= {*self.categories}):
            raise InputError(
                f"{name}: an object is of a class that is none of {', '.join(self.classes)}; give classes."
            )
        if results and np.isnan(found.scores).any():
            raise InputError(f"{name}: an object has no score, and results need one; write an instances file.")
        crowd = np.asarray(self.crowd.get(name, np.zeros(len(found))), dtype=np.bool_)
        if crowd.shape != (len(found),):
            raise InputError(f"{name}: crowd has shape {crowd.shape} for {len(found)} objects; give one each.")
        shape = (found.shape[0], found.shape[1])
        out = []
        for number in range(len(found)):
            top, left, bottom, right = found.boxes[number].tolist()
            mask, score = found.masks[number], float(found.scores[number])
            one: dict[str, Any] = {
                "image_id": self.numbers[name],
                "category_id": self.categories[names[found.classes[number] - 1]],
                "segmentation": _segmentation(mask, (top, left), shape, polygons and not crowd[number]),
                "bbox": [left, top, right - left, bottom - top],
                "area": int(np.count_nonzero(mask)),
            }
            if not results:
                one |= {"id": before + number + 1, "iscrowd": int(crowd[number])}
            if not math.isnan(score):
                one["score"] = score
            out.append(one)
        return out


def _objects(name: str, objects: Instances | Candidates) -> tuple[Candidates, tuple[str, ...] | None]:
    """Objects as candidates, and the class names they bring."""
    if isinstance(objects, Instances):
        table, number = objects.table, {c: i for i, c in enumerate(objects.classes, 1)}
        kinds = [number[c] for c in table["class"]]
        found, own = Candidates.from_labels(objects.labels, table["score"].to_numpy(), kinds), objects.classes
    else:
        found, own = objects, None
    if len(found.shape) != 2:
        raise InputError(f"{name}: COCO holds 2-D images only, these objects are {len(found.shape)}-D; write a NIfTI.")
    return found, own


def _segmentation(
    mask: npt.NDArray[np.bool_], corner: tuple[int, int], shape: tuple[int, int], polygons: bool
) -> dict[str, Any] | list[list[float]]:
    """Outlines if wanted and true, else compressed run lengths."""
    runs = rle.encode(mask, corner, shape)
    if polygons:
        drawn = [(loop[:, ::-1] + (corner[1] + 0.5, corner[0] + 0.5)).ravel().tolist() for loop in outlines(mask)]
        if np.array_equal(rle.fill(drawn, shape), runs):
            return drawn
    return {"size": list(shape), "counts": rle.pack(runs)}
