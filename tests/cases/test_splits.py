"""Folds of a data set to which soft labels are added."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.splits import make_splits, read_splits, splits_for_labels, write_splits
from nnunet_softlabel.errors import UsageError

NAMES = [f"k{i}" for i in range(8)]


@pytest.fixture
def splits_file(tmp_path: Path) -> Path:
    return tmp_path / "splits_final.json"


def cases_of(names: list[str], *, has_groups: bool = False) -> list[Case]:
    """Two cases per patient."""
    return [Case(name, [], group=f"p{int(name[1:]) // 2}" if has_groups else None) for name in names]


def test_new_folds_keep_groups_together_with_and_without_cases_left_out(splits_file: Path) -> None:
    for names in (NAMES, NAMES[:6]):
        cases = cases_of(names, has_groups=True)
        left_out = sorted(set(NAMES) - set(names))
        folds, notes = splits_for_labels(splits_file, cases, left_out=left_out, may_replace=False)
        assert folds == make_splits(cases)
        assert notes == [f"Folds that keep groups (patients) together: {splits_file}"]


def test_no_folds_are_made_where_nnunets_own_will_do(splits_file: Path) -> None:
    assert splits_for_labels(splits_file, cases_of(NAMES), left_out=[], may_replace=False) == (None, [])


def test_folds_with_a_patient_on_both_sides_are_replaced_only_when_asked(splits_file: Path) -> None:
    mixed = [{"train": NAMES[1:], "val": NAMES[:1]}, {"train": NAMES[:1], "val": NAMES[1:]}]
    write_splits(splits_file, mixed)
    cases = cases_of(NAMES, has_groups=True)
    with pytest.raises(UsageError, match="group p0 is on both sides of a fold; add --overwrite"):
        splits_for_labels(splits_file, cases, left_out=[], may_replace=False)
    folds, notes = splits_for_labels(splits_file, cases, left_out=[], may_replace=True)
    assert folds == make_splits(cases)
    assert notes == [f"New folds: group p0 was on both sides of a fold of {splits_file}."]
    kept = [{"train": NAMES[2:], "val": NAMES[:2]}]
    write_splits(splits_file, kept)
    assert splits_for_labels(splits_file, cases, left_out=[], may_replace=True) == (None, [])


@pytest.mark.parametrize("has_groups", [False, True])
def test_cases_that_are_back_come_into_folds_that_were_made_here(splits_file: Path, has_groups: bool) -> None:
    first, _ = splits_for_labels(
        splits_file, cases_of(NAMES[:6], has_groups=has_groups), left_out=NAMES[6:], may_replace=False
    )
    write_splits(splits_file, first)
    cases = cases_of(NAMES, has_groups=has_groups)
    with pytest.raises(UsageError, match="is already there; add --overwrite for folds with all cases"):
        splits_for_labels(splits_file, cases, left_out=[], were_left_out=NAMES[6:], may_replace=False)
    folds, notes = splits_for_labels(
        splits_file, cases, left_out=[], were_left_out=NAMES[6:], may_replace=True
    )
    assert notes == [f"New folds, for 2 cases are back, as k6: {splits_file}"]
    assert folds is not None
    assert all(sorted(fold["train"] + fold["val"]) == NAMES for fold in folds)


def test_folds_of_others_stay_and_the_cases_that_they_lack_are_named(splits_file: Path) -> None:
    by_hand = [{"train": NAMES[:5], "val": NAMES[5:6]}]
    write_splits(splits_file, by_hand)
    folds, notes = splits_for_labels(
        splits_file, cases_of(NAMES), left_out=[], were_left_out=NAMES[6:], may_replace=True
    )
    assert folds is None
    assert notes == [
        f"{splits_file} stays; it leaves out 2 cases that have soft labels, as k6: they are not trained on. "
        f"To train on them, move the file away and run this again."
    ]
    assert read_splits(splits_file) == by_hand
