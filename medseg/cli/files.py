"""What commands that find, separate or measure share: which files are written, what findings are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medseg.cli.common import say
from medseg.errors import InputError, MedsegWarning

if TYPE_CHECKING:
    import pandas as pd

    from medseg.image import Image
    from medseg.instances import Instances
    from medseg.spec import FindingSpec, MeasureSpec


IMAGE = "Image the mask was drawn on, for intensities and DICOM: a file or DICOM folder."
SAVE = "Files to write, of: labels, nifti, tiff, csv, parquet, overlay, report, seg, rtstruct, sr."
VALUES = "What the voxels of --image hold, where the file does not say it: HU, SUVbw, SUVlbm, SUVbsa."


@dataclass(frozen=True)
class Files:
    """What is written of each case."""

    kinds: tuple[str, ...]
    finding: FindingSpec | None
    measures: MeasureSpec
    deidentify: bool

    def save(
        self,
        instances: Instances,
        image: Image,
        folder: Path,
        stem: str,
        *,
        intensities: bool = True,
        said: pd.DataFrame | None = None,
    ) -> list[Path]:
        """Write the files of one case; without ``intensities`` the image is only drawn on; ``said`` is of single instances."""
        from medseg.export import save_case

        more = {
            "finding": self.finding,
            "measures": self.measures,
            "deidentify": self.deidentify,
            "intensities": intensities,
            "said": said,
        }
        return save_case(instances, image, folder, stem, self.kinds, **more)  # type: ignore[arg-type]


def kinds(text: str) -> tuple[str, ...]:
    """Parse ``--save``."""
    from medseg.export import KINDS

    chosen = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not chosen or (unknown := [k for k in chosen if k not in KINDS]):
        named = ", ".join(unknown) if chosen else "nothing"
        raise typer.BadParameter(f"cannot write {named}; choose of {', '.join(KINDS)}", param_hint="--save")
    return chosen


def finding(what: str | None, site: str | None, nodal: bool, role: str | None) -> FindingSpec | None:
    """What the options say that the objects are; None if they say nothing."""
    from medseg.io.clinical.codes import PROPERTY_TYPES, is_node
    from medseg.spec import FindingSpec, parse

    told: dict[str, object] = {}
    if what:
        known = PROPERTY_TYPES.get(what.strip().lower())
        told["type"] = known or _code(what, "--finding", f"one of {', '.join(PROPERTY_TYPES)}")
    if site:
        told["site"] = _site(site)
    if nodal or (site and is_node(told["site"][2])):  # type: ignore[index]
        told["nodal"] = True
    if role:
        told["role"] = role
    return parse(FindingSpec, told, "options") if told else None


def table_of(
    path: Path | None, lesions: Instances, named: FindingSpec | None
) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """What a person said of lesions: of all by options, of single ones by a table with id and finding_site, nodal or role.

    Columns id and what was said, NaN where nothing was; and the sites of both as codes.

    Raises
    ------
    InputError
        The table cannot be read, has other columns missing, or says what no lesion can be.
    """
    import pandas as pd

    out = pd.DataFrame({"id": lesions.table["id"].to_numpy()})
    if named is not None:
        of_all: dict[str, Any] = {
            "finding_site": named.site[2] if named.site else "",
            "nodal": named.nodal,
            "role": named.role,
        }
        for name, value in of_all.items():
            if value:
                out[name] = value
    codes = [named.site] if named is not None and named.site else []
    if path is None:
        return out, codes
    try:
        # a comma or a semicolon, as spreadsheets write
        said = pd.read_csv(
            path, sep=None, engine="python", dtype={"finding_site": str, "role": str}, keep_default_na=False
        )
    except (OSError, ValueError):
        raise InputError(f"{path}: cannot be read as a table; give .csv with id, finding_site, nodal, role") from None
    if "id" not in said or said["id"].duplicated().any() or not pd.api.types.is_integer_dtype(said["id"]):
        raise InputError(f"{path}: needs a column id with each lesion's number once")
    if strange := sorted(set(said["id"].tolist()) - set(out["id"].tolist())):
        raise InputError(f"{path}: there is no lesion {strange[0]}")
    said = said.set_index("id")
    if "role" in said and (bad := sorted(set(said["role"]) - {"", "target", "non-target", "new"})):
        raise InputError(f"{path}: {bad[0]!r} is no role; use target, non-target or new")
    if "finding_site" in said:
        coded = {text: _coded(text) for text in sorted(set(said["finding_site"])) if text.strip()}
        if unknown := [text for text, code in coded.items() if code is None]:
            raise InputError(
                f"{path}: {unknown[0]!r} is no site of the standard such as lung or liver, nor CODE:SCHEME:MEANING"
            )
        meanings = {text: code[2] for text, code in coded.items() if code}
        codes += [code for code in coded.values() if code]
        said = said.assign(finding_site=[meanings.get(text, "") for text in said["finding_site"]])
    if "nodal" in said or "finding_site" in said:
        said = said.assign(nodal=pd.Series(_nodal(said, path), index=said.index, dtype=object))
    for name in ("finding_site", "nodal", "role"):
        if name in said:
            told = out["id"].map(said[name].where(said[name] != ""))  # an empty cell says nothing
            out[name] = told.where(told.notna(), out[name]) if name in out else told
    return out, codes


def _nodal(said: pd.DataFrame, path: Path) -> list[bool | None]:
    """Whether each lesion is a lymph node: what the column nodal says, else its site; None where neither says so."""
    from medseg.io.clinical.codes import is_node

    flags = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": None}
    words = [str(word).strip().lower() for word in said.get("nodal", [""] * len(said))]
    if bad := sorted(set(words) - set(flags)):
        raise InputError(f"{path}: nodal is yes or no, not {bad[0]!r}")
    sites = said.get("finding_site", [""] * len(said))
    return [flags[word] if word else is_node(site) or None for word, site in zip(words, sites, strict=True)]


def _site(text: str) -> tuple[str, str, str]:
    from medseg.io.clinical.codes import anatomy

    return anatomy(text) or _code(text, "--finding-site", "a name of the standard such as lung, liver or brain")


def _code(text: str, option: str, names: str) -> tuple[str, str, str]:
    parts = _parts(text)
    if parts is None:
        raise typer.BadParameter(f"{text!r} is not known; give {names}, or CODE:SCHEME:MEANING", param_hint=option)
    return parts


def _coded(text: str) -> tuple[str, str, str] | None:
    """A site by name or code, None if it is neither."""
    from medseg.io.clinical.codes import anatomy

    return anatomy(text) or _parts(text)


def _parts(text: str) -> tuple[str, str, str] | None:
    """CODE:SCHEME:MEANING."""
    parts = tuple(part.strip() for part in text.split(":", 2))
    return parts if len(parts) == 3 and all(parts) else None


def both(mask: Path, image: Path | None, series: str | None) -> tuple[Instances, Image]:
    """The mask, and the image it was drawn on; without one, an image of the mask itself, to have something to draw on."""
    from medseg import io

    load: dict[str, Any] = {"series": series} if series else {}
    if image is None:
        drawn = io.load_labels(mask)
        from medseg.image import Image

        return drawn, Image((drawn.labels > 0).astype("uint8")[None], drawn.grid)
    picture = io.load(image, **load)
    return io.load_labels(mask, like=picture), picture


def tell(caught: list[Any], found: Instances) -> None:
    """Say what readers and writers noted, each once."""
    said = [str(w.message) for w in caught if issubclass(w.category, MedsegWarning)]
    notes = found.provenance.get("notes", [])
    for line in dict.fromkeys([*said, *(map(str, notes) if isinstance(notes, (list, tuple)) else ())]):
        say(f"medseg: note: {line}")
