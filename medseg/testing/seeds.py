"""Small valid files of every kind that medseg reads: what `medseg.testing.fuzz` damages."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.grid import Grid
from medseg.image import Image
from medseg.instances import Instances

AnyArray = npt.NDArray[Any]

SHAPE = (4, 18, 20)


@dataclass(frozen=True)
class Seed:
    """A valid file.

    Parameters
    ----------
    name : str
        File name.
    kind : str
        What its bytes are, for the mutations: "dicom", "nifti", "gzip", "text", "tiff", "png", "json", "model", "yaml",
        "session", "czi", "lif", "bytes".
    reader : str
        Key of `medseg.testing.seedreaders.READERS`.
    data : bytes
        All of the file.
    """

    name: str
    kind: str
    reader: str
    data: bytes


def grid() -> Grid:
    """Where all volumes lie."""
    affine = np.array([[0, 0, 0.7, -30.0], [0, 0.8, 0, 40.0], [2.5, 0, 0, 50.0], [0, 0, 0, 1]])
    return Grid(SHAPE, affine, space="patient")


def labels() -> npt.NDArray[np.int32]:
    """Two objects, `SHAPE`."""
    out = np.zeros(SHAPE, np.int32)
    out[1:3, 2:9, 3:10], out[1:4, 11:16, 9:18] = 1, 2
    return out


@cache
def seeds() -> tuple[Seed, ...]:
    """All seeds, always in the same order; the same bytes as long as the libraries that write them stay the same."""
    with tempfile.TemporaryDirectory() as name, _at_one_time():
        folder = Path(name)
        found = [*_volumes(folder), *_pictures(folder), *_texts(), *_models(folder), *_sessions(folder)]
        found += _microscopes(folder)
        return (*_dicom(folder), *found)


@contextmanager
def _at_one_time() -> Iterator[None]:
    """Writers that state the time state this one."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.pop("SOURCE_DATE_EPOCH")
        if before is not None:
            os.environ["SOURCE_DATE_EPOCH"] = before


def series(folder: Path) -> Path:
    """Write the CT that SEG, RTSTRUCT and SR are drawn on, and return its folder."""
    from medseg.testing.series import save, stack

    save(folder / "ct", stack(SHAPE[0], shape=SHAPE[1:]))
    return folder / "ct"


def _dicom(folder: Path) -> Iterator[Seed]:
    """One slice in each transfer syntax, one in a series, many frames in one file, and what hospitals exchange."""
    import pydicom
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
        JPEGLSLossless,
        RLELossless,
    )

    from medseg import io
    from medseg.testing.series import stack, write

    ct = series(folder)
    first = sorted(ct.iterdir())[0].read_bytes()
    yield Seed("plain.dcm", "dicom", "image", first)
    yield Seed("I000.dcm", "dicom", "series", first)
    yield Seed("bare.dcm", "dicom", "image", first[132:])
    path = folder / "one.dcm"
    for syntax, compressed in (
        (ImplicitVRLittleEndian, False), (ExplicitVRBigEndian, False), (DeflatedExplicitVRLittleEndian, False),
        (RLELossless, True), (JPEGLSLossless, True),
    ):  # fmt: skip
        plane = stack(1, shape=SHAPE[1:], dtype="uint16", RescaleSlope=None, RescaleIntercept=None)[0].dataset
        if compressed:
            plane.compress(syntax, generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            plane.PixelData = plane.pixel_array.astype(">u2").tobytes()
        plane.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            path, plane, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian,
            force_encoding=True,
        ) if not compressed else write(plane, path)  # fmt: skip
        yield Seed(f"{syntax.name.split()[0].lower()}.dcm", "dicom", "image", path.read_bytes())
    yield from _jpegs(path)
    image, found = io.load(ct), Instances.from_labels(labels(), io.load(ct).grid)
    io.save_seg(found, folder / "seg.dcm", image)
    io.save_seg(found, folder / "map.dcm", image, kind="labelmap")
    io.save_rtstruct(found, folder / "rt.dcm", image)
    io.save_report(found, folder / "sr.dcm", image, segmentation=folder / "seg.dcm")
    for name, reader in (("seg", "objects"), ("map", "objects"), ("rt", "contours"), ("sr", "report")):
        yield Seed(f"{name}.dcm", "dicom", reader, (folder / f"{name}.dcm").read_bytes())


