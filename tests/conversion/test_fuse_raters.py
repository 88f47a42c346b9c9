"""Chunk by chunk, or label by label: the same to the last bit as all votes at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import Reading
from nnunet_softlabel.conversion.one_case.describe import describe
from nnunet_softlabel.conversion.one_case.fuse import fuse_case
from nnunet_softlabel.conversion.one_case.fuse_raters import fuse_raters
from nnunet_softlabel.conversion.one_case.read import LoadedCase
from nnunet_softlabel.conversion.one_case.write import consensus_of
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.formats import packed as packed_module
from nnunet_softlabel.formats.encoding import consensus
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.packed import PackedMap
from nnunet_softlabel.fusion import FUSIONS, RaterCounts, RaterRates
from nnunet_softlabel.fusion.lesions import fuse_lesions
from nnunet_softlabel.fusion.rater_votes import marked_box
from tests.drawn_raters import IGNORE, LABELS, SPACING_MM, Drawn, drawings

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "weighted": [{}, {"weights": {"ann": 1.0, "bob": 0.4, "eve": 0.7}}],
    "staple": [{}, {"margin_mm": 2.0}],
    "sba": [{}, {"slope_mm": 2.5, "max_distance_mm": 4.0}],
    "svls": [{}, {"sigma_voxels": 0.6}],
}
IN_ONE = sorted(FUSIONS.keys() - {"lesion-wise", "staple"})  # these two have tests of their own
RUNS = [(method, options) for method in IN_ONE for options in OPTIONS.get(method, [{}])]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(packed_module, "CHUNK", 37)
    monkeypatch.setattr(packed_module, "PACKED_ABOVE", 0)


cases = settings(max_examples=15, deadline=None, derandomize=True)
few_cases = settings(max_examples=3, deadline=None, derandomize=True)  # EM on noise takes thousands of rounds


def whole(soft: list[PackedMap]) -> NDArray[Any]:
    return np.stack([packed.whole() for packed in soft])


@pytest.mark.parametrize(("method", "options"), RUNS, ids=[f"{m} {list(o)}" for m, o in RUNS])
@given(drawn=drawings())
@cases
def test_fusion_of_packed_raters_is_that_of_all_votes(
    method: str, options: dict[str, Any], drawn: Drawn
) -> None:
    assert_same(drawn, method, options)


@pytest.mark.parametrize("options", OPTIONS["staple"], ids=["", "margin_mm"])
@given(drawn=drawings(labels=("one class", "regions", "classes")))
@few_cases
def test_staple_of_packed_raters_is_that_of_all_votes(options: dict[str, Any], drawn: Drawn) -> None:
    assert_same(drawn, "staple", options)


@given(drawn=drawings())
@cases
def test_staple_with_rates_of_the_data_set_is_that_of_all_votes(drawn: Drawn) -> None:
    sensitivity, specificity, prevalence = np.random.default_rng(2).random((3, len(drawn.labels.names)))
    rates = RaterRates({"*": tuple(sensitivity)}, {"*": tuple(specificity)}, tuple(prevalence))
    assert_same(drawn, "staple", {"rates": rates})


def assert_same(drawn: Drawn, method: str, options: dict[str, Any]) -> None:
    found = whole(fuse_raters(drawn.packed, method, options))
    expected = FUSIONS[method](drawn.votes, **options)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@given(drawn=drawings(), has_mask=st.booleans(), margin_mm=st.sampled_from([0.0, 1.0, 3.0]))
@cases
def test_counts_are_those_of_all_votes(drawn: Drawn, has_mask: bool, margin_mm: float) -> None:
    votes, packed = drawn.votes, drawn.packed
    ignored = np.random.default_rng(0).random(packed.shape) < 0.3
    answered = np.broadcast_to(~ignored, (votes.n_raters, *packed.shape))
    masked = replace(votes, answered=answered if votes.answered is None else answered & votes.answered)
    box = marked_box(votes, margin_mm=margin_mm)
    assert packed.marked_box(margin_mm=margin_mm) == box
    counted = packed.counts(PackedMap.of(ignored) if has_mask else None, box)
    expected = masked if has_mask else votes
    assert counted == RaterCounts.of(expected if box is None else expected.cropped(box))


@given(drawn=drawings(), has_mask=st.booleans(), method=st.sampled_from(["mean", "lesion-wise", "sba"]))
@cases
def test_a_case_is_what_the_formulas_say(drawn: Drawn, has_mask: bool, method: str) -> None:
    """Fused label, ignored voxels, hard label, and the numbers of the summary."""
    labels, votes = drawn.labels, drawn.votes
    masked = np.random.default_rng(1).random(drawn.packed.shape) < 0.2 if has_mask else None
    if masked is not None:
        labels = replace(labels, ignore=IGNORE)
        drawn = replace(drawn, labels=labels)
        votes = drawn.votes
    grid = Grid.upright(drawn.packed.shape, SPACING_MM)
    loaded = LoadedCase(
        [], grid, drawn.packed, None, ignored=None if masked is None else PackedMap.of(masked)
    )
    settings_of_case = CaseSettings(labels, Reading.of(labels), ("CT",), ".nii.gz", fusion=method)
    fused = fuse_case(Case("case", []), loaded, settings_of_case)
    soft = fuse_lesions(votes).soft if method == "lesion-wise" else FUSIONS[method](votes)
    ignored = None if votes.answered is None else ~votes.answered.any(axis=0)
    if masked is not None and ignored is not None:
        ignored |= masked
    if ignored is not None:
        assert fused.ignored is not None
        np.testing.assert_array_equal(fused.ignored.whole(), ignored)
        soft = np.where(ignored, np.float32(0), soft)
    np.testing.assert_array_equal(whole(fused.soft), soft)
    hard = consensus_of(fused.soft, labels, fused.ignored)
    np.testing.assert_array_equal(hard, consensus(soft, labels, ignored))
    assert hard.dtype == np.uint8
    maps = np.stack(list(drawn.maps.values()))
    said = maps.astype(float)
    if labels.ignore is not None:
        said[maps == labels.ignore] = np.nan  # which agrees with every answer
    pairs = combinations(said, 2)
    disputed = np.zeros(maps.shape[1:], bool)
    for one, other in pairs:
        disputed |= (one != other) & ~np.isnan(one) & ~np.isnan(other)
    marked = (np.nan_to_num(said) > 0).any(axis=0)
    about = describe(fused.soft, loaded, labels, [0.0] * len(soft))
    assert about["marked_mm3"] == float(marked.sum() * np.prod(grid.spacing_mm))
    assert about["disputed_share"] == (float(disputed.sum() / marked.sum()) if marked.any() else 0.0)
    assert about["soft_voxels"] == int(((soft > 0) & (soft < 1)).any(axis=0).sum())
    same = {(one, two): np.array_equal(drawn.maps[one], drawn.maps[two]) for one, two, _ in about["pairs"]}
    assert {(one, two): is_same for one, two, is_same in about["pairs"]} == same


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("weighted", {"weights": {"ann": 1.0}}, "weights lack bob"),
        ("staple", {"margin_mm": -1.0}, "margin_mm must not be negative"),
        ("sba", {"slope_mm": 0.0}, "slope_mm must be positive"),
        ("svls", {"sigma_voxels": 0.0}, "sigma_voxels must be positive"),
    ],
)
def test_wrong_options_are_refused_where_nothing_is_marked_too(method, options, reason) -> None:
    empty = np.zeros((2, 3, 4), np.uint8)
    drawn = Drawn({"ann": empty, "bob": empty}, LABELS["one class"])
    with pytest.raises(ValueError, match=reason):
        fuse_raters(drawn.packed, method, options)
