"""Validation probabilities of a first round: for each training case, by a network that did not see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel.cases.trained_on import refuse_cases_of_fold
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import check_is_no_pipe, visible
from nnunet_softlabel.formats.nnunet_folders import missing_model

REMEDY = "train it with `nnUNetv2_train ... --npz` (or `--val --npz` if it is trained)"


def held_out_predictions(training: Path, splits_file: Path, cases: Sequence[str]) -> dict[str, Path]:
    """Case -> ``CASE.npz`` of the fold that did not train on it.

    Args:
        training: nnU-Net's folder ``TRAINER__PLANS__CONFIGURATION`` with ``fold_0``, ``fold_1``, ...
        splits_file: ``splits_final.json`` that the folds were trained with.
        cases: every training case.

    Raises:
        UsageError: if nothing was trained there.
        DatasetError: for a case without a prediction, or one whose network may have seen it.
    """
    folds = sorted(path for path in training.glob("fold_*") if path.name[5:].isdigit())
    if not folds:
        if (training / "fold_all").is_dir():
            raise UsageError(
                f"{training}: holds fold_all alone, whose network saw every case; train the five folds."
            )
        if not training.is_dir():
            raise UsageError(missing_model(training.name.partition("__")[0], training))
        raise UsageError(f"{training}: no fold was trained there; see -tr, -p and -c.")
    if not splits_file.is_file():
        raise DatasetError(
            f"{splits_file}: is not there, so nobody can tell which cases a fold was trained on; "
            f"put back the splits of that training."
        )
    splits = _read_splits(splits_file)
    found: dict[str, Path] = {}
    for folder in folds:
        found |= _of_fold(folder, splits, splits_file, set(cases) - found.keys())
    missing = sorted(set(cases) - found.keys())
    if missing:
        fold = next((i for i, split in enumerate(splits) if missing[0] in split["val"]), None)
        where = "no fold validates it" if fold is None else f"fold {fold} validates it; {REMEDY}"
        raise DatasetError(
            f"Case {missing[0]}: no probabilities in {training.name} ({len(missing)} such cases): {where}."
        )
    return found


def _read_splits(path: Path) -> list[dict[str, list[str]]]:
    check_is_no_pipe(path)
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        return [{side: list(split[side]) for side in ("train", "val")} for split in splits]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: cannot be read as nnU-Net's splits ({error!r}).") from error


def _of_fold(
    folder: Path, splits: list[dict[str, list[str]]], splits_file: Path, wanted: set[str]
) -> dict[str, Path]:
    number = int(folder.name[5:])
    files = {path.stem: path for path in visible(folder / "validation", "*.npz")}
    if number >= len(splits):
        raise DatasetError(f"{folder}: {splits_file} has only {len(splits)} folds; is it of this training?")
    refuse_cases_of_fold(folder, files, splits, splits_file)
    return {case: path for case, path in files.items() if case in wanted and case in splits[number]["val"]}
