from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_softlabel.metrics.overlap import (
    dice,
    f_beta,
    iou,
    precision,
    qubiq_dice,
    recall,
    relative_volume_error,
    soft_dice,
    volume_error_ml,
)

A = np.array([[True, True], [True, False]])
B = np.array([[True, False], [False, True]])
NOTHING = np.zeros((2, 2), bool)


def test_hand_worked_overlap():
    # 3 and 2 voxels, 1 in common, 4 in either
    assert dice(A, B) == pytest.approx(2 * 1 / (3 + 2))
    assert iou(A, B) == pytest.approx(1 / 4)
    assert precision(A, B) == pytest.approx(1 / 2)
    assert recall(A, B) == pytest.approx(1 / 3)


def test_overlap_agrees_with_scikit_learn(rng):
    sklearn = pytest.importorskip("sklearn.metrics")
    a, b = rng.random((5, 6, 7)) > 0.6, rng.random((5, 6, 7)) > 0.5
    flat = a.ravel(), b.ravel()
    assert dice(a, b) == pytest.approx(sklearn.f1_score(*flat))
    assert iou(a, b) == pytest.approx(sklearn.jaccard_score(*flat))
    assert precision(a, b) == pytest.approx(sklearn.precision_score(*flat))
    assert recall(a, b) == pytest.approx(sklearn.recall_score(*flat))
    for beta in (0.5, 1.0, 2.0):
        assert f_beta(a, b, beta=beta) == pytest.approx(sklearn.fbeta_score(*flat, beta=beta))


def test_soft_dice_is_one_minus_dice_semimetric_loss():
    # sum min = .25 + .5 = .75; sums 1.0 and 1.25
    reference, prediction = np.array([0.5, 0.5]), np.array([0.25, 1.0])
    assert soft_dice(reference, prediction) == pytest.approx(2 * 0.75 / 2.25)
    loss = np.abs(reference - prediction).sum() / (reference + prediction).sum()
    assert soft_dice(reference, prediction) == pytest.approx(1 - loss)


def test_soft_dice_of_masks_is_dice():
    assert soft_dice(A.astype(float), B.astype(float)) == pytest.approx(dice(A, B))


def test_qubiq_dice_is_the_mean_over_nine_levels():
    # r = (1, .55), p = (1, .25): both voxels overlap at .1 .2 (Dice 1), r alone keeps the second at .3 .4 .5
    # (Dice 2/3), neither does at .6 .7 .8 .9 (Dice 1)
    value = qubiq_dice(np.array([1.0, 0.55]), np.array([1.0, 0.25]))
    assert value == pytest.approx((2 + 3 * 2 / 3 + 4) / 9)


def test_qubiq_dice_leaves_out_levels_without_foreground():
    # at .1 .2 .3 both: 1; above nothing
    assert qubiq_dice(np.array([0.35, 0.0]), np.array([0.38, 0.0])) == 1


def test_volume_error_is_signed():
    # 1.5 voxels too many of 8 mm3 = 12 mm3 = .012 ml, on a reference of 2 voxels
    reference, prediction = np.array([1.0, 0.5, 0.5, 0.0]), np.array([1.0, 1.0, 1.0, 0.5])
    assert volume_error_ml(reference, prediction, voxel_volume_mm3=8) == pytest.approx(0.012)
    assert relative_volume_error(reference, prediction) == pytest.approx(1.5 / 2)
    assert relative_volume_error(prediction, reference) == pytest.approx(-1.5 / 3.5)


@pytest.mark.parametrize(
    "metric", [dice, iou, soft_dice, qubiq_dice, precision, recall, relative_volume_error]
)
def test_both_empty_is_nan(metric):
    dtype = bool if metric in (dice, iou, precision, recall) else float
    assert math.isnan(metric(NOTHING.astype(dtype), NOTHING.astype(dtype)))


def test_one_empty():
    assert dice(A, NOTHING) == iou(A, NOTHING) == recall(A, NOTHING) == 0
    assert math.isnan(precision(A, NOTHING))
    assert math.isnan(recall(NOTHING, A))
    assert math.isnan(relative_volume_error(NOTHING.astype(float), A.astype(float)))
    assert volume_error_ml(NOTHING.astype(float), NOTHING.astype(float), voxel_volume_mm3=1) == 0


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        dice(A, B[:1])
    with pytest.raises(ValueError, match="differ in shape"):
        dice(A, B, mask=np.ones(3, bool))


def test_qubiq_dice_sees_voxels_that_only_one_map_marks():
    # the maps share no voxel: every level with a voxel on either side counts 0
    reference, prediction = np.array([0.95, 0.0]), np.array([0.0, 0.95])
    assert qubiq_dice(reference, prediction) == 0
    assert qubiq_dice(np.array([0.95, 0.95]), np.array([0.0, 0.95])) == pytest.approx(2 / 3)


def test_levels_empty_on_both_sides_are_left_out_or_count_one():
    # equal up to level .3, empty above: nine levels, of which .1, .2 (and .3 not: > is strict) have voxels
    faint, other = np.array([0.3, 0.0]), np.array([0.0, 0.3])
    assert qubiq_dice(faint, other) == 0
    assert qubiq_dice(faint, other, empty_level=1.0) == pytest.approx(7 / 9)
    assert qubiq_dice(faint, faint) == qubiq_dice(faint, faint, empty_level=1.0) == 1
