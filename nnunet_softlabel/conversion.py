"""From cases with raters to a soft-label data set in ``nnUNet_raw``: all or nothing.

Everything is written into a folder that nnU-Net does not see (`unfinished`) and renamed when complete.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nnunet_softlabel import __version__
from nnunet_softlabel.case_reader import CaseSettings
from nnunet_softlabel.cases import Case
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.fusion import FUSIONS
from nnunet_softlabel.image_io import file_ending, is_flat
from nnunet_softlabel.soft_labels import (
    FORMAT_VERSION,
    Labels,
    check_case_names,
    check_file_name,
    environment_folder,
    parse_labels,
    read_json,
    write_json,
)
from nnunet_softlabel.splits import check_splits_file, make_splits, write_splits
from nnunet_softlabel.unfinished import (
    UNFINISHED,
    bring_back,
    put_folders_in_place,
    put_in_place,
    remove,
    request_digest,
    unfinished_folder,
    write_cases,
)


def convert(
    cases: Iterable[Case],
    *,
    dataset_id: int,
    name: str,
    labels: Sequence[str],
    channel_names: Sequence[str],
    fusion: str = "mean",
    fusion_options: Mapping[str, Any] | None = None,
    min_raters: int = 1,
    few_raters: Literal["refuse", "drop"] = "refuse",
    num_processes: int = 1,
    overwrite: bool = False,
    resume: bool = False,
    show_progress: bool = False,
) -> Path:
    """Fuse the raters of every case and write ``nnUNet_raw/DatasetXXX_NAME``.

    If cases have groups, ``splits_final.json`` is written to ``nnUNet_preprocessed`` so that no group is on both sides.

    Args:
        cases: what to convert.
        dataset_id: 1 to 999.
        name: the data set's name without number.
        labels: as on the command line, ``["nodule=1"]``.
        channel_names: nnU-Net's, one per image channel; they choose the normalisation.
        fusion: a name of `FUSIONS`.
        fusion_options: its keyword arguments.
        min_raters: fewer raters make a case unusable.
        few_raters: refuse the conversion, or drop such a case.
        num_processes: processes that convert cases.
        overwrite: replace a data set or an unfinished conversion of the same name.
        resume: complete a conversion that was killed; if it is complete, nothing is done.
        show_progress: print a progress bar on stderr.

    Returns:
        Folder of the data set.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be; nothing is left behind.
    """
    cases = sorted(cases, key=lambda case: case.name)
    parsed, mapping = parse_labels(labels)
    if parsed.ignore is None and any(case.ignore is not None for case in cases):
        parsed = replace(parsed, ignore=max(mapping.values()) + 1)
    _check_arguments(cases, fusion, min_raters, num_processes)
    settings = CaseSettings(
        parsed, mapping, tuple(channel_names), _common_ending(cases), fusion, dict(fusion_options or {}), min_raters,
        few_raters,
    )  # fmt: skip
    final = _final_folder(dataset_id, name)
    work = final.with_name(f"{UNFINISHED}{final.name}")
    bring_back(work, final)
    if resume and final.exists() and _is_complete(final, work, cases, settings):
        return final
    is_resumed = resume and (work / "dataset").is_dir()
    if final.exists() and not overwrite and not is_resumed:
        raise UsageError(
            f"{final}: is already there; add --overwrite to replace it, or choose another -d and -n."
        )
    splits_file = environment_folder("nnUNet_preprocessed") / final.name / "splits_final.json"
    splits = make_splits(cases) if cases[0].group is not None else None
    check_splits_file(splits_file, splits, may_replace=overwrite or resume)
    with unfinished_folder(work, cases, settings, overwrite=overwrite, resume=resume):
        records = write_cases(cases, work, settings, num_processes=num_processes, show_progress=show_progress)
        kept = [case for case, record in zip(cases, records, strict=True) if not record.get("is_dropped")]
        if all(case.is_test for case in kept):
            raise DatasetError(f"--min-raters {min_raters}: leaves no case to train on; lower it.")
        splits = None if splits is None else make_splits(kept)
        content = {
            "name": final.name,
            "channel_names": {str(i): channel for i, channel in enumerate(channel_names)},
            **parsed.to_dataset_json(),
            "numTraining": sum(not case.is_test for case in kept),
            "file_ending": settings.ending,
            "soft_labels": _about(cases, records, settings),
        }
        write_json(work / "dataset" / "dataset.json", content, temporary=work / "dataset.json")
        write_splits(splits_file, splits, kept)
        put_in_place(work, final)
    return final


def add_soft_labels(
    cases: Iterable[Case],
    dataset: Path,
    *,
    labels: Sequence[str] | None = None,
    fusion: str = "mean",
    fusion_options: Mapping[str, Any] | None = None,
    min_raters: int = 1,
    num_processes: int = 1,
    overwrite: bool = False,
    resume: bool = False,
    show_progress: bool = False,
) -> Path:
    """Add soft labels to a data set that is already in ``nnUNet_raw``; its images and hard labels stay untouched.

    Args:
        cases: named as in ``imagesTr``; every training case of the data set must be there.
        dataset: folder ``nnUNet_raw/DatasetXXX_NAME``.
        labels: as on the command line, if the raters' values are not those of the data set.
        fusion: as for `convert`, like the arguments after it.
        fusion_options: its keyword arguments.
        min_raters: fewer raters in a case are an error.
        num_processes: processes that convert cases.
        overwrite: replace soft labels that are already there.
        resume: complete a conversion that was killed.
        show_progress: print a progress bar on stderr.

    Returns:
        Folder of the data set.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be; nothing is left behind.
    """
    cases = sorted(cases, key=lambda case: case.name)
    content = read_json(dataset / "dataset.json")
    own, mapping = _labels_of(dataset, content, labels)
    _check_arguments(cases, fusion, min_raters, num_processes)
    ending, work = content["file_ending"], dataset / f"{UNFINISHED}soft_labels"
    _check_covers_training(cases, dataset, ending)
    settings = CaseSettings(
        own, mapping, tuple(content["channel_names"].values()), ending, fusion, dict(fusion_options or {}), min_raters,
        hard_labels=dataset / "labelsTr",
    )  # fmt: skip
    if resume and _is_complete(dataset, work, cases, settings):
        return dataset
    is_resumed = resume and (work / "dataset").is_dir()
    if "soft_labels" in content and not overwrite and not is_resumed:
        raise UsageError(f"{dataset}: has soft labels already; add --overwrite to replace them.")
    with unfinished_folder(work, cases, settings, overwrite=overwrite, resume=resume):
        records = write_cases(cases, work, settings, num_processes=num_processes, show_progress=show_progress)
        # a data set with old and new files mixed must not look complete
        without = {key: value for key, value in content.items() if key != "soft_labels"}
        write_json(dataset / "dataset.json", without, temporary=work / "dataset.json")
        put_folders_in_place(work, dataset, ("softLabelsTr", "raterLabelsTr"))
        about = _about(cases, records, settings)
        write_json(
            dataset / "dataset.json", without | {"soft_labels": about}, temporary=work / "dataset.json"
        )
        remove(work)
    return dataset


def _check_arguments(cases: Sequence[Case], fusion: str, min_raters: int, num_processes: int) -> None:
    if fusion not in FUSIONS:
        raise UsageError(f"--fusion {fusion}: unknown; choose one of {', '.join(sorted(FUSIONS))}.")
    if min_raters < 1 or num_processes < 1:
        raise UsageError("--min-raters and -np take numbers from 1.")
    if not cases:
        raise UsageError("there is no case to convert.")
    check_case_names(case.name for case in cases)
    for case in cases:
        if not case.images:
            raise DatasetError(f"Case {case.name}: has no image; add one.")
        for rater in case.raters:
            check_file_name(rater, f"Case {case.name}: rater")
        if (case.group is None) != (cases[0].group is None):
            raise DatasetError(
                f"Case {case.name}: some cases have a group and some have none; give one to all."
            )


def _final_folder(dataset_id: int, name: str) -> Path:
    if not 1 <= dataset_id <= 999:
        raise UsageError(f"-d {dataset_id}: data set ids are 1 to 999.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UsageError(f"-n {name}: a data set name is made of letters, digits, '_', '-' and '.'.")
    final = environment_folder("nnUNet_raw") / f"Dataset{dataset_id:03d}_{name}"
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


def _common_ending(cases: Sequence[Case]) -> str:
    """``.tif`` or ``.png`` if the images are flat, else ``.nii.gz``; a mixture is an error."""
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
    return ".tif" if endings == {".tif"} else ".png"


def _labels_of(
    dataset: Path, content: Mapping[str, Any], texts: Sequence[str] | None
) -> tuple[Labels, dict[int, int]]:
    """Labels of a data set, and the map from the raters' values, as ``--labels`` says or the same, to its own."""
    own = Labels.from_dataset_json(content)
    if texts is None:
        values = {0} | {value for region in own.values.values() for value in region}
        return own, {value: value for value in values | ({own.ignore} if own.ignore is not None else set())}
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


