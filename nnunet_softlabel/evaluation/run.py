"""A folder of predicted probabilities against soft labels, consensus and raters: JSON, CSV and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation import tables
from nnunet_softlabel.evaluation.case_scores import CaseData, CaseScores, score_case
from nnunet_softlabel.evaluation.digests import digest_of_scored
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.known_truth import KnownTruth
from nnunet_softlabel.evaluation.prediction_stream import PredictionStream
from nnunet_softlabel.evaluation.records import ParametersRecord, Summary
from nnunet_softlabel.evaluation.references import References
from nnunet_softlabel.evaluation.thresholds import FILE_NAME, TUNED, Threshold, choose_threshold
from nnunet_softlabel.evaluation.tolerance import inter_rater_distance
from nnunet_softlabel.evaluation.truth import Truth
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.metrics.registry import Parameters
from nnunet_softlabel.processes import for_each_case
from nnunet_softlabel.public import public

Split = Literal["Tr", "Ts"]


@public
@dataclass(frozen=True)
class Scoring:
    """What is asked of predictions.

    >>> Scoring(split="Ts").threshold
    '0.5'

    Attributes:
        split: where the references are, Tr or Ts.
        cases: only these.
        threshold: a number, ``tuned`` or ``rater-corrected``; see `thresholds.decide`.
        threshold_file: of a tuned threshold; by default ``thresholds.json`` in the folder of the predictions
            or above it, which is beside the model for a validation folder.
        calibration: file that recalibrates the probabilities first; cases that it has seen get the map that
            has not seen them. `ensemble.SEARCHED` looks for ``calibration.json`` beside the predictions.
        truth: of a known truth, as one more reference; a folder alone holds label maps ``CASE<ending>``.
        parameters: of the metrics.
        with_ceiling: score the raters among themselves too; the same for every model of a data set.
    """

    split: Split = "Tr"
    cases: Sequence[str] | None = None
    threshold: str | float = "0.5"
    threshold_file: Path | None = None
    calibration: Path | str | None = None
    truth: Path | Truth | None = None
    parameters: Parameters = field(default_factory=Parameters)
    with_ceiling: bool = True


@public
def evaluate(
    dataset: SoftDataset,
    predictions: Path | Sequence[Path],
    output: Path,
    *,
    scoring: Scoring | None = None,
    num_processes: int = 2,
    overwrite: bool = False,
) -> Summary:
    """Score nnU-Net's probabilities; also those of a trainer's ``fold_X/validation``, with split Tr.

    Examples:
        >>> scoring = ns.Scoring(threshold=0.4)
        >>> summary = ns.evaluate(501, "predictions", "scores", scoring=scoring, num_processes=1)
        >>> summary["threshold"]["values"], sorted(path.name for path in Path("scores").iterdir())
        ({'lesion': 0.4}, ['soft_metrics.csv', 'soft_summary.json'])

    Args:
        dataset: holds the references.
        predictions: nnU-Net's output with ``CASE.npz``; cases that the split does not know are listed, not
            scored. Several folders: of folds, or of models, whose probabilities are averaged.
        output: folder for ``soft_summary.json`` and ``soft_metrics.csv``; nothing is written on an error.
        scoring: which cases, the threshold, a recalibration, a known truth.
        num_processes: spawned workers; 1 works in this process.
        overwrite: replace earlier results.

    Returns:
        The content of ``soft_summary.json``.

    Raises:
        DatasetError: if a prediction or a reference is missing or does not fit.
        UsageError: for a wrong threshold or split, existing results, or a threshold tuned on these cases.
    """
    with staged(output, (tables.METRICS_FILE, tables.SUMMARY_FILE), overwrite=overwrite) as new:
        scores, summary = score_folder(
            dataset, predictions, scoring or Scoring(), num_processes=num_processes
        )
        tables.write_results(new, scores, summary)
    return summary


def score_folder(
    dataset: SoftDataset, predictions: Path | Sequence[Path], scoring: Scoring, *, num_processes: int
) -> tuple[list[CaseScores], Summary]:
    """What `evaluate` writes: the scores of every case, and the summary."""
    split, truth, parameters = scoring.split, scoring.truth, scoring.parameters
    found = Predictions.find(predictions, file_ending=dataset.file_ending)
    found = found.with_calibration(scoring.calibration, dataset)
    chosen, unknown = select_cases(dataset, found, split=split, cases=scoring.cases)
    found.refuse_trained_cases(chosen)
    raters = len(dataset.rater_files(chosen[0], split))
    num_processes = found.processes_that_fit(num_processes, dataset.labels, command="evaluate", raters=raters)
    threshold_file = scoring.threshold_file
    if scoring.threshold == TUNED and threshold_file is None:
        threshold_file = _threshold_file(found)
    rule = choose_threshold(scoring.threshold, dataset, threshold_file=threshold_file)
    refuse_leak(rule, chosen, dataset)
    refuse_other_calibration(rule, found)
    dataset = dataset.for_predictions(found.folders)
    known = None if truth is None else KnownTruth.find(dataset, truth, chosen)
    digest = digest_of_scored(dataset, found, chosen, split=split, truth=truth)
    tolerance_from = "given"
    if parameters.tolerance_mm is None:
        tolerance, tolerance_from = inter_rater_distance(dataset, split=split, num_processes=num_processes)
        parameters = replace(parameters, tolerance_mm=tolerance)
    job = partial(
        score_files,
        dataset=dataset,
        predictions=found,
        scoring=replace(scoring, parameters=parameters),
        threshold=rule,
        truth=known,
    )
    scores = list(for_each_case(job, chosen, num_processes, title="evaluate"))
    summary: Summary = {
        **tables.summarise(scores, labels=dataset.labels),
        "dataset": dataset.folder.name,
        "split": split,
        "predictions": str(predictions) if isinstance(predictions, Path) else [str(p) for p in predictions],
        "models_averaged": found.models,
        "calibration": None if found.calibration is None else found.calibration.about,
        "not_evaluated": unknown,
        "not_predicted": sorted(set(dataset.cases(split)).difference(chosen)) if split == "Ts" else [],
        "threshold": rule.to_json(),
        "parameters": cast(ParametersRecord, {**asdict(parameters), "tolerance_from": tolerance_from}),
        "truth": None if truth is None else str(truth),
        "truth_moved": {score.case: dict(score.truth_moved) for score in scores if score.truth_moved},
        "digest": digest,
        "versions": tables.versions(),
    }
    return scores, summary


def _threshold_file(predictions: Predictions) -> Path:
    """The tuned threshold in a folder of the predictions, or beside its model."""
    found = []
    for folder in predictions.folders:
        places = (folder / FILE_NAME, folder.parent / FILE_NAME)
        found.append(next((path for path in places if path.is_file()), places[-1]))
    if len(set(found)) > 1:
        raise UsageError(
            f"--threshold {TUNED}: the folders of -i have thresholds of their own ({found[0]}, {found[1]}, "
            f"...); name one with --threshold-file."
        )
    return found[0]


def select_cases(
    dataset: SoftDataset, predictions: Predictions, *, split: str, cases: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Cases that have a prediction and a reference, and predicted ones that the split does not know.

    Raises:
        DatasetError: if there are none, or if one asked for by name is missing.
        UsageError: for another split.
    """
    if split not in ("Tr", "Ts"):
        raise UsageError(f"--split {split}: give Tr or Ts.")
    known = set(dataset.cases(split))
    predicted = predictions.cases
    where = ", ".join(str(folder) for folder in predictions.folders)
    for case in cases or ():
        if case not in predicted:
            raise DatasetError(f"Case {case}: {where} holds no {case}.npz; predict it, or leave it out.")
        if case not in known:
            raise DatasetError(f"Case {case}: {dataset.folder} has no reference for it in split {split}.")
    wanted = predicted if cases is None else sorted(set(cases))
    chosen = [case for case in wanted if case in known]
    if not chosen:
        other = "Ts" if split == "Tr" else "Tr"
        raise DatasetError(
            f"{where}: none of its {len(predicted)} cases has a soft label in split {split} of "
            f"{dataset.folder.name}; is it --split {other}?"
        )
    return chosen, [case for case in wanted if case not in known]


