"""What tests of DICOM outputs share."""

import pytest
from source_study import written

from medseg import io


@pytest.fixture
def fixed_time(monkeypatch):
    """Outputs made at one time."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture
def source(tmp_path):
    """The image of a small CT series."""
    return io.load(written(tmp_path / "ct"))
