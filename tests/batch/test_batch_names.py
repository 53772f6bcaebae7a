"""Names: nobody's is anywhere but in the key, and none leads out of the output folder or hides another case."""

import gzip
import os
import stat
import zlib
from contextlib import closing
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset

from medseg.batch import Case, Input, Ledger
from medseg.batch.cases import Scrubber, named
from medseg.batch.key import read_key, write_key
from medseg.testing import series

from .conftest import RULE, batch, field, results

WORDS = [f"QX{number:02d}ZWORT" for number in range(42)]
TAGS = ("PatientName", "PatientID", "AccessionNumber", "StudyDescription", "SeriesDescription", "ProtocolName",
        "InstitutionName", "ReferringPhysicianName", "StationName", "ImageComments", "PatientComments", "StudyID")  # fmt: skip


def seeded(root: Path) -> Path:
    """A study of every kind of file with 40 words that identify somebody, in good and in damaged files."""
    words = iter(WORDS)
    home = root / "in"
    home.mkdir()
    slices = root / "in" / next(words)
    planes = series.stack(6, shape=(32, 32))
    told = {tag: next(words) for tag in TAGS}
    private = [next(words) for _ in range(3)]
    for plane in planes:
        for tag, word in told.items():
            setattr(plane.dataset, tag, word)
        block = plane.dataset.private_block(0x0011, private[0], create=True)
        block.add_new(1, "LO", private[1])
        inner = Dataset()
        inner.PatientName = private[2]
        block.add_new(2, "SQ", [inner])
    series.save(slices, planes, name=f"{next(words)}_{{:03d}}.dcm")
    bad = home / next(words)
    series.save(bad, series.stack(6, shape=(32, 32), series="1.2.9"), name=f"{next(words)}_{{:03d}}.dcm")
    for file in bad.iterdir():
        file.write_bytes(file.read_bytes()[:300])
    volume = np.stack([field(7)] * 6).astype(np.int16)
    one = nibabel.Nifti1Image(volume, np.diag([1, 1, 2, 1]))
    one.header["descrip"], one.header["aux_file"], one.header["intent_name"] = next(words), next(words), next(words)
    one.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", next(words).encode()))
    nibabel.save(one, home / f"{next(words)}.nii.gz")
    packed = gzip.decompress((next(home.glob("*.nii.gz"))).read_bytes())
    (home / f"{next(words)}.nii.gz").write_bytes(gzip.compress(packed[: len(packed) // 2]))
    tifffile.imwrite(
        home / f"{next(words)}.ome.tif", np.stack([field(1), field(2)]), ome=True, software=next(words),
        metadata={"axes": "CYX", "Channel": {"Name": [next(words), next(words)]}, "Description": next(words)},
    )  # fmt: skip
    tifffile.imwrite(
        home / f"{next(words)}.tif", field(3), description=next(words), extratags=[(315, 2, 0, next(words), True)]
    )
    (home / f"{next(words)}.tif").write_bytes((home / "..").name.encode() + b"II*\0")
    note = PngInfo()
    note.add_text("Author", next(words))
    Picture.fromarray(field(4)).save(home / f"{next(words)}.png", pnginfo=note)
    chunk = (home / f"{next(words)}.png").open("wb")
    chunk.write(b"\x89PNG\r\n\x1a\n" + zlib.compress(b"nothing"))
    chunk.close()
    image = SimpleITK.GetImageFromArray(volume)
    image.SetMetaData("ITK_notes", next(words))
    SimpleITK.WriteImage(image, str(home / f"{next(words)}.nrrd"))
    (home / f"{next(words)}.czi").write_bytes(b"ZISRAWFILE")
    (home / f"{next(words)}.tif").symlink_to(home / next(words))
    rest = list(words)
    assert not rest, f"{len(rest)} words are not used"
    return home


@pytest.mark.parametrize("save", ["labels,nifti,tiff,csv,parquet,overlay,report"])
def test_forty_identifiers_are_nowhere_but_in_the_key(tmp_path, save):
    study, out = seeded(tmp_path), tmp_path / "out"
    done = batch(study, "-o", out, *RULE, "--save", save, code=3, MEDSEG_TRACEBACK="")
    said = [done.stdout, done.stderr]
    for text in ("status", "retry", "report"):
        more = batch(text, out, code=3 if text == "retry" else 0)
        said += [more.stdout, more.stderr]
    said.append(batch(study, "-o", tmp_path / "other", *RULE, "--dry-run", "--json").stdout)
    with closing(Ledger(out)) as ledger:
        states = ledger.counts()
    assert states["done"] >= 5 and states["failed"] >= 5, done.stderr
    found = {}
    for path in out.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        data += gzip.decompress(data) if path.name.endswith(".gz") else b""
        leaked = [
            w for w in WORDS if w.encode() in data or w.encode("utf-16-le") in data or w in str(path.relative_to(out))
        ]
        if leaked and path.name != "key.csv":
            found[path.name] = leaked
    assert found == {}
    assert [w for w in WORDS if w in "".join(said)] == []
    assert any(w in (out / "key.csv").read_text() for w in WORDS)


@pytest.mark.slow
def test_the_key_is_its_owners_alone_and_leads_back(study, tmp_path):
    before = os.umask(0)
    try:
        batch(study, "-o", tmp_path / "out", *RULE)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out/key.csv").stat().st_mode) == 0o600
    key = read_key(tmp_path / "out")
    assert {one.files[0].name for one in key.values()} == {file.name for file in study.iterdir()}
    assert {path.split("/")[0] for path in results(tmp_path / "out")} == set(key)


HOSTILE = [
    "../../x", "/etc/x", "a\nb", "-rf", "--output", "CON", "nul", "aux.", "\u202egpj", "a\tb", "%2e%2e%2f", "~", "$(x)", "`x`",
    "|x", "<script>alert(1)</script>", '"', "'", "*", "?", "\\..\\x", "a" * 200, "\u00e9" * 100, "e\u0301", " ", ".", "=1+1",
]  # fmt: skip


def hostile_files(folder: Path, count: int) -> Path:
    """Images named to hurt, as far as the file system takes the names; a name it does not take is cut down."""
    folder.mkdir()
    for number in range(count):
        name = f"{HOSTILE[number % len(HOSTILE)]}{number}.tif".replace("/", "\u2215").replace("\0", "")
        tifffile.imwrite(folder / name, field(number) if count < 100 else np.full((4, 4), number, np.uint16))
    return folder


def test_hostile_names(tmp_path):
    study, out = hostile_files(tmp_path / "in", len(HOSTILE)), tmp_path / "out"
    outside = tmp_path / "outside"
    outside.mkdir()
    before = sorted(path for path in tmp_path.rglob("*") if out not in path.parents)
    batch(study, "-o", out, *RULE, "--save", "labels")
    seen = [
        file for file in study.iterdir() if not file.name.startswith(".")
    ]  # hidden files are passed over everywhere
    assert len({path.split("/")[0] for path in results(out)}) == len(seen) == len(HOSTILE) - 2
    assert sorted(path for path in tmp_path.rglob("*") if out not in (path, *path.parents)) == before


@pytest.mark.slow
def test_a_link_in_the_output_folder_is_not_followed(study, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    batch(study, "-o", out, *RULE)
    outside.mkdir()
    first = min(out.glob("case-*"))
    for file in first.iterdir():
        file.unlink()
    first.rmdir()
    first.symlink_to(outside, target_is_directory=True)
    done = batch(study, "-o", out, *RULE, code=3)
    assert "leads out of the output folder" in done.stderr and not list(outside.iterdir())


def test_five_hundred_hostile_names_collide_nowhere(tmp_path):
    study = hostile_files(tmp_path / "in", 500)
    cases = [Case("file", (Input((file,)),)) for file in sorted(study.iterdir())]
    cases += [Case("file", (Input((Path(text),)),)) for text in ("../../x", "/no/such", "x\0y", "n" * 4096, "CON")]
    every = list(named(cases, b"secret"))
    assert len({one.name.casefold() for one in every}) == len(cases) == 505
    assert all(one.name.startswith("case-") and set(one.name[5:]) <= set("0123456789abcdef-") for one in every)
    assert [bool(one.unread) for one in every] == [False] * 500 + [True] * 5
    write_key(tmp_path, every)
    back = read_key(tmp_path)
    assert [back[one.name].files[0] for one in every[:500]] == [one.case.files[0] for one in every[:500]]


def test_equal_content_keeps_its_own_case(tmp_path):
    for name in ("a", "b", "c"):
        tifffile.imwrite(tmp_path / f"{name}.tif", field(1))
    every = list(named([Case("file", (Input((tmp_path / f"{n}.tif",)),)) for n in "abc"], b"secret"))
    first = every[0].name
    assert [one.name for one in every] == [first, f"{first}-2", f"{first}-3"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Doe.nii.gz is damaged", "case-1 is damaged"),
        ("/data/Smith_A/Doe.nii.gz: is not there", "case-1: is not there"),
        ("one of Smith_A and Doe", "one of case-1 and case-1"),
        ("Doeskin\nis whole", "Doeskin is whole"),
    ],
)
def test_names_are_taken_out_of_text(text, clean):
    assert Scrubber([Path("/data/Smith_A/Doe.nii.gz")], "case-1")(text) == clean


def test_words_of_messages_that_folders_are_named_by_stay():
    text = "what is in a PT image of this series of Doe_Jane"
    told = Scrubber([Path("/data/Doe_Jane/series/image/1.dcm")], "case-1")(text)
    assert told == "what is in a PT image of this series of case-1"
    assert Scrubber([Path("/data/Case/1.dcm")], "case-1")("no voxels of Case") == "no voxels of case-1"


def test_the_key_keeps_names_and_faults(tmp_path):
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", field(1))
    cases = [Case("file", (Input((tmp_path / f"{n}.tif",)),), fault="why" if n == "b" else "") for n in "ab"]
    every = list(named(cases, b"secret"))
    write_key(tmp_path, every)
    second = read_key(tmp_path)[every[1].name]
    assert second.fault == "why" and second.name.endswith("-2")
    (alone,) = named([second], b"secret")
    assert (alone.name, alone.digest) == (every[1].name, every[1].digest)
    tifffile.imwrite(tmp_path / "b.tif", field(2))
    (changed,) = named([second], b"secret")
    assert changed.name == f"case-{changed.digest[:12]}" != every[1].name
