"""Numbers of studies: selection of rows, t intervals over seeds, mean ranks, Markdown, tables.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from nnunet_softlabel.formats.files import write_text

Rows = Sequence[Mapping[str, str]]


def select(rows: Rows, **wanted: str) -> list[Mapping[str, str]]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def values(rows: Rows, metric: str) -> np.ndarray:
    """A column as floats; an empty entry is NaN."""
    return np.array([float(row[metric] or "nan") for row in rows])


def by_seed(rows: Rows, metric: str) -> dict[str, float]:
    """Seed -> mean of the metric over that seed's rows."""
    seeds = dict.fromkeys(row["seed"] for row in rows)
    return {seed: float(np.mean(values(select(rows, seed=seed), metric))) for seed in seeds}


def mean_and_interval(numbers: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean with the t interval of that level; the interval is NaN for fewer than two numbers."""
    array = np.asarray([x for x in numbers if not np.isnan(x)])
    if len(array) < 2:
        return (float(array.mean()) if len(array) else float("nan"), float("nan"), float("nan"))
    half = stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean()), float(array.mean() - half), float(array.mean() + half)


def paired(first: Rows, second: Rows, metric: str, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and interval of second minus first, paired by seed."""
    one, two = by_seed(first, metric), by_seed(second, metric)
    return mean_and_interval([two[seed] - one[seed] for seed in one if seed in two], level)


def difference_text(found: tuple[float, float, float], digits: int = 3, scale: float = 1) -> str:
    """``+0.123 (+0.1 to +0.2)``, with a star where the interval leaves out 0, or ``+0.123 (no interval)``."""
    mean, low, high = (scale * x for x in found)
    if np.isnan(low):  # fewer than two numbers
        return f"{mean:+.{digits}f} (no interval)"
    star = " *" if low > 0 or high < 0 else ""
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f}){star}"


def mean_text(numbers: np.ndarray, digits: int = 3) -> str:
    """The mean of what is defined; a dash for nothing."""
    defined = numbers[~np.isnan(numbers)]
    return f"{defined.mean():.{digits}f}" if len(defined) else "-"


def ranks(table: np.ndarray, *, higher_is_better: bool) -> np.ndarray:
    """Mean rank of each row over the columns, 1 is best, ties shared; NaN ranks last."""
    filled = np.where(np.isnan(table), -np.inf if higher_is_better else np.inf, table)
    return np.asarray(stats.rankdata(-filled if higher_is_better else filled, axis=0).mean(axis=1))


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every line must have as many cells as its head."""
    lines = list(lines)
    assert all(len(line) == len(head) for line in lines), "a line is longer or shorter than the head"
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def write_tables(page: Path, parts: Mapping[str, str]) -> None:
    """Write the whole tables.md of a study: a heading for every part, named in ``parts``, and its text."""
    study = page.parent.name
    head = (
        f"# Tables of the study `{study}`\n\nEvery number of the study, made from its CSV by "
        f"`python -m docs.studies.{study} --tables`. Edit nothing here. "
        f"What they say is in [README.md](README.md), how they came about in [DESIGN.md](DESIGN.md)."
    )
    texts = [f"## {title}\n\n{text.strip()}" for title, text in parts.items()]
    write_text(page, "\n\n".join([head, *texts]) + "\n")
