"""The study of noise: tiles of CT on which one reader leaves nodules out."""

from __future__ import annotations

import numpy as np
import pytest

from docs.studies.noise import data
from docs.studies.noise.scenarios import MISSED_ON_CT
from docs.studies.refine.scenes import Tiles


@pytest.fixture
def sixty_patients(monkeypatch):
    outlines = np.zeros((3, 8, 8), bool)
    outlines[:2, 2:6, 2:6] = outlines[2, 3:5, 3:5] = True
    nodules = [(f"patient{n}", np.full((8, 8), n, np.float32), outlines) for n in range(60)]
    empty = [(f"patient{n}", np.full((8, 8), 100 + n, np.float32)) for n in range(60)]
    monkeypatch.setattr(data, "nodules_and_empty_tiles", lambda fewest: Tiles(nodules, empty))
    monkeypatch.setattr(data, "CT_PATIENTS", (30, 15))
    data.sections.cache_clear()
    yield
    data.sections.cache_clear()


def test_parts_of_ct_hold_different_patients_and_half_as_many_empty_tiles(sixty_patients):
    parts = data.sections(MISSED_ON_CT, 0)
    patients = [{int(image[0, 0]) % 100 for image in part.image} for part in parts]
    assert [len(part.image) for part in parts] == [45, 22, 22]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert [int(part.truth.any(axis=(1, 2)).sum()) for part in parts] == [30, 15, 15]


def test_nodules_are_left_out_and_never_invented_on_ct(sixty_patients):
    training = data.sections(MISSED_ON_CT, 1)[0]
    has, drawn = training.truth.any(axis=(1, 2)), training.drawn.any(axis=(1, 2))
    assert not drawn[~has].any()
    assert 0.2 < 1 - drawn[has].mean() < 0.6
    assert {int(one.sum()) for one in training.drawn[drawn]} == {4, 16}  # one reader each, not the majority
