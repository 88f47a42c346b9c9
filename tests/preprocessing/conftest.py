"""A data set that nnU-Net has planned, to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own(planned_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A copy of the planned data set that the test may change."""
    return planned_dataset.copy_to(tmp_path, monkeypatch)
