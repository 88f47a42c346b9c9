"""What ``nnunet_softlabel convert`` says of the data set that it made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_softlabel.cases.case import Case
    from nnunet_softlabel.conversion.settings import Fusion
    from nnunet_softlabel.formats.soft_labels import SoftLabels


def print_cases(cases: Sequence[Case], fusion: Fusion) -> list[Case]:
    """What was found, and what is left out for too few raters; returns the cases that are kept."""
    from nnunet_softlabel.conversion.summary import summary_of_cases, with_warnings, without_few_raters

    kept, left_out = without_few_raters(cases, fusion)
    lines, warnings = summary_of_cases(kept)
    print(with_warnings([*left_out, *lines], warnings))
    return kept


def print_next(cases: Sequence[Case], number: int) -> None:
    """The command that comes after a conversion of these cases, and what will not work."""
    from nnunet_softlabel.conversion.summary import too_few_for_folds

    for warning in too_few_for_folds(cases):
        print(f"WARNING: {warning}")
    print(f"Next: nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity")


def print_detection(dataset: Path) -> None:
    """What lesion-wise fusion decided, a line per label and per rater."""
    from nnunet_softlabel.conversion.record import detection_models

    for label, model in detection_models(dataset).items():
        print(f"{label}: {model.name} ({model.reason})")
        for rater, (sensitivity, inventions) in model.rates().items() if not model.is_mean else ():
            print(
                f"  rater {rater}: finds {sensitivity:.2f} of the lesions, marks {inventions:.2f} of the rest"
            )


def print_left_out(folder: Path) -> None:
    """How many cases are not trained on."""
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    left_out = SoftDataset(folder).about["dropped_cases"]
    if left_out:
        print(
            f"{len(left_out)} cases stay in the data set and are not trained on: splits_final.json in "
            f"nnUNet_preprocessed leaves them out, and our trainers with -f all, too."
        )


def _print_contents(about: SoftLabels) -> None:
    from nnunet_softlabel.conversion.summary import contents_in_words, with_warnings

    if about["source"] == "raters" and "summary" in about:
        print(with_warnings(*contents_in_words(about["summary"])))


def print_moves(folder: Path) -> None:
    """Which files were moved onto the grid of their image, and what the files hold."""
    from nnunet_softlabel.conversion.grids import moves_in_words
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    about = SoftDataset(folder).about
    for sentence in moves_in_words(about["moved"]):
        print(sentence)
    _print_contents(about)
