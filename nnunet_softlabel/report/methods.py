"""What was done, in sentences that can be pasted into a paper, and in a line for the head of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_softlabel.cases.groups import FEWEST_GROUPS
from nnunet_softlabel.evaluation.case_scores import RATER
from nnunet_softlabel.evaluation.comparisons import CONSENSUS, RATERS, SOFT, TRUTH
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report.comparison import PairedDifference, home_reference
from nnunet_softlabel.report.runs import RunResult
from nnunet_softlabel.report.significance import RESAMPLES, T_BELOW

REFERENCES = {
    CONSENSUS: "the consensus of the raters",
    SOFT: "the soft label",
    RATERS: "all raters",
    TRUTH: "the known truth",
}


def facts(plan: Mapping[str, Any], runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Name and value of what a reader must know of the budget and the settings, what is known."""
    found: list[tuple[str, str]] = []
    numbers = sorted({len(run.cases) for run in runs})
    found.append(("cases", " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))))
    if budget := "; ".join(f"{who}: {what}" if who else what for who, what in _budgets(plan)):
        found.append(("training", budget))
    found += [(key, str(plan[key])) for key in ("configuration", "plans", "device") if plan.get(key)]
    folds = sorted({str(fold) for run in runs for fold in run.settings.get("folds", ())})
    if folds:
        found.append(("folds", ", ".join(folds)))
    thresholds = list(dict.fromkeys(run.threshold for run in runs))
    found.append(("threshold", thresholds[0] if len(thresholds) == 1 else "see the table of trainings"))
    return found


def _budgets(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Trainers and what each training of theirs had; one entry without a name where all had the same."""
    epochs, iterations = plan.get("epochs"), plan.get("iterations per epoch")
    if not (epochs and iterations):
        return []
    names = next((list(each) for each in (epochs, iterations) if isinstance(each, Mapping)), [""])
    of_each: dict[str, list[str]] = {}
    for name in names:
        own = [each[name] if isinstance(each, Mapping) else each for each in (epochs, iterations)]
        numbers = [" or ".join(map(str, n)) if isinstance(n, list) else str(n) for n in own]
        of_each.setdefault(f"{numbers[0]} epochs of {numbers[1]} iterations", []).append(name)
    return [(" and ".join(names), budget) for budget, names in of_each.items()]


def methods_text(
    runs: Sequence[RunResult],
    comparisons: Sequence[PairedDifference],
    metrics: Sequence[str],
    plan: Mapping[str, Any],
    *,
    versions: Mapping[str, str],
) -> str:
    """The methods of the page. Says only what the page knows; settings that are not known are left out.

    Args:
        runs: trainers, the baseline first.
        comparisons: tests of the page.
        metrics: of the table.
        plan: settings that all trainers share.
        versions: package -> version.
    """
    sentences = [*_training(runs, plan), *_scoring(runs, metrics), *_statistics(runs, comparisons)]
    return " ".join([*sentences, _software(versions)])


def _training(runs: Sequence[RunResult], plan: Mapping[str, Any]) -> list[str]:
    names = ", ".join(run.name for run in runs)
    how = [f"configuration {plan['configuration']}"] if plan.get("configuration") else []
    how += [f"plans {plan['plans']}"] if plan.get("plans") else []
    with_what = f" ({'; '.join(how)})" if how else ""
    sentences = [f"Networks were trained with nnU-Net v2{with_what} and the trainers {names}."]
    device = f" on {plan['device']}" if plan.get("device") else ""
    for who, budget in _budgets(plan):
        sentences.append(f"Each training{f' of {who}' if who else ''} had {budget}{device}.")
    fusion = plan.get("fusion")
    if fusion and fusion != "null":
        sentences.append(f"Soft labels were made from the raters by this fusion: {_in_words(fusion)}.")
    return sentences


def _in_words(fusion: str) -> str:
    """What a data set records of its fusion, without the brackets of JSON; found rates are no method."""
    try:
        about = json.loads(fusion)
    except ValueError:
        return fusion
    if not isinstance(about, dict):
        return fusion
    return "; ".join(
        f"{key.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in about.items()
        if value is not None and not isinstance(value, dict | list)
    )


def _scoring(runs: Sequence[RunResult], metrics: Sequence[str]) -> list[str]:
    by_reference: dict[str, list[str]] = {}
    for metric in metrics:
        by_reference.setdefault(home_reference(metric), []).append(TITLES[metric])
    scored = [f"{', '.join(titles)} against {REFERENCES[name]}" for name, titles in by_reference.items()]
    thresholds = "; ".join(f"{run.name} {run.threshold}" for run in runs)
    sentences = [
        f"Predicted probabilities of {len(runs[0].cases)} cases were scored: {'; '.join(scored)}.",
        f"Masks were cut at the thresholds {thresholds}.",
        "Cases in which a metric is undefined were left out of its mean.",
    ]
    if any(row["prediction"] == RATER for row in runs[0].rows):
        sentences.append("Raters were scored in the same way, each against a reference without that rater.")
    return sentences


def _statistics(runs: Sequence[RunResult], comparisons: Sequence[PairedDifference]) -> list[str]:
    sentences = [
        f"Means and differences over at least {T_BELOW} patients have 95 % BCa bootstrap intervals; patients "
        f"were resampled, {RESAMPLES:,} times for differences. Over {FEWEST_GROUPS} to {T_BELOW - 1} "
        f"patients they have 95 % t intervals, over fewer none. A case of no known patient counts as one."
    ]
    if not comparisons:
        return sentences
    primary = list(dict.fromkeys(TITLES[test.metric] for test in comparisons if test.is_primary))
    family = max(test.family for test in comparisons)
    sentences.append(f"Differences to {comparisons[0].first} are paired by case.")
    if primary:
        sentences.append(
            f"{', '.join(primary)} were tested with Wilcoxon's signed rank test on the means of patients, "
            f"with Holm's correction over {family} tests; all other metrics are descriptive."
        )
    return sentences


def _software(versions: Mapping[str, str]) -> str:
    return f"Software: {', '.join(f'{name} {version}' for name, version in versions.items())}."
