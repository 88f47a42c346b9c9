"""What the tables of the knee study compute beyond means."""

from __future__ import annotations

import numpy as np
import pytest

from docs.studies.knees.tables import label_changes


def row(label, loss, label_dice, dice):
    place = {"regime": "missed", "contrast": "1", "label": label, "loss": loss}
    return {**place, "label_dice": str(label_dice), "dice": str(dice)}


def test_changes_are_of_the_label_alone_and_of_the_next_label():
    rows = [
        row("majority", "BCE", 0.5, 0.1),
        row("majority", "BCE", 0.7, 0.3),  # another seed
        row("mean", "BCE", 0.8, 0.5),
        row("mean", "APL", 0.8, 0.6),
        row("anatomy", "APL", 0.8, 0.9),  # the same label: no change to explain anything
    ]
    assert label_changes(rows, "label_dice", "dice") == pytest.approx(np.array([[0.2, 0.3]]))
