"""Rows of trainers that were trained again on refined labels, beside those of the first round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_softlabel import __version__
from nnunet_softlabel.benchmark.caveats import notes_on_versions
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.rounds import Rounds
from nnunet_softlabel.benchmark.second_round import read_record
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.evaluation.thresholds import RATER_CORRECTED
from nnunet_softlabel.report.runs import REFINED


@dataclass(frozen=True)
class Round:
    """A round, and what of it is trained and scored.

    Attributes:
        grid: its trainings.
        finished: name on the page -> cells.
        words: that tell its cells from those of the first round.
    """

    grid: BenchmarkGrid
    finished: Mapping[str, Sequence[Cell]]
    words: str = ""

    @property
    def cells(self) -> list[Cell]:
        """All that is finished."""
        return [cell for cells in self.finished.values() for cell in cells]


def refined_round(grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]) -> Round:
    """The second round under the names that its rows have."""
    return Round(grid, {name + REFINED: cells for name, cells in finished.items()}, " on refined labels")


def baselines_of_refined(second: Round, first: Mapping[str, Sequence[Cell]]) -> dict[str, str]:
    """A row is tested against itself on the labels of the first round."""
    found = {name: name.removesuffix(REFINED) for name in second.finished}
    return {name: own if own in first else next(iter(first)) for name, own in found.items()}


def refined_notes(grid: BenchmarkGrid, rounds: Rounds) -> list[str]:
    """What a reader must know of the second round."""
    if rounds.grid is None:
        return [f"There is no second round: {rounds.why}."]
    record = read_record(grid)
    assert record is not None, "there is a second round, so its labels have a record"
    name, training = record["dataset"], record["made_from"]["training"]
    notes = [
        f"{cell.name} on refined labels: {rounds.second[cell.name]}; not in this page."
        for cell in rounds.grid.cells
        if not rounds.second[cell.name].is_done
    ]
    notes.append(
        f"Rows with refined labels were trained on {name}. The validation probabilities of {training} made "
        f"its labels. All rows are scored against the labels of {grid.dataset.folder.name}. Where readers "
        f"miss lesions, so do these references. A truth or an adjudicated test set says more."
    )
    notes.append(
        "The refined label of a training case rests on a network that trained on other cases. The validation "
        "cases of the second round are among them. So refined rows may look a little too good on validation "
        "cases. The test set decides."
    )
    if record["made_from"]["code"] != __version__:
        notes.append(
            f"The refined labels were made with nnunet_softlabel {record['made_from']['code']}, not with "
            f"{__version__}, which is here now."
        )
    done = [cell for cell in rounds.grid.cells if rounds.second[cell.name].is_done]
    notes += [f"On refined labels, {text}" for text in notes_on_versions(rounds.grid, {"": done})]
    if grid.scoring.threshold == RATER_CORRECTED:
        notes.append(f"Refined rows are cut at 0.5: {RATER_CORRECTED} is right for the mean only.")
    if grid.scoring.calibrate is not None:
        notes.append("Refined rows are not recalibrated: the references miss what the raters missed.")
    return notes