def refuse_leak(threshold: Threshold, cases: Sequence[str], dataset: SoftDataset) -> None:
    """Refuse to judge a tuned threshold on the cases it was tuned on."""
    seen = threshold.origin.seen(sorted(set(threshold.tuned_on).intersection(cases)), dataset)
    if seen:
        raise UsageError(
            f"--threshold tuned: {len(seen)} of these cases ({seen[0]}, ...) chose it, so the scores "
            f"would flatter it; tune on other cases, or evaluate others."
        )


def refuse_other_calibration(threshold: Threshold, predictions: Predictions) -> None:
    """Refuse a threshold that was tuned on other probabilities: raw ones, or recalibrated ones."""
    used = predictions.recalibrated_by
    if threshold.choice == TUNED and threshold.calibration != used:
        raise UsageError(
            f"--threshold tuned: it was tuned on {_kind(threshold.calibration)}, these are {_kind(used)}; "
            f"tune it again with the same --calibration."
        )


def _kind(calibration: str | None) -> str:
    if calibration is None:
        return "the network's own probabilities"
    return f"probabilities recalibrated with the calibration {calibration}"


def score_files(
    case: str,
    *,
    dataset: SoftDataset,
    predictions: Predictions,
    scoring: Scoring,
    threshold: Threshold,
    truth: KnownTruth | None = None,
) -> CaseScores:
    """Read one case and score it."""
    references = References.of(dataset, case, split=scoring.split)
    shape = references.hard.shape
    prediction = PredictionStream(predictions, case, dataset, shape, threshold=threshold)
    data = CaseData(
        case=case,
        group=str(dataset.about.get("groups", {}).get(case, "")),
        labels=dataset.labels,
        soft=references.soft(),
        hard=references.hard,
        votes=VotePatterns.of(references.raters(), dataset.labels, shape),
        spacing_mm=references.grid.spacing_of_axes_mm,
        probabilities=prediction.channels(),
        decision=prediction.decision,
        truth=None if truth is None else truth.read(case, references.grid),
    )
    return score_case(data, scoring.parameters, with_ceiling=scoring.with_ceiling)
