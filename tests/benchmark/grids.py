"""What the tests of the grid share."""

from dataclasses import fields

from nnunet_softlabel.benchmark import BenchmarkGrid, CellScoring, Trainings
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.training.budget import Budget

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerAPL")


def grid_of(dataset, output, *, budget=Budget(1, 1, "cpu"), commands=None, **options):  # noqa: B008
    """A grid of options of `Trainings` and of `CellScoring`, told apart by their names."""
    trainings = {field.name: options.pop(field.name) for field in fields(Trainings) if field.name in options}
    scoring = CellScoring(**options)
    return BenchmarkGrid(
        dataset, output, Trainings(**trainings), budget=budget, scoring=scoring, commands=commands
    )


def silent(text):
    pass


def differences(grid):
    summary = read_json(grid.output / "soft_summary.json")
    return {(d["metric"], d["baseline"], d["trainer"]): d for d in summary["differences"]}
