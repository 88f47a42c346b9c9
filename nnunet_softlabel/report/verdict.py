"""What a comparison says, in words: computed sentences for the head of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nnunet_softlabel.cases.groups import FEWEST_GROUPS
from nnunet_softlabel.evaluation.case_scores import Row
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report.comparison import PairedDifference
from nnunet_softlabel.report.dead import dead_network, dead_trainings
from nnunet_softlabel.report.difference_text import (
    cases_of,
    describe_difference,
    excludes_zero,
    has_too_few,
    units_of,
)
from nnunet_softlabel.report.significance import holm, smallest_rank_p

ALPHA = 0.05
DEFAULT_ITERATIONS = 250_000  # nnU-Net: 1000 epochs of 250
TRIAL_BELOW = 0.1  # of them


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
    found = [
        Sentence("dead", text)
        for name, texts in dead.items()
        for text in (*texts, *dead_trainings(name, rows[name]))
    ]
    if len(rows) > 1:
        found.append(
            Sentence("advice", begin + advice([name for name, texts in dead.items() if not texts], tests))
        )
    if text := trial(iterations or {}):
        found.append(Sentence("trial", text))
    classes = list(dict.fromkeys(test.class_name for test in tests))
    for second in dict.fromkeys(test.second for test in tests):
        family = [t for t in tests if t.second == second and t.p_holm == t.p_holm]
        for name in classes:
            own = [test for test in tests if (test.second, test.class_name) == (second, name)]
            if own:
                where = f"{name}: " if len(classes) > 1 else ""
                found.append(Sentence("trainer", begin + where + trainer_verdict(own, family)))
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
    elif few := _too_few_for_advice(against, tests):
        text = few
    elif against:
        text = f"No trainer is shown to be better than {against[0].baseline}: nothing here speaks against it."
    else:
        text = f"The baseline has not learned: compare {_all(living)} in the table."
    losers = [s for s in against if s.worse and not s.better]
    return text + "".join(f" Not {s.name}: worse {_all(s.worse)}." for s in losers)


def _too_few_for_advice(against: Sequence[_Standing], tests: Sequence[PairedDifference]) -> str:
    """A sentence if no primary test of these trainers has enough patients to decide; else empty."""
    names = {standing.name for standing in against}
    made = [test for test in tests if test.is_primary and test.second in names and test.difference.n]
    if not made or not all(map(has_too_few, made)):
        return ""
    most = max(made, key=lambda test: test.difference.n_groups)
    return f"Too few to say which trainer is better: {units_of(most)}, and {FEWEST_GROUPS} are the least."


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


def trainer_verdict(tests: Sequence[PairedDifference], family: Sequence[PairedDifference]) -> str:
    """What the tests of one trainer and class say against the baseline.

    Args:
        tests: of the trainer and class.
        family: primary tests of the trainer in all classes; Holm corrects for all of them.
    """
    primary = [test for test in tests if test.is_primary]
    over = {cases_of(test) for test in primary if test.difference.n}
    have_one_number = len(over) == 1
    parts = [
        describe_difference(test)
        + (f" over {cases_of(test)}" if test.difference.n and not have_one_number else "")
        for test in primary
    ]
    names = f"{tests[0].second} against {tests[0].first}"
    text = f"Over {over.pop()}, {names}" if have_one_number else names
    text += f": {'; '.join(parts) or 'no primary test'}."
    texts = [text, *_powerless(primary, family, name_metrics=not have_one_number)]
    intervals = [test for test in tests if test.difference.low == test.difference.low]
    if intervals:
        texts.append(f"Of {len(intervals)} intervals, {sum(map(excludes_zero, intervals))} exclude 0.")
    return " ".join(texts)


def _powerless(
    primary: Sequence[PairedDifference], family: Sequence[PairedDifference], *, name_metrics: bool
) -> list[str]:
    """Sentences on primary tests that cannot decide, whatever comes out: too few cases. Each number once."""
    smallest = [smallest_rank_p(test.difference.n_groups) for test in family]
    at_best = {id(test): p for test, p in zip(family, holm(smallest), strict=True)}
    found: dict[str, list[PairedDifference]] = {}
    for test in primary:
        if has_too_few(test) or at_best.get(id(test), 0.0) >= ALPHA:
            found.setdefault(units_of(test), []).append(test)
    sentences = []
    for units, tests in found.items():
        what = f" on {_all([TITLES[test.metric] for test in tests])}" if name_metrics else ""
        can_give = f"the smallest p that they can give is {smallest_rank_p(tests[0].difference.n_groups):.2g}"
        if has_too_few(tests[0]):
            text = (
                f"{units} cannot decide{what}: fewer than {FEWEST_GROUPS} have no interval, and {can_give}."
            )
        else:
            corrected = max(at_best.get(id(test), 0.0) for test in tests)
            what = what or f" {len(family)} tests"
            text = f"{units} cannot decide{what}: {can_give}, and {corrected:.2g} after correction."
        sentences.append(text)
    return sentences
