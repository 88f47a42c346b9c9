"""Cross-validation splits that keep groups (patients) together, in nnU-Net's ``splits_final.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import check_is_no_pipe, refuse_existing, write_json

NUM_FOLDS = 5  # nnU-Net's own split; scikit-learn refuses it for fewer cases
Splits = list[dict[str, list[str]]]


def make_splits(cases: Sequence[Case]) -> Splits:
    """nnU-Net's own cross-validation split of the training cases, made over groups instead of cases.

    Raises:
        DatasetError: if there are fewer than two groups.
    """
    return _folds_over({case.name: str(case.group) for case in cases if not case.is_test})


def _folds_over(group_of: Mapping[str, str]) -> Splits:
    # imports scikit-learn, which no other part of a conversion needs
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    groups = sorted(set(group_of.values()))
    if len(groups) < 2:
        raise DatasetError(
            f"Groups (patients): all training cases are in group {', '.join(groups)}; "
            f"a split needs at least two groups."
        )
    folds = generate_crossval_split(groups, seed=12345, n_splits=min(NUM_FOLDS, len(groups)))
    return [
        {
            side: sorted(name for name, group in group_of.items() if group in set(fold[side]))
            for side in ("train", "val")
        }
        for fold in folds
    ]


def splits_for_labels(
    path: Path,
    cases: Sequence[Case],
    *,
    left_out: Sequence[str],
    were_left_out: Sequence[str] = (),
    may_replace: bool,
) -> tuple[Splits | None, list[str]]:
    """Folds of a data set to which soft labels are added: nnU-Net trains on all that no fold leaves out.

    Folds that are there stay as they are for the other cases. New ones take their place where patients would
    be on both sides, and where an earlier call left out cases that are back and made the folds itself.

    Args:
        path: ``splits_final.json``, which may not be there.
        cases: that are trained on; those with groups (patients) are split by group.
        left_out: names of the cases that stay in the data set and are not trained on.
        were_left_out: the same, before.
        may_replace: the file may be changed.

    Returns:
        What is to be written, or None if nothing changes; and what the user is told.

    Raises:
        UsageError: if the file would change and may not.
        DatasetError: if a fold would have nothing to train on, or to validate with.
    """
    _refuse_lost_link(path)
    has_groups = any(case.group is not None for case in cases)
    group_of = {case.name: case.name if case.group is None else case.group for case in cases}
    if not path.exists():
        if has_groups:
            return _folds_over(group_of), [f"Folds that keep groups (patients) together: {path}"]
        return (_folds_over(group_of) if left_out else None), []
    folds = read_splits(path)
    listed = _cases_of(folds)
    if mixed := _mixed_group(folds, group_of):
        advice = (
            f"group {mixed} is on both sides of a fold; add --overwrite for folds that keep groups together"
        )
        refuse_existing([path], overwrite=may_replace, advice=advice)
        return _folds_over(group_of), [f"New folds: group {mixed} was on both sides of a fold of {path}."]
    back = sorted(set(group_of) & set(were_left_out) - listed)
    if back and _are_made_here(folds, group_of):
        refuse_existing([path], overwrite=may_replace, advice="add --overwrite for folds with all cases")
        return _folds_over(group_of), [f"New folds, for {len(back)} cases are back, as {back[0]}: {path}"]
    lacking = sorted(set(group_of) - listed)
    notes = [
        f"{path} stays; it leaves out {len(lacking)} cases that have soft labels, as {name}: they are not "
        f"trained on. To train on them, move the file away and run this again."
        for name in lacking[:1]
    ]
    if not listed & set(left_out):
        return None, notes
    advice = "add --overwrite to take the cases without raters out of its folds"
    refuse_existing([path], overwrite=may_replace, advice=advice)
    return _without(folds, left_out, path), notes


def _mixed_group(folds: Splits, group_of: Mapping[str, str]) -> str | None:
    """A group that is trained on and validated with in one fold."""
    for fold in folds:
        train, val = (
            {group_of[name] for name in fold[side] if name in group_of} for side in ("train", "val")
        )
        if train & val:
            return min(train & val)
    return None


def _are_made_here(folds: Splits, group_of: Mapping[str, str]) -> bool:
    """True for the very folds that are made for the cases that they list."""
    listed = sorted(_cases_of(folds))
    made = [{name: of.get(name, name) for name in listed} for of in (group_of, {})]
    return any(len(set(of.values())) > 1 and folds == _folds_over(of) for of in made)


def _without(folds: Splits, left_out: Sequence[str], path: Path) -> Splits:
    folds = [
        {side: [name for name in fold[side] if name not in left_out] for side in ("train", "val")}
        for fold in folds
    ]
    for number, fold in enumerate(folds):
        if not fold["train"] or not fold["val"]:
            raise DatasetError(
                f"{path}: fold {number} would have no case left to train on or to validate with; move the "
                f"file away."
            )
    return folds


def _refuse_lost_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise DatasetError(
            f"{path}: is a link to a file that is not there; fetch the file, or remove the link."
        )


def check_splits_file(
    path: Path, splits: Splits | None, cases: Sequence[Case], *, may_replace: bool
) -> list[str]:
    """Refuse splits that are there and would be replaced or no longer fit, before any work.

    Splits are never deleted: a user may have made them by hand.

    Args:
        path: ``splits_final.json``, which may not be there.
        splits: that are to be written, or None.
        cases: that the data set will have.
        may_replace: splits of other groups may take the place of those that are there.

    Returns:
        What the user is told of splits that stay.

    Raises:
        UsageError: if new ones may not replace them, or they name a case that is not trained on.
        DatasetError: if they cannot be read.
    """
    _refuse_lost_link(path)
    if not path.exists():
        return []
    if splits is not None:
        advice = "add --overwrite to replace it, or leave out --groups"
        refuse_existing([path], overwrite=may_replace, advice=advice)
        return []
    training, listed = {case.name for case in cases if not case.is_test}, _cases_of(read_splits(path))
    strangers, left_out = sorted(listed - training), sorted(training - listed)
    if strangers:
        raise UsageError(
            f"{path}: lists case {strangers[0]}, which is no training case of this data set; move the file "
            f"away (nnU-Net then splits by case), or give --groups and --overwrite for new splits."
        )
    if left_out:
        return [f"{path} stays; it leaves out {len(left_out)} training cases, as {left_out[0]}."]
    return [f"{path} stays."]


def write_splits(path: Path, splits: Splits | None) -> None:
    """Write splits, if there are any."""
    if splits is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, splits)


def _cases_of(folds: Splits) -> set[str]:
    return {name for fold in folds for side in ("train", "val") for name in fold[side]}


def read_splits(path: Path) -> Splits:
    """Read nnU-Net's ``splits_final.json``.

    Raises:
        DatasetError: if it is something else.
    """
    check_is_no_pipe(path)
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
        return [{side: [str(name) for name in fold[side]] for side in ("train", "val")} for fold in folds]
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as nnU-Net's splits ({error!r}); remove it.") from error


def refuse_random_fold(path: Path, fold: int | str, groups: Mapping[str, str] | None) -> None:
    """Refuse a fold for which nnU-Net would split cases at random, with patients on both sides.

    Args:
        path: nnU-Net's ``splits_final.json``.
        fold: number, or ``all``, which has no validation cases of its own.
        groups: case -> patient, of a data set that was converted with ``--groups``.

    Raises:
        UsageError: naming the folds that there are.
    """
    if not groups or fold == "all":
        return
    if not path.is_file():
        raise UsageError(
            f"{path}: is not there, and nnU-Net would split cases at random, although this data set has "
            f"groups (patients); convert it again with --groups, which writes the splits."
        )
    number = len(read_splits(path))
    if int(fold) >= number:
        raise UsageError(
            f"fold {fold}: {path} has the folds 0 to {number - 1}; nnU-Net would split cases at random, with "
            f"patients on both sides; give one of these folds."
        )
