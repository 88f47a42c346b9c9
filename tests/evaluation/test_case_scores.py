"""Scores from lists, sums and counts are those of whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunet_softlabel.evaluation.case_scores import CaseData, CaseScores, score_case
from nnunet_softlabel.evaluation.known_truth import TrueCase
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns
from nnunet_softlabel.formats.encoding import channels_of, consensus
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.metrics.raters_together import RATERS_METRICS
from nnunet_softlabel.metrics.registry import Parameters
from tests.evaluation.whole_image_scores import WholeCase, score_whole_case

LABELS = (
    Labels({"a": (1,)}),
    Labels({"a": (1,), "b": (2,)}),
    Labels({"whole": (1, 2, 3), "core": (2, 3), "centre": (3,)}),
    Labels({"a": (1,), "b": (2,)}, ignore=3),
)
SHAPES = ((13, 18), (6, 15, 17), (1, 12, 11), (24, 40, 33))


def waves(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> NDArray[np.float64]:
    """Smooth noise of unit variance."""
    noise = gaussian_filter(rng.normal(size=shape), sigma)
    return noise / (noise.std() + 1e-9)


def make_case(
    seed: int, labels: Labels, shape: tuple[int, ...], *, raters: int, lowest: float, with_truth: bool
) -> WholeCase:
    """Raters who draw the same waves a little differently; the model's background is never quite 0."""
    rng = np.random.default_rng(seed)
    highest, anatomy = max(max(v) for v in labels.values.values()), waves(rng, shape, 2)
    drawn = {}
    for rater in range(raters):
        seen = anatomy + 0.2 * waves(rng, shape, 1)
        label_map = sum((seen > lowest + 0.4 * value).astype(np.uint8) for value in range(highest))
        if labels.ignore is not None and rng.random() < 0.6:
            label_map[: shape[0] // 2] = labels.ignore  # this rater did not look there
        drawn[f"r{rater}"] = label_map
    members = [channels_of(m, labels) for m in (drawn or {"": np.zeros(shape, np.uint8)}).values()]
    soft = np.mean(members, axis=0, dtype=np.float32)
    if rng.random() < 0.3:
        soft = np.stack([gaussian_filter(channel, 0.7) for channel in soft]).astype(np.float32)
    ignored = None
    if labels.ignore is not None:
        ignored = np.all([m == labels.ignore for m in drawn.values()], axis=0) & np.ones(shape, bool)
    logits = [4 * (anatomy - lowest - 0.4 * c) + rng.normal(-3, 1, shape) for c in range(len(labels.names))]
    exponentials = np.exp(np.stack([np.zeros(shape), *logits]))
    softmax = exponentials[1:] / exponentials.sum(axis=0)
    probabilities = softmax if not labels.has_regions else exponentials[1:] / (1 + exponentials[1:])
    return WholeCase(
        case="case",
        group="",
        labels=labels,
        soft=soft,
        hard=consensus(soft, labels, ignored),
        raters=drawn,
        spacing_mm=tuple(rng.choice([0.5, 0.8, 2.5], len(shape)).tolist()),
        probabilities=probabilities.astype(np.float32),
        decision=np.where(softmax.max(axis=0) > 0.4, softmax.argmax(axis=0) + 1, 0).astype(np.uint8),
        truth=make_truth(anatomy - lowest - 0.2, labels, rng) if with_truth else None,
    )


def make_truth(anatomy: NDArray[Any], labels: Labels, rng: np.random.Generator) -> TrueCase:
    """A label map, or probabilities; where labels have an ignore value, it says nothing of a part."""
    label_map = (anatomy > 0).astype(np.uint8)
    if labels.ignore is not None:
        label_map[..., : label_map.shape[-1] // 3] = labels.ignore
    if rng.random() < 0.5:
        return TrueCase(label_map)
    soft = [np.clip(anatomy - 0.4 * c, 0, 1) / (c + 1) for c in range(len(labels.names))]
    return TrueCase(label_map, np.stack(soft).astype(np.float32))


def score(case: WholeCase, parameters: Parameters) -> CaseScores:
    """As `evaluate` does."""
    data = CaseData(
        case=case.case,
        group=case.group,
        labels=case.labels,
        soft=case.soft,
        hard=case.hard,
        votes=VotePatterns.of(case.raters.items(), case.labels, case.hard.shape),
        spacing_mm=case.spacing_mm,
        probabilities=case.probabilities,
        decision=lambda: case.decision,
        truth=case.truth,
    )
    return score_case(data, parameters)


def check_equal(found: CaseScores, expected: CaseScores) -> None:
    assert [list(row.values())[:5] for row in found.rows] == [list(row.values())[:5] for row in expected.rows]
    for own, other in zip(found.rows, expected.rows, strict=True):
        assert own.keys() == other.keys()
        own_values, other_values = (np.array(list(dict(sorted(r.items())).values())) for r in (own, other))
        names = sorted(own)
        for name, value, wanted in zip(names, own_values.tolist(), other_values.tolist(), strict=True):
            if isinstance(own[name], float):
                assert float(value) == pytest.approx(float(wanted), rel=1e-12, abs=1e-12, nan_ok=True), name
    for name, places in expected.reliability.items():
        for place, table in places.items():
            np.testing.assert_allclose(found.reliability[name][place], table, rtol=1e-12, atol=1e-12)
    assert found.lesions == expected.lesions


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    labels=st.sampled_from(LABELS),
    shape=st.sampled_from(SHAPES[:3]),
    raters=st.integers(0, 4),
    lowest=st.sampled_from([0.5, 1.5, 2.5, 9.0]),
    with_truth=st.booleans(),
    near_mm=st.sampled_from([0.0, 2.5, 5.0]),
    levels=st.sampled_from([16, 3]),
)
def test_scores_are_those_of_whole_arrays(seed, labels, shape, raters, lowest, with_truth, near_mm, levels):
    case = make_case(seed, labels, shape, raters=raters, lowest=lowest, with_truth=with_truth)
    parameters = Parameters(tolerance_mm=1.2, near_mm=near_mm, ged_levels=levels)
    check_equal(score(case, parameters), score_whole_case(case, parameters))


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: "-".join(labels.names))
def test_scores_of_a_volume_that_is_mostly_background_are_those_of_whole_arrays(labels):
    case = make_case(1, labels, SHAPES[3], raters=4, lowest=2.3, with_truth=True)
    parameters = Parameters(tolerance_mm=1.2)
    check_equal(score(case, parameters), score_whole_case(case, parameters))


