"""What a comparison says, in words: computed sentences for the head of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunet_softlabel.evaluation.case_scores import MODEL, Row
from nnunet_softlabel.evaluation.comparisons import CONSENSUS
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report.comparison import PairedDifference
from nnunet_softlabel.report.significance import Interval, smallest_rank_p

ALPHA = 0.05
DEFAULT_ITERATIONS = 250_000  # nnU-Net: 1000 epochs of 250
TRIAL_BELOW = 0.1  # of them
# marks far too much: all of the object, in less than a tenth of what is marked
COVERED_ABOVE, RIGHT_BELOW = 0.95, 0.1
TINY, MOST_DIGITS = 1e-5, 5  # smaller differences are written as 0


@dataclass(frozen=True)
class Sentence:
    """One sentence of the verdict; ``kind`` is "dead", "advice", "trial" or "trainer"."""

    kind: Literal["dead", "advice", "trial", "trainer"]
    text: str


def verdict(
    rows: dict[str, Sequence[Row]],
    tests: Sequence[PairedDifference],
    *,
    iterations: Mapping[str, int] | None = None,
    to: str = "",
) -> list[Sentence]:
    """The sentences, in the order in which a reader needs them.

    Args:
        rows: trainer -> rows of ``soft_metrics.csv``.
        tests: from `compare`, baseline against each other trainer.
        iterations: trainer -> those of one of its trainings; None if not known.
        to: what all tests measure against, in words, where it is not each metric's own reference.
    """
    begin = f"Measured against {to}: " if to else ""
    dead = {name: dead_network(name, own) for name, own in rows.items()}
    found = [Sentence("dead", text) for texts in dead.values() for text in texts]
    if len(rows) > 1:
        found.append(
            Sentence("advice", begin + advice([name for name, texts in dead.items() if not texts], tests))
        )
    if text := trial(iterations or {}):
        found.append(Sentence("trial", text))
    classes = list(dict.fromkeys(test.class_name for test in tests))
    for second in dict.fromkeys(test.second for test in tests):
        for name in classes:
            own = [test for test in tests if (test.second, test.class_name) == (second, name)]
            if own:
                where = f"{name}: " if len(classes) > 1 else ""
                found.append(Sentence("trainer", begin + where + trainer_verdict(own)))
    return found


def trial(iterations: Mapping[str, int]) -> str:
    """Which trainers had less than a tenth of nnU-Net's iterations; empty if none.

    >>> trial({"nnUNetTrainer": 25_000, "FineTune": 7_500}).partition(". ")[0]
    'This is a trial in part: each training of FineTune had 7,500 iterations'
    """
    names: dict[int, list[str]] = {}
    for name, number in iterations.items():
        if number < TRIAL_BELOW * DEFAULT_ITERATIONS:
            names.setdefault(number, []).append(name)
    if not names:
        return ""
    are_all = sum(map(len, names.values())) == len(iterations)
    if are_all and len(names) == 1:
        text = f"each training had {next(iter(names)):,} iterations"
    else:
        text = "; ".join(f"each training of {_all(own)} had {n:,} iterations" for n, own in names.items())
    return (
        f"This is a trial{'' if are_all else ' in part'}: {text}. "
        f"nnU-Net's default has {DEFAULT_ITERATIONS:,}. Longer trainings may say something else."
    )


def advice(living: Sequence[str], tests: Sequence[PairedDifference]) -> str:
    """Which trainer to use, and why, as far as the primary tests say.

    Args:
        living: trainers that have learned, the baseline first.
        tests: from `compare`, baseline against each other trainer.
    """
    if not living:
        return "No trainer here can be used."
    if len(living) == 1:
        return f"Use {living[0]}: the only trainer here that has learned."
    found = [_Standing.of(name, tests) for name in living]
    against = [standing for standing in found if standing.baseline in living]
    winners = [s for s in against if s.better and not s.worse and not s.seems_worse]
    if winners:
        text = _use(winners)
    elif mixed := [s for s in against if s.better]:
        text = _choice(mixed)
    elif hints := [s for s in against if s.hints and not s.worse]:
        best = max(hints, key=lambda standing: len(standing.hints))
        text = (
            f"No test decides. {best.name} looks better in {_all(best.hints)} than {best.baseline}: the "
            f"interval excludes 0.{best.doubt} More cases would tell."
        )
    elif against:
        text = f"No trainer is shown to be better than {against[0].baseline}: nothing here speaks against it."
    else:
        text = f"The baseline has not learned: compare {_all(living)} in the table."
    losers = [s for s in against if s.worse and not s.better]
    return text + "".join(f" Not {s.name}: worse {_all(s.worse)}." for s in losers)


def _use(winners: Sequence[_Standing]) -> str:
    """Those that are better in most; no order where the tests give none."""
    most = max(len(standing.better) for standing in winners)
    best = [standing for standing in winners if len(standing.better) == most]
    names, first = " or ".join(standing.name for standing in best), best[0]
    if all(standing.better == first.better for standing in best):
        text = f"Use {names}: better {_all(first.better)} than {first.baseline}, and worse in nothing tested."
        return text + "".join(standing.doubt for standing in best)
    each = "; ".join(f"{s.name} has better {_all(s.better)} than {s.baseline}" for s in best)
    text = f"Use {names}: {each}. None of them is worse in anything tested: choose by what you need."
    return text + "".join(standing.doubt for standing in best)


def _choice(mixed: Sequence[_Standing]) -> str:
    """Those that gain in something and lose in something; the same words only once."""
    names: dict[str, list[str]] = {}
    for standing in mixed:
        names.setdefault(standing.both_ways, []).append(standing.name)
    parts = []
    for text, own in names.items():
        comma = ", " if any("," in name for name in own) else " "
        parts.append(f"{f'{comma}and '.join(own)}{comma}{'is' if len(own) == 1 else 'are'} {text}")
    return f"{'. '.join(parts)}: choose by what you need."


@dataclass(frozen=True)
class _Standing:
    """In which primary metrics a trainer is better, worse, seems better, seems worse; in which of all, worse.

    What only seems so has an interval that excludes 0, and no test that stands.
    """

    name: str
    baseline: str
    better: list[str]
    worse: list[str]
    hints: list[str]
    seems_worse: list[str]
    doubts: list[str]

    @property
    def both_ways(self) -> str:
        """What is gained and what it costs, by a trainer that is better in something and not in all."""
        worse = f" and worse in {_all(self.worse)}" if self.worse else ""
        text = f"better in {_all(self.better)}{worse} than {self.baseline}"
        if not self.seems_worse:
            return text
        return (
            f"{text}, and by the interval worse in {_all(self.seems_worse)}, which the test does not decide"
        )

    @property
    def doubt(self) -> str:
        """A sentence on metrics of any kind that seem worse; empty without one."""
        if not self.doubts:
            return ""
        return f" By its intervals alone, {self.name} is worse in {_all(self.doubts)}."

    @classmethod
    def of(cls, name: str, tests: Sequence[PairedDifference]) -> _Standing:
        all_own = [test for test in tests if test.second == name]
        own = [test for test in all_own if test.is_primary]
        unsure = [test for test in all_own if not test.is_significant() and excludes_zero(test)]
        several = len({test.class_name for test in tests}) > 1

        def titles(chosen: Iterable[PairedDifference]) -> list[str]:
            return [f"{TITLES[t.metric]}{f' of {t.class_name}' if several else ''}" for t in chosen]

        return cls(
            name,
            own[0].first if own else "",
            titles(t for t in own if t.is_significant() and t.better == name),
            titles(t for t in own if t.is_significant() and t.better == t.first),
            titles(t for t in unsure if t.is_primary and t.better == name),
            titles(t for t in unsure if t.is_primary and t.better == t.first),
            titles(t for t in unsure if t.better == t.first),
        )


def _all(titles: Sequence[str]) -> str:
    return " and ".join([", ".join(titles[:-1]), titles[-1]]) if len(titles) > 1 else titles[0]


def dead_network(name: str, rows: Iterable[Row]) -> list[str]:
    """Sentences on classes of which a trainer marks nothing, or far too much, in most cases."""
    sentences = []
    own = [row for row in rows if (row["reference"], row["prediction"]) == (CONSENSUS, MODEL)]
    for class_name in dict.fromkeys(str(row["class"]) for row in own):
        scores = [
            (float(row.get("precision", np.nan)), float(row.get("recall", np.nan)))
            for row in own
            if row["class"] == class_name
        ]
        scores = [(precision, recall) for precision, recall in scores if recall == recall]
        nothing = sum(precision != precision for precision, _ in scores)
        everything = sum(p < RIGHT_BELOW and recall > COVERED_ABOVE for p, recall in scores)
        if nothing > len(scores) / 2:
            sentences.append(
                f"{name} marks no {class_name} in {nothing} of {len(scores)} cases that have one: "
                f"this network has not learned, or has collapsed. Do not use it."
            )
        elif everything > len(scores) / 2:
            sentences.append(
                f"{name} marks far too much {class_name} in {everything} of {len(scores)} cases: the whole "
                f"object and over nine times as much around it. Do not use this network at this threshold."
            )
    return sentences


def trainer_verdict(tests: Sequence[PairedDifference]) -> str:
    """What the tests of one trainer and class say against the baseline."""
    primary = [test for test in tests if test.is_primary]
    first = max(tests, key=lambda test: test.difference.n)
    n, patients = first.difference.n, first.difference.n_groups
    of = f" of {patients} patients" if patients < n else ""
    parts = [describe_difference(test) for test in primary]
    text = f"Over {n} cases{of}, {first.second} against {first.first}: {'; '.join(parts)}."
    family = max((test.family for test in tests), default=0)
    smallest = smallest_rank_p(patients)
    if family and smallest * family >= ALPHA:
        text += (
            f" {patients} {'patients' if of else 'cases'} cannot decide {family} tests: the smallest p that "
            f"they can give is {smallest:.2g}, and {smallest * family:.2g} after correction."
        )
    intervals = [test for test in tests if test.difference.low == test.difference.low]
    outside = sum(excludes_zero(test) for test in intervals)
    return text + f" Of {len(intervals)} intervals, {outside} exclude 0."


def describe_difference(test: PairedDifference) -> str:
    """One metric: which way, how far, how sure. Absence of proof is never called equality."""
    title, interval = TITLES[test.metric], test.difference
    if interval.mean != interval.mean:
        return f"{title} cannot be compared ({test.reason or 'no case has both'})"
    better, _, worse = test.wins
    numbers = _with_range(interval)
    side = {True: "better", False: "worse"}[test.better == test.second] if test.better else "different"
    if test.is_significant():
        return f"{side} {title} ({numbers}; clear)"
    if excludes_zero(test):
        count = {"better": better, "worse": worse}.get(side, max(better, worse))
        counted = f"{side} in {count} of {sum(test.wins)} cases"
        return f"{side} {title} ({numbers}; {counted}, not decided by the test)"
    if test.margin is not None and max(abs(interval.low), abs(interval.high)) < test.margin:
        return f"the same {title} within the margin of {test.margin:g} ({numbers})"
    return f"no clear difference in {title} ({numbers})"


def excludes_zero(test: PairedDifference) -> bool:
    """Whether the interval of the difference excludes 0."""
    return test.difference.low > 0 or test.difference.high < 0


def _with_range(interval: Interval) -> str:
    """Mean and ends with three digits, or more where an end would look like 0 and is not."""
    values = (interval.mean, interval.low, interval.high)
    smallest = min((abs(v) for v in values if v == v and abs(v) > TINY), default=1.0)
    digits = next((d for d in (3, 4) if round(smallest, d)), MOST_DIGITS)
    mean, low, high = (signed(value, digits) for value in values)
    return f"{mean}, {low} to {high}"


def signed(value: float, digits: int = 3) -> str:
    """Fixed digits after the point with a sign; 0 has none."""
    if value != value:
        return "?"
    text = f"{value:+.{digits}f}"
    return "0" if float(text) == 0 else text
