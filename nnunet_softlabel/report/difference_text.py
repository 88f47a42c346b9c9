"""One difference in words: which way, how far, how sure, over how many cases."""

from __future__ import annotations

from nnunet_softlabel.cases.groups import FEWEST_GROUPS
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report.comparison import PairedDifference
from nnunet_softlabel.report.significance import Interval

TINY, MOST_DIGITS = 1e-5, 5  # smaller differences are written as 0


def describe_difference(test: PairedDifference) -> str:
    """One metric: which way, how far, how sure. Absence of proof is never called equality."""
    title, interval = TITLES[test.metric], test.difference
    if interval.mean != interval.mean:
        return f"{title} cannot be compared ({test.reason or 'no case has both'})"
    numbers = _with_range(interval)
    if has_too_few(test):
        return f"{title} {numbers}"
    better, _, worse = test.wins
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


def has_too_few(test: PairedDifference) -> bool:
    """Whether the patients (or cases) are fewer than any test can decide with."""
    return 0 < test.difference.n_groups < FEWEST_GROUPS


def cases_of(test: PairedDifference) -> str:
    """How many cases a test is over, and of how many patients where these are fewer."""
    n, patients = test.difference.n, test.difference.n_groups
    of = f" of {_number_of(patients, 'patient')}" if patients < n else ""
    return _number_of(n, "case") + of


def units_of(test: PairedDifference) -> str:
    """How many independent units a test has: patients, or cases."""
    n, groups = test.difference.n, test.difference.n_groups
    return _number_of(groups, "patient" if groups < n else "case")


def _number_of(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _with_range(interval: Interval) -> str:
    """Mean and ends with three digits, or more where one would look like 0 and is not; no ends, if none."""
    values = [v for v in (interval.mean, interval.low, interval.high) if v == v]
    smallest = min((abs(v) for v in values if abs(v) > TINY), default=1.0)
    digits = next((d for d in (3, 4) if round(smallest, d)), MOST_DIGITS)
    mean, *ends = (signed(value, digits) for value in values)
    return f"{mean}, {' to '.join(ends)}" if ends else mean


def signed(value: float, digits: int = 3) -> str:
    """Fixed digits after the point with a sign; 0 has none."""
    if value != value:
        return "?"
    text = f"{value:+.{digits}f}"
    return "0" if float(text) == 0 else text
