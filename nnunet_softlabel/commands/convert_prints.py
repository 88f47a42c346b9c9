"""What ``nnunet_softlabel convert`` says of the data set that it made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_softlabel.formats.soft_labels import SoftLabels


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
