"""Candidates in the order of doubt, and what an expert said of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_softlabel.cases.case import Adjudication
from nnunet_softlabel.conversion.case_records import JudgedJson
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import check_is_no_pipe, write_csv
from nnunet_softlabel.fusion.candidate import Candidate

COLUMNS = ("case", "label", "candidate", "z", "y", "x", "marked_by", "score", "posterior", "real")
YES, NO = ("yes", "1", "true", "real"), ("no", "0", "false", "not")


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
    content: Mapping[str, Mapping[str, Sequence[JudgedJson]]],
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


def check_cases_known(adjudicated: Mapping[str, object], cases: Sequence[str], path: Path) -> None:
    """Refuse cases that the data set does not train on."""
    strange = sorted(set(adjudicated) - set(cases))
    if strange:
        raise DatasetError(f"--adjudicated {path}: case {strange[0]} is no training case of the data set.")
