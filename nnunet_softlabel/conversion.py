"""From cases with raters to a soft-label data set in ``nnUNet_raw``: read, fuse, write, all or nothing.

Everything is written into a folder that nnU-Net does not see and renamed when complete. Each case leaves a record
as its last file, so that `convert` can resume after a kill and end with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from nnunetv2.utilities.crossval_split import generate_crossval_split
from tqdm import tqdm

from nnunet_softlabel import __version__
from nnunet_softlabel.case_writer import RECORDS, CaseSettings, write_case
from nnunet_softlabel.cases import Case, Source
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.fusion import FUSIONS
from nnunet_softlabel.image_io import is_flat
from nnunet_softlabel.soft_labels import (
    FORMAT_VERSION,
    Labels,
    check_case_names,
    environment_folder,
    parse_labels,
    read_json,
    write_json,
)

UNFINISHED = ".unfinished_"  # must not begin with "Dataset", or nnU-Net would find it
NUM_FOLDS = 5


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
        resume: complete a conversion that was killed.
        show_progress: print a progress bar on stderr.

    Returns:
        Folder of the data set.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be; nothing is left behind.
    """
    cases = list(cases)
    parsed, mapping = parse_labels(labels)
    _check_arguments(cases, fusion, min_raters, num_processes)
    final = _final_folder(dataset_id, name, overwrite)
    settings = CaseSettings(
        parsed, mapping, tuple(channel_names), _common_ending(cases), fusion, dict(fusion_options or {}), min_raters,
        few_raters,
    )  # fmt: skip
    work = final.with_name(f"{UNFINISHED}{final.name}")
    splits_file = environment_folder("nnUNet_preprocessed") / final.name / "splits_final.json"
    splits = _splits(cases) if all(case.group is not None for case in cases) else None
    if splits is not None and splits_file.exists() and not (overwrite or resume):
        raise UsageError(f"{splits_file}: is already there; add --overwrite to replace it.")
    _prepare(work, _fingerprint(cases, settings), overwrite=overwrite, resume=resume)
    if not (work / "dataset.json").is_file():
        records = _write_cases(cases, work, settings, num_processes, show_progress)
        kept = [record for record in records if not record.get("is_dropped")]
        if splits is not None:
            splits = _without(splits, {record["case"] for record in records} - {record["case"] for record in kept})
            splits_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(splits_file, splits)
        content = {
            "name": final.name,
            "channel_names": {str(i): channel for i, channel in enumerate(channel_names)},
            **parsed.to_dataset_json(),
            "numTraining": sum(not record["is_test"] for record in kept),
            "file_ending": settings.ending,
            "soft_labels": _about(cases, records, settings),
        }
        write_json(work / "dataset.json", content)
    shutil.rmtree(work / RECORDS, ignore_errors=True)
    _replace_folder(work, final)
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
    cases = list(cases)
    content = read_json(dataset / "dataset.json")
    own = Labels.from_dataset_json(content)
    parsed, mapping = own, {value: value for value in _all_values(own)}
    if labels is not None:
        parsed, mapping = parse_labels(labels)
        if dict(parsed.values) != dict(own.values) or parsed.ignore != own.ignore:
            raise UsageError(f"--labels: {parsed.to_dataset_json()} does not fit {dataset.name}, {own.to_dataset_json()}.")
    _check_arguments(cases, fusion, min_raters, num_processes)
    if "soft_labels" in content and not overwrite:
        raise UsageError(f"{dataset}: has soft labels already; add --overwrite to replace them.")
    _check_covers_training(cases, dataset, content["file_ending"])
    settings = CaseSettings(
        parsed, mapping, tuple(content["channel_names"].values()), content["file_ending"], fusion,
        dict(fusion_options or {}), min_raters, writes_images=False,
    )  # fmt: skip
    work = dataset / f"{UNFINISHED}soft_labels"
    _prepare(work, _fingerprint(cases, settings), overwrite=overwrite, resume=resume)
    records = _write_cases(cases, work, settings, num_processes, show_progress)
    for folder in sorted(work.glob("*Labels*")):
        _replace_folder(folder, dataset / folder.name)
    write_json(dataset / "dataset.json", content | {"soft_labels": _about(cases, records, settings)})
    shutil.rmtree(work)
    return dataset


