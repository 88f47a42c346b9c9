"""Kills of a conversion in this process: at one of its operations on files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_softlabel.conversion.one_case import write as case_writer


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let the ``step``-th operation on files be the last, half done."""
    state = SimpleNamespace(count=0)

    def wrap(owner: Any, name: str, half: Callable[..., None]) -> None:
        original = getattr(owner, name)

        def operation(*args: Any, **kwargs: Any) -> Any:
            state.count += 1
            if state.count == step:
                half(*args)
                raise Killed
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, operation)

    def nothing(*args: Any) -> None: ...

    def half_a_file(path: Path, *args: Any) -> None:
        path.write_bytes(b"half a file")

    def half_a_copy(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:50])

    def half_a_folder(folder: Path, **kwargs: Any) -> None:
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file())[::2]:
            path.unlink()

    wrap(os, "rename", nothing)
    wrap(os, "replace", nothing)
    wrap(Path, "unlink", nothing)
    wrap(Path, "touch", nothing)
    wrap(Path, "mkdir", nothing)
    wrap(shutil, "rmtree", half_a_folder)
    wrap(case_writer, "write_image", half_a_file)
    wrap(case_writer, "write_probability", half_a_file)
    wrap(shutil, "copyfile", half_a_copy)
    return state
