"""The report of ``env --report``: what a maintainer asks first, in one paste."""

import builtins
import os
import platform
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch

from nnunet_softlabel import __version__, environment
from nnunet_softlabel.environment import describe_environment
from nnunet_softlabel.training.trainer_path import PLUGIN_FOLDER
from tests.conversion.conversion_helpers import run


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.lower().startswith("nnunet_")]:
        monkeypatch.delenv(name)


def lines():
    return [line.strip() for line in describe_environment().splitlines()]


def test_report_is_printed_instead_of_the_export_line(capsys):
    assert run("env", "--report") == 0
    text = capsys.readouterr().out
    assert text == describe_environment() + "\n"
    assert "export " not in text


def test_versions_are_those_installed():
    found = lines()
    assert found[0].startswith(f"nnunet_softlabel {__version__}, Python {platform.python_version()}, ")
    assert f"numpy {np.__version__}" in found
    assert f"nnunetv2 {metadata.version('nnunetv2')}" in found
    assert f"torch {metadata.version('torch')}" in found


def test_what_is_missing_is_said(monkeypatch):
    def version(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(environment.metadata, "version", version)
    assert "nnunetv2: not installed" in lines()


def test_a_source_tree_that_is_not_installed_is_said(monkeypatch):
    def requires(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(environment.metadata, "requires", requires)
    found = lines()
    assert "nnunet-softlabel: not installed, run from its source" in found
    assert f"torch {metadata.version('torch')}" in found


def test_only_what_the_package_needs_is_listed(monkeypatch):
    needed = ["numpy>=1.20,<3", "torch", "pytest>=8; extra == 'test'"]
    monkeypatch.setattr(environment.metadata, "requires", lambda _: needed)
    text = describe_environment()
    assert f"numpy {np.__version__}" in text
    assert "pytest" not in text


def test_folders_that_are_missing_or_read_only_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "gone"))
    found = lines()
    assert f"nnUNet_raw: {tmp_path}" in found
    assert "nnUNet_preprocessed: not set" in found
    assert f"nnUNet_results: {tmp_path / 'gone'} (no such folder)" in found
    monkeypatch.setattr(environment.os, "access", lambda *_: False)
    assert f"nnUNet_raw: {tmp_path} (cannot be written)" in lines()


def test_report_says_whether_nnunet_finds_the_trainers(monkeypatch):
    assert "nnUNet_extTrainer: not set (does not name our trainers)" in lines()
    monkeypatch.setenv("nnUNet_extTrainer", f"/mine{os.pathsep}{PLUGIN_FOLDER}")
    assert any(line.endswith("(names our trainers)") for line in lines())


def test_variables_that_change_a_training_are_told(monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = lines()
    assert "nnUNet_compile: f" in found
    assert "OMP_NUM_THREADS: 3" in found
    assert "CUDA_VISIBLE_DEVICES: not set" in found


def test_name_of_the_user_is_not_told(monkeypatch):
    monkeypatch.setattr(environment.os.path, "expanduser", lambda _: "/home/anna")
    monkeypatch.setenv("nnUNet_raw", "/home/anna/raw")
    monkeypatch.setenv(
        "nnUNet_extTrainer", f"/home/anna{os.pathsep}/home/annabel/x{os.pathsep}/data/home/anna"
    )
    text = describe_environment()
    assert "nnUNet_raw: ~/raw (no such folder)" in text
    assert f"nnUNet_extTrainer: ~{os.pathsep}/home/annabel/x{os.pathsep}/data/home/anna (" in text


def test_cpu_is_told_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    text = describe_environment()
    assert f"of {os.cpu_count()} CPU cores" in text
    assert "no CUDA device" in text


def test_gpus_are_told(monkeypatch):
    class Found:
        name, total_memory, major, minor = "Some GPU", 80 * 2**30, 9, 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Found)
    text = describe_environment()
    assert "cuda:1 Some GPU, 80 GiB, capability 9.0" in text
    assert "no CUDA device" not in text


def test_a_broken_torch_does_not_break_the_report(monkeypatch):
    import_module = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return import_module(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    text = describe_environment()
    assert "torch cannot be imported: libcudart.so.13: cannot open shared object file" in text
    assert "nnUNet_raw: not set" in text


def test_export_line_does_not_wait_for_torch():
    code = (
        "import sys; from nnunet_softlabel.cli import main; main(['env']); "
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert done.stderr.strip() == "False"