def _jpegs(path: Path) -> Iterator[Seed]:
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1

    from medseg.testing.series import stack, write

    for syntax, kind, encode in (
        (JPEGBaseline8Bit, "uint8", imagecodecs.jpeg8_encode), (JPEGLosslessSV1, "uint16", imagecodecs.ljpeg_encode),
        (HTJ2KLossless, "uint16", imagecodecs.htj2k_encode),
        (JPEG2000Lossless, "uint16", partial(imagecodecs.jpeg2k_encode, level=0, codecformat="j2k", reversible=True)),
    ):  # fmt: skip
        plane = stack(1, shape=(40, 48), dtype=kind, RescaleSlope=None, RescaleIntercept=None)[0]
        frame = bytes(encode(plane.pixels))
        plane.dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
        plane.dataset["PixelData"].is_undefined_length = True
        plane.dataset.file_meta.TransferSyntaxUID = syntax
        write(plane.dataset, path)
        yield Seed(f"{syntax.keyword.lower()}.dcm", "dicom", "image", path.read_bytes())


def _volumes(folder: Path) -> Iterator[Seed]:
    from medseg import io

    values = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    image = Image(values[None], grid())
    for name, kind in (("a.nii", "nifti"), ("a.nii.gz", "gzip"), ("a.nrrd", "text"), ("a.mha", "text")):
        io.save_image(image, folder / name)
        yield Seed(name, kind, "image", (folder / name).read_bytes())
    io.save_labels(Instances.from_labels(labels(), grid()), folder / "labels.nii.gz")
    yield Seed("labels.nii.gz", "gzip", "labels", (folder / "labels.nii.gz").read_bytes())
    small = values[:2, :4, :5].tobytes()
    yield Seed(
        "raw.nrrd", "text", "image",
        b"NRRD0005\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 4 2\nspace directions: (1,0,0) "
        b"(0,1,0) (0,0,2)\nkinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n\n" + small,
    )  # fmt: skip
    yield Seed(
        "raw.mha", "text", "image",
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nElementSpacing = 1 1 2\n"
        b"DimSize = 5 4 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + small,
    )  # fmt: skip


def _pictures(folder: Path) -> Iterator[Seed]:
    import tifffile
    from PIL import Image as Picture

    from medseg import io

    values = np.random.default_rng(0).integers(0, 255, (18, 20)).astype(np.uint8)
    for name, more in (
        ("plain.tif", {}), ("deflate.tif", {"compression": "zlib", "tile": (16, 16)}), ("lzw.tif", {"compression": "lzw"}),
        ("big.tif", {"bigtiff": True}), ("imagej.tif", {"imagej": True, "resolution": (2.0, 2.0)}),
    ):  # fmt: skip
        tifffile.imwrite(folder / name, values, **more)
        yield Seed(name, "tiff", "image", (folder / name).read_bytes())
    io.save_labels(Instances.from_labels(labels(), grid()), folder / "a.ome.tif")
    yield Seed("a.ome.tif", "tiff", "labels", (folder / "a.ome.tif").read_bytes())
    Picture.fromarray(values).save(folder / "a.png")
    yield Seed("a.png", "png", "image", (folder / "a.png").read_bytes())
    Picture.fromarray(values).save(folder / "a.jpg")
    yield Seed("a.jpg", "bytes", "image", (folder / "a.jpg").read_bytes())


