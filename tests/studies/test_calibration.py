"""The calibration study: its rule of choice, and maps of other folds only."""

from __future__ import annotations

import numpy as np
import pytest

from docs.studies.calibration import __main__ as study
from docs.studies.calibration import tables
from docs.studies.calibration.networks import StudyData
from docs.studies.shared.cases import CaseData
from docs.studies.shared.small_network import NetworkBudget


def screened(nll: dict[tuple[str, str], float], volume: dict[tuple[str, str], float]):
    rows = [
        {"method": "raw", "weight": "", "nll_near": "0.2", "brier_near": "0.05", "volume_error_abs": "0.2"}
    ]
    for (method, weight), value in nll.items():
        rows.append(
            {
                "method": method,
                "weight": weight,
                "nll_near": str(value),
                "brier_near": str(value / 4),
                "volume_error_abs": str(volume[method, weight]),
            }
        )
    return [{"data": "lidc", "label": "stock", **row} for row in rows]


def test_a_map_that_costs_volume_is_dropped_and_the_best_of_the_rest_is_taken():
    nll = {("isotonic", "near"): 0.1, ("isotonic", "roots"): 0.11, ("affine", "roots"): 0.12}
    volume = {("isotonic", "near"): 1.0, ("isotonic", "roots"): 0.24, ("affine", "roots"): 0.2}
    listed, chosen, foldable = tables.choice(screened(nll, volume))
    assert chosen == ("isotonic", "roots")
    assert foldable == ("affine", "roots")
    assert dict(((m, w), rise) for m, w, rise, _ in listed)["isotonic", "near"] == pytest.approx(0.8)


def test_if_all_cost_volume_the_smallest_cost_is_taken():
    nll = {("affine", "near"): 0.1, ("affine", "roots"): 0.3}
    volume = {("affine", "near"): 1.0, ("affine", "roots"): 0.4}
    assert tables.choice(screened(nll, volume))[1] == ("affine", "roots")


@pytest.fixture
def data(monkeypatch):
    """Ten small cases of two readers, and predictions that are too sure."""
    rng = np.random.default_rng(0)
    cases = []
    for k in range(10):
        votes = rng.random((2, 1, 2, 16, 16)) < 0.3
        cases.append(CaseData(f"c{k}", f"p{k}", np.zeros((2, 16, 16)), votes, None, (1.0, 1.0, 1.0)))
    found = StudyData(lambda: tuple(cases), 2, NetworkBudget())
    monkeypatch.setitem(study.DATA_SETS, "small", found)
    p = {c.name: np.clip(rng.random((1, 2, 16, 16)) ** 3, 1e-4, 1 - 1e-4) for c in cases}
    return cases, {name: np.concatenate([1 - q, q]) for name, q in p.items()}


def test_a_fold_gets_the_map_of_the_other_folds(data):
    _, found = data
    first = study.fitted("small", found, "affine", "roots")
    own = {case.name for case in study.case_parts("small")["0"]}
    changed = {name: p if name not in own else p[::-1] for name, p in found.items()}
    second = study.fitted("small", changed, "affine", "roots")
    assert second["0"] == first["0"]
    assert second["1"] != first["1"]


def test_every_case_is_scored_before_and_after(data):
    cases, found = data
    after = study.mapped("small", found, study.fitted("small", found, "isotonic", "near"))
    rows = [study.scored("small", maps) for maps in (found, after)]
    assert [row["case"] for row in rows[0]] == [case.name for case in cases]
    nll = [np.mean([row["nll_near"] for row in group]) for group in rows]
    assert nll[1] < nll[0]
