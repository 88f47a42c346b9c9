"""``convert --dry-run``: everything is read and checked, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnunet_softlabel.arguments import as_label_texts
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.cases.sizes import processes_for_cases
from nnunet_softlabel.conversion.checks import (
    check_arguments,
    check_settings,
    common_ending,
    labels_of,
    labels_of_cases,
)
from nnunet_softlabel.conversion.grids import moves_in_words, naming_all_grids
from nnunet_softlabel.conversion.one_case.describe import look_at_case
from nnunet_softlabel.conversion.prior_settings import Priors
from nnunet_softlabel.conversion.settings import CaseSettings, Fusion
from nnunet_softlabel.conversion.summary import contents_in_words, summary_of_contents
from nnunet_softlabel.formats.dataset_json import read_dataset_json
from nnunet_softlabel.processes import Workers, run_jobs


def preview(
    cases: Iterable[Case],
    *,
    labels: Sequence[str] | Mapping[str, int | Sequence[int]] | None,
    channel_names: Sequence[str],
    files: FileOptions | None = None,
    fusion: Fusion | str = "mean",
    priors: Priors | None = None,
    dataset: Path | None = None,
    workers: Workers | None = None,
) -> tuple[list[str], list[str]]:
    """Read all files of a conversion and say what they hold. Labels are fused by mean; nothing is written.

    Args:
        cases: as for `convert`.
        labels: as for `convert`; None with a data set whose values the raters use.
        channel_names: as for `convert`.
        files: as for `convert`.
        fusion: as for `convert`; what it would refuse is refused here.
        priors: as for `convert`; what it would refuse is refused here.
        dataset: folder of the data set that gets soft labels, or None for a new one.
        workers: that read; None: this process.

    Returns:
        Sentences, and warnings.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be.
    """
    cases = sorted(cases, key=lambda case: case.name)
    workers, how = workers or Workers(), Fusion.of(fusion)
    check_arguments(cases, how.min_raters, workers.number)
    if dataset is None:
        own, values = labels_of_cases(cases, as_label_texts(labels or []))
        ending = common_ending(cases)
    else:
        content = read_dataset_json(dataset)
        own, values = labels_of(dataset, content, None if labels is None else as_label_texts(labels))
        ending = content["file_ending"]
    reading = (files or FileOptions()).reading(own, values)
    asked = CaseSettings(
        own, reading, tuple(channel_names), ending, how.method, dict(how.options),
        staple_scope=how.scope, has_anonymous_raters=how.has_anonymous_raters, priors=priors or Priors(),
    )  # fmt: skip
    check_settings(asked, cases)
    settings = CaseSettings(
        own, reading, tuple(channel_names), ending,
        min_raters=how.min_raters, few_raters=how.few_raters,
    )  # fmt: skip
    with naming_all_grids(cases, settings):
        records = list(
            run_jobs(
                look_at_case,
                [(case, settings) for case in cases],
                processes_for_cases(cases, workers.number, own, "convert"),
                names=[f"Case {case.name}" for case in cases],
                title="Reading",
                show_progress=workers.show_progress,
            )
        )
    kept = [record for record in records if not record.get("is_dropped")]
    moved = {record["case"]: record["moved"] for record in kept if record["moved"]}
    if not any(record["raters"] for record in kept):
        return moves_in_words(moved), []
    lines, warnings = contents_in_words(summary_of_contents(kept))
    return [*moves_in_words(moved), *lines], warnings
