"""What `convert` checks before it starts: its arguments, the folder, and that cases fit the data set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.groups import check_groups_are_whole
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.cases.names import check_case_names, check_file_name, check_group, check_spelling
from nnunet_softlabel.cases.raters import check_are_no_outputs, check_raters_are_there
from nnunet_softlabel.conversion.settings import CaseSettings, Fusion, StapleScope
from nnunet_softlabel.conversion.work_folder import UNFINISHED
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import visible
from nnunet_softlabel.formats.images import VOLUME_ENDINGS, file_ending, is_flat
from nnunet_softlabel.formats.labels import Labels, Values, parse_labels
from nnunet_softlabel.formats.nnunet_folders import environment_folder
from nnunet_softlabel.formats.soft_dataset import soft_ending
from nnunet_softlabel.fusion import FUSIONS


def check_settings(settings: CaseSettings, cases: Sequence[Case]) -> None:
    """Refuse options that do not go together, or not with these cases.

    Raises:
        UsageError: naming the flag.
    """
    if settings.fusion not in FUSIONS:
        raise UsageError(f"--fusion {settings.fusion}: unknown; choose one of {', '.join(sorted(FUSIONS))}.")
    if settings.staple_scope not in get_args(StapleScope):
        raise UsageError(f"--staple-scope {settings.staple_scope}: choose case or dataset.")
    if settings.staple_scope == "dataset" and settings.fusion != "staple":
        raise UsageError(
            f"--staple-scope dataset: belongs to --fusion staple, not to {settings.fusion}; leave it out."
        )
    if settings.reading.soft_scale is not None and not any(case.soft for case in cases):
        raise UsageError(
            "--soft-scale: belongs to ready probability maps (--soft), and no case has any; leave it out."
        )
    settings.priors.check(settings.channel_names)
    check_raters_are_there(settings.reading.of_rater, cases, "--rater-labels")
    weights = settings.fusion_options.get("weights")
    if isinstance(weights, Mapping):
        check_raters_are_there(weights, cases, "--weights")


def check_arguments(cases: Sequence[Case], min_raters: int, num_processes: int) -> None:
    if min_raters < 1 or num_processes < 1:
        raise UsageError("--min-raters and -np take numbers from 1.")
    if not cases:
        raise UsageError("there is no case to convert.")
    check_case_names(case.name for case in cases)
    check_spelling({rater for case in cases for rater in case.raters}, "Rater")
    for case in cases:
        if not case.images:
            raise DatasetError(f"Case {case.name}: has no image; add one.")
        for rater in case.raters:
            check_file_name(rater, f"Case {case.name}: rater")
        if (case.group is None) != (cases[0].group is None):
            raise DatasetError(
                f"Case {case.name}: some cases have a group and some have none; give one to all."
            )
        if case.group is not None:
            check_group(case.group, f"Case {case.name}: group")
    if all(case.is_test for case in cases):
        raise UsageError("--test-cases: nothing is left to train on.")
    check_groups_are_whole(cases)
    check_are_no_outputs(cases)


def check_changes_labels_alone(fusion: Fusion, files: FileOptions) -> None:
    """Refuse what only a new data set can have.

    Raises:
        UsageError: naming it.
    """
    if fusion.few_raters == "drop":
        raise UsageError("--few-raters drop: the data set has these cases; leave it out.")
    if files.links_images:
        raise UsageError("--link-images: the images of the data set stay as they are; leave it out.")


def new_dataset(dataset_id: int, name: str) -> str:
    """``DatasetXXX_NAME``, nnU-Net's name of a data set.

    >>> new_dataset(7, "Knee")
    'Dataset007_Knee'

    Raises:
        UsageError: for an id or a name that cannot be.
    """
    if not 1 <= dataset_id <= 999:
        raise UsageError(f"-d {dataset_id}: data set ids are 1 to 999.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UsageError(f"-n {name}: a data set name is made of letters, digits, '_', '-' and '.'.")
    return f"Dataset{dataset_id:03d}_{name}"


def final_folder(dataset: str) -> Path:
    """Where a new data set goes.

    Raises:
        UsageError: for another name, or one whose id is taken.
    """
    match = re.fullmatch(r"Dataset(\d{3})_(.*)", dataset)
    if match is None:
        raise UsageError(
            f"dataset: {dataset!r} is no name of a data set; write it as 'Dataset501_Knee', with an id of "
            f"three digits."
        )
    dataset_id = int(match[1])
    final = environment_folder("nnUNet_raw") / new_dataset(dataset_id, match[2])
    bases = [final.parent, environment_folder("nnUNet_preprocessed")]
    if os.environ.get("nnUNet_results"):
        bases.append(environment_folder("nnUNet_results"))
    for base in bases:
        for other in sorted(base.glob(f"Dataset{dataset_id:03d}_*")):
            if other.name != final.name:
                raise UsageError(
                    f"-d {dataset_id}: the id is taken by {other}; choose another, or remove that."
                )
    return final


def check_id_is_free(final: Path) -> None:
    """Refuse an id for which another data set of another name is being made.

    Raises:
        UsageError: naming it.
    """
    number = final.name.partition("_")[0]
    for other in sorted(final.parent.glob(f"*{number}_*")):
        is_unfinished = other.name.startswith(UNFINISHED)
        if other.name.removeprefix(UNFINISHED) != final.name and (is_unfinished or other.name[0] == "D"):
            raise UsageError(
                f"-d {int(number.removeprefix('Dataset'))}: the id is taken by {other}; choose another, "
                f"complete that conversion with --resume, or remove it."
            )


def check_takes_soft_labels(dataset: Path, content: Mapping[str, Any]) -> None:
    """Refuse a data set whose images lie elsewhere, or whose format cannot hold probabilities.

    Raises:
        DatasetError: saying what to do.
    """
    if content.get("dataset"):
        raise DatasetError(
            f"{dataset / 'dataset.json'}: takes images from other folders (key dataset), which --into "
            f"does not; give these images and the raters to `nnunet_softlabel convert -d ID -n NAME`."
        )
    if soft_ending(content["file_ending"]) not in (*VOLUME_ENDINGS, ".png", ".tif", ".tiff"):
        raise DatasetError(
            f"{dataset / 'dataset.json'}: {content['file_ending']} files cannot hold probabilities; convert "
            f"the images to .png or .nii.gz, or make a new data set with `-d ID -n NAME`."
        )


def common_ending(cases: Sequence[Case]) -> str:
    """``.tif`` (of .tif, .tiff) or ``.png`` if images are flat, else ``.nii.gz``; a mixture is an error."""
    endings = {file_ending(source) for case in cases for source in case.images if isinstance(source, Path)}
    in_memory = next((s for case in cases for s in case.images if not isinstance(s, Path)), None)
    if in_memory is not None:
        result = in_memory() if callable(in_memory) else in_memory
        endings.add(".nii.gz" if isinstance(result, tuple) and result[1].has_geometry else ".png")
    are_flat = {is_flat(Path(f"image{ending}")) for ending in endings}
    if len(are_flat) > 1:
        raise DatasetError(
            "Flat images and volumes are mixed; nnU-Net wants one kind per data set: convert one kind."
        )
    if are_flat == {False}:
        return ".nii.gz"
    return ".tif" if endings <= {".tif", ".tiff"} else ".png"


def labels_of_cases(cases: Sequence[Case], texts: Sequence[str]) -> tuple[Labels, Values]:
    """Labels of a new data set: one more, to be ignored, where cases have voxels to ignore.

    Raises:
        UsageError: see `parse_labels`.
    """
    labels, values = parse_labels(texts)
    if labels.ignore is None and any(case.ignore is not None for case in cases):
        labels = replace(labels, ignore=max(values.values()) + 1)
    return labels, values


def labels_of(
    dataset: Path, content: Mapping[str, Any], texts: Sequence[str] | None
) -> tuple[Labels, dict[int | str, int]]:
    """Labels of a data set, and the map from the raters' values (as ``--labels`` says) to its own."""
    own = Labels.from_dataset_json(content)
    if texts is None:
        return own, own.own_values
    given, mapping = parse_labels(texts)
    if set(given.names) != set(own.names) or (given.ignore is not None and own.ignore is None):
        raise UsageError(
            f"--labels: names {', '.join(given.names)}, but {dataset.name} has {', '.join(own.names)}."
        )
    if own.has_regions or given.has_regions:
        if dict(given.values) != dict(own.values):
            raise UsageError(
                f"--labels: regions {dict(given.values)}, but {dataset.name} has {dict(own.values)}."
            )
        return own, mapping
    to_own = {given.values[name][0]: own.values[name][0] for name in own.names} | {0: 0}
    if given.ignore is not None and own.ignore is not None:
        to_own[given.ignore] = own.ignore
    return own, {value: to_own[label] for value, label in mapping.items()}


def check_covers_training(
    cases: Sequence[Case], dataset: Path, ending: str, missing_cases: Literal["refuse", "drop"]
) -> list[str]:
    """Training cases of the data set that are not given, and are to be left out of training."""
    present = {
        path.name[: -len(f"_0000{ending}")] for path in visible(dataset / "imagesTr", f"*_0000{ending}")
    }
    test = next((case.name for case in cases if case.is_test), None)
    if test is not None:
        raise DatasetError(
            f"Case {test}: is a test case, but {dataset.name} gets soft labels for its training cases alone; "
            f"leave out its rows, or what marks it."
        )
    given = {case.name for case in cases}
    missing = sorted(present - given)
    if missing and missing_cases == "refuse":
        raise DatasetError(
            f"Case {missing[0]}: is a training case of {dataset.name} but has no rater; add one."
        )
    for stranger in sorted(given - present):
        raise DatasetError(f"Case {stranger}: is no training case of {dataset.name}; remove it.")
    return missing
