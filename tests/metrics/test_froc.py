"""Detection at every threshold: by hand, and as MONAI counts it."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.metrics.froc import ScoredLesions, froc, lesion_average_precision, scored_lesions


def test_a_component_has_its_highest_probability_and_matches_one_lesion_only() -> None:
    reference = np.zeros((8, 12), bool)
    reference[1:4, 1:4] = reference[1:4, 8:11] = True
    prediction = np.zeros((8, 12))
    prediction[1:4, 1:4] = 0.3
    prediction[2, 2] = 0.8
    prediction[6, 6] = 0.4
    assert scored_lesions(reference, prediction) == ScoredLesions((0.8,), (0.4,), 2)


def test_average_precision_by_hand() -> None:
    # by falling score: hit, other, hit; three lesions: 1/3 * 1 + 1/3 * 2/3
    cases = [ScoredLesions((0.9,), (0.5,), 2), ScoredLesions((0.3,), (), 1)]
    assert lesion_average_precision(cases) == pytest.approx(1 / 3 + 2 / 9)


def test_equal_scores_are_one_step() -> None:
    assert lesion_average_precision([ScoredLesions((0.5,), (0.5,), 1)]) == pytest.approx(0.5)


def test_a_data_set_without_lesions_has_no_value() -> None:
    healthy = [ScoredLesions((), (0.7,), 0)]
    assert np.isnan(lesion_average_precision(healthy))
    assert np.isnan(list(froc(healthy).values())).all()


def test_nothing_predicted_finds_nothing() -> None:
    cases = [scored_lesions(np.ones((4, 4), bool), np.zeros((4, 4)))]
    assert lesion_average_precision(cases) == 0
    assert set(froc(cases).values()) == {0.0}


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_goes_through_the_points_of_monai(seed: int) -> None:
    monai_froc = pytest.importorskip("monai.metrics.froc")
    rng = np.random.default_rng(seed)
    cases = [
        ScoredLesions(tuple(rng.random(rng.integers(0, 3))), tuple(rng.random(rng.integers(0, 4))), 3)
        for _ in range(20)
    ]
    hits = np.array([s for c in cases for s in c.hits])
    others = np.array([s for c in cases for s in c.others] + [-1.0])  # MONAI leaves out its lowest score
    per_image, sensitivity = monai_froc.compute_froc_curve_data(others, hits, 60, 20)
    chosen = [0.1, 0.25, 0.5, 1.0, 1.5]
    expected = {limit: float(sensitivity[per_image <= limit].max()) for limit in chosen}
    assert froc(cases, false_positives=chosen) == pytest.approx(expected)


def test_froc_by_hand() -> None:
    # by falling score: hit .9, other .5, hit .3, other .2; three lesions in two images
    cases = [ScoredLesions((0.9,), (0.5, 0.2), 2), ScoredLesions((0.3,), (), 1)]
    found = froc(cases, false_positives=(0.0, 0.25, 0.5, 1.0))
    assert found == pytest.approx({0.0: 1 / 3, 0.25: 1 / 3, 0.5: 2 / 3, 1.0: 2 / 3})
    assert list(froc(cases)) == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]


def test_what_belongs_to_no_lesion_is_below_a_tenth() -> None:
    reference = np.zeros((4, 9), bool)
    reference[1:3, 1:3] = True
    prediction = np.full((4, 9), 0.1)
    prediction[1:3, 1:3], prediction[1:3, 5:7] = 0.7, 0.11
    assert scored_lesions(reference, prediction) == ScoredLesions((0.7,), (0.11,), 1)
    assert scored_lesions(reference, prediction, least_probability=0.05) == ScoredLesions((0.7,), (), 1)
    assert scored_lesions(reference, prediction, least_probability=0.05, minimum_iou=0.2) == ScoredLesions(
        (), (0.7,), 1
    )
    with pytest.raises(ValueError, match="differ in shape"):
        scored_lesions(reference, prediction[:3])
