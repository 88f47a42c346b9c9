"""Which cases a conversion trains on, and the folds that it writes for them: known before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.splits import Splits, check_splits_file, make_splits, splits_for_labels
from nnunet_softlabel.conversion.settings import CaseSettings, has_too_few_raters
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.nnunet_folders import environment_folder


def splits_file_of(dataset: Path) -> Path:
    """``splits_final.json`` of a data set in ``nnUNet_raw``, there or not."""
    return environment_folder("nnUNet_preprocessed") / dataset.name / "splits_final.json"


def kept_cases(cases: Sequence[Case], settings: CaseSettings) -> list[Case]:
    """Those with enough raters.

    Raises:
        DatasetError: if nothing is left to train on.
    """
    kept = [case for case in cases if not has_too_few_raters(case, settings)]
    if all(case.is_test for case in kept):
        raise DatasetError(f"--min-raters {settings.min_raters}: leaves no case to train on; lower it.")
    return kept


def folds_of_new(
    dataset: Path, kept: Sequence[Case], *, may_replace: bool
) -> tuple[Splits | None, list[str]]:
    """Folds to be written for a new data set, and what the user is told of those that stay.

    Raises:
        UsageError: if the folds that are there would be replaced and may not, or do not fit.
        DatasetError: for folds that cannot be read, or groups that cannot be split.
    """
    splits = make_splits(kept) if kept[0].group is not None else None
    return splits, check_splits_file(splits_file_of(dataset), splits, kept, may_replace=may_replace)


def folds_of_existing(
    dataset: Path,
    content: Mapping[str, Any],
    cases: Sequence[Case],
    *,
    left_out: Sequence[str],
    may_replace: bool,
) -> tuple[Splits | None, list[str]]:
    """The same for a data set to which soft labels are added; see `splits_for_labels`."""
    before = content.get("soft_labels") or {}
    return splits_for_labels(
        splits_file_of(dataset),
        cases,
        left_out=left_out,
        were_left_out=before.get("dropped_cases") or [],
        may_replace=may_replace,
    )
