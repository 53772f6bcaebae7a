"""One case, as every command does it: how its image is read, and what finds its instances, a model or a rule."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg import io, pipeline
from medseg.errors import InputError
from medseg.image import Image
from medseg.instances import Instances
from medseg.pipeline import Event, Finished, default_model
from medseg.spec import CaseSpec, RunSpec, SeparateSpec

if TYPE_CHECKING:
    from medseg.model import Model


def read(path: str | Path | Sequence[Path], spec: CaseSpec, series: str | int | None = None) -> Image:
    """Read an image as a spec says.

    Parameters
    ----------
    path
        A file, a DICOM folder, or the files of one DICOM image.
    spec
        Spacing, channels and so on.
    series
        Which DICOM image, where there are several.

    Raises
    ------
    InputError
        As `medseg.load`; or a channel is not there; or DICOM is to be written of an image that did not come from DICOM.
    """
    more: dict[str, Any] = {"series": series} if series else {}
    more |= {"regularize": True} if spec.regularize else {}
    image = io.load(path, spacing=spec.spacing, unit=spec.unit, channel_axis=spec.channel_axis, **more)
    dicom = [kind for kind in spec.save if kind in ("seg", "rtstruct", "sr")]
    if dicom and (image.source is None or image.source.format != "dicom"):  # told before the work, not after it
        raise InputError(
            f"--save {','.join(dicom)} (save) belongs to a DICOM series, and the image did not come from one; leave it out, or "
            "write NIfTI and put that on the series with `medseg convert --reference`."
        )
    return image if spec.channels is None else image.select(spec.channels)


def combined(image: Image, others: Mapping[str, Image], wanted: Sequence[str]) -> Image:
    """The image and those beside it as one; the image itself is what the model has no other name for.

    Parameters
    ----------
    image
        One of the model's inputs.
    others
        All the others, by the model's name for them, in any case of letters.
    wanted
        The model's inputs, in its order.

    Raises
    ------
    InputError
        A name is none of the model's inputs, or more than one is missing.
    """
    from medseg.preprocess import combine

    named = {name.lower(): name for name in wanted}
    if strange := [name for name in others if name.lower() not in named]:
        raise InputError(f"{strange[0]!r} is none of the model's inputs {', '.join(wanted)}")
    given = {name.lower() for name in others}
    rest = [name for name in wanted if name.lower() not in given]
    if len(rest) != 1:
        raise InputError(f"the model's inputs are {', '.join(wanted)}; give all but one")
    parts = {rest[0]: image} | {named[name.lower()]: other for name, other in others.items()}
    return combine({name: parts[name] for name in (rest[0], *[n for n in wanted if n != rest[0]])})


class Models:
    """The model asked for, or the one that fits each image, loaded once."""

    def __init__(self, name: str | None, options: RunSpec) -> None:
        self._name, self._options = name, options
        self._loaded: dict[str, Model] = {}
        if name is not None:
            from medseg.model import find, read_header

            read_header(find(name))  # an unknown or damaged model is told without torch

    def check(self) -> None:
        """Raise ModelError or DeviceError for what no image could be run with."""
        from medseg.model import choose_device

        choose_device(self._options.device)
        if self._name is not None:
            self._load(self._name)

    def name(self, image: Image) -> str:
        """What finds the instances of an image."""
        return self.for_image(image).spec.name

    def for_image(self, image: Image) -> Model:
        """The model for an image."""
        return self._load(self._name or default_model(image))

    def events(self, image: Image) -> Iterator[Event]:
        """Find the instances of an image: the pipeline's events, the last of which holds them."""
        yield from pipeline.run(image, self.for_image(image), self._options)

    def _load(self, name: str) -> Model:
        from medseg.model import Model

        if name not in self._loaded:
            self._loaded[name] = Model.load(name, self._options.device)
        return self._loaded[name]


class Rules:
    """A rule in place of a model."""

    def __init__(self, text: str, spec: SeparateSpec, values: str) -> None:
        from medseg.separate import rule

        self.text, self._rule, self._spec, self._values = text, rule(text), spec, values

    def check(self) -> None:
        """Nothing to load."""

    def name(self, image: Image) -> str:
        """What finds the instances of an image."""
        return self.text

    def apply(self, image: Image) -> Instances:
        """The instances of an image."""
        from medseg.separate import foreground, separate, valued

        quantity = valued(image, self._rule.what, self._values)
        mask = foreground(quantity, self._rule)
        found = separate(mask, image.grid, quantity, self._spec, of_each=self._rule.of_each)
        record = {**found.provenance, "method": f"{self.text}, {found.provenance['method']}"}
        if image.source:
            record["source_sha256"] = image.source.content_hash()
        return replace(found, provenance=record)

    def events(self, image: Image) -> Iterator[Event]:
        """Find the instances of an image: one event, which holds them."""
        started = time.monotonic()
        yield Finished(self.apply(image), time.monotonic() - started, ())


def finder(spec: CaseSpec) -> Models | Rules:
    """What finds instances, by a spec.

    Raises
    ------
    ModelError, InputError
        There is no such model, or the rule cannot be understood.
    """
    if spec.threshold is None:
        return Models(spec.model, spec.run)
    return Rules(spec.threshold, spec.separate, spec.measure.values)
