"""Where slices say they lie: orientation, order, numbers that are odd, malformed or missing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medseg.testing.corpus.case import Case, Written, case
from medseg.testing.series import Truth, axes_of, numbers, put, save, stack

CASES: list[Case] = []
here = partial(case, CASES)

POSITION = "ImagePosition"
ORIENTATION = "ImageOrientation|orientation"

for _name, _angles in (
    ("axial", (0, 0, 0)),
    ("coronal", (-90, 0, 0)),
    ("sagittal", (0, 90, 90)),
    ("oblique", (20, 0, 0)),
    ("double oblique", (20, -35, 50)),
    ("upside down", (180, 0, 0)),
):

    @here(_name)
    def _turned(folder: Path, angles: tuple[float, float, float] = _angles) -> Written:
        return save(folder, stack(angles=angles))


@here("double oblique, pixels not square")
def _not_square(folder: Path) -> Written:
    return save(folder, stack(angles=(10, 25, -40), spacing=(0.5, 1.7)))


@here("slices descend")
def _descending(folder: Path) -> Written:
    return save(folder, stack(step=-2.5, angles=(15, 5, 0)))


@here("InstanceNumber descends")
def _numbered_down(folder: Path) -> Written:
    planes = stack()
    for number, plane in enumerate(planes[::-1], 1):
        plane.dataset.InstanceNumber = number
    return save(folder, planes)


@here("InstanceNumber shuffled")
def _shuffled(folder: Path) -> Written:
    planes = stack(count=9, angles=(10, 20, 30))
    for plane, number in zip(planes, np.random.default_rng(3).permutation(9), strict=True):
        plane.dataset.InstanceNumber = int(number)
    return save(folder, planes)


@here("InstanceNumber absent")
def _unnumbered(folder: Path) -> Written:
    return save(folder, stack(InstanceNumber=None))


@here("InstanceNumber the same in all slices")
def _one_number(folder: Path) -> Written:
    return save(folder, stack(InstanceNumber=1))


@here("InstanceNumber empty in one slice")
def _empty_number(folder: Path) -> Written:
    planes = stack()
    planes[2].dataset.InstanceNumber = None
    return save(folder, planes)


@here("single slice")
def _single(folder: Path) -> Written:
    return save(folder, stack(1, angles=(10, 20, 30)))


@here("single slice without a thickness", "refused", word="thickness")
def _thin(folder: Path) -> Written:
    save(folder, stack(1, SliceThickness=None))
    return []


@here("two slices")
def _two(folder: Path) -> Written:
    return save(folder, stack(2, angles=(10, 20, 30)))


@here("position missing in one slice", "refused", word=POSITION)
def _one_unplaced(folder: Path) -> Written:
    planes = stack()
    del planes[3].dataset.ImagePositionPatient
    save(folder, planes)
    return []


@here("position missing in all slices", "refused", word=POSITION)
def _unplaced(folder: Path) -> Written:
    save(folder, stack(ImagePositionPatient=None))
    return []


for _name, _text in (("NaN", "NaN\\20\\30"), ("of two numbers", "-10\\20"), ("infinite", "-10\\1e999\\35"),
                     ("empty", ""), ("of words", "left\\20\\30")):  # fmt: skip

    @here(f"position {_name} in one slice", "refused", word=POSITION)
    def _misplaced(folder: Path, text: str = _text) -> Written:
        planes = stack()
        put(planes[2], "ImagePositionPatient", text)
        save(folder, planes)
        return []


@here("orientation missing", "refused", word=ORIENTATION)
def _unoriented(folder: Path) -> Written:
    save(folder, stack(ImageOrientationPatient=None))
    return []


@here("orientation missing in one slice", "refused", word=ORIENTATION)
def _one_unoriented(folder: Path) -> Written:
    planes = stack()
    del planes[0].dataset.ImageOrientationPatient
    save(folder, planes)
    return []


@here("orientation in decimal strings longer than the standard allows")
def _long(folder: Path) -> Written:
    angles = (20.0, -35.0, 50.0)
    planes = stack(angles=angles)
    for plane in planes:
        put(plane, "ImageOrientationPatient", "\\".join(f"{v:.22f}" for v in axes_of(angles)[:2].ravel()))
        put(plane, "ImagePositionPatient", "\\".join(f"{v:.22f}" for v in plane.origin))
    return save(folder, planes)


@here("orientation in exponents and with blanks")
def _exponents(folder: Path) -> Written:
    planes = stack(angles=(20.0, 0, 0))
    for plane in planes:
        put(plane, "ImageOrientationPatient", "\\".join(f" {v:.9E} " for v in plane.axes.ravel()))
    return save(folder, planes)


@here("orientation rounded to four digits")
def _rounded(folder: Path) -> Written:
    planes = stack(angles=(20, -35, 50))
    told = np.round(axes_of((20, -35, 50)), 4)
    unit = told[:2] / np.linalg.norm(told[:2], axis=1, keepdims=True)
    for plane in planes:
        plane.dataset.ImageOrientationPatient = numbers(told[:2].ravel())
        plane.axes = unit
    return save(folder, planes)


@here("orientation not of unit length", "refused", word=ORIENTATION)
def _not_unit(folder: Path) -> Written:
    save(folder, stack(ImageOrientationPatient=["2", "0", "0", "0", "1", "0"]))
    return []


@here("orientation not perpendicular", "refused", word=ORIENTATION)
def _skewed(folder: Path) -> Written:
    save(folder, stack(ImageOrientationPatient=["1", "0", "0", "0.0871557", "0.9961947", "0"]))
    return []


@here("orientation of zeros", "refused", word=ORIENTATION)
def _zeros(folder: Path) -> Written:
    save(folder, stack(ImageOrientationPatient=["0"] * 6))
    return []


@here("orientation NaN", "refused", word=ORIENTATION)
def _nan(folder: Path) -> Written:
    planes = stack()
    for plane in planes:
        put(plane, "ImageOrientationPatient", "NaN\\0\\0\\0\\NaN\\0")
    save(folder, planes)
    return []


@here("decimal comma in PixelSpacing", "refused", word="PixelSpacing")
def _comma(folder: Path) -> Written:
    planes = stack()
    for plane in planes:
        put(plane, "PixelSpacing", "0,8\\0,7")
    save(folder, planes)
    return []


for _name, _spacing in (("missing", None), ("zero", "0\\0.7"), ("negative", "-0.8\\0.7"), ("of one number", "0.8"),
                        ("NaN", "NaN\\0.7")):  # fmt: skip

    @here(f"PixelSpacing {_name}", "refused", word="PixelSpacing|spacing")
    def _unspaced(folder: Path, text: str | None = _spacing) -> Written:
        tags: dict[str, Any] = {"PixelSpacing": None} if text is None else {}
        planes = stack(**tags)
        for plane in planes if text is not None else ():
            put(plane, "PixelSpacing", text or "")
        save(folder, planes)
        return []


for _name, _tags in (
    ("SliceThickness is not the distance of slices", {"SliceThickness": "5"}),
    ("SliceThickness zero", {"SliceThickness": "0"}),
    ("SpacingBetweenSlices is not the distance of slices", {"SpacingBetweenSlices": "1"}),
    ("SpacingBetweenSlices negative", {"SpacingBetweenSlices": "-2.5"}),
    ("SliceLocation contradicts positions", {"SliceLocation": "7"}),
):

    @here(_name)
    def _contradicted(folder: Path, tags: dict[str, Any] = _tags) -> Written:
        return save(folder, stack(angles=(10, 0, 0), **tags))


@here("FrameOfReferenceUID absent")
def _frameless(folder: Path) -> Written:
    return save(folder, stack(FrameOfReferenceUID=None))


@here("positions far from the origin")
def _far(folder: Path) -> Written:
    truth: Truth = save(folder, stack(origin=(-1234.5678, 2345.678, -9876.54321), angles=(1, 2, 3)))
    return truth
