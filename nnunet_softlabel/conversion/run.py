"""From cases with raters to a soft-label data set in ``nnUNet_raw``: all or nothing.

Everything is written into a folder that nnU-Net does not see (`unfinished`) and renamed when complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from nnunet_softlabel.arguments import LabelTexts, Texts, as_label_texts, as_texts
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.cases.sizes import processes_for_cases
from nnunet_softlabel.cases.splits import write_splits
from nnunet_softlabel.conversion.case_records import CaseRecord
from nnunet_softlabel.conversion.checks import (
    check_arguments,
    check_changes_labels_alone,
    check_covers_training,
    check_id_is_free,
    check_settings,
    check_takes_soft_labels,
    common_ending,
    final_folder,
    labels_of,
    labels_of_cases,
)
from nnunet_softlabel.conversion.estimates import estimate
from nnunet_softlabel.conversion.exchange import exchange, put_back
from nnunet_softlabel.conversion.folds import (
    folds_of_existing,
    folds_of_new,
    kept_cases,
    splits_file_of,
)
from nnunet_softlabel.conversion.foreign import check_holds_own_files_only
from nnunet_softlabel.conversion.grids import naming_all_grids
from nnunet_softlabel.conversion.kept import (
    groups_of,
    keep_test_records,
    test_cases,
    with_recorded_groups,
)
from nnunet_softlabel.conversion.one_case.fuse import LESION_WISE
from nnunet_softlabel.conversion.one_case.write import is_whole, write_case
from nnunet_softlabel.conversion.prior_settings import Priors
from nnunet_softlabel.conversion.record import CANDIDATES_FILE, conversion_record, write_candidates
from nnunet_softlabel.conversion.request import request_digest
from nnunet_softlabel.conversion.settings import CaseSettings, Fusion, Running
from nnunet_softlabel.conversion.sources import digest_of_case, digest_of_sources
from nnunet_softlabel.conversion.work_folder import (
    UNFINISHED,
    bring_back,
    claimed_id,
    put_in_place,
    remove,
    run_cases,
    unfinished_folder,
)
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.dataset_json import channel_names_of, read_dataset_json
from nnunet_softlabel.formats.exchange_state import WORK
from nnunet_softlabel.formats.files import refuse_existing, write_json
from nnunet_softlabel.formats.soft_labels import SoftLabels
from nnunet_softlabel.processes import end_if_run_again
from nnunet_softlabel.public import public

# what of a data set `add_soft_labels` replaces
EXCHANGED = ("softLabelsTr", "raterLabelsTr", CANDIDATES_FILE)


@public
def convert(
    cases: Iterable[Case],
    dataset: str,
    *,
    labels: LabelTexts,
    channel_names: Texts,
    files: FileOptions | None = None,
    fusion: Fusion | str = "mean",
    priors: Priors | None = None,
    running: Running | None = None,
) -> Path:
    """Fuse the raters of every case and write ``nnUNet_raw/DatasetXXX_NAME``.

    If cases have groups, ``splits_final.json`` is written to ``nnUNet_preprocessed`` so that no group is on
    both sides.

    >>> cases = ns.find_cases("images/{case}.nii.gz", raters="raters/{case}_{rater}.nii.gz")
    >>> ns.convert(cases, "Dataset502_Knee", labels={"lesion": 1}, channel_names="MRI").name
    'Dataset502_Knee'

    Args:
        cases: what to convert.
        dataset: name of the new data set, ``DatasetXXX_NAME``, as nnU-Net has it.
        labels: label -> its value or values in the raters' files, or as on the command line,
            ``["nodule=1"]``.
        channel_names: nnU-Net's, one per image channel; they choose the normalisation.
        files: how files are read: values of single raters, other grids, scales; whether images are linked.
        fusion: how raters are merged, and how many a case needs; the name of a method stands for its
            defaults.
        priors: what anatomy says, applied after fusion; cases hold the masks in ``rois``.
        running: number of processes, what may be replaced or resumed.

    Returns:
        Folder of the data set.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be; nothing is left behind.
    """
    end_if_run_again()
    cases = sorted(cases, key=lambda case: case.name)
    channel_names = as_texts(channel_names, "channel_names")
    parsed, values = labels_of_cases(cases, as_label_texts(labels))
    how, running, files = Fusion.of(fusion), running or Running(), files or FileOptions()
    check_arguments(cases, how.min_raters, running.num_processes)
    settings = CaseSettings(
        parsed, files.reading(parsed, values), tuple(channel_names), common_ending(cases),
        how.method, dict(how.options), how.min_raters, how.few_raters, staple_scope=how.scope,
        has_anonymous_raters=how.has_anonymous_raters, priors=priors or Priors(),
        links_images=files.links_images,
    )  # fmt: skip
    check_settings(settings, cases)
    kept = kept_cases(cases, settings)
    final = final_folder(dataset)
    work = final.with_name(f"{UNFINISHED}{final.name}")
    check_id_is_free(final)
    bring_back(work, final)
    overwrite, resume = running.overwrite, running.resume
    splits_file = splits_file_of(final)
    if resume and final.exists() and _is_complete(final, work, cases, settings):
        with claimed_id(final):
            if work.exists():  # killed before the splits were written
                splits, _ = folds_of_new(final, kept, may_replace=True)
                put_in_place(work, final, then=partial(write_splits, splits_file, splits))
        return final
    is_resumed = resume and (work / "dataset").is_dir()
    advice = "add --overwrite to replace it, or choose another -d"
    refuse_existing([final], overwrite=overwrite or is_resumed, advice=advice)
    if final.exists():
        check_holds_own_files_only(final)
    splits, notes = folds_of_new(final, kept, may_replace=overwrite or resume)
    for note in notes:
        print(note)

    def finish(records: list[CaseRecord], about: SoftLabels) -> None:
        content = {
            "name": final.name,
            "channel_names": {str(i): channel for i, channel in enumerate(channel_names)},
            **parsed.to_dataset_json(),
            "numTraining": sum(not case.is_test for case in kept),
            "file_ending": settings.ending,
            "soft_labels": about,
        }
        write_json(work / "dataset" / "dataset.json", content, temporary=work / "dataset.json")
        write_candidates(work / "dataset", records)
        put_in_place(work, final, then=partial(write_splits, splits_file, splits))

    with claimed_id(final):  # and checked again, for two may have begun at once
        _run(cases, work, settings, running, check=partial(check_id_is_free, final), finish=finish)
    return final


@public
def add_soft_labels(
    cases: Iterable[Case],
    dataset: Path,
    *,
    labels: LabelTexts | None = None,
    files: FileOptions | None = None,
    fusion: Fusion | str = "mean",
    priors: Priors | None = None,
    missing_cases: Literal["refuse", "drop"] = "refuse",
    running: Running | None = None,
) -> Path:
    """Add soft labels to a data set in ``nnUNet_raw``; its images and hard labels stay untouched.

    Examples:
        >>> cases = ns.find_cases("images/{case}.nii.gz", raters="raters/{case}_{rater}.nii.gz")
        >>> folder = ns.add_soft_labels(cases, "nnUNet_raw/Dataset603_Plain", fusion="staple")
        >>> ns.SoftDataset(folder).about["fusion"]["method"]
        'staple'

    Args:
        cases: named as in ``imagesTr``; every training case of the data set must be there, unless
            ``missing_cases`` says otherwise.
        dataset: folder ``nnUNet_raw/DatasetXXX_NAME``.
        labels: as on the command line, if the raters' values are not those of the data set.
        files: see `convert`.
        fusion: see `convert`; fewer raters in a case than it needs are an error.
        priors: see there.
        missing_cases: of the data set that are not among ``cases``: refuse, or leave them out of training.
            Their files stay; ``splits_final.json`` leaves them out, and our trainers do. It keeps groups
            (patients) together, of the cases or of an earlier conversion.
        running: number of processes; may replace soft labels that are already there.

    Returns:
        Folder of the data set.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be; nothing is left behind.
    """
    end_if_run_again()
    cases = sorted(cases, key=lambda case: case.name)
    put_back(dataset)
    content = read_dataset_json(dataset)
    cases = with_recorded_groups(dataset, content, cases)
    own, values = labels_of(dataset, content, None if labels is None else as_label_texts(labels))
    how, running, files = Fusion.of(fusion), running or Running(), files or FileOptions()
    overwrite, resume = running.overwrite, running.resume
    check_arguments(cases, how.min_raters, running.num_processes)
    check_changes_labels_alone(how, files)
    ending, work = content["file_ending"], dataset / WORK
    check_takes_soft_labels(dataset, content)
    left_out = check_covers_training(cases, dataset, ending, missing_cases)
    tests = test_cases(dataset, ending)
    groups, before = groups_of(content, cases, tests), content.get("soft_labels") or {}
    splits_file, may_replace = splits_file_of(dataset), overwrite or resume
    splits, notes = folds_of_existing(dataset, content, cases, left_out=left_out, may_replace=may_replace)
    settings = CaseSettings(
        own, files.reading(own, values), tuple(channel_names_of(content)), ending,
        how.method, dict(how.options), how.min_raters, hard_labels=dataset / "labelsTr",
        staple_scope=how.scope, has_anonymous_raters=how.has_anonymous_raters, priors=priors or Priors(),
    )  # fmt: skip
    check_settings(settings, cases)
    if resume and _is_complete(dataset, work, cases, settings):
        if work.exists():
            remove(work)
        write_splits(splits_file, splits)
        return dataset
    is_resumed = resume and (work / "dataset").is_dir()
    if "soft_labels" in content and not overwrite and not is_resumed:
        raise UsageError(f"{dataset}: has soft labels already; add --overwrite to replace them.")

    if tests:
        notes.append(f"{len(tests)} test cases keep the soft labels that they have.")
    for note in notes:
        print(note)

    def finish(records: list[CaseRecord], about: SoftLabels) -> None:
        write_candidates(work / "dataset", records)
        about["dropped_cases"] = left_out
        if groups:
            about["groups"] = {**groups}
        keep_test_records(about, before, tests)
        exchange(work, dataset, EXCHANGED, {**content, "soft_labels": about})
        write_splits(splits_file, splits)

    _run(cases, work, settings, running, check=lambda: None, finish=finish)
    return dataset


def _run(
    cases: Sequence[Case],
    work: Path,
    settings: CaseSettings,
    running: Running,
    *,
    check: Callable[[], None],
    finish: Callable[[list[CaseRecord], SoftLabels], None],
) -> None:
    """Check, estimate, write every case, describe; ``finish`` puts the result in place."""
    with (
        unfinished_folder(work, cases, settings, overwrite=running.overwrite, resume=running.resume),
        naming_all_grids(cases, settings),
    ):
        check()
        command = "convert, lesion-wise" if settings.fusion == LESION_WISE else "convert"
        fitting = processes_for_cases(cases, running.workers.number, settings.labels, command)
        workers = replace(running.workers, number=fitting)
        settings = estimate(cases, work, settings, workers=workers)
        records = run_cases(write_case, cases, work, settings, workers=workers, is_whole=is_whole)
        finish(records, conversion_record(cases, records, settings))


def _is_complete(dataset: Path, work: Path, cases: Sequence[Case], settings: CaseSettings) -> bool:
    """True if the data set holds what is asked for, all finished, made from files with the same content."""
    about = read_dataset_json(dataset).get("soft_labels") or {}
    if (work / "dataset").is_dir() or about.get("request") != request_digest(cases, settings):
        return False
    return about.get("sources") == digest_of_sources([digest_of_case(case) for case in cases])
