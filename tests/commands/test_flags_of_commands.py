"""The guard of all error tests: what it takes for a strange flag, and what not."""

import pytest

from tests.flags_of_commands import flags, strange_flags


@pytest.mark.parametrize(
    ("command", "message", "strange"),
    [
        ("evaluate", "--threshold 2: give a number between 0 and 1.", []),
        ("evaluate", "-tr X: no such trainer", ["-tr"]),
        ("tune-threshold", "cut-off file a-b.npz; nnU-Net's non-foreground", []),
        ("evaluate", "train with nnUNetv2_train -d 501 --val --npz; see -i.", []),
        ("evaluate", "run `nnunet_softlabel convert --groups FILE` first, or --regions.", ["--regions"]),
    ],
)
def test_flags_that_a_command_does_not_have_are_found(command, message, strange):
    assert strange_flags(f"nnunet_softlabel {command}", message) == strange


def test_every_command_is_known():
    assert "--overwrite" in flags()["tune-threshold"]
    assert strange_flags("convert_lidc.py", "--split: no such thing") == []