def _check_arguments(cases: Sequence[Case], fusion: str, min_raters: int, num_processes: int) -> None:
    if fusion not in FUSIONS:
        raise UsageError(f"--fusion {fusion}: unknown; choose one of {', '.join(sorted(FUSIONS))}.")
    if min_raters < 1 or num_processes < 1:
        raise UsageError("--min-raters and -np take numbers from 1.")
    if not cases:
        raise UsageError("There is no case to convert.")
    check_case_names(case.name for case in cases)


def _final_folder(dataset_id: int, name: str, overwrite: bool) -> Path:
    if not 1 <= dataset_id <= 999:
        raise UsageError(f"-d {dataset_id}: data set ids are 1 to 999.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UsageError(f"-n {name}: a data set name is made of letters, digits, '_', '-' and '.'.")
    final = environment_folder("nnUNet_raw") / f"Dataset{dataset_id:03d}_{name}"
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        if variable == "nnUNet_results" and not os.environ.get(variable):
            continue
        folder = environment_folder(variable)
        for other in sorted(folder.glob(f"Dataset{dataset_id:03d}_*")):
            if other.name != final.name:
                raise UsageError(f"-d {dataset_id}: the id is taken by {other}; choose another, or remove that.")
    if final.exists() and not overwrite:
        raise UsageError(f"{final}: is already there; add --overwrite to replace it, or choose another -d and -n.")
    return final


def _common_ending(cases: Sequence[Case]) -> str:
    """``.png`` if the images are flat, else ``.nii.gz``; a mixture is an error."""
    flat = {isinstance(source, Path) and is_flat(source) for case in cases for source in case.images}
    if len(flat) > 1:
        raise DatasetError("Flat images and volumes are mixed; nnU-Net wants one kind per data set.")
    in_memory = [source for source in cases[0].images if not isinstance(source, Path)]
    if in_memory:
        result = in_memory[0]() if callable(in_memory[0]) else in_memory[0]
        return ".png" if not isinstance(result, tuple) else ".nii.gz"
    return ".png" if flat == {True} else ".nii.gz"


def _all_values(labels: Labels) -> set[int]:
    values = {0} | {value for region in labels.values.values() for value in region}
    return values if labels.ignore is None else values | {labels.ignore}


def _check_covers_training(cases: Sequence[Case], dataset: Path, ending: str) -> None:
    present = {path.name[: -len(f"_0000{ending}")] for path in (dataset / "imagesTr").glob(f"*_0000{ending}")}
    given = {case.name for case in cases if not case.is_test}
    for missing in sorted(present - given):
        raise DatasetError(f"Case {missing}: is a training case of {dataset.name} but has no rater; add one.")
    for stranger in sorted(given - present):
        raise DatasetError(f"Case {stranger}: is no training case of {dataset.name}; remove it.")


def _fingerprint(cases: Sequence[Case], settings: CaseSettings) -> dict[str, Any]:
    """What decides the bytes of the result: a resumed conversion must agree in it."""

    def described(sources: Mapping[str, Source]) -> dict[str, str]:
        return {key: str(source) if isinstance(source, Path) else "in memory" for key, source in sources.items()}

    return {
        "version": __version__,
        "settings": {**asdict(settings), "mapping": {str(k): v for k, v in settings.mapping.items()}},
        "cases": {
            case.name: {
                "images": described({str(i): source for i, source in enumerate(case.images)}),
                "raters": described(case.raters),
                "soft": described(case.soft),
                "rois": described(case.rois),
                "group": case.group,
                "is_test": case.is_test,
            }
            for case in cases
        },
    }


def _prepare(work: Path, fingerprint: dict[str, Any], *, overwrite: bool, resume: bool) -> None:
    """Make the folder of an unfinished conversion, or take up the one that is there."""
    started = work / RECORDS / "settings.json"
    if work.exists() and not resume:
        if not overwrite:
            raise UsageError(
                f"{work}: an earlier conversion was interrupted; add --resume to complete it, or --overwrite to start again."
            )
        shutil.rmtree(work)
    if started.is_file():
        # through JSON, since the file holds lists where the settings hold tuples
        if read_json(started) != json.loads(json.dumps(fingerprint)):
            raise UsageError(f"{work}: was started with other options or files; add --overwrite to start again.")
    if not (work / "dataset.json").is_file():
        (work / RECORDS / "cases").mkdir(parents=True, exist_ok=True)
        write_json(started, fingerprint)


def _write_cases(
    cases: Sequence[Case], work: Path, settings: CaseSettings, num_processes: int, show_progress: bool
) -> list[dict[str, Any]]:
    """Convert what has no record yet; on a bad file nothing is left behind."""
    finished = {path.stem for path in (work / RECORDS / "cases").glob("*.json")}
    records = {name: read_json(work / RECORDS / "cases" / f"{name}.json") for name in finished}
    waiting = [case for case in cases if case.name not in records]
    for split in {"Ts" if case.is_test else "Tr" for case in waiting}:
        for kind in ("softLabels", "images", "labels") if settings.writes_images else ("softLabels",):
            (work / f"{kind}{split}").mkdir(exist_ok=True)
    try:
        with tqdm(total=len(cases), initial=len(records), desc="Converting", disable=not show_progress) as bar:
            if num_processes == 1 or len(waiting) < 2:
                for case in waiting:
                    records[case.name] = write_case(case, work, settings)
                    bar.update()
            else:
                # spawn: a forked child of a process that has threads (torch, BLAS) can hang
                with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
                    futures = [pool.submit(write_case, case, work, settings) for case in waiting]
                    try:
                        for future in as_completed(futures):
                            record = future.result()
                            records[record["case"]] = record
                            bar.update()
                    except BaseException:
                        pool.shutdown(cancel_futures=True)
                        raise
    except (DatasetError, UsageError, ValueError):
        shutil.rmtree(work)
        raise
    except BrokenProcessPool as error:
        raise UsageError(
            "A worker was killed, perhaps for lack of memory; run the same command with --resume and a smaller -np."
        ) from error
    return [records[case.name] for case in cases]


def _splits(cases: Sequence[Case]) -> list[dict[str, list[str]]]:
    """nnU-Net's own cross-validation split, made over groups instead of cases."""
    training = [case for case in cases if not case.is_test]
    groups = sorted({str(case.group) for case in training})
    if len(groups) < 2:
        raise DatasetError(f"--groups: all training cases are in group {groups[0]}; a split needs at least two groups.")
    folds = generate_crossval_split(groups, seed=12345, n_splits=min(NUM_FOLDS, len(groups)))
    return [
        {side: sorted(case.name for case in training if case.group in set(fold[side])) for side in ("train", "val")}
        for fold in folds
    ]


def _without(splits: list[dict[str, list[str]]], dropped: set[str]) -> list[dict[str, list[str]]]:
    return [{side: [case for case in names if case not in dropped] for side, names in fold.items()} for fold in splits]


def _about(cases: Sequence[Case], records: Sequence[dict[str, Any]], settings: CaseSettings) -> dict[str, Any]:
    """The key ``soft_labels`` of ``dataset.json``."""
    kept = [record for record in records if not record.get("is_dropped")]
    about = {
        "format_version": FORMAT_VERSION,
        "made_by": f"nnunet_softlabel {__version__}",
        "raters": sorted({rater for record in kept for rater in record["raters"]}),
        "raters_of_case": {record["case"]: record["raters"] for record in kept},
        "source": "probability maps" if cases[0].soft else "raters",
        "fusion": {"method": settings.fusion, **settings.fusion_options} if not cases[0].soft else None,
        "prior": None,
        "label_values": {str(value): label for value, label in settings.mapping.items()},
        "min_raters": settings.min_raters,
        "dropped_cases": [record["case"] for record in records if record.get("is_dropped")],
        "disputed_share": {record["case"]: round(record["disputed_share"], 6) for record in kept},
        "soft_voxels": sum(record["soft_voxels"] for record in kept),
        "made_hard_labels": settings.writes_images,
        "digest": hashlib.sha256("".join(record["hash"] for record in kept).encode()).hexdigest(),
    }
    if all(case.group is not None for case in cases):
        about["groups"] = {case.name: case.group for case in cases}
    return about


def _replace_folder(new: Path, final: Path) -> None:
    """Rename ``new`` to ``final``; what was there is deleted only after."""
    if final.exists():
        old = final.with_name(f".old_{final.name}")
        if old.exists():
            shutil.rmtree(old)
        os.rename(final, old)
        os.rename(new, final)
        shutil.rmtree(old)
    else:
        os.rename(new, final)
