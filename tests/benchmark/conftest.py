"""A grid on the planned data set, and trainings that are not real."""

import json
from pathlib import Path

import pytest

from nnunet_softlabel.benchmark import cell_training
from tests.benchmark import fake_training as fake
from tests.benchmark.grids import TRAINERS, grid_of


@pytest.fixture
def grid_factory(planned_dataset, tmp_path):
    def make(**options):
        options = {
            "trainers": TRAINERS,
            "folds": [0],
            "plans": "nnUNetPlansReduced",
        } | options
        return grid_of(planned_dataset.id, tmp_path / "benchmark", **options)

    return make


@pytest.fixture
def fake_training(monkeypatch):
    """Arguments of the trainings that were started; none is real."""
    started = []

    def run(command, **options):
        started.append(json.loads(Path(command[-2]).read_text(encoding="utf-8")))
        return fake.popen(command, **options)

    monkeypatch.setattr(cell_training, "subprocess", fake.subprocess_with(run))
    return started