def _texts() -> Iterator[Seed]:
    from medseg.io import rle

    packed = rle.pack(rle.encode(labels()[1] == 1, (0, 0), SHAPE[1:]))
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 18, "width": 20}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 5, 6], "area": 30.0, "iscrowd": 0,
             "segmentation": [[2, 3, 7, 3, 7, 9, 2, 9]]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 4, "iscrowd": 1,
             "segmentation": {"size": [18, 20], "counts": [19, 2, 16, 2, 321]}},
            {"id": 3, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0,
             "segmentation": {"size": [18, 20], "counts": packed}},
        ],
    }  # fmt: skip
    yield Seed("coco.json", "json", "coco", json.dumps(coco).encode())
    drawn = {"size": [18, 20], "counts": packed}
    results = [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": drawn, "bbox": [1, 1, 3, 3]}]
    yield Seed("results.json", "json", "coco", json.dumps(results).encode())
    yield Seed(
        "split.yaml", "yaml", "split",
        b"seed: 3\ntune: 0.2\nsources:\n  - name: cells\n    images: cells/images\n    group: file\n    val: 0.3\n",
    )  # fmt: skip
    yield Seed(
        "train.yaml", "yaml", "train",
        b"name: tiny\ntitle: Tiny\nlicence: CC0\nnet: {ndim: 2, filters: [4, 8, 8]}\nheads:\n  - kind: offset\n"
        b"data:\n  sources:\n    - {name: cells, images: images, labels: labels}\n  split: split.json\n"
        b"patch: [32, 32]\nbatch: 2\nsteps: 12\nwarmup: 3\nrate: 0.01\nseed: 1\n",
    )  # fmt: skip


def _models(folder: Path) -> Iterator[Seed]:
    import torch

    from medseg.model import save_model
    from medseg.nets.net import Net
    from medseg.spec import ModelSpec, NetSpec, OffsetSpec, PreprocessSpec

    net, head = NetSpec(filters=(4, 4, 4)), OffsetSpec(threshold=0.4)
    spec = ModelSpec(
        name="tiny", title="Tiny", licence="CC0", modality=("microscopy",), target="cell", net=net,
        preprocess=PreprocessSpec(), heads=(head,), training={"steps": 3}, limits=("none",),
    )  # fmt: skip
    torch.manual_seed(0)
    weights = {k: v for k, v in Net(net, (head,)).state_dict().items() if v.is_floating_point()}
    save_model(folder / "tiny.safetensors", spec, weights)
    yield Seed("tiny.safetensors", "model", "model", (folder / "tiny.safetensors").read_bytes())


def _sessions(folder: Path) -> Iterator[Seed]:
    from medseg_napari.journal import Journal
    from medseg_napari.session import Session

    journal = Journal(folder / "a.session")
    session = Session(Instances.from_labels(labels(), grid()), None, None, journal)
    after = session.labels[0:2, 0:4, 0:4].copy()
    after[:] = 3
    session.commit("brush", (slice(0, 2), slice(0, 4), slice(0, 4)), after)
    journal._file.execute("UPDATE about SET value = '1700000000' WHERE key = 'at'")
    journal._file.execute("PRAGMA journal_mode=DELETE")  # all in one file
    journal.close()
    yield Seed("a.session", "session", "session", (folder / "a.session").read_bytes())


def _microscopes(folder: Path) -> Iterator[Seed]:
    from medseg.testing import microscopes

    for name, packed in (("a.czi", "uncompressed:"), ("zstd.czi", "zstd1:ExplicitLevel=2")):
        microscopes.volume(folder / name, SHAPE[1:], packed)
        yield Seed(name, "czi", "image", microscopes.always((folder / name).read_bytes()))
    values = np.random.default_rng(0).integers(0, 255, (2, *SHAPE)).astype(np.uint8)
    microscopes.lif(folder / "a.lif", [("a", values, dict.fromkeys("ZYX", 0.001), ("Green", "Red"))])
    yield Seed("a.lif", "lif", "image", (folder / "a.lif").read_bytes())
