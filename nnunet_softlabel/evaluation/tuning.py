"""Choosing a threshold on validation cases, and applying one to probability files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.trained_on import refuse_fold_all
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.consistency import exhaust
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.fitted_on import digests_of_fitted, image_marks
from nnunet_softlabel.evaluation.known_truth import KnownTruth
from nnunet_softlabel.evaluation.records import TunedThresholds
from nnunet_softlabel.evaluation.references import References
from nnunet_softlabel.evaluation.run import Split, select_cases
from nnunet_softlabel.evaluation.truth import Truth
from nnunet_softlabel.formats.encoding import is_member
from nnunet_softlabel.formats.files import check_can_be_made, refuse_another_kind, refuse_existing, write_json
from nnunet_softlabel.formats.predictions import foreground_channels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.metrics.overlap import f_beta
from nnunet_softlabel.processes import for_each_case
from nnunet_softlabel.public import public

CANDIDATES = tuple(round(0.02 * k, 2) for k in range(1, 50))
Against = Literal["consensus", "raters", "truth"]


@public
@dataclass(frozen=True)
class TuningGoal:
    """What a good threshold agrees with.

    >>> TuningGoal("raters").beta
    1.0

    Attributes:
        against: the consensus, the mean over raters, or a known truth.
        truth: where the files of that truth are, as in `evaluate`.
        beta: of F-beta; 1 is Dice, more favours recall.
        split: where the references are, Tr or Ts.
    """

    against: Against = "consensus"
    truth: Path | Truth | None = None
    beta: float = 1.0
    split: Split = "Tr"


@public
def tune_threshold(
    dataset: SoftDataset,
    predictions: Path | Sequence[Path],
    file: Path,
    *,
    goal: TuningGoal | None = None,
    cases: Sequence[str] | None = None,
    calibration: Path | str | None = None,
    num_processes: int = 2,
    overwrite: bool = False,
) -> TunedThresholds:
    """Choose and store the threshold per class with the best mean Dice (or F-beta) over validation cases.

    Give validation cases only, of one fold or of several, and never the cases that are scored later: the file
    names the cases it saw, and `evaluate` refuses them. Classes are tuned one by one, ``p > t``. A case
    without the class counts 1 where nothing is predicted, else 0, which keeps a threshold from falling too
    low.

    >>> found = ns.tune_threshold(501, "predictions", "thresholds.json", num_processes=1)
    >>> list(found["thresholds"]), len(found["cases"])
    (['lesion'], 4)

    Args:
        dataset: holds the references.
        predictions: one or several folders with ``CASE.npz``, ``fold_X/validation`` for instance; cases that
            several models predicted are averaged.
        file: where the result goes; ``thresholds.json`` beside the fold's checkpoint is found by `evaluate`.
        goal: what a good threshold agrees with.
        cases: only these.
        calibration: recalibrates the probabilities first, as in `evaluate`.
        num_processes: spawned workers.
        overwrite: replace the file.

    Returns:
        What is stored: ``thresholds``, the mean score at each candidate, and the cases.

    Raises:
        UsageError: for goals that cannot be, if the file is there, or for the cases of fold all.
        DatasetError: if a prediction or a reference is missing or does not fit, or for a case that its
            network was trained on.
    """
    goal = goal or TuningGoal()
    refuse_existing([file], overwrite=overwrite, advice="choose another place, or pass --overwrite")
    check_can_be_made(file)
    refuse_another_kind(file, "thresholds", "tune-threshold")
    if not 0 < goal.beta < math.inf:
        raise UsageError(f"--beta {goal.beta}: must be positive and finite; 1 is Dice.")
    if goal.against == "truth" and goal.truth is None:
        raise UsageError(
            "--against truth: needs --truth, the folder of its label maps, a pattern or a table; add it."
        )
    if goal.against != "truth" and goal.truth is not None:
        raise UsageError("--truth: belongs to --against truth; add it.")
    predicted = Predictions.find(predictions, file_ending=dataset.file_ending)
    refuse_fold_all(predicted.folders)
    predicted = predicted.with_calibration(calibration, dataset)
    chosen = _cases_to_tune_on(dataset, predicted, split=goal.split, cases=cases)
    predicted.refuse_trained_cases(chosen)
    known = None if goal.truth is None else KnownTruth.find(dataset, goal.truth, chosen)
    fitted_on = digests_of_fitted(predicted.folders_of, chosen, file)
    job = partial(
        _scores_of_candidates,
        dataset=dataset.for_predictions(predicted.folders),
        predictions=predicted,
        goal=goal,
        truth=known,
    )
    num_processes = predicted.processes_that_fit(num_processes, dataset.labels)
    found = list(for_each_case(job, chosen, num_processes, title="tune"))
    mean = np.mean([case.scores for case in found], axis=0)  # (channels, candidates)
    without = np.sum([case.is_without for case in found], axis=0)
    content: TunedThresholds = {
        "thresholds": {
            name: _best(curve) for name, curve in zip(dataset.labels.names, mean, strict=True)
        },
        "score": {
            name: dict(zip(map(str, CANDIDATES), curve.round(6).tolist(), strict=True))
            for name, curve in zip(dataset.labels.names, mean, strict=True)
        },
        "beta": goal.beta,
        "against": goal.against,
        "dataset": dataset.folder.name,
        "cases": chosen,
        "models_averaged": predicted.models,
        "calibration": predicted.recalibrated_by,
        "cases_without": dict(zip(dataset.labels.names, without.tolist(), strict=True)),
        "images": image_marks(dataset, chosen),
        "fitted_on": fitted_on,
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)
    return content


def format_tuned(found: Mapping[str, Any]) -> str:
    """Thresholds with the score before, at 0.5, and after; a warning where the search ends.

    >>> score = {"0.02": 0.9, "0.5": 0.7}
    >>> print(format_tuned({"thresholds": {"a": 0.02}, "score": {"a": score}, "beta": 1.0, "cases": ["x"]}))
    1 case, mean Dice before (at 0.5) and after:
    a: threshold 0.02, 0.7000 -> 0.9000
    Warning: a: the threshold 0.02 lies at the edge of the search, 0.02 to 0.98; probabilities are far from
    shares of raters. Look at them before you use it: calibrate may help.
    """
    cases, beta = len(found["cases"]), found["beta"]
    what = "Dice" if beta == 1 else f"F-beta (beta {beta:g})"
    alone = " of each label alone" if len(found["thresholds"]) > 1 else ""
    lines = [f"{cases} case{'s' * (cases != 1)}, mean {what}{alone} before (at 0.5) and after:"]
    for name, value in found["thresholds"].items():
        score = found["score"][name]
        lines.append(f"{name}: threshold {value:g}, {score['0.5']:.4f} -> {score[str(value)]:.4f}")
    if found.get("cases_without"):
        lines += [
            f"{name}: {count} case{'s' * (count != 1)} without it; such a case counts 1 where nothing is "
            f"predicted, else 0. evaluate leaves out the rightly empty ones."
            for name, count in found["cases_without"].items()
            if count
        ]
    first, last = CANDIDATES[0], CANDIDATES[-1]
    lines += [
        f"Warning: {name}: the threshold {value:g} lies at the edge of the search, {first:g} to {last:g}; "
        f"probabilities are far from shares of raters. Look at them before you use it: calibrate may help."
        for name, value in found["thresholds"].items()
        if value in (first, last)
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class CaseCurves:
    """Of a case: F-beta ``(channels, candidates)``; of each channel whether no reference has it."""

    scores: NDArray[Any]
    is_without: NDArray[Any]


def _cases_to_tune_on(
    dataset: SoftDataset, predictions: Predictions, *, split: str, cases: Sequence[str] | None
) -> list[str]:
    """Predicted cases with a reference; cases asked for must be among them."""
    found, _ = select_cases(dataset, predictions, split=split, cases=None)
    missing = sorted(set(cases or ()).difference(found))
    if missing:
        where = ", ".join(map(str, predictions.folders))
        raise DatasetError(f"Case {missing[0]}: no prediction of it in {where}.")
    return [case for case in found if cases is None or case in set(cases)]


def _scores_of_candidates(
    case: str,
    *,
    dataset: SoftDataset,
    predictions: Predictions,
    goal: TuningGoal,
    truth: KnownTruth | None,
) -> CaseCurves:
    """One case at all candidates."""
    labels = dataset.labels
    known = References.of(dataset, case, split=goal.split)
    hard = known.hard
    exhaust(known.soft())  # checked, not used
    if goal.against == "truth":
        assert truth is not None, "checked before the first case"
        references = [truth.read(case, known.grid).label_map]
    else:
        references = [drawn for _, drawn in known.raters()] if goal.against == "raters" else [hard]
        if not references:
            raise DatasetError(f"Case {case}: no rater's label map is kept; tune against the consensus.")
    channels = foreground_channels(predictions.channels(case, dataset, hard.shape), labels)
    scores = np.empty((len(references), len(labels.names), len(CANDIDATES)))
    is_without = np.ones(len(labels.names), bool)
    for index, (values, p) in enumerate(zip(labels.values.values(), channels, strict=True)):
        for own, reference in zip(scores, references, strict=True):
            mask = None if labels.ignore is None else (reference != labels.ignore) & (hard != labels.ignore)
            member = is_member(reference, values)
            is_without[index] &= not member.any()
            own[index] = [_score(member, p > t, goal.beta, mask) for t in CANDIDATES]
    return CaseCurves(np.asarray(np.mean(scores, axis=0)), is_without)


def _score(
    reference: NDArray[Any], prediction: NDArray[Any], beta: float, mask: NDArray[Any] | None
) -> float:
    score = f_beta(reference, prediction, beta=beta, mask=mask)
    return 1.0 if score != score else score  # both are empty: rightly nothing


def _best(curve: NDArray[Any]) -> float:
    """The best candidate; of equals, the one nearest to 0.5."""
    best = np.flatnonzero(curve >= curve.max() - 1e-9)
    return float(min((CANDIDATES[i] for i in best), key=lambda t: abs(t - 0.5)))
