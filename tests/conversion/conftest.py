"""Fixtures of the conversion's tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.conversion.conversion_helpers import run
from tests.conversion.layout_helpers import soft_of

Folders = SimpleNamespace


@pytest.fixture
def two_labels(tmp_path: Path, rater_folder_factory) -> Any:
    """Three cases, two raters, two classes."""
    return rater_folder_factory(
        tmp_path / "source", num_cases=3, num_raters=2, num_classes=2, shape=(6, 12, 10)
    )


@pytest.fixture
def expected(two_labels, nnunet_folders: Folders) -> dict[str, np.ndarray]:
    """What plain files give."""
    assert run(*two_labels.arguments(900, "Plain")) == 0
    return soft_of(nnunet_folders.raw / "Dataset900_Plain")
