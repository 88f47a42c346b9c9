"""Laws that every metric of the registry obeys; a new one is tested by being there."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from nnunet_softlabel.metrics.raters_together import RATERS_METRICS
from nnunet_softlabel.metrics.registry import BETTER, METRICS, TITLES, Comparison, Parameters, measure

SHAPE = (5, 14, 14)
BEST = {"higher": 1.0, "lower": 0.0, "zero": 0.0}


def comparison(reference: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None) -> Comparison:
    return Comparison(
        reference=reference,
        prediction=prediction,
        hard_reference=reference > 0.5,
        hard_prediction=prediction > 0.5,
        spacing_mm=(2.0, 1.0, 1.0),
        parameters=Parameters(tolerance_mm=1.0),
        near=np.ones(SHAPE, bool),
        mask=mask,
    )


@pytest.fixture
def maps(rng) -> tuple[np.ndarray, np.ndarray]:
    grid = np.indices(SHAPE) - np.array([2, 6, 6])[:, None, None, None]
    distance = np.sqrt((grid**2).sum(axis=0))
    reference = 1 / (1 + np.exp(2 * (distance - 3)))
    prediction = 1 / (1 + np.exp(1.5 * (distance - 3.6))) + rng.uniform(0, 0.03, SHAPE)
    return reference.astype(np.float32), prediction.clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("name", METRICS)
def test_perfect_prediction_scores_best(name, maps):
    reference, _ = maps
    if name in (
        "top_label_ece",
        "aurc_near",
    ):  # certain and right is best; an unsure map has errors to expect
        reference = (reference > 0.5).astype(np.float32)
    assert METRICS[name].function(comparison(reference, reference)) == pytest.approx(
        BEST[BETTER[name]], abs=1e-9
    )


@pytest.mark.parametrize("name", [name for name in METRICS if BETTER[name] != "zero"])
def test_worse_predictions_score_worse(name, maps):
    reference, prediction = maps
    value = METRICS[name].function(comparison(reference, prediction))
    assert value <= 1 if BETTER[name] == "higher" else value > 0


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.is_symmetric])
def test_symmetric_metrics_are_symmetric(name, maps):
    there, back = comparison(*maps), comparison(*maps[::-1])
    assert METRICS[name].function(there) == pytest.approx(METRICS[name].function(back))


@pytest.mark.parametrize("name", METRICS)
def test_masked_voxels_do_not_count(name, maps):
    reference, prediction = maps
    mask = np.ones(SHAPE, bool)
    mask[:, :, 8:] = False
    changed = np.where(mask, prediction, 0.9).astype(np.float32)
    here, there = comparison(reference, prediction, mask), comparison(reference, changed, mask)
    assert METRICS[name].function(here) == pytest.approx(METRICS[name].function(there))


@pytest.mark.parametrize("name", METRICS)
def test_empty_cases_are_nan_or_perfect_never_an_error(name):
    nothing = np.zeros(SHAPE, np.float32)
    value = METRICS[name].function(comparison(nothing, nothing))
    assert math.isnan(value) or value == BEST[BETTER[name]]


@pytest.mark.parametrize("name", METRICS)
def test_everything_masked_is_never_an_error(name, maps):
    value = METRICS[name].function(comparison(*maps, np.zeros(SHAPE, bool)))
    assert math.isnan(value) or value == 0


def test_soft_reference_has_no_metrics_of_masks(maps):
    soft = Comparison(**{**vars(comparison(*maps)), "hard_reference": None})
    assert set(measure(soft)) == {name for name, metric in METRICS.items() if not metric.of_masks}


def test_every_metric_has_a_title_and_a_direction():
    assert set(TITLES) == set(BETTER) == {*METRICS, *RATERS_METRICS}
    assert len(set(TITLES.values())) == len(TITLES)


def test_evaluation_imports_neither_torch_nor_nnunet():
    code = (
        "import sys; import nnunet_softlabel.report.page, nnunet_softlabel.evaluation.tuning;"
        "print([m for m in ('torch', 'nnunetv2') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
        ).stdout
        == "[]\n"
    )
