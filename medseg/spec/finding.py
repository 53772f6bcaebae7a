"""Spec of what exported instances are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medseg.spec.base import Spec


class FindingSpec(Spec):
    """What exported instances are, in coded terms, and who drew them: for DICOM SEG, RTSTRUCT and SR.

    A code is [value, coding scheme, meaning]; `medseg.io.clinical.codes` has the usual ones.
    """

    category: tuple[str, str, str] = ("49755003", "SCT", "Morphologically Abnormal Structure")
    type: tuple[str, str, str] = ("52988006", "SCT", "Lesion")
    types: dict[str, tuple[str, str, str]] = Field(
        default_factory=dict, description="code of each class; a class that is not here has `type`"
    )
    site: tuple[str, str, str] | None = Field(default=None, description="anatomic site, where all findings share it")
    nodal: bool = Field(default=False, description="lymph nodes: RECIST measures their short axis")
    role: Literal["", "target", "non-target", "new"] = Field(
        default="", description="role by RECIST, where one is given"
    )
    algorithm: str = Field(default="", max_length=64, description="name of what drew them; empty: the model's name")
    algorithm_version: str = Field(default="", max_length=64, description="empty: medseg's version")
    algorithm_type: Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"] | None = Field(
        default=None, description="None: as recorded; automatic, or semiautomatic where a person edited the instance"
    )
    roi_type: str = Field(
        default="", max_length=16, description="RT ROI interpreted type, for example GTV; empty: not interpreted"
    )
    colour: tuple[int, int, int] | None = Field(
        default=None, description="red, green, blue (0 to 255) of all; None: a colour for each instance"
    )

    @model_validator(mode="after")
    def _codes(self) -> FindingSpec:
        for code in (self.category, self.type, self.site, *self.types.values()):
            if code and not all(part and len(part) <= size for part, size in zip(code, (64, 16, 64), strict=True)):
                raise ValueError(f"{list(code)} is no code; give [value, coding scheme, meaning], none of them empty")
        if self.colour and not all(0 <= part <= 255 for part in self.colour):
            raise ValueError("colour is red, green, blue, each 0 to 255")
        return self
