"""``convert --dry-run``: everything is read and checked, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from nnunet_softlabel.arguments import as_label_texts
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.cases.sizes import processes_for_cases
from nnunet_softlabel.conversion.checks import (
    check_arguments,
    check_covers_training,
    check_settings,
    common_ending,
    labels_of,
    labels_of_cases,
)
from nnunet_softlabel.conversion.estimates import estimate
from nnunet_softlabel.conversion.folds import folds_of_existing, folds_of_new, kept_cases
from nnunet_softlabel.conversion.foreign import check_holds_own_files_only
from nnunet_softlabel.conversion.grids import moves_in_words, naming_all_grids
from nnunet_softlabel.conversion.kept import groups_of, test_cases, with_recorded_groups
from nnunet_softlabel.conversion.one_case.look import look_at_case
from nnunet_softlabel.conversion.prior_settings import Priors
from nnunet_softlabel.conversion.settings import CaseSettings, Fusion, Running
from nnunet_softlabel.conversion.summary import contents_in_words, summary_of_contents
from nnunet_softlabel.formats.dataset_json import read_dataset_json
from nnunet_softlabel.processes import run_jobs


@dataclass(frozen=True)
class Target:
    """The data set that a conversion would make, or add soft labels to.

    Attributes:
        folder: in ``nnUNet_raw``.
        is_new: it is to be made.
        missing_cases: see `add_soft_labels`.
    """

    folder: Path
    is_new: bool = True
    missing_cases: Literal["refuse", "drop"] = "refuse"


def preview(
    cases: Iterable[Case],
    target: Target,
    *,
    labels: Sequence[str] | Mapping[str, int | Sequence[int]] | None,
    channel_names: Sequence[str],
    files: FileOptions | None = None,
    fusion: Fusion | str = "mean",
    priors: Priors | None = None,
    running: Running | None = None,
) -> tuple[list[str], list[str]]:
    """Do all of a conversion but the writing, and say what the files hold.

    Args:
        cases: as for `convert`.
        target: the data set.
        labels: as for `convert`; None with a data set whose values the raters use.
        channel_names: as for `convert`.
        files: as for `convert`.
        fusion: as for `convert`.
        priors: as for `convert`.
        running: as for `convert`.

    Returns:
        Sentences, and warnings.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be.
    """
    cases = sorted(cases, key=lambda case: case.name)
    running, how, files = running or Running(), Fusion.of(fusion), files or FileOptions()
    check_arguments(cases, how.min_raters, running.num_processes)
    # where something is there already, a warning says that the conversion will ask for --overwrite
    if target.is_new:
        own, values = labels_of_cases(cases, as_label_texts(labels or []))
        ending = common_ending(cases)
    else:
        content = read_dataset_json(target.folder)
        cases = with_recorded_groups(target.folder, content, cases)
        own, values = labels_of(target.folder, content, None if labels is None else as_label_texts(labels))
        ending = content["file_ending"]
        groups_of(content, cases, test_cases(target.folder, ending))
        left_out = check_covers_training(cases, target.folder, ending, target.missing_cases)
    settings = CaseSettings(
        own, files.reading(own, values), tuple(channel_names), ending, how.method, dict(how.options),
        how.min_raters, how.few_raters, None if target.is_new else target.folder / "labelsTr",
        how.scope, how.has_anonymous_raters, priors or Priors(),
    )  # fmt: skip
    check_settings(settings, cases)
    may_replace = running.overwrite or running.resume
    if target.is_new:
        kept = kept_cases(cases, settings)
        if target.folder.exists() and may_replace:
            check_holds_own_files_only(target.folder)
        _, notes = folds_of_new(target.folder, kept, may_replace=may_replace or target.folder.exists())
    else:
        is_there = "soft_labels" in content
        _, notes = folds_of_existing(
            target.folder, content, cases, left_out=left_out, may_replace=may_replace or is_there
        )
    with naming_all_grids(cases, settings), TemporaryDirectory() as work:
        settings = estimate(cases, Path(work), settings, workers=running.workers)
        records = list(
            run_jobs(
                look_at_case,
                [(case, settings) for case in cases],
                processes_for_cases(cases, running.num_processes, own, "convert"),
                names=[f"Case {case.name}" for case in cases],
                title="Reading",
                show_progress=running.show_progress,
            )
        )
    kept_records = [record for record in records if not record.get("is_dropped")]
    moved = {record["case"]: record["moved"] for record in kept_records if record["moved"]}
    if not any(record["raters"] for record in kept_records):
        return [*notes, *moves_in_words(moved)], []
    lines, warnings = contents_in_words(summary_of_contents(kept_records))
    return [*notes, *moves_in_words(moved), *lines], warnings
