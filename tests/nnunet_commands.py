"""nnU-Net's own command lines, read as nnU-Net reads them, without what they would do."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import distribution

import pytest


class ReadError(Exception):
    """What ends the program once its flags are read."""


def check_nnunet_understands(command: str | Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nnU-Net read the flags of ``nnUNetv2_... -d 501 ...``.

    Args:
        command: a line as our messages and pages show it, or its words.
        monkeypatch: undoes what is replaced.

    Raises:
        AssertionError: if nnU-Net has no such program, or refuses its flags.
    """
    program, *flags = shlex.split(command) if isinstance(command, str) else command
    entries = {entry.name: entry for entry in distribution("nnunetv2").entry_points}
    assert program in entries, f"nnU-Net has no {program}"
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(self: argparse.ArgumentParser, *args: object) -> None:
        _, unknown = parse(self)
        assert not unknown, f"{program} would ignore {shlex.join(unknown)}"
        raise ReadError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
        patch.setattr(sys, "argv", [program, *flags])
        try:
            entries[program].load()()
        except ReadError:
            return
        except SystemExit as error:
            raise AssertionError(f"nnU-Net refuses {program} {shlex.join(flags)}") from error
    raise AssertionError(f"{program} read no flags")