def test_far_background_that_is_certain_is_counted_too():
    case = make_case(2, LABELS[0], SHAPES[1], raters=2, lowest=2.0, with_truth=False)
    case.probabilities[case.probabilities < 0.03] = 0
    parameters = Parameters(tolerance_mm=1.2)
    check_equal(score(case, parameters), score_whole_case(case, parameters))


@pytest.mark.parametrize("labels", LABELS[:3], ids=lambda labels: "-".join(labels.names))
@pytest.mark.parametrize("raters", [0, 1, 2])
def test_few_raters_have_the_scores_of_whole_arrays(labels, raters):
    case = make_case(3, labels, SHAPES[1], raters=raters, lowest=0.5, with_truth=raters == 1)
    parameters = Parameters(tolerance_mm=1.2)
    check_equal(score(case, parameters), score_whole_case(case, parameters))


def test_two_raters_are_each_others_ceiling_and_one_has_none():
    two = make_case(3, LABELS[0], SHAPES[1], raters=2, lowest=0.5, with_truth=False)
    rows = {
        r["reference"]: r for r in score(two, Parameters(tolerance_mm=1.2)).rows if r["prediction"] == "rater"
    }
    a, b = (m == 1 for m in two.raters.values())
    between = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert set(rows) == {"soft", "consensus", "raters", "rater:r0", "rater:r1"}
    for reference in ("consensus", "raters", "rater:r0", "rater:r1"):
        assert rows[reference]["dice"] == pytest.approx(between)
    assert rows["soft"]["soft_dice"] == pytest.approx(between)
    assert rows["soft"]["brier"] == pytest.approx((a != b).mean())
    # of one sample and one rater: twice their distance, 1 - IoU
    levels = 2 * (1 - (a & b).sum() / (a | b).sum())
    assert rows["raters"]["ged"] == pytest.approx(levels)
    assert rows["raters"]["unanimous_dice"] == pytest.approx(between)
    one = make_case(3, LABELS[0], SHAPES[1], raters=1, lowest=0.5, with_truth=False)
    assert {r["prediction"] for r in score(one, Parameters(tolerance_mm=1.2)).rows} == {"model"}


def half_answered() -> WholeCase:
    """Two raters of one outline; bob answered the left half of the image only."""
    labels = Labels({"lesion": (1,)}, ignore=2)
    ann = np.zeros((20, 20), np.uint8)
    ann[5:15, 2:18] = 1
    bob = ann.copy()
    bob[:, 10:] = 2
    member = channels_of(ann, labels)
    return WholeCase(
        case="case", group="", labels=labels, soft=member.astype(np.float32), hard=ann,
        raters={"ann": ann, "bob": bob}, spacing_mm=(1.0, 1.0), probabilities=member.astype(np.float32),
        decision=ann,
    )  # fmt: skip


def test_what_a_rater_did_not_answer_is_no_disagreement():
    rows = score(half_answered(), Parameters(tolerance_mm=1.0)).rows
    for prediction in ("model", "rater"):
        (row,) = (r for r in rows if (r["reference"], r["prediction"]) == ("raters", prediction))
        assert (row["ged"], row["volume_crps_ml"], row["unanimous_dice"]) == (0, 0, 1)
        assert row["volume_coverage"] == pytest.approx(0.2)


def test_raters_who_answered_no_voxel_in_common_have_no_score_together():
    case = half_answered()
    case.raters["ann"][:, :10] = 2
    rows = score(case, Parameters(tolerance_mm=1.0)).rows
    (row,) = (r for r in rows if (r["reference"], r["prediction"]) == ("raters", "model"))
    assert all(np.isnan(row[name]) for name in RATERS_METRICS)
    assert row["dice"] == 1
