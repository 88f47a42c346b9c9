"""What the tests of the grid share."""

from nnunet_softlabel.formats.files import read_json

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerAPL")


def silent(text):
    pass


def differences(grid):
    summary = read_json(grid.output / "soft_summary.json")
    return {(d["metric"], d["baseline"], d["trainer"]): d for d in summary["differences"]}
