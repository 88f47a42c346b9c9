"""What a refinement found: candidates in the order of doubt, rates with intervals, what an expert said."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Adjudication
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import check_is_no_pipe, write_csv
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.detection import bootstrapped_rates
from nnunet_softlabel.fusion.detection_model import DetectionModel

COLUMNS = ("case", "label", "candidate", "z", "y", "x", "marked_by", "score", "posterior", "real")
YES, NO = ("yes", "1", "true", "real"), ("no", "0", "false", "not")
DRAWS = 100
LISTED_CASES = 10


@dataclass(frozen=True)
class JudgedCandidate:
    """A candidate, where it is, and how it was judged.

    Attributes:
        case: its name.
        label: name of the class or region.
        number: within case and label, from 1.
        candidate: what is known of it.
        posterior: probability to be a lesion; None: it keeps the mean.
        adjudicated: what an expert said, or None.
    """

    case: str
    label: str
    number: int
    candidate: Candidate
    posterior: float | None
    adjudicated: bool | None = None

    @property
    def doubt(self) -> float:
        """1 where nothing is known, 0 where all is; where the mean stays, how much the votes disagree."""
        if self.adjudicated is not None:
            return 0.0
        votes = list(self.candidate.votes.values())
        share = self.posterior if self.posterior is not None else sum(votes) / max(len(votes), 1)
        return 1 - abs(2 * share - 1)

    @property
    def marked_by(self) -> list[str]:
        """Raters who marked it."""
        return [rater for rater, vote in self.candidate.votes.items() if vote]


def judged_candidates(
    content: Mapping[str, Any],
    adjudicated: Mapping[str, Mapping[str, Mapping[int, Adjudication]]] | None = None,
) -> list[JudgedCandidate]:
    """All candidates of ``lesion_candidates.json``, the most doubtful first."""
    said = adjudicated or {}
    found = []
    for case, labels in content.items():
        for label, rows in labels.items():
            for row in rows:
                of_expert = said.get(case, {}).get(label, {}).get(row["candidate"])
                found.append(
                    JudgedCandidate(
                        case, label, row["candidate"], Candidate.from_json(row), row["posterior"],
                        None if of_expert is None else of_expert.is_real,
                    )
                )  # fmt: skip
    return sorted(found, key=lambda c: (-c.doubt, c.case, c.label, c.number))


def write_candidates_csv(path: Path, candidates: Sequence[JudgedCandidate]) -> None:
    """The file that an expert fills in: column ``real``, yes or no."""
    write_csv(path, COLUMNS, map(csv_row, candidates))


def csv_row(candidate: JudgedCandidate) -> dict[str, str]:
    """The columns of a candidate."""
    z, y, x = (*[""] * (3 - len(candidate.candidate.centre)), *map(str, candidate.candidate.centre))
    score, posterior = candidate.candidate.score, candidate.posterior
    said = candidate.adjudicated
    return {
        "case": candidate.case, "label": candidate.label, "candidate": str(candidate.number),
        "z": z, "y": y, "x": x, "marked_by": " ".join(candidate.marked_by),
        "score": "" if score is None else f"{score:.3f}",
        "posterior": "" if posterior is None else f"{posterior:.3f}",
        "real": "" if said is None else "yes" if said else "no",
    }  # fmt: skip


def read_adjudicated(path: Path, labels: Sequence[str]) -> dict[str, dict[str, dict[int, Adjudication]]]:
    """Case -> label -> candidate -> what an expert said, where column ``real`` is filled in.

    The columns are ``case``, ``candidate``, ``real``, and ``label`` where there are several. With ``z``,
    ``y`` and ``x`` (array indices) a candidate that moved since is noticed.

    Raises:
        UsageError: if the file cannot be used.
    """
    check_is_no_pipe(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--adjudicated {path}: cannot be read ({error}).") from error
    needed = {"case", "candidate", "real"} | ({"label"} if len(labels) > 1 else set())
    if not needed <= set(columns):
        raise UsageError(f"--adjudicated {path}: has no column {sorted(needed - set(columns))[0]!r}.")
    found: dict[str, dict[str, dict[int, Adjudication]]] = {}
    for line, row in enumerate(rows, start=2):
        said = (row["real"] or "").strip().lower()
        if not said:
            continue
        label = (row.get("label") or labels[0]).strip()
        where = f"--adjudicated {path}, line {line}: "
        if said not in YES + NO:
            raise UsageError(f"{where}real is {row['real']!r}; write yes or no, or leave it empty.")
        if label not in labels:
            raise UsageError(f"{where}the data set has no label {label!r}; it has {', '.join(labels)}.")
        try:
            number = int(row["candidate"])
            centre = tuple(int(row[axis]) for axis in ("z", "y", "x") if row.get(axis))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where}candidate, z, y and x are whole numbers.") from error
        of_label = found.setdefault(row["case"], {}).setdefault(label, {})
        if number in of_label and of_label[number].is_real != (said in YES):
            raise UsageError(f"{where}candidate {number} of case {row['case']} is said to be both.")
        of_label[number] = Adjudication(said in YES, centre or None)
    return found


def check_cases_known(adjudicated: Mapping[str, Any], cases: Sequence[str], path: Path) -> None:
    """Refuse cases that the data set does not train on."""
    strange = sorted(set(adjudicated) - set(cases))
    if strange:
        raise DatasetError(f"--adjudicated {path}: case {strange[0]} is no training case of the data set.")


def summarise(
    candidates: Sequence[JudgedCandidate],
    models: Mapping[str, DetectionModel],
    groups: Mapping[str, str],
    *,
    is_anonymous: bool = False,
) -> dict[str, Any]:
    """What to print: each rater's lesions found, missed, invented, with 95 % intervals over groups.

    Args:
        candidates: of the training cases.
        models: label -> model.
        groups: case -> patient.
        is_anonymous: all raters together.
    """
    doubtful = Counter[str]()
    for c in candidates:
        doubtful[c.case] += c.doubt > 0.4
    return {
        "labels": {
            label: _of_label([c for c in candidates if c.label == label], model, groups, is_anonymous)
            for label, model in models.items()
        },
        "cases_to_look_at": {case: n for case, n in doubtful.most_common(LISTED_CASES) if n},
    }


def _of_label(
    candidates: Sequence[JudgedCandidate],
    model: DetectionModel,
    groups: Mapping[str, str],
    is_anonymous: bool,
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "model": model.name,
        "reason": model.reason,
        "candidates": len(candidates),
        "marked_by_nobody": sum(not c.marked_by for c in candidates),
        "marked_by_one": sum(len(c.marked_by) == 1 for c in candidates),
    }
    judged = [c for c in candidates if c.posterior is not None]
    if model.is_mean or not judged:
        return summary
    summary["held_though_marked_by_nobody"] = sum(
        c.posterior is not None and c.posterior > 0.5 and not c.marked_by for c in judged
    )
    summary["held_though_marked_by_one"] = sum(
        c.posterior is not None and c.posterior > 0.5 and len(c.marked_by) == 1 and len(c.candidate.votes) > 1
        for c in judged
    )
    by_case: dict[str, list[Candidate]] = {}
    for c in sorted(judged, key=lambda c: (c.case, c.number)):
        by_case.setdefault(c.case, []).append(c.candidate)
    drawn = bootstrapped_rates(model, list(by_case.values()), [groups[case] for case in by_case], n=DRAWS)
    summary["rates"] = {
        rater: {
            "sensitivity": [round(s, 4), *_interval(drawn[rater][:, 0])],
            "inventions": [round(f, 4), *_interval(drawn[rater][:, 1])],
        }
        for rater, (s, f) in model.rates().items()
    }
    summary["raters"] = _counts(judged, groups, is_anonymous)
    return summary


def _counts(
    judged: Sequence[JudgedCandidate], groups: Mapping[str, str], is_anonymous: bool
) -> dict[str, dict[str, list[float]]]:
    """Rater -> expected number of lesions found and missed, and of inventions, with intervals."""
    index = {group: i for i, group in enumerate(sorted({groups[c.case] for c in judged}))}
    raters = sorted({rater for c in judged for rater in c.candidate.votes})
    names = ["*"] if is_anonymous else raters
    sums = np.zeros((len(names), 3, len(index)))
    for c in judged:
        p = c.posterior if c.posterior is not None else 0.0
        for rater, vote in c.candidate.votes.items():
            at = 0 if is_anonymous else raters.index(rater)
            sums[at, :, index[groups[c.case]]] += (p * vote, p * (1 - vote), (1 - p) * vote)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(index), np.full(len(index), 1 / len(index)), size=1000)
    return {
        name: {
            what: [round(float(sums[r, k].sum()), 1), *_interval(sums[r, k] @ weights.T, digits=1)]
            for k, what in enumerate(("found", "missed", "invented"))
        }
        for r, name in enumerate(names)
    }


def _interval(values: NDArray[Any], *, digits: int = 4) -> list[float]:
    return [round(float(v), digits) for v in np.quantile(values, (0.025, 0.975))]


def format_summary(summary: Mapping[str, Any]) -> str:
    """Lines for the terminal."""
    lines = []
    for label, found in summary["labels"].items():
        lines.append(f"{label}: {found['model']} ({found['reason']})")
        lines.append(
            f"  {found['candidates']} candidates, {found['marked_by_one']} marked by one rater, "
            f"{found['marked_by_nobody']} by nobody"
        )
        if "raters" not in found:
            continue
        lines.append(
            f"  the label now holds {found['held_though_marked_by_one']} that one rater marked and "
            f"{found['held_though_marked_by_nobody']} that nobody marked"
        )
        for rater, counts in found["raters"].items():
            parts = [f"{what} {n:.0f} ({low:.0f} to {high:.0f})" for what, (n, low, high) in counts.items()]
            rates = found["rates"].get(rater)
            share = (
                ""
                if rates is None
                else " = {:.2f} ({:.2f} to {:.2f}) of the lesions".format(*rates["sensitivity"])
            )
            lines.append(f"  rater {rater}: " + ", ".join(parts) + (f"; finds{share[2:]}" if share else ""))
    if summary["cases_to_look_at"]:
        cases = ", ".join(f"{case} ({n})" for case, n in summary["cases_to_look_at"].items())
        lines.append(f"cases to look at (doubtful candidates): {cases}")
    return "\n".join(lines)