def _check_covers_training(cases: Sequence[Case], dataset: Path, ending: str) -> None:
    present = {path.name[: -len(f"_0000{ending}")] for path in (dataset / "imagesTr").glob(f"*_0000{ending}")}
    given = {case.name for case in cases if not case.is_test}
    for missing in sorted(present - given):
        raise DatasetError(f"Case {missing}: is a training case of {dataset.name} but has no rater; add one.")
    for stranger in sorted(given - present):
        raise DatasetError(f"Case {stranger}: is no training case of {dataset.name}; remove it.")


def _is_complete(dataset: Path, work: Path, cases: Sequence[Case], settings: CaseSettings) -> bool:
    """True if the data set holds what is asked for and nothing is unfinished; removes what is left of ``work``."""
    about = read_json(dataset / "dataset.json").get("soft_labels") or {}
    if (work / "dataset").is_dir() or about.get("request") != request_digest(cases, settings):
        return False
    if work.exists():
        remove(work)
    return True


def _about(
    cases: Sequence[Case], records: Sequence[dict[str, Any]], settings: CaseSettings
) -> dict[str, Any]:
    """The key ``soft_labels`` of ``dataset.json``."""
    kept = [record for record in records if not record.get("is_dropped")]
    is_fused = any(not case.soft for case in cases)
    about = {
        "format_version": FORMAT_VERSION,
        "made_by": f"nnunet_softlabel {__version__}",
        "raters": sorted({rater for record in kept for rater in record["raters"]}),
        "raters_of_case": {record["case"]: record["raters"] for record in kept},
        "source": "raters" if is_fused else "probability maps",
        "fusion": {"method": settings.fusion, **settings.fusion_options} if is_fused else None,
        "prior": None,
        "label_values": {str(value): label for value, label in settings.mapping.items()},
        "min_raters": settings.min_raters,
        "dropped_cases": [record["case"] for record in records if record.get("is_dropped")],
        "disputed_share": {record["case"]: round(record["disputed_share"], 6) for record in kept},
        "soft_voxels": sum(record["soft_voxels"] for record in kept),
        "made_hard_labels": settings.hard_labels is None,
        "digest": hashlib.sha256("".join(record["hash"] for record in kept).encode()).hexdigest(),
        "request": request_digest(cases, settings),
    }
    if cases[0].group is not None:
        about["groups"] = {case.name: case.group for case in cases}
    return about
