"""Networks that have not learned: they mark nothing, or far too much. Told by trainer and by training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nnunet_softlabel.evaluation.case_scores import MODEL, Row
from nnunet_softlabel.evaluation.comparisons import CONSENSUS
from nnunet_softlabel.evaluation.tables import TRAINING

# marks far too much: all of the object, in less than a tenth of what is marked
COVERED_ABOVE, RIGHT_BELOW = 0.95, 0.1
NOTHING, TOO_MUCH, SOMETHING = "nothing", "too much", "something"


def dead_network(name: str, rows: Iterable[Row]) -> list[str]:
    """Sentences on classes of which a trainer marks nothing, or far too much, in most cases.

    A case that is scored more than once (seeds, folds) counts with what most of its trainings do.
    """
    sentences = []
    for class_name, trainings in _marks(rows).items():
        cases: dict[str, list[str]] = defaultdict(list)
        for own in trainings.values():
            for case, marks in own.items():
                cases[case] += marks
        found, number = _in_most(cases)
        differs = any(len(set(marks)) > 1 for marks in cases.values())
        most = ", by most of its trainings" if differs else ""
        if found == NOTHING:
            sentences.append(
                f"{name} marks no {class_name} in {number} of {len(cases)} cases that have one{most}: "
                f"this network has not learned, or has collapsed. Do not use it."
            )
        elif found == TOO_MUCH:
            sentences.append(
                f"{name} marks far too much {class_name} in {number} of {len(cases)} cases{most}: the whole "
                f"object and over nine times as much around it. Do not use this network at this threshold."
            )
    return sentences


def dead_trainings(name: str, rows: Iterable[Row]) -> list[str]:
    """Sentences on single trainings (seed, fold) of a trainer, by name; none where all do the same."""
    sentences = []
    for class_name, trainings in _marks(rows).items():
        found = {training: _in_most(cases) for training, cases in trainings.items()}
        if len({what for what, _ in found.values()}) < 2:
            continue
        for training, (what, number) in found.items():
            of = f"{number} of {len(trainings[training])} cases"
            if what == NOTHING:
                sentences.append(
                    f"{name}: the training {training} marks no {class_name} in {of} that have one: it has "
                    f"not learned, or has collapsed. Precision and HD95 need a mark: they are of the cases "
                    f"and trainings that have one."
                )
            elif what == TOO_MUCH:
                sentences.append(
                    f"{name}: the training {training} marks far too much {class_name} in {of}: the whole "
                    f"object and over nine times as much around it."
                )
    return sentences


def _marks(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Class -> training -> case that has the class -> what its predictions mark."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for row in rows:
        precision, recall = (float(row.get(metric, np.nan)) for metric in ("precision", "recall"))
        if (row["reference"], row["prediction"]) != (CONSENSUS, MODEL) or recall != recall:
            continue
        too_much = precision < RIGHT_BELOW and recall > COVERED_ABOVE
        mark = NOTHING if precision != precision else TOO_MUCH if too_much else SOMETHING
        trainings = found.setdefault(str(row["class"]), {})
        cases = trainings.setdefault(str(row.get(TRAINING, "")), {})
        cases.setdefault(str(row["case"]), []).append(mark)
    return found


def _in_most(cases: Mapping[str, Sequence[str]]) -> tuple[str, int]:
    """What the predictions of most cases mark, and in how many cases."""
    for what in (NOTHING, TOO_MUCH):
        number = sum(marks.count(what) > len(marks) / 2 for marks in cases.values())
        if number > len(cases) / 2:
            return what, number
    return SOMETHING, 0
