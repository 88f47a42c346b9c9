"""Pictures of a benchmark's validation cases: of each case what one network said, with its own Dice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.refined_rows import Round
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.evaluation.case_scores import Row
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE, read_rows
from nnunet_softlabel.formats.files import read_json, visible
from nnunet_softlabel.report.comparison import case_values, home_reference
from nnunet_softlabel.report.pictures import CasePicture, case_picture, pick_cases

DRAWN_AT = 0.5  # the line on a picture


@dataclass
class Shown:
    """What pictures show of a row of the page: each case by its first cell, with the scores of that cell.

    Attributes:
        rows: of ``soft_metrics.csv``, one cell per case.
        folders: case -> folder with its probabilities.
        which: case -> which of several seeds or folds this is, in words; empty if there is one.
        thresholds: case -> class -> where its probabilities were cut.
    """

    rows: list[Row] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    which: dict[str, str] = field(default_factory=dict)
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, grid: BenchmarkGrid, cells: Sequence[Cell]) -> Shown:
        """Read the scores of the cells of a row."""
        found, cells_of = cls(), defaultdict[str, list[Cell]](list)
        for cell in cells:
            for path in visible(grid.validation_folder(cell), "*.npz"):
                cells_of[path.stem].append(cell)
        for cell in cells:
            cases = {case for case, own in cells_of.items() if own[0] == cell}
            scores = grid.evaluation_folder(cell)
            found.rows += [row for row in read_rows(scores / METRICS_FILE) if row["case"] in cases]
            cut = read_json(scores / SUMMARY_FILE)["threshold"]["values"]
            for case in cases:
                found.folders[case] = grid.validation_folder(cell)
                found.which[case] = _which_of(cell, cells_of[case])
                found.thresholds[case] = cut
        return found

    def dice_texts(self, class_name: str) -> dict[str, str]:
        """Case -> what stands under its picture."""
        values = case_values(
            self.rows, metric="dice", class_name=class_name, reference=home_reference("dice")
        )
        texts = {}
        for case, (value, _) in values.items():
            if value == value:
                cut = self.thresholds[case].get(class_name, DRAWN_AT)
                at = "" if cut == DRAWN_AT else f" at {cut:.3g}"
                texts[case] = f"Dice {value:.3f}{at}{self.which[case]}"
        return texts


def _which_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """Which of the cells that predicted a case this one is: ``, seed 0``."""
    seed = f", seed {cell.seed}" if any(other.seed != cell.seed for other in cells) else ""
    fold = f", fold {cell.fold}" if any(other.fold != cell.fold for other in cells) else ""
    return seed + fold


def case_pictures(every_round: Sequence[Round]) -> list[CasePicture]:
    """Best, median and worst Dice of every trainer in each class, with what every trainer predicted."""
    pictures = []
    shown = {name: Shown.of(own.grid, cells) for own in every_round for name, cells in own.finished.items()}
    for class_name in dict.fromkeys(str(row["class"]) for row in next(iter(shown.values())).rows):
        captions: dict[str, list[str]] = defaultdict(list)
        for name, run in shown.items():
            for case, caption in pick_cases(run.rows, class_name=class_name).items():
                captions[case].append(f"{caption} of {name}{run.which[case]}")
        scores = {name: run.dice_texts(class_name) for name, run in shown.items()}
        for case, texts in captions.items():
            pictures.append(
                case_picture(
                    every_round[0].grid.references,
                    case,
                    {name: run.folders[case] for name, run in shown.items() if case in run.folders},
                    class_name=class_name,
                    caption=f"{class_name}; {'; '.join(texts)}",
                    scores={name: found[case] for name, found in scores.items() if case in found},
                )
            )
    return pictures
