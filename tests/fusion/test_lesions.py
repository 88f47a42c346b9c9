"""The lesion-wise label: exactly the mean where nothing speaks against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.io import imread

from nnunet_softlabel.fusion import RaterVotes, mean_vote
from nnunet_softlabel.fusion.detection import estimate_detection
from nnunet_softlabel.fusion.detection_model import MEAN_MODEL, DetectionModel
from nnunet_softlabel.fusion.lesion_candidates import find_candidates
from nnunet_softlabel.fusion.lesions import fuse_lesions, lesion_label, lesion_wise
from nnunet_softlabel.metrics.overlap import dice
from nnunet_softlabel.simulation import make_knee_phantom, phantom_raters

MISSES = DetectionModel(
    "misses", "", {"a": 0.0, "b": 0.0, "c": 0.0}, {}, 0.0, 0.0, 0.0, 1.0, 30.0, (3.0, 1.0)
)
FIRST, SECOND = (slice(2, 8), slice(2, 8)), (slice(2, 8), slice(20, 26))


@pytest.fixture
def raters() -> RaterVotes:
    """All found the first lesion, with a rim in dispute; a alone the second."""
    votes = np.zeros((3, 1, 20, 30), bool)
    votes[(slice(None), 0, *FIRST)] = True
    votes[0, 0, 2:8, 8] = True
    votes[0, 0][SECOND] = True
    return RaterVotes(votes, ("a", "b", "c"), (1.0, 1.0))


def test_what_all_marked_is_exactly_the_mean(raters: RaterVotes) -> None:
    soft = lesion_wise(raters, models=[MISSES])
    np.testing.assert_array_equal(soft[0, :, :15], mean_vote(raters)[0, :, :15])


def test_a_lesion_that_one_found_has_its_outline_and_not_a_third_of_it(raters: RaterVotes) -> None:
    np.testing.assert_array_equal(lesion_wise(raters, models=[MISSES])[0][SECOND], 1)


def test_the_null_model_is_the_mean_bit_for_bit(raters: RaterVotes) -> None:
    null = replace(MISSES, name=MEAN_MODEL)
    soft = lesion_wise(raters, models=[null], probabilities=np.full((1, 20, 30), 0.5, np.float32))
    np.testing.assert_array_equal(soft, mean_vote(raters))


def test_a_single_case_alone_is_the_mean(raters: RaterVotes) -> None:
    np.testing.assert_array_equal(lesion_wise(raters), mean_vote(raters))


def test_what_half_of_the_raters_marked_is_never_suppressed(raters: RaterVotes) -> None:
    votes = raters.votes.copy()
    votes[1, 0][SECOND] = True
    given = replace(raters, votes=votes)
    probability = np.zeros((20, 30), np.float32)
    found = find_candidates(given, 0, probability)
    mean = mean_vote(given)[0]
    label = lesion_label(given, mean, found, np.zeros(2), probability=probability)
    np.testing.assert_array_equal(label, mean)


def test_one_mark_of_three_is_suppressed_only_where_a_network_looked(raters: RaterVotes) -> None:
    mean = mean_vote(raters)[0]
    blind, seeing = find_candidates(raters, 0), find_candidates(raters, 0, np.zeros((20, 30), np.float32))
    np.testing.assert_array_equal(lesion_label(raters, mean, blind, np.array([1.0, 0.1])), mean)
    np.testing.assert_allclose(lesion_label(raters, mean, seeing, np.array([1.0, 0.1]))[SECOND], 0.1)


def test_an_expert_may_suppress_whatever_was_marked(raters: RaterVotes) -> None:
    null = replace(MISSES, name=MEAN_MODEL)
    soft = lesion_wise(raters, models=[null], known=[[False, True]])[0]
    assert not soft[FIRST].any()
    np.testing.assert_array_equal(soft[SECOND], 1)


def test_what_nobody_marked_is_added_only_above_one_half(raters: RaterVotes) -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[12:18, 2:8] = 0.3
    probability[14, 4] = 0.6
    found = find_candidates(raters, 0, probability)
    mean = mean_vote(raters)[0]
    added = lesion_label(raters, mean, found, np.array([1.0, 1.0, 0.8]), probability=probability)
    assert added[14, 4] == pytest.approx(0.8)
    assert added[12, 2] == pytest.approx(0.4)
    for too_low in (0.5, 0.3):
        posterior = np.array([1, 1, too_low])
        assert not lesion_label(raters, mean, found, posterior, probability=probability)[12:18].any()


def test_unanswered_voxels_count_neither_way(raters: RaterVotes) -> None:
    answered = np.ones((3, 20, 30), bool)
    answered[1, :, :5] = False
    given = replace(raters, answered=answered)
    np.testing.assert_array_equal(lesion_wise(given, models=[MISSES])[0, :, :15], mean_vote(given)[0, :, :15])


def test_classes_leave_room_for_each_other(raters: RaterVotes) -> None:
    votes = np.zeros((3, 2, 20, 30), bool)
    votes[0, 0][FIRST] = votes[1, 1][FIRST] = True
    soft = lesion_wise(RaterVotes(votes, raters.names, (1.0, 1.0)), models=[MISSES, MISSES])
    assert soft.sum(axis=0).max() <= 1
    np.testing.assert_allclose(soft[:, 4, 4], 0.5)


def test_volumes_are_fused_like_slices(raters: RaterVotes) -> None:
    votes = np.repeat(raters.votes[:, :, None], 3, axis=2)
    volume = RaterVotes(votes, raters.names, (3.0, 1.0, 1.0))
    flat = lesion_wise(raters, models=[MISSES])
    np.testing.assert_array_equal(lesion_wise(volume, models=[MISSES])[:, 1], flat)


def _knees(regime: str, correlation: float = 0.0) -> tuple[list[np.ndarray], list[RaterVotes]]:
    knees = [make_knee_phantom(seed, shape=(64, 64)) for seed in range(60)]
    votes = [
        phantom_raters(k, regime, seed=seed, correlation=correlation)[:, None] == 1
        for seed, k in enumerate(knees)
    ]
    return [k.truth == 1 for k in knees], [
        RaterVotes(v, ("a", "b", "c"), k.spacing_mm) for v, k in zip(votes, knees, strict=True)
    ]


def _shares_found(truth: list[np.ndarray], votes: list[RaterVotes]) -> np.ndarray:
    """Which part of the lesions each reader really marked."""
    found = []
    for image, drawn in zip(truth, votes, strict=True):
        lesions, n = ndimage.label(image, structure=np.ones((3, 3)))
        found += [[v[lesions == k].any() for v in drawn.votes[:, 0]] for k in range(1, n + 1)]
    return np.mean(found, axis=0)


def _network_of(truth: np.ndarray, seed: int) -> np.ndarray:
    """What a network that finds lesions, and something else too, might say."""
    rng = np.random.default_rng(seed)
    probability = 0.45 * truth.astype(np.float32)
    y, x = rng.integers(5, 55, 2)
    probability[y : y + 4, x : x + 4] = np.maximum(probability[y : y + 4, x : x + 4], 0.2)
    return probability


def test_on_generated_knees_missed_lesions_come_back() -> None:
    truth, votes = _knees("missed")
    probabilities = [_network_of(t, i) for i, t in enumerate(truth)]
    cases = [find_candidates(v, 0, p).candidates for v, p in zip(votes, probabilities, strict=True)]
    model = estimate_detection(cases)
    labels = [
        lesion_wise(v, models=[model], probabilities=p[None])[0]
        for v, p in zip(votes, probabilities, strict=True)
    ]
    mean = [mean_vote(v)[0] for v in votes]

    def score(maps: list[np.ndarray]) -> float:
        return float(np.mean([dice(t, m > 0.5) for t, m in zip(truth, maps, strict=True) if t.any()]))

    assert score(labels) > score(mean) + 0.25
    found = np.array(list(model.rates().values()))[:, 0]
    np.testing.assert_allclose(found, _shares_found(truth, votes), atol=0.1)


def test_on_generated_knees_outline_errors_alone_are_the_mean() -> None:
    truth, votes = _knees("boundary")
    cases = [
        find_candidates(v, 0, _network_of(t, i)).candidates
        for i, (t, v) in enumerate(zip(truth, votes, strict=True))
    ]
    assert estimate_detection(cases).is_mean


@pytest.mark.shared_data
def test_real_outlines_of_one_object_are_the_mean(shared_data: Path) -> None:
    folder = shared_data / "qubiq_brain_growth"
    votes = []
    for image in sorted((folder / "images").glob("*.png")):
        drawn = [imread(folder / "raters" / str(r) / image.name) > 0 for r in range(1, 8)]
        votes.append(RaterVotes(np.stack(drawn)[:, None], tuple("abcdefg"), (1.0, 1.0)))
    model = estimate_detection([find_candidates(v, 0).candidates for v in votes])
    labels = np.stack([lesion_wise(v, models=[model])[0] for v in votes])
    mean = np.stack([mean_vote(v)[0] for v in votes])
    spread = np.mean([v.votes[:, 0].var(axis=0).mean() for v in votes])
    assert np.mean((labels - mean) ** 2) < 0.02 * spread
    assert np.mean([dice(a > 0.5, b > 0.5) for a, b in zip(labels, mean, strict=True)]) > 0.995


def test_a_model_with_a_network_leaves_a_case_without_one_to_the_mean(raters: RaterVotes) -> None:
    seeing = replace(MISSES, has_network=True)
    np.testing.assert_array_equal(lesion_wise(raters, models=[seeing]), mean_vote(raters))
    probability = np.zeros((1, 20, 30), np.float32)
    blind = replace(MISSES, has_network=False)
    np.testing.assert_array_equal(
        lesion_wise(raters, models=[blind], probabilities=probability), mean_vote(raters)
    )
    # an expert is heard all the same
    heard = lesion_wise(raters, models=[seeing], known=[[None, True]])[0]
    np.testing.assert_array_equal(heard[SECOND], 1)
    np.testing.assert_array_equal(heard[:, :15], mean_vote(raters)[0, :, :15])


def test_every_channel_has_its_own_model_network_and_expert() -> None:
    votes = np.zeros((3, 2, 20, 30), bool)
    votes[0, 0][SECOND] = votes[0, 1][FIRST] = True
    drawn = RaterVotes(votes, ("a", "b", "c"), (1.0, 1.0), exclusive=False)
    null = replace(MISSES, name=MEAN_MODEL)
    soft = lesion_wise(drawn, models=[MISSES, null])
    np.testing.assert_array_equal(soft[0], votes[0, 0])
    np.testing.assert_allclose(soft[1], votes[0, 1] / 3, rtol=1e-6)
    soft = lesion_wise(drawn, models=[null, null], known=[[None], [True]])
    np.testing.assert_allclose(soft[0], votes[0, 0] / 3, rtol=1e-6)
    np.testing.assert_array_equal(soft[1], votes[0, 1])
    seen = np.zeros((2, 20, 30), np.float32)
    seen[1, 12:18, 12:18] = 0.9
    fused = fuse_lesions(drawn, models=[null, null], probabilities=seen)
    assert [len(c) for c in fused.candidates] == [1, 2]
    assert all(np.isnan(p).all() for p in fused.posteriors)


def test_the_outline_is_the_mean_of_those_who_marked_the_lesion_and_answered(raters: RaterVotes) -> None:
    # a and b marked the second lesion, b one column less; c gave no answer in its last row
    votes, answered = raters.votes.copy(), np.ones((3, 20, 30), bool)
    votes[1, 0, 2:8, 20:25] = True
    answered[0, 7, 20:26] = False
    given = replace(raters, votes=votes, answered=answered)
    label = lesion_wise(given, models=[MISSES])[0]
    expected = np.ones((6, 6))
    expected[:5, 5] = 0.5  # a alone, of two
    expected[5, 5] = 0  # b alone answered, who did not mark it
    posterior = fuse_lesions(given, models=[MISSES]).posteriors[0][1]
    np.testing.assert_allclose(label[SECOND], np.maximum(posterior * expected, mean_vote(given)[0][SECOND]))


def test_what_nobody_marked_has_its_own_peak(raters: RaterVotes) -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[12:18, 2:8], probability[14, 4] = 0.3, 0.6
    probability[12:18, 20:26], probability[14, 22] = 0.4, 0.5
    found = find_candidates(raters, 0, probability)
    label = lesion_label(
        raters, mean_vote(raters)[0], found, np.array([1.0, 1.0, 0.6, 0.9]), probability=probability
    )
    assert label[12, [2, 20]] == pytest.approx([0.6 * 0.5, 0.9 * 0.8])
    assert label[14, [4, 22]] == pytest.approx([0.6, 0.9])
