"""A case for which memory does not suffice: one line that names the case and the remedy, nothing written."""

from __future__ import annotations

import shutil

import pytest

from nnunet_softlabel import memory
from nnunet_softlabel.cli import main
from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.formats import predictions

COMMANDS = ("evaluate", "tune-threshold", "calibrate", "apply-threshold", "average", "maps")


@pytest.fixture(params=COMMANDS)
def call(request, build, tmp_path, monkeypatch) -> list[str]:
    data = build()
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    shutil.copytree(data.predictions, tmp_path / "other")
    folders = [str(data.predictions), *([str(tmp_path / "other")] if request.param == "average" else [])]
    is_file = request.param in ("tune-threshold", "calibrate")
    output = tmp_path / ("output.json" if is_file else "output")
    more = ["--threshold", "0.4"] if request.param == "apply-threshold" else []
    return [request.param, "-d", "900", "-i", *folders, "-o", str(output), *more, "-np", "1"]


def starved(*_: object) -> None:
    raise MemoryError("Unable to allocate 9 GiB")


def test_fewer_processes_work_where_memory_is_short(call, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000 * 2**20)
    assert main([*call[:-1], "8"]) == 0
    line = "2 of 4 processes: 1.0 GiB of memory are free, and case case"
    assert capsys.readouterr().out.count(line) == 1


def test_while_it_is_read(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predictions, "_next_array", starved)
    assert main(call) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"nnunet_softlabel {call[0]}: error: ")
    assert "case0.npz: cannot be read: it takes more memory than there is (Unable to allocate 9 GiB)" in line
    assert "use a smaller -np" in line
    assert not list(tmp_path.glob("output*"))


def test_while_it_is_worked_on(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Decision, "take", starved)
    assert main(call) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Case case0: out of memory (Unable to allocate 9 GiB); run the same command again with" in line
    assert "smaller -np" in line
    assert not list(tmp_path.glob("output*"))
