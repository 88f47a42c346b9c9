from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from nnunet_softlabel.metrics.lesions import (
    LesionCounts,
    case_score,
    components_of,
    count_lesions,
    detection_auc,
    lesion_f1,
    lesion_precision,
    lesion_recall,
)


def squares(*corners: tuple[int, int], side: int = 4) -> np.ndarray:
    mask = np.zeros((40, 40), bool)
    for row, column in corners:
        mask[row : row + side, column : column + side] = True
    return mask


def test_hand_worked_counts():
    # found, missed, and one in the wrong place
    reference, prediction = squares((2, 2), (20, 20)), squares((3, 2), (30, 4), (2, 30))
    counts = count_lesions(reference, prediction)
    assert counts == LesionCounts(matched=1, reference=2, predicted=3)
    assert lesion_recall(counts) == pytest.approx(1 / 2)
    assert lesion_precision(counts) == pytest.approx(1 / 3)
    assert lesion_f1(counts) == pytest.approx(2 / 5)


def test_a_match_needs_the_minimum_iou():
    reference, prediction = squares((10, 10)), squares((12, 12))  # 4 of 28 voxels in common: 1/7
    assert count_lesions(reference, prediction, minimum_iou=0.14).matched == 1
    assert count_lesions(reference, prediction, minimum_iou=0.15).matched == 0
    assert count_lesions(reference, prediction, minimum_iou=4 / 28).matched == 1


def test_one_prediction_cannot_find_two_lesions():
    reference = squares((10, 10), (10, 16))
    assert count_lesions(reference, squares((10, 10), (10, 14), (10, 16)), minimum_iou=0.1) == (1, 2, 1)


def test_diagonal_neighbours_are_one_lesion():
    assert count_lesions(squares((4, 4), (8, 8)), squares()).reference == 1
    volume = np.zeros((3, 3, 3), bool)
    volume[0, 0, 0] = volume[1, 1, 1] = True
    assert count_lesions(volume, volume) == (1, 1, 1)


def test_counts_agree_with_panoptica(rng):
    panoptica = pytest.importorskip("panoptica")
    from panoptica.metrics import Metric

    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.SEMANTIC,
        instance_approximator=panoptica.ConnectedComponentsInstanceApproximator(panoptica.CCABackend.cc3d),
        instance_matcher=panoptica.MaxBipartiteMatching(matching_metric=Metric.IOU, matching_threshold=0.1),
        instance_metrics=[Metric.IOU],
        global_metrics=[],
    )
    for _ in range(5):
        corners = rng.integers(0, 36, (5, 2))
        reference = np.stack(3 * [squares(*corners)])
        prediction = np.stack(3 * [squares(*(corners[:4] + rng.integers(-2, 3, (4, 2))).clip(0), (0, 36))])
        result = evaluator.evaluate(prediction.astype(np.uint8), reference.astype(np.uint8), verbose=False)
        found = next(iter(result.values()))
        expected = (found.tp, found.n_ref_instances, found.n_pred_instances)
        assert count_lesions(reference, prediction) == expected


def test_no_lesions():
    nothing, one = squares(), squares((5, 5))
    neither = count_lesions(nothing, nothing)
    assert all(math.isnan(f(neither)) for f in (lesion_recall, lesion_precision, lesion_f1))
    missed, false = count_lesions(one, nothing), count_lesions(nothing, one)
    assert (lesion_recall(missed), lesion_f1(missed)) == (0, 0)
    assert math.isnan(lesion_precision(missed))
    assert (lesion_precision(false), lesion_f1(false)) == (0, 0)
    assert math.isnan(lesion_recall(false))


@pytest.mark.parametrize("minimum_iou", [0, -0.1, 1.1])
def test_minimum_iou_out_of_range_is_refused(minimum_iou):
    with pytest.raises(ValueError, match="minimum_iou"):
        count_lesions(squares((1, 1)), squares((1, 1)), minimum_iou=minimum_iou)


def test_case_score_is_the_highest_probability_that_counts():
    p = np.array([0.2, 0.9, 0.4])
    assert case_score(p) == 0.9
    assert case_score(p, mask=np.array([True, False, True])) == 0.4
    assert math.isnan(case_score(p, mask=np.zeros(3, bool)))


def test_auc_agrees_with_scikit_learn(rng):
    sklearn = pytest.importorskip("sklearn.metrics")
    positive, scores = rng.random(60) > 0.5, rng.integers(0, 8, 60) / 8  # many ties
    assert detection_auc(positive, scores) == pytest.approx(sklearn.roc_auc_score(positive, scores))


@pytest.mark.parametrize("positive", [[], [True, True], [False, False]])
def test_auc_of_one_kind_of_case_is_nan(positive):
    assert math.isnan(detection_auc(positive, [0.5] * len(positive)))


def test_auc_of_a_score_that_is_not_a_number_is_nan():
    assert math.isnan(detection_auc([True, False, True], [0.5, math.nan, 0.1]))


@pytest.mark.parametrize("shape", [(1, 5), (5, 3), (8, 7), (7, 1, 1), (1, 8, 7), (4, 5, 6)])
def test_components_are_those_of_scipy_also_in_odd_images_and_parts_of_arrays(rng, shape):
    for density in (0.2, 0.4, 0.6) * 10:
        mask = rng.random(shape) < density
        part = np.zeros([n + 3 for n in shape], bool)[tuple(slice(1, n + 1) for n in shape)]
        part[...] = mask
        expected, count = ndimage.label(mask, np.ones([3] * len(shape)))
        for found in (components_of(mask), components_of(part)):
            assert found.number == count
            np.testing.assert_array_equal(found.numbers > 0, mask)
            pairs = set(zip(found.numbers.flat, expected.flat, strict=True))
            assert len(pairs) == len({a for a, _ in pairs})
            assert sorted(found.sizes[1:]) == sorted(np.bincount(expected.flat)[1:])
