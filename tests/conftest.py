"""What all tests share: a hypothesis profile, devices, and the real data where they are."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("medseg", deadline=None, max_examples=60)
settings.load_profile("medseg")


def _there(name: str) -> bool:
    import torch

    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[name]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("mps", marks=pytest.mark.gpu)])
def device(request):
    """Each compute device in turn, as a name; those that are not there are skipped."""
    if not _there(request.param):
        pytest.skip(f"no {request.param} here")
    return request.param


@pytest.fixture
def real_data() -> Path:
    """Folder of the real data (MEDSEG_DATA, else ../shared/data)."""
    from medseg.data.cases import data_root

    root = data_root()
    if not (root / "cells").is_dir():
        pytest.skip(f"no real data in {root}; set MEDSEG_DATA")
    return root


@pytest.fixture
def tiny_training(tmp_path, monkeypatch):
    """A function that makes the `TrainSpec` of a small 2-D training; its four images are phantoms on disk."""
    import json

    import numpy as np
    import tifffile

    from medseg.spec import TrainSpec
    from medseg.testing import phantoms

    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for seed in range(4):
        labels = phantoms.blobs((48, 56), 6, 6.0, seed)
        image = 200 * phantoms.image_of(labels, seed)
        tifffile.imwrite(tmp_path / "data" / "images" / f"p{seed}.tif", np.clip(image, 0, 255).astype(np.uint8))
        tifffile.imwrite(tmp_path / "data" / "labels" / f"p{seed}.tif", labels.astype(np.uint16))
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"splits": {"cells": {"train": ["p0", "p1"], "tune": ["p2"], "val": ["p3"]}}}))
    monkeypatch.setenv("MEDSEG_DATA", str(tmp_path / "data"))

    def make(**changes) -> TrainSpec:
        settings = {
            "name": "tiny",
            "title": "Tiny",
            "licence": "CC0",
            "net": {"ndim": 2, "filters": [4, 8, 8]},
            "heads": [{"kind": "offset"}, {"kind": "watershed"}],
            "data": {"sources": [{"name": "cells", "images": "images", "labels": "labels"}], "split": str(split)},
            "patch": [32, 32],
            "batch": 2,
            "steps": 12,
            "warmup": 3,
            "rate": 0.01,
            "seed": 1,
        }
        return TrainSpec.model_validate(settings | changes)

    return make


@pytest.fixture
def one_thread():
    """The order of sums, and so the last bit of trained weights, depends on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def drawn():
    """Five objects apart from one another, (40, 60)."""
    from medseg.testing import phantoms

    return phantoms.blobs((40, 60), 5, 5.0, 0, touching=False)
