"""COCO JSON, read piece by piece: every fault of a file is named with its place, before memory is taken or C code sees it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from medseg.errors import FormatError, InputError, MedsegWarning, MissingError
from medseg.io import rle
from medseg.io.cocodata import Coco, CocoImage
from medseg.io.limits import check_claim

_LABEL = 4  # bytes of a label: what an image claims is what painting it would take
_AWAY = 4  # a vertex may lie outside, but no more than so many times the size of the image


def parsed(path: Path) -> Any:
    """Return what the JSON file holds."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingError(f"{path.name} is not there; check the path.") from None
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}); check its permissions.") from None
    except MemoryError:
        raise InputError(f"{path.name} does not fit into memory; split it or use a larger machine.") from None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested without end
        raise FormatError(f"{path.name} is not JSON, or is truncated; get it again.") from None


class Reader:
    """One COCO file while it is read; every fault names the file and the place in it."""

    def __init__(self, path: Path, data: Any, like: Coco | None) -> None:
        self.path, self.data, self.like = path, data, like

    def fault(self, text: str) -> FormatError:
        """Return the error that says what was found in this file."""
        return FormatError(f"{self.path.name}: {text}.")

    def coco(self) -> Coco:
        """Return the whole file, checked."""
        if isinstance(self.data, list):
            return self._results()
        if not isinstance(self.data, dict):
            raise self.fault("holds neither an object with images and annotations nor a list of results")
        images = self._images(self._list(self.data, "images"))
        categories = self._categories(self._list(self.data, "categories"))
        names = list(categories.values())
        if self.like is not None and dict(zip(self.like.categories, self.like.classes, strict=True)) != categories:
            raise self.fault("categories are not those of the other file; both must have the same ids and names")
        seen: set[int] = set()
        for number, one in enumerate(self._list(self.data, "annotations")):
            place = f"annotations[{number}]"
            key = self._integer(one, "id", place)
            if key in seen:
                raise self.fault(f"annotation id {key} occurs twice; ids must be unique")
            seen.add(key)
            self._add(one, place, key, images, list(categories), "score" in one)
        return self._built(images, tuple(names), tuple(categories))

    def _results(self) -> Coco:
        """A results list has no images and categories of its own."""
        rows = self.data
        if self.like is not None:
            images = {i.id: _Gathered(i.id, i.name, i.shape) for i in self.like.images}
            numbers, names = self.like.categories, self.like.classes
        else:
            images = {}
            for number, one in enumerate(rows):
                key = self._integer(one, "image_id", f"[{number}]")
                images.setdefault(key, _Gathered(key, str(key), self._size_told(one, f"[{number}]")))
            numbers = tuple(sorted({self._integer(o, "category_id", f"[{n}]") for n, o in enumerate(rows)}))
            names = tuple(map(str, numbers))
        for number, one in enumerate(rows):
            self._add(one, f"[{number}]", number + 1, images, list(numbers), True)
        return self._built(images, names, numbers)

    def _images(self, rows: list[Any]) -> dict[int, _Gathered]:
        out: dict[int, _Gathered] = {}
        for number, one in enumerate(rows):
            place = f"images[{number}]"
            key = self._integer(one, "id", place)
            if key in out:
                raise self.fault(f"image id {key} occurs twice; ids must be unique")
            shape = self._integer(one, "height", place), self._integer(one, "width", place)
            name = one.get("file_name", str(key))
            if not isinstance(name, str):
                raise self.fault(f"{place} has a file_name that is no text")
            out[key] = _Gathered(key, name, self._shape(shape, place))
        if self.like is None:
            return out
        for known in self.like.images:
            if known.id in out and out[known.id].shape != known.shape:
                raise self.fault(f"image {known.id} has shape {out[known.id].shape}, in the other file {known.shape}")
        return out

    def _categories(self, rows: list[Any]) -> dict[int, str]:
        out: dict[int, str] = {}
        for number, one in enumerate(rows):
            key = self._integer(one, "id", f"categories[{number}]")
            name = one.get("name", str(key))
            if key in out or name in out.values() or not isinstance(name, str):
                raise self.fault(f"category {key} occurs twice, or its name does; both must be unique")
            out[key] = name
        return out

    def _shape(self, shape: tuple[int, int], place: str) -> tuple[int, int]:
        if min(shape) < 1:
            raise self.fault(f"{place} has the size {shape[0]} x {shape[1]}; both must be positive")
        check_claim(shape[0] * shape[1] * _LABEL, self.path)
        if shape[0] * shape[1] > rle.MOST_PIXELS:
            raise InputError(f"{self.path.name}: {place} has more pixels than COCO's run lengths can count; cut it.")
        return shape

    def _size_told(self, one: Any, place: str) -> tuple[int, int]:
        """Size of an image as the run lengths of an object say it."""
        coded = one.get("segmentation")
        size = coded.get("size") if isinstance(coded, dict) else None
        if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)):
            raise self.fault(f"{place} does not say how large its image is; read it together with its truth")
        return self._shape((size[0], size[1]), place)

    def _add(
        self, one: Any, place: str, key: int, images: dict[int, _Gathered], numbers: list[int], scored: bool
    ) -> None:
        """Check one annotation and add it to its image."""
        image_id, category = self._integer(one, "image_id", place), self._integer(one, "category_id", place)
        if image_id not in images:
            raise self.fault(f"{place} is of image {image_id}, which there is not")
        if category not in numbers:
            raise self.fault(f"{place} is of category {category}, which there is not")
        score = self._score(one, place) if scored else math.nan
        crowd = one.get("iscrowd", 0)
        if type(crowd) not in (int, bool) or crowd not in (0, 1):
            raise self.fault(f"{place} has iscrowd {crowd!r}; it is 0 or 1")
        image = images[image_id]
        runs = self._runs(one, place, image.shape)
        image.rows.append((key, numbers.index(category) + 1, score, bool(crowd), runs))

    def _score(self, one: Any, place: str) -> float:
        score = one.get("score")
        if type(score) not in (int, float):
            raise self.fault(f"{place} has no score, or one that is no number")
        if not math.isfinite(score):
            raise self.fault(f"{place} has the score {score}; scores are finite numbers")
        return float(score)

    def _runs(self, one: Any, place: str, shape: tuple[int, int]) -> rle.Runs:
        coded = one.get("segmentation")
        if isinstance(coded, list) and coded:
            return self._filled(coded, place, shape)
        if not isinstance(coded, dict) or "counts" not in coded:
            raise self.fault(f"{place} has no segmentation; objects are scored by their masks, not by boxes")
        if coded.get("size") != list(shape):
            raise self.fault(f"{place} has run lengths of size {coded.get('size')} in an image of {list(shape)}")
        counts = coded["counts"]
        try:
            if isinstance(counts, str):
                return rle.check(rle.unpack(counts), shape)
            if isinstance(counts, list) and all(type(n) is int and abs(n) <= rle.MOST_PIXELS for n in counts):
                return rle.check(np.array(counts, dtype=np.int64), shape)
        except ValueError:  # also what is not ASCII
            pass
        raise self.fault(f"{place} has run lengths that are damaged or do not fit its image of {shape[0]} x {shape[1]}")

    def _filled(self, polygons: list[Any], place: str, shape: tuple[int, int]) -> rle.Runs:
        far = _AWAY * max(shape)
        for polygon in polygons:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise self.fault(f"{place} has a polygon of fewer than 3 points, or half a point")
            if not all(type(v) in (int, float) and abs(v) <= far for v in polygon):  # NaN is not <= either
                raise self.fault(
                    f"{place} has a polygon that leads far out of its image, or a vertex that is no number"
                )
        if rle.fill_cost(polygons) > 64 << 20:  # only outlines without end are: ask before the memory is taken
            check_claim(int(rle.fill_cost(polygons)), self.path)
        if shape[0] * shape[1] > rle.MOST_FILLED:
            raise self.fault(
                f"{place} has polygons in an image of more than {rle.MOST_FILLED} pixels; give run lengths"
            )
        return rle.fill(polygons, shape)

    def _list(self, data: dict[str, Any], key: str) -> list[Any]:
        rows = data.get(key)
        if not isinstance(rows, list):
            raise self.fault(f"has no list of {key}; an instances file has images, annotations and categories")
        return rows

    def _integer(self, one: Any, key: str, place: str) -> int:
        if not isinstance(one, dict):
            raise self.fault(f"{place} is no object")
        value = one.get(key)
        if type(value) is not int or abs(value) >= 2**63:
            raise self.fault(f"{place} has no {key}, or one that is no whole number")
        return value

    def _built(self, images: dict[int, _Gathered], names: tuple[str, ...], numbers: tuple[int, ...]) -> Coco:
        empty = [row[0] for image in images.values() for row in image.rows if not len(rle.ones(row[4])[0])]
        if empty:
            warn(
                f"{self.path.name}: {len(empty)} objects have no pixel and are left out: "
                f"{', '.join(map(str, empty[:5]))}{', ...' if len(empty) > 5 else ''}",
                MedsegWarning,
                stacklevel=4,
            )
        return Coco(tuple(image.built() for image in images.values()), names, numbers)


@dataclass
class _Gathered:
    """An image of which annotations are being gathered: id, class, score, crowd and runs of each."""

    id: int
    name: str
    shape: tuple[int, int]
    rows: list[tuple[int, int, float, bool, rle.Runs]] = field(default_factory=list)

    def built(self) -> CocoImage:
        rows = [row for row in self.rows if len(rle.ones(row[4])[0])]
        return CocoImage(
            self.id,
            self.name,
            self.shape,
            np.array([row[0] for row in rows], dtype=np.int64),
            np.array([row[1] for row in rows], dtype=np.int32),
            np.array([row[2] for row in rows], dtype=np.float64),
            np.array([row[3] for row in rows], dtype=np.bool_),
            tuple(row[4] for row in rows),
        )
